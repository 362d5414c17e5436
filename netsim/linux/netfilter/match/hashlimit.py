"""``-m hashlimit``: a token bucket per source, destination or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments, quote
from netsim.linux.netfilter.base import Environment, Match, Skb
from netsim.linux.netfilter.lowering import Column, Constraint, Kind
from netsim.linux.netfilter.match import _rates
from netsim.packet.address import Family

_SCALE = 1000000  # XT_HASHLIMIT_SCALE_v2: a period is in millionths of a second
_MODES = ("srcip", "srcport", "dstip", "dstport")  # as printed
_TABLE = ("--hashlimit-htable-size", "--hashlimit-htable-max", "--hashlimit-htable-gcinterval")


@dataclass(frozen=True, slots=True)
class HashLimit(Match):
    """Models revision 3 of ``net/netfilter/xt_hashlimit.c`` (Linux 6.1 and 6.18), packet rates only.

    ``expire`` (milliseconds) is how long an idle bucket is kept; one found later is full again. Credit is exact here; the
    kernel's counts in jiffies. ``size``, ``most`` and ``collect`` are carried and printed: tables never overflow. Rates in
    bytes, ``--hashlimit-rate-match`` and ``--hashlimit-rate-interval`` are refused. Rules that name one table share it.
    """

    name: ClassVar[str] = "hashlimit"
    options: ClassVar[dict[str, int]] = dict.fromkeys(
        (
            "--hashlimit-upto", "--hashlimit-above", "--hashlimit-burst", "--hashlimit-mode", "--hashlimit-name",
            *_TABLE, "--hashlimit-htable-expire", "--hashlimit-srcmask", "--hashlimit-dstmask",
        ),
        1,
    )  # fmt: skip
    aliases: ClassVar[dict[str, str]] = {"--hashlimit": "--hashlimit-upto"}

    table: str
    period: int
    burst: int = 5
    above: bool = False
    modes: tuple[str, ...] = ()
    size: int = 0
    most: int = 0
    collect: int = 1000
    expire: int = 1000
    srcmask: int = 32
    dstmask: int = 32

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        upto, over = arguments.get("--hashlimit-upto"), arguments.get("--hashlimit-above")
        option = upto or over
        if option is None or (upto and over):
            arguments.fail("exactly one of --hashlimit-upto and --hashlimit-above must be given")
        if option.value.endswith("b/s"):
            arguments.fail(f'{option.name}: "{option.value}": rates in bytes are not modelled')
        period, seconds = _rates.read(arguments, option.value, option.name, _SCALE)
        words = set((arguments.text("--hashlimit-mode") or "").split(",")) - {""}
        if unknown := words - set(_MODES):
            arguments.fail(f'--hashlimit-mode: "{min(unknown)}" is none of {", ".join(_MODES)}')
        arguments.need("--hashlimit-name")
        table = arguments.text("--hashlimit-name") or ""
        if not 0 < len(table) < 256 or "/" in table or table in (".", ".."):
            arguments.fail(f'--hashlimit-name: "{table}" is not the name of a table')
        size, most, collect = (arguments.integer(name, 0xFFFFFFFF) for name in _TABLE)
        expire = arguments.integer("--hashlimit-htable-expire", 0xFFFFFFFF, 1)
        bits = arguments.family.bits
        masks = [arguments.integer(name, bits) for name in ("--hashlimit-srcmask", "--hashlimit-dstmask")]
        return cls(
            table,
            period,
            arguments.integer("--hashlimit-burst", 1000000, 1) or 5,
            (option is over) != option.negated,
            tuple([mode for mode in _MODES if mode in words]),
            size or 0,
            most or 0,
            1000 if collect is None else collect,
            seconds * 1000 if expire is None else expire,
            bits if masks[0] is None else masks[0],
            bits if masks[1] is None else masks[1],
        )

    def print(self, family: Family) -> str:
        rate, seconds = _rates.show(self.period, _SCALE)
        text = f"-m hashlimit --hashlimit-{'above' if self.above else 'upto'} {rate} --hashlimit-burst {self.burst}"
        if self.modes:
            text += f" --hashlimit-mode {','.join(self.modes)}"
        text += f" --hashlimit-name {quote(self.table) if ' ' in self.table else self.table}"
        defaults = (("size", self.size, 0), ("max", self.most, 0), ("gcinterval", self.collect, 1000))
        for word, value, default in (*defaults, ("expire", self.expire, seconds * 1000)):
            if value != default:
                text += f" --hashlimit-htable-{word} {value}"
        if self.srcmask != family.bits:
            text += f" --hashlimit-srcmask {self.srcmask}"
        return text if self.dstmask == family.bits else f"{text} --hashlimit-dstmask {self.dstmask}"

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        state = env.rate((self.table, *self._key(skb)))
        if env.now - state.get("at", env.now) > self.expire / 1000:
            state.clear()
        return _rates.take(state, env.now, self.period, self.burst, _SCALE) != self.above

    def _key(self, skb: Skb) -> tuple[int, ...]:
        """What the bucket is for; protocols without ports have 0 (``hashlimit_init_dst``)."""
        packet = skb.packet
        bits = packet.family.bits
        known = {
            "srcip": int(packet.src) >> (bits - self.srcmask),
            "dstip": int(packet.dst) >> (bits - self.dstmask),
            "srcport": packet.sport or 0,
            "dstport": packet.dport or 0,
        }
        ports = "srcport" in self.modes or "dstport" in self.modes
        return tuple([known[mode] for mode in self.modes]) + ((int(packet.proto),) if ports else ())

    def lower(self) -> Sequence[Any]:
        return (Constraint(Column.PACKET, Kind.STATEFUL, self),)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        modes = st.sets(st.sampled_from(_MODES)).map(lambda found: tuple(mode for mode in _MODES if mode in found))
        # a table is shared by every rule that names it, and the kernel insists that they ask for the same
        return st.builds(
            cls,
            st.text("abcxyz_09", min_size=8, max_size=20),
            st.tuples(st.integers(1, 100), st.sampled_from((1, 60, 3600))).map(lambda t: _SCALE * t[1] // t[0]),
            st.integers(1, 100),
            st.booleans(),
            modes,
            st.sampled_from((0, 64)),
            st.sampled_from((0, 100)),
            st.sampled_from((1000, 2000)),
            st.just(5000),
            st.sampled_from((family.bits, 24)),
            st.sampled_from((family.bits, 8)),
        )
