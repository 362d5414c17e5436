"""Metadata and label selectors (apimachinery validation, 1.33)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from netsim.kube.fault import Faults
from netsim.kube.validate import names

Json = dict[str, Any]
MAX_ANNOTATION_BYTES = 262144


def metadata(faults: Faults, meta: Json, namespaced: bool, name_rule: Callable[[str], names.Wrong]) -> None:
    generate = meta.get("generateName", "")
    if generate:
        # what the server appends begins with a letter or digit: a trailing hyphen is fine
        masked = generate[:-1] + "a" if generate.endswith("-") else generate
        faults.all_invalid("metadata.generateName", generate, name_rule(masked))
    name = meta.get("name", "")
    if name:
        wrong = name_rule(name)
        if wrong:
            faults.all_invalid("metadata.name", name, wrong)
    elif not generate:
        faults.required("metadata.name", "name or generateName is required")
    if namespaced:
        namespace = meta.get("namespace", "")
        if not namespace:
            faults.required("metadata.namespace")
        elif names.label(namespace):
            faults.all_invalid("metadata.namespace", namespace, names.label(namespace))
    if meta.get("generation", 0) < 0:
        faults.invalid("metadata.generation", meta["generation"], "must be greater than or equal to 0")
    if "labels" in meta:
        labels(faults, meta["labels"], "metadata.labels")
    if "annotations" in meta:
        annotation_map(faults, meta["annotations"], "metadata.annotations")
    if "ownerReferences" in meta:
        _owners(faults, meta["ownerReferences"])
    for index, finalizer in enumerate(meta.get("finalizers") or ()):
        faults.all_invalid(
            "metadata.finalizers", finalizer, names.qualified(finalizer), f"metadata.finalizers[{index}]"
        )


def labels(faults: Faults, found: Json, path: str) -> None:
    """Go walks maps in random order; sorted here, but only when something is wrong."""
    for key, value in found.items():
        if names.qualified(key) or names.label_value(value):
            break
    else:
        return
    for key, value in sorted(found.items()):
        faults.all_invalid(path, key, names.qualified(key), f"{path}[{key}]")
        faults.all_invalid(path, value, names.label_value(value), f"{path}[{key}]")


def annotation_map(faults: Faults, found: Json, path: str) -> None:
    size = 0
    for key, value in found.items():
        wrong = names.qualified(key.lower())
        if wrong:
            faults.all_invalid(path, key, wrong, f"{path}[{key}]")
        size += len(key) + len(value)
    if size * 4 > MAX_ANNOTATION_BYTES:
        size = sum(len(key.encode()) + len(value.encode()) for key, value in found.items())
        if size > MAX_ANNOTATION_BYTES:
            faults.too_long(path, MAX_ANNOTATION_BYTES)


def _owners(faults: Faults, owners: list[Json]) -> None:
    controllers = 0
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                told = "version must not be empty" if name == "apiVersion" else "must not be empty"
                faults.invalid(f"metadata.ownerReferences.{name}", owner.get(name, ""), told, f"{path}.{name}")
        controllers += bool(owner.get("controller"))
    if controllers > 1:
        kinds = [owner.get("kind", "") for owner in owners if owner.get("controller")]
        faults.invalid(
            "metadata.ownerReferences",
            owners,
            "Only one reference can have Controller set to true. Found "
            f'"true" in references for {kinds[0]}/{owners[0].get("name")} and {kinds[1]}/{owners[1].get("name")}',
        )


def selector(faults: Faults, found: Json | None, path: str) -> None:
    """A LabelSelector, present or not."""
    if not found:
        return
    if "matchLabels" in found:
        labels(faults, found["matchLabels"], f"{path}.matchLabels")
    for index, item in enumerate(found.get("matchExpressions") or ()):
        requirement(faults, item, f"{path}.matchExpressions[{index}]")


def requirement(faults: Faults, item: Json, path: str) -> None:
    operator, values = item.get("operator", ""), item.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            faults.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            faults.forbidden(f"{path}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    else:
        faults.invalid(f"{path}.operator", operator, "not a valid selector operator")
    faults.all_invalid(f"{path}.key", item.get("key", ""), names.qualified(item.get("key", "")))
    for index, value in enumerate(values):
        faults.all_invalid(f"{path}.values[{index}]", value, names.label_value(value))


def at_least_zero(faults: Faults, found: Json, path: str, *fields: str) -> None:
    for name in fields:
        value = found.get(name, 0)
        if value < 0:
            faults.invalid(f"{path}.{name}", value, "must be greater than or equal to 0")
