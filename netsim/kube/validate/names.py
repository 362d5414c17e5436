"""Names, labels, ports and addresses: each check returns what is wrong as the API server says it (1.33), or nothing.

Results are remembered: a dump says the same few thousand names and labels a million times. Lengths are bytes.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from netsim.packet.address import ip as read_ip

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_NAME})?"
_WILDCARD = rf"\*\.{_SUBDOMAIN}"
_PERCENT = "[0-9]+%"
_label, _subdomain, _label_1035, _name, _value, _wildcard, _percent = (
    re.compile(form, re.ASCII).fullmatch
    for form in (_LABEL, _SUBDOMAIN, _LABEL_1035, _NAME, _VALUE, _WILDCARD, _PERCENT)
)
Wrong = tuple[str, ...]


def _explain(text: str, form: str, *examples: str) -> str:
    """``text (e.g. 'a',  or 'b', regex used for validation is '…')``."""
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{form}')"


_LABEL_TEXT = _explain(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT = _explain(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_LABEL_1035_TEXT = _explain(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_WILDCARD_TEXT = _explain(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower "
    "case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD,
    "*.example.com",
)
_NAME_RULE = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
)
_NAME_TEXT = _explain(_NAME_RULE, _NAME, "MyName", "my.name", "123-abc")
_QUALIFIED_TEXT = (
    "a qualified name " + _NAME_TEXT + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
)
_VALUE_TEXT = _explain(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character",
    _VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_PERCENT_TEXT = _explain(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT, "1%", "93%"
)


def _longer(text: str, limit: int) -> Wrong:
    return (f"must be no more than {limit} bytes",) if len(text.encode()) > limit else ()


@lru_cache(maxsize=65536)
def label(text: str) -> Wrong:
    """DNS label, RFC 1123."""
    wrong = _longer(text, 63)
    if not _label(text):
        wrong += ("must not contain dots",) if _subdomain(text) else (_LABEL_TEXT,)
    return wrong


@lru_cache(maxsize=65536)
def subdomain(text: str) -> Wrong:
    return _longer(text, 253) + (() if _subdomain(text) else (_SUBDOMAIN_TEXT,))


@lru_cache(maxsize=65536)
def label_1035(text: str) -> Wrong:
    return _longer(text, 63) + (() if _label_1035(text) else (_LABEL_1035_TEXT,))


def wildcard(text: str) -> Wrong:
    return _longer(text, 253) + (() if _wildcard(text) else (_WILDCARD_TEXT,))


@lru_cache(maxsize=65536)
def qualified(text: str) -> Wrong:
    """[prefix/]name: keys of labels and annotations, taints, finalizers."""
    parts = text.split("/")
    if len(parts) > 2:
        return (_QUALIFIED_TEXT,)
    wrong: Wrong = ()
    if len(parts) == 2:
        prefix = parts[0]
        wrong = (
            tuple(f"prefix part {text}" for text in subdomain(prefix)) if prefix else ("prefix part must be non-empty",)
        )
    name = parts[-1]
    if not name:
        wrong += ("name part must be non-empty",)
    wrong += tuple(f"name part {text}" for text in _longer(name, 63))
    return wrong if _name(name) else (*wrong, f"name part {_NAME_TEXT}")


@lru_cache(maxsize=65536)
def label_value(text: str) -> Wrong:
    return _longer(text, 63) + (() if _value(text) else (_VALUE_TEXT,))


@lru_cache(maxsize=4096)
def port_name(text: str) -> Wrong:
    """A service name as IANA has them: container ports, named target ports."""
    wrong: Wrong = ("must be no more than 15 bytes",) if len(text.encode()) > 15 else ()
    if not re.fullmatch(r"[-a-z0-9]+", text):
        wrong += ("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",)
    if not re.search("[a-z]", text):
        wrong += ("must contain at least one letter (a-z)",)
    if "--" in text:
        wrong += ("must not contain consecutive hyphens",)
    if text and "-" in (text[0], text[-1]):
        wrong += ("must not begin or end with a hyphen",)
    return wrong


def port_number(number: int) -> Wrong:
    return () if 0 < number < 65536 else ("must be between 1 and 65535, inclusive",)


def percent(text: str) -> Wrong:
    return () if _percent(text) else (_PERCENT_TEXT,)


def path_segment(text: str) -> Wrong:
    if text in (".", ".."):
        return (f"may not be '{text}'",)
    return tuple(f"may not contain '{sign}'" for sign in "/%" if sign in text)


# -- addresses ---------------------------------------------------------------------------------------------------------
IP_TEXT = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
CIDR_TEXT = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Prefix = ipaddress.IPv4Network | ipaddress.IPv6Network


@lru_cache(maxsize=65536)
def address(text: str) -> Address | None:
    """Go's lenient reading: leading zeros are decimal, IPv4-mapped IPv6 is IPv4, no zone."""
    if "%" in text:
        return None
    try:
        if ":" not in text:
            return read_ip(text)
        found = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    return found.ipv4_mapped or found


@lru_cache(maxsize=4096)
def prefix(text: str) -> Prefix | None:
    """The network of a CIDR; host bits are allowed."""
    base, slash, length = text.partition("/")
    found = address(base)
    if not slash or found is None or not (length.isascii() and length.isdigit()) or len(length) > 3:
        return None
    bits = int(length)
    if ":" in base and found.version == 4:
        bits -= 96  # ::ffff:10.0.0.0/104 is 10.0.0.0/8
    if not 0 <= bits <= found.max_prefixlen:
        return None
    return ipaddress.ip_network((str(found), bits), strict=False)  # as a number, :: would be 0.0.0.0


def ip(text: str) -> Wrong:
    return () if address(text) else (IP_TEXT,)


def cidr(text: str) -> Wrong:
    return () if prefix(text) else (CIDR_TEXT,)


def not_special(text: str) -> Wrong:
    """Addresses no endpoint or external address may have."""
    found = address(text)
    if found is None:
        return (IP_TEXT,)
    wrong: Wrong = ()
    if found.is_unspecified:
        wrong += ("may not be unspecified (0.0.0.0)",)
    if found.is_loopback:
        wrong += ("may not be in the loopback range (127.0.0.0/8, ::1/128)",)
    if found.is_link_local:
        wrong += ("may not be in the link-local range (169.254.0.0/16, fe80::/10)",)
    if found.is_multicast and int(found) >> (8 if found.version == 4 else 112) in (0xE00000, 0xFF02):
        wrong += ("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",)
    return wrong
