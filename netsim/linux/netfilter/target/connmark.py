"""``-j CONNMARK``: changes the entry's mark, or copies it to or from the packet's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from netsim.linux.netfilter.arguments import Arguments
from netsim.linux.netfilter.base import Action, Environment, Skb, Target, Verdict
from netsim.linux.netfilter.lowering import Effect
from netsim.linux.netfilter.target import _marks
from netsim.packet.address import Family


@dataclass(frozen=True, slots=True)
class ConnMark(Target):
    """Models ``net/netfilter/xt_connmark.c`` (Linux 6.1 and 6.18); ``mode`` is set, save or restore.

    For set, ``mask`` is cleared before ``value`` is xored in. Nothing happens without an entry.
    """

    name: ClassVar[str] = "CONNMARK"
    options: ClassVar[dict[str, int]] = {
        **dict.fromkeys(("--set-xmark", "--set-mark", "--or-mark", "--xor-mark", "--and-mark"), 1),
        "--save-mark": 0, "--restore-mark": 0, "--nfmask": 1, "--ctmask": 1, "--mask": 1,
    }  # fmt: skip
    terminates: ClassVar[bool] = False

    mode: str
    value: int = 0
    mask: int = 0xFFFFFFFF  # of the entry's mark
    nfmask: int = 0xFFFFFFFF

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        found = _marks.read(arguments, tuple(cls.options)[:5])
        save, restore = arguments.flag("--save-mark"), arguments.flag("--restore-mark")
        if (found is not None) + save + restore != 1:
            arguments.fail("exactly one of setting, --save-mark and --restore-mark must be asked for")
        both = arguments.integer("--mask", 0xFFFFFFFF)
        ctmask = arguments.integer("--ctmask", 0xFFFFFFFF)
        nfmask = arguments.integer("--nfmask", 0xFFFFFFFF)
        if found is not None:
            if (both, ctmask, nfmask) != (None, None, None):
                arguments.fail("masks belong to --save-mark and --restore-mark")
            return cls("set", *found)
        if both is not None:
            if ctmask is not None or nfmask is not None:
                arguments.fail("--mask excludes --ctmask and --nfmask")
            ctmask = nfmask = both
        every = 0xFFFFFFFF
        masks = (every if ctmask is None else ctmask, every if nfmask is None else nfmask)
        return cls("save" if save else "restore", 0, *masks)

    def print(self, family: Family) -> str:
        if self.mode == "set":
            return f"-j CONNMARK --set-xmark {self.value:#x}/{self.mask:#x}"
        return f"-j CONNMARK --{self.mode}-mark --nfmask {self.nfmask:#x} --ctmask {self.mask:#x}"

    def apply(self, skb: Skb, env: Environment) -> Action:
        entry = skb.ct
        if entry is None:
            return Verdict.CONTINUE
        if self.mode == "set":
            entry.mark = (entry.mark & ~self.mask) ^ self.value
        elif self.mode == "save":
            entry.mark = (entry.mark & ~self.mask) ^ (skb.mark & self.nfmask)
        else:
            skb.mark = (skb.mark & ~self.nfmask) ^ (entry.mark & self.mask)
        return Verdict.CONTINUE

    def lower(self) -> Any:
        return Effect("ct_mark", self)

    @classmethod
    def strategy(cls, family: Family) -> Any:
        from hypothesis import strategies as st

        bits = st.integers(0, 0xFFFFFFFF)
        copies = st.builds(cls, st.sampled_from(("save", "restore")), st.just(0), bits, bits)
        return st.one_of(st.builds(cls, st.just("set"), bits, bits), copies)
