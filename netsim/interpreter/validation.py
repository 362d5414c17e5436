"""Is the source of a packet from the wire believable? (``ip_route_input_slow``, ``fib_validate_source``, Linux 6.1 and 6.18)

before the route is looked up    martian: addresses that no packet on a wire has
after it, if there is a route    validate_source: own addresses, rp_filter, sources that are no hosts
"""

from __future__ import annotations

from netsim.interpreter.scene import Scene
from netsim.linux.link import LinkKind
from netsim.linux.route import RouteType
from netsim.packet.address import Family, IPAddress, ip

_ALL_ONES = ip("255.255.255.255")
_DEFAULT_PRIORITIES = {0, 32766, 32767}


def martian(scene: Scene, src: IPAddress, dst: IPAddress, iif: str) -> str | None:
    """Why the packet is discarded before any look-up; None if it is not."""
    link = scene.link(iif)
    if link is not None and link.kind is LinkKind.LOOPBACK:
        return None
    if src.is_multicast:
        return f"martian source {src}: a multicast address"
    if src.version == 6:
        if src.is_loopback or dst.is_loopback:
            return f"martian {src} -> {dst}: ::1 never arrives on a device"
        return None
    if src == _ALL_ONES:
        return f"martian source {src}: the broadcast address"
    if dst == _ALL_ONES or (src.is_unspecified and dst.is_unspecified):
        return None
    if src.is_unspecified or dst.is_unspecified:
        return f"martian {src} -> {dst}: 0.0.0.0 is nobody's address"
    if not scene.sysctls.device("route_localnet", iif):
        if dst.is_loopback:
            return f"martian destination {dst}: 127.0.0.0/8 is not routed (route_localnet=0)"
        if src.is_loopback:
            return f"martian source {src}: 127.0.0.0/8 is not routed (route_localnet=0)"
    return None


def validate_source(
    scene: Scene, src: IPAddress, dst: IPAddress, iif: str, *, oif: str | None = None, mark: int = 0
) -> str | None:
    """Why the source is not believed; None if it is. ``oif``: the device that the packet is forwarded to.

    Without rp_filter only own addresses are refused, unless policy rules make the kernel look the source up all the same."""
    if src.version == 6 or src.is_unspecified:
        return None
    sysctls, fib = scene.sysctls, scene.fib
    mode = sysctls.device("rp_filter", iif)
    own_allowed = bool(sysctls.device("accept_local", iif))
    if not mode:
        if own_allowed:
            return None
        if not _custom_rules(scene):
            if src in fib.local:
                return f"martian source {src}: an address of this node (accept_local=0)"
            return None
    use = mark if sysctls.device("src_valid_mark", iif) else 0
    found = fib.lookup(src, src=dst, iif=oif, mark=use)
    if not found.ok:
        return f"rp_filter={mode} on {iif}: no route back to {src}" if mode else None
    if found.type is RouteType.LOCAL and not own_allowed:
        return f"martian source {src}: an address of this node (accept_local=0)"
    if found.type not in (RouteType.UNICAST, RouteType.LOCAL):
        return f"martian source {src}: it is {found.type} here"
    if iif in {hop.device for hop in found.alternatives}:
        return None
    has_address = any(a.interface.version == 4 for a in fib.addresses_of(iif))
    if mode == 1 or (mode and not has_address):
        return f"rp_filter={mode} on {iif}: the route back to {src} leaves by {found.device}"
    return None


def _custom_rules(scene: Scene) -> bool:
    """``fib4_has_custom_rules``"""
    return any(
        rule.priority not in _DEFAULT_PRIORITIES and not (rule.family is not None and rule.family is Family.IPV6)
        for rule in scene.namespace.rules
    )
