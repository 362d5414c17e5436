"""Numbers that remember where they came from, and the recording of what was done with them.

A ``Symbol`` stands for a 64-bit word: a column of the packet, something loaded from a table, or what was computed from
those. Kernels handle it like the NumPy number it stands for. Each has a *kind*, as numba would type it:

    I   int64      U   uint64      W   uint32 and narrower (arithmetic on it is uint64's, as in numba)      B   bool

Where control flow asks a symbol (``if``, ``range``, an index of scratch), the recording notes a guard and goes on with the
answer for the packet at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

I, U, W, B = "IUWB"
_WORD = (1 << 64) - 1


class Abort(Exception):
    """This packet's way cannot be a trail."""


class Op(NamedTuple):
    """``code`` as in ``operations``; ``args``: numbers of earlier ones, or ``Const``; ``info`` is the code's own."""

    code: str
    args: tuple[Any, ...]
    info: Any = None


class Const(NamedTuple):
    """A word, as an unsigned number."""

    word: int


def signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def kind_of(value: Any) -> str:
    if isinstance(value, Symbol):
        return value.kind
    if isinstance(value, bool | np.bool_):
        return B
    if isinstance(value, np.uint64):
        return U
    if isinstance(value, np.uint32 | np.uint16 | np.uint8):
        return W
    if isinstance(value, int | np.int64 | np.int32 | np.int16 | np.int8):
        return I
    raise Abort(f"a {type(value).__name__} among symbols")


class Recording:
    """Operations in order, with the words they gave for the packet that is recorded."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.words: list[int] = []  # what each operation gave
        # Of a search of a short list, by its operation's number: (hi, lo, length) of each row that it has looked at.
        self.rows: dict[int, list[tuple[int, int, int]]] = {}
        self._known: dict[Op, int] = {}
        self._settled: set[tuple[int, bool]] = set()
        self.effects = 0  # stores so far: what is loaded from then on may be what they wrote
        self._written: dict[tuple[str, int], tuple[Any, Any]] = {}  # (table, offset) → index, value of the last store

    def add(self, op: Op, word: int, *, once: bool = True) -> int:
        """The number of an operation; an equal one that has been recorded before serves as well if ``once``."""
        if once:
            found = self._known.get(op)
            if found is not None:
                return found
        self.ops.append(op)
        self.words.append(word & _WORD)
        number = len(self.ops) - 1
        if once:
            self._known[op] = number
        return number

    def symbol(self, op: Op, word: int, kind: str, bits: int = 64, *, once: bool = True) -> Symbol:
        return Symbol(self, self.add(op, word, once=once), kind, bits)

    def guard(self, condition: Symbol, wanted: bool) -> None:
        if (condition.number, wanted) in self._settled:
            return
        self._settled.add((condition.number, wanted))
        self.add(Op("guard", (condition.number,), wanted), 0, once=False)

    def effect(self, op: Op) -> int:
        self.effects += 1
        return self.add(op, 0, once=False)

    def arg(self, value: Any) -> Any:
        """An operand: the operation's number, or the constant."""
        if isinstance(value, Symbol):
            return value.number
        return Const(int(value) & _WORD)

    def note_store(self, place: tuple[str, int], index: Any, value: Any) -> None:
        self._written[place] = index, value

    def stored(self, place: tuple[str, int], index: Any) -> Any:
        """What was stored last at this field, if it was this row's; else None."""
        held = self._written.get(place)
        return held[1] if held is not None and held[0] == index else None


def word_of(value: Any) -> int:
    return value.word if isinstance(value, Symbol) else int(value) & _WORD


def number_of(value: Any) -> int:
    """As Python has it: negative if the kind is signed and the number is."""
    return signed(word_of(value)) if kind_of(value) == I else word_of(value)


def _bits_of(value: Any) -> int:
    if isinstance(value, Symbol):
        return value.bits
    return 64 if int(value) < 0 else int(value).bit_length()


