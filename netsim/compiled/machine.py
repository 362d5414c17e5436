"""The slow path: one packet's way through namespaces, hooks, routes, bridges and tunnels, on registers.

    AT_LOCAL_OUT ─▶ AT_OUTPUT ─▶ AT_FINISH ─▶ AT_TRANSMIT ─▶ AT_ARRIVE ─▶ AT_BRIDGE_IN ─▶ AT_RECEIVE ─▶ AT_ROUTED ─┐
         ▲              ▲            │ lo            │ vxlan       (next namespace)                 ▲             │   │
         │              │            └───────────────┼─────────────────────────────────────────────┘             │   │
         └──────────────┼────────────────────────────┘ the tunnel's packet is made here              forward ◀────┘   │
                        └─────────────────────────────────────────────────────────────────────────────────┘           │
                                                             deliver, or unwrap and AT_RECEIVE again ◀────────────────┘

Each place is the function of the same name in ``netsim.interpreter`` (ingress, egress, bridge, tunnels), which says what of
Linux it models; here are only the ways that end well or in a rule's DROP. Everything else, an ICMP error to send, a packet
to cut, a name nobody answers to, is given to the interpreter (``bail``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled import world as wd
from netsim.compiled.fib_kernels import forwarding, multicast, wide
from netsim.compiled.fib_tables import (
    BLACKHOLE,
    LOCAL,
    NO_ROUTE,
    OUT_DEVICE,
    OUT_GATEWAY,
    OUT_MTU,
    PROHIBIT,
    UNICAST,
    UNREACHABLE,
)
from netsim.compiled.hook_kernels import FORWARD, INPUT, OUTPUT, POSTROUTING, PREROUTING, reroute, run_hook
from netsim.compiled.jit import Int, kernel
from netsim.compiled.places import device_at, ended, enter, fact
from netsim.compiled.told_table import told_place
from netsim.compiled.tracking_kernels import bail, fault
from netsim.compiled.tunnel_kernels import ipip_in, ipip_out, spend, tun_in, tun_out, vxlan_in, vxlan_out
from netsim.compiled.unit import unit
from netsim.compiled.units import fib_lookup, martian, validate_source

U = np.uint64
_ERROR_BURST, _ERROR_COST = 5000, 1000  # ms: ``replies.tells``


@kernel
def _fits(x: Any, mtu: Int) -> Int:
    """Does the packet pass a device of this MTU? Remembers the narrowest."""
    room = np.int64(mtu) - x.j[jn.OVERHEAD]
    x.j[jn.LONGEST] = min(x.j[jn.LONGEST], room)
    return np.int64(x.r[rg.LENGTH]) <= np.int64(mtu)


@kernel
def _route_fits(e: Any, x: Any, device: Int) -> Int:
    mtu: Int = np.int64(e.w.device[device]["mtu"])
    if e.w.device[device]["kind"] == wd.LOOPBACK:
        mtu = max(mtu, 65536)
    if x.j[jn.ROUTE_MTU] != 0:
        mtu = min(mtu, x.j[jn.ROUTE_MTU])
    return _fits(x, mtu)


@unit
def neighbour(e: Any, x: Any, device: Int) -> Int:
    """MAC number of the next hop; minus what ``bail`` or ``fault`` say if it is not known."""
    row = e.w.device[device]
    hop = x.j[jn.ROUTE_GATEWAY] if x.j[jn.ROUTE_GATEWAY] >= 0 else np.int64(x.r[rg.DST])
    six = 1 if x.r[rg.FAMILY] == 6 else 0
    found = fact(e, wd.NEIGHBOUR4 + six, device, hop)
    if found == -1 and row["neighbour_layer"] != 0:
        found = fact(e, wd.NEIGHBOURS4 + six, np.int64(row["neighbour_layer"]), hop)
    if found == -1 and row["segment"] != 0:
        found = fact(e, wd.RESOLVED4 + six, np.int64(row["segment"]), hop)
    if found == -1 and row["kind"] != wd.VXLAN:
        return -fault(x, wd.NEIGHBOUR4 + six, device, hop)
    if found <= 0:
        return -bail(x, jn.R_NEIGHBOUR)
    return found


# -- out ---------------------------------------------------------------------------------------------------------------
@unit
def local_out(e: Any, x: Any) -> Int:
    r, j = x.r, x.j
    if e.w.namespace[j[jn.NS]]["flags"] & wd.SEALED:
        return ended(bail(x, jn.R_MTU))
    end = reroute(e, x)
    if end:
        return ended(end)
    device = device_at(e, j[jn.NS], np.int64(r[rg.OIF]))
    if device == 0:
        return ended(bail(x, jn.R_DEVICE))
    if not _route_fits(e, x, device):
        return ended(bail(x, jn.R_MTU))
    end = run_hook(e, x, OUTPUT)
    if end:
        return ended(end)
    r[rg.OIF] = e.f.lo if j[jn.ROUTE_TYPE] == LOCAL else j[jn.ROUTE_DEVICE]  # rules may have changed the route
    return jn.AT_OUTPUT


@unit
def output(e: Any, x: Any) -> Int:
    x.r[rg.IIF] = 0
    end = run_hook(e, x, POSTROUTING)
    return ended(end) if end else jn.AT_FINISH


@unit
def finish(e: Any, x: Any) -> Int:
    """``ip_finish_output``: round by lo, or to the next hop's MAC address."""
    r, j = x.r, x.j
    device = device_at(e, j[jn.NS], np.int64(r[rg.OIF]))
    if device == 0:
        return ended(bail(x, jn.R_DEVICE))
    row = e.w.device[device]
    if row["kind"] == wd.LOOPBACK:
        r[rg.IIF] = r[rg.OIF]
        r[rg.OIF] = 0
        j[jn.DEVICE_IN] = device
        j[jn.BRIDGED] = 0
        return jn.AT_RECEIVE
    if not _route_fits(e, x, device):
        return ended(bail(x, jn.R_MTU))
    if not row["flags"] & wd.UP:
        return ended(bail(x, jn.R_DEVICE))
    j[jn.DEVICE_OUT] = device
    j[jn.FRAME_TO] = 0
    if row["flags"] & wd.FRAMED and not row["flags"] & wd.NOARP:
        mac = neighbour(e, x, device)
        if mac < 0:
            return ended(-mac)
        j[jn.FRAME_TO] = mac
    return jn.AT_TRANSMIT


