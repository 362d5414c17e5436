"""Storms of first packets for two datapaths, one with trails and one without."""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath


def differences(one: Datapath, other: Datapath, batches: tuple[Batch, Batch]) -> list[str]:
    """What two datapaths in the same state say differently of a batch, and where their states differ behind it."""
    mine, theirs = (held.process(batch).columns for held, batch in zip((one, other), batches))
    found = []
    for name in mine._fields:
        differ = np.flatnonzero(getattr(mine, name) != getattr(theirs, name))
        if len(differ):
            at = differ[0]
            found.append(f"{name} of packet {at}: {getattr(mine, name)[at]} and {getattr(theirs, name)[at]}")
    return found + state_differences(one, other)


def state_differences(one: Datapath, other: Datapath) -> list[str]:
    found = []
    if one.connections() != other.connections():
        found.append("connections")
    if dict(one.counters()) != dict(other.counters()):
        found.append("counters")
    for name, mine, theirs in zip(one.store.state._fields, one.store.state, other.store.state):
        if not np.array_equal(_bytes(mine), _bytes(theirs)):
            found.append(f"the array {name}")
    return found


def _bytes(array: Any) -> Any:
    return np.ascontiguousarray(array).view(np.uint8)


def eager(datapath: Datapath, samples: int = 40, share: int = 3, most: int = 3) -> Datapath:
    """The datapath, which seeks trails as soon as it can."""
    trails = datapath.trails
    trails.wait, trails.samples, trails.share, trails.most = 1, samples, share, most
    return datapath


def without_trails(datapath: Datapath) -> Datapath:
    datapath.trails.wait = 1 << 62
    return datapath
