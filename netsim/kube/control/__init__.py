"""The embedded control plane: what the API server's allocators, the controllers and the scheduler would have done.

``run`` (netsim.kube.control.run) turns a store of manifests or of a dump into a running cluster, deterministically.
"""

from __future__ import annotations

from netsim.kube.control.run import run

__all__ = ["run"]
