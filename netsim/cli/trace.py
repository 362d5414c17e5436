"""``netsim trace SRC DST``: where does this packet go, rule by rule, and why."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsim.cli.places import Place, Places
    from netsim.interpreter.origin import Origin
    from netsim.interpreter.outcome import Outcome
    from netsim.linux.network import Network
    from netsim.packet.model import Packet
    from netsim.report.traced import Traced


def add(commands: Any, program: str) -> None:
    from netsim.cli.parser import input_options

    parser = commands.add_parser(
        "trace",
        help="where does this packet go, rule by rule, and why",
        description="Follow one packet through every kernel on its way. Where a kernel draws a random number, every\n"
        "outcome is told with its probability.",
        epilog=f"""\
places: pod/NS/NAME, NS/NAME, deploy/NS/NAME (its first ready pod; sts, ds, rs, rc and job likewise), svc/NS/NAME:PORT,
  node/NAME, ADDRESS:PORT, external (a host outside the cluster), a DNS name or a URL

examples:
  {program} trace -f @example pod/shop/web-0 svc/shop/cart:http
  {program} trace -f @example external 192.168.20.13:30081 --summary
  {program} trace -f @example deploy/shop/frontend http://cart/ --reply -o json""",
    )
    parser.add_argument("source", metavar="SRC", help="who sends")
    parser.add_argument("target", metavar="DST", help="where to")
    group = parser.add_argument_group("the packet")
    group.add_argument("--port", type=_number("a port", 1, 65535), help="destination port, if DST gives none")
    group.add_argument(
        "--protocol", choices=("tcp", "udp", "sctp", "icmp"), type=str.lower, help="(tcp, or the Service's)"
    )
    group.add_argument("--sport", type=_number("a port", 1, 65535), default=40000, help="source port (40000)")
    group.add_argument("--size", type=_number("a size", 1, 65535), metavar="BYTES", help="of the whole IP packet")
    group.add_argument("--df", action="store_true", help="set the don't-fragment bit")
    group.add_argument("--ttl", type=_number("a TTL", 1, 255), default=64, help="TTL or hop limit (64)")
    group.add_argument("--flags", metavar="LIST", help="TCP flags, as syn,ack (syn)")
    group.add_argument("--family", type=int, choices=(4, 6), help="IPv4 or IPv6 where both would do")
    group.add_argument("--from-ip", metavar="ADDRESS", help="the address of external (203.0.113.10)")
    group = parser.add_argument_group("what to follow")
    choice = group.add_mutually_exclusive_group()
    choice.add_argument("--all", action="store_true", help="every outcome (default)")
    choice.add_argument("--seed", type=int, metavar="N", help="one outcome, drawn with this seed")
    group.add_argument("--reply", action="store_true", help="also the answer to each delivered packet")
    group.add_argument("--at", metavar="node/NAME", help="emulate this node alone: the packet enters there")
    group.add_argument("--in", dest="side", choices=("pod", "node", "external"), help="with --at: where it comes from")
    group.add_argument("--node-rules", metavar="DIR", help="kernel dumps of one node instead of Kubernetes objects")
    group = parser.add_argument_group("output")
    verbosity = group.add_mutually_exclusive_group()
    for name, text in (
        ("minimal", "one line an outcome"),
        ("summary", "one block a hop"),
        ("detailed", "every step (default)"),
    ):
        verbosity.add_argument(f"--{name}", dest="verbosity", action="store_const", const=name, help=text)
    group.add_argument(
        "-o", "--output", type=_output, default="text", metavar="FORMAT", help="text, json or pcapng=FILE"
    )
    input_options(parser)
    parser.set_defaults(run=run, verbosity="detailed")


