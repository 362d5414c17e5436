"""What iproute2's printers say is what its readers understand, for every kind of kernel object."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.errors import InputError
from netsim.linux import iproute_json, iproute_parse
from netsim.linux.iproute_text import fdb_text, neigh_text, route_text, rule_text
from netsim.linux.link import Link, LinkKind, TunnelOptions, VxlanOptions
from netsim.linux.link_text import address_text
from netsim.linux.network import Namespace
from netsim.linux.route import Address, FdbEntry, Neighbour, NextHop, Route, RouteType, RoutingRule
from netsim.packet.address import Family, interface, network

FAMILIES = st.sampled_from(Family)
DEVICES = st.sampled_from(["eth0", "cni0", "flannel.1", "cali0123456789a"])
MACS = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
NUMBERS = st.integers(1, 0xFFFFFFFF)
TABLES = st.sampled_from([254, 255, 253]) | NUMBERS


def addresses(family):
    return st.ip_addresses(v=family.value)


def prefixes(family, smallest=0):
    lengths = st.integers(smallest, family.bits)
    return st.builds(lambda address, length: network(f"{address}/{length}"), addresses(family), lengths)


@st.composite
def routes(draw, family):
    six = family is Family.IPV6
    kind = draw(st.sampled_from(RouteType))
    hops = ()
    gateway = device = None
    onlink = False
    if kind is RouteType.UNICAST and draw(st.booleans()):
        hop = st.builds(NextHop, addresses(family), DEVICES, st.integers(1, 256), st.booleans())
        hops = tuple(draw(st.lists(hop, min_size=2, max_size=4)))
    elif kind in (RouteType.UNICAST, RouteType.LOCAL, RouteType.BROADCAST, RouteType.ANYCAST, RouteType.MULTICAST):
        gateway = draw(st.none() | addresses(family)) if kind is RouteType.UNICAST else None
        device, onlink = draw(DEVICES), gateway is not None and draw(st.booleans())
    return Route(
        draw(prefixes(family)),
        gateway,
        device,
        kind,
        draw(TABLES),
        draw(NUMBERS) if six else draw(st.integers(0, 0xFFFFFFFF)),
        "global" if six else draw(st.sampled_from(["global", "link", "host", "site", "nowhere"])),
        draw(st.sampled_from(["kernel", "boot", "static", "bird", "80"])),
        draw(st.none() | addresses(family)),
        onlink,
        draw(st.none() | st.integers(68, 65535)),
        hops,
    )


@given(st.data(), FAMILIES)
def test_a_route_is_read_as_it_was_printed(data, family):
    route = data.draw(routes(family))
    assert iproute_parse.parse_route(route_text(route), family) == route


@given(st.data(), FAMILIES)
def test_many_routes_are_told_apart(data, family):
    held = data.draw(st.lists(routes(family), max_size=5))
    assert iproute_parse.parse_routes("\n".join(map(route_text, held)), family) == held


@given(st.data(), FAMILIES)
def test_a_rule_is_read_as_it_was_printed(data, family):
    rule = data.draw(
        st.builds(
            RoutingRule,
            st.integers(0, 0xFFFFFFFF),
            TABLES,
            source=st.none() | prefixes(family, 1),
            destination=st.none() | prefixes(family, 1),
            iif=st.none() | DEVICES,
            oif=st.none() | DEVICES,
            mark=st.none() | NUMBERS,
            mask=NUMBERS,
            invert=st.booleans(),
            action=st.sampled_from(["lookup", *iproute_parse.RULE_ACTIONS]),
            family=st.just(family),
        )
    )
    if rule.mark is None:
        rule = replace(rule, mask=0xFFFFFFFF)
    if rule.action != "lookup":
        rule = replace(rule, table=254)
    assert iproute_parse.parse_rule(rule_text(rule, {"eth0"}), family) == rule


@given(
    st.builds(
        Neighbour, st.ip_addresses(), DEVICES, st.none() | MACS, st.sampled_from(["permanent", "stale", "failed"])
    )
)
def test_a_neighbour_is_read_as_it_was_printed(neighbour):
    assert iproute_parse.parse_neighbour(neigh_text(neighbour)) == neighbour


@given(
    st.builds(
        FdbEntry,
        MACS,
        DEVICES,
        st.none() | st.ip_addresses(),
        st.none() | DEVICES,
        st.sampled_from(["permanent", "static", "stale", "reachable"]),
    )
)
def test_a_forwarding_entry_is_read_as_it_was_printed(entry):
    assert iproute_parse.parse_fdb(fdb_text(entry)) == entry


@given(st.data(), FAMILIES, DEVICES, st.sampled_from(["global", "link", "host"]), st.booleans(), st.booleans())
def test_an_address_is_read_as_it_was_printed(data, family, device, scope, without_route, secondary):
    held = interface(f"{data.draw(addresses(family))}/{data.draw(st.integers(1, family.bits))}")
    address = Address(device, held, scope, without_route)
    assert iproute_parse.parse_address(address_text(address, secondary), device) == address


@st.composite
def link_lists(draw):
    links = [
        Link("lo", LinkKind.LOOPBACK, mtu=65536, up=draw(st.booleans())),
        Link("cni0", LinkKind.BRIDGE, draw(MACS)),
    ]
    kinds = st.sampled_from(
        [LinkKind.PHYSICAL, LinkKind.VETH, LinkKind.VXLAN, LinkKind.IPIP, LinkKind.TUN, LinkKind.DUMMY]
    )
    for index, kind in enumerate(draw(st.lists(kinds, max_size=6))):
        link = Link(f"dev{index}", kind, mtu=draw(st.integers(68, 65535)), up=draw(st.booleans()))
        if kind not in (LinkKind.IPIP, LinkKind.TUN):
            link = replace(link, mac=draw(MACS), noarp=kind is LinkKind.DUMMY or draw(st.booleans()))
        if kind is LinkKind.VETH and draw(st.booleans()):
            link = replace(link, master="cni0", hairpin=draw(st.booleans()))
        elif kind is LinkKind.VETH:
            link = replace(link, peer=("node/n1", "lo"))
        options = st.none() | st.ip_addresses().filter(lambda a: not a.is_unspecified)
        if kind is LinkKind.VXLAN:
            vni, port = draw(st.integers(0, 0xFFFFFF)), draw(st.integers(1, 0xFFFF))
            made = VxlanOptions(
                vni, draw(options), draw(st.none() | DEVICES), port, draw(st.booleans()), draw(st.booleans())
            )
            link = replace(link, vxlan=made)
        if kind is LinkKind.IPIP:
            ends = st.none() | st.ip_addresses(v=4).filter(lambda a: not a.is_unspecified)
            link = replace(
                link, tunnel=TunnelOptions(draw(ends), draw(ends), draw(st.integers(0, 255)), draw(st.booleans()))
            )
        links.append(link)
    return tuple(links)


@given(link_lists())
def test_devices_are_read_as_they_were_written(links):
    text = json.dumps(iproute_json.link_objects(Namespace("node/n1", links=links)))
    assert tuple(iproute_json.read_links(text, "node/n1")) == links


_READERS = (
    lambda text: iproute_json.read_links(text, "n"),
    iproute_json.read_addresses,
    lambda text: iproute_json.read_routes(text, Family.IPV4),
    lambda text: iproute_json.read_rules(text, Family.IPV6),
    iproute_json.read_neighbours,
    iproute_json.read_fdb,
)
_KEYS = st.sampled_from(
    ["ifname", "dst", "gateway", "dev", "flags", "metrics", "nexthops", "src", "srclen", "fwmark", "mac", "state", "mtu",
     "addr_info", "linkinfo", "via", "priority", "type", "lladdr", "table"]
)  # fmt: skip
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["10.0.0.1", "default", "eth0"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("read", _READERS)
@given(value=st.lists(st.dictionaries(_KEYS, _VALUES, max_size=6), max_size=2) | _VALUES)
def test_no_json_crashes_a_reader(read, value):
    problems = ()
    try:
        read(json.dumps(value))
    except InputError as error:
        problems = error.problems
    assert all(problem.source is not None for problem in problems)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (
            lambda text: iproute_parse.parse_routes(text, Family.IPV4, "f"),
            "default via 10.0.0.1 dev eth0\n10.0.0.0/99 dev x",
        ),
        (
            lambda text: iproute_parse.parse_rules(text, Family.IPV4, "f"),
            "0:\tfrom all lookup local\n5:\tfrom all goto 9",
        ),
        (
            lambda text: iproute_parse.parse_all(text, iproute_parse.parse_neighbour, "f"),
            "::1 dev lo NOARP\n10.0.0.1 FAILED",
        ),
        (
            lambda text: iproute_parse.parse_all(text, iproute_parse.parse_fdb, "f"),
            "aa dev x self\nbb dev x vlan 7 self",
        ),
        (lambda text: iproute_json.read_rules(text, Family.IPV4, "f"), '[{"priority":0},\n{"priority":5,"goto":9}]'),
        (
            lambda text: iproute_json.read_routes(text, Family.IPV4, "f"),
            '[{"dst":"10.0.0.0/8","dev":"a"},\n{"dst":"1.1"}]',
        ),
    ],
)
def test_a_mistake_names_its_line(parse, text):
    with pytest.raises(InputError, match=r"^f:2: "):
        parse(text)
