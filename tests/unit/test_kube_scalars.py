"""Plain scalars as Kubernetes' YAML reader takes them, and quantities and selectors against their definitions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from netsim.kube import quantity
from netsim.kube.selectors import matches, matches_node_term
from netsim.kube.validate import names
from netsim.kube.yaml_reader import resolve
from netsim.packet.address import ip

SCALARS: dict[str, Any] = {
    "y": True, "n": False, "Yes": True, "NO": False, "on": True, "Off": False, "true": True, "FALSE": False, "yEs": "yEs",
    "~": None, "null": None, "Null": None, "": None, "nULL": "nULL",
    "1e3": 1000, "140e2": 14000, "12:30": "12:30", "2026-01-01": "2026-01-01", "0o17": 15, "010": 8, "0x10": 16,
    "1_000": 1000, "0b101": 5, "-0x10": -16, "+5": 5, "-7": -7, "0": 0, "00": 0, "08": 8, "1.5": 1.5, ".5": 0.5,
    "1.": 1, "1.2.3": "1.2.3", "10.0.0.1": "10.0.0.1", "1e400": "1e400", ".inf": ".inf", "-": "-", "+": "+", "0x": "0x",
    "18446744073709551615": 18446744073709551615, "-9223372036854775808": -9223372036854775808, "500m": "500m",
    "1e": "1e", "._": "._", "3Gi": "3Gi", "--1": "--1", "1-2": "1-2",
}  # fmt: skip


@pytest.mark.parametrize("text", SCALARS)
def test_scalars(text: str) -> None:
    found = resolve(text)
    assert (found, type(found)) == (SCALARS[text], type(SCALARS[text]))


@pytest.mark.parametrize(
    ("text", "value", "canonical"),
    [
        ("1.5Gi", Fraction(3 << 29), "1536Mi"),
        ("0.5", Fraction(1, 2), "500m"),
        ("1000m", Fraction(1), "1"),
        ("1e3", Fraction(1000), "1e3"),
        ("1024Ki", Fraction(1 << 20), "1Mi"),
        ("1000", Fraction(1000), "1k"),
        ("1.0001n", Fraction(2, 10**9), "2n"),
        ("-3M", Fraction(-3_000_000), "-3M"),
        ("0Gi", Fraction(0), "0"),
        ("6", Fraction(6), "6"),
        ("20Gi", Fraction(20 << 30), "20Gi"),
        ("1e999999999", Fraction((1 << 63) - 1), "9223372036854775807"),
    ],
)
def test_quantities(text: str, value: Fraction, canonical: str) -> None:
    assert quantity.parse(text) == value
    if value.denominator == 1 and value < 1 << 62:
        assert quantity.parse(quantity.canonical(text)) == value
    assert quantity.canonical(text) == canonical or value > 1 << 62


@pytest.mark.parametrize("text", ["", "lots", "1 Gi", "1gi", "1K", "--1", "1e", "0x10", "1Gii", "Gi", ".", "1e1.5"])
def test_bad_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        quantity.parse(text)


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_label_selectors(selector: dict[str, Any] | None, selected: bool) -> None:
    assert matches(selector, {"a": "1"}) is selected


@pytest.mark.parametrize(
    ("term", "selected"),
    [
        ({}, False),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}]}, False),
        ({"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["7"]}]}, True),
        ({"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["8"]}]}, False),
        ({"matchExpressions": [{"key": "cpus", "operator": "Lt", "values": ["010"]}]}, True),
        ({"matchExpressions": [{"key": "cpus", "operator": "Lt", "values": ["many"]}]}, False),
        ({"matchExpressions": [{"key": "disks", "operator": "Lt", "values": ["9"]}]}, False),
    ],
)
def test_node_terms(term: dict[str, Any], selected: bool) -> None:
    assert matches_node_term(term, "n1", {"cpus": "8"}) is selected


def test_qualified_names() -> None:
    assert names.qualified("example.com/My_name.1") == ()
    assert len(names.qualified("")) == 2
    assert names.qualified("/a") == ("prefix part must be non-empty",)
    assert names.label("a\n")
    assert names.label("a.b") == ("must not contain dots",)
    assert names.label("x" * 64) == ("must be no more than 63 bytes",)


def test_addresses_are_read_as_go_reads_them() -> None:
    assert str(names.address("010.0.0.1")) == "10.0.0.1"
    assert ip("010.0.0.01") == ip("10.0.0.1")  # wherever such an address is used
    for text in ("10.0.0.0256", "10.0.0", "10.0.0.x", "1\uff10.0.0.1"):
        with pytest.raises(ValueError, match=r"does not appear|not permitted"):
            ip(text)
    assert str(names.address("::ffff:10.0.0.1")) == "10.0.0.1"
    assert names.address("fe80::1%eth0") is None
    assert str(names.prefix("10.1.2.3/8")) == "10.0.0.0/8"
    assert str(names.prefix("::ffff:10.1.2.3/104")) == "10.0.0.0/8"
    assert names.prefix("10.0.0.0/33") is None
    assert names.not_special("169.254.0.1") == ("may not be in the link-local range (169.254.0.0/16, fe80::/10)",)
