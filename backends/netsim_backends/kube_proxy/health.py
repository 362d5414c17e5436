"""What kube-proxy answers on a Service's health check node port (kubernetes pkg/proxy/healthcheck, 1.28 to 1.35).

An external load balancer asks every node, and sends its traffic where the answer is 200. All proxy modes share this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from netsim_backends.kube_proxy.endpoints import Endpoint


@dataclass(frozen=True)
class HealthAnswer:
    """``local_endpoints`` counts addresses, not ports; the load balancer may use it as a weight."""

    namespace: str
    service: str
    local_endpoints: int
    proxy_healthy: bool = True

    @property
    def status(self) -> int:
        return 200 if self.local_endpoints and self.proxy_healthy else 503

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "X-Load-Balancing-Endpoint-Weight": str(self.local_endpoints)}

    @property
    def body(self) -> str:
        answer = {
            "service": {"namespace": self.namespace, "name": self.service},
            "localEndpoints": self.local_endpoints,
            "serviceProxyHealthy": self.proxy_healthy,
        }
        return json.dumps(answer, separators=(",", ":"))


def health_answer(
    namespace: str, service: str, endpoints: Iterable[Endpoint], node: str, proxy_healthy: bool = True
) -> HealthAnswer:
    """``endpoints``: those of all the Service's ports, as ``node`` sees them; only ready ones on the node count."""
    here = {e.ip for e in endpoints if e.ready and e.node and e.node == node}
    return HealthAnswer(namespace, service, len(here), proxy_healthy)
