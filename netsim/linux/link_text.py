"""Devices and their addresses in the words of iproute2 6.1: ``ip -d link`` and ``ip addr``.

What a value does not hold is printed as a fresh device has it: one queue, group default, timers at zero. A veth end whose
peer is in another namespace shows ``@ifN`` and the number of that namespace; N is known when the network is at hand, else
it is that of the first device after lo, as in a pod.
"""

from __future__ import annotations

from netsim.linux.kernel_made import all_addresses, is_secondary, primaries
from netsim.linux.link import Link, LinkKind
from netsim.linux.network import Namespace, Network
from netsim.linux.route import Address

_TAIL = (
    "addrgenmode eui64 numtxqueues 1 numrxqueues 1 gso_max_size 65536 gso_max_segs 65535 "
    "tso_max_size {tso} tso_max_segs 65535 gro_max_size 65536 "
)
_BRIDGE = (
    "bridge forward_delay 1500 hello_time 200 max_age 2000 ageing_time 30000 stp_state 0 priority 32768 vlan_filtering 0 "
    "bridge_id {id} designated_root {id} root_port 0 root_path_cost 0 topology_change 0 topology_change_detected 0 "
    "hello_timer    0.00 tcn_timer    0.00 topology_change_timer    0.00 gc_timer    0.00 group_fwd_mask 0 "
    "group_address 01:80:c2:00:00:00 mcast_snooping 1 no_linklocal_learn 0 mcast_vlan_snooping 0 mcast_router 1 "
    "mcast_query_use_ifaddr 0 mcast_querier 0 mcast_hash_elasticity 16 mcast_hash_max 4096 mcast_last_member_count 2 "
    "mcast_startup_query_count 2 mcast_last_member_interval 100 mcast_membership_interval 26000 "
    "mcast_querier_interval 25500 mcast_query_interval 12500 mcast_query_response_interval 1000 "
    "mcast_startup_query_interval 3124 mcast_stats_enabled 0 mcast_igmp_version 2 mcast_mld_version 1 "
    "nf_call_iptables 0 nf_call_ip6tables 0 nf_call_arptables 0 "
)
_PORT = (
    "bridge_slave state {state} priority 32 cost 2 hairpin {hairpin} guard off root_block off fastleave off learning on "
    "flood on port_id {number:#x} port_no {index:#x} designated_port {number} designated_cost 0 designated_bridge {id} "
    "designated_root {id} hold_timer    0.00 message_age_timer    0.00 forward_delay_timer    0.00 "
    "topology_change_ack 0 config_pending 0 proxy_arp off proxy_arp_wifi off mcast_router 1 mcast_fast_leave off "
    "mcast_flood on bcast_flood on mcast_to_unicast off neigh_suppress off group_fwd_mask 0 group_fwd_mask_str 0x0 "
    "vlan_tunnel off isolated off locked off "
)
_ETHERNET = {LinkKind.PHYSICAL, LinkKind.VETH, LinkKind.BRIDGE, LinkKind.VXLAN, LinkKind.DUMMY}


def link_flags(link: Link) -> list[str]:
    """The flags of a device, in iproute2's order."""
    flags = {
        LinkKind.LOOPBACK: ["LOOPBACK"],
        LinkKind.TUN: ["POINTOPOINT", "MULTICAST"],
        LinkKind.IPIP: ["POINTOPOINT"] if link.tunnel is not None and link.tunnel.remote is not None else [],
        LinkKind.DUMMY: ["BROADCAST"],
    }.get(link.kind, ["BROADCAST", "MULTICAST"])
    if link.noarp or link.kind in (LinkKind.TUN, LinkKind.IPIP, LinkKind.DUMMY):
        flags = [*flags, "NOARP"]
    return [*flags, "UP", "LOWER_UP"] if link.up else flags


def operstate(link: Link) -> str:
    if not link.up:
        return "DOWN"
    return "UP" if link.kind in (LinkKind.PHYSICAL, LinkKind.VETH, LinkKind.BRIDGE) else "UNKNOWN"


def queueing(link: Link) -> str:
    """The queueing discipline a device starts with (fq_codel is systemd's default for real ones)."""
    if not link.up:
        return "noop"
    return {LinkKind.PHYSICAL: "fq_codel", LinkKind.TUN: "fq_codel"}.get(link.kind, "noqueue")


def queue_length(link: Link) -> int:
    return 500 if link.kind is LinkKind.TUN else 1000


class _Names:
    """How the devices of a namespace name each other."""

    def __init__(self, namespace: Namespace, network: Network | None) -> None:
        self.namespace = namespace
        self.links = {link.name: link for link in namespace.links}
        self.index = {link.name: index for index, link in enumerate(namespace.links, 1)}
        self._network = network
        away = (link.peer[0] for link in namespace.links if link.peer is not None and link.peer[0] != namespace.name)
        self._ids = {name: number for number, name in enumerate(dict.fromkeys(away))}

    def other(self, link: Link) -> str:
        """What follows the name: ``@peer``, ``@if2``, ``@NONE`` or nothing."""
        if link.kind is LinkKind.IPIP:
            return "@NONE"
        if link.peer is None:
            return ""
        where, device = link.peer
        if where == self.namespace.name:
            return f"@{device}"
        return f"@if{self.peer_index(link)}"

    def peer_index(self, link: Link) -> int:
        if link.peer is not None and self._network is not None:
            try:
                there = self._network.namespace(link.peer[0]).links
            except KeyError:
                return 2
            return next((index for index, far in enumerate(there, 1) if far.name == link.peer[1]), 2)
        return 2

    def namespace_id(self, link: Link) -> int | None:
        return self._ids.get(link.peer[0]) if link.peer is not None else None

    def head(self, link: Link, mode: str) -> str:
        master = f"master {link.master} " if link.master is not None else ""
        return (
            f"{self.index[link.name]}: {link.name}{self.other(link)}: <{','.join(link_flags(link))}> mtu {link.mtu} "
            f"qdisc {queueing(link)} {master}state {operstate(link)} {mode}group default qlen {queue_length(link)}"
        )

    def hardware(self, link: Link) -> str:
        text = f"    link/{link_type(link)} "
        if link.kind is LinkKind.IPIP:
            tunnel = link.tunnel
            local = tunnel.local if tunnel is not None and tunnel.local is not None else "0.0.0.0"
            remote = tunnel.remote if tunnel is not None else None
            text += f"{local} {'brd 0.0.0.0' if remote is None else f'peer {remote}'}"
        elif link.kind is not LinkKind.TUN:
            mac = link.mac or "00:00:00:00:00:00"
            text += f"{mac} brd {'00:00:00:00:00:00' if link.kind is LinkKind.LOOPBACK else 'ff:ff:ff:ff:ff:ff'}"
        number = self.namespace_id(link)
        return text if number is None else f"{text} link-netnsid {number}"


