"""Clusters for the lab's tests."""

from __future__ import annotations

from pathlib import Path

from netsim.kube.cluster import Settings
from netsim.kube.load import load, store
from netsim.topology.assemble import Assembled, assemble

EVERY_CLASS = Path(__file__).parents[1] / "data" / "lab" / "every-class.yaml"
POD_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")


def assembled(*files: str, **settings: object) -> Assembled:
    objects = load(list(files), recursive=False, lenient=False, namespace=None, stdin=None)
    return assemble(store(objects), Settings(**settings))  # type: ignore[arg-type]


def every_class() -> Assembled:
    """The cluster that has every path class, over both families."""
    return assembled(str(EVERY_CLASS), pod_cidrs=POD_CIDRS, service_cidrs=SERVICE_CIDRS)
