"""``netsim bench``: the backends side by side on one cluster and one workload."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsim.bench.side import Side


def add(commands: Any, program: str) -> None:
    from netsim.cli.parser import input_options

    parser = commands.add_parser(
        "bench",
        help="the backends side by side on one cluster and workload",
        description="Run one workload through the cluster with each data plane it can have, and compare: rules, the work\n"
        "they make, packets a second, how evenly Services share their load. Every pod is a client, every port of a\n"
        "Service with ready endpoints a target. Rates are those of netsim's own datapath, for one thread; what\n"
        "predicts a real kernel is the count of rules.",
        epilog=f"""\
examples:
  {program} bench -f @example --backends flannel:vxlan,flannel:ipip --flows 300 --packets 50000 --storm 200
  {program} bench -f @example --cni flat --flows 300 --packets 50000 --storm 200 --zipf 1.2 -o json""",
    )
    group = parser.add_argument_group("what to compare")
    group.add_argument("--backends", metavar="LIST",
                       help="comma separated: [PROXY/]CNI[:MODE], as iptables/flannel:vxlan (every one this cluster can "
                       "run; with --cni or --proxy, that one)")  # fmt: skip
    group = parser.add_argument_group("workload")
    group.add_argument("--flows", type=_positive, default=10_000, metavar="N", help="established flows (10000)")
    group.add_argument("--packets", type=_positive, default=1_000_000, metavar="N", help="packets of these (1000000)")
    group.add_argument("--storm", type=_positive, default=10_000, metavar="N", help="new flows beside them (10000)")
    group.add_argument("--zipf", type=_exponent, metavar="S",
                       help="the k-th Service is as popular as k to the -S (all alike)")  # fmt: skip
    group.add_argument(
        "--elephants", action="store_true", help="a tenth of the flows carries nine tenths of the packets"
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of flows, packets and random choices (0)")
    group.add_argument("--sample", type=_positive, default=20, metavar="N",
                       help="conversations held to the interpreter before anything is timed (20)")  # fmt: skip
    group.add_argument("--with-kernel", action="store_true",
                       help="also time this machine's kernel with 10, 100 and 1,000 Services (in namespaces)")  # fmt: skip
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", choices=("text", "json"), default="text")
    group.add_argument("--plot", metavar="FILE", help="also draw FILE.png or FILE.svg (needs matplotlib)")
    input_options(parser)
    parser.set_defaults(run=run)


def run(options: Any) -> int:
    from netsim.bench import report
    from netsim.bench.side import Workload
    from netsim.cli import inputs
    from netsim.errors import UsageError

    if inputs.print_kubectl(options):
        return 0
    if "-" in options.filename:
        raise UsageError("standard input can be read only once, and each backend reads the cluster: name a file")
    if options.backends and (options.cni or options.proxy):
        raise UsageError("--backends names data planes, and so do --cni and --proxy: give one of them")
    if options.storm < 100:
        raise UsageError("--storm: fewer than 100 new flows cannot be timed")
    if options.plot:
        from netsim.bench import plot

        plot.check(options.plot)
    load = Workload(
        flows=options.flows, packets=options.packets, new=options.storm, zipf=options.zipf,
        elephants=options.elephants, sample=min(options.sample, options.flows), seed=options.seed,
    )  # fmt: skip
    sides, left_out = _sides(options, load)
    points = []
    if options.with_kernel:
        from netsim.bench.kernel import compare

        with inputs.progress(options, "this machine's kernel") as told:
            points = compare(told or (lambda step: None))
    if options.plot:
        plot.write(options.plot, sides, points)
        inputs.talk(options).note(f"{options.plot} is drawn")
    if options.output == "json":
        import json

        sys.stdout.write(json.dumps(report.document(sides, left_out, load, points), indent=2) + "\n")
    else:
        for line in report.lines(sides, left_out, load, points, inputs.style(options)):
            sys.stdout.write(line + "\n")
    return 0


def _sides(options: Any, load: Any) -> tuple[list[Side], list[tuple[str, str]]]:
    """What was measured, and what this cluster cannot run (an error where it was asked for by name)."""
    from netsim.bench.side import measure_side
    from netsim.cli import inputs
    from netsim.errors import InputError, UsageError

    sides: list[Side] = []
    left_out: list[tuple[str, str]] = []
    said: set[str] = set()
    asked = bool(options.backends or options.cni or options.proxy)
    for name, proxy, cni in _cases(options):
        own = argparse.Namespace(**vars(options))
        own.proxy, own.cni = proxy, cni
        own.quiet = options.quiet or bool(sides)
        try:
            made = inputs.assembled(own)
        except (InputError, UsageError) as error:
            if asked:
                raise
            left_out.append((name, str(error).splitlines()[0]))
            continue
        for note in made.cluster.assumptions:  # each is said once; the first backend's have been
            if note not in said and sides:
                inputs.talk(options).note(f"{name}: {note}")
            said.add(note)
        with inputs.progress(options, name) as told:
            sides.append(measure_side(name, made, load, told or (lambda step: None)))
    if not sides:
        raise UsageError(
            "this cluster can run no data plane that is known here: " + "; ".join(map(": ".join, left_out))
        )
    return sides, left_out


def _cases(options: Any) -> list[tuple[str, str | None, str | None]]:
    """Name, ``--proxy`` and ``--cni`` of each data plane."""
    from netsim import backends
    from netsim.errors import UsageError

    if options.cni or options.proxy:
        return [("/".join(filter(None, (options.proxy, options.cni))), options.proxy, options.cni)]
    known = backends.discover()
    proxies = [name.removeprefix("kube-proxy-") for name, one in known.items() if one.role == "proxy"]
    if options.backends:
        found = []
        for text in options.backends.split(","):
            proxy, slash, cni = text.strip().rpartition("/")
            if not cni or (slash and not proxy):
                raise UsageError(f"--backends {options.backends}: {text!r} is not [PROXY/]CNI[:MODE]")
            found.append((text.strip(), proxy or None, cni))
        if len({name for name, *_ in found}) != len(found):
            raise UsageError(f"--backends {options.backends}: one is named twice")
        return found
    networks = [
        f"{name}:{mode}" if mode else name
        for name, one in known.items() if one.role == "cni" for mode in getattr(one, "modes", ("",))
    ]  # fmt: skip
    if len(proxies) == 1:
        return [(cni, proxies[0], cni) for cni in networks]
    return [(f"{proxy}/{cni}", proxy, cni) for proxy in proxies for cni in networks]


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 100_000_000:
        raise argparse.ArgumentTypeError(f"{text}: a number between 1 and 100000000 is needed")
    return int(text)


def _exponent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"{text}: an exponent is above 0 and at most 10")
    return value
