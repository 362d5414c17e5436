"""Reading a cluster: files in, objects out: decoded, converted to today's API, defaulted and validated.

``load`` judges every document as an API server would and lists every complaint; ``store`` puts the result where the
controllers work. A dump is stored state: status, uid and ownerReferences are kept and the same rules apply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec

from netsim import collector
from netsim.errors import InputError, Problem, Source
from netsim.kube import decode, defaults, json_reader, text
from netsim.kube.convert import convert
from netsim.kube.fault import Fault
from netsim.kube.kinds import Kind, Skip, classify
from netsim.kube.objects import TYPED_KINDS, Meta, Namespace, Object, Resource
from netsim.kube.store import Store
from netsim.kube.validate import validate

Json = dict[str, Any]
Progress = Callable[[str, int], None]
_NAME_SIGNS = "bcdfghjklmnpqrstvwxz2456789"
_SHOWN = 5  # objects given twice that are told one by one
_INITIAL_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


@dataclass
class Loaded:
    """``notes``: one line each about what was converted, skipped or supplied. ``refused``: only with ``lenient``."""

    objects: list[Object] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)


def load(
    paths: Sequence[str],
    *,
    recursive: bool = False,
    lenient: bool = False,
    namespace: str | None = None,
    stdin: BinaryIO | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """All objects of ``paths``, in input order. ``namespace`` is for namespaced objects that name none.

    Raises InputError with every problem of the whole input, unless ``lenient``: then what is wrong is left out and told
    in ``refused``. ``progress`` is called with a file's name and the number of its objects so far.
    """
    with collector.resting():
        loader = _Loader(namespace or "default", progress)
        for file in text.read(paths, recursive=recursive, stdin=stdin):
            if isinstance(file, Problem):
                loader.result.refused.append(file)
            else:
                loader.read(file)
        loader.finish()
    if loader.result.refused and not lenient:
        raise InputError(loader.result.refused)
    return loader.result


def store(loaded: Loaded) -> Store:
    """A store that holds ``loaded`` (in which no two objects share kind, namespace and name)."""
    result = Store()
    with collector.resting():
        for item in loaded.objects:
            result.put(item)
    return result


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an object stands: its source, and what finds the lines of its fields when something is wrong."""

    source: Source
    document: int = 0
    prefix: tuple[str | int, ...] = ()


