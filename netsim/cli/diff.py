"""``netsim diff BEFORE AFTER``: what a change of manifests changes in reachability."""

from __future__ import annotations

import sys
from typing import Any

from netsim.cli import policy_input
from netsim.cli.parser import input_options
from netsim.report.style import clean


def add(commands: Any, program: str) -> None:
    parser = commands.add_parser(
        "diff",
        help="what a change of manifests changes in reachability",
        description="Connections added, removed and changed between workloads, as port ranges, with the policy change that\n"
        "caused each. Exit 1 when there is a difference.",
        epilog=f"examples:\n  {program} diff @example @example\n"
        f"  {program} diff @example @example -o md   # made for a pull-request comment\n",
    )
    parser.add_argument("before", metavar="BEFORE", help="a file or directory")
    parser.add_argument("after", metavar="AFTER", help="likewise")
    policy_input.options(parser)
    parser.add_argument("-o", "--output", choices=("text", "json", "md"), default="text")
    input_options(parser)
    parser.set_defaults(run=run)


def run(given: Any) -> int:
    """``-f`` files belong to both sides: what does not change."""
    from netsim_policies.diff import diff, to_json, to_markdown, to_text
    from netsim_policies.world import world

    before, after = (
        world(cluster.store, policy_input.applied(given, cluster))
        for cluster in (policy_input.running(given, [*given.filename, path]) for path in (given.before, given.after))
    )
    found = diff(before, after, policy_input.family(given))
    if given.output == "json":
        import json

        sys.stdout.write(json.dumps(to_json(found), indent=2) + "\n")
    else:
        for line in to_markdown(found) if given.output == "md" else to_text(found):
            sys.stdout.write(clean(line) + "\n")
    return 1 if found else 0
