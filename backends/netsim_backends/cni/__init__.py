"""The CNI reference plugins: bridge, ptp, host-local and portmap, alone or as what other backends delegate to."""

from netsim_backends.cni.backend import BRIDGE, PTP, DelegateBackend, DelegatePlugin

__all__ = ["BRIDGE", "PTP", "DelegateBackend", "DelegatePlugin"]
