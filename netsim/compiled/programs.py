"""What compiled rules look like in memory, and why.

    table ─┬─▶ chains of its own, small and known in full ── resolution (scope, name) ─┐
           └─▶ chains derived on demand, shared by nodes ─── directory, pages ─────────┴─▶ chain ─┬─▶ rules ─▶ constraints
                                                                                                  └─▶ index (long chains)

The first packet of a flow walks four to ten chains that few other packets share, so its cost is the number of cache lines
it touches: each one that is not in the core's own cache takes as long as a hundred instructions. Hence everything is in one
array of 32-bit words, ``code``, where what is read together lies together, at word addresses (0: nothing):

    chain   count | varies << 30 | policy << 31 · number of the first rule · address of the rules · address of the index
    rule    address of the draws it begins · pure | all << 8 | action << 16 · argument · address of the constraints
    constraint   kind | column << 8 | negated << 16 | mode << 24 · a [· b]
    index   groups, how many · the rest, as the value of a slot; then 8 words a group:
            first place · last place · slots · how many slots · kind · parts, how many · address of the parts · 0
    part    column | mode << 8 · mask, or length of an IPv6 prefix
    slot    key · 0 (free), place << 1 | 1, or address << 1 of a list: count, then places, ascending
    draws   address of their chances · the chains they lead to, if they all jump, and the one that the rule behind them
            leads to, if it jumps without a question, else 0; only 0 if they do not all jump
    chances count · in 2**64ths, high word and low word
    scopes  how many · kind and number of each: those of a table, see ``tables``

A chain is one block: its header, what draws lead to, the constraints that no chain had before, its rules. It begins on a
cache line, and of a KUBE-SVC chain of any length packets read the first two, of a KUBE-SEP chain one. A rule of a long
chain has a line of its own, its constraints behind it. Equal lists of constraints are kept once, and so stay in the cache.
Names are numbers, given out in the order in which chains name them, so what the chains of 10,000 Services resolve to is 40
KB. 10,000 Services of 10 endpoints, 320,000 rules, take some 20 MB in all.

A rule's constraints are in two parts. The *pure* ones ask registers alone and come first; asking them in any order, or too
often, changes nothing, so they may be hashed and looked up. From the first constraint on that draws, remembers, looks into
a set or is not known here, the order is the kernel's: that part is asked only when the walk has really come to the rule.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netsim.compiled import words
from netsim.compiled.recent_table import plan_dtype

# Kinds of constraints. Up to RANGES6 they are pure: they ask one register. WIDE ones have a ``b``.
NEVER, EQUAL, ANY_BIT, NAME, TYPES, HAVING, MASKED, RANGE, RANGES, PREFIX6, RANGES6 = range(11)
RANDOM, OPAQUE, RECENT, IN_SET = range(11, 15)
WIDE = (MASKED, RANGE, RANGES, PREFIX6, RANGES6, RECENT, IN_SET)

# Actions of rules: what a match does. The argument is in brackets.
(
    GO_ON,
    TO_ACCEPT,
    TO_DROP,
    TO_RETURN,
    TO_CHAIN,  # [name]
    TO_CHAIN_FOR_GOOD,  # [name]
    TO_NAT,  # [row of nats]
    TO_REJECT,  # [number of what to answer with]
    TO_MARK,  # [address of: bits to clear, bits to flip, bits to copy], as the three that follow
    TO_SET_CT_MARK,
    TO_SAVE_MARK,
    TO_RESTORE_MARK,
    TO_NOTRACK,
    TO_BAIL,  # [reason]
) = range(14)

# Why a walk gives up. Reasons from len(REASONS) on are texts that a compiler has noted: ``RuleCompiler.reason``.
REASONS = (
    "a non-first fragment that could overwrite TCP flags",
    "a scratch of the walk is full",
    "chains nest too deep or loop",
    "a rule jumps to a chain that does not exist",
    "a rule asks for a set that does not exist",
    "a recent list whose rules need every stamp",
)
BAIL_FRAGMENT, BAIL_SCRATCH, BAIL_LOOP, BAIL_CHAIN, BAIL_SET, BAIL_RECENT = range(len(REASONS))

# Resolved: 0 nobody has said yet, or an address, or
MISSING = 0xFFFFFFFF  # there is no such chain or set
ELSEWHERE = 0xFFFFFFFE  # not in this scope, ask the next one

# Kinds of scopes: known in full (in ``resolution``), or asked name by name (in ``pages``).
COMPLETE, PAGED = range(2)
PAGE_BITS = 6
PAGE = 1 << PAGE_BITS  # names a page

# FAULT_B when no name is missing: the packet is simply run again with fresh registers or fresh programs.
NEEDS_TYPES = 0xFFFFFFFF  # SRC_TYPE and DST_TYPE must be filled in: few packets come to a rule that asks for them
NEEDS_PROGRAMS = 0xFFFFFFFE  # the programs are older than a device name of the packet

LINE = words.LINE  # words in a cache line
HEADER, RULE = 4, 4  # words of a chain's header, and of a rule in a short chain; in a long one it has a line
RUN, META, ARGUMENT, LIST = range(4)  # words of a rule
GROUP = 8
POLICY_DROP = 1 << 31
VARIES = 1 << 30  # a rule asks what differs between the packets of a flow: TTL, length, PSH, the time in a recent list

# Kinds of groups, modes of parts, modes of RECENT.
BY_HASH, BY_INTERVAL = range(2)
BY_MASK, BY_PREFIX6 = range(2)
RCHECK, UPDATE, SET = range(3)

table_dtype = np.dtype([("scopes", "u4"), ("sets", "u4")])
resolution_dtype = np.dtype([("scope", "u4"), ("name", "u4"), ("found", "u4"), ("used", "u4")])
nat_dtype = np.dtype(
    [
        ("kind", "u1"),
        ("flags", "u1"),
        ("port_low", "u2"),
        ("port_high", "u2"),
        ("pad", "u2"),
        ("low", "u4"),
        ("high", "u4"),
    ]
)
NAT_ADDRESS, NAT_PORTS, NAT_RANDOM, NAT_FULLY_RANDOM, NAT_PERSISTENT = 1, 2, 4, 8, 16  # nats.flags


class Programs(NamedTuple):
    """All tables of all namespaces. Read only; a compiler hands out a fresh one whenever something has grown.

    ``name_bits[p, n >> 5] >> (n & 31) & 1``: does the device name n begin with the prefix p. ``directory[scope,
    name // PAGE]`` is the page of ``pages``, 0 if there is none, that says what the names mean there.
    """

    tables: Any  # where the scopes are; the scope of the sets
    code: Any  # uint32
    resolution: Any  # open addressing by (scope, name), a power of two in size
    directory: Any  # uint32, (scopes, pages)
    pages: Any  # uint32, (pages, PAGE)
    name_bits: Any  # uint32, (prefixes, words)
    nats: Any


class Scratch(NamedTuple):
    """What a walk writes to; one for each thread."""

    hits: Any  # uint32: numbers of the rules that matched, R[HITS] of them
    draws: Any  # uint32: (failed questions << 1 | found) of each draw, R[DRAWS] of them
    stack: Any  # uint32: where to go on after a return, two numbers a chain
    planned: Any  # plan_dtype: what to remember in recent lists, R[PLANNED] of them


def scratch(hits: int = 4096, draws: int = 256, depth: int = 256, plans: int = 64) -> Scratch:
    """Packets that need more are left to the interpreter."""
    hit, drawn, stack = (np.zeros(size, np.uint32) for size in (hits, draws, 2 * depth))
    return Scratch(hit, drawn, stack, np.zeros(plans, plan_dtype))
