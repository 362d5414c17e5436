"""Node, ServiceCIDR and IPAddress."""

from __future__ import annotations

from typing import Any

from netsim.kube.fault import Faults, Go, quote
from netsim.kube.validate import names

Json = dict[str, Any]
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def node(faults: Faults, body: Json) -> None:
    spec = body.get("spec") or {}
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        _taint(faults, taint, index, seen)
    cidrs = spec.get("podCIDRs") or []
    for index, cidr in enumerate(cidrs):
        faults.all_invalid(f"spec.podCIDRs[{index}]", cidr, names.cidr(cidr))
    if len(cidrs) > 1:
        families = [found.version for found in map(names.prefix, cidrs) if found]
        if len(cidrs) > 2 or len(set(families)) < len(families):
            faults.invalid("spec.podCIDRs", cidrs, "may specify no more than one CIDR for each IP family")
        for index, cidr in enumerate(cidrs):
            if cidr in cidrs[:index]:
                faults.duplicate(f"spec.podCIDRs[{index}]", cidr)
    for index, item in enumerate((body.get("status") or {}).get("addresses") or ()):
        # The server lets any text pass; netsim routes to these, so a bad one cannot be used.
        if item.get("type") in ("InternalIP", "ExternalIP") and not names.address(item.get("address", "")):
            faults.invalid(f"status.addresses[{index}].address", item.get("address", ""), names.IP_TEXT)


def _taint(faults: Faults, taint: Json, index: int, seen: set[tuple[str, str]]) -> None:
    path, at = f"metadata.taints[{index}]", f"spec.taints[{index}]"
    key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
    faults.all_invalid(f"{path}.key", key, names.qualified(key), f"{at}.key")
    if wrong := names.label_value(value):
        faults.invalid(f"{path}.value", value, ";".join(wrong), f"{at}.value")
    if not effect:
        faults.add(f"{path}.effect", "Required value", at)
    elif effect not in EFFECTS:
        faults.unsupported(f"{path}.effect", effect, EFFECTS, f"{at}.effect")
    if (key, effect) in seen:
        shown = f"core.Taint{{Key:{quote(key)}, Value:{quote(value)}, Effect:{quote(effect)}, TimeAdded:<nil>}}"
        faults.duplicate(path, Go(shown), "taints must be unique by key and effect pair", at)
    seen.add((key, effect))


def service_cidr(faults: Faults, body: Json) -> None:
    cidrs = (body.get("spec") or {}).get("cidrs") or []
    if not cidrs:
        faults.required("spec.cidrs", "at least one CIDR required")
    elif len(cidrs) > 2:
        faults.invalid("spec", cidrs, "may only hold up to 2 values")
    for index, cidr in enumerate(cidrs):
        found = names.prefix(cidr)
        if found is None:
            faults.invalid(f"spec.cidrs[{index}]", cidr, names.CIDR_TEXT)
        elif str(found) != cidr:
            faults.invalid(f"spec.cidrs[{index}]", cidr, f'must be in canonical form ("{found}")')
    families = [found.version for found in map(names.prefix, cidrs) if found]
    if len(families) == 2 and families[0] == families[1]:
        faults.invalid("spec.cidrs", cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and "
                       "2001:db8::/64")  # fmt: skip


def any_name(name: str) -> names.Wrong:
    """An IPAddress is named by its address, which ``ip_address`` checks: colons are fine there alone."""
    return ()


def ip_address(faults: Faults, body: Json) -> None:
    name = (body.get("metadata") or {}).get("name", "")
    if name and str(names.address(name)) != name:
        faults.invalid("metadata.name", name, "must be a canonical IP address")
    reference = (body.get("spec") or {}).get("parentRef")
    if not reference:
        faults.required("spec.parentRef")
        return
    for field in ("resource", "name"):
        if not reference.get(field):
            faults.required(f"spec.parentRef.{field}")
