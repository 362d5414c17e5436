"""flannel: leases for nodes, a tunnel or routes between them, and the CNI plugins it delegates to."""

from netsim_backends.flannel.backend import BACKEND, FlannelBackend
from netsim_backends.flannel.plugin import FlannelPlugin

__all__ = ["BACKEND", "FlannelBackend", "FlannelPlugin"]
