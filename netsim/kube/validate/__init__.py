from __future__ import annotations

from typing import Any

from netsim.kube.fault import Fault


def validate(body: dict[str, Any], kind: str) -> list[Fault]:
    return []
