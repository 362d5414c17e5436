"""The lists of ``-m recent`` (session affinity), as a hash table: (namespace, list, address) → when it was seen last.

A walk looks but does not write: it *plans*. Once the packet's journey is over the machine commits the plans, or drops them
by setting R[PLANNED] back. Only the last stamp of an address is kept, which is all that rules without ``--hitcount`` of 2 or
more ask for, and nothing is reaped: an entry that is too old for ``--seconds`` answers as if it were absent. Lists whose
rules could tell the difference are left to the interpreter (``netsim.compiled.lowered``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from netsim.compiled import registers as r
from netsim.compiled.hashing import START, U, fold
from netsim.compiled.jit import kernel
from netsim.packet.address import IPAddress

slot_dtype = np.dtype([("used", "u4"), ("namespace", "u4"), ("list", "u4"), ("address", "u4"), ("stamp", "f8")])
plan_dtype = np.dtype([("namespace", "u4"), ("list", "u4"), ("address", "u4"), ("pad", "u4"), ("stamp", "f8")])


class Recent(NamedTuple):
    slots: Any  # open addressing, a power of two in size
    count: Any  # uint32[1]: slots in use


@kernel
def _place(slots: Any, namespace: Any, number: Any, address: Any) -> Any:
    """The slot of the entry, or the free one where it belongs."""
    mask = U(len(slots)) - U(1)
    place = fold(fold(fold(START, U(namespace)), U(number)), U(address)) & mask
    while slots[place]["used"] != 0 and not (
        slots[place]["namespace"] == namespace and slots[place]["list"] == number and slots[place]["address"] == address
    ):
        place = (place + U(1)) & mask
    return place


@kernel
def last_seen(recent: Any, planned: Any, plans: Any, namespace: Any, number: Any, address: Any) -> Any:
    """The last stamp of ``address`` in list ``number``, the first ``plans`` of ``planned`` included; -inf if none."""
    for at in range(np.int64(plans) - 1, -1, -1):
        plan = planned[at]
        if plan["namespace"] == namespace and plan["list"] == number and plan["address"] == address:
            return plan["stamp"]
    slot = recent.slots[_place(recent.slots, namespace, number, address)]
    return slot["stamp"] if slot["used"] != 0 else -np.inf


@kernel
def put(recent: Any, namespace: Any, number: Any, address: Any, stamp: Any) -> Any:
    """False, and nothing done, if the table is more than half full."""
    if 2 * np.int64(recent.count[0]) >= len(recent.slots):
        return False
    slot = recent.slots[_place(recent.slots, namespace, number, address)]
    if slot["used"] == 0:
        recent.count[0] += np.uint32(1)
        slot["used"] = 1
        slot["namespace"] = namespace
        slot["list"] = number
        slot["address"] = address
    slot["stamp"] = stamp
    return True


@kernel
def commit(recent: Any, planned: Any, R: Any) -> Any:
    """Do what the packet's walks planned, and set R[PLANNED] to 0. False if the table must grow first
    (``RecentTable.grow``); then call again."""
    for at in range(np.int64(R[r.PLANNED])):
        plan = planned[at]
        if not put(recent, plan["namespace"], plan["list"], plan["address"], plan["stamp"]):
            return False
    R[r.PLANNED] = 0
    return True


class RecentTable:
    """Owns the arrays. ``recent`` is replaced by ``grow``: take it afresh."""

    def __init__(self, capacity: int = 1024) -> None:
        self.recent = Recent(np.zeros(capacity, slot_dtype), np.zeros(1, np.uint32))

    def grow(self) -> None:
        held = self.entries()
        self.recent = Recent(np.zeros(2 * len(self.recent.slots), slot_dtype), np.zeros(1, np.uint32))
        for slot in held:
            put(self.recent, slot["namespace"], slot["list"], slot["address"], slot["stamp"])

    def entries(self) -> npt.NDArray[Any]:
        """The slots in use, in no order."""
        slots = self.recent.slots
        used: npt.NDArray[Any] = slots[(slots["used"] != 0) & (slots["stamp"] > -np.inf)]
        return used

    def clear(self) -> None:
        """All lists are empty. (Slots stay, as in ``forget``.)"""
        self.recent.slots["stamp"] = -np.inf

    def forget(self, lists: Collection[int], namespace: int | None = None) -> None:
        """These lists are empty, in one namespace or in all. (Their slots stay, with a stamp that is as good as none.)"""
        slots = self.recent.slots
        which = np.isin(slots["list"], np.array(list(lists), np.uint32))
        if namespace is not None:
            which &= slots["namespace"] == namespace
        slots["stamp"][which] = -np.inf

    def load(
        self,
        namespace: int,
        lists: Mapping[str, Mapping[IPAddress, list[float]]],
        number: Callable[[str, int], int],
        handle: Callable[[IPAddress], int],
    ) -> None:
        """Take over what the interpreter remembers of a namespace (``NamespaceState.recent``). ``number``: of a list by
        its name and the addresses' family (``RuleCompiler.recent_list``)."""
        for name, seen in lists.items():
            for address, stamps in seen.items():
                where = namespace, number(name, address.version), handle(address)
                key = [np.uint32(part) for part in where]
                while stamps and not put(self.recent, key[0], key[1], key[2], stamps[-1]):
                    self.grow()

    def lists(
        self, name: Callable[[int], tuple[str, int]], address: Callable[[int, int], IPAddress]
    ) -> dict[int, dict[str, dict[IPAddress, list[float]]]]:
        """By namespace, as the interpreter keeps it. ``name``: a list's name and family (``RuleCompiler.recent_name``)."""
        found: dict[int, dict[str, dict[IPAddress, list[float]]]] = {}
        for slot in np.sort(self.entries(), order="stamp"):
            text, family = name(int(slot["list"]))
            seen = found.setdefault(int(slot["namespace"]), {}).setdefault(text, {})
            seen[address(int(slot["address"]), family)] = [float(slot["stamp"])]
        return found
