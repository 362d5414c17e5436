"""Flow hashes where the kernel's are random per boot: deterministic here, constant for a flow.

The kernel's VXLAN source port is ``skb_get_hash`` of the inner packet, scaled into ``ip_local_port_range``; its key is
drawn at boot, so no emulator can reproduce the number. What can be kept is everything else: which fields enter (addresses,
protocol, ports; not the ICMP id; no ports for fragments), the folding and the range.
"""

from __future__ import annotations

from netsim.packet.model import Packet

LOCAL_PORTS = (32768, 60999)  # net.ipv4.ip_local_port_range


def flow_hash(packet: Packet) -> int:
    """32 bits of FNV-1a over the fields of ``__skb_flow_dissect``."""
    data = packet.src.packed + packet.dst.packed + bytes((packet.proto & 0xFF,))
    if not packet.is_fragment and packet.sport is not None and packet.dport is not None:
        data += packet.sport.to_bytes(2, "big") + packet.dport.to_bytes(2, "big")
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value


def vxlan_source_port(inner: Packet, ports: tuple[int, int] = LOCAL_PORTS) -> int:
    """udp_flow_src_port (Linux 6.1): ``low + ((hash ^ hash << 16) * (high - low) >> 32)``."""
    low, high = ports
    value = flow_hash(inner)
    value ^= (value << 16) & 0xFFFFFFFF
    return low + ((value * (high - low)) >> 32)
