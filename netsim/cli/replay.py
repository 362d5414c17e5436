"""``netsim replay CAPTURE``: a capture through the cluster, as if its senders sent it all again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from netsim.cli.places import Places
    from netsim.datapath.replay import Survey
    from netsim.interpreter.origin import Origin
    from netsim.packet.address import IPAddress
    from netsim.topology.assemble import Assembled

BUNDLED = "@example"


def add(commands: Any, program: str) -> None:
    from netsim.cli.parser import input_options

    parser = commands.add_parser(
        "replay",
        help="a capture through the cluster: what arrives where, and what does not",
        description="Send the packets of a capture again: each by the pod, node or outside host that has its source\n"
        "address, at the time it was captured. Answers (the exact reverse of an earlier packet) are sent by whoever\n"
        "received that packet now, since a Service may choose another endpoint than it did then.",
        epilog=f"""\
CAPTURE is a pcap or pcapng file of Ethernet, Linux cooked, raw IP or loopback frames; {BUNDLED} is a small one
of the bundled cluster. Capture where packets are sent, before anything translates them (the pods' interfaces).

examples:
  {program} replay {BUNDLED} -f @example
  {program} replay {BUNDLED} -f @example --seed 7 -o json
  {program} replay {BUNDLED} -f @example --proxy iptables --cni flannel:host-gw""",
    )
    parser.add_argument("capture", metavar="CAPTURE", help="a pcap or pcapng file")
    group = parser.add_argument_group("what to run")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the kernels' random choices (0)")
    group.add_argument(
        "--interpret", action="store_true",
        help="run every packet through the interpreter, for comparison: slow, and its random choices are others",
    )  # fmt: skip
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output", choices=("text", "json"), default="text", help="the summary as (text)")
    group.add_argument(
        "--write", metavar="FILE.pcapng", help="also write the packets as received, verdicts as comments"
    )
    group.add_argument("--parquet", metavar="FILE", help="also write one row for each packet (needs pyarrow)")
    input_options(parser)
    parser.set_defaults(run=run)


def run(options: Any) -> int:
    from contextlib import ExitStack

    from netsim.cli import inputs
    from netsim.cli.places import Places
    from netsim.datapath.capture import Capture
    from netsim.datapath.engine import Datapath
    from netsim.datapath.replay import Replay, survey
    from netsim.report.files import whole_file
    from netsim.report.replay import Summary
    from netsim.report.replay_files import ParquetResults, PcapngResults

    if inputs.print_kubectl(options):
        return 0
    path = _bundled() if options.capture == BUNDLED else options.capture
    held = survey(Capture(path))
    made = inputs.assembled(options)
    places = Places(made.cluster, made.network, options.namespace or "default")
    senders = _senders(made, places, held)
    with inputs.progress(options, "getting the datapath ready") as told:
        engine = Datapath(made.network, seed=options.seed, compiled=not options.interpret, told=told)
    replay = Replay(engine, senders)
    explain = getattr(engine, "explain", None)
    summary = Summary(options.capture, held, replay, options.seed, made.place, explain)
    with ExitStack() as files:
        writers: list[PcapngResults | ParquetResults] = []
        if options.write:
            writers.append(PcapngResults(files.enter_context(whole_file(options.write))))
        if options.parquet:
            writers.append(ParquetResults(files.enter_context(whole_file(options.parquet))))
        for part in replay.run(Capture(path)):
            summary.add(part, engine)
            for writer in writers:
                writer.add(part, engine)
        for writer in writers:
            writer.close()
    if options.output == "json":
        import json

        sys.stdout.write(json.dumps(summary.document(), indent=2) + "\n")
    else:
        for line in summary.lines(inputs.style(options)):
            sys.stdout.write(line + "\n")
    return 0


def _bundled() -> str:
    from importlib.resources import files

    return str(files("netsim.data") / "example.pcap")


def _senders(made: Assembled, places: Places, held: Survey) -> Mapping[IPAddress, Origin | str]:
    """Who sends from each source address, or why nobody does. Addresses that are not the cluster's become the outside's."""
    from netsim.datapath.replay import NO_BEGINNING
    from netsim.interpreter.origin import LocalOrigin

    outside: list[IPAddress] = []
    senders: dict[IPAddress, Origin | str] = {}
    for address in sorted(held.sources | held.destinations, key=lambda one: (one.version, int(one))):
        if address.is_multicast or address.is_loopback or address.is_link_local or address.is_unspecified:
            senders[address] = "from an address that is no host's own (unspecified, loopback, link-local, multicast)"
        elif address.version == 4 and int(address) == 0xFFFFFFFF:
            senders[address] = "from the broadcast address"
        elif places.is_service(address):
            senders[address] = NO_BEGINNING
        elif (namespace := places.destination(str(address)).namespace) is None:
            senders[address] = "from an address of the cluster that nobody has"
        else:
            senders[address] = LocalOrigin(namespace)
            if namespace == "external":
                outside.append(address)
    made.network.outside(*outside)
    return senders
