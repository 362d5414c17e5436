"""Connections as pytest assertions.

    def test_the_database_is_closed(netsim):
        cluster = netsim("manifests/", "policies/")
        cluster.assert_denied("external", "pod/data/postgres-0", port=5432)
        cluster.assert_allowed("deploy/shop/cart", "svc/data/postgres:sql")

A failed assertion prints the explanation that disproves it. Answers are those of the policies (``netsim check``).
"""

from __future__ import annotations

from typing import Any

import pytest


class Connections:
    """One cluster's policies, asked by place."""

    def __init__(self, *paths: str, namespace: str = "default") -> None:
        from types import SimpleNamespace

        from netsim.cli.policy_input import Question, running

        given: Any = SimpleNamespace(
            recursive=True, lenient=False, namespace=namespace, context=None, quiet=True, enforcement="api",
            proxy=None, cni=None, nodes=0, pod_cidr=[], service_cidr=[],
        )  # fmt: skip
        self._question = Question(running(given, list(paths)), namespace)

    def assert_allowed(
        self, source: str, destination: str, port: int | str | None = None, protocol: str = "TCP"
    ) -> None:
        """Every endpoint behind ``destination`` may be reached."""
        __tracebackhide__ = True
        self._expect("allow", source, destination, port, protocol)

    def assert_denied(
        self, source: str, destination: str, port: int | str | None = None, protocol: str = "TCP"
    ) -> None:
        """No endpoint behind ``destination`` may be reached."""
        __tracebackhide__ = True
        self._expect("deny", source, destination, port, protocol)

    def _expect(self, expect: str, source: str, destination: str, port: int | str | None, protocol: str) -> None:
        __tracebackhide__ = True
        from netsim.cli.expectations import Expectation, evaluate
        from netsim.errors import Source
        from netsim.packet.address import Family

        asked = Expectation(
            f"{source} to {destination}", source, destination, protocol.upper(), port, expect, "", Source("test")
        )
        (result,) = evaluate(self._question, [asked], Family.IPV4)
        if not result.holds:
            pytest.fail("\n".join(result.lines()), pytrace=False)


@pytest.fixture
def netsim() -> type[Connections]:
    """Call it with files or directories of manifests."""
    return Connections
