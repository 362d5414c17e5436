"""Outcomes made by hand: one delivery over VXLAN, one reject, one way out of the cluster."""

from __future__ import annotations

from fractions import Fraction

from netsim.errors import Source
from netsim.interpreter.outcome import DecidedBy, Disposition, Hop, IcmpError, Outcome, Step, StepKind
from netsim.linux.provenance import Provenance
from netsim.packet.address import IPAddress, ip
from netsim.packet.icmp import icmp_error
from netsim.packet.model import Frame, Packet, Proto, Tcp, Udp, Vxlan

SENT = Packet(ip("10.244.1.5"), ip("10.96.3.7"), Proto.TCP, Tcp(40000, 80))
WHY = Provenance("Service shop/cart:http", Source("cart.yaml", 12))


def moved(address: str, port: int = 8080) -> Packet:
    return Packet(SENT.src, ip(address), Proto.TCP, Tcp(40000, port), ttl=62)


def dnat(address: str) -> Step:
    return Step(
        StepKind.NAT,
        f"-A KUBE-SEP-X -p tcp -j DNAT --to-destination {address}:8080",
        hook="PREROUTING",
        table="nat",
        chain="KUBE-SEP-X",
        rule=2,
        before="10.96.3.7:80",
        after=f"{address}:8080",
        decisive=True,
        provenance=WHY,
    )


def jump() -> Step:
    text = "-A PREROUTING -j KUBE-SERVICES"
    return Step(StepKind.RULE, text, "PREROUTING", "nat", "PREROUTING", 1, provenance=Provenance("kube-proxy"))


def delivered(address: str = "10.244.2.7", pod: str = "pod/shop/cart-1", share: Fraction = Fraction(1, 3)) -> Outcome:
    inner = Frame("02:00:00:00:00:01", "02:00:00:00:00:02", moved(address))
    outer = Packet(
        ip("192.168.10.11"), ip("192.168.10.12"), Proto.UDP, Udp(51000, 8472, Vxlan(1, inner), checksum=False)
    )
    wire = Frame("02:00:00:00:00:0a", "02:00:00:00:00:0b", outer)
    encap = Step(StepKind.ENCAP, "vxlan 1 to 192.168.10.12", decisive=True)
    final = Step(StepKind.DELIVER, "to a local socket", decisive=True)
    hops = (
        Hop("pod/shop/web-0", "n1", None, [], [("eth0", "out", inner)]),
        Hop("node/n1", "n1", "veth1", [jump(), dnat(address), encap], [("veth1", "in", inner), ("eth0", "out", wire)]),
        Hop("node/n2", "n2", "eth0", [], [("eth0", "in", wire), ("veth7", "out", inner)]),
        Hop(pod, "n2", "eth0", [final], [("eth0", "in", inner)]),
    )
    by = DecidedBy("node/n1", "n1", dnat(address))
    return Outcome(share, Disposition.DELIVERED, pod, moved(address), False, None, by, 37, hops, (), SENT)


def ended(disposition: Disposition, text: str, error: IcmpError | None = None, because: str = "") -> Outcome:
    """A packet that died on node n1."""
    step = Step(
        StepKind.DROP, text, "FORWARD", "filter", "KUBE-FORWARD", 1, decisive=True,
        provenance=Provenance(because, Source("shop.yaml", 7)) if because else None,
    )  # fmt: skip
    hops = (Hop("node/n1", "n1", "veth1", [step], [("veth1", "in", SENT)]),)
    by = DecidedBy("node/n1", "n1", step)
    return Outcome(Fraction(1), disposition, None, SENT, False, error, by, 9, hops, (), SENT)


def rejected(origin: str = "10.244.1.1") -> Outcome:
    sender: IPAddress = ip(origin)
    message = icmp_error(SENT, 3, 3, sender)
    error = IcmpError(3, 3, "icmp-port-unreachable", sender, message)
    text = "-A KUBE-FORWARD -d 10.96.3.7/32 -j REJECT --reject-with icmp-port-unreachable"
    return ended(Disposition.REJECTED, text, error, "Service shop/cart:http has no endpoints")


def left() -> Outcome:
    out = Packet(ip("192.168.10.11"), ip("203.0.113.10"), Proto.TCP, Tcp(61000, 80), ttl=63)
    hops = (Hop("node/n1", "n1", "veth1", [], [("eth0", "out", out)]),)
    return Outcome(Fraction(1), Disposition.LEFT, "external", out, True, None, None, 5, hops, (), SENT)
