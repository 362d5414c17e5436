"""What is counted and how: evenness against its definition, medians, and sessions whose flows really are established."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsim.bench.workload import Timing, evenness


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=200), st.integers(1, 5))
def test_evenness_is_what_its_definition_says(drawn: list[tuple[int, int]], possible: int) -> None:
    """Per Service (first) and endpoint (second, taken modulo ``possible``)."""
    services = np.array([service for service, _ in drawn], np.uint32)
    ends = np.array([end % possible for _, end in drawn], np.uint32)
    found = evenness((services,), (ends,), lambda key: possible)
    chi, freedom, largest = 0.0, 0, 0.0
    for service in set(services.tolist()):
        counts = Counter(ends[services == service].tolist())
        fair = counts.total() / possible
        if possible > 1 and fair >= 5:
            chi += sum((counts[end] - fair) ** 2 / fair for end in range(possible))
            freedom += possible - 1
            largest = max(largest, max(counts.values()) / fair)
    assert found.freedom == freedom
    assert found.chi_square == pytest.approx(chi)
    assert found.largest == pytest.approx(largest)


def test_an_endpoint_that_gets_nothing_is_seen() -> None:
    services, ends = np.zeros(100, np.uint32), np.zeros(100, np.uint32)
    found = evenness((services,), (ends,), lambda key: 2)
    assert (found.chi_square, found.freedom, found.largest) == (100, 1, 2)


def test_services_that_do_not_balance_are_left_out() -> None:
    found = evenness((np.zeros(100, np.uint32),), (np.zeros(100, np.uint32),), lambda key: 0)
    assert (found.chi_square, found.freedom) == (0, 0)


def test_a_rate_is_that_of_the_median_part() -> None:
    assert Timing(100, [1.0, 2.0, 50.0]).rate == 50
    assert Timing(100).rate == 0
