"""What is listed of a bridge at once is what the interpreter says when it is asked one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from netsim.compiled import world as wd
from netsim.datapath.engine import Datapath
from netsim.datapath.supply import Supply
from netsim.interpreter.neighbours import STATIONS, _answers, answered, port_towards, resolve
from netsim.interpreter.scene import Scene, World
from netsim.linux.fib import Fib
from netsim.linux.kernel_made import own_addresses
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, StaticNetwork
from netsim.linux.route import TABLE_LOCAL, Address, FdbEntry, Neighbour, Route, RouteType
from netsim.packet.address import Family, interface, ip, network
from tests.support import routing_worlds

POOL = [f"10.0.0.{n}" for n in (1, 2, 3, 4, 255)] + ["10.0.1.9", "10.9.0.1", "fd00::1", "fd00::2", "fd00::"]
MACS = [f"02:00:00:00:00:{n:02x}" for n in range(1, 8)] + ["03:00:00:00:00:01"]
NODE, BRIDGE = "node/n", "br0"
LO = Link("lo", LinkKind.LOOPBACK)


def rarely(draw: st.DrawFn, times: int = 12) -> bool:
    return draw(st.integers(0, times)) == times


def address(draw: st.DrawFn, device: str) -> Address:
    text = draw(st.sampled_from(POOL))
    length = draw(st.sampled_from((24, 32, 16) if "." in text else (64, 128)))
    return Address(device, interface(f"{text}/{length}"))


def some_sysctls(draw: st.DrawFn) -> dict[str, str]:
    held = {"net.ipv4.ip_forward": "1"} if draw(st.booleans()) else {}
    for name in ("proxy_arp", "arp_ignore"):
        if rarely(draw):
            held[f"net.ipv4.conf.{draw(st.sampled_from(('all', 'eth0', BRIDGE)))}.{name}"] = "1"
    return held


def some_routes(draw: st.DrawFn) -> tuple[Route, ...]:
    if not rarely(draw):
        return ()
    kind = draw(st.sampled_from((RouteType.LOCAL, RouteType.UNICAST)))
    table = {"table": TABLE_LOCAL} if draw(st.booleans()) else {}
    return (Route(network("10.9.0.0/16"), device="lo", type=kind, **table),)  # type: ignore[arg-type]


@st.composite
def bridges(draw: st.DrawFn) -> StaticNetwork:
    """A node with a bridge, and pods behind its ports; here and there something that makes them no wire."""
    macs = (
        draw(st.permutations(MACS)) if draw(st.booleans()) else st.lists(st.sampled_from(MACS), min_size=8, max_size=8)
    )
    given_macs = macs if isinstance(macs, list) else draw(macs)
    numbers = count()
    links = [LO, Link(BRIDGE, LinkKind.BRIDGE, mac=given_macs[next(numbers)], up=not rarely(draw))]
    found: dict[str, Namespace] = {}
    for n in range(draw(st.integers(1, 4))):
        name, port = f"pod/p/{n}", f"veth{n}"
        master = None if rarely(draw) else BRIDGE
        mac = None if rarely(draw) else given_macs[next(numbers)]
        peer = (NODE, "veth0" if rarely(draw) else port)
        eth0 = Link(
            "eth0", LinkKind.VETH, mac=mac, peer=peer, up=not rarely(draw), master="in" if rarely(draw) else None
        )
        more = [Link("in", LinkKind.BRIDGE, mac=MACS[5])] if rarely(draw, 6) else []
        links.append(Link(port, LinkKind.VETH, mac=f"02:01:00:00:00:0{n}", peer=(name, "eth0"), master=master,
                          up=not rarely(draw)))  # fmt: skip
        if rarely(draw):
            continue  # nothing is known of this pod
        held = [address(draw, "eth0")] + [address(draw, draw(st.sampled_from(("lo", "eth0"))))] * rarely(draw, 5)
        known = (Neighbour(ip("10.0.0.2"), "eth0", MACS[6]),) * rarely(draw)
        found[name] = Namespace(name, (LO, eth0, *more), tuple(held), some_routes(draw), (), known,
                                sysctls=some_sysctls(draw))  # fmt: skip
    if rarely(draw):
        links.append(Link("ens3", LinkKind.PHYSICAL, mac=MACS[4], master=BRIDGE, segment="lan"))
    entries = [FdbEntry(draw(st.sampled_from(MACS)), draw(st.sampled_from(("veth0", "veth1", "ens3"))))]
    addresses = [address(draw, draw(st.sampled_from((BRIDGE, BRIDGE, "veth0"))))] + [address(draw, BRIDGE)] * rarely(
        draw, 3
    )
    found[NODE] = Namespace(NODE, tuple(links), tuple(addresses), some_routes(draw), (), (),
                            tuple(entries) * rarely(draw, 3), sysctls=some_sysctls(draw))  # fmt: skip
    return StaticNetwork(found)


def learnt(supply: Supply, kind: int, device: int, value: int) -> int:
    """A fact as ``machine.neighbour`` and ``machine.transmit`` come to it."""
    for _ in range(3):
        found = supply.tables.facts.get(kind, device, value)
        wire = int(supply.tables.tables.device[device]["segment"])
        if found == -1 and kind in (wd.NEIGHBOUR4, wd.NEIGHBOUR6) and wire:
            found = supply.tables.facts.get(wd.RESOLVED4 if kind == wd.NEIGHBOUR4 else wd.RESOLVED6, wire, value)
        if found != -1:
            return found
        supply.answer(kind, device, value)
    raise AssertionError("it is asked for again and again")


@settings(max_examples=300, deadline=None)
@given(bridges(), st.data())
def test_neighbours_and_ports_are_those_of_the_interpreter(net: StaticNetwork, data: st.DataObject) -> None:
    supply = Datapath(net, compiled=False).supply
    world = World(net)
    names = data.draw(st.permutations(sorted(net.namespaces)))
    first = data.draw(st.integers(1, len(names)))
    for some in (names[:first], names):  # who is there when the wire is listed, and who comes to it later
        for name in some:
            supply.add(name)
        for name in some:
            scene = world.scene(name)
            for link in scene.namespace.links:
                device = supply.tables.device_number(name, link.name)
                if link.kind in (LinkKind.VETH, LinkKind.BRIDGE) and link.up:
                    for text in POOL:
                        hop = ip(text)
                        kind = wd.NEIGHBOUR4 if hop.version == 4 else wd.NEIGHBOUR6
                        said = resolve(world, scene, link, hop)
                        expected = wd.NOBODY if said is None else supply.names.number(said.mac)
                        assert learnt(supply, kind, device, supply.addresses.handle(hop)) == expected, (name, link, hop)
    node = world.scene(NODE)
    supply.add(NODE)
    device, bridge = supply.tables.device_number(NODE, BRIDGE), node.links[BRIDGE]
    for mac in (*MACS, "02:01:00:00:00:00"):
        port = port_towards(world, node, bridge, mac)
        own = mac == bridge.mac or any(mac == one.mac for one in node.ports.get(BRIDGE, ()))
        wanted = wd.BRIDGE_UP if own else wd.NOBODY
        if not own and port is not None and mac != MACS[-1]:
            wanted = supply.tables.device_number(NODE, port.name)
        assert learnt(supply, wd.PORT, device, supply.names.number(mac)) == wanted, mac


@settings(max_examples=300, deadline=None)
@given(bridges())
def test_who_says_all_it_answers_for_answers_for_nothing_else(net: StaticNetwork) -> None:
    for space in net.namespaces.values():
        scene = Scene(space)
        for link in space.links:
            told = answered(space, link)
            for text in (*POOL, "10.9.3.3", "127.0.0.1", "10.0.0.77") if told is not None else ():
                assert (ip(text) in told) == _answers(scene, link, ip(text)), (link, text)


@pytest.mark.parametrize("family", Family)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_own_addresses_are_those_that_table_local_has(family: Family, data: st.DataObject) -> None:
    made = data.draw(routing_worlds.worlds(family))
    space = Namespace("ns", routing_worlds.LINKS, tuple(made.addresses), tuple(made.routes), tuple(made.rules))
    own = own_addresses(space)
    assume(own is not None)
    assert own is not None
    fib = Fib(space)
    asked = {one.interface.ip for one in made.addresses} | {ip(text) for text in POOL}
    asked |= {one.interface.network.network_address for one in made.addresses}
    asked |= {one.interface.network.broadcast_address for one in made.addresses}
    for one in sorted(asked, key=lambda a: (a.version, int(a))):
        local = fib.address_type(one) == "LOCAL"
        assert local or one not in own, one
        if one.version == 4 and not one.is_loopback:
            assert (one in own) == local, one


def test_a_cluster_of_pods_is_listed_with_one_question_for_each_bridge() -> None:
    pods = {
        f"pod/p/{n}": Namespace(f"pod/p/{n}", (LO, Link("eth0", LinkKind.VETH, mac=f"02:00:00:00:00:{n:02x}",
                                peer=(NODE, f"veth{n}"))), (Address("eth0", interface(f"10.0.0.{n}/24")),))
        for n in range(2, 40)
    }  # fmt: skip
    ports = [Link(f"veth{n}", LinkKind.VETH, mac=f"02:01:00:00:00:{n:02x}", peer=(f"pod/p/{n}", "eth0"), master=BRIDGE)
             for n in range(2, 40)]  # fmt: skip
    node = Namespace(NODE, (LO, Link(BRIDGE, LinkKind.BRIDGE, mac=MACS[0]), *ports),
                     (Address(BRIDGE, interface("10.0.0.1/24")),))  # fmt: skip
    assert len(ports) < STATIONS
    supply = Datapath(StaticNetwork({NODE: node, **pods}), compiled=False).supply
    for name in (NODE, *pods):
        supply.add(name)
    asked = supply.tables.device_number("pod/p/2", "eth0")
    supply.answer(wd.NEIGHBOUR4, asked, supply.addresses.handle(ip("10.0.0.1")))
    assert supply.tables.tables.device[asked]["segment"]
    bridge = supply.tables.device_number(NODE, BRIDGE)
    for n, (name, pod) in enumerate(pods.items(), 2):
        wire = int(supply.tables.tables.device[supply.tables.device_number(name, "eth0")]["segment"])
        mac = supply.names.number(str(pod.links[1].mac))
        assert supply.tables.facts.get(wd.RESOLVED4, wire, supply.addresses.handle(ip(f"10.0.0.{n}"))) == mac
        assert supply.tables.facts.get(wd.PORT, bridge, mac) == supply.tables.device_number(NODE, f"veth{n}")


def test_when_things_are_plugged_elsewhere_nobody_reads_an_old_list() -> None:
    """A later generation: the pod is behind another bridge, where another has the address that it asks for."""

    def net(master: str) -> StaticNetwork:
        links = [LO, *(Link(name, LinkKind.BRIDGE, mac=mac) for name, mac in (("br0", MACS[0]), ("br1", MACS[1])))]
        links.append(Link("veth0", LinkKind.VETH, mac=MACS[2], peer=("pod/p/0", "eth0"), master=master))
        links += [Link(f"veth{n}", LinkKind.VETH, mac=MACS[2 + n], peer=(f"pod/p/{n}", "eth0"), master=f"br{n - 1}")
                  for n in (1, 2)]  # fmt: skip
        pods = {f"pod/p/{n}": Namespace(f"pod/p/{n}", (LO, Link("eth0", LinkKind.VETH, mac=f"02:02:00:00:00:0{n}",
                                        peer=(NODE, f"veth{n}"))), (Address("eth0", interface(f"10.0.0.{n or 9}/24")),))
                for n in range(3)}  # fmt: skip
        pods["pod/p/2"] = replace(pods["pod/p/2"], addresses=pods["pod/p/1"].addresses)
        return StaticNetwork({NODE: Namespace(NODE, tuple(links)), **pods})

    datapath = Datapath(net("br0"), compiled=False)
    supply = datapath.supply
    for name in (NODE, "pod/p/0", "pod/p/1", "pod/p/2"):
        supply.add(name)
    hop = supply.addresses.handle(ip("10.0.0.1"))

    def found() -> int:
        return learnt(supply, wd.NEIGHBOUR4, supply.tables.device_number("pod/p/0", "eth0"), hop)

    assert found() == supply.names.number("02:02:00:00:00:01")
    datapath.update(net("br1"))
    assert found() == supply.names.number("02:02:00:00:00:02")
