"""pod-template-hash against names that real clusters gave."""

from __future__ import annotations

from typing import Any

import pytest

from netsim.kube import defaults
from netsim.kube.control.template_hash import describe, template_hash


def nginx() -> dict[str, Any]:
    spec = {"containers": [{"name": "nginx", "image": "nginx:1.14.2", "ports": [{"containerPort": 80}]}]}
    defaults.pod_spec(spec, template=True)
    return {"metadata": {"labels": {"app": "nginx"}}, "spec": spec}


@pytest.mark.parametrize(
    ("version", "name"), [((1, 30), "77d8468669"), ((1, 31), "d556bf558"), ((1, 33), "647677fc66")]
)
def test_known_names(version: tuple[int, int], name: str) -> None:
    assert template_hash(nginx(), version) == name


def test_the_hash_label_itself_does_not_count_and_collisions_do() -> None:
    labelled = nginx()
    labelled["metadata"]["labels"]["pod-template-hash"] = "x"
    assert template_hash(labelled, (1, 33)) == template_hash(nginx(), (1, 33))
    assert len({template_hash(nginx(), (1, 33), count) for count in (None, 0, 1)}) == 3


def test_quantities_and_ports_are_described_as_stored() -> None:
    template = nginx()
    container = template["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "0.1", "memory": "70Mi"}}
    container["readinessProbe"] = {"httpGet": {"port": "http"}}
    text = describe(template, (1, 33))
    assert "map[cpu:{i:(resource.int64Amount){value:(int64)100 scale:(resource.Scale)-3}" in text
    assert (
        "value:(int64)73400320 scale:(resource.Scale)0} d:(resource.infDecAmount){Dec:(*inf.Dec)<nil>} s:(string)70Mi"
        in text
    )
    assert "Port:(intstr.IntOrString){Type:(intstr.Type)1 IntVal:(int32)0 StrVal:(string)http}" in text