class _Loader:
    def __init__(self, namespace: str, progress: Progress | None) -> None:
        self.namespace = namespace
        self.progress = progress
        self.result = Loaded()
        self.seen: dict[tuple[str, str, str], int] = {}
        self.said: dict[str, int] = {}  # note → how often
        self.generated = 0
        self.replaced = 0
        self.file = text.File("", b"")
        self.lines: dict[tuple[int, tuple[str | int, ...]], int] | None = None

    # -- files ---------------------------------------------------------------------------------------------------------
    def read(self, file: text.File) -> None:
        self.file, self.lines = file, None
        before = count = len(self.result.objects) + len(self.result.refused)
        documents = 0
        for _ in self._json(file) if json_reader.looks_like_json(file.data) else self._yaml(file):
            documents += 1
            if self.progress and documents % 1000 == 0:
                self.progress(file.name, documents)
        count = len(self.result.objects) + len(self.result.refused)
        if not documents and count == before:
            self._say(f"{file.name}: holds no objects")

    def _json(self, file: text.File) -> Iterator[None]:
        for item in json_reader.read(file.name, file.data):
            if isinstance(item, Problem):
                self.result.refused.append(item)
                continue
            place = _Place(Source(file.name, item.line))
            if item.is_secret():
                yield
                continue  # never decoded: what is in there is nobody's business
            try:
                value = json_reader.decode(item)
            except json_reader.Duplicate as error:
                self._refuse(place, "", [Fault("", f"strict decoding error: {error}")])
            except (msgspec.DecodeError, RecursionError) as error:
                self.result.refused.append(json_reader.syntax_problem(file.name, item, error))
            else:
                self._document(value, place, item.list_kind, item.list_version)
            yield

    def _yaml(self, file: text.File) -> Iterator[None]:
        from netsim.kube import yaml_reader

        for document in yaml_reader.read(file.name, file.data.decode()):
            if isinstance(document, Problem):
                self.result.refused.append(document)
                continue
            value, line = document.value, document.line
            if value is None:
                continue
            self._document(value, _Place(Source(file.name, line), line), item_lines=document.item_lines)
            yield

    # -- documents -----------------------------------------------------------------------------------------------------
    def _document(
        self,
        value: Any,
        place: _Place,
        list_kind: str = "",
        list_version: str = "",
        item_lines: Sequence[int] = (),
    ) -> None:
        """One document: an object, a list of objects, or one of the bare configuration files."""
        if not isinstance(value, dict):
            what = "a list" if isinstance(value, list) else "no object"
            self._refuse(place, "", [Fault("", f"an object with apiVersion and kind is expected here, this is {what}")])
            return
        api_version, kind = value.get("apiVersion"), value.get("kind")
        if list_kind and list_kind != "List":
            api_version, kind = self._inherit(value, place, list_kind, list_version)
        if not isinstance(api_version, str) or not isinstance(kind, str) or not api_version or not kind:
            self._nameless(value, place)
            return
        if kind.endswith("List") and ("items" in value or kind == "List"):
            self._list(value, place, kind, api_version, item_lines)
            return
        if kind:
            self._object(value, place, api_version, kind)

    def _inherit(self, value: Json, place: _Place, list_kind: str, list_version: str) -> tuple[Any, Any]:
        """Items of a typed list may leave out what the list says, and may not say otherwise."""
        wanted = list_kind.removesuffix("List")
        kind = value.setdefault("kind", wanted)
        api_version = value.setdefault("apiVersion", list_version)
        if kind != wanted:
            self._refuse(place, _named(value), [Fault("", f"a {kind} cannot be an item of a {list_kind}", "kind")])
            return None, ""
        return api_version, kind

    def _list(self, value: Json, place: _Place, kind: str, version: str, lines: Sequence[int]) -> None:
        items = value.get("items")
        if items is None:
            return
        if not isinstance(items, list):
            self._refuse(place, kind, [Fault("items", "a list is expected here", "items")])
            return
        items.reverse()
        for index in range(len(items)):
            line = lines[index] if index < len(lines) else place.source.line
            below = _Place(Source(place.source.file, line), place.document, (*place.prefix, "items", index))
            self._document(items.pop(), below, kind, version)

    def _nameless(self, value: Json, place: _Place) -> None:
        kind, version = value.get("kind"), value.get("apiVersion")
        if kind is None and version is None and isinstance(value.get("Network"), str) and "Backend" in value:
            self._keep_bare(value, "FlannelNetConf", "net-conf.json", "", place)
            return
        if kind == "" and version is None:
            return  # already told
        wrong = [
            f"{name} {'not set' if found in (None, '') else 'must be a string'}"
            for name, found in (("apiVersion", version), ("kind", kind))
            if not isinstance(found, str) or not found
        ]
        if not wrong:
            return
        told = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
        self._refuse(place, _named(value), [Fault("", f"error validating data: {told}")])

    def _keep_bare(self, body: Json, kind: str, name: str, version: str, place: _Place) -> None:
        self._keep(Resource(kind=kind, api_version=version, metadata=Meta(name=name), source=place.source, body=body))

    # -- objects -------------------------------------------------------------------------------------------------------
    def _object(self, body: Json, place: _Place, version: str, kind_name: str) -> None:
        kind = classify(version, kind_name)
        if kind is None:
            told = f'no matches for kind "{kind_name}" in version "{version}"'
            self._refuse(place, _named(body), [Fault("", told, "apiVersion")])
            return
        if isinstance(kind, Skip):
            if kind.note:
                self._say(kind.note)
            return
        if kind_name == "KubeProxyConfiguration":
            self._keep_bare(body, kind_name, "config.conf", version, place)
            return
        faults = decode.strict(body, version, kind_name)
        if faults:
            self._refuse(place, _named(body), faults)
            return
        note = convert(body, kind)
        metadata = body.get("metadata")
        if metadata is None:
            metadata = body["metadata"] = {}
        if not kind.namespaced:
            metadata.pop("namespace", None)
        elif not metadata.get("namespace"):
            metadata["namespace"] = self.namespace
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = self._generated(metadata)
        defaults.apply(body, kind.key)
        faults = validate(body, kind.key, kind.namespaced)
        if faults:
            self._refuse(place, _named(body), faults)
            return
        try:
            item = _built(body, kind, place.source)
        except msgspec.ValidationError as error:  # a shape that neither the decoder nor the rules look at
            self._refuse(place, _named(body), [Fault("", str(error))])
            return
        if note:
            self._say(note)
        self._keep(item)

    def _keep(self, item: Object) -> None:
        key = (item.kind, item.metadata.namespace, item.metadata.name)
        held = self.result.objects
        before = self.seen.get(key)
        if before is None:
            self.seen[key] = len(held)
            held.append(item)
            return
        # as with kubectl apply, the later one wins; unlike it, not without a word
        old = held[before]
        held[before] = item
        self.replaced += 1
        if self.replaced <= _SHOWN:
            self._say(f'{item.kind} "{item.name}" is given twice: {item.source} replaces {old.source}')

    def _generated(self, metadata: Json) -> str:
        """The name a server would make of generateName: five random signs there, a running number's here."""
        number = self.generated = self.generated + 1
        base, signs = metadata["generateName"][:58], ""
        for _ in range(5):
            number, digit = divmod(number, len(_NAME_SIGNS))
            signs = _NAME_SIGNS[digit] + signs
        return f"{base}{signs}"

    # -- complaints ----------------------------------------------------------------------------------------------------
    def _refuse(self, place: _Place, named: str, faults: Sequence[Fault]) -> None:
        for fault in faults:
            source = Source(place.source.file, self._line(place, fault.at or fault.field))
            self.result.refused.append(Problem(fault.text, source, named, fault.field))

    def _line(self, place: _Place, path: str) -> int:
        """The line of ``path``, or of the nearest field around it that is in the file."""
        if not place.document:
            return place.source.line
        if self.lines is None:
            from netsim.kube.yaml_reader import field_lines

            self.lines = field_lines(self.file.data.decode())
        steps = (*place.prefix, *_steps(path))
        while len(steps) > len(place.prefix):
            if found := self.lines.get((place.document, steps)):
                return found
            steps = steps[:-1]
        return place.source.line

    def _say(self, note: str) -> None:
        self.said[note] = self.said.get(note, 0) + 1

    def finish(self) -> None:
        """The last step: one line for each note however often it applies."""
        for note, times in self.said.items():
            self.result.notes.append(note if times == 1 else f"{note} ({times} objects)")
        if self.replaced > _SHOWN:
            self.result.notes.append(f"{self.replaced - _SHOWN} more objects are given twice; the later ones count")
        self._supply_namespaces()

    def _supply_namespaces(self) -> None:
        have = {item.name for item in self.result.objects if item.kind == "Namespace"}
        wanted = dict.fromkeys(item.namespace for item in self.result.objects if item.namespace)
        for name in wanted:
            if name in have:
                continue
            body: Json = {"metadata": {"name": name}}
            defaults.apply(body, "Namespace")
            meta = Meta(name=name, labels=body["metadata"]["labels"])
            self.result.objects.append(Namespace(kind="Namespace", metadata=meta, status=body["status"]))
            if name not in _INITIAL_NAMESPACES:
                self.result.notes.append(f'Namespace "{name}" is not in the input: supplied')


def _built(body: Json, kind: Kind, source: Source) -> Object:
    cls = TYPED_KINDS.get(kind.name) if not kind.stored_as else None
    if cls is None:
        meta = msgspec.convert(body["metadata"], Meta)
        return Resource(kind=kind.key, api_version=body["apiVersion"], metadata=meta, source=source, body=body)
    item: Object = msgspec.convert(body, cls)
    msgspec.structs.force_setattr(item, "source", source)
    return item


def _named(body: Any) -> str:
    """``Service "x"``, as kubectl names an object."""
    metadata = body.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    kind = body.get("kind")
    name = name if isinstance(name, str) else ""
    if not name and not kind:
        return ""
    return f"{kind if isinstance(kind, str) and kind else 'object'} {json.dumps(name, ensure_ascii=False)}"


_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")


def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(
        int(index) if index.isascii() and index.isdigit() else index or name for index, name in _STEP.findall(path)
    )
