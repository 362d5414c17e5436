"""``netsim lab verify``: its options, its probe list, and what it leaves behind."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from netsim.topology.assemble import Assembled, LazyNetwork


def add_options(parser: Any) -> None:
    parser.add_argument("-v", "--verbose", action="store_true", help="name every probe that agrees")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(text)")
    parser.add_argument("--probes", metavar="FILE", help="send these probes instead of every path class of the cluster")
    parser.add_argument(
        "--record", type=os.path.abspath, metavar="FILE", help="write the kernel's answers to FILE (.json or .json.gz)"
    )
    parser.add_argument(
        "--rule-trace",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="hold the kernel's own rule trace against netsim's rule path (where iptables is nft's)",
    )


def asked(made: Assembled, network: LazyNetwork, options: Any) -> Any:
    """What verify is to do. InputError lists what is wrong with the probe list."""
    from netsim.cli.probe_file import read
    from netsim.lab.verify import Asked

    probes = read(options.probes, made, network, options.namespace) if options.probes else None
    return Asked(probes, options.rule_trace, recording=bool(options.record))


def compare(made: Assembled, network: LazyNetwork, wanted: Any, options: Any, recorded: Path) -> int:
    """Inside the lab: send, compare, tell; what is to be kept goes to ``recorded``, for a guest may write nowhere else. The
    exit code."""
    from netsim.lab import recording
    from netsim.lab.result import show
    from netsim.lab.verify import verify

    result, flights = verify(made, network, wanted)
    if options.record:
        recording.write(recorded, result, flights, _reference(options))
    return show(result, as_json=options.output == "json", verbose=options.verbose)


def keep(recorded: Path, options: Any) -> None:
    """Bring the recording to where it was asked for. InputError if it cannot be written there."""
    if not options.record or not recorded.exists():
        return
    import gzip

    from netsim.errors import InputError, Problem, Source

    data = recorded.read_bytes()
    try:
        with open(options.record, "wb") as file:
            file.write(data if options.record.endswith(".gz") else gzip.decompress(data))
    except OSError as error:
        raise InputError([Problem(f"cannot be written: {error.strerror}", Source(options.record))]) from None


def _reference(options: Any) -> dict[str, Any]:
    """How to get the cluster again."""
    given = {
        "files": options.filename, "proxy": options.proxy, "cni": options.cni, "nodes": options.nodes,
        "podCIDRs": options.pod_cidr, "serviceCIDRs": options.service_cidr,
    }  # fmt: skip
    return {key: value for key, value in given.items() if value}
