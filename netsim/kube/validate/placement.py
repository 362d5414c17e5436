"""Where a pod may run: affinity, tolerations, topology spread."""

from __future__ import annotations

from typing import Any

from netsim.kube.fault import Faults
from netsim.kube.validate import meta, names
from netsim.kube.validate.cluster import EFFECTS

Json = dict[str, Any]
_REQUIRED, _PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_WEIGHT = "must be in the range 1-100"


def affinity(faults: Faults, found: Json, path: str) -> None:
    if nodes := found.get("nodeAffinity"):
        _node_affinity(faults, nodes, f"{path}.nodeAffinity")
    for name in ("podAffinity", "podAntiAffinity"):
        if pods := found.get(name):
            _pod_affinity(faults, pods, f"{path}.{name}")


def _node_affinity(faults: Faults, found: Json, path: str) -> None:
    if (required := found.get(_REQUIRED)) is not None:
        terms = required.get("nodeSelectorTerms") or ()
        if not terms:
            faults.required(f"{path}.{_REQUIRED}.nodeSelectorTerms", "must have at least one node selector term")
        for index, term in enumerate(terms):
            _node_term(faults, term, f"{path}.{_REQUIRED}.nodeSelectorTerms[{index}]")
    for index, item in enumerate(found.get(_PREFERRED) or ()):
        below = f"{path}.{_PREFERRED}[{index}]"
        if not 1 <= item.get("weight", 0) <= 100:
            faults.invalid(f"{below}.weight", item.get("weight", 0), _WEIGHT)
        _node_term(faults, item.get("preference") or {}, f"{below}.preference")


def _node_term(faults: Faults, term: Json, path: str) -> None:
    for index, item in enumerate(term.get("matchExpressions") or ()):
        _node_requirement(faults, item, f"{path}.matchExpressions[{index}]")
    for index, item in enumerate(term.get("matchFields") or ()):
        _field_requirement(faults, item, f"{path}.matchFields[{index}]")


def _node_requirement(faults: Faults, item: Json, path: str) -> None:
    operator, values = item.get("operator", ""), item.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            faults.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            faults.forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            faults.required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        faults.invalid(f"{path}.operator", operator, "not a valid selector operator")
    faults.all_invalid(f"{path}.key", item.get("key", ""), names.qualified(item.get("key", "")))


def _field_requirement(faults: Faults, item: Json, path: str) -> None:
    operator, values = item.get("operator", ""), item.get("values") or ()
    if operator not in ("In", "NotIn"):
        faults.invalid(f"{path}.operator", operator, "not a valid selector operator")
    elif len(values) != 1:
        faults.required(
            f"{path}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        )
    if item.get("key") != "metadata.name":
        faults.invalid(f"{path}.key", item.get("key", ""), "not a valid field selector key")
        return
    for index, value in enumerate(values):
        faults.all_invalid(f"{path}.values[{index}]", value, names.subdomain(value))


def _pod_affinity(faults: Faults, found: Json, path: str) -> None:
    for index, term in enumerate(found.get(_REQUIRED) or ()):
        _pod_term(faults, term, f"{path}.{_REQUIRED}[{index}]")
    for index, item in enumerate(found.get(_PREFERRED) or ()):
        below = f"{path}.{_PREFERRED}[{index}]"
        if not 1 <= item.get("weight", 0) <= 100:
            faults.invalid(f"{below}.weight", item.get("weight", 0), _WEIGHT)
        _pod_term(faults, item.get("podAffinityTerm") or {}, f"{below}.podAffinityTerm")


def _pod_term(faults: Faults, term: Json, path: str) -> None:
    meta.selector(faults, term.get("labelSelector"), f"{path}.labelSelector")
    meta.selector(faults, term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for index, name in enumerate(term.get("namespaces") or ()):
        faults.all_invalid(f"{path}.namespace", name, names.label(name), f"{path}.namespaces[{index}]")
    key = term.get("topologyKey", "")
    if not key:
        faults.required(f"{path}.topologyKey", "can not be empty")
    faults.all_invalid(f"{path}.topologyKey", key, names.qualified(key))


def tolerations(faults: Faults, found: list[Json], path: str) -> None:
    for index, item in enumerate(found):
        _toleration(faults, item, f"{path}[{index}]")


def _toleration(faults: Faults, item: Json, path: str) -> None:
    key, operator, value = item.get("key", ""), item.get("operator", ""), item.get("value", "")
    if key:
        if wrong := names.qualified(key):
            faults.all_invalid(f"{path}.key", key, wrong)
    elif operator != "Exists":
        told = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        faults.invalid(f"{path}.operator", operator or "Equal", told)
    effect = item.get("effect", "")
    if "tolerationSeconds" in item and effect != "NoExecute":
        faults.invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator in ("", "Equal"):
        if wrong := names.label_value(value):
            faults.invalid(f"{path}.operator", value, ";".join(wrong), f"{path}.value")
    elif operator == "Exists":
        if value:
            told = "value must be empty when `operator` is 'Exists'"
            faults.invalid(f"{path}.operator", item, told)
    else:
        faults.unsupported(f"{path}.operator", operator, ("Equal", "Exists"))
    if effect and effect not in EFFECTS:
        faults.unsupported(f"{path}.effect", effect, EFFECTS)


def spread(faults: Faults, found: list[Json], path: str) -> None:
    pairs = [(item.get("topologyKey", ""), item.get("whenUnsatisfiable", "")) for item in found]
    for index, item in enumerate(found):
        below = f"{path}[{index}]"
        if item.get("maxSkew", 0) <= 0:
            faults.invalid(f"{below}.maxSkew", item.get("maxSkew", 0), "must be greater than zero")
        key, when = pairs[index]
        if not key:
            faults.required(f"{below}.topologyKey", "can not be empty")
        else:
            faults.all_invalid(f"{below}.topologyKey", key, names.qualified(key))
        if when not in ("DoNotSchedule", "ScheduleAnyway"):
            faults.unsupported(f"{below}.whenUnsatisfiable", when, ("DoNotSchedule", "ScheduleAnyway"))
        if (key, when) in pairs[index + 1 :]:
            faults.duplicate(f"{below}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {when}}}", at=below)
        domains = item.get("minDomains")
        if domains is not None:
            if domains <= 0:
                faults.invalid(f"{below}.minDomains", domains, "must be greater than zero")
            if when != "DoNotSchedule":
                told = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
                faults.invalid(f"{below}.minDomains", domains, told)
        meta.selector(faults, item.get("labelSelector"), f"{below}.labelSelector")