def _recording(*values: Any) -> Recording:
    for value in values:
        if isinstance(value, Symbol):
            return value.recording
    raise TypeError("no symbol among them")


_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": lambda a, b: a << b,
    "lshr": lambda a, b: a >> b,
    "ashr": lambda a, b: a >> b,
    "udiv": lambda a, b: a // b,
    "urem": lambda a, b: a % b,
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "slt": lambda a, b: int(a < b),
    "ult": lambda a, b: int(a < b),
    "sle": lambda a, b: int(a <= b),
    "ule": lambda a, b: int(a <= b),
    "least": min,
    "most": max,
}
_SIGNED = {"ashr", "slt", "sle"}


def compute(code: str, one: int, other: int) -> int:
    """The word that an operation of two words gives."""
    if code in _SIGNED:
        one, other = signed(one), signed(other)
    return _ARITHMETIC[code](one, other) & _WORD


_EITHER_WAY = ("add", "mul", "and", "or", "xor", "eq", "ne", "least", "most")


def in_order(code: str, one: Any, other: Any) -> tuple[Any, Any]:
    """The operands, so that what is the same either way round is the same operation: constants come second."""
    if code in _EITHER_WAY and (isinstance(one, Const) or (isinstance(other, int) and other < one)):
        return other, one
    return one, other


def _binary(code: str, one: Any, other: Any, kind: str | None = None, bits: int = 64) -> Any:
    recording = _recording(one, other)
    if kind is None:
        kinds = {kind_of(one), kind_of(other)}
        if U in kinds and I in kinds:
            constant = [value for value in (one, other) if not isinstance(value, Symbol)]
            if not constant or int(constant[0]) < 0:
                raise Abort(f"int64 {code} uint64")
            kind = U
        else:
            kind = I if I in kinds else U
    word = compute(code, word_of(one), word_of(other))
    return recording.symbol(Op(code, in_order(code, recording.arg(one), recording.arg(other))), word, kind, bits)


def _compare(code: str, one: Any, other: Any) -> Any:
    if code in ("lt", "le"):
        negative = [value for value in (one, other) if kind_of(value) == I and _bits_of(value) == 64]
        code = ("s" if negative else "u") + code
    return _binary(code, one, other, B, 1)


def _kind_for_shift(one: Any) -> str:
    return I if kind_of(one) == I else U


