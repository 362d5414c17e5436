"""Compile what namespaces route by, addresses, routes and rules, into the tables of ``fib_tables``.

    compiler = FibCompiler(addresses, names)
    compiler.add(number, namespace)                     # again: the namespace has changed
    code = fib_lookup(compiler.tables, addresses.words, number, 4, dst, src, iif, 0, mark, 1, out)
    compiler.route_of(number, out[OUT_ROUTE])

The routes of a namespace are worked out by ``netsim.linux.kernel_made`` as for ``netsim.linux.fib.Fib``; what a route does
in the namespace (devices that are down, gateways that are own addresses or name no device) is settled here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain, islice

import numpy as np

from netsim.compiled import fib_tables as t
from netsim.compiled.addresses import Addresses
from netsim.compiled.fib_kernels import insert_devices, insert_slots
from netsim.compiled.fib_namespace import Facts, halves, lasting
from netsim.compiled.fib_runs import SharedRuns, prefix_key
from netsim.compiled.fib_shapes import DeviceRow, Shape, address_of, gateways_of, key_of
from netsim.compiled.memory import aligned
from netsim.compiled.names import Names
from netsim.compiled.rows import WAITING_MOST, Rows
from netsim.linux.fib import default_rules, rule_family
from netsim.linux.kernel_made import effective_metric, kernel_routes
from netsim.linux.network import Namespace
from netsim.linux.route import TABLE_LOCAL, TABLE_MAIN, Route, RouteType, RoutingRule
from netsim.linux.shared import runs_of
from netsim.packet.address import Family, IPNetwork

HASHED_FROM = 32  # a namespace's own table with more prefixes than this is hashed, as a base that nobody shares

Owner = Family | tuple[Route, ...]  # of a stretch of route numbers: a namespace's own, or a shared run's
Held = list[tuple[int, int, Route]]  # (metric, number or place, route) of one prefix, best first
Base = tuple[int, int, int]  # its number; its prefix lengths, the longest first, in ``number``: first, count
PrefixRow = tuple[int, int, int, int, int, int]


class FibCompiler:
    """Grows with each namespace. Rows of a namespace that was added again stay behind unused."""

    def __init__(self, addresses: Addresses, names: Names) -> None:
        self.addresses = addresses
        self.names = names
        self._namespace = Rows(t.NAMESPACE)
        self._rule, self._table, self._link = Rows(t.RULE), Rows(t.TABLE), Rows(t.LINK)
        self._prefix, self._route = Rows(t.PREFIX), Rows(t.ROUTE)
        self._hop, self._primary, self._candidate = Rows(t.HOP), Rows(t.PRIMARY), Rows(t.CANDIDATE)
        self._number = Rows(np.uint32)
        self._device, self._devices = aligned(256, t.DEVICE), 0
        self._device_rows: list[DeviceRow] = []  # waiting to be put into the hash
        self._slot, self._slots, self._bases = aligned(256, t.SLOT), 0, 0
        self._runs = SharedRuns()
        self._versions: dict[tuple[int, Family, frozenset[str]], dict[int, Base]] = {}
        self._programs: dict[tuple[Family, tuple[RoutingRule, ...]], tuple[int, int, list[int]]] = {}
        self._shapes: dict[Hashable, Shape | None] = {}  # None: the first of them has none
        self._added: dict[int, Namespace] = {}
        self._starts: list[int] = []  # the first route number of each owner
        self._owners: list[Owner] = []
        self._numbers = 0
        self._tables: t.FibTables | None = None

    @property
    def tables(self) -> t.FibTables:
        """Take them afresh after ``add``."""
        if self._tables is None:
            self._put_devices()
            self._tables = t.FibTables(
                self._namespace.array,
                self._device,
                self._rule.array,
                self._table.array,
                self._link.array,
                self._prefix.array,
                self._slot,
                self._route.array,
                self._hop.array,
                self._number.array,
                self._primary.array,
                self._candidate.array,
                self.names.number("lo"),
            )
        return self._tables

    def route_of(self, namespace: int, number: int) -> Route:
        """The route behind a number of OUT_ROUTE there. IndexError for a number that was never given out, KeyError
        for a namespace that has not been added."""
        if not 0 <= number < self._numbers:
            raise IndexError(f"{number} is no route's number")
        at = bisect_right(self._starts, number) - 1
        owner, place = self._owners[at], number - self._starts[at]
        if not isinstance(owner, Family):
            return owner[place]
        held = self._added[namespace]
        return next(islice(chain(kernel_routes(held, owner), held.routes), place, None))

    def add(self, number: int, namespace: Namespace) -> None:
        """``number``: dense from 0. Adding a number again replaces the namespace.

        Where nothing is configured for IPv6, its tables (what the kernel makes by itself: a link-local address for each
        device) wait for a FAULT."""
        self._tables = None
        self._forget_devices(number, namespace)
        self._added[number] = namespace
        self._namespace.reach(number + 1)
        address = address_of(namespace)
        key = None if address is None else key_of(namespace, address)
        shape = self._shapes.get(key) if key is not None else None
        if address is not None and shape is not None and int(address.interface) not in shape.taken:
            self._add_like(shape, number, int(address.interface))
        else:
            devices = self._add_anew(number, namespace)
            if address is not None and key is not None and key not in self._shapes:
                self._shapes[key] = self._learn(number, namespace, int(address.interface), devices)
        if self._speaks_six(namespace):
            self._add_six(number)

    def _add_anew(self, number: int, namespace: Namespace) -> list[DeviceRow]:
        facts = Facts(namespace, Family.IPV4, self.addresses, self.names)
        program = self._compile(namespace, Family.IPV4, facts)
        devices, source = self._devices_of(number, facts)
        own = [int(address) for address in facts.own4]
        mine = self._number.add(own), len(own), source
        self._namespace.array[number] = (facts.flags(), *program, 0, 0, 0, *mine, 0, 0)
        return devices

    def fault(self, a: int, b: int) -> None:
        """Supply what a kernel missed (``out[0]``, ``out[1]`` after ``-FAULT``). KeyError if it is a namespace that nobody
        has added."""
        if a != t.FAULT_SIX or b not in self._added:
            raise KeyError(f"namespace {b} has not been added")
        self._add_six(b)

    def _add_six(self, number: int) -> None:
        self._tables = None
        namespace = self._added[number]
        facts = Facts(namespace, Family.IPV6, self.addresses, self.names)
        row = self._namespace.array[number]
        row["rules6"], row["count6"], row["tables6"] = self._compile(namespace, Family.IPV6, facts)
        candidates = facts.candidates()
        row["six"], row["sixes"] = self._candidate.add(candidates), len(candidates)
        row["flags"] |= t.PRESENT6

    def _speaks_six(self, namespace: Namespace) -> bool:
        if any(address.interface.version == 6 for address in namespace.addresses):
            return True
        return any(Family.IPV6 in self._runs.families(run.items) for run in runs_of(namespace.routes))

    def _compile(self, namespace: Namespace, family: Family, facts: Facts) -> tuple[int, int, int]:
        """(first row of RULE, count, first row of TABLE) of one family."""
        made = list(kernel_routes(namespace, family))
        start = self._own_numbers(family, len(made) + len(namespace.routes))
        tables = _Tables(family)
        tables.take(start, made)
        runs = runs_of(namespace.routes)
        share = self._runs.sharable(runs, facts, map(prefix_key, made))
        shared: dict[int, list[tuple[Base, tuple[int, ...]]]] = {}
        start += len(made)
        for run, together in zip(runs, share):
            if together:
                for table, base in self._version(run.items, family, facts).items():
                    shared.setdefault(table, []).append((base, run.without))
            else:
                tables.take(start, run)
            start += len(run)
        first, count, slots = self._program(namespace, family)
        heads = [self._write_table(tables.held.get(n, {}), shared.get(n, []), facts) for n in slots]
        return first, count, self._table.add(heads)

    # -- routes ------------------------------------------------------------------------------------------------------
    def _own_numbers(self, owner: Owner, count: int) -> int:
        start = self._numbers
        self._starts.append(start)
        self._owners.append(owner)
        self._numbers += count
        return start

    def _write_table(
        self, held: dict[tuple[int, int], Held], shared: list[tuple[Base, tuple[int, ...]]], facts: Facts
    ) -> tuple[int, int, int, int]:
        """The row of TABLE."""
        if len(held) > HASHED_FROM:
            shared = [*shared, (self._write_base(held, facts), ())]
            held = {}
        prefixes = self._prefix_rows(held, facts)
        links = [(*base, self._number.add(list(without)), len(without)) for base, without in shared]
        return self._prefix.add(prefixes), len(prefixes), self._link.add(links), len(links)

    def _prefix_rows(self, held: dict[tuple[int, int], Held], facts: Facts, shared: bool = False) -> list[PrefixRow]:
        """Rows of PREFIX, the longest first; their routes are written."""
        rows: list[PrefixRow] = []
        routes: list[tuple[int, ...]] = []
        start = self._route.used
        for (length, bits), found in sorted(held.items(), reverse=True):
            rows.append((*halves(bits, length), length, start + len(routes), len(found), 0))
            routes += (self._route_row(route, metric, place, facts, shared) for metric, place, route in found)
        self._route.add(routes)
        return rows

    def _route_row(self, route: Route, metric: int, number: int, facts: Facts, shared: bool) -> tuple[int, ...]:
        rare, hops = facts.hops(route, shared)
        flags = t.RARE if rare else 0
        device = gateway = hop = 0
        if len(hops) == 1:
            device, gateway, more, _ = hops[0]
            flags |= more
        elif hops:
            hop = self._hop.add(hops)
        near = self.names.number(route.device or "")
        kind = t.TYPE_CODES[route.type]
        return kind, flags, len(hops), device, gateway, hop, near, metric, route.mtu or 0, number, number

    # -- what namespaces share ---------------------------------------------------------------------------------------
    def _version(self, items: tuple[Route, ...], family: Family, facts: Facts) -> dict[int, Base]:
        """A run's bases by table, where the devices work that work here."""
        idle = frozenset(self._runs.of(items).devices - facts.working)
        key = id(items), family, idle
        found = self._versions.get(key)
        if found is None:
            start = self._own_numbers(items, len(items))
            tables = _Tables(family)
            tables.take(start, items)
            found = {table: self._write_base(held, facts, start, True) for table, held in tables.held.items()}
            self._versions[key] = found
        return found

    def _write_base(
        self, held: dict[tuple[int, int], Held], facts: Facts, start: int = 0, shared: bool = False
    ) -> Base:
        """``start``: the number of the run's first route, so that places count from there."""
        rows = self._prefix_rows(held, facts, shared)
        first = rows[0][3]
        self._route.array["place"][first : self._route.used] -= start
        lengths = sorted({length for length, _ in held}, reverse=True)
        base = self._bases = self._bases + 1
        self._slots += len(rows)
        while len(self._slot) < 2 * self._slots:
            grown = aligned(2 * len(self._slot), t.SLOT)
            insert_slots(grown, self._slot)
            self._slot = grown
        made = [(hi, lo, base, length, route, count) for hi, lo, length, route, count, _ in rows]
        insert_slots(self._slot, np.array(made, t.SLOT))
        return base, self._number.add(list(lengths)), len(lengths)

    # -- rules -------------------------------------------------------------------------------------------------------
    def _program(self, namespace: Namespace, family: Family) -> tuple[int, int, list[int]]:
        """(first row of RULE, count, table numbers by slot); slot 0 is table local, slot 1 main."""
        rules = tuple(rule for rule in namespace.rules if rule_family(rule) in (None, family))
        key = family, rules
        found = self._programs.get(key)
        if found is None:
            ordered = sorted(rules or default_rules(family), key=lambda rule: rule.priority)
            slots = [TABLE_LOCAL, TABLE_MAIN]
            rows = []
            for rule in ordered:
                if rule.table not in slots and rule.action == "lookup":
                    slots.append(rule.table)
                rows.append(self._rule_row(rule, family, slots))
            found = self._programs[key] = self._rule.add(rows), len(rows), slots
        return found

    def _rule_row(self, rule: RoutingRule, family: Family, slots: list[int]) -> tuple[int, ...]:
        flags = (t.INVERT if rule.invert else 0) | (t.MARKED if rule.mark is not None else 0)
        action = 0 if rule.action == "lookup" else t.TYPE_CODES[RouteType(rule.action)]
        slot = 0 if action else slots.index(rule.table)
        source = rule.source if rule.source is not None and rule.source.prefixlen else None
        parts = {t.FROM: source, t.TO: rule.destination}
        for flag, prefix in parts.items():
            if prefix is not None:
                flags |= flag if prefix.version == family else t.NEVER
        iif, oif = self.names.number(rule.iif or ""), self.names.number(rule.oif or "")
        mark = (rule.mark or 0) & 0xFFFFFFFF, rule.mask & 0xFFFFFFFF
        lengths = [prefix.prefixlen if prefix is not None else 0 for prefix in parts.values()]
        bits = [half for prefix in parts.values() for half in _halves_of(prefix)]
        return flags, action, slot, iif, oif, *mark, *lengths, *bits

    # -- devices and addresses ---------------------------------------------------------------------------------------
    def _devices_of(self, number: int, facts: Facts) -> tuple[list[DeviceRow], int]:
        """The rows of DEVICE, which are to be written, and the source of last resort; PRIMARY is written."""
        devices = []
        fallback = -1
        for device, flags, primary in facts.devices():
            kept = [a.interface for a in primary if lasting(a)]
            first = self._primary.add([(int(one.ip), int(one.network.netmask)) for one in kept])
            devices.append((number << 32 | self.names.number(device), flags, first, len(kept), 0))
            if fallback < 0:
                fallback = next((int(a.interface.ip) for a in primary if a.scope != "link" and lasting(a)), -1)
        self._device_rows += devices
        return devices, fallback

    def _put_devices(self) -> None:
        rows = self._device_rows
        while len(self._device) < 2 * (self._devices + len(rows)):
            grown = aligned(2 * len(self._device), t.DEVICE)
            insert_devices(grown, self._device)
            self._device = grown
        if rows:
            self._devices += int(insert_devices(self._device, np.array(rows, t.DEVICE)))
            rows.clear()

    def _forget_devices(self, number: int, namespace: Namespace) -> None:
        """Devices that a namespace no longer has stay in the hash, without flags."""
        old = self._added.get(number)
        if old is None:
            return
        kept = {link.name for link in namespace.links}
        gone = {link.name for link in old.links} | {a.device for a in old.addresses}
        self._device_rows += [(number << 32 | self.names.number(name), 0, 0, 0, 0) for name in sorted(gone - kept)]

    # -- shapes --------------------------------------------------------------------------------------------------------
    def _learn(self, number: int, namespace: Namespace, address: int, devices: list[DeviceRow]) -> Shape | None:
        """The shape of a namespace that has just been added; None if its address is in other places than ``_add_like``
        fills."""
        row = self._namespace.array[number]
        first, slots = int(row["tables4"]), len(self._program(namespace, Family.IPV4)[2])
        head, *heads = self._table.array[first : first + slots].tolist()
        local = self._prefix.array[head[0] : head[0] + head[1]].tolist()
        mine = [prefix for prefix in local if prefix[0] == address << 32 and prefix[2] == 32]
        primary = [self._primary.array[first : first + count].tolist() for _, _, first, count, _ in devices]
        at = [place for place, held in enumerate(primary) if any(one[0] == address for one in held)]
        gateways = gateways_of(namespace)
        if (
            head[3]
            or len(at) != 1
            or len(primary[at[0]]) != 1
            or [one[4] for one in mine] != [1]
            or address in gateways
        ):
            return None
        local.remove(mine[0])
        return Shape(
            address=address,
            flags=int(row["flags"]) & ~t.PRESENT6,
            program=(int(row["rules4"]), int(row["count4"])),
            local=local,
            route=mine[0][3],
            heads=heads,
            own=self._number.array[int(row["own"]) : int(row["own"]) + int(row["owned"])].tolist(),
            source=int(row["source"]),
            devices=[(key & 0xFFFFFFFF, flags, first, count, 0) for key, flags, first, count, _ in devices],
            device=at[0],
            mask=primary[at[0]][0][1],
            taken=gateways.union(prefix[0] >> 32 for prefix in local if prefix[2] == 32),
        )

    def _add_like(self, shape: Shape, number: int, address: int) -> None:
        local = self._prefix.add([(address << 32, 0, 32, shape.route, 1, 0), *shape.local])
        tables = self._table.add([(local, 1 + len(shape.local), 0, 0), *shape.heads])
        own = self._number.add([address if one == shape.address else one for one in shape.own])
        source = address if shape.source == shape.address else shape.source
        primary = self._primary.add([(address, shape.mask)])
        for place, (name, flags, first, count, _) in enumerate(shape.devices):
            row = number << 32 | name, flags, primary if place == shape.device else first, count, 0
            self._device_rows.append(row)
        if len(self._device_rows) > WAITING_MOST:
            self._put_devices()
        six = 0, 0, 0
        program = *shape.program, tables
        self._namespace.array[number] = (shape.flags, *program, *six, own, len(shape.own), source, 0, 0)


class _Tables:
    """A family's routes by table and prefix, the cheapest first, then those that came first."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.held: dict[int, dict[tuple[int, int], Held]] = {}

    def take(self, number: int, routes: Iterable[Route]) -> None:
        """``number``: of the first of ``routes``. Those of the other family are passed over."""
        for place, route in enumerate(routes, number):
            family, table, length, bits = prefix_key(route)
            if family != self.family:
                continue
            found = self.held.setdefault(table, {}).setdefault((length, bits), [])
            found.append((effective_metric(route), place, route))
            if len(found) > 1:
                found.sort(key=lambda item: item[0])


def _halves_of(prefix: IPNetwork | None) -> Sequence[int]:
    return (0, 0) if prefix is None else halves(int(prefix.network_address), prefix.max_prefixlen)
