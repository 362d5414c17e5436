"""What follows from one number alone: of each operation the one that all it knows of the packet comes through.

In terms of compilers: the dominator of it that is nearest to the packet, in the graph of what is made from what.
"""

from __future__ import annotations

from collections.abc import Sequence

from netsim.compiled.trails.fold import PLAIN
from netsim.compiled.trails.symbols import Op


def keys(ops: Sequence[Op]) -> list[int | None]:
    """Of each operation the number of the first that all ways from the packet to it lead through; None if there is none."""
    above: list[int | None] = []  # the nearest such operation
    depth: list[int] = []
    found: list[int | None] = []
    constant: list[bool] = []  # the same for all packets

    def common(one: int | None, other: int | None) -> int | None:
        while one != other:
            if one is None or other is None:
                return None
            if depth[one] >= depth[other]:
                one = above[one]
            else:
                other = above[other]
        return one

    for op in ops:
        given = [arg for arg in op.args if isinstance(arg, int) and not constant[arg]]
        constant.append(not given and op.code in ("length", *PLAIN))
        near: int | None = None
        if given and not any(ops[arg].code == "input" for arg in given):
            near = given[0]
            for arg in given[1:]:
                near = common(near, arg)
        above.append(near)
        depth.append(0 if near is None else depth[near] + 1)
        found.append(near if near is None or found[near] is None else found[near])
    return found