class Symbol:
    """``bits``: it fits into so many, unsigned."""

    __slots__ = ("bits", "kind", "number", "recording")
    __array_ufunc__ = None  # NumPy's numbers leave the arithmetic to us

    def __init__(self, recording: Recording, number: int, kind: str, bits: int) -> None:
        self.recording, self.number, self.kind, self.bits = recording, number, kind, bits

    @property
    def word(self) -> int:
        return self.recording.words[self.number]

    def cast(self, kind: str) -> Symbol:
        """As a number of another kind: the same word, cut to 32 bits for W."""
        if kind == self.kind:
            return self
        held = self.cut(32) if kind == W else self
        return Symbol(held.recording, held.number, kind, held.bits)

    def cut(self, bits: int) -> Symbol:
        if self.bits <= bits:
            return self
        mask = (1 << bits) - 1
        return self.recording.symbol(Op("and", (self.number, Const(mask))), self.word & mask, self.kind, bits)

    # -- arithmetic ---------------------------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Any:
        return _binary("add", self, other, bits=min(64, max(self.bits, _bits_of(other)) + 1))

    def __radd__(self, other: Any) -> Any:
        return _binary("add", other, self, bits=min(64, max(self.bits, _bits_of(other)) + 1))

    def __sub__(self, other: Any) -> Any:
        return _binary("sub", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _binary("sub", other, self)

    def __mul__(self, other: Any) -> Any:
        return _binary("mul", self, other, bits=min(64, self.bits + _bits_of(other)))

    __rmul__ = __mul__

    def __and__(self, other: Any) -> Any:
        kind = B if kind_of(self) == B and kind_of(other) == B else None
        return _binary("and", self, other, kind, min(self.bits, _bits_of(other)))

    __rand__ = __and__

    def __or__(self, other: Any) -> Any:
        kind = B if kind_of(self) == B and kind_of(other) == B else None
        return _binary("or", self, other, kind, max(self.bits, _bits_of(other)))

    __ror__ = __or__

    def __xor__(self, other: Any) -> Any:
        return _binary("xor", self, other, bits=max(self.bits, _bits_of(other)))

    __rxor__ = __xor__

    def __invert__(self) -> Any:
        return _binary("xor", self, np.uint64(_WORD) if self.kind != I else -1)

    def __lshift__(self, other: Any) -> Any:
        bits = 64 if isinstance(other, Symbol) else min(64, self.bits + int(other))
        return _binary("shl", self, other, _kind_for_shift(self), bits)

    def __rlshift__(self, other: Any) -> Any:
        return _binary("shl", other, self, _kind_for_shift(other))

    def __rshift__(self, other: Any) -> Any:
        bits = self.bits if isinstance(other, Symbol) else max(self.bits - int(other), 1)
        signed_kind = self.kind == I and self.bits == 64
        return _binary("ashr" if signed_kind else "lshr", self, other, _kind_for_shift(self), bits)

    def __rrshift__(self, other: Any) -> Any:
        return _binary("ashr" if kind_of(other) == I else "lshr", other, self, _kind_for_shift(other))

    def __floordiv__(self, other: Any) -> Any:
        self._divisible(other)
        return _binary("udiv", self, other, bits=self.bits)

    def __mod__(self, other: Any) -> Any:
        self._divisible(other)
        return _binary("urem", self, other, bits=self.bits)

    def _divisible(self, other: Any) -> None:
        """By a constant, and as if it were unsigned: a guard sees to that."""
        if isinstance(other, Symbol):
            raise Abort("a number is divided by another that is not known")
        if self.kind == I and self.bits == 64 and not self >= 0:
            raise Abort("a negative number is divided")

    # -- comparisons --------------------------------------------------------------------------------------------------
    def __eq__(self, other: Any) -> Any:
        return _compare("eq", self, other)

    def __ne__(self, other: Any) -> Any:
        return _compare("ne", self, other)

    def __lt__(self, other: Any) -> Any:
        return _compare("lt", self, other)

    def __le__(self, other: Any) -> Any:
        return _compare("le", self, other)

    def __gt__(self, other: Any) -> Any:
        return _compare("lt", other, self)

    def __ge__(self, other: Any) -> Any:
        return _compare("le", other, self)

    def __hash__(self) -> int:
        return self.number

    # -- control flow -------------------------------------------------------------------------------------------------
    def __bool__(self) -> bool:
        condition = self if self.kind == B else _compare("ne", self, 0)
        answer = bool(condition.word)
        self.recording.guard(condition, answer)
        return answer

    def __index__(self) -> int:
        number = signed(self.word) if self.kind == I else self.word
        self.recording.guard(_compare("eq", self, number if self.kind == I else np.uint64(number)), True)
        return number

    __int__ = __index__

    def __truediv__(self, other: Any) -> Any:
        return Fraction()


class Fraction:
    """A float64: only rules with a memory ask for one, and they are no part of a trail."""

    def __truediv__(self, other: Any) -> Fraction:
        return self


def select(condition: Any, one: Any, other: Any) -> Any:
    """``one if condition else other``, without a guard."""
    if not isinstance(condition, Symbol):
        return one if condition else other
    recording = condition.recording
    op = Op("select", (condition.number, recording.arg(one), recording.arg(other)))
    kind = kind_of(one) if kind_of(one) == kind_of(other) else I if I in (kind_of(one), kind_of(other)) else U
    return recording.symbol(op, word_of(one if condition.word else other), kind, max(_bits_of(one), _bits_of(other)))


def either(code: str, one: Any, other: Any) -> Any:
    """``least`` or ``most`` of two numbers that are not negative."""
    return _binary(code, one, other, bits=max(_bits_of(one), _bits_of(other)))
