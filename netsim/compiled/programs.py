"""What compiled rules look like in memory: the records that the walk reads, and why they are laid out so.

    table ──▶ scopes ──resolution (scope, name)──▶ chain ──▶ rules, one after the other ──▶ constraints, effects
                                                     └─────▶ groups: where to look instead of reading rule by rule

The first packet of a flow goes through four to ten chains that few other packets share, so what counts is the number of
cache lines it touches. A rule is 16 bytes, so that a Service chain of ten endpoints is three lines; its constraints are in
a list of their own that equal rules share (every KUBE-SEP's DNAT rule has the same); names are numbers; jumps are resolved
in one hash table for all tables, because chain objects are shared by nodes and a name means a chain only within a table.
10,000 Services of 10 endpoints, 320,000 rules, take 16 MB: they stay in the last-level cache.

A rule's constraints are in two parts. The *pure* ones ask registers alone and come first; asking them in any order, or too
often, changes nothing, so they may be hashed and looked up. From the first constraint on that draws, remembers, looks into
a set or is not known here, the order is the kernel's: that part is asked only when the walk has really come to the rule.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from netsim.compiled.recent_table import plan_dtype

# Kinds of constraints. Pure ones ask one register.
NEVER, MASKED, ANY_BIT, RANGE, RANGES, NAME, PREFIX6, RANGE6, RANGES6, TYPES = range(10)
# These are asked in the kernel's order.
RANDOM, IN_SET, RECENT, OPAQUE = range(10, 14)

# Actions of rules: what a match does.
(
    GO_ON,
    TO_ACCEPT,
    TO_DROP,
    TO_RETURN,
    TO_CHAIN,
    TO_CHAIN_FOR_GOOD,
    TO_NAT,
    TO_REJECT,
    TO_MARK,
    TO_SET_CT_MARK,
    TO_SAVE_MARK,
    TO_RESTORE_MARK,
    TO_NOTRACK,
    TO_BAIL,
) = range(14)

# Why a walk gives up. Reasons from OTHER on are texts that a compiler has noted: ``RuleCompiler.reason``.
REASONS = (
    "a non-first fragment that could overwrite TCP flags",
    "a scratch of the walk is full",
    "chains nest too deep or loop",
    "a rule jumps to a chain that does not exist",
    "a rule asks for a set that does not exist",
    "a recent list whose rules need every stamp",
)
BAIL_FRAGMENT, BAIL_SCRATCH, BAIL_LOOP, BAIL_CHAIN, BAIL_SET, BAIL_RECENT = range(len(REASONS))

MISSING = 0xFFFFFFFF  # resolved: there is no such chain or set
ELSEWHERE = 0xFFFFFFFE  # resolved: not in this scope, ask the next one

# FAULT_B when no name is missing: the packet is simply run again with fresh registers or fresh programs.
NEEDS_TYPES = 0xFFFFFFFF  # SRC_TYPE and DST_TYPE must be filled in for this table from now on
NEEDS_PROGRAMS = 0xFFFFFFFE  # the programs are older than a device name of the packet

table_dtype = np.dtype([("first_scope", "u4"), ("scopes", "u4"), ("sets", "u4"), ("types", "u4")])
scope_dtype = np.dtype([("number", "u4"), ("complete", "u4")])
resolution_dtype = np.dtype([("scope", "u4"), ("name", "u4"), ("found", "u4"), ("used", "u4")])
group_dtype = np.dtype(
    [("low", "u4"), ("high", "u4"), ("slots", "u4"), ("size", "u4"), ("parts", "u4"), ("part_count", "u2"), ("kind", "u1"),
     ("pad", "u1")]
)  # fmt: skip
part_dtype = np.dtype([("column", "u1"), ("mode", "u1"), ("pad", "u1"), ("pad2", "u1"), ("mask", "u4")])
slot_dtype = np.dtype([("key", "u4"), ("first", "u4"), ("count", "u4")])
chain_dtype = np.dtype(
    [("rules", "u4"), ("count", "u4"), ("rest", "u4"), ("rest_count", "u4"), ("groups", "u4"), ("group_count", "u2"),
     ("policy", "u1"), ("pad", "u1")]
)  # fmt: skip
rule_dtype = np.dtype(
    [
        ("constraints", "u4"),
        ("pure", "u1"),
        ("all", "u1"),
        ("action", "u1"),
        ("pad", "u1"),
        ("argument", "u4"),
        ("run", "u4"),
    ]
)
constraint_dtype = np.dtype(
    [("kind", "u1"), ("column", "u1"), ("negated", "u1"), ("mode", "u1"), ("a", "u4"), ("b", "u4")]
)
range_dtype = np.dtype([("low", "u4"), ("high", "u4")])  # of values, or of handles of IPv6 addresses
run_dtype = np.dtype([("first", "u4"), ("count", "u4")])
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
mark_dtype = np.dtype([("clear", "u4"), ("xor", "u4"), ("other", "u4")])


# group.kind, part.mode
BY_HASH, BY_INTERVAL = range(2)
BY_MASK, BY_PREFIX6 = range(2)

# constraint.mode of RECENT
RCHECK, UPDATE, SET = range(3)

# nat.flags
NAT_ADDRESS, NAT_PORTS, NAT_RANDOM, NAT_FULLY_RANDOM, NAT_PERSISTENT = 1, 2, 4, 8, 16


class Programs(NamedTuple):
    """All tables of all namespaces. Read only; a compiler hands out a fresh one whenever something has grown.

    ``runs``/``thresholds``: rules in a row that hold nothing but a draw; threshold i of a run is the chance, in 2**64ths,
    that one of its rules up to the i-th matches. ``name_bits[p, n >> 5] >> (n & 31) & 1``: does the device name n begin
    with the prefix p.
    """

    tables: Any
    scopes: Any
    resolution: Any  # open addressing by (scope, name), a power of two in size
    chains: Any
    rest: Any  # uint32: for each long chain, the places of the rules that are in no group, ascending
    groups: Any  # by the first place they know of
    parts: Any  # what a group compares: registers under masks, or prefixes of IPv6 addresses
    slots: Any  # of hashes: open addressing by key; of intervals: ascending, key is where one begins
    places: Any  # uint32: of a slot with several candidates, ascending; a single one is in the slot itself
    rules: Any
    constraints: Any
    ranges: Any
    name_bits: Any
    runs: Any
    thresholds: Any
    nats: Any
    marks: Any
    recent_lists: Any  # uint32: 1 for lists that are left to the interpreter


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
