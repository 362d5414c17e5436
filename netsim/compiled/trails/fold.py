"""Operations made simpler as they are collected: what is known beforehand, what has been computed before, fields of words.

Kernels put numbers together and take them apart again: ports are two halves of a word, the tuple of the other direction is
those halves the other way round. With the bits that each number can have at all (``bits``), a shift or a mask of a
combination is one of the combined, and the many spellings of a tuple and of its hash become one operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from netsim.compiled.trails.symbols import Const, Op, compute, in_order

PLAIN = {
    "add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "ashr", "udiv", "urem", "eq", "ne", "slt", "ult", "sle", "ule",
    "least", "most",
}  # fmt: skip
_ANSWERS = ("eq", "ne", "slt", "ult", "sle", "ule")
_ALL = (1 << 64) - 1


class Folder:
    """``ops`` so far; ``words``: what each gave, sample by sample."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.ops: list[Op] = []
        self.words: list[Sequence[int]] = []
        self._bits: list[int] = []
        self._known: dict[Op, int] = {}

    def emit(self, op: Op, words: Sequence[int], *, again: bool = False) -> int:
        """The number of an operation, a new one if it must be done ``again``."""
        found = None if again else self._known.get(op)
        if found is None:
            self.ops.append(op)
            self.words.append(words)
            self._bits.append(self._bits_of_op(op))
            found = self._known[op] = len(self.ops) - 1
        return found

    def words_of(self, arg: Any) -> Sequence[int]:
        return [arg.word] * self.samples if isinstance(arg, Const) else self.words[arg]

    def bits(self, arg: Any) -> int:
        """A mask of the bits that are set in any value of a number."""
        return arg.word if isinstance(arg, Const) else self._bits[arg]

    def _bits_of_op(self, op: Op) -> int:
        if op.code in _ANSWERS:
            return 1
        if op.code == "load":
            return _ALL if op.info[4] else (1 << 8 * op.info[3]) - 1
        if op.code == "select":
            return self.bits(op.args[1]) | self.bits(op.args[2])
        if op.code not in PLAIN:
            return _ALL
        one, other = (self.bits(arg) for arg in op.args)
        if op.code == "and":
            return one & other
        if op.code in ("or", "xor", "least", "most"):
            return one | other if op.code in ("or", "xor") else _below(max(one, other))
        if op.code in ("shl", "lshr") and isinstance(op.args[1], Const) and other < 64:
            return one << other & _ALL if op.code == "shl" else one >> other
        if op.code == "add":
            return _below(one + other) & _ALL
        return _below(one * other) & _ALL if op.code == "mul" else _ALL

    # -- arithmetic ---------------------------------------------------------------------------------------------------
    def plain(self, code: str, one: Any, other: Any) -> Any:
        """A number, or a ``Const``, that is what an operation of two gives."""
        if isinstance(one, Const) and isinstance(other, Const):
            return Const(compute(code, one.word, other.word))
        one, other = in_order(code, one, other)
        if isinstance(other, Const):
            short = self._with_constant(code, one, other.word)
            if short is not None:
                return short
        elif isinstance(one, Const) and one.word == 0 and code in ("shl", "lshr", "udiv", "urem"):
            return Const(0)
        words = [compute(code, this, that) for this, that in zip(self.words_of(one), self.words_of(other))]
        return self.emit(Op(code, (one, other)), words)

    def _with_constant(self, code: str, one: int, word: int) -> Any:
        """The same more simply; None if there is nothing to gain."""
        if word == 0 and code in ("add", "sub", "or", "xor", "shl", "lshr", "ashr"):
            return one
        if word == 0 and code == "mul":
            return Const(0)
        if word == 1 and code in ("mul", "udiv"):
            return one
        if code == "and":
            return self._masked(one, word)
        return self._shifted(one, word) if code == "lshr" and word < 64 else None

    def _masked(self, one: int, mask: int) -> Any:
        held = self.bits(one)
        if held & mask == 0:
            return Const(0)
        if held & ~mask == 0:
            return one
        code, args = self.ops[one].code, self.ops[one].args
        if code == "and" and isinstance(args[1], Const):
            return self.plain("and", args[0], Const(args[1].word & mask))
        if code == "or":
            for kept, gone in (args, args[::-1]):
                if self.bits(gone) & mask == 0:
                    return self.plain("and", kept, Const(mask))
        return None

    def _shifted(self, one: int, count: int) -> Any:
        """To the right."""
        if self.bits(one) >> count == 0:
            return Const(0)
        code, args = self.ops[one].code, self.ops[one].args
        if code == "or":
            for kept, gone in (args, args[::-1]):
                if self.bits(gone) >> count == 0:
                    return self.plain("lshr", kept, Const(count))
        if len(args) < 2 or not isinstance(args[1], Const):
            return None
        inner, more = args[0], args[1].word
        if code == "and":
            return self.plain("and", self.plain("lshr", inner, Const(count)), Const(more >> count))
        if code == "lshr" and more < 64 and count + more < 64:
            return self.plain("lshr", inner, Const(count + more))
        if code == "shl" and more < 64 and self.bits(inner) << more <= _ALL:  # nothing was lost
            far = Const(abs(more - count))
            return self.plain("shl" if more >= count else "lshr", inner, far)
        return None


def _below(most: int) -> int:
    """All bits that numbers up to ``most`` have."""
    return (1 << most.bit_length()) - 1
