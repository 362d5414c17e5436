"""Named tuples of arrays, handed to kernels by reference.

numba passes a tuple by value: every array in it as seven arguments. The engine's tables are some eighty arrays, and each
call between kernels would copy five hundred words; LLVM then spends minutes on what is only passed along. A ``Ref`` is one
pointer: inside kernels ``ref.name`` loads an array's header from memory when it is used, and a named tuple in a named
tuple is a reference again. With the JIT switched off a ``Ref`` is the tuple itself.

The memory holds, for each array in turn, what numba's array structure holds (``numba.core.datamodel.models.ArrayModel``):
meminfo, parent, number of items, bytes of an item, data, shape, strides: all of them words. It borrows the arrays: whoever
makes a ``Ref`` keeps it as long as kernels may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    register_model,
    typeof_impl,
    unbox,
)


class RefType(types.Type):  # type: ignore[misc]
    """A pointer to the words of ``inner``, a named tuple type."""

    def __init__(self, inner: types.NamedTuple) -> None:
        self.inner = inner
        self._digest = hash(inner)
        super().__init__(f"Ref({inner})")

    def __hash__(self) -> int:
        return self._digest  # numba asks at every call, and ``inner`` is eighty arrays

    def __reduce__(self) -> Any:
        return RefType, (self.inner,)  # the digest is this process's own, and numba's cache is for all of them

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, RefType) and self.inner == other.inner)

    @property
    def key(self) -> Any:
        return self.inner

    def field(self, name: str) -> tuple[Any, int] | None:
        """A member's type and the word at which it begins."""
        at = 0
        for known, kind in zip(self.inner.fields, self.inner.types):
            if known == name:
                return kind, at
            at += _size(kind)
        return None


def _size(kind: Any) -> int:
    if isinstance(kind, types.Array):
        return 5 + 2 * kind.ndim
    if isinstance(kind, types.BaseTuple):
        return sum(_size(member) for member in kind.types)
    if isinstance(kind, types.Integer) and kind.bitwidth == 64:
        return 1
    raise TypeError(f"{kind} cannot be a member of a Ref")


ITEMS, DATA, SHAPE = 2, 4, 5  # of an array's words: how many items, where they are, and from here on its shape


def arrays(value: Any, path: str, at: int = 0) -> Iterator[tuple[str, int, np.ndarray[Any, Any]]]:
    """The arrays of a named tuple, each as a path (``path.member``), the word at which it begins in a ``Ref``, itself."""
    if isinstance(value, np.ndarray):
        yield path, at, value
    elif isinstance(value, tuple):
        for name, member in zip(getattr(value, "_fields", ()), value):
            yield from arrays(member, f"{path}.{name}", at)
            at += len(_words(member))


def _words(value: Any) -> list[int]:
    if isinstance(value, np.ndarray):
        return [0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides]
    if isinstance(value, tuple):
        return [word for member in value for word in _words(member)]
    return [int(value)]


class Ref:
    """Made afresh whenever one of the arrays has been replaced."""

    __slots__ = ("address", "inner", "kind", "words")

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.kind: RefType | None = None  # asked for at every call
        self.words = np.array(_words(inner), np.int64)
        self.address = self.words.ctypes.data


def unchanged(one: Any, other: Any) -> bool:
    """Are these named tuples made of the very same arrays? A ``Ref`` of one will do for the other."""
    return one is other or (isinstance(one, tuple) and type(one) is type(other) and all(map(unchanged, one, other)))


def reference(inner: Any) -> Any:
    """``inner``, a named tuple of arrays, in the form that kernels take."""
    return inner if numba.config.DISABLE_JIT else Ref(inner)


@register_model(RefType)
class _RefModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: RefType) -> None:
        super().__init__(manager, kind, ir.IntType(8).as_pointer())


_known: dict[Any, RefType] = {}  # numba takes milliseconds to say the type of eighty arrays, at every call from Python


def _likeness(value: Any) -> Any:
    """What decides the type of a value: two that are alike here are of one numba type."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num
    if isinstance(value, tuple):
        return type(value), *[_likeness(member) for member in value]
    return type(value)


@typeof_impl.register(Ref)
def _type_of(value: Ref, context: Any) -> RefType:
    if value.kind is None:
        key = _likeness(value.inner)
        value.kind = _known.get(key)
        if value.kind is None:
            value.kind = _known[key] = RefType(numba.typeof(value.inner))
    return value.kind


@unbox(RefType)
def _unbox(kind: RefType, obj: Any, c: Any) -> NativeValue:
    number = c.pyapi.object_getattr_string(obj, "address")
    address = c.pyapi.long_as_voidptr(number)
    c.pyapi.decref(number)
    return NativeValue(address)


@infer_getattr
class _Attributes(AttributeTemplate):  # type: ignore[misc]
    key = RefType

    def generic_resolve(self, kind: RefType, name: str) -> Any:
        found = kind.field(name)
        if found is None:
            return None
        return RefType(found[0]) if isinstance(found[0], types.NamedTuple) else found[0]


@lower_getattr_generic(RefType)
def _lower(context: Any, builder: Any, kind: RefType, value: Any, name: str) -> Any:
    found = kind.field(name)
    assert found is not None
    member, at = found
    place = cgutils.pointer_add(builder, value, ir.Constant(ir.IntType(64), 8 * at))
    if isinstance(member, types.NamedTuple):
        return place
    return builder.load(builder.bitcast(place, context.get_value_type(member).as_pointer()))
