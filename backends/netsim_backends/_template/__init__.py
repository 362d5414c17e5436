"""The smallest network that works, to copy: see README.md in this folder."""

from netsim_backends._template.backend import BACKEND, TemplateBackend, TemplatePlugin

__all__ = ["BACKEND", "TemplateBackend", "TemplatePlugin"]
