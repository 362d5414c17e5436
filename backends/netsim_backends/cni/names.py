"""Names that CNI plugins derive from a pod: container id, host device, chain.

Real ids and device names are random. Here they are hashes of the pod, so that the same cluster always looks the same.
"""

from __future__ import annotations

import hashlib

from netsim.kube.objects import Pod

_MAX_CHAIN, _MAX_COMMENT = 28, 255


def container_id(pod: Pod) -> str:
    """64 hex digits, as container runtimes draw them: of the pod's UID, or of its name where it has none."""
    return hashlib.sha256((pod.metadata.uid or f"{pod.namespace}/{pod.name}").encode()).hexdigest()


def veth_name(pod: Pod) -> str:
    """The host end's name: ``veth`` and eight hex digits (plugins/pkg/ip RandomVethName)."""
    return "veth" + hashlib.sha256(f"veth {container_id(pod)}".encode()).hexdigest()[:8]


def chain_name(network: str, container: str, prefix: str = "") -> str:
    """A chain for one container (plugins/pkg/utils FormatChainName): a SHA-512, cut to iptables' 28 characters."""
    digest = hashlib.sha512((network + container).encode()).hexdigest()
    return f"CNI-{prefix}{digest}"[:_MAX_CHAIN]


def comment(network: str, container: str, prefix: str = "") -> str:
    """The comment on such a chain's entry rules, unquoted (FormatComment, portmap's chain comments)."""
    text = f'{prefix}name: "{network}" id: "{container}"'
    return text if len(text) <= _MAX_COMMENT else f"{text[: _MAX_COMMENT - 2]}..."


def quoted(text: str) -> str:
    """As an argument in iptables' own syntax."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
