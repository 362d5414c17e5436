"""pod-template-hash and the DaemonSet's controller-revision-hash, byte for byte.

Upstream (controller.ComputeHash, util/hash.DeepHashObject) prints the Go value of the template with every type and
every unset field, and takes FNV-1a of that text. So the field lists of the Kubernetes version decide: they are data
(``netsim/data/pod_template_fields.json``, 1.26 to 1.36; older versions are taken as 1.26).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from importlib.resources import files
from typing import Any

from netsim.kube import quantity
from netsim.kube.control.names import fnv1a, safe_encode

HASH_LABEL = "pod-template-hash"
_ZERO_TIME = "{Time:(time.Time){wall:(uint64)0 ext:(int64)0 loc:(*time.Location)<nil>}}"
_NUMBERS = frozenset(["int", "int32", "int64", "uint8", "uint32"])
_SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


def template_hash(template: Mapping[str, Any], version: tuple[int, int], collisions: int | None = None) -> str:
    """The hash of a defaulted pod template; ``collisions`` is the workload's status.collisionCount."""
    metadata = dict(template.get("metadata") or {})
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != HASH_LABEL}
    metadata["labels"] = labels
    text = describe({"metadata": metadata, "spec": template.get("spec") or {}}, version)
    state = fnv1a(text.encode())
    if collisions is not None:
        state = fnv1a(collisions.to_bytes(4, "little") + bytes(4), state)
    return safe_encode(str(state))


def describe(template: Mapping[str, Any], version: tuple[int, int]) -> str:
    """The text that is hashed."""
    return _Printer(version).shown("PodTemplateSpec", "core", template)


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("netsim.data").joinpath("pod_template_fields.json").read_text())
    return loaded


@lru_cache(maxsize=1024)
def _fields(name: str, version: tuple[int, int]) -> tuple[tuple[str, str, str], ...]:
    """(Go name, type, JSON name or ``,inline``) of a struct in ``version``."""
    held = _data()["types"][name]
    starts = sorted((tuple(map(int, start.split("."))), start) for start in held)
    fitting = [start for at, start in starts if at <= version] or [starts[0][1]]
    return tuple(tuple(field.split(" ")) for field in held[fitting[-1]])


class _Printer:
    def __init__(self, version: tuple[int, int]) -> None:
        self._version = version

    def shown(self, go_type: str, package: str, value: Any) -> str:
        return f"({_type_name(go_type, package)}){self.body(go_type, package, value)}"

    def body(self, go_type: str, package: str, value: Any) -> str:
        if go_type.startswith("*"):
            return "<nil>" if value is None else self.body(go_type[1:], package, value)
        if go_type.startswith("[]"):
            # Storage is protobuf, which does not tell an empty list or map from none.
            return f"[{' '.join(self._item(go_type[2:], package, item) for item in value)}]" if value else "<nil>"
        if go_type.startswith("map["):
            item = go_type[4:].partition("]")[2]
            if not value:
                return "<nil>"
            pairs = (f"{key}:{self._item(item, package, value[key])}" for key in sorted(value))
            return f"map[{' '.join(pairs)}]"
        if go_type in _NUMBERS:
            return str(int(value or 0))
        if go_type == "bool":
            return "true" if value else "false"
        if go_type in ("string", "types.UID"):
            return "" if value is None else str(value)
        return self._named(go_type, package, value)

    def _named(self, go_type: str, package: str, value: Any) -> str:
        home, name = _home(go_type, package)
        if name == "Quantity":
            return _quantity(value)
        if name == "IntOrString":
            text = isinstance(value, str)
            number, word = (0, value) if text else (value or 0, "")
            return f"{{Type:(intstr.Type){int(text)} IntVal:(int32){number} StrVal:(string){word}}}"
        if name == "Time":
            return _ZERO_TIME
        full = f"{home}/{name}"
        if full in _data()["named"]:
            return self.body(_data()["named"][full], home, value)
        value = value or {}
        printed = []
        for field, field_type, key in _fields(full, self._version):
            inner = value if key == ",inline" else value.get(key)
            printed.append(f"{field}:{self.shown(field_type, home, inner)}")
        return f"{{{' '.join(printed)}}}"

    def _item(self, go_type: str, package: str, value: Any) -> str:
        mark = "<*>" if go_type.startswith("*") and value is not None else ""
        return mark + self.body(go_type, package, value)


def _home(go_type: str, package: str) -> tuple[str, str]:
    """The package a type is declared in, and its bare name."""
    where, dot, name = go_type.rpartition(".")
    if not dot:
        return package, go_type
    return {"metav1": "meta", "v1": "core"}.get(where, where), name


def _type_name(go_type: str, package: str) -> str:
    for mark in ("*", "[]"):
        if go_type.startswith(mark):
            return mark + _type_name(go_type[len(mark) :], package)
    if go_type.startswith("map["):
        key, _, item = go_type[4:].partition("]")
        return f"map[{_type_name(key, package)}]{_type_name(item, package)}"
    if go_type == "byte":
        return "uint8"
    if go_type in _NUMBERS or go_type in ("bool", "string"):
        return go_type
    home, name = _home(go_type, package)
    return f"v1.{name}" if home in ("core", "meta") else f"{home}.{name}"


def _quantity(value: Any) -> str:
    text = "" if value is None else quantity.canonical(value)
    number, scale, form = 0, 0, "DecimalSI" if text else ""
    if text:
        exact: Fraction = quantity.parse(text)
        if text.endswith("i"):
            form, number = "BinarySI", int(exact)
        else:
            digits, mark, power = text.partition("e")
            suffix = digits.lstrip("-0123456789")
            scale = int(power) if mark else _SUFFIXES[suffix]
            form = "DecimalExponent" if mark else "DecimalSI"
            number = int(exact / Fraction(10) ** scale)
    amount = f"(resource.int64Amount){{value:(int64){number} scale:(resource.Scale){scale}}}"
    decimal = "(resource.infDecAmount){Dec:(*inf.Dec)<nil>}"
    return f"{{i:{amount} d:{decimal} s:(string){text} Format:(resource.Format){form}}}"
