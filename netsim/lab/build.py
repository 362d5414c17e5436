"""``lab up``: step by step from a network's values to namespaces that carry packets. Each step is journalled first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from netsim.errors import NetsimError, PrivilegeError, UsageError
from netsim.lab import holder, netlink, state, udp_forwarder
from netsim.lab.holder import within
from netsim.lab.netlink import Netlink, Request
from netsim.lab.plan import GLOBAL_SYSCTLS, LAB_SYSCTLS, UNDERLAY, Plan, netns, plan
from netsim.linux.network import Namespace
from netsim.packet.address import Family
from netsim.topology.assemble import Assembled, LazyNetwork
from netsim.topology.underlay import EXTERNAL, ROUTER

MOST = 60  # namespaces, unless forced
STEPS = ("holder", "namespaces", "sysctls", "rules", "links", "addresses", "forwarders", "listeners", "ready")


def for_lab(made: Assembled) -> tuple[LazyNetwork, list[str]]:
    """The network as the lab can build it, and notes on what differs from ``made.network``."""
    notes, proxy = [], made.proxy
    if getattr(proxy, "nfacct", False):
        backend: Any = type(made.choice.proxy)
        proxy = backend(nfacct=False).configure(made.cluster, None, made.network.topology.underlay())
        notes.append("kube-proxy's nfacct counters are left out, as where the kernel has none: they decide nothing")
    return LazyNetwork(made.cluster, made.network.topology, proxy, made.cni), notes


def names_of(made: Assembled) -> list[str]:
    nodes = [f"node/{name}" for name in sorted(made.cluster.nodes)]
    pods = sorted({made.namespace_of(pod) for pod in made.cluster.pods.values() if pod.spec.node_name} - set(nodes))
    return [*nodes, *pods, ROUTER, EXTERNAL]


def up(
    made: Assembled,
    network: LazyNetwork,
    lab_id: str,
    *,
    force: bool = False,
    kernel: str = state.HOST,
    listening: bool = True,
) -> state.Lab:
    """Build the lab of a cluster; ``listening``: its pods answer. UsageError if it is too large, PrivilegeError if the
    machine lacks something."""
    names = names_of(made)
    if len(names) + 1 > MOST and not force:
        text = f"this lab would have {len(names) + 1} namespaces; a few hundred fit most machines, but above {MOST} netsim "
        raise UsageError(text + "asks: --force builds it all the same")
    return raised(plan(network, names), _listeners(made) if listening else [], lab_id, kernel)


def raised(blueprint: Plan, listeners: list[dict[str, Any]], lab_id: str, kernel: str = state.HOST) -> state.Lab:
    """A lab that stands. What goes wrong takes it down again; PrivilegeError if the machine lacks something."""
    lab = state.create(lab_id)
    try:
        lab.write("holder", "intent")
        held = holder.start(lab, kernel)
        lab.write("holder", "done", pid=held.pid, places=sorted(blueprint.namespaces))
        if holder.in_lab(held, partial(_build, lab, blueprint, listeners)):
            raise NetsimError("the lab could not be built, see above")
    except BaseException:
        state.down(lab)
        raise
    return lab


def _listeners(made: Assembled) -> list[dict[str, Any]]:
    found = []
    for _, pod in sorted(made.cluster.pods.items()):
        if pod.spec.node_name:
            name = made.namespace_of(pod)
            ports = [[p.protocol or "TCP", p.container_port] for c in pod.spec.containers for p in c.ports or ()]
            found.append({"name": f"pod/{pod.namespace}/{pod.name}", "netns": netns(name), "ports": ports})
    return found


def speaks_sctp(made: Assembled) -> bool:
    return any(protocol == "SCTP" for one in _listeners(made) for protocol, _ in one["ports"])


def _build(lab: state.Lab, blueprint: Plan, listeners: list[dict[str, Any]]) -> int:
    forwarders = [one for name, held in blueprint.namespaces.items() for one in udp_forwarder.wanted(netns(name), held)]
    acts: dict[str, Callable[[], None]] = {
        "namespaces": lambda: _namespaces(blueprint),
        "sysctls": lambda: _sysctls(blueprint, late=False),
        "rules": lambda: _rules(blueprint.namespaces.values()),
        "links": lambda: _send(blueprint, "links"),
        "addresses": lambda: _configure(blueprint),
        "forwarders": lambda: _process("udp_forwarder", lab, forwarders),
        "listeners": lambda: _process("listeners", lab, listeners),
        "ready": lambda: None,
    }
    for step in STEPS[1:]:
        lab.write(step, "intent")
        acts[step]()
        lab.write(step, "done")
    return 0


def tool(words: list[str], given: str = "") -> None:
    """PrivilegeError with the tool's own words if it fails: the kernel lacks something, or the tool is missing."""
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise PrivilegeError(f"{words[0]} is not installed; `netsim lab doctor` says which package has it") from None
    if done.returncode:
        said = done.stderr.strip() or f"exit {done.returncode}"
        line = said.rpartition("Command failed -:")[2]
        if line.isdecimal():
            said += f" ({given.splitlines()[int(line) - 1]})"
        raise PrivilegeError(f"{' '.join(words)}: {said}; `netsim lab doctor` says what this machine can do")


