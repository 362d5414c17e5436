"""``via`` of expectations: does a packet pass the nodes and devices that were named, in that order?

Policies have no paths. So the packet is traced through the data plane of the input (its CNI and proxy, as ``netsim trace``
chooses them), and each of its outcomes is held against the list. A name is a node (``n2``, ``node/n2``) or a device
(``flannel.1``); others may lie between those named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from netsim.errors import UsageError

if TYPE_CHECKING:
    from netsim.cli.expectations import Expectation
    from netsim.interpreter.outcome import Outcome
    from netsim.packet.address import Family
    from netsim.topology.assemble import Assembled


class Ways:
    """The network of an input, asked for paths."""

    def __init__(self, made: Assembled, namespace: str = "default") -> None:
        from netsim.cli.places import Places

        self.made = made
        self.places = Places(made.cluster, made.network, namespace)

    def others(self, expectation: Expectation, family: Family) -> tuple[str, ...]:
        """The ways that packets of this expectation take and that do not pass ``via``. UsageError for a name in it that
        is no node and no device of any node."""
        wanted = [name.removeprefix("node/") for name in expectation.via]
        for name in wanted:
            self._known(name)
        ways = [list(stations(outcome)) for outcome in self._outcomes(expectation, family)]
        return tuple(dict.fromkeys(" ".join(way) for way in ways if not _in_order(wanted, way)))

    def _outcomes(self, expectation: Expectation, family: Family) -> Sequence[Outcome]:
        from netsim.cli.packets import Wish, packet_between
        from netsim.interpreter import LocalOrigin, trace

        text, port = expectation.destination.removeprefix("ip:"), expectation.port
        if isinstance(port, str):
            text, port = f"{text}:{port}", None
        source = self.places.source(expectation.source.removeprefix("ip:"))
        target = self.places.destination(text, source)
        assert source.namespace is not None
        protocol = expectation.protocol.lower()
        wish = Wish(protocol=protocol, port=port if target.port is None else None, family=family.value)
        packet = packet_between(self.made.network, source, target, wish)
        return trace(self.made.network, LocalOrigin(source.namespace), packet)

    def _known(self, name: str) -> None:
        nodes = self.made.cluster.nodes
        if name in nodes:
            return
        devices = (link.name for node in nodes for link in self.made.network.namespace(f"node/{node}").links)
        if not any(name == device for device in devices):
            listed = ", ".join(list(nodes)[:5]) + (" …" if len(nodes) > 5 else "")
            raise UsageError(f"via: {name!r} is no node ({listed}) and no device of any node")


def stations(outcome: Outcome) -> Iterator[str]:
    """The nodes that a packet passes, each with the devices on which it was seen there, in order."""
    last = None
    for hop in outcome.hops:
        if hop.node is None or not hop.namespace.startswith("node/"):
            continue
        if hop.node != last:
            yield hop.node
            last = hop.node
        seen = [hop.device, *(device for device, _, _ in hop.wire)]
        yield from dict.fromkeys(device for device in seen if device)


def _in_order(wanted: Sequence[str], way: Sequence[str]) -> bool:
    """Is ``wanted`` a subsequence of ``way``?"""
    rest = iter(way)
    return all(name in rest for name in wanted)
