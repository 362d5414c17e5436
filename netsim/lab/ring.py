"""A packet socket that copies what it sees at the moment it sees it (``PACKET_RX_RING``, TPACKET_V2).

An ordinary packet socket keeps a clone whose bytes belong to the packet still under way: a router that sends fragments on
writes new MAC addresses and TTLs into them, and the socket would show what the packet became later.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Iterator

_ALL = 3  # ETH_P_ALL
_SOL_PACKET, _RX_RING, _STATISTICS, _VERSION, _V2 = 263, 5, 6, 10, 1
_FRAME = 2048  # bytes: a frame of an underlay of 1500 bytes, with the ring's own header
_BLOCK = 1 << 16
_HEADER = struct.Struct("=IIIHHIIHH4x")  # struct tpacket2_hdr
_LINK_LAYER = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll
_USER = 1  # TP_STATUS_USER: the frame is the reader's

Captured = tuple[bytes, int, int, int]  # bytes, device's index, packet type, hardware type


class Ring:
    """Every device of the namespace that this thread is in."""

    def __init__(self, frames: int) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        self._socket.setsockopt(_SOL_PACKET, _VERSION, _V2)
        blocks = max(1, frames * _FRAME // _BLOCK)
        self._frames = blocks * _BLOCK // _FRAME
        self._socket.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("=IIII", _BLOCK, blocks, _FRAME, self._frames))
        self._memory = mmap.mmap(self._socket.fileno(), blocks * _BLOCK)
        self._next = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Captured]:
        """What has come since; the frames are given back."""
        while True:
            start = self._next * _FRAME
            status, _, length, mac, *_ = _HEADER.unpack_from(self._memory, start)
            if not status & _USER:
                return
            _, _, index, hardware, kind, _, _ = _LINK_LAYER.unpack_from(self._memory, start + _HEADER.size)
            data = bytes(self._memory[start + mac : start + mac + length])
            self._memory[start : start + 4] = bytes(4)
            self._next = (self._next + 1) % self._frames
            yield data, index, kind, hardware

    def lost(self) -> int:
        """How many frames found no room since the last time this was asked."""
        seen = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        return int(struct.unpack("=II", seen)[1])
