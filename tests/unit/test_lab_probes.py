"""The default probe list has every path class that a cluster has; each probe's conversation is what its manner says."""

from __future__ import annotations

import re
from functools import cache

import pytest

from netsim.interpreter import Disposition
from netsim.lab import build, probe_list
from netsim.lab.expected import Course
from netsim.lab.probes import Manner, Probe
from netsim.lab.retuned import courses
from netsim.lab.turns import turns
from netsim.packet.address import Family, ip
from netsim.packet.model import Proto
from tests.support.lab_clusters import assembled, every_class

# The path classes that must have kernel-checked cases: what a probe of each looks like, by path and aspect.
CLASSES = {
    "pod to itself": r"pod to itself / TCP",
    "same pod by Service (hairpin)": r"own pod to Service by ClusterIP / TCP",
    "pod to pod on a node": r"pod to pod of the same node / TCP",
    "across nodes in one segment": r"pod to pod of another node / TCP",
    "across nodes in two segments": r"pod to pod in another segment / TCP",
    "pod to Service by ClusterIP": r"pod to Service by ClusterIP / TCP",
    "… NodePort": r"pod to Service by NodePort / TCP",
    "… external IP": r"pod to Service by external IP / TCP",
    "… load-balancer IP": r"pod to Service by load balancer / TCP",
    "internal policy Local, pod on the node": r"pod to Service by ClusterIP, Local, right node / TCP",
    "internal policy Local, none": r"pod to Service by ClusterIP, Local, wrong node / TCP",
    "external policy Local, external IP": r"outside to Service by external IP, Local / TCP",
    "external policy Local, load balancer": r"outside to Service by load balancer, Local / TCP",
    "node to Service": r"node to Service by ClusterIP / TCP",
    "node to local pod": r"node to local pod / TCP",
    "node to remote pod": r"node to remote pod / TCP",
    "outside to NodePort": r"outside to Service by NodePort / TCP",
    "… on the right node": r"outside to Service by NodePort, Local, right node / TCP",
    "… on a wrong node": r"outside to Service by NodePort, Local, wrong node / TCP",
    "outside to pod": r"outside to pod / TCP",
    "hostPort": r"outside to hostPort, right node / TCP",
    "hostPort on a wrong node": r"outside to hostPort, wrong node / TCP",
    "pod to outside": r"pod to outside / TCP",
    "no endpoints": r"pod to Service by ClusterIP, no endpoints / TCP",
    "affinity": r"pod to Service by ClusterIP / session affinity",
    "affinity over time": r"pod to Service by ClusterIP / session affinity over time",
    "UDP": r"pod to Service by ClusterIP / UDP",
    "UDP streams": r"pod to Service by ClusterIP / UDP streams",
    "SCTP": r"pod to Service by ClusterIP / SCTP",
    "ICMP echo": r"pod to pod in another segment / ICMP echo",
    "traceroute": r"pod to outside / TTL expiry",
    "sizes with DF": r"outside to Service by NodePort / sizes around the MTU, with DF",
    "fragments": r"pod to Service by ClusterIP / fragments",
    "half-open TCP": r"pod to Service by ClusterIP / half-open TCP",
    "out-of-window TCP": r"pod to Service by ClusterIP / out-of-window TCP",
    "whole TCP connections": r"pod to Service by ClusterIP / whole connections",
    "late replies": r"pod to Service by ClusterIP / replies after conntrack expiry",
}


@cache
def listed() -> list[Probe]:
    return probe_list.probes(every_class())


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("name", CLASSES)
def test_every_path_class_is_probed(name: str, family: Family) -> None:
    pattern = re.compile(CLASSES[name])
    assert any(pattern.fullmatch(f"{probe.path} / {probe.aspect}") for probe in listed() if probe.family is family)


def test_without_df_there_is_ipv4_only() -> None:
    without = [probe for probe in listed() if probe.aspect == "sizes around the MTU, without DF"]
    assert {probe.family for probe in without} == {Family.IPV4}


def test_probes_are_distinct_and_have_turns() -> None:
    assert len(set(listed())) == len(listed())
    assert all(turns(probe) for probe in listed())


def test_an_ipv4_cluster_gets_no_ipv6_probes() -> None:
    assert {probe.family for probe in probe_list.probes(assembled("@example"))} == {Family.IPV4}


@cache
def course_of(manner: Manner, path: str, protocol: Proto, family: Family) -> Course:
    made = every_class()
    network, _ = build.for_lab(made)
    probe = next(
        p
        for p in listed()
        if (p.manner, p.path, p.protocol, p.family) == (manner, path, protocol, family) and p.ttl == 64
    )
    (course,) = courses(network, build.names_of(made), [probe], (10001, 10002, 10003, 10004))
    return course


@pytest.mark.parametrize("family", list(Family))
def test_a_whole_connection_goes_through_a_service_and_back(family: Family) -> None:
    course = course_of(Manner.CONNECTION, "pod to Service by ClusterIP", Proto.TCP, family)
    stage, turn = course.first, 0
    while stage is not None:
        way = course.ways(stage)[0]
        assert way.outcomes[-1].disposition is Disposition.DELIVERED
        receiver = stage.server if course.turns[turn].server is False and stage.server else way.receiver
        assert (way.receiver == course.probe.source) is course.turns[turn].server, receiver
        stage, turn = way.after, turn + 1  # type: ignore[assignment]
    assert turn == len(course.turns)
    assert any("TIME_WAIT" in line for line in way.entries)


def test_data_far_out_of_the_window_is_dropped_on_the_way() -> None:
    course = course_of(Manner.OUT_OF_WINDOW, "pod to Service by ClusterIP", Proto.TCP, Family.IPV4)
    stage = course.first
    for _ in range(3):
        after = course.ways(stage)[0].after
        assert after is not None
        stage = after
    assert course.ways(stage)[0].outcomes[-1].disposition is not Disposition.DELIVERED


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="UDP has no manner reset"):
        turns(Probe("p", "pod/a/b", ip("10.0.0.1"), Proto.UDP, 9, Manner.RESET))
