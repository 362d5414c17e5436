"""The vocabulary of netfilter rules: what a match and a target are, and what they may see and answer.

Open sets (matches, targets) are classes, one per file under ``match/`` and ``target/``, found by the registry. Each holds,
side by side: its iptables syntax (parse and print), its meaning (``evaluate`` or ``apply``), its lowering for the
compiled datapath (``lower``), a hypothesis strategy (``strategy``), and its documentation (the class docstring, which
names the kernel source it models). Closed sets (hooks, verdicts) are enums.

    device ──▶ PREROUTING ──▶ route ──▶ FORWARD ──▶ POSTROUTING ──▶ device
               raw conntrack     │      mangle       mangle nat
               mangle nat        ▼      filter          ▲
                               INPUT                 OUTPUT ◀── local process
                       mangle filter nat           raw conntrack mangle nat filter
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import msgspec

from netsim.packet.address import Family, IPAddress
from netsim.packet.model import Packet

if TYPE_CHECKING:
    from netsim.linux.netfilter.arguments import Arguments


class Hook(enum.StrEnum):
    PREROUTING = "PREROUTING"
    INPUT = "INPUT"
    FORWARD = "FORWARD"
    OUTPUT = "OUTPUT"
    POSTROUTING = "POSTROUTING"


# Tables in the order of their priorities at a hook, and the hooks each one registers (Linux iptable_*.c).
TABLE_HOOKS: Mapping[str, tuple[Hook, ...]] = {
    "raw": (Hook.PREROUTING, Hook.OUTPUT),
    "mangle": (Hook.PREROUTING, Hook.INPUT, Hook.FORWARD, Hook.OUTPUT, Hook.POSTROUTING),
    "nat": (Hook.PREROUTING, Hook.INPUT, Hook.OUTPUT, Hook.POSTROUTING),
    "filter": (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT),
    "security": (Hook.INPUT, Hook.FORWARD, Hook.OUTPUT),
}


class CtState(enum.StrEnum):
    """A packet's state as ``-m conntrack --ctstate`` names it (SNAT and DNAT are flags of the entry, not states)."""

    INVALID = "INVALID"
    NEW = "NEW"
    RELATED = "RELATED"
    ESTABLISHED = "ESTABLISHED"
    UNTRACKED = "UNTRACKED"


Owner = tuple[int, int] | tuple[None, None]
ROOT: Owner = (0, 0)
KERNEL: Owner = (None, None)


@dataclass(slots=True)
class Skb:
    """What rules may look at and change: the packet with its metadata, as the kernel's sk_buff carries them.

    ``iif``/``oif`` are device names (None where the hook has none); inside br_netfilter ``physin``/``physout`` are the
    bridge ports. ``ct`` is the conntrack entry (an object with ``status_snat``, ``status_dnat``, ``mark``,
    ``original``, ``reply``), None when untracked or invalid. ``ct_reply`` tells the packet's direction.
    ``source_mac`` is the Ethernet source the packet came with: empty if it had no such header, None if it is not known.
    ``pkt_type`` is whom its frame was for: ``unicast``, ``broadcast`` or ``multicast``, or ``loopback`` for the copy
    of a broadcast that its sender gets; None if that is not known.
    ``owner`` is the (user, group) of the socket that sent it: ``ROOT`` for the emulated processes, ``KERNEL`` for a
    socket of the kernel's own (ICMP errors), None if no socket did.
    """

    packet: Packet
    iif: str | None = None
    oif: str | None = None
    physin: str | None = None
    physout: str | None = None
    mark: int = 0
    ct: Any = None
    ct_state: CtState = CtState.NEW
    ct_reply: bool = False
    ipvs: Any = None
    source_mac: str | None = None
    pkt_type: str | None = None
    owner: Owner | None = None


