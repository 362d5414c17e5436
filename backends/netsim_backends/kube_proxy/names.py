"""The names kube-proxy gives things: service ports, and the iptables chains made for them.

A chain name must fit the kernel's 28 characters, so it carries a hash of the service port (or of one of its endpoints)
instead of the name itself: the first 16 base32 characters of a SHA-256 (kubernetes pkg/proxy/iptables, 1.28 to 1.35).
"""

from __future__ import annotations

from base64 import b32encode
from functools import lru_cache
from hashlib import sha256

SERVICE = "KUBE-SVC-"  # endpoints chosen by the Cluster policy
LOCAL = "KUBE-SVL-"  # endpoints chosen by the Local policy
EXTERNAL = "KUBE-EXT-"  # entry of traffic to node ports, load-balancer and external addresses
FIREWALL = "KUBE-FW-"  # loadBalancerSourceRanges
ENDPOINT = "KUBE-SEP-"


def service_port_name(namespace: str, service: str, port: str) -> str:
    """``shop/cart:http``; without a colon when the port has no name."""
    return f"{namespace}/{service}:{port}" if port else f"{namespace}/{service}"


def hash16(text: str) -> str:
    return b32encode(sha256(text.encode()).digest()[:10]).decode()


def service_hash(service_port: str, protocol: str) -> str:
    """``protocol`` in lower case; nothing separates the two."""
    return hash16(service_port + protocol)


@lru_cache(maxsize=1 << 17)  # asked for by the chain that jumps there, by the chain itself and by the list of all
def endpoint_chain(service_port: str, protocol: str, endpoint: str) -> str:
    """``endpoint`` is ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    return ENDPOINT + hash16(service_port + protocol + endpoint)
