"""Strict decoding: is a JSON object of the shape its kind has? In the words of the API server's decoder.

Type errors stop at the first, as Go's decoder does; unknown fields are all told. ``null`` is the same as absent, so
the walk takes it out, and what follows never meets a None. Types are compiled from ``schema`` when first needed.

msgspec looks at each object first: what has exactly the shape of its type is right, and the walk, which finds the words, is
for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from netsim.kube import quantity, schema, schema_pod
from netsim.kube.fault import Fault
from netsim.kube.kinds import USED, group_of

Path = tuple[Any, ...]  # (path of the parent, step); () is the object itself
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)


class _TypeError(Exception):
    def __init__(self, path: Path, text: str) -> None:
        super().__init__(text)
        self.path, self.text = path, text


def strict(body: dict[str, Any], api_version: str, kind: str) -> list[Fault]:
    """The decoder's complaints about ``body``, which loses its nulls."""
    name = schema.OLD.get((api_version, kind), kind) if (group_of(api_version), kind) in USED else "Anything"
    if _well_shaped(name, body):
        return []
    unknown: list[Path] = []
    try:
        _type(name).check(body, (), kind, unknown)
    except _TypeError as error:
        return [Fault("", error.text, dotted(error.path))]
    if not unknown:
        return []
    return [Fault("", f'strict decoding error: unknown field "{dotted(path)}"', dotted(path)) for path in unknown]


def dotted(path: Path, indices: bool = True) -> str:
    """``spec.ports[0].port``; without indices and map keys, as Go's type errors have it."""
    steps: list[Any] = []
    while path:
        path, step = path
        steps.append(step)
    text = ""
    for step in reversed(steps):
        if isinstance(step, int):
            text += f"[{step}]" if indices else ""
        elif isinstance(step, _Key):
            text += f"[{step.name}]" if indices else ""
        else:
            text += f".{step}" if text else step
    return text


