"""Hypothesis strategies for small, adversarial policy worlds: shared labels, missing keys, empty selectors, overlapping
blocks that cover pods, port names that differ between pods, hostNetwork, both families, every API's actions."""

from __future__ import annotations

from hypothesis import strategies as st

from netsim.packet.address import ip
from netsim_policies.algebra import AddressSet
from netsim_policies.model import (
    Action,
    AddressPeer,
    Direction,
    DomainPeer,
    Endpoint,
    EndpointKind,
    NamedPort,
    NodePeer,
    PodPeer,
    Policy,
    PortRange,
    Rule,
    Scope,
    UnknownPeer,
    World,
)

KEYS = ("app", "tier", "x")
VALUES = ("a", "b", "")
NAMESPACES = ("one", "two", "three")
BLOCKS = (
    "10.0.0.0/24",
    "10.0.0.0/30",
    "10.0.0.4/31",
    "10.0.1.0/24",
    "0.0.0.0/0",
    "192.168.0.1/32",
    "fd00::/64",
    "fd00::2/127",
)

labels = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=3)
expressions = st.one_of(
    st.builds(
        lambda k, o, v: {"key": k, "operator": o, "values": v},
        st.sampled_from(KEYS),
        st.sampled_from(("In", "NotIn")),
        st.lists(st.sampled_from(VALUES), min_size=1, max_size=2),
    ),
    st.builds(
        lambda k, o: {"key": k, "operator": o}, st.sampled_from(KEYS), st.sampled_from(("Exists", "DoesNotExist"))
    ),
)
selectors = st.one_of(
    st.just({}),
    st.builds(lambda m: {"matchLabels": m}, labels),
    st.builds(lambda e: {"matchExpressions": e}, st.lists(expressions, min_size=1, max_size=2)),
)
scopes = st.one_of(
    st.builds(Scope, namespace=st.sampled_from(NAMESPACES), pods=selectors),
    st.builds(Scope, namespaces=selectors, pods=selectors),
)
blocks = st.builds(
    lambda cidr, cut: AddressPeer(AddressSet.prefix(cidr) - (AddressSet.prefix(cut) if cut else AddressSet()), cidr),
    st.sampled_from(BLOCKS),
    st.one_of(st.none(), st.sampled_from(BLOCKS)),
)
peers = st.one_of(
    st.builds(PodPeer, scopes),
    blocks,
    st.builds(NodePeer, selectors),
    st.just(DomainPeer(("*.example.com",))),
    st.just(UnknownPeer(("services",))),
)
ports = st.one_of(
    st.builds(
        lambda p, low, n: PortRange(p, low, low + n),
        st.sampled_from((None, "TCP", "UDP", "SCTP")),
        st.sampled_from((1, 79, 80, 81, 8080)),
        st.sampled_from((0, 1, 10, 1000)),
    ),
    st.builds(NamedPort, st.sampled_from(("http", "dns")), st.sampled_from((None, "TCP", "UDP"))),
)


def rules(actions: tuple[Action, ...], egress: bool) -> st.SearchStrategy[tuple[Rule, ...]]:
    return st.lists(
        st.builds(
            Rule,
            action=st.sampled_from(actions),
            peers=st.one_of(st.none(), st.lists(peers, min_size=1, max_size=2).map(tuple)),
            ports=st.one_of(st.none(), st.lists(ports, min_size=1, max_size=2).map(tuple)),
            path=st.just("spec.egress[0]" if egress else "spec.ingress[0]"),
        ),
        max_size=3,
    ).map(tuple)


@st.composite
def policies(draw: st.DrawFn, number: int) -> Policy:
    tier = draw(st.sampled_from(("Admin", "NetworkPolicy", "NetworkPolicy", "Baseline")))
    actions = (Action.ALLOW,) if tier == "NetworkPolicy" else (Action.ALLOW, Action.DENY, Action.PASS)
    return Policy(
        kind="NetworkPolicy" if tier == "NetworkPolicy" else "ClusterNetworkPolicy",
        namespace="one" if tier == "NetworkPolicy" else "",
        name=f"p{number}",
        tier=tier,
        priority=draw(st.integers(0, 2)),
        subject=draw(scopes),
        directions=draw(st.frozensets(st.sampled_from(Direction), min_size=1)),
        ingress=draw(rules(actions, False)),
        egress=draw(rules(actions, True)),
    )


@st.composite
def worlds(draw: st.DrawFn, most_policies: int = 5) -> World:
    namespaces = {name: draw(labels) for name in NAMESPACES}
    nodes = [
        Endpoint(
            EndpointKind.NODE, f"n{i}", node=f"n{i}", node_labels=draw(labels), addresses=(ip(f"192.168.0.{i + 1}"),)
        )
        for i in range(2)
    ]
    pods = []
    for i in range(draw(st.integers(2, 6))):
        on = draw(st.sampled_from(nodes))
        host = draw(st.integers(0, 5)) == 0
        space = draw(st.sampled_from(NAMESPACES))
        names = draw(
            st.dictionaries(
                st.sampled_from((("http", "TCP"), ("dns", "UDP"), ("http", "UDP"))),
                st.sampled_from((80, 8080)),
                max_size=2,
            )
        )
        pods.append(
            Endpoint(
                EndpointKind.POD,
                f"{space}/pod-{i}",
                namespace=space,
                labels=draw(labels),
                namespace_labels=namespaces[space],
                addresses=on.addresses if host else (ip(f"10.0.0.{i + 2}"), ip(f"fd00::{i + 1}")),
                named_ports=names,
                host_network=host,
                node=on.node,
                node_labels=on.node_labels if host else {},
            )
        )
    outside = [
        Endpoint(EndpointKind.EXTERNAL, text, outside=AddressSet.prefix(text))
        for text in ("203.0.113.9/32", "10.0.0.3/32", "2001:db8::1/128")
    ]
    outside.append(Endpoint(EndpointKind.EXTERNAL, "www.example.com", outside=AddressSet.prefix("198.51.100.1/32")))
    chosen = [draw(policies(i)) for i in range(draw(st.integers(0, most_policies)))]
    return World((*pods, *nodes, *outside), tuple(chosen), namespaces)
