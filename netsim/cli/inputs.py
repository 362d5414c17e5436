"""From options to a running cluster, and the talk on stderr that goes with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netsim.cli import enforcement
from netsim.errors import InputError, UsageError
from netsim.packet.address import IPAddress, ip
from netsim.report.style import Style, clean, wants_colour

if TYPE_CHECKING:
    from netsim.kube.cluster import Settings
    from netsim.linux.network import StaticNetwork
    from netsim.topology.assemble import Assembled


@dataclass(frozen=True)
class Talk:
    """Notes go to stderr, one line each, unless ``quiet``; a note is said once."""

    quiet: bool = False

    def note(self, text: str) -> None:
        if not self.quiet:
            sys.stderr.write(f"note: {clean(text)}\n")


def talk(options: Any) -> Talk:
    return Talk(options.quiet)


@contextmanager
def progress(options: Any, what: str) -> Iterator[Callable[[str], None] | None]:
    """Tells on a terminal what is being done, in one line that is gone afterwards. None where nobody would see it."""
    if options.quiet or not sys.stderr.isatty():
        yield None
        return

    def show(step: str) -> None:
        sys.stderr.write(f"\r\x1b[K{f'{what}: {clean(step)}'[:79]}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\x1b[K")


def style(options: Any) -> Style:
    import os

    return Style(wants_colour(options.color, os.environ, sys.stdout.isatty()))


def print_kubectl(options: Any) -> bool:
    """``--print-kubectl``: show what would be run. True if that was asked for."""
    if not options.print_kubectl:
        return False
    from netsim.cli.live import shown

    if not options.context:
        raise UsageError("--print-kubectl goes with --context")
    sys.stdout.write(shown(options.context) + "\n")
    return True


def assembled(options: Any, external: IPAddress | None = None) -> Assembled:
    """The cluster that the options describe, running. Each thing assumed has been said on stderr."""
    from netsim.kube.load import load, store
    from netsim.topology.assemble import assemble

    speaker = talk(options)
    if options.context and options.filename:
        raise UsageError("--context and -f are two clusters: give one of them")
    paths, stdin = list(options.filename), None
    if options.context:
        from io import BytesIO

        from netsim.cli.live import fetch

        paths, stdin = ["-"], BytesIO(fetch(options.context))
    if not paths:
        raise UsageError("no input: -f FILE names a manifest, a dump or a directory, -f @example the bundled cluster")
    if paths.count("-") > 1:
        raise UsageError("standard input (-f -) can be read only once")
    loaded = load(paths, recursive=options.recursive, lenient=options.lenient, namespace=options.namespace, stdin=stdin)
    for problem in loaded.refused:
        speaker.note(f"left out: {problem}")
    for note in loaded.notes:
        speaker.note(note)
    if not loaded.objects:
        raise InputError(f"there is no Kubernetes object in {', '.join(options.filename) or options.context}")
    made = assemble(store(loaded), settings(options), external=external)
    for assumption in made.cluster.assumptions:
        speaker.note(assumption)
    _policies(made, speaker)
    return made


def settings(options: Any) -> Settings:
    """The options that stand in for what the control plane would have been told."""
    from netsim.kube.cluster import Settings

    given: dict[str, Any] = {"proxy": options.proxy, "cni": options.cni, "nodes": options.nodes}
    for option, name in (("--pod-cidr", "pod_cidrs"), ("--service-cidr", "service_cidrs")):
        texts = [part.strip() for text in getattr(options, name[:-1]) for part in text.split(",")]
        if texts:
            given[name] = _cidrs(option, texts)
    return Settings(**given)


def _cidrs(option: str, texts: list[str]) -> tuple[str, ...]:
    from ipaddress import ip_network

    found = []
    for text in texts:
        try:
            found.append(ip_network(text))
        except ValueError as error:
            raise UsageError(f"{option} {text}: {error}") from None
        if "/" not in text:
            raise UsageError(f"{option} {text}: a prefix is ADDRESS/LENGTH, as in 10.244.0.0/16")
    if len({prefix.version for prefix in found}) != len(found):
        raise UsageError(f"{option}: at most one prefix of each family, primary first")
    return tuple(map(str, found))


def _policies(made: Assembled, speaker: Talk) -> None:
    """A CNI that ignores policies does so in silence; here it is said."""
    count = enforcement.policies_count(made.cluster)
    if count and not made.cni.enforces_policy:
        speaker.note(enforcement.no_effect(made.choice.cni.name, count))


def dumped(options: Any) -> StaticNetwork:
    """``--node-rules``: one node's kernel as its own tools dumped it."""
    if options.filename or options.context:
        raise UsageError("--node-rules takes the place of Kubernetes objects: drop -f and --context")
    from netsim.linux.dump import read_dump
    from netsim.linux.network import StaticNetwork

    held = read_dump(options.node_rules)
    return StaticNetwork({held.name: held})


def address(option: str, text: str) -> IPAddress:
    try:
        return ip(text)
    except ValueError:
        raise UsageError(f"{option} {text}: this is no IP address") from None
