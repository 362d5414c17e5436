"""A trace as JSON with the keys that others build on: ``kind: Trace``, version ``netsim/v1alpha1``."""

from __future__ import annotations

from typing import Any

from netsim.interpreter.outcome import DecidedBy, Hop, IcmpError, Outcome, Step
from netsim.linux.provenance import Provenance
from netsim.packet.describe import proto_text
from netsim.packet.model import Packet
from netsim.report.traced import Traced

API_VERSION = "netsim/v1alpha1"


def trace_document(traced: Traced) -> dict[str, Any]:
    """The whole document; outcomes keep their order (most probable first)."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Trace",
        "request": {"from": traced.origin, "to": traced.target, "packet": packet_json(traced.packet)},
        "outcomes": [
            outcome_json(traced, outcome, traced.replies.get(number)) for number, outcome in enumerate(traced.outcomes)
        ],
    }


def packet_json(packet: Packet) -> dict[str, Any]:
    return {
        "src": str(packet.src),
        "sport": packet.sport,
        "dst": str(packet.dst),
        "dport": packet.dport,
        "proto": proto_text(packet.proto),
    }


def outcome_json(traced: Traced, outcome: Outcome, replies: tuple[Outcome, ...] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "probability": round(float(outcome.probability), 10),
        "verdict": outcome.disposition.value,
        "to": traced.receiver(outcome),
        "packet": packet_json(outcome.packet),
        "masqueraded": outcome.masqueraded,
        "icmp": _icmp(outcome.icmp),
        "decided_by": _decided(outcome.decided_by),
        "rules_evaluated": outcome.rules_evaluated,
        "hops": [_hop(hop) for hop in outcome.hops],
    }
    if replies:
        found["reply"] = outcome_json(traced, replies[0])
    return found


def _icmp(error: IcmpError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "type": error.type,
        "code": error.code,
        "name": error.name,
        "from": str(error.origin),
        "arrived": error.arrived,
        "mtu": error.mtu,
    }


def _why(provenance: Provenance | None) -> dict[str, Any]:
    if provenance is None:
        return {"because": None, "source": None}
    return {"because": provenance.because, "source": str(provenance.source) if provenance.source else None}


def _decided(decided: DecidedBy | None) -> dict[str, Any] | None:
    if decided is None:
        return None
    step = decided.step
    return {
        "node": decided.node,
        "namespace": decided.namespace,
        "hook": step.hook,
        "table": step.table,
        "chain": step.chain,
        "rule": step.rule,
        "text": step.text,
        **_why(step.provenance),
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "kind": step.kind.value,
        "text": step.text,
        "hook": step.hook,
        "table": step.table,
        "chain": step.chain,
        "rule": step.rule,
        "before": step.before,
        "after": step.after,
        **_why(step.provenance),
    }


def _hop(hop: Hop) -> dict[str, Any]:
    return {
        "node": hop.node,
        "namespace": hop.namespace,
        "device": hop.device,
        "steps": [_step(step) for step in hop.steps],
    }
