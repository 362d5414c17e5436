"""What pods ask of a node and what a node has left: NodeResourcesFit and NodePorts (Kubernetes 1.33).

cpu counts in thousandths, everything else in whole units. A node that states neither cpu nor memory is one of netsim's
making or a bare manifest: it has room for any request and for 110 pods, and is scored as 8 cpu with 32 GiB.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Any

from netsim.kube import quantity
from netsim.kube.objects import Container, Node, PodSpec

DEFAULT_CPU, DEFAULT_MEMORY = 100, 200 * 1024 * 1024  # counted for containers without a request, in scores only
_MOST_PODS = 110
_ASSUMED = {"cpu": 8000, "memory": 32 * 1024**3}


def amount(name: str, value: Any) -> int:
    return _amount(name == "cpu", str(value))


@lru_cache(maxsize=4096)
def _amount(cpu: bool, value: str) -> int:
    exact = quantity.parse(value)
    return ceil(exact * 1000 if cpu else exact)


@dataclass(frozen=True, slots=True)
class Request:
    """``real`` decides whether a pod fits; ``scored`` has the defaults for silent containers."""

    real: Mapping[str, int]
    scored: Mapping[str, int]

    @classmethod
    def of(cls, spec: PodSpec) -> Request:
        return cls(_total(spec, False), _total(spec, True))


def _total(spec: PodSpec, scored: bool) -> dict[str, int]:
    """Sum of containers and sidecars, or the largest init container with the sidecars started before it."""
    total: dict[str, int] = {}
    for container in spec.containers:
        _add(total, _of(container, scored))
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for container in spec.init_containers or ():
        own = _of(container, scored)
        if container.restart_policy == "Always":
            _add(sidecars, own)
            own = dict(sidecars)
        else:
            own = dict(own)
            _add(own, sidecars)
        for name, number in own.items():
            peak[name] = max(peak.get(name, 0), number)
    _add(total, sidecars)
    for name, number in peak.items():
        total[name] = max(total.get(name, 0), number)
    _add(total, {name: amount(name, value) for name, value in (spec.overhead or {}).items()})
    return total


def _of(container: Container, scored: bool) -> dict[str, int]:
    resources = container.resources
    found: dict[str, int] = {}
    if resources is not None:
        for stated in (resources.limits, resources.requests):
            found.update({name: amount(name, value) for name, value in (stated or {}).items()})
    if scored:
        found.setdefault("cpu", DEFAULT_CPU)
        found.setdefault("memory", DEFAULT_MEMORY)
    return found


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, number in more.items():
        total[name] = total.get(name, 0) + number


class NodeState:
    """A node's allocatable and what its pods have taken; ``version`` changes with every pod."""

    def __init__(self, node: Node) -> None:
        stated = node.status.allocatable or node.status.capacity
        self.allocatable = {name: amount(name, value) for name, value in stated.items()}
        self.unlimited = not self.allocatable.get("cpu") and not self.allocatable.get("memory")
        if self.unlimited:
            self.allocatable.update(_ASSUMED)
        self.most_pods = self.allocatable.pop("pods", _MOST_PODS)
        self.real: dict[str, int] = {}
        self.scored: dict[str, int] = {}
        self.ports: list[tuple[str, str, int]] = []
        self.pods = 0
        self.version = 0

    def take(self, request: Request, ports: Sequence[tuple[str, str, int]]) -> None:
        _add(self.real, request.real)
        _add(self.scored, request.scored)
        self.ports.extend(ports)
        self.pods += 1
        self.version += 1

    def lacks(self, request: Request) -> str:
        """The reason why a pod does not fit, or ``""``."""
        if self.pods + 1 > self.most_pods:
            return "Too many pods"
        if self.unlimited:
            return ""
        for name, number in request.real.items():
            if number and number > self.allocatable.get(name, 0) - self.real.get(name, 0):
                return f"Insufficient {name}"
        return ""


def ports_of(spec: PodSpec) -> Sequence[tuple[str, str, int]]:
    """(host IP, protocol, host port) of every host port."""
    containers = (*spec.containers, *(c for c in spec.init_containers or () if c.restart_policy == "Always"))
    return tuple(
        (port.host_ip or "0.0.0.0", port.protocol, port.host_port)
        for container in containers
        for port in container.ports or ()
        if port.host_port
    )


def port_conflict(wanted: Iterable[tuple[str, str, int]], held: Sequence[tuple[str, str, int]]) -> str:
    for address, protocol, number in wanted:
        for other, other_protocol, other_number in held:
            if number == other_number and protocol == other_protocol:
                if address == other or "0.0.0.0" in (address, other):
                    return "node(s) didn't have free ports for the requested pod ports"
    return ""
