"""Tunnels on registers: the packet goes into the inner registers, and the tunnel's own takes its place; and back again.

VXLAN (``vxlan_core.c``), IPIP (``ip_tunnel.c``) and flanneld's process behind a TUN device, as in
``netsim.interpreter.tunnels``. A tunnel in a tunnel is left to the interpreter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from netsim.compiled import journey as jn
from netsim.compiled import registers as rg
from netsim.compiled import world as wd
from netsim.compiled.jit import Int, kernel
from netsim.compiled.places import ended, enter, fact
from netsim.compiled.tracking_kernels import bail, fault
from netsim.compiled.unit import unit

U = np.uint64
_LAST_COLUMN = rg.LENGTH + 1
_UDP_BYTES = 8
_VXLAN_BYTES = _UDP_BYTES + 8 + 14  # UDP, VXLAN and Ethernet headers
_IPIP, _UDP = 4, 17
_HAS_PORTS = 1 << rg.SPORT | 1 << rg.DPORT  # bits of the HAS register; columns that no packet lacks need none


@kernel
def _fnv(value: Int, byte: Int) -> Int:
    return ((value ^ byte) * 0x01000193) & 0xFFFFFFFF


@kernel
def _fnv_word(value: Int, word: Int) -> Int:
    for shift in (24, 16, 8, 0):
        value = _fnv(value, (word >> shift) & 0xFF)
    return value


@unit
def flow_port(e: Any, x: Any) -> Int:
    """``netsim.packet.flow.vxlan_source_port`` of the packet in the registers."""
    r = x.r
    value = np.int64(0x811C9DC5)
    for register in (rg.SRC, rg.DST):
        if r[rg.FAMILY] == 4:
            value = _fnv_word(value, np.int64(r[register]))
        else:
            for half in range(2):
                word = e.words[r[register], half]
                value = _fnv_word(value, np.int64(word >> U(32)))
                value = _fnv_word(value, np.int64(word & U(0xFFFFFFFF)))
    value = _fnv(value, np.int64(r[rg.PROTO]))
    if r[rg.HAS] >> rg.SPORT & 1:
        for register in (rg.SPORT, rg.DPORT):
            value = _fnv(value, np.int64(r[register]) >> 8)
            value = _fnv(value, np.int64(r[register]) & 0xFF)
    value ^= (value << 16) & 0xFFFFFFFF
    here = e.w.namespace[x.j[jn.NS]]
    low, high = np.int64(here["port_low"]), np.int64(here["port_high"])
    return low + np.int64((U(value) * U(high - low)) >> U(32))


@unit
def wrap(e: Any, x: Any, device: Int, src: Int, dst: Int, ports: Int, proto: Int, header: Int) -> Int:
    """The packet is inside now; around it is one of ``header`` more bytes, with a TTL of 64 and the same mark."""
    r, j = x.r, x.j
    row = e.w.device[device]
    for register in range(_LAST_COLUMN):
        x.inner[register] = r[register]
    x.inner[rg.HAS], x.inner[rg.FAMILY] = r[rg.HAS], r[rg.FAMILY]
    j[jn.DEPTH] = 1
    j[jn.OVERHEAD] = header
    j[jn.TUNNEL] = row["kind"]
    j[jn.TUNNEL_VNI], j[jn.TUNNEL_FRAME_TO] = row["vni"], j[jn.FRAME_TO]
    j[jn.INHERITED] = 0
    r[rg.SRC], r[rg.DST] = src, dst
    r[rg.SPORT], r[rg.DPORT] = ports >> 16, ports & 0xFFFF
    r[rg.PROTO], r[rg.TTL] = proto, 64
    r[rg.LENGTH] = np.int64(r[rg.LENGTH]) + header
    r[rg.TCP_FLAGS] = r[rg.ICMP_TYPE] = r[rg.ICMP_CODE] = 0
    r[rg.FAMILY] = row["family"]
    r[rg.HAS] = _HAS_PORTS if proto == _UDP else 0
    r[rg.IIF] = r[rg.OIF] = r[rg.PHYSIN] = r[rg.PHYSOUT] = 0
    j[jn.CT] = j[jn.UNTRACKED] = j[jn.ROUTED] = j[jn.BRIDGED] = j[jn.DEVICE_IN] = 0
    j[jn.ONLY_OIF] = row["under"]
    return jn.AT_LOCAL_OUT


@unit
def unwrap(e: Any, x: Any, device: Int) -> Int:
    """The packet inside comes in by the tunnel's device; the mark of the outer one stays."""
    r, j = x.r, x.j
    mark = r[rg.MARK]
    enter(x, j[jn.NS], device, np.int64(e.w.device[device]["name"]))
    for register in range(_LAST_COLUMN):
        r[register] = x.inner[register]
    r[rg.HAS], r[rg.FAMILY] = x.inner[rg.HAS], x.inner[rg.FAMILY]
    r[rg.MARK] = mark
    j[jn.DEPTH] = j[jn.OVERHEAD] = 0
    return jn.AT_RECEIVE


@kernel
def spend(x: Any, ttl: Int) -> None:
    """A TTL that began as the packet's own has come down to ``ttl``."""
    x.j[jn.SPENT] = max(x.j[jn.SPENT], x.j[jn.TTL_IN] - ttl)


