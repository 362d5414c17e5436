"""A routed pod network without tunnels, as cloud providers give it."""

from netsim_backends.flat.backend import BACKEND, FlatBackend, FlatPlugin

__all__ = ["BACKEND", "FlatBackend", "FlatPlugin"]
