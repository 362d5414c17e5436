"""A datapath goes on in another network: known flows heed the new rules, what the kernel keeps is kept, nothing grows."""

from __future__ import annotations

import weakref
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as changed

from netsim.datapath.batch import Batch
from netsim.datapath.engine import Datapath, Result
from netsim.errors import UsageError
from netsim.interpreter.origin import LocalOrigin
from netsim.interpreter.outcome import Disposition
from netsim.kube.objects import EndpointSlice, Pod, Service
from netsim.linux.netfilter.rule import Chain
from netsim.linux.netfilter.table import Ruleset, Table
from netsim.linux.netfilter.text import rule
from netsim.linux.network import Namespace, Renewal
from netsim.packet.address import Family, IPAddress, ip
from netsim.packet.model import Packet, Proto, Tcp, TcpFlag, Udp
from netsim.topology import Assembled
from tests.support.service_changes import anew
from tests.support.topology_clusters import build, node, pod, service

DELIVERED, DROPPED = (tuple(Disposition).index(end) for end in (Disposition.DELIVERED, Disposition.DROPPED))


def cluster(services: int = 1, **spec: Any) -> Assembled:
    """Two pods behind each Service, and one that asks."""
    made = [service(f"s{n}", "b", type="ClusterIP", **spec) for n in range(services)]
    pods = [pod("a", "n0"), pod("b", "n1"), pod("c", "n1")]
    pods[2]["metadata"]["labels"] = {"app": "b"}
    nodes = [node(f"n{n}", f"192.168.56.1{n}", cidrs=(f"10.244.{n}.0/24",)) for n in range(2)]
    return build(*nodes, *pods, *made, cni="flannel:host-gw")


def address_of(made: Assembled, name: str) -> IPAddress:
    return ip(made.cluster.pods["default", name].ips[0])


class Talk:
    """A client in pod ``a``, answered by whoever gets its packets."""

    def __init__(self, datapath: Datapath, made: Assembled) -> None:
        self.datapath, self.made, self.now = datapath, made, 0

    def send(self, origin: str, *packets: Packet) -> Result:
        handle = self.datapath.origin(LocalOrigin(origin))
        rows = []
        for packet in packets:
            self.now += 1000
            rows.append((self.now, handle, packet))
        return self.datapath.process(Batch.of_packets(rows, self.datapath.addresses))

    def udp(self, to: IPAddress, sport: int = 4000, dport: int = 80) -> Result:
        return self.send("pod/default/a", Packet(address_of(self.made, "a"), to, Proto.UDP, Udp(sport, dport)))

    def syn(self, to: IPAddress, sport: int) -> Result:
        body = Tcp(sport, 80, TcpFlag.SYN, 1, 0, 64240)
        return self.send("pod/default/a", Packet(address_of(self.made, "a"), to, Proto.TCP, body))

    def receiver(self, result: Result) -> str | None:
        return self.datapath.namespace_name(int(result.receiver[0]))


# -- known flows ---------------------------------------------------------------------------------------------------------
class Live(Mapping[str, Chain]):
    """One chain that is derived on look-up."""

    def __init__(self, *rules: str) -> None:
        self.chain = Chain("LIVE", tuple(rule(text, Family.IPV4) for text in rules))
        self.scope = "live", rules

    def __getitem__(self, name: str) -> Chain:
        if name != "LIVE":
            raise KeyError(name)
        return self.chain

    def __iter__(self) -> Iterator[str]:
        return iter(("LIVE",))

    def __len__(self) -> int:
        return 1


