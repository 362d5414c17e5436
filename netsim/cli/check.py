"""``netsim check EXPECTATIONS``: do these connections work or fail as expected; made for CI."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from netsim.cli import policy_input
from netsim.cli.parser import input_options
from netsim.report.style import clean

if TYPE_CHECKING:
    from netsim.cli.ways import Ways


def add(commands: Any, program: str) -> None:
    parser = commands.add_parser(
        "check",
        help="do these connections work or fail as expected; for CI",
        description="Expectations are YAML or JSON:\n"
        "  expectations: [{name?, from, to, protocol: TCP, port: 80, expect: allow|deny, via?, because?}]\n"
        "Exit 0 when all hold, 1 when one does not, with the explanation that disproves it.",
        epilog=f"examples:\n  {program} check -f @example @expectations\n"
        f"  {program} check -f @example @expectations -o json\n",
    )
    parser.add_argument(
        "expectations", metavar="EXPECTATIONS", help="the file; - is standard input, @expectations those of @example"
    )
    parser.add_argument("--junit", metavar="FILE", help="also write a JUnit report there")
    policy_input.options(parser)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    input_options(parser)
    parser.set_defaults(run=run)


def _ways(given: Any) -> Ways:
    """The data plane of the same input; its notes have been said."""
    import argparse

    from netsim.cli import inputs
    from netsim.cli.ways import Ways

    quiet = argparse.Namespace(**{**vars(given), "quiet": True})
    return Ways(inputs.assembled(quiet), given.namespace or "default")


def run(given: Any) -> int:
    from netsim.cli.expectations import evaluate, junit, read

    expectations = read(given.expectations)
    asked = policy_input.question(given)
    results = evaluate(asked, expectations, policy_input.family(given), lambda: _ways(given))
    if given.junit:
        with open(given.junit, "w", encoding="utf-8") as file:
            file.write(junit(results))
    if given.output == "json":
        import json

        document = {
            "apiVersion": "netsim/v1alpha1",
            "kind": "CheckResults",
            "expectations": [result.to_json() for result in results],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        for result in results:
            for line in result.lines():
                sys.stdout.write(clean(line) + "\n")
        failed = sum(not result.holds for result in results)
        plural = "" if len(results) == 1 else "s"
        sys.stdout.write(f"{len(results)} expectation{plural}, {len(results) - failed} hold, {failed} fail\n")
    return 0 if all(result.holds for result in results) else 1
