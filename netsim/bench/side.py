"""One backend on one cluster: what its rules weigh, what they cost, how fast packets go through them.

Assembled ─▶ measure_side ─▶ Side    one row of ``netsim bench``
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from msgspec.structs import replace

from netsim.backends import RenewablePlugin
from netsim.bench.verify import verify
from netsim.bench.workload import Evenness, Rates, evenness, measure
from netsim.compiled.addresses import Addresses
from netsim.compiled.names import Names
from netsim.compiled.rule_compiler import RuleCompiler
from netsim.datapath.engine import Datapath
from netsim.datapath.traffic import Flows, Source, Target, elephants, zipf
from netsim.errors import UsageError
from netsim.interpreter.origin import LocalOrigin
from netsim.interpreter.outcome import Disposition
from netsim.kube.objects import Service
from netsim.kube.store import Event
from netsim.linux.link import LinkKind
from netsim.linux.netfilter.text import print_save
from netsim.linux.network import Namespace
from netsim.packet.address import IPAddress, ip
from netsim.packet.model import Proto
from netsim.topology.assemble import Assembled, LazyNetwork

_ARRIVED = [number for number, end in enumerate(Disposition) if end in (Disposition.DELIVERED, Disposition.LEFT)]
_PROTOCOLS = {"TCP": Proto.TCP, "UDP": Proto.UDP}
# Headers that a tunnel device puts around a packet of a pod over IPv4: outer IP, UDP, VXLAN, the inner Ethernet header.
_HEADERS = {LinkKind.VXLAN: 20 + 8 + 8 + 14, LinkKind.IPIP: 20, LinkKind.TUN: 20 + 8}
_UPDATES = 6  # times that a Service is changed and back, for the median


@dataclass(frozen=True, slots=True)
class Workload:
    """``zipf``: the exponent of the Services' popularity, None: uniform; ``elephants``: a tenth of the flows carry nine
    tenths of the packets; ``new``: flows that begin while packets are timed; ``sample``: conversations held to the
    interpreter first."""

    flows: int = 10_000
    packets: int = 1_000_000
    new: int = 10_000
    zipf: float | None = None
    elephants: bool = False
    sample: int = 20
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """Seconds are CPU seconds; ``rules`` and ``bytes`` are those of ``iptables-save`` (both families) on ``node``, the one
    with the most pods; ``derive``, ``compile``: that node's rules from objects, tables from rules; ``update``: the rules of
    all nodes and the tables in use, after one Service changed (None: none can be, or the backend takes no changes over).
    ``overhead``: bytes around each packet between nodes;
    ``first``: rules evaluated per first packet, median and 99th percentile."""

    name: str
    node: str
    rules: int
    bytes: int
    derive: float
    compile: float
    update: float | None
    tables: int
    flow_bytes: float
    overhead: int
    pod_mtu: int
    node_mtu: int
    rates: Rates
    delivered: float
    first: tuple[int, int]
    evenness: Evenness
    compared: int


def measure_side(name: str, made: Assembled, load: Workload, told: Callable[[str], None] = lambda step: None) -> Side:
    """UsageError if the cluster has nobody to send, or no Service with endpoints to send to."""
    node = max(sorted(made.cluster.nodes), key=lambda one: len(made.cluster.pods_by_node.get(one, ())))
    told("rules")
    rules, size, derive, compiled = _rules(made, f"node/{node}")
    random = np.random.default_rng(load.seed)
    clients, targets, sizes = clients_of(made), targets_of(made), endpoints_of(made)
    if not clients:
        raise UsageError("no pod has a network of its own: there is nobody to send")
    if not targets:
        raise UsageError("no Service has an address and ready endpoints: there is nowhere to send to")
    datapath = Datapath(made.network, seed=load.seed, capacity=load.flows + load.new, told=told)
    sources = [Source(datapath.origin(LocalOrigin(place)), address) for place, address in clients]
    shares = None if load.zipf is None else zipf(len(targets), load.zipf)
    flows = Flows.draw(sources, targets, load.flows + load.new, datapath.addresses, random, target_shares=shares)
    told("a sample held to the interpreter")
    checked = Datapath(made.network, seed=load.seed)
    again = [Source(checked.origin(LocalOrigin(place)), address) for place, address in clients]
    compared = verify(
        checked,
        Flows.draw(
            again, targets, load.sample, checked.addresses, np.random.default_rng(load.seed), target_shares=shares
        ),
        np.arange(load.sample),
    )
    told("packets")
    rates = measure(
        datapath,
        flows,
        load.flows,
        load.packets,
        seed=load.seed,
        shares=elephants(load.flows) if load.elephants else None,
        size=min(65536, max(64, load.packets // 8)),
    )
    first, kept = rates.first, slice(0, load.flows)
    arrived = np.isin(first.verdict, _ARRIVED)
    state = datapath.store.state
    pod_mtu, node_mtu, overhead = _sizes(made, node)
    return Side(
        name=name,
        node=node,
        rules=rules,
        bytes=size,
        derive=derive,
        compile=compiled,
        update=_update(made, datapath),
        tables=sum(
            array.nbytes for array in _arrays((datapath.world.tables, datapath.fib.tables, datapath.rules.programs))
        ),
        flow_bytes=sum(array.nbytes for array in _arrays(state)) / len(state.hot),
        overhead=overhead,
        pod_mtu=pod_mtu,
        node_mtu=node_mtu,
        rates=rates,
        delivered=float(arrived.mean()),
        first=(int(np.quantile(first.rules, 0.5)), int(np.quantile(first.rules, 0.99, method="higher"))),
        evenness=evenness(
            (
                flows.dst[kept][arrived],
                flows.dport[kept][arrived],
                flows.proto[kept][arrived],
                flows.flags[kept][arrived],
            ),
            (first.dst[arrived], first.dport[arrived]),
            lambda key: sizes.get((datapath.addresses.address(key[0], 6 if key[3] & 1 else 4), key[1], key[2]), 0),
        ),
        compared=compared,
    )


# -- who talks to whom -------------------------------------------------------------------------------------------------
def clients_of(made: Assembled) -> list[tuple[str, IPAddress]]:
    """Pods with a network of their own: namespace and each address."""
    pods = [pod for _, pod in sorted(made.cluster.pods.items()) if pod.spec.node_name and not pod.spec.host_network]
    return [(made.namespace_of(pod), ip(text)) for pod in pods for text in pod.ips]


def endpoints_of(made: Assembled) -> dict[tuple[IPAddress, int, int], int]:
    """Ready endpoints by cluster address, port and protocol of the Service, for those that have some and choose freely:
    neither affinity nor an internal traffic policy."""
    found = {}
    for key, service in sorted(made.cluster.services.items()):
        if service.spec.session_affinity == "ClientIP" or service.spec.internal_traffic_policy == "Local":
            continue
        for address, number, proto, count in _fronts(made, key, service):
            found[address, number, proto] = count
    return found


def targets_of(made: Assembled) -> list[Target]:
    """Every port of every Service that has a cluster address and ready endpoints."""
    return [
        Target(address, number, proto)
        for key, service in sorted(made.cluster.services.items())
        for address, number, proto, _ in _fronts(made, key, service)
    ]


def _fronts(made: Assembled, key: tuple[str, str], service: Service) -> Iterator[tuple[IPAddress, int, int, int]]:
    slices = made.cluster.slices.get(key, ())
    for text in service.spec.cluster_ips:
        if text in ("", "None"):
            continue
        address = ip(text)
        for port in service.spec.ports:
            ready = {
                one
                for held in slices
                if held.address_type == f"IPv{address.version}" and any(p.name == port.name for p in held.ports or ())
                for endpoint in held.endpoints
                if endpoint.conditions.ready is not False
                for one in endpoint.addresses[:1]
            }
            if ready and port.protocol in _PROTOCOLS:
                yield address, port.port, _PROTOCOLS[port.protocol], len(ready)


# -- rules -------------------------------------------------------------------------------------------------------------
def _derived(made: Assembled, node: str) -> Namespace:
    """The node's kernel from the objects as they are now; nothing is remembered."""
    network, proxy = made.network, made.choice.proxy
    plugin = proxy.configure(made.cluster, None, network.topology.underlay())
    return LazyNetwork(made.cluster, network.topology, plugin, made.cni).namespace(node)


