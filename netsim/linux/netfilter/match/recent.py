"""``-m recent``: addresses seen lately."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, not_
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.packet.address import Family, ip

_MODES = ("--set", "--rcheck", "--update", "--remove")
_FULL = {Family.IPV4: "255.255.255.255", Family.IPV6: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}


@dataclass(frozen=True, slots=True)
class Recent(Match):
    """Models ``net/netfilter/xt_recent.c`` (Linux 6.1 and 6.18); ``mode`` is set, rcheck, update or remove.

    Not modelled: the limits on addresses and stamps that the module's parameters set; ``--rttl`` is refused.
    """

    name: ClassVar[str] = "recent"
    options: ClassVar[dict[str, int]] = {
        "--set": 0, "--rcheck": 0, "--update": 0, "--remove": 0, "--seconds": 1, "--reap": 0, "--hitcount": 1,
        "--name": 1, "--mask": 1, "--rsource": 0, "--rdest": 0,
    }  # fmt: skip

    mode: str
    list_name: str = "DEFAULT"
    seconds: int = 0
    reap: bool = False
    hitcount: int = 0
    mask: str = ""  # empty: every bit
    by_destination: bool = False
    negated: bool = False

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        given = [option for mode in _MODES if (option := arguments.get(mode))]
        if len(given) != 1:
            arguments.fail("exactly one of --set, --rcheck, --update and --remove must be given")
        mode = given[0].name[2:]
        seconds = arguments.integer("--seconds", 0xFFFFFFFF, 1) or 0
        reap = arguments.flag("--reap")
        hitcount = arguments.integer("--hitcount", 255, 1) or 0
        if reap and not seconds:
            arguments.fail("--reap needs --seconds")
        if (seconds or hitcount) and mode not in ("rcheck", "update"):
            arguments.fail("--seconds and --hitcount belong to --rcheck and --update")
        mask = arguments.text("--mask") or ""
        if mask:
            address = arguments.address(mask, "--mask")
            mask = "" if int(address) == (1 << arguments.family.bits) - 1 else str(address)
        name = arguments.text("--name", "DEFAULT") or ""
        if not 0 < len(name) < 200:
            arguments.fail("--name: not 1 to 199 characters")
        return cls(mode, name, seconds, reap, hitcount, mask, arguments.flag("--rdest"), given[0].negated)

    def print(self, family: Family) -> str:
        text = f"-m recent{not_(self.negated)}--{self.mode}"
        if self.seconds:
            text += f" --seconds {self.seconds}"
        if self.reap:
            text += " --reap"
        if self.hitcount:
            text += f" --hitcount {self.hitcount}"
        side = "--rdest" if self.by_destination else "--rsource"
        return f"{text} --name {self.list_name} --mask {self.mask or _FULL[family]} {side}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        packet = skb.packet
        address = packet.dst if self.by_destination else packet.src
        if self.mask:
            address = type(address)(int(address) & int(ip(self.mask)))
        seen = env.recent(self.list_name)
        stamps = seen.get(address)
        if stamps is None:
            if self.mode == "set":
                seen[address] = [env.now]
                return not self.negated
            return self.negated
        found = True
        if self.mode == "set":
            stamps.append(env.now)
        elif self.mode == "remove":
            del seen[address]
        else:
            if self.reap:
                self._reap(seen, env.now)
            # like the kernel, "seconds ago" counts stamps not older than now - seconds
            fresh = sum(1 for stamp in stamps if not self.seconds or env.now - self.seconds <= stamp)
            found = fresh >= max(self.hitcount, 1)
            if self.mode == "update" and found != self.negated:  # of "! --update", what is not seen often enough
                seen.setdefault(address, stamps).append(env.now)
        return found != self.negated

    def _reap(self, seen: dict[Any, list[float]], now: float) -> None:
        """``recent_entry_reap``: the entry that was touched longest ago goes if it is stale."""
        oldest = min(seen, key=lambda address: seen[address][-1])
        if seen[oldest][-1] < now - self.seconds:
            del seen[oldest]

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.PACKET, Kind.STATEFUL, self, self.negated),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        words = st.text("ABCDEFxyz-_019", min_size=1, max_size=20)
        checks = st.tuples(st.integers(0, 100000), st.booleans(), st.integers(0, 19)).map(
            lambda t: (t[0], t[1] and t[0] > 0, t[2])
        )
        mask = st.sampled_from(("", "255.255.255.0") if family is Family.IPV4 else ("", "ffff:ffff::"))
        check = st.tuples(st.sampled_from(("rcheck", "update")), words, checks, mask, st.booleans(), st.booleans())
        touch = st.builds(
            cls,
            st.sampled_from(("set", "remove")),
            words,
            mask=mask,
            by_destination=st.booleans(),
            negated=st.booleans(),
        )
        return st.one_of(touch, check.map(lambda t: cls(t[0], t[1], *t[2], *t[3:])))
