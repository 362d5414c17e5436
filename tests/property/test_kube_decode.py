"""The decoder's quick look against its walk: what the one lets through has nothing that the other would complain about."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.kube import decode

KINDS = ("Pod", "Service", "Node", "EndpointSlice", "NetworkPolicy", "Deployment", "Ingress", "Anything")
TEXTS = st.sampled_from(
    ("", "a", "http", "100m", "16Gi", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n", "1e3", "5\n")
)
NUMBERS = st.sampled_from((0, 1, -1, 80, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**63, -(2**63) - 1, 2**64))
WRONG = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from((1.0, 0.5)), TEXTS, st.just([]), st.just({}))
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "bool": st.booleans(),
    "int32": NUMBERS,
    "int64": NUMBERS,
    "IntOrString": NUMBERS | TEXTS,
    "Quantity": TEXTS | NUMBERS,
    "Time": TEXTS,
    "any": WRONG,
}


@st.composite
def values(draw: st.DrawFn, name: str, depth: int = 0, wrong: bool = False) -> Any:
    """A value of the type, mostly; ``wrong``: here and there something else, a null, or a field that there is not."""
    if wrong and draw(st.integers(0, 30)) == 0:
        return draw(WRONG)
    if name in RIGHT:
        return draw(RIGHT[name])
    if name.startswith("[]"):
        return [draw(values(name[2:], depth + 1, wrong)) for _ in range(draw(st.integers(0, 1 if depth > 3 else 2)))]
    if name.startswith("{}"):
        return {
            draw(st.sampled_from("ab")): draw(values(name[2:], depth + 1, wrong))
            for _ in range(draw(st.integers(0, 2)))
        }
    definition, _ = decode._definition(name)
    fields = [item.partition("=") for item in definition.split()]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=2 if depth > 3 else 5, unique=True))
    found = {field: draw(values(kind, depth + 1, wrong)) for field, _, kind in chosen}
    if wrong and draw(st.integers(0, 20)) == 0:
        found["unheardOf"] = draw(WRONG)
    return found


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), wrong=st.booleans())
def test_what_the_quick_look_lets_through_is_right(name: str, data: st.DataObject, wrong: bool) -> None:
    body = data.draw(values(name, wrong=wrong))
    if not isinstance(body, dict) or not decode._well_shaped(name, body):
        return
    walked, unknown = copy.deepcopy(body), []  # type: ignore[var-annotated]
    decode._type(name).check(walked, (), name, unknown)  # raises nothing
    assert not unknown
    assert walked == body, "a null would have been taken out"


def test_the_quick_look_is_not_always_a_no() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "100m"}}}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "somethingNew": [None]},
    }
    assert decode._well_shaped("Pod", pod)
    assert not decode._well_shaped("Pod", {**pod, "specs": {}})
    assert not decode._well_shaped("Pod", {**pod, "spec": {"containers": None}})
