"""The parts of a place's name, before anything is looked up: kind, namespace, name, address and port."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from netsim.errors import UsageError
from netsim.packet.address import IPAddress, ip

EXTERNAL = "external"
# what kubectl accepts for each kind
KINDS = {
    alias: kind
    for kind, aliases in {
        "Pod": "po pod pods",
        "Node": "no node nodes",
        "Service": "svc service services",
        "Deployment": "deploy deployment deployments deployment.apps",
        "StatefulSet": "sts statefulset statefulsets statefulset.apps",
        "DaemonSet": "ds daemonset daemonsets daemonset.apps",
        "ReplicaSet": "rs replicaset replicasets replicaset.apps",
        "ReplicationController": "rc replicationcontroller replicationcontrollers",
        "Job": "job jobs job.batch",
    }.items()
    for alias in aliases.split()
}
_URL_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "grpc": 80}
_PORT = re.compile(r"(?P<rest>.*?):(?P<port>[A-Za-z0-9-]*)", re.DOTALL)


@dataclass(frozen=True)
class Words:
    """``kind`` is a Kubernetes kind, "external", "address", or "" for a name that may be a pod's or a DNS name."""

    text: str
    kind: str
    namespace: str | None = None
    name: str = ""
    address: IPAddress | None = None
    port: str | None = None


def read(text: str) -> Words:
    """What ``text`` names; UsageError if it can be no place at all."""
    if not text or text != text.strip() or any(ord(sign) < 0x20 for sign in text):
        raise UsageError(f"{text!r} names no place: {HELP}")
    if "://" in text:
        return _url(text)
    if (bare := _address(text)) is not None:
        return Words(text, "address", address=bare)
    rest, port = text, None
    if text.startswith("["):
        inside, closed, after = text[1:].partition("]")
        address = _address(inside)
        if not closed or address is None or (after and not after.startswith(":")):
            raise UsageError(f"{text!r}: brackets hold an IPv6 address, as in [fd00::1]:80")
        return Words(text, "address", address=address, port=_checked(text, after[1:]) if after else None)
    if found := _PORT.fullmatch(text):
        rest, port = found["rest"], _checked(text, found["port"])
    if (address := _address(rest)) is not None:
        return Words(text, "address", address=address, port=port)
    if rest == EXTERNAL:
        return Words(text, EXTERNAL, port=port)
    return _named(text, rest, port)


def _named(text: str, rest: str, port: str | None) -> Words:
    parts = rest.split("/")
    if not all(parts) or len(parts) > 3 or ":" in rest:
        raise UsageError(f"{text!r} names no place: {HELP}")
    if len(parts) == 1:
        return Words(text, "", name=rest, port=port)
    kind = KINDS.get(parts[0].lower())
    if kind is None and len(parts) == 3:
        known = "pod, deploy, sts, ds, rs, rc, job, svc, node"
        raise UsageError(f"{text!r}: {parts[0]!r} is no kind that has a place in the network; there are {known}")
    if kind is None:
        return Words(text, "Pod", parts[0], parts[1], port=port)
    if kind == "Node" and len(parts) == 3:
        raise UsageError(f"{text!r}: a node has no namespace; write node/{parts[2]}")
    return Words(text, kind, parts[1] if len(parts) == 3 else None, parts[-1], port=port)


def _url(text: str) -> Words:
    try:
        url = urlsplit(text)
        port, host = url.port, url.hostname or ""
    except ValueError as error:
        raise UsageError(f"{text!r} is no URL: {error}") from None
    number = port or _URL_PORTS.get(url.scheme)
    if not host or number is None:
        raise UsageError(f"{text!r}: a URL is http://HOST[:PORT]/… or https://HOST[:PORT]/…")
    if (address := _address(host)) is not None:
        return Words(text, "address", address=address, port=str(number))
    return Words(text, "dns", name=host, port=str(number))


def _address(text: str) -> IPAddress | None:
    if "%" in text:
        raise UsageError(f"{text!r}: a zone index (%) means nothing outside its own host")
    try:
        return ip(text)
    except ValueError:
        return None


def _checked(text: str, port: str) -> str:
    if not port:
        raise UsageError(f"{text!r}: a port number or name is missing after the colon")
    if port.isdecimal() and not 1 <= int(port) <= 65535:
        raise UsageError(f"{text!r}: a port is between 1 and 65535")
    return port


HELP = (
    "a place is pod/NS/NAME, NS/NAME, deploy/NS/NAME, svc/NS/NAME:PORT, node/NAME, ADDRESS[:PORT], external, "
    "a DNS name or a URL"
)