@unit
def transmit(e: Any, x: Any) -> Int:
    """``dev_queue_xmit``: what the device does with the frame."""
    j = x.j
    device = j[jn.DEVICE_OUT]
    row = e.w.device[device]
    if not row["flags"] & wd.UP:
        return ended(bail(x, jn.R_DEVICE))
    kind = row["kind"]
    if kind == wd.VETH:
        if not row["flags"] & wd.HAS_PEER:
            return ended(bail(x, jn.R_DEVICE))
        peer_ns = np.int64(row["peer_ns"])
        if not e.w.namespace[peer_ns]["flags"] & wd.PRESENT:
            return ended(fault(x, jn.FAULT_NAMESPACE_WANTED, peer_ns, 0))
        far = device_at(e, peer_ns, np.int64(row["peer_name"]))
        if far == 0:
            return ended(bail(x, jn.R_DEVICE))
        j[jn.DEVICE_IN] = far
        return jn.AT_ARRIVE
    if kind == wd.PHYSICAL:
        if row["segment"] == 0 or j[jn.FRAME_TO] == 0:
            return ended(bail(x, jn.R_DEVICE))
        if not _fits(x, np.int64(row["segment_mtu"])):
            return ended(bail(x, jn.R_MTU))
        far = fact(e, wd.STATION, np.int64(row["segment"]), j[jn.FRAME_TO])
        if far == -1:
            return ended(fault(x, wd.STATION, np.int64(row["segment"]), j[jn.FRAME_TO]))
        if far <= 0:
            return ended(bail(x, jn.R_NEIGHBOUR))
        j[jn.DEVICE_IN] = far
        return jn.AT_ARRIVE
    if kind == wd.BRIDGE:
        port = fact(e, wd.PORT, device, j[jn.FRAME_TO])
        if port == -1:
            return ended(fault(x, wd.PORT, device, j[jn.FRAME_TO]))
        if port <= 0:
            return ended(bail(x, jn.R_FLOOD))
        return _bridge_leave(e, x, port)
    if j[jn.DEPTH] == 0:
        if kind == wd.VXLAN:
            return vxlan_out(e, x, device)
        if kind == wd.IPIP:
            return ipip_out(e, x, device)
        if kind == wd.TUN:
            return tun_out(e, x, device)
    return ended(bail(x, jn.R_TUNNEL))


