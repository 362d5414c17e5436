"""A disagreement counts if it comes again: the second try, with flights whose fate is written down."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from netsim.lab.result import Result
from netsim.lab.verify import _CONVINCED, _Batch, _Run


class Scripted(_Run):
    """``fates`` of a name: whether it disagrees, try by try. ``batches``: what the counters of each batch say."""

    def __init__(self, fates: dict[str, str], batches: Iterable[str] = ()) -> None:
        self.result, self.confirmed, self.flown = Result(), 0, list[list[str]]()
        self.fates = {name: iter(fate) for name, fate in fates.items()}
        self.batches = iter(batches)
        self.hangar: Any = SimpleNamespace(flight=self.flight)

    def flight(self, course: str, strict: bool = False) -> Any:
        return SimpleNamespace(course=course, strict=strict, complaint="", told=["a story"])

    def _flown(self, batch: _Batch) -> list[str]:
        self.flown.append([str(flight.course) for flight in batch.flights])
        for flight in batch.flights:
            flight.complaint = f"{flight.course} differs" if next(self.fates[str(flight.course)]) == "x" else ""
        return [flight.complaint for flight in batch.flights if flight.complaint] or list(
            filter(None, [next(self.batches, "")])
        )


def flown(fates: dict[str, str], batches: Iterable[str] = ()) -> tuple[Scripted, list[Any]]:
    run = Scripted(fates, batches)
    flights = [run.flight(name) for name in fates]
    run._fly(_Batch(flights))
    return run, flights


def test_what_agrees_flies_once() -> None:
    run, _ = flown({"a": ".", "b": "."})
    assert run.flown == [["a", "b"]]
    assert (run.result.disagreements, run.result.once) == ([], [])


def test_what_comes_again_alone_counts_and_what_does_not_is_told() -> None:
    run, flights = flown({"a": ".", "b": "xx", "c": "x."})
    assert run.flown == [["a", "b", "c"], ["b"], ["c"]]
    assert (run.result.disagreements, run.result.once) == (["b differs"], ["c differs"])
    assert [bool(flight.complaint) for flight in flights] == [False, True, False]
    assert flights[2].told is None  # no story for a recording
    assert not run.result.agrees


def test_where_all_agree_alone_the_others_fly_anew_for_their_counters() -> None:
    run, _ = flown({"a": "..", "b": "x."})
    assert run.flown == [["a", "b"], ["b"], ["a"]]
    assert run.result.agrees
    assert list(run.result.text())[-1].endswith("all agree, 1 of them only when sent anew")
    assert "ONCE      b differs" in list(run.result.text())
    assert run.result.to_json()["once"] == ["b differs"]
    worse, _ = flown({"a": "..", "b": "x."}, ["", "a counter"])  # that of the others
    assert worse.result.disagreements == ["a counter"]


@pytest.mark.parametrize(("again", "counts"), [("", False), ("a counter", True)])
def test_counters_that_differ_get_a_second_try_too(again: str, counts: bool) -> None:
    run, _ = flown({"a": "..", "b": ".."}, ["a counter", again])
    assert run.flown == [["a", "b"], ["a", "b"]]
    assert (run.result.disagreements, run.result.once) == ((["a counter"], []) if counts else ([], ["a counter"]))


def test_another_network_is_not_tried_again_flight_by_flight() -> None:
    names = [f"f{number}" for number in range(50)]
    run, flights = flown(dict.fromkeys(names, "xx"))
    assert len(run.flown) == 1 + _CONVINCED
    assert len(run.result.disagreements) == len(flights)
    run.fates["late"] = iter("x")
    run._fly(_Batch([run.flight("late")]))
    assert run.flown[-1] == ["late"]
    assert run.result.disagreements[-1] == "late differs"