class Filtered:
    """A cluster's network in which what node n0 forwards passes LIVE first."""

    def __init__(self, made: Assembled, live: Live, before: Filtered | None = None) -> None:
        self.inner, self.live, self.renewal = made.network, live, None
        self._node: Namespace | None = None
        if before is not None:
            self.renewal = Renewal(
                weakref.ref(before),
                (),
                lambda own, _: (live, {"LIVE"}) if own is before.live else (own, ()),
                alike=True,
            )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def namespace(self, name: str) -> Namespace:
        held = self.inner.namespace(name)
        if name != "node/n0":
            return held
        if self._node is None:
            tables = dict(held.rulesets[Family.IPV4].tables)
            chains = tables["filter"].chains
            forward = chains["FORWARD"]
            jump = rule("-j LIVE", Family.IPV4)
            own = {**chains.maps[0], "FORWARD": changed(forward, rules=(jump, *forward.rules))}  # type: ignore[attr-defined]
            tables["filter"] = Table("filter", ChainMap(own, self.live, *chains.maps[1:]))  # type: ignore[arg-type,attr-defined]
            rulesets = {**held.rulesets, Family.IPV4: Ruleset(Family.IPV4, tables)}
            self._node = replace(held, rulesets=rulesets)
        return self._node


def test_a_known_flow_heeds_the_new_rules() -> None:
    made = cluster()
    network = Filtered(made, Live("-p udp -j RETURN"))
    talk = Talk(Datapath(network), made)
    b = address_of(made, "b")
    for _ in range(4):
        assert int(talk.udp(b).verdict[0]) == DELIVERED
    assert talk.datapath.paths["fast"] > 0

    passing = Filtered(made, Live("-p tcp -j DROP", "-p udp -j ACCEPT"), network)
    talk.datapath.update(passing)
    found = [talk.udp(b) for _ in range(4)]
    assert [int(one.verdict[0]) for one in found] == [DELIVERED] * 4
    assert [int(one.how[0]) for one in found] == [1, 0, 0, 0], "slow once, then fast again"
    counters = talk.datapath.counters()
    assert ("node/n0", "filter", "LIVE", 1) not in counters
    assert counters["node/n0", "filter", "LIVE", 2][0] == 4

    talk.datapath.update(Filtered(made, Live("-p udp --dport 80 -j DROP"), passing))
    assert int(talk.udp(b).verdict[0]) == DROPPED
    assert int(talk.udp(b, dport=81).verdict[0]) == DELIVERED
    assert talk.datapath.counters()["node/n0", "filter", "LIVE", 1][0] == 1


def test_flows_that_pass_no_changed_chain_stay_on_the_fast_path() -> None:
    made = cluster()
    network = Filtered(made, Live("-p udp --dport 90 -j RETURN", "-p udp -j ACCEPT"))
    talk = Talk(Datapath(network), made)
    back = Packet(address_of(made, "c"), address_of(made, "b"), Proto.UDP, Udp(5000, 80))  # never leaves n1
    for _ in range(4):
        talk.send("pod/default/c", back)
    talk.datapath.update(Filtered(made, Live("-j DROP"), network))
    assert int(talk.send("pod/default/c", back).how[0]) == 0
    assert int(talk.udp(address_of(made, "b")).verdict[0]) == DROPPED


# -- Services ------------------------------------------------------------------------------------------------------------
def put(made: Assembled, *objects: Any) -> Assembled:
    events: list[Any] = []
    stop = made.cluster.store.watch(events.append)
    for one in objects:
        made.cluster.store.put(one)
    stop()
    return made.after(events)


def only(made: Assembled, name: str) -> EndpointSlice:
    """The Service's slice with one pod as its only endpoint."""
    (held,) = made.cluster.slices["default", "s0"]
    chosen = [one for one in held.endpoints if one.addresses == [str(address_of(made, name))]]
    return changed(held, endpoints=chosen)


def test_translations_that_are_settled_stay_settled() -> None:
    made = cluster()
    made = put(made, only(made, "b"))
    talk = Talk(Datapath(made.network), made)
    address = ip(made.cluster.services["default", "s0"].spec.cluster_ip)
    assert talk.receiver(talk.syn(address, 5000)) == "pod/default/b"
    (held,) = made.cluster.slices["default", "s0"]
    made = put(made, changed(held, endpoints=[only_pod(made, held, "c")]))
    talk.datapath.update(made.network)
    assert talk.receiver(talk.syn(address, 5001)) == "pod/default/c"
    assert talk.receiver(talk.syn(address, 5000)) == "pod/default/b"