def link_type(link: Link) -> str:
    if link.kind in _ETHERNET:
        return "ether"
    return {LinkKind.LOOPBACK: "loopback", LinkKind.IPIP: "ipip"}.get(link.kind, "none")


def link_lines(namespace: Namespace, network: Network | None = None) -> list[str]:
    """``ip -d link``."""
    names = _Names(namespace, network)
    lines = []
    for link in namespace.links:
        lines.append(names.head(link, "mode DEFAULT "))
        lowest, highest = (0, 0) if link.kind in (LinkKind.LOOPBACK, LinkKind.IPIP) else (68, 65535)
        busy = 1 if link.master is not None else 0
        text = f"{names.hardware(link)} promiscuity {busy}  allmulti {busy} minmtu {lowest} maxmtu {highest} "
        kind = _kind_text(link)
        if kind:
            text += f"\n    {kind}"
        if link.master is not None:
            text += f"\n    {_port_text(link, names)}"
        text += _TAIL.format(tso=65536 if link.kind is LinkKind.TUN else 524280)
        lines += text.split("\n")
    return lines


def _bridge_id(mac: str | None) -> str:
    return "8000." + ":".join(f"{int(octet, 16):x}" for octet in (mac or "00:00:00:00:00:00").split(":"))


def _port_text(link: Link, names: _Names) -> str:
    ports = [other.name for other in names.namespace.links if other.master == link.master]
    index = ports.index(link.name) + 1
    bridge = names.links.get(link.master or "")
    return _PORT.format(
        state="forwarding" if link.up else "disabled",
        hairpin="on" if link.hairpin else "off",
        number=0x8000 | index,
        index=index,
        id=_bridge_id(bridge.mac if bridge is not None else None),
    )


def _kind_text(link: Link) -> str:
    match link.kind:
        case LinkKind.BRIDGE:
            return _BRIDGE.format(id=_bridge_id(link.mac))
        case LinkKind.VXLAN:
            return _vxlan_text(link)
        case LinkKind.IPIP:
            return _tunnel_text(link)
        case LinkKind.TUN:
            return "tun type tun pi off vnet_hdr off persist off "
        case LinkKind.VETH | LinkKind.DUMMY:
            return f"{link.kind} "
        case LinkKind.LOOPBACK | LinkKind.PHYSICAL:
            return ""


def _vxlan_text(link: Link) -> str:
    options = link.vxlan
    if options is None:
        return "vxlan "
    local = f"local {options.local} " if options.local is not None else ""
    device = f"dev {options.device} " if options.device is not None else ""
    return (
        f"vxlan id {options.vni} {local}{device}srcport 0 0 dstport {options.port} "
        f"{'' if options.learning else 'nolearning '}ttl auto ageing 300 "
        f"{'udpcsum' if options.udp_checksum else 'noudpcsum'} noudp6zerocsumtx noudp6zerocsumrx "
    )


def _tunnel_text(link: Link) -> str:
    options = link.tunnel
    if options is None:
        return "ipip ipip remote any local any ttl inherit nopmtudisc "
    return (
        f"ipip ipip remote {options.remote or 'any'} local {options.local or 'any'} ttl {options.ttl or 'inherit'} "
        f"{'' if options.pmtudisc else 'no'}pmtudisc "
    )


# -- addresses -------------------------------------------------------------------------------------------------------
def addr_lines(namespace: Namespace, network: Network | None = None) -> list[str]:
    """``ip addr``, with the addresses that the kernel adds by itself."""
    names = _Names(namespace, network)
    addresses, first = all_addresses(namespace), primaries(namespace.addresses)
    lines = []
    for link in namespace.links:
        lines += [names.head(link, ""), names.hardware(link)]
        for address in addresses[link.name]:
            lines += [
                address_text(address, is_secondary(address, first)),
                "       valid_lft forever preferred_lft forever",
            ]
    return lines


def address_text(address: Address, secondary: bool = False) -> str:
    """One address. IPv4 shows the broadcast address that every component sets, and its label, the device."""
    held = address.interface
    broadcast = f" brd {held.network.broadcast_address}" if has_broadcast(address) else ""
    words = "secondary " if secondary else ""
    words += "noprefixroute " if address.noprefixroute else ""
    words += address.device if held.version == 4 else ""
    return f"    inet{'' if held.version == 4 else '6'} {held}{broadcast} scope {address.scope} {words}"


def has_broadcast(address: Address) -> bool:
    held = address.interface
    return held.version == 4 and held.network.prefixlen < 31 and not held.ip.is_loopback
