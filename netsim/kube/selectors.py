"""Label selectors and node selectors, with the API machinery's exact semantics (Kubernetes 1.33).

``NotIn`` and ``DoesNotExist`` hold for an object that lacks the key; an absent selector selects nothing while an empty
one selects everything (labels.Nothing and labels.Everything of apimachinery). Node selector terms are ORed, the
requirements of a term ANDed, and an empty term selects nothing (component-helpers, nodeaffinity).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Does a LabelSelector select an object with ``labels``? None selects nothing, ``{}`` everything."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    return all(_holds(item, labels) for item in selector.get("matchExpressions") or ())


def matches_map(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """The plain map form of Services and ReplicationControllers: an absent or empty one selects nothing."""
    return bool(selector) and all(labels.get(key) == value for key, value in (selector or {}).items())


def matches_node_labels(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """``spec.nodeSelector`` of a Pod: absent or empty allows every node."""
    return all(labels.get(key) == value for key, value in (selector or {}).items())


def matches_node_selector(selector: Mapping[str, Any] | None, name: str, labels: Mapping[str, str]) -> bool:
    """A NodeSelector (required node affinity) against a node; None allows every node."""
    if selector is None:
        return True
    return any(matches_node_term(term, name, labels) for term in selector.get("nodeSelectorTerms") or ())


def matches_node_term(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """One NodeSelectorTerm; ``matchFields`` knows ``metadata.name`` only; a term without requirements matches nothing."""
    expressions = term.get("matchExpressions") or ()
    fields = term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(item, labels) for item in expressions) and all(
        _holds(item, {"metadata.name": name}) for item in fields
    )


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    operator, key, values = requirement.get("operator"), requirement.get("key", ""), requirement.get("values") or ()
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    if operator in ("Gt", "Lt"):
        # Both sides must be 64-bit integers in Go's ParseInt form; anything else simply does not match.
        have, want = _integer(labels.get(key)), _integer(next(iter(values), None) if len(values) == 1 else None)
        if have is None or want is None:
            return False
        return have > want if operator == "Gt" else have < want
    return False


def _integer(text: str | None) -> int | None:
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text) if len(text) <= 4000 else 1 << 64
    return number if -(1 << 63) <= number < 1 << 63 else None
