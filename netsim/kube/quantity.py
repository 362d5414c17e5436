"""Resource quantities (``100m``, ``1.5Gi``, ``2e3``): value and canonical text, as apimachinery's resource.Quantity.

The canonical text keeps the suffix family it was given in (binary, decimal or exponent), has no fraction, the largest
suffix possible, and rounds up below nano: 1.5Gi → 1536Mi, 0.5 → 500m, 1000m → 1, 1e3 → 1e3, 12345678n → 12345678n.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import ceil

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_FORM = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,18})", re.ASCII)
_LIMIT = (1 << 63) - 1
_NANO = 10**9
REGEX = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
ERROR = f"quantities must match the regular expression '{REGEX}'"


def parse(text: str | int | float) -> Fraction:
    """The exact value, clamped to ±(2^63 - 1) and rounded away from zero to nano; ValueError with Go's text."""
    return _parse(str(text))[0]


def canonical(text: str | int | float) -> str:
    """The text the API server would store."""
    value, form = _parse(str(text))
    return _format(value, form)


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Fraction, str]:
    match = _FORM.fullmatch(text)
    if not match or len(text) > 400:
        raise ValueError(ERROR)
    sign, digits, suffix = match.groups()
    number = Fraction(digits if not digits.endswith(".") else digits[:-1])
    if suffix in _BINARY:
        value, form = number * (1 << _BINARY[suffix]), "binary"
    elif suffix in _DECIMAL:
        value, form = number * Fraction(10) ** _DECIMAL[suffix], "decimal"
    else:
        exponent = int(suffix[1:])
        form = "exponent"
        # A huge exponent is clamped (or rounds to a nano) whatever the digits; never compute 10**10**9.
        if abs(exponent) > 500:
            value = Fraction(0) if not number else Fraction(_LIMIT) if exponent > 0 else Fraction(1, _NANO)
        else:
            value = number * Fraction(10) ** exponent
    value = min(Fraction(ceil(value * _NANO), _NANO), Fraction(_LIMIT))
    if form == "binary" and value.denominator != 1 and value < 1024:
        form = "decimal"
    return (-value if sign == "-" else value), form


def _format(value: Fraction, form: str) -> str:
    if not value:
        return "0"
    sign, value = ("-", -value) if value < 0 else ("", value)
    if form == "binary" and value.denominator == 1:
        number = value.numerator
        for suffix, shift in reversed(_BINARY.items()):
            if number % (1 << shift) == 0:
                return f"{sign}{number >> shift}{suffix}"
        return f"{sign}{number}"
    for suffix, power in reversed(_DECIMAL.items()):
        scaled = value / Fraction(10) ** power
        if scaled.denominator == 1:
            if form == "exponent":
                return f"{sign}{scaled.numerator}" + (f"e{power}" if power else "")
            return f"{sign}{scaled.numerator}{suffix}"
    raise AssertionError(value)  # values are whole nanos
