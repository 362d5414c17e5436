"""load(dump(x)) == x through JSON and YAML; the order of documents does not matter; no text makes the reader crash."""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from netsim.kube import yaml_reader
from netsim.kube.load import load
from netsim.kube.objects import Object

NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
VALUES = st.from_regex(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,6}[A-Za-z0-9])?)?", fullmatch=True)
LABELS = st.dictionaries(NAMES, VALUES, max_size=3)
PORTS = st.integers(1, 65535)
META = st.fixed_dictionaries({"name": NAMES, "namespace": NAMES}, optional={"labels": LABELS, "annotations": LABELS})


def of_kind(version: str, kind: str, **fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    head = {"apiVersion": st.just(version), "kind": st.just(kind), "metadata": META}
    return st.fixed_dictionaries({**head, **fields})


CONTAINER = st.fixed_dictionaries(
    {"name": st.just("c"), "image": NAMES},
    optional={"ports": st.lists(st.fixed_dictionaries({"containerPort": PORTS}), max_size=2)},
)
PODS = of_kind("v1", "Pod", spec=st.fixed_dictionaries({"containers": st.lists(CONTAINER, min_size=1, max_size=1)}))
SERVICES = of_kind(
    "v1",
    "Service",
    spec=st.fixed_dictionaries(
        {"ports": st.lists(st.fixed_dictionaries({"port": PORTS}), min_size=1, max_size=1)},
        optional={"selector": LABELS, "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])},
    ),
)
POLICIES = of_kind(
    "networking.k8s.io/v1",
    "NetworkPolicy",
    spec=st.fixed_dictionaries({"podSelector": st.fixed_dictionaries({}, optional={"matchLabels": LABELS})}),
)
OBJECTS = st.lists(
    st.one_of(PODS, SERVICES, POLICIES), max_size=5, unique_by=lambda o: json.dumps([o["kind"], o["metadata"]["name"]])
)


def read(text: str) -> list[Object]:
    return [bare(item) for item in load(["-"], stdin=io.BytesIO(text.encode())).objects]


def bare(item: Object) -> Object:
    return msgspec.structs.replace(item, source=None)


def dumped(item: Object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(item)
    return {"apiVersion": item.api_version, **found.get("body", found)}


def to_yaml(value: Any) -> str:
    """Everything in quotes and tagged: PyYAML would write ``y`` bare, which Kubernetes reads as true."""
    return yaml.safe_dump(value, default_style='"')


@settings(max_examples=60, deadline=None)
@given(OBJECTS)
def test_dumps_read_back(raw: list[dict[str, Any]]) -> None:
    objects = read("\n".join(map(json.dumps, raw)))
    again = [dumped(item) for item in objects]
    assert read(json.dumps({"apiVersion": "v1", "kind": "List", "items": again})) == objects
    assert read(to_yaml({"apiVersion": "v1", "kind": "List", "items": again})) == objects
    assert read("\n---\n".join(map(to_yaml, again))) == objects


@settings(max_examples=40, deadline=None)
@given(OBJECTS, st.randoms(use_true_random=False))
def test_order_does_not_matter(raw: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(raw)
    random.shuffle(shuffled)
    assert by_key(read("\n".join(map(json.dumps, raw)))) == by_key(read("\n".join(map(json.dumps, shuffled))))


def by_key(objects: list[Object]) -> dict[tuple[str, ...], Object]:
    return {(item.kind, *item.key): item for item in objects}


def judge(text: bytes) -> None:
    """Lenient loading never raises: each thing is kept, or refused with a place."""
    loaded = load(["-"], stdin=io.BytesIO(text), lenient=True)
    assert all(problem.source and problem.text for problem in loaded.refused)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_yaml_of_json_is_the_json(value: Any) -> None:
    """JSON is YAML: whatever json writes, the YAML reader reads as the same."""
    (document,) = yaml_reader.read("-", json.dumps(value, ensure_ascii=False))
    assert isinstance(document, yaml_reader.Document)
    assert document.value == value


@settings(max_examples=300, deadline=None)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")) | st.text("{}[]:,-&*!|>'\"%@` \n\tab0#?<~."))
def test_any_text_is_judged(text: str) -> None:
    judge(text.encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["Pod", "Service", "NetworkPolicy", "Node", "EndpointSlice", "Ingress", "Deployment"]), JSON, JSON
)
def test_any_shape_is_judged(kind: str, metadata: Any, spec: Any) -> None:
    version = {"NetworkPolicy": "networking.k8s.io/v1", "Ingress": "networking.k8s.io/v1", "Deployment": "apps/v1"}.get(
        kind, "discovery.k8s.io/v1" if kind == "EndpointSlice" else "v1"
    )
    body = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
    judge(json.dumps(body).encode())
