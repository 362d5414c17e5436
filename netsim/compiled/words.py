"""The array of 32-bit words that compiled rules live in: it grows at its end, by blocks; large ones may be given back."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from netsim.compiled.memory import aligned

LINE = 16  # words
_PADDING = [0] * 2 * LINE


class Words:
    """Blocks are staged, and written when somebody looks. Address 0 is nothing's. ``end``: the address of the next word."""

    def __init__(self, capacity: int = 1 << 12) -> None:
        self._array: npt.NDArray[np.uint32] = aligned(capacity, np.uint32)
        self._written = self.end = 16
        self._staged = array("I")
        self._free: dict[int, list[int]] = {}  # addresses by room

    def aligned(self, words: int) -> int:
        """Skip to where a block of at least ``words`` should begin, and say where: on a cache line; on a pair of them,
        which processors fetch together, if it needs more than one; right here if it still fits into this line."""
        at = self.end
        line = LINE if words <= LINE else 2 * LINE
        over = at % line
        if over and over + words > line:
            self._staged.fromlist(_PADDING[: line - over])
            at += line - over
            self.end = at
        return at

    def add(self, block: list[int]) -> int:
        """Append a block; its address."""
        at = self.end
        self._staged.fromlist(block)
        self.end = at + len(block)
        return at

    def add_array(self, block: npt.NDArray[np.uint32]) -> int:
        at = self.end
        self._staged.frombytes(np.ascontiguousarray(block, np.uint32).tobytes())
        self.end = at + block.size
        return at

    def reserve(self, words: int) -> int:
        """The address, on a pair of cache lines, of room for a large block: where one of its kind was given back, or at the
        end. Nothing is known of what is there."""
        room = _room(words)
        held = self._free.get(room)
        if held:
            return held.pop()
        at = self.aligned(2 * LINE)
        self.add_array(np.zeros(room, np.uint32))
        return at

    def write(self, at: int, block: npt.NDArray[np.uint32]) -> None:
        """Fill what was reserved."""
        self.array[at : at + block.size] = block.reshape(-1)

    def give_back(self, at: int, words: int) -> None:
        """Nobody reads the block of ``words`` any more that was reserved at ``at``."""
        self._free.setdefault(_room(words), []).append(at)

    @property
    def array(self) -> npt.NDArray[np.uint32]:
        """All words, and zeros behind them. Replaced when it grows."""
        if self._staged:
            end = self.end
            if end > len(self._array):
                capacity = len(self._array)
                while capacity < end:
                    capacity *= 2
                grown = aligned(capacity, np.uint32)
                grown[: self._written] = self._array[: self._written]
                self._array = grown
            self._array[self._written : end] = np.frombuffer(self._staged, np.uint32)
            self._written = end
            self._staged = array("I")
        return self._array


def _room(words: int) -> int:
    """Room comes in few sizes, an eighth apart at most, so that a block that grows a little fits where it was."""
    step = max(2 * LINE, 1 << max(words.bit_length() - 4, 0))
    return -(-words // step) * step