# -- in ----------------------------------------------------------------------------------------------------------------
@kernel
def _been_here(x: Any, device: Int) -> Int:
    """Has the same packet come in by the same device before? Remembers this arrival."""
    r, j = x.r, x.j
    count = j[jn.ARRIVALS]
    for place in range(count):
        row = x.arrivals[place]
        if (
            row[0] == device
            and row[1] == r[rg.SRC]
            and row[2] == r[rg.DST]
            and row[3] == r[rg.SPORT]
            and row[4] == r[rg.DPORT]
            and row[5] == r[rg.PROTO]
        ):
            return True
    if count >= jn.ARRIVAL_ROOM:
        return True
    row = x.arrivals[count]
    row[0] = device
    row[1] = r[rg.SRC]
    row[2] = r[rg.DST]
    row[3] = r[rg.SPORT]
    row[4] = r[rg.DPORT]
    row[5] = r[rg.PROTO]
    j[jn.ARRIVALS] = count + 1
    return False


@unit
def arrive(e: Any, x: Any) -> Int:
    j = x.j
    device = j[jn.DEVICE_IN]
    row = e.w.device[device]
    ns = np.int64(row["ns"])
    enter(x, ns, device, np.int64(row["name"]))
    if not row["flags"] & wd.UP:
        return ended(bail(x, jn.R_DEVICE))
    if row["kind"] == wd.VETH and not _fits(x, np.int64(row["mtu"]) + 4):
        return ended(bail(x, jn.R_MTU))
    if _been_here(x, device):
        return ended(bail(x, jn.R_LOOP))
    if e.w.namespace[ns]["flags"] & wd.OUTSIDE:
        j[jn.VERDICT] = jn.LEFT
        j[jn.RECEIVER] = ns
        return jn.AT_END
    framed = j[jn.FRAME_TO] != 0
    if row["master"] != 0 and framed:
        return jn.AT_BRIDGE_IN
    if framed and row["flags"] & wd.FRAMED and j[jn.FRAME_TO] != row["mac"]:
        return ended(bail(x, jn.R_HOST))
    return jn.AT_RECEIVE


@unit
def receive(e: Any, x: Any) -> Int:
    r, j = x.r, x.j
    if r[rg.FAMILY] == 6:
        src, dst = np.int64(r[rg.SRC]), np.int64(r[rg.DST])
        if martian(e.f, e.words, j[jn.NS], np.int64(6), src, dst, np.int64(r[rg.IIF]), x.out):
            return ended(bail(x, jn.R_SOURCE))
    end = run_hook(e, x, PREROUTING)
    return ended(end) if end else jn.AT_ROUTED


@kernel
def _unreachable(e: Any, x: Any, kind: Int) -> Int:
    """``ip_error``: no route takes it. ENDED if its sender is not told of it: nobody is where nothing is forwarded, nor who
    was told too often (``told_table``). An error is the interpreter's to send."""
    r, j = x.r, x.j
    ns = j[jn.NS]
    refused = kind == NO_ROUTE or kind == BLACKHOLE or kind == UNREACHABLE or kind == PROHIBIT
    if r[rg.FAMILY] == 6 or j[jn.DEPTH] != 0 or not refused:
        return bail(x, jn.R_ROUTE)
    if kind != BLACKHOLE and forwarding(e.f, ns, np.int64(4)):
        place = told_place(e.told, ns, np.int64(r[rg.SRC]))
        row = e.told[place]
        allowance = min(_ERROR_BURST, np.int64(row["allowance"]) + j[jn.NOW] - np.int64(row["when"]))
        if row["key"] == U(0) or allowance >= _ERROR_COST:
            return bail(x, jn.R_ROUTE)
        x.told[0], x.told[1] = np.int64(place) + 1, allowance
    j[jn.VERDICT] = jn.UNREACHABLE
    j[jn.DECIDED] = 0
    return 1


