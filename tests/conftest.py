"""``--update-golden`` and the fixture that holds output against files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what was produced as the new expectation")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden("cli/x.txt", text)``: equal to tests/golden/cli/x.txt, which --update-golden rewrites."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{name} has no golden file yet: run with --update-golden and look at it"
        assert text == path.read_text()

    return check


def _kernel_is_missing() -> str:
    """Why tests against the real kernel cannot run here; '' when they can."""
    import os
    import shutil
    import subprocess

    tools = ("ip", "bridge", "unshare", "iptables-save", "ip6tables-save", "iptables-legacy-save", "ipset", "tcpdump")
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: iproute2 iptables ipset tcpdump)"
    if os.geteuid() != 0:
        return "needs root (for namespaces of its own)"
    links = "ip link add probe0 type veth peer name probe1 && ip link add probe2 type bridge"
    probe = f"{links} && iptables-save && ipset create s hash:ip"
    done = subprocess.run(["unshare", "-n", "sh", "-ec", probe], capture_output=True, text=True, check=False)
    return f"this kernel or container refuses: {done.stderr.strip()}" if done.returncode else ""


def _uml_is_missing() -> str:
    """Why user-mode Linux cannot be had here; '' when it can."""
    from netsim.lab import uml

    packages = uml.missing()
    return f"not installed: {', '.join(packages)} (Debian packages)" if packages else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the machine does not allow is skipped and said; in CI and `make test-lab` nothing is: what is lost fails."""
    import os

    if os.environ.get("CI") or os.environ.get("NETSIM_SKIP_NOTHING"):
        return
    for marker, missing, what in (
        ("kernel", _kernel_is_missing, "compares with the real kernel"),
        ("uml", _uml_is_missing, "runs under user-mode Linux"),
    ):
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing() if marked else ""
        for item in marked if reason else ():
            item.add_marker(pytest.mark.skip(reason=f"{what}: {reason}; `make test-lab` installs what is needed"))
