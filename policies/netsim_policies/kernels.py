"""The numba kernels of the matrix; ``rows`` and ``combine`` say what they compute and hold their obvious twins."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

EMPTY = 0xFFFFFFFFFFFFFFFF
UNKNOWN = 0xFFFFFFFF


@numba.njit(cache=True, nogil=True)
def refine_rows(pool: Any, spans: Any, ends: Any, size: int) -> Any:
    """Row r's lists are ``pool[a:b]`` for the (a, b) of ``spans[ends[r]:ends[r + 1]]``.

    Returns touched (in the order of the lists), combos and where each row's end; and for each combo but 0 its parent (the
    combo without the last list) and the place of that list, and where each row's end."""
    rows = len(ends) - 1
    most = made = 0
    for r in range(rows):
        sum_of = 0
        for k in range(ends[r], ends[r + 1]):
            sum_of += spans[k, 1] - spans[k, 0]
        most += min(sum_of, size)
        made += sum_of  # each combo is made by a member of a list
    touched, combos = np.empty(most, np.int32), np.empty(most, np.int32)
    bounds, combo_bounds = np.zeros(rows + 1, np.int64), np.zeros(rows + 1, np.int64)
    parents, places = np.empty(made, np.int32), np.empty(made, np.int32)
    combo_of = np.zeros(size, np.int32)
    child = np.empty(16, np.int32)
    n = total = 0
    for r in range(rows):
        first, count = n, 1
        for k in range(ends[r], ends[r + 1]):
            if count > len(child):
                child = np.empty(2 * count, np.int32)
            child[:count] = -1
            before = count
            for at in range(spans[k, 0], spans[k, 1]):
                c = pool[at]
                held = combo_of[c]
                if held == 0:
                    touched[n] = c
                    n += 1
                if held >= before:
                    continue  # listed twice
                if child[held] < 0:
                    child[held] = count
                    parents[total], places[total] = held, k - ends[r]
                    total += 1
                    count += 1
                combo_of[c] = child[held]
        for at in range(first, n):
            combos[at] = combo_of[touched[at]]
            combo_of[touched[at]] = 0
        bounds[r + 1], combo_bounds[r + 1] = n, total
    return touched[:n], combos[:n], bounds, parents[:total], places[:total], combo_bounds


@numba.njit(cache=True, nogil=True)
def _zone(r: int, cut_ends: Any, cut_high: Any, cut_low: Any, zones: Any, high: int, low: int) -> int:
    """The zone of an address in row ``r``: binary search among its cuts. Row r has one zone more than cuts."""
    first = left = cut_ends[r]
    right = cut_ends[r + 1]
    while left < right:
        middle = (left + right) >> 1
        if cut_high[middle] < high or (cut_high[middle] == high and cut_low[middle] <= low):
            left = middle + 1
        else:
            right = middle
    return int(zones[first + r + (left - first)])


@numba.njit(cache=True, nogil=True)
def spread(rows: Any, r: int, classes: Any, combo_of: Any, out: Any) -> None:
    """Row ``r`` spelled out over classes. ``combo_of`` is scratch, one zero a label class."""
    touch_ends, touched, combos, cut_ends, cut_high, cut_low, zones, table_ends, widths, depths, table = rows
    label, group, placed, high, low = classes
    for at in range(touch_ends[r], touch_ends[r + 1]):
        combo_of[touched[at]] = combos[at]
    base, width, depth = table_ends[r], widths[r], depths[r]
    cut = cut_ends[r] < cut_ends[r + 1]
    for c in range(len(label)):
        zone = 0
        if cut and placed[c]:
            zone = _zone(r, cut_ends, cut_high, cut_low, zones, high[c], low[c])
        cell = base + (combo_of[label[c]] * width + zone) * depth
        out[c] = table[cell + group[c] if depth > 1 else cell]
    for at in range(touch_ends[r], touch_ends[r + 1]):
        combo_of[touched[at]] = 0


@numba.njit(cache=True, nogil=True)
def ask(
    touched: Any, combos: Any, cut_high: Any, cut_low: Any, zones: Any, classes: Any, size: int, asked: Any
) -> None:
    """Mark the cells (combo, zone, group) of one row that some class of peers asks for; ``size`` label classes."""
    combo_of = np.zeros(size, np.int32)
    for at in range(len(touched)):
        combo_of[touched[at]] = combos[at]
    cut_ends = np.array([0, len(cut_high)])
    label, group, placed, high, low = classes
    cut = len(cut_high) > 0
    named = asked.shape[2] > 1
    for c in range(len(label)):
        zone = _zone(0, cut_ends, cut_high, cut_low, zones, high[c], low[c]) if cut and placed[c] else 0
        asked[combo_of[label[c]], zone, group[c] if named else 0] = True


