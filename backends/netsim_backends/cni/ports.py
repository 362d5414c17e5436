"""portmap: host ports of pods as nat rules (containernetworking/plugins v1.9, plugins/meta/portmap, iptables backend).

    PREROUTING, OUTPUT ─ to a local address ─▶ CNI-HOSTPORT-DNAT ─▶ CNI-DN-… (one per pod) ─▶ SETMARK, DNAT
    POSTROUTING ─▶ CNI-HOSTPORT-MASQ: what SETMARK marked leaves with the address of the device

The mark is for packets that would come back around the translation: from the pod's own subnet and from 127.0.0.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netsim.errors import Source
from netsim.kube.objects import Container, Pod
from netsim.linux.builder import NamespaceBuilder
from netsim.linux.netfilter.text import rule
from netsim.packet.address import Family, IPInterface, endpoint, family_of, ip
from netsim_backends.cni.names import chain_name, comment, container_id, quoted

SETMARK, MASQ, DNAT = "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-DNAT"
_MARK = "0x2000/0x2000"
_PORTS_A_RULE = 15  # what -m multiport takes


@dataclass(frozen=True)
class PortMapping:
    host_port: int
    container_port: int
    protocol: str  # tcp, udp, sctp
    host_ip: str = ""


def mappings_of(pod: Pod) -> list[PortMapping]:
    """What the kubelet asks the runtime to map: the host ports of containers, then of sidecars, as they stand in the pod."""
    return [
        PortMapping(port.host_port, port.container_port, port.protocol.lower(), port.host_ip)
        for container in (*pod.spec.containers, *_sidecars(pod))
        for port in container.ports or ()
        if port.host_port > 0
    ]


def _sidecars(pod: Pod) -> Iterator[Container]:
    return (one for one in pod.spec.init_containers or () if one.restart_policy == "Always")


def map_ports(
    builder: NamespaceBuilder, network: str, pod: Pod, addresses: Iterable[IPInterface], route_device: str
) -> None:
    """Write the rules for one pod. ``route_device`` is where the node's route to the pod leads."""
    mappings = mappings_of(pod)
    if not mappings:
        return
    done: set[Family] = set()
    for address in addresses:
        family = family_of(address)
        if family not in done:
            done.add(family)
            _map_family(builder, family, network, pod, address, mappings)
    if Family.IPV4 in done:
        builder.sysctls[f"net.ipv4.conf.{route_device}.route_localnet"] = "1"


def _map_family(
    builder: NamespaceBuilder,
    family: Family,
    network: str,
    pod: Pod,
    address: IPInterface,
    mappings: Sequence[PortMapping],
) -> None:
    tables = builder.tables(family)
    container = container_id(pod)
    chain = chain_name(network, container, "DN-")
    because, source = f"host ports of Pod {pod.namespace}/{pod.name}", pod.source
    _shared_chains(builder, family, because, source)
    for line, why in _chain_rules(family, address, mappings):
        tables.ensure("nat", chain, rule(line, family, f"{because}, {why}", source))
    tables.chain("nat", chain)
    said = quoted(comment(network, container, "dnat "))
    for protocol, ports in _grouped(mappings):
        line = f"-p {protocol} -m comment --comment {said} -m multiport --dports {ports} -j {chain}"
        tables.ensure("nat", DNAT, rule(line, family, because, source))


def _shared_chains(builder: NamespaceBuilder, family: Family, because: str, source: Source | None) -> None:
    tables = builder.tables(family)
    masquerade = f'-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark {_MARK}'
    tables.ensure("nat", SETMARK, rule(masquerade, family, because, source))
    tables.ensure("nat", MASQ, rule(f"-m mark --mark {_MARK} -j MASQUERADE", family, because, source))
    entry = f'-m comment --comment "CNI portfwd requiring masquerade" -j {MASQ}'
    tables.ensure("nat", "POSTROUTING", rule(entry, family, because, source), prepend=True)
    tables.chain("nat", DNAT)
    for hook in ("PREROUTING", "OUTPUT"):
        tables.ensure("nat", hook, rule(f"-m addrtype --dst-type LOCAL -j {DNAT}", family, because, source))


def _chain_rules(family: Family, address: IPInterface, mappings: Sequence[PortMapping]) -> Iterator[tuple[str, str]]:
    for mapping in mappings:
        head = f"-p {mapping.protocol} -m {mapping.protocol} --dport {mapping.host_port}"
        if mapping.host_ip:
            host = ip(mapping.host_ip)
            if family_of(host) is not family:
                continue
            if not host.is_unspecified:
                head += f" -d {host}"
        why = f"{mapping.protocol} {mapping.host_port} -> {mapping.container_port}"
        # The whole subnet of the pod, not the pod alone: every pod of the node comes back to the node first.
        yield f"{head} -s {address.network} -j {SETMARK}", why
        if family is Family.IPV4:
            yield f"{head} -s 127.0.0.1 -j {SETMARK}", why
        yield f"{head} -j DNAT --to-destination {endpoint(address.ip, mapping.container_port)}", why


def _grouped(mappings: Sequence[PortMapping]) -> Iterator[tuple[str, str]]:
    """(protocol, at most 15 host ports): protocols by name, ports as given. Mappings of the other family count too."""
    for protocol in sorted({m.protocol for m in mappings}):
        ports = [str(m.host_port) for m in mappings if m.protocol == protocol]
        for at in range(0, len(ports), _PORTS_A_RULE):
            yield protocol, ",".join(ports[at : at + _PORTS_A_RULE])
