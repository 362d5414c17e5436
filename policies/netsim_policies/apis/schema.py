"""The CRD checks that the admin APIs share, in the words of the API server's OpenAPI validation.

``Checker`` collects problems with their field paths, so that one call reports everything that is wrong with an object.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

from netsim.errors import InputError, Problem
from netsim.kube.objects import Resource

_DOMAIN = re.compile(r"(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?")
_SELECTOR_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
PROTOCOLS = ("TCP", "UDP", "SCTP")


class Checker:
    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.problems: list[Problem] = []

    def complain(self, field: str, text: str) -> None:
        named = f'{self.resource.kind} "{self.resource.name}"'
        self.problems.append(Problem(text, self.resource.source, named, field))

    def finish(self) -> None:
        if self.problems:
            raise InputError(self.problems)

    def object(self, value: Any, field: str) -> dict[str, Any]:
        """``value`` as an object; absent and wrong types are complained about."""
        if value is None:
            self.complain(field, "Required value")
        elif not isinstance(value, dict):
            self.complain(
                field, f'Invalid value: "{_type(value)}": {field} in body must be of type object: "{_type(value)}"'
            )
        else:
            return value
        return {}

    def items(self, value: Any, field: str, most: int, least: int = 0, required: bool = False) -> list[Any]:
        if value is None:
            if required:
                self.complain(field, "Required value")
            return []
        if not isinstance(value, list):
            self.complain(
                field, f'Invalid value: "{_type(value)}": {field} in body must be of type array: "{_type(value)}"'
            )
            return []
        if len(value) < least:
            self.complain(field, f"Invalid value: {len(value)}: {field} in body should have at least {least} items")
        if len(value) > most:
            self.complain(field, f"Too many: {len(value)}: must have at most {most} items")
        return value

    def integer(self, value: Any, field: str, low: int, high: int) -> int:
        if value is None:
            self.complain(field, "Required value")
            return low
        if not isinstance(value, int) or isinstance(value, bool):
            self.complain(
                field, f'Invalid value: "{_type(value)}": {field} in body must be of type integer: "{_type(value)}"'
            )
            return low
        if value < low:
            self.complain(field, f"Invalid value: {value}: {field} in body should be greater than or equal to {low}")
        if value > high:
            self.complain(field, f"Invalid value: {value}: {field} in body should be less than or equal to {high}")
        return value

    def one_of(self, value: Any, field: str, allowed: Sequence[str], default: str | None = None) -> str:
        if value is None and default is not None:
            return default
        if value is None:
            self.complain(field, "Required value")
        elif value not in allowed:
            supported = ", ".join(f'"{a}"' for a in allowed)
            self.complain(field, f'Unsupported value: "{value}": supported values: {supported}')
        else:
            return str(value)
        return allowed[0]

    def exactly_one(self, value: dict[str, Any], field: str) -> None:
        """``MinProperties=1``, ``MaxProperties=1``."""
        if not value:
            self.complain(field, f"Invalid value: 0: {field} in body should have at least 1 properties")
        elif len(value) > 1:
            self.complain(field, f"Too many: {len(value)}: must have at most 1 items")

    def known(self, value: dict[str, Any], field: str, *names: str) -> None:
        """Other fields than ``names`` are refused, as by kubectl's strict validation."""
        for name in value:
            if name not in names:
                at = f"{field}.{name}"
                self.complain(at, f'strict decoding error: unknown field "{at}"')

    def text(self, value: Any, field: str) -> str:
        if not isinstance(value, str):
            self.complain(
                field, f'Invalid value: "{_type(value)}": {field} in body must be of type string: "{_type(value)}"'
            )
        return str(value)

    def selector(self, value: Any, field: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """A LabelSelector; ``{}`` selects everything. ``default`` is what an absent one means, where it may be absent."""
        if value is None and default is not None:
            return default
        found = self.object(value, field)
        self.known(found, field, "matchLabels", "matchExpressions")
        labels = found.get("matchLabels")
        if labels is not None:
            for key, held in self.object(labels, f"{field}.matchLabels").items():
                self.text(held, f"{field}.matchLabels.{key}")
        for index, item in enumerate(self.items(found.get("matchExpressions"), f"{field}.matchExpressions", 10_000)):
            self._expression(item, f"{field}.matchExpressions[{index}]")
        return found

    def _expression(self, item: Any, path: str) -> None:
        expression = self.object(item, path)
        self.known(expression, path, "key", "operator", "values")
        operator = expression.get("operator")
        if expression.get("key") is None:
            self.complain(f"{path}.key", "Required value")
        else:
            self.text(expression["key"], f"{path}.key")
        values = self.items(expression.get("values"), f"{path}.values", 10_000)
        for number, value in enumerate(values):
            self.text(value, f"{path}.values[{number}]")
        if operator is None:
            self.complain(f"{path}.operator", "Required value")
        elif operator not in _SELECTOR_OPERATORS:
            self.complain(f"{path}.operator", f'Invalid value: "{operator}": not a valid selector operator')
        elif operator in ("In", "NotIn") and not values:
            self.complain(f"{path}.values", "Required value: must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist") and values:
            text = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            self.complain(f"{path}.values", text)

    def cidr(self, value: Any, field: str) -> str:
        try:
            ipaddress.ip_network(str(value), strict=False)
            if "/" not in str(value):
                raise ValueError
        except ValueError:
            self.complain(field, f'Invalid value: "{value}": Invalid CIDR format provided')
            return "0.0.0.0/32"
        return str(value)

    def domain(self, value: Any, field: str) -> str:
        if not isinstance(value, str) or not _DOMAIN.fullmatch(value):
            self.complain(field, f"Invalid value: \"{value}\": {field} in body should match '^{_DOMAIN.pattern}$'")
        return str(value)

    def range(self, low: Any, high: Any, field: str, strict_text: str | None = None) -> tuple[int, int]:
        """A port range; ``strict_text`` is the complaint when start is not below end."""
        start = self.integer(low, f"{field}.start", 1, 65535)
        end = self.integer(high, f"{field}.end", 1, 65535)
        if strict_text and start >= end and low is not None and high is not None:
            self.complain(field, f'Invalid value: "object": {strict_text}')
        return start, end


def _type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
