"""Random rules through the machine's own iptables: what iptables-save prints must be what print_save prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from netsim.linux.netfilter import registry, text
from netsim.linux.netfilter.base import TABLE_HOOKS, Match, Target, Verdict
from netsim.linux.netfilter.rule import Chain, Rule
from netsim.linux.netfilter.table import Ruleset, Table
from netsim.packet.address import Family, network

pytestmark = pytest.mark.kernel

# What a plain kernel cannot load from text alone, and why.
MATCHES_NOT_LOADED = {
    "nfacct": "the counter must have been made with the nfacct tool",
    "ipvs": "needs the ip_vs module, which ordinary test kernels lack",
}
TARGETS_NOT_LOADED: dict[str, str] = {
    "TCPMSS": "the kernel takes it only beside a match for SYN segments",
    "TPROXY": "the kernel takes it only for TCP and UDP, and its module is in few test kernels",
}


@st.composite
def rules(draw: st.DrawFn, family: Family, table: str) -> Rule:
    prefixes = ["10.0.0.0/8", "10.96.0.10/32"] if family is Family.IPV4 else ["fd00::/8", "fd00::a/128"]
    prefix = st.one_of(st.none(), st.sampled_from([network(p) for p in prefixes]))
    kinds = [m for m in registry.all_matches() if family in m.families and m.name not in MATCHES_NOT_LOADED]
    if table != "raw" and table != "mangle":
        kinds = [m for m in kinds if m.name != "rpfilter"]
    if table == "raw":
        kinds = [m for m in kinds if m.name not in ("state",)]
    if family is Family.IPV6 or table != "filter":
        kinds = [m for m in kinds if m.name != "physdev"]
    protocol = draw(st.sampled_from((None, 6, 17, 132, 1 if family is Family.IPV4 else 58)))
    kinds = [m for m in kinds if not m.protocols or protocol in m.protocols]
    chosen = draw(st.lists(st.sampled_from(kinds), max_size=3, unique=True))
    matches: tuple[Match, ...] = tuple([draw(kind.strategy(family)) for kind in chosen])
    targets = [t for t in registry.all_targets() if t.name not in TARGETS_NOT_LOADED]
    targets = [t for t in targets if t.tables is None or table in t.tables]
    target: type[Target] | None = draw(st.one_of(st.none(), st.sampled_from(targets)))
    source, destination = draw(prefix), draw(prefix)
    device = draw(st.sampled_from((None, "eth0", "cali+")))
    return Rule(
        source=source,
        source_not=source is not None and draw(st.booleans()),
        destination=destination,
        destination_not=destination is not None and draw(st.booleans()),
        iif=device,
        iif_not=device is not None and draw(st.booleans()),
        protocol=protocol,
        matches=matches,
        target=None if target is None else draw(target.strategy(family)),
    )


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "-n", "bash", "-c", script, "bash", *arguments], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"])
@settings(
    max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate]
)
@given(data=st.data())
def test_saved_as_printed(tool: str, data: st.DataObject) -> None:
    assert os.geteuid() == 0, "needs root"
    assert shutil.which(tool), f"needs {tool}"
    family = Family.IPV6 if tool.startswith("ip6") else Family.IPV4
    tables = {}
    for name in ("mangle", "raw", "filter", "nat"):
        drawn = data.draw(st.lists(rules(family, name), min_size=10, max_size=30))
        chains = {hook.value: Chain(hook.value, (), Verdict.ACCEPT) for hook in TABLE_HOOKS[name]}
        chains["netsim"] = Chain("netsim", tuple(drawn))
        tables[name] = Table(name, chains)
    expected = "".join(text.print_save(Ruleset(family, tables)))
    assert text.parse_save(expected, family) == Ruleset(family, tables)
    inet = "inet6" if family is Family.IPV6 else "inet"
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "document")
        document.write_text(expected)
        result = run(
            f"ipset create netsim-a hash:ip,port,ip family {inet}; ipset create netsim-b hash:ip,port,ip family {inet}; "
            f"{tool}-restore {document} && {tool}-save",
        )
    assert result.returncode == 0, result.stderr + _named_line(result.stderr, expected)
    saved, printed = _by_table(result.stdout), _by_table(expected)
    for name in printed:
        assert [line for line in saved[name] if line not in printed[name]] == []
        assert saved[name] == printed[name]
    if "nft" in tool:  # the legacy tool lists tables by when the kernel first saw them
        assert list(saved) == list(printed)


def _by_table(document: str) -> dict[str, list[str]]:
    """Lines by table, without comments and counters."""
    found: dict[str, list[str]] = {}
    for line in document.splitlines():
        if line.startswith("*"):
            lines = found.setdefault(line, [])
        elif not line.startswith("#"):
            lines.append(line.split(" [")[0] if line.startswith(":") else line)
    return found


def _named_line(message: str, document: str) -> str:
    numbers = [int(word) for word in message.replace(":", " ").split() if word.isdigit()]
    lines = document.splitlines()
    return "\n".join(lines[number - 1] for number in numbers if 0 < number <= len(lines))