@unit
def route_input(e: Any, x: Any) -> Int:
    """``ip_route_input_slow``: GO_ON with the route in ``j``."""
    r, j = x.r, x.j
    ns, family = j[jn.NS], np.int64(r[rg.FAMILY])
    src, dst, iif = np.int64(r[rg.SRC]), np.int64(r[rg.DST]), np.int64(r[rg.IIF])
    mark = np.int64(r[rg.MARK])
    if martian(e.f, e.words, ns, family, src, dst, iif, x.out):
        return bail(x, jn.R_SOURCE)
    kind = fib_lookup(e.f, e.words, ns, family, dst, src, iif, np.int64(0), mark, np.int64(1), x.out)
    if kind == -rg.FAULT:
        return fault(x, jn.FAULT_FIB, x.out[0], x.out[1])
    high, _ = wide(e.words, family, dst)
    if multicast(family, high):
        return bail(x, jn.R_ROUTE)  # it is not routed, whatever routes say
    if kind != UNICAST and kind != LOCAL:
        return _unreachable(e, x, kind)
    device, gateway, mtu = x.out[OUT_DEVICE], x.out[OUT_GATEWAY], x.out[OUT_MTU]
    if kind == UNICAST and not forwarding(e.f, ns, family):
        return bail(x, jn.R_ROUTE)
    oif = device if kind == UNICAST else np.int64(0)
    if validate_source(e.f, e.words, ns, family, src, dst, iif, oif, mark, x.out):
        return bail(x, jn.R_SOURCE)
    j[jn.ROUTED] = 1
    j[jn.ROUTE_TYPE] = kind
    j[jn.ROUTE_DEVICE] = device
    j[jn.ROUTE_GATEWAY] = gateway
    j[jn.ROUTE_MTU] = mtu
    return 0


@unit
def routed(e: Any, x: Any) -> Int:
    if x.j[jn.ROUTED] == 0:
        end = route_input(e, x)
        if end:
            return ended(end)
    if x.j[jn.ROUTE_TYPE] == LOCAL:
        return deliver(e, x)
    return forward(e, x)


@unit
def forward(e: Any, x: Any) -> Int:
    r, j = x.r, x.j
    if r[rg.FAMILY] == 6:
        src, dst = np.int64(r[rg.SRC]), np.int64(r[rg.DST])
        if _link_local(e, src) or _link_local(e, dst) or _unspecified_or_loopback(e, src):
            return ended(bail(x, jn.R_ROUTE))
    if r[rg.TTL] <= 1:
        return ended(bail(x, jn.R_TTL))
    if e.w.namespace[j[jn.NS]]["flags"] & wd.SEALED:
        return ended(bail(x, jn.R_MTU))
    device = device_at(e, j[jn.NS], j[jn.ROUTE_DEVICE])
    if device == 0:
        return ended(bail(x, jn.R_DEVICE))
    if not _route_fits(e, x, device):
        return ended(bail(x, jn.R_MTU))
    r[rg.TTL] -= np.uint32(1)
    if j[jn.DEPTH] == 0 or j[jn.INHERITED]:
        spend(x, np.int64(r[rg.TTL]))
    r[rg.OIF] = j[jn.ROUTE_DEVICE]
    end = run_hook(e, x, FORWARD)
    return ended(end) if end else jn.AT_OUTPUT


@kernel
def _unspecified_or_loopback(e: Any, handle: Int) -> Int:
    return e.words[handle, 0] == U(0) and e.words[handle, 1] <= U(1)


@kernel
def _link_local(e: Any, handle: Int) -> Int:
    return e.words[handle, 0] >> U(54) == U(0x3FA)


@unit
def deliver(e: Any, x: Any) -> Int:
    """``ip_local_deliver``: INPUT, then the tunnel, or the process."""
    r, j = x.r, x.j
    r[rg.OIF] = 0
    end = run_hook(e, x, INPUT)
    if end:
        return ended(end)
    here = e.w.namespace[j[jn.NS]]
    first = np.int64(here["tunnels"])
    for place in range(first, first + np.int64(here["tunnel_count"])):
        row = e.w.tunnel[place]
        if row["kind"] == wd.IPIP:
            if r[rg.PROTO] == 4 and r[rg.FAMILY] == 4:
                if j[jn.DEPTH] == 0 or j[jn.TUNNEL] != wd.IPIP:
                    return ended(bail(x, jn.R_TUNNEL))
                return ipip_in(e, x)
        elif r[rg.PROTO] == 17 and row["port"] == r[rg.DPORT] and row["family"] == r[rg.FAMILY]:
            if row["kind"] == wd.TUN and row["local"] != r[rg.DST]:
                continue
            if j[jn.DEPTH] == 0 or j[jn.TUNNEL] != row["kind"]:
                return ended(bail(x, jn.R_TUNNEL))
            return vxlan_in(e, x) if row["kind"] == wd.VXLAN else tun_in(e, x, np.int64(row["device"]))
    if j[jn.DEPTH] != 0:
        return ended(bail(x, jn.R_TUNNEL))
    j[jn.VERDICT] = jn.DELIVERED
    j[jn.RECEIVER] = j[jn.NS]
    return jn.AT_END