@numba.njit(cache=True, nogil=True)
def by_label(rows: Any, size: int) -> Any:
    """The touched label classes of all rows the other way round: for each the (row, combo) pairs, and their ends."""
    touch_ends, touched, combos = rows[0], rows[1], rows[2]
    ends = np.zeros(size + 1, np.int64)
    for c in touched:
        ends[c + 1] += 1
    for c in range(size):
        ends[c + 1] += ends[c]
    at = ends[:-1].copy()
    which, held = np.empty(len(touched), np.int32), np.empty(len(touched), np.int32)
    for r in range(len(touch_ends) - 1):
        for k in range(touch_ends[r], touch_ends[r + 1]):
            c = touched[k]
            which[at[c]], held[at[c]] = r, combos[k]
            at[c] += 1
    return ends, which, held


@numba.njit(cache=True, nogil=True)
def fold(
    result: Any, subjects: Any, order: Any, row_of: Any, rows: Any, peers: Any, other_of: Any, others: Any,
    lists: Any, classes: Any, keys: Any, values: Any, used: int, dirty: Any, start: int,
) -> Any:  # fmt: skip
    """Fill ``result[i, :len(peers)]`` for the classes ``subjects[i]``, i in ``order[start:]``: what both sides allow
    between each and every peer. Senders are subjects of egress ``rows`` and their peers of ``others``, ingress rows; or
    receivers are subjects and senders their peers: the line is then a column of the matrix.

    ``peers`` and ``classes`` describe classes (label, group, in a block?, address); ``row_of`` (by class) and ``other_of``
    (by peer) number their rows. An unknown pair of port sets gets a place in the table ``keys``, ``values`` (open
    addressing, a power of two long) and marks the line ``dirty``: it is to be filled again. Stops early when the table is a
    quarter full. Returns (next place in ``order``, places of the table used)."""
    combo_of = np.zeros(len(lists[0]) - 1, np.int32)
    label, group, placed, high, low = classes
    width = len(peers[0])
    line = np.empty(width, np.uint32)
    open_at = np.empty(width, np.int32)  # the peers for which the subject's own side allows anything
    opened = 0
    count = len(others[0]) - 1
    other = np.empty(count, np.uint32)
    mask = np.uint64(len(keys) - 1)
    spelled = -1
    whole = False
    list_ends, which, held = lists
    cut_ends, cut_high, cut_low, zones, table_ends, widths, depths, table = others[3:]
    base = np.zeros(count, np.int64)
    for j in range(start, len(order)):
        if 4 * used > len(keys):
            return j, used
        i = order[j]
        s = subjects[i]
        if row_of[s] != spelled:
            spelled = row_of[s]
            spread(rows, spelled, peers, combo_of, line)
            opened = 0
            whole = True
            for d in range(width):
                if line[d] != 0:
                    open_at[opened] = d
                    opened += 1
                    whole = whole and line[d] == 1
            whole = whole and opened == width
        for r in range(count):
            at = table_ends[r]
            if placed[s] and cut_ends[r] < cut_ends[r + 1]:
                at += _zone(r, cut_ends, cut_high, cut_low, zones, high[s], low[s]) * depths[r]
            if depths[r] > 1:
                at += group[s]
            base[r] = at
            other[r] = table[at]
        for at in range(list_ends[label[s]], list_ends[label[s] + 1]):
            r = which[at]
            other[r] = table[base[r] + held[at] * widths[r] * depths[r]]
        dirty[i] = False
        if whole:  # the peers alone decide
            for d in range(width):
                result[i, d] = other[other_of[d]]
            continue
        result[i, :width] = 0
        for at in range(opened):
            d = open_at[at]
            e = line[d]
            o = other[other_of[d]]
            if o == 1 or e == o:
                result[i, d] = e
            elif o == 0 or e == 1:
                result[i, d] = o
            else:
                key = (np.uint64(e) << np.uint64(32)) | np.uint64(o)
                slot = ((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20)) & mask
                while keys[slot] != key and keys[slot] != np.uint64(EMPTY):
                    slot = (slot + np.uint64(1)) & mask
                if keys[slot] != key:
                    if 2 * used > len(keys):  # the line is filled again in any case
                        dirty[i] = True
                        break
                    keys[slot] = key
                    used += 1
                if values[slot] == np.uint32(UNKNOWN):
                    dirty[i] = True
                else:
                    result[i, d] = values[slot]
    return len(order), used
