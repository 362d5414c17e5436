"""kube-proxy: Services as rules in every node's kernel."""

from netsim_backends.kube_proxy.iptables_backend import IPTABLES, IptablesBackend, IptablesPlugin, restore_document

__all__ = ["IPTABLES", "IptablesBackend", "IptablesPlugin", "restore_document"]
