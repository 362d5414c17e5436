"""host-local: canonical ranges, the walk, reservations."""

from __future__ import annotations

import pytest

from netsim.packet.address import ip, network
from netsim_backends.cni.host_local import Range, RangeError, RangeSet, canonical, check_disjoint


def small(start: str, end: str, subnet: str = "10.0.0.0/24") -> Range:
    return canonical(network(subnet), ip(start), ip(end))


@pytest.mark.parametrize(
    ("subnet", "start", "end", "gateway"),
    [
        ("10.244.1.0/24", "10.244.1.1", "10.244.1.254", "10.244.1.1"),
        ("10.0.0.0/30", "10.0.0.1", "10.0.0.2", "10.0.0.1"),
        ("fd00::/126", "fd00::1", "fd00::3", "fd00::1"),
        ("fd00:1::/64", "fd00:1::1", "fd00:1::ffff:ffff:ffff:ffff", "fd00:1::1"),
    ],
)
def test_defaults(subnet: str, start: str, end: str, gateway: str) -> None:
    found = canonical(network(subnet))
    assert (str(found.start), str(found.end), str(found.gateway)) == (start, end, gateway)


@pytest.mark.parametrize(
    ("subnet", "start", "end", "words"),
    [
        ("10.0.0.0/31", None, None, "Network 10.0.0.0/31 too small to allocate from"),
        ("fd00::/127", None, None, "Network fd00::/127 too small to allocate from"),
        ("10.0.0.0/24", "10.0.1.1", None, "RangeStart 10.0.1.1 not in network 10.0.0.0/24"),
        ("10.0.0.0/24", None, "10.0.1.1", "RangeEnd 10.0.1.1 not in network 10.0.0.0/24"),
        ("10.0.0.0/24", "10.0.0.9", "10.0.0.5", "RangeStart 10.0.0.9 not in network 10.0.0.0/24"),
    ],
)
def test_refused(subnet: str, start: str | None, end: str | None, words: str) -> None:
    with pytest.raises(RangeError) as caught:
        canonical(network(subnet), start and ip(start), end and ip(end))  # type: ignore[arg-type]
    assert str(caught.value) == words


def test_overlap_is_refused_within_and_across_sets() -> None:
    one, other = small("10.0.0.2", "10.0.0.9"), small("10.0.0.9", "10.0.0.12")
    for sets in ([[one, other]], [[one], [other]]):
        with pytest.raises(RangeError, match="overlaps"):
            check_disjoint(sets)
    check_disjoint([[one], [canonical(network("fd00::/64"))]])


def test_the_gateway_is_stepped_over() -> None:
    assert str(RangeSet([canonical(network("10.244.1.0/24"))]).allocate("a")[0]) == "10.244.1.2"


def test_a_freed_address_waits_for_the_walk_to_come_round() -> None:
    pool = RangeSet([small("10.0.0.2", "10.0.0.4")])
    assert [str(pool.allocate(who)[0]) for who in "abc"] == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    pool.release("b")
    pool.release("a")
    assert str(pool.allocate("d")[0]) == "10.0.0.2"
    pool.release("d")
    assert str(pool.allocate("e")[0]) == "10.0.0.3"


def test_the_last_one_given_is_the_last_one_tried() -> None:
    pool = RangeSet([small("10.0.0.2", "10.0.0.4")])
    pool.allocate("a")
    assert [str(address) for address, _ in pool.candidates()] == ["10.0.0.3", "10.0.0.4", "10.0.0.2"]


def test_the_walk_goes_on_in_the_next_range() -> None:
    pool = RangeSet([small("10.0.0.2", "10.0.0.3"), small("10.0.1.1", "10.0.1.2", "10.0.1.0/24")])
    pool.reserve(ip("10.0.0.3"), "x")
    assert [str(address) for address, _ in pool.candidates()] == ["10.0.1.2", "10.0.0.2", "10.0.0.3"]


def test_full() -> None:
    pool = RangeSet([small("10.0.0.2", "10.0.0.3")])
    pool.allocate("a")
    pool.allocate("b")
    with pytest.raises(RangeError, match=r"^no IP addresses available in range set: 10\.0\.0\.2-10\.0\.0\.3$"):
        pool.allocate("c")


def test_one_address_per_owner() -> None:
    pool = RangeSet([small("10.0.0.2", "10.0.0.9")])
    pool.allocate("a")
    with pytest.raises(RangeError, match=r"10\.0\.0\.2 has been allocated to a, duplicate allocation is not allowed"):
        pool.allocate("a")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("10.0.0.1", "requested ip 10.0.0.1 is subnet's gateway"),
        ("10.0.0.3", "requested IP address 10.0.0.3 is not available in range set"),
        ("10.9.0.1", "requested IP address 10.9.0.1 is not in range set"),
    ],
)
def test_requests_that_are_refused(address: str, words: str) -> None:
    pool = RangeSet([canonical(network("10.0.0.0/24"))])
    pool.reserve(ip("10.0.0.3"), "a")
    with pytest.raises(RangeError) as caught:
        pool.reserve(ip(address), "b")
    assert str(caught.value).startswith(words)