class _Key:
    """A step into a map, as opposed to a field."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Type:
    """One type: ``plain`` is the class of values that need no further look; ``zero`` what null in a list means."""

    plain: type | None = None
    go = ""

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        raise NotImplementedError

    def zero(self) -> Any:
        return ""

    def refuse(self, value: Any, path: Path, owner: str, number: bool = False) -> _TypeError:
        what = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}[type(value)]
        what += f" {value}" if number else ""
        where = dotted(path, indices=False)
        return _TypeError(path, f"json: cannot unmarshal {what} into Go struct field {owner}.{where} of type {self.go}")


class _Plain(_Type):
    def __init__(self, plain: type, go: str) -> None:
        self.plain, self.go = plain, go

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is not self.plain:
            raise self.refuse(value, path, owner)

    def zero(self) -> Any:
        assert self.plain
        return self.plain()


class _Integer(_Type):
    def __init__(self, bits: int) -> None:
        self.low, self.high, self.go = -(1 << bits - 1), (1 << bits - 1) - 1, f"int{bits}"

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is not int:
            raise self.refuse(value, path, owner, number=isinstance(value, float))
        if not self.low <= value <= self.high:
            raise self.refuse(value, path, owner, number=True)

    def zero(self) -> Any:
        return 0


class _IntOrString(_Type):
    plain, go = str, "intstr.IntOrString"

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is str:
            return
        if value.__class__ is not int:
            raise self.refuse(value, path, owner, number=isinstance(value, float))
        if not -(1 << 31) <= value < 1 << 31:
            raise self.refuse(value, path, owner, number=True)


class _Quantity(_Type):
    go = "resource.Quantity"

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ not in (str, int, float):
            raise self.refuse(value, path, owner)
        try:
            quantity.parse(value)
        except ValueError as error:
            raise _TypeError(path, f"{dotted(path)}: {error}") from None


class _Time(_Type):
    go = "v1.Time"

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is not str:
            raise self.refuse(value, path, owner)
        if not _TIME.fullmatch(value):
            told = f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse it'
            raise _TypeError(path, f"{dotted(path)}: {told}")


class _Any(_Type):
    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        pass


class _List(_Type):
    def __init__(self, element: _Type) -> None:
        self.element = element
        self.go = f"[]{element.go if element.plain or not isinstance(element, _Struct) else 'v1.' + element.go}"

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is not list:
            raise self.refuse(value, path, owner)
        element = self.element
        plain, check = element.plain, element.check
        for index, item in enumerate(value):
            if item.__class__ is plain:
                continue
            if item is None:
                value[index] = element.zero()
            else:
                check(item, (path, index), owner, unknown)

    def zero(self) -> Any:
        return []


class _Map(_Type):
    def __init__(self, element: _Type) -> None:
        self.element = element
        self.go = f"map[string]{element.go}"

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is not dict:
            raise self.refuse(value, path, owner)
        element = self.element
        plain = element.plain
        for key, item in value.items():
            if item.__class__ is plain:
                continue
            if item is None:
                value[key] = element.zero()  # same size: safe while iterating
            else:
                element.check(item, (path, _Key(key)), owner, unknown)

    def zero(self) -> Any:
        return {}


class _Struct(_Type):
    def __init__(self, name: str, definition: str, is_open: bool) -> None:
        self.go, self.open = name.removeprefix("Old"), is_open
        self.definition = definition
        self._fields: dict[str, _Type] | None = None

    def check(self, value: Any, path: Path, owner: str, unknown: list[Path]) -> None:
        if value.__class__ is not dict:
            raise self.refuse(value, path, owner)
        fields = self._fields
        if fields is None:
            fields = self._fields = {
                name: _type(kind) for name, _, kind in (item.partition("=") for item in self.definition.split())
            }
        nulls = None
        for key, item in value.items():
            kind = fields.get(key)
            if kind is None:
                if not self.open:
                    unknown.append((path, key))
            elif item.__class__ is kind.plain:
                continue
            elif item is None:
                nulls = [key] if nulls is None else [*nulls, key]
            else:
                kind.check(item, (path, key), self.go, unknown)
        if nulls:
            for key in nulls:
                del value[key]

    def zero(self) -> Any:
        return {}


# -- the quick look ----------------------------------------------------------------------------------------------------
_shapes: dict[str, Any] = {
    "string": str,
    "bool": bool,
    "int32": Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)],
    "int64": Annotated[int, msgspec.Meta(ge=-(1 << 62), le=1 << 62)],
    "IntOrString": Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)] | str,
    # of quantities the usual ones
    "Quantity": Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,15}(m|[KMGT]i|[kMGT])?\Z")],
    "Time": Annotated[str, msgspec.Meta(pattern=rf"^(?:{_TIME.pattern})\Z")],
    "any": dict[str, Any] | list[Any] | str | bool | int | float,
}


def _well_shaped(name: str, body: dict[str, Any]) -> bool:
    """Is ``body`` of the shape of type ``name``, without a null or an unknown field? No is no answer: the walk decides."""
    try:
        msgspec.convert(body, _shape(name))
    except (msgspec.ValidationError, RecursionError):
        return False
    return True


def _shape(name: str) -> Any:
    found = _shapes.get(name)
    if found is None:
        if name.startswith("[]"):
            found = list[_shape(name[2:])]  # type: ignore[misc]
        elif name.startswith("{}"):
            found = dict[str, _shape(name[2:])]  # type: ignore[misc]
        else:
            definition, is_open = _definition(name)
            fields = [
                (f"f{number}", _shape(kind), msgspec.field(name=field, default=None))
                for number, (field, _, kind) in enumerate(item.partition("=") for item in definition.split())
            ]
            found = msgspec.defstruct(name, fields, forbid_unknown_fields=not is_open, gc=False)
        _shapes[name] = found
    return found


_types: dict[str, _Type] = {}
_definitions: dict[str, tuple[str, bool]] = {}
_SCALARS: dict[str, Callable[[], _Type]] = {
    "string": lambda: _Plain(str, "string"),
    "bool": lambda: _Plain(bool, "bool"),
    "int32": lambda: _Integer(32),
    "int64": lambda: _Integer(64),
    "IntOrString": _IntOrString,
    "Quantity": _Quantity,
    "Time": _Time,
    "any": _Any,
}


def _type(name: str) -> _Type:
    found = _types.get(name)
    if found is None:
        if name in _SCALARS:
            found = _SCALARS[name]()
        elif name.startswith("[]"):
            found = _List(_type(name[2:]))
        elif name.startswith("{}"):
            found = _Map(_type(name[2:]))
        else:
            found = _Struct(name, *_definition(name))
        _types[name] = found
    return found


def _definition(name: str) -> tuple[str, bool]:
    """The fields of a type, and whether it is open."""
    if not _definitions:
        _read_definitions()
    return _definitions[name]


def _read_definitions() -> None:
    for text in (schema.META, schema.CORE, schema.NETWORKING, schema.WORKLOADS, schema_pod.POD):
        for line in text.replace("\n  ", " ").splitlines():
            name, colon, definition = line.partition(":")
            if colon:
                _definitions[name.rstrip("+")] = (definition, name.endswith("+"))
