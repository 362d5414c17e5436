"""Port and address sets against sets of plain numbers."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from netsim_policies.algebra import ALL_PORTS, AddressSet, PortSet, intersect, merge, subtract

ranges = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda t: (t[0], t[0] + t[1])), max_size=6)


def members(of: tuple[tuple[int, int], ...]) -> set[int]:
    return {n for low, high in of for n in range(low, high + 1)}


@given(ranges, ranges)
def test_ranges_behave_as_sets(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> None:
    a, b = merge(left), merge(right)
    assert members(a) == members(tuple(left))
    assert members(intersect(a, b)) == members(a) & members(b)
    assert members(subtract(a, b)) == members(a) - members(b)
    assert merge(intersect(a, b)) == intersect(a, b)
    assert merge(subtract(a, b)) == subtract(a, b)


port_sets = st.builds(lambda t, u, s: PortSet(merge(t), merge(u), merge(s)), ranges, ranges, ranges)


@given(port_sets, port_sets, port_sets)
def test_port_sets_obey_the_laws(a: PortSet, b: PortSet, c: PortSet) -> None:
    assert a | b == b | a
    assert a & (b | c) == (a & b) | (a & c)
    assert (a - b) | (a & b) == a
    assert not (a - b) & b
    assert ALL_PORTS - (ALL_PORTS - a) == a
    assert (a <= b) == ((a | b) == b)


@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_a_prefix_holds_what_the_standard_library_says(base: int, length: int, probe: int) -> None:
    network = ipaddress.ip_network((base, length), strict=False)
    address = ipaddress.IPv4Address(probe)
    assert AddressSet.network(network).holds(address) == (address in network)
    assert AddressSet.prefix(str(network)).texts() == [str(network)]


def test_what_a_port_set_prints() -> None:
    assert str(PortSet.of("TCP", 80) | PortSet.of("TCP", 8000, 8010) | PortSet.of("UDP")) == "TCP:80,8000-8010 UDP:*"
    assert str(PortSet()) == "none"
    assert str(ALL_PORTS) == "all"