def _compile(rules: RuleCompiler, scope: object, namespace: Namespace) -> None:
    for family, ruleset in namespace.rulesets.items():
        for table in ruleset.tables.values():
            rules.compile_all(rules.table((scope, family), table, family, namespace.ipsets))


def _rules(made: Assembled, node: str) -> tuple[int, int, float, float]:
    """Rules, bytes, seconds to derive, to compile."""
    warm = _derived(made, node)
    _compile(RuleCompiler(Addresses(), Names()), 0, warm)  # kernels are loaded
    assumed = len(made.cluster.assumptions)
    compiler = RuleCompiler(Addresses(), Names())
    start = time.thread_time()
    namespace = _derived(made, node)
    count = size = 0
    for ruleset in namespace.rulesets.values():
        for line in print_save(ruleset):
            count += line.startswith("-A ")
            size += len(line.rstrip("\n")) + 1
    derive = time.thread_time() - start
    start = time.thread_time()
    _compile(compiler, 1, namespace)
    compiled = time.thread_time() - start
    del made.cluster.assumptions[assumed:]
    return count, size, derive, compiled


def _update(made: Assembled, datapath: Datapath) -> float | None:
    """One endpoint of a Service goes, and comes back: from the object in the store to a datapath that goes on with the rules
    as they are then. None if there is no such Service, or the backend takes no changes over."""
    slices = made.cluster.slices
    held = next((one for _, some in sorted(slices.items()) for one in some if len(one.endpoints) > 1), None)
    if held is None or not isinstance(made.proxy, RenewablePlugin):
        return None
    fewer = replace(held, endpoints=held.endpoints[1:])
    events: list[Event] = []
    stop, spent = made.cluster.store.watch(events.append), []
    for number in range(2 * _UPDATES):
        start = time.thread_time()
        made.cluster.store.put(held if number % 2 else fewer)
        made = made.after(events)
        datapath.update(made.network)
        spent.append(time.thread_time() - start)
        events.clear()
    stop()
    return median(spent[2:])  # the first ones load what all need


# -- sizes -------------------------------------------------------------------------------------------------------------
def _sizes(made: Assembled, node: str) -> tuple[int, int, int]:
    """MTU of a pod there, of the node's own network, and the bytes that the node's tunnels put around a packet."""
    pods = [pod for pod in made.cluster.pods_by_node.get(node, ()) if not pod.spec.host_network]
    mtu = made.network.topology.mtu
    links = made.network.namespace(f"node/{node}").links
    tunnels = [_HEADERS[link.kind] for link in links if link.kind in _HEADERS]
    inside = (
        [link.mtu for link in made.network.namespace(made.namespace_of(pods[0])).links if link.kind is LinkKind.VETH]
        if pods
        else []
    )
    return min(inside, default=mtu), mtu, max(tunnels, default=0)


def _arrays(held: Sequence[Any]) -> Iterator[Any]:
    for one in held:
        if isinstance(one, np.ndarray):
            yield one
        elif isinstance(one, tuple):
            yield from _arrays(one)
