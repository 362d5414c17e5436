"""Facts that the kernels ask for when they first need them, each answered by the interpreter's own function.

A fault names a kind, a number and a value (``netsim.compiled.world``, ``journey``); the answer goes into the tables, and the
packet is run again.
"""

from __future__ import annotations

from functools import lru_cache

from netsim.compiled import journey as jn
from netsim.compiled import world as wd
from netsim.compiled.addresses import Addresses
from netsim.compiled.fib import FibCompiler
from netsim.compiled.flow_records import TIMEOUT_NAMES
from netsim.compiled.names import Names
from netsim.compiled.rule_compiler import Renewed, RuleCompiler
from netsim.compiled.world import World as Tables
from netsim.datapath.wires import Wires
from netsim.interpreter.ingress import is_multicast_mac
from netsim.interpreter.neighbours import port_towards, resolve
from netsim.interpreter.scene import Scene, World
from netsim.linux.conntrack import TIMEOUTS
from netsim.linux.link import Link, LinkKind
from netsim.linux.netfilter.base import TABLE_HOOKS
from netsim.linux.network import Network, Renewal
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family

_TIMEOUT_SYSCTL = "net.netfilter.nf_conntrack_"


class Supply:
    def __init__(
        self,
        network: Network,
        addresses: Addresses,
        names: Names,
        tables: Tables,
        fib: FibCompiler,
        rules: RuleCompiler,
    ) -> None:
        self.network = network
        self.scenes = World(network)
        self.addresses = addresses
        self.names = names
        self.tables = tables
        self.fib = fib
        self.rules = rules
        self.wires = Wires(self.scenes, addresses, names, tables, self.add)

    # -- namespaces ---------------------------------------------------------------------------------------------------
    def add(self, name: str) -> int:
        """The number of a namespace whose tables are there. KeyError if the network has none of that name."""
        number = self.tables.number(name)
        if self.tables.has(number):
            return number
        namespace = self.network.namespace(name)
        compiled = {}
        for family, ruleset in namespace.rulesets.items():
            for table in ruleset.tables.values():
                its = self.rules.table(name, table, family, namespace.ipsets)
                hooks = {hook.value: self.rules.entry(its, hook) for hook in TABLE_HOOKS[table.name]}
                compiled[family, table.name] = (its, hooks)
        self.fib.add(number, namespace)
        segments = {link.segment for link in namespace.links if link.segment is not None}
        tracks = False, False
        if namespace.rulesets:
            scene = self.scenes.scene(name)
            tracks = scene.tracks(Family.IPV4), scene.tracks(Family.IPV6)
        self.tables.add(
            namespace,
            tracks=tracks,
            tables=compiled,
            timeouts=_timeouts(tuple(sorted(namespace.sysctls.items()))),
            segment_mtus={segment: self.network.segment_mtu(segment) for segment in segments},
        )
        self.wires.join(namespace)
        return number

    # -- generations --------------------------------------------------------------------------------------------------
    def renew(self, network: Network, renewal: Renewal) -> Renewed:
        """Go on with the next generation of the network. KeyError if a namespace is gone that has been visited."""
        self.network = self.scenes.network = network
        renewed = self.rules.renew(renewal)
        for (name, family, table), (number, _) in renewed.tables.items():
            self.tables.retable(str(name), family, table, number)
        again = [name for name in renewal.namespaces if self.tables.forget(name)]
        if again:  # who answers on the wire may have changed with them
            learnt = wd.NEIGHBOUR4, wd.NEIGHBOUR6, wd.PORT, wd.STATION, wd.LEASE, wd.RESOLVED4, wd.RESOLVED6
            self.tables.facts.forget(*learnt)
            self.wires.forget()
        for name in again:
            self.add(name)
        return renewed

    # -- facts --------------------------------------------------------------------------------------------------------
    def answer(self, kind: int, number: int, value: int) -> None:
        if kind == jn.FAULT_NAMESPACE_WANTED:
            self.add(self.tables.name(number))
        elif kind == jn.FAULT_RULES:
            self.rules.fault(number, value)
        elif kind == jn.FAULT_FIB:
            self.fib.fault(number, value)
        elif kind in (wd.NEIGHBOUR4, wd.NEIGHBOUR6):
            self._neighbour(kind, number, value)
        elif kind == wd.PORT:
            self._port(number, value)
        elif kind == wd.STATION:
            self._station(number, value)
        elif kind == wd.LEASE:
            self._lease(number, value)
        else:
            raise AssertionError(f"nobody can supply {kind}, {number}, {value}")

    def _device(self, number: int) -> tuple[Scene, Link]:
        name, link = self.tables.device(number)
        return self.scenes.scene(name), link

    def _neighbour(self, kind: int, device: int, hop: int) -> None:
        scene, link = self._device(device)
        if self.wires.list_wire_of(scene.namespace, link):
            return
        address = self.addresses.address(hop, 4 if kind == wd.NEIGHBOUR4 else 6)
        found = resolve(self.scenes, scene, link, address)
        mac = wd.NOBODY if found is None else self.names.number(found.mac)
        if link.segment is not None and self.network.on_segment(link.segment, address) is not None:
            # The namespace's own entries are in the tables already: this is the answer to all on the segment, and 5,000
            # nodes do not ask about each other one by one.
            kind = wd.RESOLVED4 if kind == wd.NEIGHBOUR4 else wd.RESOLVED6
            self.tables.facts.set(kind, self.names.number(link.segment), hop, mac)
        else:
            self.tables.facts.set(kind, device, hop, mac)

    def _port(self, bridge: int, mac: int) -> None:
        scene, link = self._device(bridge)
        if self.wires.list_wire_of(scene.namespace, link):
            return
        text = self.names.name(mac)
        own = {link.mac, *(held.mac for held in scene.ports.get(link.name, ()))}
        answer = wd.NOBODY
        if text in own:
            answer = wd.BRIDGE_UP
        elif not is_multicast_mac(text):
            port = port_towards(self.scenes, scene, link, text)
            answer = wd.NOBODY if port is None else self.tables.device_number(scene.name, port.name)
        self.tables.facts.set(wd.PORT, bridge, mac, answer)

    def _station(self, segment: int, mac: int) -> None:
        there = self.network.by_mac(self.names.name(segment), self.names.name(mac))
        answer = wd.NOBODY
        if there is not None:
            self.add(there[0])
            answer = self.tables.device_number(*there) or wd.NOBODY
        self.tables.facts.set(wd.STATION, segment, mac, answer)

    def _lease(self, device: int, destination: int) -> None:
        _, link = self._device(device)
        assert link.udp_tunnel is not None
        address = self.addresses.address(destination, 4)
        peer = next((peer for subnet, peer in link.udp_tunnel.peers if address in subnet), None)
        answer = wd.NOBODY if peer is None else wd.signed(self.addresses.handle(peer))
        self.tables.facts.set(wd.LEASE, device, destination, answer)

    def warm(self, namespace: str) -> None:
        """Supply at once what packets to the stations behind a namespace's bridges will ask for."""
        scene = self.scenes.scene(namespace)
        self.add(namespace)
        for link in scene.namespace.links:
            if link.kind is LinkKind.BRIDGE:
                self.wires.list_wire_of(scene.namespace, link)


@lru_cache(maxsize=1024)
def _timeouts(given: tuple[tuple[str, str], ...]) -> tuple[tuple[float, ...], bool, bool]:
    """Of a namespace's sysctls: seconds by column of ``FlowState.timeouts``; whether flows may be picked up in the middle;
    whether windows do not count."""
    own, sysctls = dict(given), Sysctls(dict(given))

    def timeout(name: str) -> float:
        return float(own.get(_TIMEOUT_SYSCTL + name, TIMEOUTS.get(name, 0)))

    loose = bool(sysctls.number(_TIMEOUT_SYSCTL + "tcp_loose"))
    liberal = bool(sysctls.number(_TIMEOUT_SYSCTL + "tcp_be_liberal"))
    return tuple([timeout(name) for name in TIMEOUT_NAMES]), loose, liberal