def _namespaces(blueprint: Plan) -> None:
    tool(["ip", "-batch", "-"], "".join(f"netns add {netns(name)}\n" for name in blueprint.batches))


def _sysctls(blueprint: Plan, *, late: bool) -> None:
    """Those of single devices wait for their devices."""
    for name in blueprint.batches:
        with within(netns(name)):
            if name == UNDERLAY:
                values = {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv6.conf.default.disable_ipv6": "1"}
            else:
                values = {**LAB_SYSCTLS, **blueprint.namespaces[name].sysctls}
            for key, value in values.items():
                words = key.split(".")
                of_device = len(words) > 4 and words[2] in ("conf", "neigh") and words[3] not in ("all", "default")
                if of_device is late and key not in GLOBAL_SYSCTLS:
                    _write_sysctl(key, value)


def _write_sysctl(key: str, value: str) -> None:
    path = Path("/proc/sys", *key.split("."))
    try:
        path.write_text(value)
    except OSError as error:
        raise PrivilegeError(f"sysctl {key} cannot be set in a namespace of this kernel: {error.strerror}") from None


def _send(blueprint: Plan, part: str) -> None:
    for name, batch in blueprint.batches.items():
        requests: list[Request] = getattr(batch, part)
        if requests:
            with within(netns(name)), Netlink(name) as kernel:
                kernel.send(requests)


def _configure(blueprint: Plan) -> None:
    _send(blueprint, "rest")
    _sysctls(blueprint, late=True)


def _rules(namespaces: Iterable[Namespace]) -> None:
    """Every tool loads the text that ``netsim render`` prints. The namespaces are independent: all processors load."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loading = [pool.submit(_load, held) for held in namespaces if held.ipsets or held.rulesets]
        netlink.warm()
        for one in loading:
            one.result()


def _load(held: Namespace) -> None:
    """One namespace's rules, in the order in which they need each other: sets before the rules that look into them."""
    with within(netns(held.name)):
        for words, lines in _texts(held):
            text = "".join(line.rstrip("\n") + "\n" for line in lines)
            if text:
                tool(words, text)


def _texts(held: Namespace) -> Iterator[tuple[list[str], Iterable[str]]]:
    """(command, what it is to read) for each rule engine."""
    from netsim.linux import ipset
    from netsim.linux.netfilter.text import print_save

    if held.ipsets:
        yield ["ipset", "restore"], ipset.print_save(held.ipsets)
    for family, command in ((Family.IPV4, "iptables-restore"), (Family.IPV6, "ip6tables-restore")):
        ruleset = held.rulesets.get(family)
        if ruleset is not None:
            yield [command], print_save(ruleset)


def _process(module: str, lab: state.Lab, given: Any) -> None:
    """Start one of the lab's own processes and wait until it serves. It ends with the lab's pid namespace."""
    if not given:
        return
    with (lab.folder / f"{module}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"netsim.lab.{module}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, cwd="/",
            env={key: value for key, value in os.environ.items() if key != state.STOP_AT},
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        json.dump(given, process.stdin)
        process.stdin.close()
    if process.stdout.readline() != "ready\n":
        said = (lab.folder / f"{module}.log").read_text().strip().splitlines() or ["no answer"]
        raise PrivilegeError(f"the lab's {module} did not start: {said[-1]}")
    process.stdout.close()
    process.returncode = 0  # not waited for: it ends with the lab
