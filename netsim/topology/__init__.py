"""Nodes, pods and the network between them, assembled into one Network of namespaces."""

from netsim.topology.assemble import Assembled, assemble

__all__ = ["Assembled", "assemble"]