class Environment(Protocol):
    """What the world around a packet answers to a rule. The interpreter implements it; tests use a small fake."""

    family: Family
    hook: Hook
    table: str
    now: float  # simulated seconds
    rule: tuple[str, str, int]  # the rule being evaluated: table, chain, number; its identity for what it remembers

    def address_type(self, address: IPAddress, device: str | None = None) -> str:
        """``LOCAL``, ``UNICAST``, ``BROADCAST``, ``MULTICAST``, ``BLACKHOLE``, ``UNREACHABLE``, ``PROHIBIT``, ``ANYCAST``,
        ``UNSPEC``: the result of a FIB look-up (``device``: limited to that interface)."""

    def chance(self, probability: float, why: str) -> bool:
        """One draw that is true with ``probability``; following every branch is the caller's business, not the match's."""

    def in_set(self, name: str, elements: Sequence[Any]) -> bool:
        """ipset membership. ``elements``: one mapping per src or dst of the rule, which offers all that the packet has on
        that side; each dimension of the set takes what it is made of. Keys: ``ip`` (IPAddress), ``port`` ((protocol,
        number), or None without ports), ``iface`` and ``physdev`` (device names or None)."""

    def recent(self, name: str) -> dict[IPAddress, list[float]]:
        """The live list behind ``-m recent --name``: address → time stamps, oldest first."""

    def change_set(self, name: str, elements: Sequence[Any], add: bool, timeout: int | None, exist: bool) -> None:
        """Put the packet's values (as for ``in_set``) into a set, or take them out (``-j SET``)."""

    def count(self, name: str) -> None:
        """Add one packet to the nfacct counter ``name``."""

    def rate(self, key: object) -> dict[str, float]:
        """Live state of a rate match (``limit``, ``hashlimit``): a mutable record of its own per ``key``."""

    def reverse_path_ok(self, skb: Skb, loose: bool, accept_local: bool) -> bool:
        """Would a route back to the packet's source leave through its ingress device (``-m rpfilter``)?"""


class Verdict(enum.Enum):
    ACCEPT = "ACCEPT"
    DROP = "DROP"
    RETURN = "RETURN"
    CONTINUE = "CONTINUE"  # a target that only changes the packet, or counts
    QUEUE = "QUEUE"  # for user space, where nobody listens: on to the next table, but not as accepted


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain; ``goto`` does not come back to this one."""

    chain: str
    goto: bool = False


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop, and answer: ``icmp-port-unreachable``, ``tcp-reset``, ``icmp6-adm-prohibited`` …"""

    with_: str


class NatKind(enum.StrEnum):
    DNAT = "DNAT"
    SNAT = "SNAT"
    MASQUERADE = "MASQUERADE"
    REDIRECT = "REDIRECT"
    NETMAP = "NETMAP"


class Nat(msgspec.Struct, frozen=True, gc=False):
    """Set up a translation; None leaves that part to the kernel's choice. Ends the walk of the nat table."""

    kind: NatKind
    low: IPAddress | None = None
    high: IPAddress | None = None
    port_low: int | None = None
    port_high: int | None = None
    random: bool = False
    fully_random: bool = False
    persistent: bool = False


@dataclass(frozen=True, slots=True)
class NoTrack:
    """``-j CT --notrack`` / ``NOTRACK``: the packet passes without a conntrack entry."""


Action = Verdict | Jump | Reject | Nat | NoTrack


class HotDrop(Exception):
    """A match that finds a packet malformed drops it on the spot (``par->hotdrop``); the rule walk turns this into DROP."""


class Match:
    """One ``-m NAME`` with its options. Subclasses are frozen, slotted dataclasses; negation is a field, not a class.

    ``options`` names every option with the number of its values, ``aliases`` other spellings of them.
    """

    __slots__ = ()

    name: ClassVar[str]
    options: ClassVar[Mapping[str, int]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    protocols: ClassVar[tuple[int, ...]] = ()  # not empty: the rule must say ``-p`` one of these
    families: ClassVar[tuple[Family, ...]] = (Family.IPV4, Family.IPV6)

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        """Make the match from its own options; the parser has told them apart from those of the rest of the rule."""
        raise NotImplementedError

    def print(self, family: Family) -> str:
        """As ``iptables-save`` prints it, with its ``-m NAME``."""
        raise NotImplementedError

    def evaluate(self, skb: Skb, env: Environment) -> bool:
        raise NotImplementedError

    def lower(self) -> Sequence[Any]:
        """Constraints on packet columns for the compiled datapath (see ``netsim.linux.netfilter.lowering``)."""
        raise NotImplementedError

    @classmethod
    def strategy(cls, family: Family) -> Any:
        """A hypothesis strategy of instances valid for ``family`` (imports hypothesis inside)."""
        raise NotImplementedError


class Target:
    """One ``-j NAME`` with its options."""

    __slots__ = ()

    name: ClassVar[str]
    options: ClassVar[Mapping[str, int]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}
    families: ClassVar[tuple[Family, ...]] = (Family.IPV4, Family.IPV6)
    tables: ClassVar[tuple[str, ...] | None] = None  # None: every table
    terminates: ClassVar[bool] = True

    @classmethod
    def parse(cls, arguments: Arguments) -> Self:
        raise NotImplementedError

    def print(self, family: Family) -> str:
        """As ``iptables-save`` prints it, with its ``-j NAME``."""
        raise NotImplementedError

    def apply(self, skb: Skb, env: Environment) -> Action:
        """The target's effect; packet marks are changed in place on ``skb``, everything else is returned."""
        raise NotImplementedError

    def lower(self) -> Any:
        raise NotImplementedError

    @classmethod
    def strategy(cls, family: Family) -> Any:
        raise NotImplementedError
