"""``netsim reach``: who can reach whom on which ports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from netsim.cli import policy_input
from netsim.cli.parser import input_options
from netsim.errors import UsageError
from netsim.report.style import clean

if TYPE_CHECKING:
    from netsim_policies.algebra import PortSet
    from netsim_policies.reach import Edge, Group, Reachability
    from netsim_policies.services import Way

_FORMATS = ("text", "json", "csv", "md", "dot", "html")


def add(commands: Any, program: str) -> None:
    parser = commands.add_parser(
        "reach",
        help="who can reach whom on which ports; matrix or list; exposure",
        description="The whole matrix of workloads, nodes and the outside, or a part of it, as the policies allow it.",
        epilog=f"examples:\n  {program} reach -f @example --from deploy/shop/frontend\n"
        f"  {program} reach -f @example --to namespace/data --port 6379 -o md\n"
        f"  {program} reach -f @example --exposure\n"
        f"  {program} reach -f @example --services --to deploy/shop/cart\n",
    )
    chosen = "a place, namespace/NAME, an address or prefix, or a label selector such as app=web"
    parser.add_argument("--from", dest="sources", action="append", default=[], metavar="WHO", help=chosen)
    parser.add_argument("--to", dest="destinations", action="append", default=[], metavar="WHO", help="likewise")
    policy_input.port_options(parser)
    policy_input.options(parser)
    parser.add_argument(
        "--exposure", action="store_true", help="what is open to everybody, to the outside, to newcomers"
    )
    parser.add_argument(
        "--services",
        action="store_true",
        help="who reaches what through which Service and Ingress (text, json, csv, md)",
    )
    parser.add_argument(
        "--ingress-controller",
        action="append",
        default=[],
        metavar="WHO",
        help="the pods behind Ingress objects, as --from",
    )
    parser.add_argument("-o", "--output", choices=_FORMATS, default="text")
    input_options(parser)
    parser.set_defaults(run=run)


def run(given: Any) -> int:
    from netsim.cli import reach_formats
    from netsim_policies.reach import Reachability

    asked = policy_input.question(given)
    reach = Reachability(asked.world, policy_input.family(given))
    wanted = policy_input.asked_ports(given)
    for option, allowed in (("exposure", ("text", "json", "csv", "md")), ("services", ("text", "json", "csv", "md"))):
        if getattr(given, option) and given.output not in allowed:
            raise UsageError(f"--{option} is a table: -o {given.output} does not apply; there are {', '.join(allowed)}")
    if given.services:
        lines = reach_formats.ways(_ways(given, asked, reach, wanted), given.output)
    elif given.exposure:
        groups = choose(asked, reach, given.destinations) if given.destinations else reach.groups
        lines = reach_formats.exposure([reach.exposure(g) for g in groups if g.kind.value == "pod"], given.output)
    else:
        sources = choose(asked, reach, given.sources) if given.sources else reach.groups
        destinations = choose(asked, reach, given.destinations) if given.destinations else reach.groups
        edges = [cut for e in reach.edges(sources, destinations) if (cut := _within(e, wanted)) is not None]
        lines = reach_formats.edges(edges, sources, destinations, given.output)
    for line in lines:
        sys.stdout.write((clean(line) if given.output == "text" else line) + "\n")
    return 0


def _ways(
    given: Any, asked: policy_input.Question, reach: Reachability, wanted: PortSet | None
) -> Iterator[tuple[str, list[Way]]]:
    """(what is behind it, the ways in) for each entrance that leads to ``--to`` on ``--port``, for senders of ``--from``."""
    from netsim.cli import inputs
    from netsim.kube.objects import Resource
    from netsim_policies.services import Entrances

    cluster = asked.cluster
    ingresses = list(cluster.store.typed("Ingress", Resource))
    stated = choose(asked, reach, given.ingress_controller) if given.ingress_controller else None
    entrances = Entrances(reach, cluster.services.values(), cluster.slices, ingresses, stated)
    if ingresses and not entrances.controllers:
        text = (
            "no pod of the input looks like an ingress controller: --ingress-controller names it; Ingress is left out"
        )
        inputs.talk(given).note(text)
    senders = choose(asked, reach, given.sources) if given.sources else reach.groups
    goals = {i for g in choose(asked, reach, given.destinations) for i in g.members} if given.destinations else None
    for entrance in entrances:
        behind = [b for b in entrance.behind if wanted is None or wanted.holds(b.protocol, b.port)]
        if (behind or (wanted is None and goals is None)) and (
            goals is None or any(b.endpoint in goals for b in behind)
        ):
            ways = list(entrances.ways(entrance, senders))
            if ways:
                yield entrances.pods(entrance), ways


def _within(edge: Edge, wanted: PortSet | None) -> Edge | None:
    from netsim_policies.reach import Edge

    if wanted is None:
        return edge
    ports = edge.ports & wanted
    return Edge(edge.source, edge.destination, ports) if ports else None


def choose(asked: policy_input.Question, reach: Reachability, texts: list[str]) -> list[Group]:
    """The groups that any of ``texts`` means, in the order of ``reach.groups``."""
    names: set[str] = set()
    for text in texts:
        found = _one(asked, reach, text)
        if not found:
            raise UsageError(f"{text}: nobody in the input is meant by that")
        names |= {g.name for g in found}
    return [g for g in reach.groups if g.name in names]


def _one(asked: policy_input.Question, reach: Reachability, text: str) -> list[Group]:
    from netsim.kube.selectors import matches
    from netsim_policies.algebra import AddressSet

    endpoints = reach.world.endpoints
    kind, _, rest = text.partition("/")
    if kind in ("namespace", "ns"):
        return [g for g in reach.groups if endpoints[g.members[0]].namespace == rest]
    if text == "outside":
        return [g for g in reach.groups if g.kind.value == "external"]
    if "=" in text and "/" not in text.partition("=")[0].replace(".", ""):
        labels = dict(part.split("=", 1) for part in text.split(","))
        selector = {"matchLabels": labels}
        return [g for g in reach.groups if any(matches(selector, endpoints[i].labels) for i in g.members)]
    try:
        addresses = AddressSet.prefix(text)
    except ValueError:
        target = {t.endpoint.name for t in asked.destinations(text)}
        return [g for g in reach.groups if any(endpoints[i].name in target for i in g.members)]
    inside = [g for g in reach.groups if any(addresses.holds(a) for i in g.members for a in endpoints[i].addresses)]
    parts = [g for g in reach.groups if (o := endpoints[g.members[0]].outside) is not None and o & addresses]
    return inside or parts
