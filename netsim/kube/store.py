"""The embedded API store: objects by kind, namespace and name, with resource versions and watches."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec

from netsim.kube.objects import Object

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Event:
    """``type`` is ADDED, MODIFIED or DELETED, as in the watch API."""

    type: str
    object: Object


class Store:
    """Objects by kind, then by (namespace, name), in insertion order. Cluster-scoped kinds use the empty namespace."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._watchers: list[tuple[str | None, Callable[[Event], None]]] = []
        self.resource_version = 0

    def put(self, obj: T) -> T:
        """Create or replace; returns the object with its new resourceVersion and tells the watchers."""
        self.resource_version += 1
        obj = msgspec.structs.replace(
            obj, metadata=msgspec.structs.replace(obj.metadata, resource_version=str(self.resource_version))
        )
        held = self._objects.setdefault(obj.kind, {})
        event = Event("MODIFIED" if obj.key in held else "ADDED", obj)
        held[obj.key] = obj
        self._notify(event)
        return obj

    def delete(self, kind: str, namespace: str, name: str) -> Object | None:
        obj = self._objects.get(kind, {}).pop((namespace, name), None)
        if obj is not None:
            self.resource_version += 1
            self._notify(Event("DELETED", obj))
        return obj

    def get(self, kind: str, namespace: str, name: str) -> Any:
        """The object, or None."""
        return self._objects.get(kind, {}).get((namespace, name))

    def list(self, kind: str, namespace: str | None = None) -> Iterator[Any]:
        """All objects of ``kind`` in insertion order; a snapshot, so the store may be changed while iterating."""
        for obj in tuple(self._objects.get(kind, {}).values()):
            if namespace is None or obj.metadata.namespace == namespace:
                yield obj

    def typed(self, kind: str, cls: type[T], namespace: str | None = None) -> Iterator[T]:
        return cast("Iterator[T]", self.list(kind, namespace))

    def kinds(self) -> builtins.list[str]:
        return [kind for kind, held in self._objects.items() if held]

    def count(self, kind: str) -> int:
        return len(self._objects.get(kind, {}))

    def watch(self, callback: Callable[[Event], None], kind: str | None = None) -> Callable[[], None]:
        """Call ``callback`` for every later event (of one kind); returns the function that ends the watch."""
        entry = (kind, callback)
        self._watchers.append(entry)
        return lambda: self._watchers.remove(entry)

    def _notify(self, event: Event) -> None:
        for kind, callback in tuple(self._watchers):
            if kind is None or kind == event.object.kind:
                callback(event)