# -- bridges -----------------------------------------------------------------------------------------------------------
@kernel
def _calls_iptables(e: Any, x: Any) -> Int:
    wanted = wd.BRIDGE_NF6 if x.r[rg.FAMILY] == 6 else wd.BRIDGE_NF4
    return e.w.namespace[x.j[jn.NS]]["flags"] & wanted != 0


@unit
def bridge_in(e: Any, x: Any) -> Int:
    """``br_handle_frame``: PREROUTING if br_netfilter is on, then up to the host or on to a port."""
    r, j = x.r, x.j
    port = j[jn.DEVICE_IN]
    bridge = np.int64(e.w.device[port]["master"]) - 1
    row = e.w.device[bridge]
    if not row["flags"] & wd.UP:
        return ended(bail(x, jn.R_DEVICE))
    r[rg.IIF] = row["name"]
    if _calls_iptables(e, x):
        r[rg.PHYSIN] = e.w.device[port]["name"]
        j[jn.BRIDGED] = 1
        destination = r[rg.DST]
        end = run_hook(e, x, PREROUTING)
        if end == 0 and r[rg.DST] != destination:
            end = _redirect(e, x, bridge)
        if end:
            return ended(end)
    found = fact(e, wd.PORT, bridge, j[jn.FRAME_TO])
    if found == -1:
        return ended(fault(x, wd.PORT, bridge, j[jn.FRAME_TO]))
    if found == wd.BRIDGE_UP:
        return jn.AT_ROUTED if j[jn.BRIDGED] else jn.AT_RECEIVE
    if found <= 0 or (found == port and not e.w.device[port]["flags"] & wd.HAIRPIN):
        return ended(bail(x, jn.R_FLOOD))
    if _calls_iptables(e, x):
        r[rg.OIF] = row["name"]
        r[rg.PHYSOUT] = e.w.device[found]["name"]
        end = run_hook(e, x, FORWARD)
        if end:
            return ended(end)
        r[rg.IIF] = 0
        end = run_hook(e, x, POSTROUTING)
        if end:
            return ended(end)
    return _bridge_leave(e, x, found)


@kernel
def _redirect(e: Any, x: Any, bridge: Int) -> Int:
    """``br_nf_pre_routing_finish``: where a translated frame goes now."""
    j = x.j
    end = route_input(e, x)
    if end:
        return bail(x, jn.R_ROUTE) if end == 1 else end  # the bridge asks in another way once more
    row = e.w.device[bridge]
    if j[jn.ROUTE_TYPE] == UNICAST and j[jn.ROUTE_DEVICE] == row["name"]:
        mac = neighbour(e, x, bridge)
        if mac < 0:
            return -mac
        j[jn.FRAME_TO] = mac
        j[jn.ROUTED] = 0  # it stays a frame
    else:
        j[jn.FRAME_TO] = row["mac"]
    return 0


@kernel
def _bridge_leave(e: Any, x: Any, port: Int) -> Int:
    if not _fits(x, np.int64(e.w.device[port]["mtu"])):
        return ended(bail(x, jn.R_MTU))
    x.j[jn.DEVICE_OUT] = port
    return jn.AT_TRANSMIT


@unit
def run(e: Any, x: Any, start: Int) -> Int:
    """Walk from ``start`` to AT_END, AT_BAIL or AT_FAULT; registers and ``j`` have been prepared (``prepare``)."""
    at = start
    for _ in range(256):
        if at == jn.AT_LOCAL_OUT:
            at = local_out(e, x)
        elif at == jn.AT_OUTPUT:
            at = output(e, x)
        elif at == jn.AT_FINISH:
            at = finish(e, x)
        elif at == jn.AT_TRANSMIT:
            at = transmit(e, x)
        elif at == jn.AT_ARRIVE:
            at = arrive(e, x)
        elif at == jn.AT_BRIDGE_IN:
            at = bridge_in(e, x)
        elif at == jn.AT_RECEIVE:
            at = receive(e, x)
        elif at == jn.AT_ROUTED:
            at = routed(e, x)
        else:
            return at
    bail(x, jn.R_LOOP)
    return jn.AT_BAIL
