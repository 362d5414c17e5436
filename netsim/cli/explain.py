"""``netsim explain A B``: which policies decide between two places, and why."""

from __future__ import annotations

import sys
from typing import Any

from netsim.cli import policy_input
from netsim.cli.parser import input_options
from netsim.report.style import clean


def add(commands: Any, program: str) -> None:
    parser = commands.add_parser(
        "explain",
        help="which policies decide between two places, and why",
        description="Each direction, each tier, each policy that selects, and the first reason why a rule does not match.",
        epilog=f"examples:\n  {program} explain -f @example pod/shop/web-0 svc/shop/cart:http\n"
        f"  {program} explain -f @example external pod/shop/web-0 --port 8080 -v\n",
    )
    parser.add_argument(
        "source", metavar="A", help="a place: pod/NS/NAME, deploy/NS/NAME, node/NAME, an address, external"
    )
    parser.add_argument("destination", metavar="B", help="a place; a Service stands for the pods behind it")
    policy_input.port_options(parser)
    policy_input.options(parser)
    parser.add_argument("-v", "--verbose", action="store_true", help="also the policies that do not select")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    input_options(parser)
    parser.set_defaults(run=run)


def run(given: Any) -> int:
    """0 when the answer was given, whatever it is."""
    from netsim_policies.explain import explain, to_json, to_text

    asked = policy_input.question(given)
    source = asked.source(given.source).endpoint
    found = []
    seen = set()
    for target in asked.destinations(given.destination, given.source):
        if target.endpoint.name not in seen:
            seen.add(target.endpoint.name)
            found.append((target, explain(asked.world, source, target.endpoint, policy_input.family(given))))
    if given.output == "json":
        import json

        items = [to_json(explanation) | _through(target) for target, explanation in found]
        document = items[0] if len(items) == 1 else {"apiVersion": "netsim/v1alpha1", "kind": "List", "items": items}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    wanted = policy_input.asked_ports(given)
    for target, explanation in found:
        if target.service is not None:
            name = target.endpoint.name
            sys.stdout.write(
                f"Service {target.service}: policy sees {name} {target.protocol}:{target.port} behind it\n"
            )
        for line in to_text(explanation, everything=given.verbose):
            sys.stdout.write(clean(line) + "\n")
        ports = wanted or _ports_of(target)
        if ports is not None:
            allowed = explanation.decision.allowed & ports
            verdict = "ALLOWED" if allowed == ports else f"ALLOWED in part: {allowed}" if allowed else "DENIED"
            sys.stdout.write(f"  {ports}: {verdict}\n")
    return 0


def _through(target: policy_input.Target) -> dict[str, Any]:
    """The Service on the way, and what policy sees behind it."""
    if target.service is None:
        return {}
    return {"through": {"service": target.service, "protocol": target.protocol, "port": target.port}}


def _ports_of(target: policy_input.Target) -> Any:
    from netsim_policies.algebra import PortSet

    return PortSet.single(target.protocol or "TCP", target.port) if target.port else None
