"""Protocol names as iptables prints and reads them: its own short list first, then Debian's ``/etc/protocols``."""

from __future__ import annotations

_NAMES = """
icmp:1 igmp:2 ggp:3 ipencap:4 st:5 tcp:6 egp:8 igp:9 pup:12 udp:17 hmp:20 xns-idp:22 rdp:27 iso-tp4:29 dccp:33
xtp:36 ddp:37 idpr-cmtp:38 ipv6:41 ipv6-route:43 ipv6-frag:44 idrp:45 rsvp:46 gre:47 esp:50 ah:51 skip:57
ipv6-icmp:58 ipv6-nonxt:59 ipv6-opts:60 rspf:73 vmtp:81 eigrp:88 ospf:89 ax.25:93 ipip:94 etherip:97 encap:98
pim:103 ipcomp:108 vrrp:112 l2tp:115 isis:124 sctp:132 fc:133 ipv6-mh:135 udplite:136 mpls-in-ip:137 manet:138
hip:139 shim6:140 wesp:141 rohc:142 ethernet:143 mptcp:262
"""
NAME: dict[int, str] = {int(number): name for name, _, number in (item.partition(":") for item in _NAMES.split())}
NUMBER: dict[str, int] = {name: number for number, name in NAME.items()} | {"icmpv6": 58, "mobility-header": 135}


def protocol_text(number: int) -> str:
    return NAME.get(number) or str(number)


def protocol_number(text: str) -> int:
    """The protocol called ``text`` (any case), or written as a number; 0 is ``all``. ValueError if there is none."""
    name = text.lower()
    if name == "all":
        return 0
    known = NUMBER.get(name)
    if known is not None:
        return known
    number = int(name, 0)
    if not 0 <= number <= 255:
        raise ValueError(text)
    return number
