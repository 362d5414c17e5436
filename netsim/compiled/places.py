"""Where a packet is on its way through the machine: small steps that its parts share."""

from __future__ import annotations

from typing import Any

from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled import world as wd
from netsim.compiled.hashmap import get, key_of
from netsim.compiled.jit import Int, kernel


@kernel
def ended(end: Int) -> Int:
    """Where the packet is after a part of the walk that did not go on."""
    return 99 + end


@kernel
def fact(e: Any, kind: Int, number: Int, value: Int) -> Int:
    return get(e.w.facts, key_of(kind, number, value))


@kernel
def device_at(e: Any, ns: Int, name: Int) -> Int:
    """The number of a namespace's device by its name's; 0 if it has none."""
    found = fact(e, wd.DEV, ns, name)
    return found if found > 0 else 0


@kernel
def enter(x: Any, ns: Int, device: Int, name: Int) -> None:
    """A new sk_buff in a namespace: no connection, no mark, no route."""
    r, j = x.r, x.j
    j[jn.NS] = ns
    j[jn.DEVICE_IN] = device
    j[jn.CT] = j[jn.UNTRACKED] = j[jn.ROUTED] = j[jn.BRIDGED] = j[jn.ONLY_OIF] = 0
    r[rg.NAMESPACE] = ns
    r[rg.IIF] = name
    r[rg.OIF] = r[rg.PHYSIN] = r[rg.PHYSOUT] = r[rg.MARK] = 0
