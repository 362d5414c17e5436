"""Sinks: which sockets are opened, without opening any."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from netsim.lab import sinks
from netsim.packet.model import Proto


@pytest.mark.parametrize("loaded", [False, True])
def test_sctp_has_sinks_only_where_the_kernel_speaks_it_already(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loaded: bool
) -> None:
    opened: list[tuple[Proto, int]] = []
    monkeypatch.setattr(sinks, "within", lambda name: nullcontext())
    monkeypatch.setattr(sinks, "_sink", lambda protocol, port: opened.append((protocol, port)) or Socket())
    monkeypatch.setattr(sinks, "_SPEAKS_SCTP", tmp_path if loaded else tmp_path / "sctp")
    held: Any = sinks.Sinks()
    held.open([("node/a", Proto.SCTP, 99), ("node/a", Proto.TCP, 80), ("node/a", Proto.ICMP, 0)])
    assert opened == [(Proto.TCP, 80), *([(Proto.SCTP, 99)] if loaded else [])]


class Socket:
    def close(self) -> None: ...
