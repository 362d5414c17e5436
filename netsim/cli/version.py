"""``netsim version``."""

from __future__ import annotations

from typing import Any


def add(commands: Any, program: str) -> None:
    parser = commands.add_parser("version", help="which netsim this is", description="Print the version.")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.set_defaults(run=run)


def run(options: Any) -> int:
    import sys

    from netsim import __version__

    if options.output == "json":
        import json

        document = {"apiVersion": "netsim/v1alpha1", "kind": "Version", "version": __version__}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(f"netsim {__version__}\n")
    return 0
