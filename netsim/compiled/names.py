"""Interned names: devices, chains, namespaces and MAC addresses as small numbers. 0 is the empty name."""

from __future__ import annotations


class Names:
    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}
        self._names: list[str] = [""]

    def __len__(self) -> int:
        return len(self._names)

    def number(self, name: str) -> int:
        found = self._numbers.get(name)
        if found is None:
            found = self._numbers[name] = len(self._names)
            self._names.append(name)
        return found

    def known(self, name: str) -> int:
        """The number of a name that has one; -1 if it has none."""
        return self._numbers.get(name, -1)

    def name(self, number: int) -> str:
        return self._names[number]
