"""Draws: how often a probe is sent so that chance hides nothing, and whether its outcomes came as often as they should."""

from __future__ import annotations

import math
from collections.abc import Sequence

from netsim.lab.expected import Course, Way
from netsim.lab.probes import Probe

_SURE = 1e-9  # how improbable it may be that a draw which can happen is not seen
_CHI_Z = 4.75  # the normal quantile of one in a million
_MANY = 300  # packets of a probe whose frequencies are tested


def tries(course: Course, frequent: bool) -> int:
    probe = course.probe
    if probe.count:
        return probe.count
    if frequent:
        return _MANY
    ways = course.ways(course.first)
    if len(ways) == 1 or probe.sticky:
        return 1
    if not probe.every_draw:
        return 2
    rarest = float(min(way.probability for way in ways))
    return math.ceil(math.log(_SURE) / math.log(1 - rarest))


def frequent(courses: Sequence[Course]) -> list[Course]:
    """One probe of each family whose draws are counted."""
    found: dict[int, Course] = {}
    for course in courses:
        if course.probe.every_draw and not course.probe.sticky and len(course.ways(course.first)) > 1:
            found.setdefault(int(course.probe.family), course)
    return list(found.values())


def frequencies(probe: Probe, ways: Sequence[Way], counted: Sequence[int]) -> tuple[str, bool]:
    """Pearson's chi-square of one Service's draws, against its quantile of one in a million (Wilson and Hilferty)."""
    total = sum(counted)
    shares = [float(way.probability) for way in ways]
    found = sum((seen - total * share) ** 2 / (total * share) for seen, share in zip(counted, shares, strict=True))
    freedom = max(len(ways) - 1, 1)
    bound = freedom * (1 - 2 / (9 * freedom) + _CHI_Z * math.sqrt(2 / (9 * freedom))) ** 3
    text = f"frequencies of {probe}: chi-square {found:.1f} over {total} packets, bound {bound:.1f}\n"
    return text, found <= bound