def _number(what: str, low: int, high: int) -> Any:
    def read(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{what} is a number between {low} and {high}")
        return int(text)

    return read


def _output(text: str) -> str:
    if text in ("text", "json") or (text.startswith("pcapng=") and text != "pcapng="):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of text, json, pcapng=FILE")


def run(options: Any) -> int:
    from netsim.cli import inputs

    if inputs.print_kubectl(options):
        return 0
    traced = _ask(options)
    if options.output == "text":
        from netsim.report.text import lines

        for line in lines(traced, options.verbosity, inputs.style(options)):
            sys.stdout.write(line + "\n")
    elif options.output == "json":
        import json

        from netsim.report.json import trace_document

        sys.stdout.write(json.dumps(trace_document(traced), indent=2) + "\n")
    else:
        from netsim.report.pcapng import write_file

        path = options.output.removeprefix("pcapng=")
        count = write_file(traced, path)
        inputs.talk(options).note(f"{count} packets written to {path}")
    return 0


def _ask(options: Any) -> Traced:
    from netsim.cli import inputs
    from netsim.cli.packets import Wish, packet_between
    from netsim.cli.places import Places
    from netsim.errors import UsageError
    from netsim.interpreter import Disposition, trace, trace_reply
    from netsim.report.traced import Traced, plain_name

    outside = inputs.address("--from-ip", options.from_ip) if options.from_ip else None
    network: Network
    if options.node_rules:
        network, cluster, naming = inputs.dumped(options), None, plain_name
    else:
        made = inputs.assembled(options, outside)
        network, cluster, naming = made.network, made.cluster, made.place
    places = Places(cluster, network, options.namespace or "default", (outside,) if outside else ())
    source = places.source(options.source)
    target = places.destination(options.target, source)
    for note in (*source.notes, *target.notes):
        inputs.talk(options).note(note)
    _outside(network, places, source, target)
    node = _single_node(options, network, places)
    if options.reply and node is not None:
        raise UsageError("--reply needs the whole network: the answer comes from beyond the one node")
    packet = packet_between(network, source, target, Wish.of(options))
    origin = _origin(options, network, source, packet, node)
    follow: str | int = "all" if options.seed is None else options.seed
    outcomes = trace(network, origin, packet, follow=follow, only=node)
    if not options.node_rules and source.namespace is not None:
        from netsim.cli.policy_note import would_drop

        if (told := would_drop(made, source.namespace, outcomes)) is not None:
            inputs.talk(options).note(told)
    replies: dict[int, tuple[Outcome, ...]] = {}
    for number, outcome in enumerate(outcomes if options.reply else ()):
        if outcome.disposition in (Disposition.DELIVERED, Disposition.LEFT) and outcome.receiver is not None:
            replies[number] = tuple(trace_reply(network, outcome, follow=follow))
    sent = next((outcome.sent for outcome in outcomes if outcome.sent is not None), packet)
    return Traced(source.name, target.name, sent, tuple(outcomes), replies, naming)


def _outside(network: Network, places: Places, source: Place, target: Place) -> None:
    """An address that nobody in the cluster has belongs to the host outside."""
    from netsim.errors import UsageError

    move = getattr(network, "outside", None)
    if move is None:
        return  # one dumped node: all else is outside, and between two others it forwards
    strange = [place for place in (source, target) if place.namespace == "external"]
    if len(strange) == 2:
        raise UsageError(f"{source.name} and {target.name} are both outside: no packet between them meets the cluster")
    for place in strange:
        if place.addresses[0] not in places.external:
            move(place.addresses[0])


def _single_node(options: Any, network: Network, places: Places) -> str | None:
    """The namespace of ``--at``, or of the one node that was dumped."""
    from netsim.errors import UsageError

    if options.at is not None:
        place = places.source(options.at if "/" in options.at else f"node/{options.at}")
        if place.namespace is None or not place.namespace.startswith("node/"):
            raise UsageError(f"--at {options.at}: name a node, as node/NAME")
        return place.namespace
    if options.node_rules:
        return next(iter(network.namespaces))  # type: ignore[attr-defined,no-any-return]
    if options.side is not None:
        raise UsageError("--in goes with --at")
    return None


def _origin(options: Any, network: Network, source: Place, packet: Packet, node: str | None) -> Origin:
    """A process of the sender; on a single node, the device by which the sender's packets come in."""
    from netsim.errors import UsageError
    from netsim.interpreter import LocalOrigin, WireOrigin
    from netsim.linux.fib import Fib
    from netsim.linux.link import LinkKind

    assert source.namespace is not None
    if node is None:
        return LocalOrigin(source.namespace)
    held = network.namespace(node)
    fib = Fib(held)
    towards = fib.lookup(packet.src)
    own = fib.address_type(packet.src) == "LOCAL"
    plugged = {link.peer[1]: link.name for link in held.links if link.peer and link.peer[0] == source.namespace}
    uplinks = {link.name for link in held.links if link.kind is LinkKind.PHYSICAL}
    device = next(iter(plugged.values()), None) or towards.device
    side = options.side
    if side is None:
        outside = device is None or device in uplinks
        side = "node" if own else "external" if outside else "pod"
    if side == "node":
        return LocalOrigin(node)
    if side == "external":
        default = next((link.name for link in held.links if link.name in uplinks), None)
        device = device if device in uplinks else default or device
    elif not plugged:
        if device is None or device in uplinks:
            raise UsageError(f"--in pod: {packet.src} is no pod of {node}")
        device = min((link.name for link in held.links if link.master == device), default=device)
    if device is None:
        raise UsageError(f"{node} has no device by which {packet.src} could come in")
    return WireOrigin(node, device)
