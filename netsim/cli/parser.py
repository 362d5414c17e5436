"""The argument parser: one subcommand a module, common input options once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

EPILOG = """\
exit codes: 0 done, and what was expected holds; 1 an expectation does not hold, or a difference was found; 2 usage;
3 input unusable; 4 a missing privilege or kernel feature; 5 model and kernel disagree; 70 internal error; 130 interrupted
"""


class Parser(argparse.ArgumentParser):
    """Errors begin like all others, and name the help."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message}\nerror: {self.prog} --help tells more\n")


def build(program: str) -> Parser:
    from netsim.cli import bench, check, diff, explain, lab, lint, reach, render, replay, trace, version

    parser = Parser(
        prog=program,
        description="Where does this packet go in a Kubernetes cluster, and why: exactly, offline.",
        epilog=f"examples:\n  {program} trace -f @example pod/shop/web-0 svc/shop/cart:http\n"
        f"  {program} render -f @example n1 iptables\n\n{EPILOG}",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for module in (trace, render, check, reach, explain, diff, lint, replay, bench, lab, version):
        module.add(commands, program)
    return parser


def parse(program: str, arguments: Sequence[str]) -> Any:
    """The options of one command. WHAT… may follow options, as kubectl's arguments may: argparse alone takes a list of
    positional arguments only in one piece."""
    parser = build(program)
    options, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(options, "what") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.what += rest
    return options


def input_options(parser: argparse.ArgumentParser) -> None:
    """Where the cluster comes from, and which data plane it runs."""
    group = parser.add_argument_group("input")
    group.add_argument(
        "-f", "--filename", action="append", default=[], metavar="FILE",
        help="a file or directory of manifests or of a `kubectl get -o yaml|json` dump; - is standard input, "
        "@example the cluster that comes with netsim; may be repeated",
    )  # fmt: skip
    group.add_argument("-R", "--recursive", action="store_true", help="look into subdirectories")
    group.add_argument("-n", "--namespace", metavar="NS", help="the namespace of names that give none (default)")
    group.add_argument(
        "-A",
        "--all-namespaces",
        action="store_true",
        help="with --context: all namespaces (always so; kubectl's habit)",
    )
    group.add_argument("--context", metavar="NAME", help="ask a live cluster, through kubectl get (read-only)")
    group.add_argument("--print-kubectl", action="store_true", help="show the kubectl commands of --context and stop")
    group.add_argument(
        "--lenient", action="store_true", help="leave out what is wrong in the input instead of stopping"
    )
    group = parser.add_argument_group("data plane (default: what the input says)")
    group.add_argument("--proxy", metavar="MODE", help="the kube-proxy mode: iptables")
    group.add_argument("--cni", metavar="TYPE[:MODE]", help="the network plugin, as flannel:host-gw or flat")
    group.add_argument(
        "--nodes", type=_count, default=0, metavar="N", help="how many nodes to supply if the input has none"
    )
    group.add_argument(
        "--pod-cidr", action="append", default=[], metavar="CIDR", help="one per family; repeat or use a comma"
    )
    group.add_argument("--service-cidr", action="append", default=[], metavar="CIDR", help="likewise, for Services")
    output_options(parser)


def output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("talk")
    group.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="(auto: on a terminal)")
    group.add_argument("-q", "--quiet", action="store_true", help="no notes on stderr")


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 15000:
        raise argparse.ArgumentTypeError("a number of nodes is between 1 and 15000")
    return int(text)
