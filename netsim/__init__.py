"""netsim: an exact, offline, packet-level emulator of a Kubernetes cluster's data plane."""

__version__ = "0.1.0"
