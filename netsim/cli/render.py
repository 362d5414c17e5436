"""``netsim render NODE [WHAT…]``: what the node's kernel would hold, in each tool's own words."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netsim.linux.network import Namespace

# what can be asked for → the tool whose output it is
KINDS = {
    "iptables": "iptables-save",
    "ip6tables": "ip6tables-save",
    "ipset": "ipset save",
    "route": "ip route and ip -6 route, table local left out",
    "rule": "ip rule and ip -6 rule",
    "neigh": "ip neigh",
    "fdb": "bridge fdb",
    "link": "ip link",
    "addr": "ip addr",
    "sysctl": "sysctl, what differs from the defaults",
}
ABSENT = ("ipvs", "nft", "bird")


def add(commands: Any, program: str) -> None:
    from netsim.cli.parser import input_options

    listed = "\n".join(f"  {name:<10} as {tool}" for name, tool in KINDS.items())
    parser = commands.add_parser(
        "render",
        help="exactly what a node's kernel would hold",
        description="Print the rules, sets, routes and tables of one node, each in its own tool's format.",
        epilog=f"""\
what there is (all of it by default):
{listed}

examples:
  {program} render -f @example n1 iptables
  {program} render -f @example n2 route fdb neigh
  {program} render pod/shop/web-0 -f @example -o json addr route""",
    )
    parser.add_argument("node", metavar="NODE", help="n1 or node/n1; pod/NS/NAME is a pod's own network namespace")
    parser.add_argument("what", metavar="WHAT", nargs="*", help=f"any of: {' '.join((*KINDS, *ABSENT))}")
    parser.add_argument("--form", choices=("save", "restore"), default="save",
                        help="iptables as saved, or as kube-proxy feeds it to iptables-restore")  # fmt: skip
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    input_options(parser)
    parser.set_defaults(run=run)


def run(options: Any) -> int:
    from netsim.cli import inputs
    from netsim.cli.places import Places
    from netsim.errors import UsageError

    if inputs.print_kubectl(options):
        return 0
    what = list(options.what)
    unknown = [name for name in what if name not in KINDS and name not in ABSENT]
    if unknown:
        raise UsageError(f"{', '.join(unknown)}: not among {' '.join((*KINDS, *ABSENT))}")
    made = inputs.assembled(options)
    places = Places(made.cluster, made.network, options.namespace or "default")
    place = places.source(options.node if "/" in options.node else f"node/{options.node}")
    assert place.namespace is not None
    held = made.network.namespace(place.namespace)
    for name in what:
        if name in ABSENT:
            inputs.talk(options).note(f"{name} is not used by this cluster's data plane")
    chosen = list(dict.fromkeys(what or KINDS))
    restore = _restorer(made, held) if options.form == "restore" else None
    if options.output == "json":
        _print_json(held, chosen, restore)
        return 0
    titled = len(chosen) > 1
    for name in chosen:
        lines = _lines(held, name, restore)
        first = next(lines, None)
        if first is None:
            continue
        if titled:
            sys.stdout.write(f"# {KINDS[name]}\n")
        sys.stdout.write(first + "\n")
        sys.stdout.writelines(line + "\n" for line in lines)
    return 0


def _print_json(held: Namespace, chosen: list[str], restore: Restore | None) -> None:
    import json

    objects = {name: "".join(f"{line}\n" for line in _lines(held, name, restore)) for name in chosen}
    document = {
        "apiVersion": "netsim/v1alpha1",
        "kind": "Render",
        "node": held.node,
        "namespace": held.name,
        "objects": objects,
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


Restore = Callable[[int], Iterator[str]]


def _restorer(made: Any, held: Namespace) -> Restore:
    from netsim.errors import UsageError
    from netsim.packet.address import Family

    proxier = getattr(made.proxy, "node_proxier", None)
    if proxier is None or held.node is None or held.name != f"node/{held.node}":
        raise UsageError("--form restore: only a node whose proxy feeds iptables-restore has such a form")
    own = [address.interface.ip for address in held.addresses]
    return lambda version: proxier(held.node, Family(version), own).document()


def _lines(held: Namespace, name: str, restore: Restore | None) -> Iterator[str]:
    """As ``_printed``, without line ends, which only some printers write."""
    return (line.removesuffix("\n") for line in _printed(held, name, restore))


def _printed(held: Namespace, name: str, restore: Restore | None) -> Iterator[str]:
    """One kind of kernel object as its tool prints it; lines come as they are made, so that big tables stream."""
    from netsim.packet.address import Family

    if name in ("iptables", "ip6tables"):
        version = 4 if name == "iptables" else 6
        if restore is not None:
            yield from restore(version)
        elif (ruleset := held.rulesets.get(Family(version))) is not None:
            from netsim.linux.netfilter.text import print_save

            yield from print_save(ruleset)
    elif name == "ipset":
        from netsim.linux.ipset import print_save as print_sets

        yield from print_sets(held.ipsets)
    elif name == "sysctl":
        from netsim.linux.sysctl import sysctl_lines

        yield from sysctl_lines(held.sysctls)
    elif name in ("route", "rule"):
        from netsim.linux.iproute_text import route_lines, rule_lines

        for family in Family:
            yield from (route_lines if name == "route" else rule_lines)(held, family)
    elif name in KINDS:
        from netsim.linux import iproute_text

        yield from getattr(iproute_text, f"{name}_lines")(held)
