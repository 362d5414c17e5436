"""One module per policy API. Each has ``KINDS`` (the kinds it reads) and ``read(resource) -> Policy``.

network_policy          networking.k8s.io/v1              NetworkPolicy
admin_network_policy    policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy, BaselineAdminNetworkPolicy
cluster_network_policy  policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from netsim.kube.objects import Resource
from netsim_policies.model import Policy

MODULES = ("network_policy", "admin_network_policy", "cluster_network_policy")


class Api(Protocol):
    KINDS: tuple[str, ...]

    def read(self, resource: Resource) -> Policy:
        """The policy in the common model; InputError listing every problem, in the API server's words."""


def apis() -> dict[str, Api]:
    """kind → the module that reads it."""
    modules = [cast("Api", import_module(f"{__name__}.{name}")) for name in MODULES]
    return {kind: module for module in modules for kind in module.KINDS}
