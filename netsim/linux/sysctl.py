"""Sysctls that decide about packets: their kernel defaults, and how ``all``, ``default`` and a device combine.

Values are Linux 6.1/6.18 defaults of a fresh network namespace. A namespace stores only what differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping

# name → (default, meaning)
DEFAULTS: Mapping[str, tuple[str, str]] = {
    "net.ipv4.ip_forward": ("0", "forward IPv4 packets between devices"),
    "net.ipv6.conf.all.forwarding": ("0", "forward IPv6 packets between devices"),
    "net.ipv4.ip_default_ttl": ("64", "TTL of locally made IPv4 packets"),
    "net.ipv4.ip_forward_use_pmtu": ("0", "forwarding trusts learnt path MTUs"),
    "net.ipv4.ip_local_port_range": ("32768\t60999", "source ports that the kernel picks"),
    "net.ipv4.fib_multipath_hash_policy": ("0", "multipath hash: 0 addresses, 1 five-tuple"),
    "net.ipv4.conf.all.rp_filter": (
        "0",
        "reverse path filter: 0 off, 1 strict, 2 loose (the larger of all and device)",
    ),
    "net.ipv4.conf.all.route_localnet": ("0", "127.0.0.0/8 may be routed (all or device)"),
    "net.ipv4.conf.all.accept_local": ("0", "accept packets whose source is an own address (all or device)"),
    "net.ipv4.conf.all.src_valid_mark": ("0", "the reverse path look-up uses the packet's mark (all or device)"),
    "net.ipv4.conf.all.proxy_arp": ("0", "answer ARP for addresses that are routed elsewhere (all or device)"),
    "net.ipv4.conf.all.arp_ignore": ("0", "which ARP requests are answered (the larger of all and device)"),
    "net.ipv4.conf.all.arp_announce": ("0", "source address of ARP requests (the larger of all and device)"),
    "net.ipv4.conf.all.forwarding": ("0", "forward IPv4 packets that arrive on the device"),
    "net.bridge.bridge-nf-call-iptables": ("1", "bridged IPv4 frames pass iptables"),
    "net.bridge.bridge-nf-call-ip6tables": ("1", "bridged IPv6 frames pass ip6tables"),
    "net.netfilter.nf_conntrack_max": ("262144", "how many flows conntrack holds"),
    "net.netfilter.nf_conntrack_tcp_be_liberal": ("0", "out-of-window TCP segments are not INVALID"),
    "net.netfilter.nf_conntrack_tcp_loose": ("1", "a flow may be picked up in the middle"),
    "net.netfilter.nf_conntrack_tcp_timeout_syn_sent": ("120", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_syn_recv": ("60", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_established": ("432000", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_fin_wait": ("120", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait": ("60", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_last_ack": ("30", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": ("120", "seconds"),
    "net.netfilter.nf_conntrack_tcp_timeout_close": ("10", "seconds"),
    "net.netfilter.nf_conntrack_udp_timeout": ("30", "seconds, one direction seen"),
    "net.netfilter.nf_conntrack_udp_timeout_stream": ("120", "seconds, both directions seen for two seconds"),
    "net.netfilter.nf_conntrack_icmp_timeout": ("30", "seconds"),
    "net.netfilter.nf_conntrack_icmpv6_timeout": ("30", "seconds"),
    "net.netfilter.nf_conntrack_generic_timeout": ("600", "seconds"),
    "net.netfilter.nf_conntrack_sctp_timeout_established": ("210", "seconds"),
    "net.ipv4.vs.conntrack": ("0", "IPVS flows have conntrack entries"),
    "net.ipv4.vs.expire_nodest_conn": ("0", "forget IPVS flows whose server is gone"),
    "net.ipv4.vs.expire_quiescent_template": ("0", "forget persistence to servers of weight 0"),
    "net.ipv6.conf.all.disable_ipv6": ("0", "no IPv6 at all"),
}
# how "all" and the device's own value combine (linux/inetdevice.h: IN_DEV_MAXCONF, IN_DEV_ORCONF)
_LARGER = {"rp_filter", "arp_ignore", "arp_announce"}


class Sysctls:
    """Reading a namespace's sysctls with defaults filled in."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        if name in self._values:
            return self._values[name]
        return DEFAULTS[name][0] if name in DEFAULTS else "0"

    def number(self, name: str) -> int:
        return int(self.text(name).split()[0])

    def device(self, name: str, device: str | None) -> int:
        """The effective value of ``net.ipv4.conf.*.NAME`` on a device."""
        whole = self.number(f"net.ipv4.conf.all.{name}")
        own = 0
        if device is not None:
            key = f"net.ipv4.conf.{device}.{name}"
            own = int(self._values.get(key, self._values.get(f"net.ipv4.conf.default.{name}", "0")))
        return max(whole, own) if name in _LARGER else int(bool(whole or own))

    def ipv6_disabled(self, device: str) -> bool:
        """Setting ``all`` sets every device; a device's own value comes later and wins."""
        whole = self.text("net.ipv6.conf.all.disable_ipv6")
        return self._values.get(f"net.ipv6.conf.{device}.disable_ipv6", whole) != "0"

    def forwarding(self, version: int) -> bool:
        if version == 4:
            return bool(self.number("net.ipv4.ip_forward") or self.number("net.ipv4.conf.all.forwarding"))
        return bool(self.number("net.ipv6.conf.all.forwarding"))


def sysctl_lines(values: Mapping[str, str]) -> list[str]:
    """As ``sysctl -a`` prints them, sorted by name."""
    return [f"{name} = {values[name]}" for name in sorted(values)]
