"""``-m owner``: who owns the socket that sent the packet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, Option, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Opaque
from netsim.packet.address import Family

Ids = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Owner(Match):
    """Models ``net/netfilter/xt_owner.c`` (Linux 6.1 and 6.18). ``socket`` is None (not asked), True, or False (negated).

    A packet that no socket sent matches only if everything asked is negated; so it is with users and groups where the
    socket is the kernel's own. Names of users and groups are refused, as is ``--suppl-groups``.
    """

    name: ClassVar[str] = "owner"
    options: ClassVar[dict[str, int]] = {"--uid-owner": 1, "--gid-owner": 1, "--socket-exists": 0}

    socket: bool | None = None
    uid: Ids | None = None
    uid_not: bool = False
    gid: Ids | None = None
    gid_not: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        exists, uid, gid = (arguments.get(n) for n in ("--socket-exists", "--uid-owner", "--gid-owner"))
        if not (exists or uid or gid):
            arguments.fail("at least one option must be given")
        return cls(
            None if exists is None else not exists.negated,
            _read(arguments, uid),
            uid is not None and uid.negated,
            _read(arguments, gid),
            gid is not None and gid.negated,
        )

    def print(self, family: Family) -> str:
        text = "-m owner"
        if self.socket is not None:
            text += f"{not_(not self.socket)}--socket-exists"
        if self.uid is not None:
            text += f"{not_(self.uid_not)}--uid-owner {_show(self.uid)}"
        if self.gid is not None:
            text += f"{not_(self.gid_not)}--gid-owner {_show(self.gid)}"
        return text

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        owner = skb.owner
        if owner is None:
            return self.socket is not True and (self.uid is None or self.uid_not) and (self.gid is None or self.gid_not)
        if self.socket is False:
            return False
        uid, gid = owner
        return _ok(uid, self.uid, self.uid_not) and _ok(gid, self.gid, self.gid_not)

    def lower(self) -> Sequence[Any]:
        return (Opaque("owner asks for the socket that sent the packet"),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        number = st.sampled_from((0, 1000, 1337, 65534))
        ids = st.tuples(number, number).map(lambda pair: (min(pair), max(pair)))
        side = st.one_of(st.just((None, False)), st.tuples(ids, st.booleans()))
        drawn = st.tuples(st.sampled_from((None, True, False)), side, side)
        some = drawn.filter(lambda t: t[0] is not None or t[1][0] is not None or t[2][0] is not None)
        return some.map(lambda t: cls(t[0], t[1][0], t[1][1], t[2][0], t[2][1]))


def _read(arguments: Arguments, option: Option | None) -> Ids | None:
    if option is None:
        return None
    return arguments.range(option.value, "-", 0xFFFFFFFE, option.name)


def _show(ids: Ids) -> str:
    return str(ids[0]) if ids[0] == ids[1] else f"{ids[0]}-{ids[1]}"


def _ok(have: int | None, ids: Ids | None, negated: bool) -> bool:
    return ids is None or (have is not None and ids[0] <= have <= ids[1]) != negated
