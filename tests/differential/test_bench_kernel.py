"""``netsim bench --with-kernel``: the labs are built, packets pass all their rules, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from netsim.bench.kernel import compare
from netsim.lab import state

pytestmark = pytest.mark.kernel


def test_more_services_are_more_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "home", lambda: tmp_path)
    told: list[str] = []
    few, many = compare(told.append, counts=(5, 200))
    assert (few.services, many.services) == (5, 200)
    assert told == ["5 Services", "200 Services"]
    # uniform over Services: on average half of KUBE-SERVICES more
    assert 70 <= many.rules - few.rules <= 130
    assert min(few.new, few.established, many.new, many.established) > 0
    assert not list(tmp_path.iterdir()), "every lab is gone"
