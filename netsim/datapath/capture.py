"""Captures as blocks of records: pcap and pcapng, memory-mapped, read by the kernels of ``netsim.compiled.capture_kernel``.

    Capture(path).blocks() ──▶ Block, Block, …   each an array of SEEN, in the order of the file
                  .oddities    what could not be used or is odd about it, counted by reason, after the blocks

Nothing is dropped: every packet of the file is in a block, those that cannot be used with their reason.
"""

from __future__ import annotations

import mmap
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from netsim.compiled import capture_kernel as kernel
from netsim.compiled.capture_kernel import INTERFACES, LINKS, SEEN
from netsim.datapath.captured import REASONS, Block
from netsim.errors import InputError, Problem, Source

_PCAP: Final = {  # the magic as it lies in the file → (little-endian, nanoseconds of a tick)
    b"\xa1\xb2\xc3\xd4": (False, 1000),
    b"\xd4\xc3\xb2\xa1": (True, 1000),
    b"\xa1\xb2\x3c\x4d": (False, 1),
    b"\x4d\x3c\xb2\xa1": (True, 1),
}
_SECTION = b"\x0a\x0d\x0d\x0a"
_OTHERS: Final = {  # what people take for captures
    b"\x1f\x8b": "it is compressed; gunzip it first",
    b"\x28\xb5\x2f\xfd": "it is compressed; unzstd it first",
    b"\xa1\xb2\xcd\x34": "it is of the patched pcap format; save it as pcapng with editcap",
    b"\x34\xcd\xb2\xa1": "it is of the patched pcap format; save it as pcapng with editcap",
    b"snoop": "it is a snoop file; save it as pcapng with editcap",
}
_TSRESOL, _TSOFFSET = 9, 14

REMARKS: Final = {
    kernel.FRAGMENT: "fragments",
    kernel.EXTENDED: "with IPv6 extension headers",
    kernel.OPTIONS: "with IPv4 options",
    kernel.MALFORMED: "with a transport header that contradicts itself",
    kernel.BAD_CHECKSUM: "with a wrong IPv4 header checksum (taken all the same)",
    kernel.OVERLONG: "of which more was captured than was sent, says the file (taken as captured)",
}