# -- VXLAN -------------------------------------------------------------------------------------------------------------
@unit
def vxlan_out(e: Any, x: Any, device: Int) -> Int:
    """``vxlan_xmit``."""
    j = x.j
    row = e.w.device[device]
    if j[jn.FRAME_TO] == 0 or not row["flags"] & wd.HAS_LOCAL:
        return ended(bail(x, jn.R_TUNNEL))
    found = fact(e, wd.PEER, device, j[jn.FRAME_TO])
    if found == -1 and row["fdb_layer"] != 0:
        found = fact(e, wd.PEERS, np.int64(row["fdb_layer"]), j[jn.FRAME_TO])
    if found == -1 or found == wd.NOBODY:
        return ended(bail(x, jn.R_TUNNEL))
    ports = flow_port(e, x) << 16 | np.int64(row["port"])
    header = (40 if row["family"] == 6 else 20) + _VXLAN_BYTES
    return wrap(e, x, device, np.int64(row["local"]), found & 0xFFFFFFFF, ports, np.int64(_UDP), header)


@unit
def vxlan_in(e: Any, x: Any) -> Int:
    """``vxlan_rcv``: the device with its VNI takes it."""
    r, j = x.r, x.j
    here = e.w.namespace[j[jn.NS]]
    first = np.int64(here["tunnels"])
    for place in range(first, first + np.int64(here["tunnel_count"])):
        tunnel = e.w.tunnel[place]
        if (
            tunnel["kind"] == wd.VXLAN
            and tunnel["port"] == r[rg.DPORT]
            and tunnel["vni"] == j[jn.TUNNEL_VNI]
            and tunnel["family"] == r[rg.FAMILY]
        ):
            row = e.w.device[tunnel["device"]]
            if row["master"] != 0 or j[jn.TUNNEL_FRAME_TO] != row["mac"]:
                return ended(bail(x, jn.R_TUNNEL))
            return unwrap(e, x, np.int64(tunnel["device"]))
    return ended(bail(x, jn.R_TUNNEL))


# -- IPIP --------------------------------------------------------------------------------------------------------------
@unit
def ipip_out(e: Any, x: Any, device: Int) -> Int:
    """``ipip_tunnel_xmit``. Without a remote the next hop is it; a TTL of 0 stands for the packet's own."""
    r, j = x.r, x.j
    row = e.w.device[device]
    if r[rg.FAMILY] != 4 or not row["flags"] & wd.HAS_LOCAL:
        return ended(bail(x, jn.R_TUNNEL))
    remote = np.int64(row["remote"])
    if remote == 0:
        remote = j[jn.ROUTE_GATEWAY] if j[jn.ROUTED] and j[jn.ROUTE_GATEWAY] >= 0 else np.int64(r[rg.DST])
    ttl, own = np.int64(row["ttl"]), np.int64(r[rg.TTL])
    at = wrap(e, x, device, np.int64(row["local"]), remote, np.int64(0), np.int64(_IPIP), np.int64(20))
    r[rg.TTL] = ttl if ttl != 0 else own
    j[jn.INHERITED] = ttl == 0
    return at


@unit
def ipip_in(e: Any, x: Any) -> Int:
    """``ipip_rcv``: the device with the exact endpoints before one that takes any (``ip_tunnel_lookup``)."""
    r = x.r
    here = e.w.namespace[x.j[jn.NS]]
    best, most = np.int64(0), np.int64(-1)
    first = np.int64(here["tunnels"])
    for place in range(first, first + np.int64(here["tunnel_count"])):
        tunnel = e.w.tunnel[place]
        local, remote = np.int64(tunnel["local"]), np.int64(tunnel["remote"])
        fits = (local == 0 or local == r[rg.DST]) and (remote == 0 or remote == r[rg.SRC])
        score = (1 if local != 0 else 0) + (2 if remote != 0 else 0)
        if tunnel["kind"] == wd.IPIP and fits and score > most:
            best, most = np.int64(tunnel["device"]), np.int64(score)
    return unwrap(e, x, best) if best != 0 else ended(bail(x, jn.R_TUNNEL))


# -- flanneld behind TUN -----------------------------------------------------------------------------------------------
@unit
def tun_out(e: Any, x: Any, device: Int) -> Int:
    """flanneld reads the packet and sends it to whoever holds the lease: one TTL, and no mark."""
    r = x.r
    row = e.w.device[device]
    if r[rg.FAMILY] != 4 or row["port"] == 0 or r[rg.TTL] <= 1:
        return ended(bail(x, jn.R_TUNNEL))
    peer = fact(e, wd.LEASE, device, np.int64(r[rg.DST]))
    if peer == -1:
        return ended(fault(x, wd.LEASE, device, np.int64(r[rg.DST])))
    if peer == wd.NOBODY:
        return ended(bail(x, jn.R_TUNNEL))
    r[rg.TTL] -= np.uint32(1)
    spend(x, np.int64(r[rg.TTL]))
    r[rg.MARK] = 0
    port = np.int64(row["port"])
    header = np.int64(20 + _UDP_BYTES)
    return wrap(e, x, device, np.int64(row["local"]), peer & 0xFFFFFFFF, port << 16 | port, np.int64(_UDP), header)


@unit
def tun_in(e: Any, x: Any, device: Int) -> Int:
    """flanneld writes what a datagram holds into its TUN device: one more TTL."""
    if x.inner[rg.TTL] <= 1:
        return ended(bail(x, jn.R_TUNNEL))
    x.inner[rg.TTL] -= np.uint32(1)
    spend(x, np.int64(x.inner[rg.TTL]))
    x.r[rg.MARK] = 0
    return unwrap(e, x, device)