def only_pod(made: Assembled, held: EndpointSlice, name: str) -> Any:
    return changed(held.endpoints[0], addresses=[str(address_of(made, name))])


def test_an_affinity_goes_with_its_endpoint() -> None:
    """The kernel drops a list of ``-m recent`` with the last rule that names it: an endpoint that comes back is unknown."""
    made = cluster(sessionAffinity="ClientIP")
    talk = Talk(Datapath(made.network, seed=3), made)
    address = ip(made.cluster.services["default", "s0"].spec.cluster_ip)
    first = talk.receiver(talk.syn(address, 5000))
    (whole,) = made.cluster.slices["default", "s0"]
    other = "c" if first == "pod/default/b" else "b"
    made = put(made, only(made, other))
    talk.datapath.update(made.network)
    made = put(made, whole)
    talk.datapath.update(made.network)
    # Nothing holds the client to the first any more; whom it gets now is who it keeps.
    assert not any(seen for lists in recent(talk.datapath).values() for seen in lists.values())
    again = talk.receiver(talk.syn(address, 5001))
    assert {talk.receiver(talk.syn(address, 6000 + n)) for n in range(8)} == {again}


def recent(datapath: Datapath) -> Mapping[int, Mapping[str, Mapping[Any, list[float]]]]:
    return datapath.recent.lists(datapath.rules.recent_name, datapath.addresses.address)


def test_next_to_nothing_grows_with_the_number_of_updates() -> None:
    """KUBE-SERVICES is written anew each time, 40 lines of 64 bytes and an index, where the one before it was."""
    made = cluster(services=40)
    talk = Talk(Datapath(made.network), made)
    address = ip(made.cluster.services["default", "s0"].spec.cluster_ip)
    whole = made.cluster.services["default", "s7"]
    ends = []
    for number in range(60):
        events: list[Any] = []
        stop = made.cluster.store.watch(events.append)
        made.cluster.store.delete("Service", "default", "s7")
        made.cluster.store.put(whole)
        stop()
        for event in events:
            made = made.after([event])
            talk.datapath.update(made.network)
            talk.syn(address, 5000 + number)
        ends.append(4 * talk.datapath.rules.words_used)
    assert (ends[-1] - ends[10]) / (2 * 49) < 300  # bytes an update


def test_a_network_of_its_own_is_compared_namespace_by_namespace() -> None:
    made = cluster()
    talk = Talk(Datapath(made.network), made)
    address = ip(made.cluster.services["default", "s0"].spec.cluster_ip)
    assert int(talk.syn(address, 5000).verdict[0]) == DELIVERED
    made.cluster.store.delete("EndpointSlice", "default", made.cluster.slices["default", "s0"][0].name)
    talk.datapath.update(anew(made))
    assert int(talk.syn(address, 5001).verdict[0]) != DELIVERED
    assert int(talk.udp(address_of(made, "b")).verdict[0]) == DELIVERED


def test_what_changes_more_than_services_is_refused() -> None:
    made = cluster()
    one: Pod = made.cluster.pods["default", "b"]
    with pytest.raises(
        UsageError, match="a Pod has changed, which changes more than Services: assemble the cluster anew"
    ):
        put(made, one)
    lost: Service = made.cluster.services["default", "s0"]
    assert put(made, lost).cluster.services.keys() == made.cluster.services.keys()


def test_packets_of_earlier_batches_cannot_be_explained_any_more() -> None:
    made = cluster()
    datapath = Datapath(made.network)
    handle = datapath.origin(LocalOrigin("pod/default/a"))
    packet = Packet(address_of(made, "a"), address_of(made, "b"), Proto.UDP, Udp(1, 2))
    datapath.process(Batch.of_packets([(0, handle, packet)], datapath.addresses), explainable=True)
    datapath.explain(0)
    datapath.update(put(made, only(made, "b")).network)
    with pytest.raises(UsageError, match="explainable"):
        datapath.explain(0)