class Capture:
    """One file. InputError if it is no capture or is damaged where reading cannot go on; it names the packet or byte.

    ``oddities`` counts, by reason, the packets that were not usable (``unusable`` in all) and ``remarks`` what is worth
    knowing of usable ones; both are complete when ``blocks`` has come to its end, as is ``packets``."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.data = self._map()
        self.packets = 0
        self.oddities: Counter[str] = Counter()
        self.remarks: Counter[str] = Counter()
        self._check_magic()

    @property
    def unusable(self) -> int:
        return self.oddities.total()

    def blocks(self, size: int = 65536) -> Iterator[Block]:
        """The packets of the file, ``size`` at a time. Memory does not grow with the file."""
        walk = self._walk_pcapng if self.data[:4].tobytes() == _SECTION else self._walk_pcap
        for records in walk(size):
            kernel.dissect(self.data, records)
            self._count(records)
            yield Block(self.data, self.packets + 1, records)
            self.packets += len(records)

    def _count(self, records: npt.NDArray[Any]) -> None:
        counts = np.bincount(records["oddity"], minlength=len(REASONS) + 1)
        for reason, words in REASONS.items():
            if counts[reason]:
                self.oddities[words] += int(counts[reason])
        usable = records["flags"][records["oddity"] == 0]
        for bit, words in REMARKS.items():
            if number := int(np.count_nonzero(usable & bit)):
                self.remarks[words] += number

    # -- the file ------------------------------------------------------------------------------------------------------
    def _map(self) -> npt.NDArray[np.uint8]:
        try:
            with open(self.path, "rb") as file:
                if stat.S_ISREG(Path(self.path).stat().st_mode) and Path(self.path).stat().st_size:
                    return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
                return np.frombuffer(file.read(), np.uint8)
        except OSError as error:
            raise self._fault(f"cannot be read: {error.strerror or error}") from None

    def _check_magic(self) -> None:
        head = self.data[:5].tobytes()
        if not head:
            raise self._fault("an empty file, not a capture")
        if head[:4] in _PCAP or head[:4] == _SECTION:
            return
        for magic, words in _OTHERS.items():
            if head.startswith(magic):
                raise self._fault(words)
        raise self._fault(f"not a capture: it begins neither as pcap nor as pcapng, but with {head[:4].hex(' ')}")

    def _fault(self, text: str) -> InputError:
        return InputError([Problem(text, Source(self.path))])

    def _stop(self, how: int, at: int, number: int) -> bool:
        """Is the file at its end? InputError if it cannot be read on."""
        if how == kernel.ENDS_INSIDE:
            self.remarks["cut off by the end of the file, and left out"] += 1
            return True
        if how == kernel.DAMAGED:
            raise self._fault(
                f"packet {number}: the record at byte {at} is damaged (its lengths cannot be); keep what is before it with "
                f"editcap -r FILE NEW 1-{number - 1}"
            )
        if how == kernel.NO_INTERFACE:
            raise self._fault(
                f"packet {number}: the block at byte {at} names an interface that the file does not describe"
            )
        return how == kernel.AT_END

    def _word(self, at: int, little: bool, size: int = 4) -> int:
        return int.from_bytes(self.data[at : at + size].tobytes(), "little" if little else "big")

    # -- pcap ----------------------------------------------------------------------------------------------------------
    def _walk_pcap(self, size: int) -> Iterator[npt.NDArray[Any]]:
        little, tick = _PCAP[self.data[:4].tobytes()]
        if len(self.data) < 24:
            raise self._fault(f"a pcap file has a header of 24 bytes, this one {len(self.data)} bytes in all")
        major, minor = self._word(4, little, 2), self._word(6, little, 2)
        if major != 2:
            raise self._fault(f"pcap version {major}.{minor} is not read, only 2.x")
        snap, link = self._word(16, little), self._word(20, little) & 0xFFFF
        if link not in LINKS:
            raise self._fault(f"link type {link} is not read, only {_links()}")
        at, how, number = 24, kernel.FULL, 1
        while True:
            records = np.zeros(size, SEEN)
            at, count, how = kernel.walk_pcap(self.data, at, little, tick, link, snap, records)
            if count:
                yield records[:count]
            number += count
            if how != kernel.FULL and self._stop(how, at, number):
                return

    # -- pcapng --------------------------------------------------------------------------------------------------------
    def _walk_pcapng(self, size: int) -> Iterator[npt.NDArray[Any]]:
        interfaces, known = np.zeros(16, INTERFACES), 0
        at, little, last, number = 0, True, 0, 1
        records, count = np.zeros(size, SEEN), 0
        while True:
            at, more, how = kernel.walk_pcapng(self.data, at, little, interfaces, known, last, records[count:])
            self._unread(records[count : count + more])
            count, number = count + more, number + more
            if more:
                last = int(records[count - 1]["time"])
            if how == kernel.SECTION:
                at, little = self._section(at)
                known = 0
                continue
            if how == kernel.INTERFACE:
                if known == len(interfaces):
                    interfaces = np.concatenate((interfaces, np.zeros_like(interfaces)))
                at += self._interface(at, little, interfaces[known : known + 1])
                known += 1
                continue
            if count:
                yield records[:count]
                records, count = np.zeros(size, SEEN), 0
            if how != kernel.FULL and self._stop(how, at, number):
                return

    def _unread(self, records: npt.NDArray[Any]) -> None:
        strange = ~np.isin(records["link"], np.array(sorted(LINKS), np.uint16))
        records["oddity"][strange] = kernel.UNKNOWN_LINK

    def _section(self, at: int) -> tuple[int, bool]:
        """The byte after a section header, and whether the section is little-endian."""
        magic = self.data[at + 8 : at + 12].tobytes()
        if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
            raise self._fault(f"the section at byte {at} names no byte order")
        little = magic == b"\x4d\x3c\x2b\x1a"
        length, major = self._word(at + 4, little), self._word(at + 12, little, 2)
        if length < 28 or length % 4 or length > len(self.data) - at:
            raise self._fault(f"the section header at byte {at} claims {length} bytes, {len(self.data) - at} are left")
        if major != 1:
            raise self._fault(f"the section at byte {at} is of pcapng version {major}, which is not read, only 1")
        return at + length, little

    def _interface(self, at: int, little: bool, into: npt.NDArray[Any]) -> int:
        """Read an interface description into one record of INTERFACES; the length of its block."""
        length = self._word(at + 4, little)
        if length < 20:
            raise self._fault(f"the interface description at byte {at} is too short")
        resolution, offset = 6, 0
        for code, value in self._options(at + 16, at + length - 4, little):
            if code == _TSRESOL and len(value) == 1:
                resolution = value[0]
            elif code == _TSOFFSET and len(value) == 8:
                offset = int.from_bytes(value, "little" if little else "big", signed=True)
        divisor, second = self._ticks(at, resolution)
        if abs(offset) > 8_000_000_000:
            raise self._fault(f"the interface described at byte {at} counts time from {offset} seconds: that cannot be")
        into[0] = (self._word(at + 8, little, 2), self._word(at + 12, little), divisor, second, offset)
        return length

    def _ticks(self, at: int, resolution: int) -> tuple[int, int]:
        """``if_tsresol`` as (ticks to leave out, ticks of a second then): no finer than nanoseconds or 2^-30 s."""
        power = resolution & 0x7F
        base, finest = (2, 30) if resolution & 0x80 else (10, 9)
        if base**power >= 1 << 64:
            raise self._fault(
                f"the interface described at byte {at} counts {base}^{power} ticks a second: that cannot be"
            )
        return base ** max(0, power - finest), base ** min(power, finest)

    def _options(self, at: int, end: int, little: bool) -> Iterator[tuple[int, bytes]]:
        while at + 4 <= end:
            code, length = self._word(at, little, 2), self._word(at + 2, little, 2)
            if code == 0:
                return
            if at + 4 + length > end:
                raise self._fault(f"the option at byte {at} is longer than its block")
            yield code, self.data[at + 4 : at + 4 + length].tobytes()
            at += 4 + length + (-length % 4)


def _links() -> str:
    return "Ethernet (1), Linux cooked (113, 276), raw IP (101, 228, 229) and loopback (0, 108)"
