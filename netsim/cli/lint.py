"""``netsim lint``: policies and Services that cannot mean what they say."""

from __future__ import annotations

import sys
from typing import Any

from netsim.cli import enforcement, policy_input
from netsim.cli.parser import input_options
from netsim.report.style import clean


def add(commands: Any, program: str) -> None:
    parser = commands.add_parser(
        "lint",
        help="policies and Services that cannot mean what they say",
        description="Each finding with its file and line, what is wrong and what to do. Exit 1 when a finding is at\n"
        "least as severe as --fail-on.",
        epilog=f"examples:\n  {program} lint -f @example\n  {program} lint -f @example -o sarif\n",
    )
    parser.add_argument("--fail-on", choices=("error", "warning", "info", "never"), default="error", help="(error)")
    parser.add_argument("-o", "--output", choices=("text", "json", "sarif"), default="text")
    input_options(parser)
    parser.set_defaults(run=run)


def run(given: Any) -> int:
    from netsim import __version__
    from netsim.kube.objects import Resource, Service
    from netsim_policies.lint import SEVERITIES, lint, to_sarif
    from netsim_policies.world import world

    cluster = policy_input.running(given, list(given.filename))
    services = list(cluster.store.typed("Service", Service))
    resources = list(cluster.store.typed("NetworkPolicy", Resource))
    network = enforcement.plugin(cluster)
    findings = lint(world(cluster.store), services, resources, network[0] if network and not network[1] else None)
    if given.output == "text":
        for finding in findings:
            sys.stdout.write(clean(str(finding)) + "\n")
        counts = {s: sum(f.severity == s for f in findings) for s in SEVERITIES}
        shown = ", ".join(f"{n} {s}{'s' if n != 1 and s != 'info' else ''}" for s, n in counts.items() if n)
        sys.stdout.write(f"{shown or 'nothing to complain about'}\n")
    else:
        import json

        document = to_sarif(findings, __version__) if given.output == "sarif" else _json(findings)
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    if given.fail_on == "never":
        return 0
    limit = SEVERITIES.index(given.fail_on)
    return 1 if any(SEVERITIES.index(f.severity) <= limit for f in findings) else 0


def _json(findings: Any) -> dict[str, Any]:
    return {
        "apiVersion": "netsim/v1alpha1",
        "kind": "LintResults",
        "findings": [
            {
                "code": f.code,
                "name": f.name,
                "severity": f.severity,
                "object": f.object,
                "field": f.field or None,
                "message": f.message,
                "advice": f.advice,
                "source": str(f.source) if f.source else None,
            }
            for f in findings
        ],
    }
