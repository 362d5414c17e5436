"""What the tables say of one namespace besides its routes: devices, addresses, rules; and how its routes' next hops work."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from netsim.compiled import fib_tables as t
from netsim.compiled.addresses import Addresses
from netsim.compiled.names import Names
from netsim.linux.fib import Fib
from netsim.linux.kernel_made import SCOPES, all_addresses, is_secondary, primaries
from netsim.linux.link import LinkKind
from netsim.linux.network import Namespace
from netsim.linux.route import Address, NextHop, Route, RouteType
from netsim.linux.source_address import label, scope_of
from netsim.linux.sysctl import Sysctls
from netsim.packet.address import Family, IPAddress

_CONF = "net.ipv4.conf."
_DEFAULT_PRIORITIES = {0, 32766, 32767}
_WORD = (1 << 64) - 1

HopRow = tuple[int, int, int, int]  # a row of HOP


def halves(address: int, bits: int) -> tuple[int, int]:
    """An address or prefix as (``hi``, ``lo``)."""
    value = address << (128 - bits)
    return value >> 64, value & _WORD


class Facts:
    """Read from a namespace once for each family, when its tables are made."""

    def __init__(self, namespace: Namespace, family: Family, addresses: Addresses, names: Names) -> None:
        self.namespace = namespace
        self.names = names
        self.handles = addresses
        self.links = {link.name: link for link in namespace.links}
        self.working = {link.name for link in namespace.links if link.up}
        self.addresses = all_addresses(namespace, family)
        self.own4: dict[IPAddress, str] = {}  # IPv4 address → the first device that has it
        for device, held in self.addresses.items() if family is Family.IPV4 else ():
            for one in held:
                self.own4.setdefault(one.interface.ip, device)

    @cached_property
    def _fib(self) -> Fib:
        """Only for gateways whose device nobody named."""
        return Fib(self.namespace)

    # -- next hops ---------------------------------------------------------------------------------------------------
    def hops(self, route: Route, shared: bool = False) -> tuple[bool, list[HopRow]]:
        """(is the route RARE?, its next hops that work here, as ``Fib._use`` finds them).

        ``shared``: written here for others too, so this namespace's own addresses do not count (who reads a shared run has
        none of them for a gateway)."""
        given = route.nexthops or (NextHop(route.gateway, route.device, 1, route.onlink),)
        found: list[HopRow] = []
        for hop in given:
            device, gateway = hop.device, hop.gateway
            if gateway is not None and gateway.version != route.destination.version:
                return True, []
            if device is None and gateway is not None:
                device = self._fib.device_of(gateway, route.table)
            usable = device is None or device in self.working
            if not usable and not (route.type is RouteType.LOCAL and device in self.links):
                continue
            if device is None and route.type is RouteType.UNICAST:
                continue
            if not shared and gateway is not None and gateway.version == 4 and self.own4.get(gateway) == device:
                gateway = None
            flags = (t.ONLINK if hop.onlink else 0) | (t.HAS_GATEWAY if gateway is not None else 0)
            handle = self.handles.handle(gateway) if gateway is not None else 0
            found.append((self.names.number(device or ""), handle, flags, hop.weight))
        return False, found

    # -- the namespace's own rows --------------------------------------------------------------------------------------
    def flags(self) -> int:
        """Of NAMESPACE."""
        sysctls = Sysctls(self.namespace.sysctls)
        flags = t.PRESENT
        flags |= t.FORWARDING4 if sysctls.forwarding(4) else 0
        flags |= t.FORWARDING6 if sysctls.forwarding(6) else 0
        flags |= t.HASH_POLICY4 if sysctls.number("net.ipv4.fib_multipath_hash_policy") == 1 else 0
        flags |= t.HASH_POLICY6 if sysctls.number("net.ipv6.fib_multipath_hash_policy") == 1 else 0
        custom = any(
            rule.priority not in _DEFAULT_PRIORITIES and rule.family is not Family.IPV6 for rule in self.namespace.rules
        )
        return flags | (t.CUSTOM_RULES if custom else 0)

    def _device_sysctls(self, sysctls: Sysctls, device: str) -> int:
        """``ACCEPT_LOCAL``, ``ROUTE_LOCALNET``, ``SRC_VALID_MARK`` and the mode of rp_filter on a device."""
        found = sysctls.device("rp_filter", device) << t.RP_SHIFT
        found |= t.ACCEPT_LOCAL if sysctls.device("accept_local", device) else 0
        found |= t.ROUTE_LOCALNET if sysctls.device("route_localnet", device) else 0
        return found | (t.SRC_VALID_MARK if sysctls.device("src_valid_mark", device) else 0)

    def devices(self) -> Iterator[tuple[str, int, list[Address]]]:
        """(name, flags of DEVICE, primary IPv4 addresses if it works), in the order in which addresses are looked for.
        Of the IPv4 facts."""
        sysctls = Sysctls(self.namespace.sysctls)
        named = {key[len(_CONF) :].rpartition(".")[0] for key in self.namespace.sysctls if key.startswith(_CONF)}
        common = self._device_sysctls(sysctls, "")
        first = primaries(self.namespace.addresses)
        for device, held in self.addresses.items():
            link = self.links.get(device)
            flags = self._device_sysctls(sysctls, device) if device in named else common
            if link is not None:
                flags |= t.EXISTS | (t.UP if link.up else 0)
                flags |= t.LOOPBACK if link.kind is LinkKind.LOOPBACK else 0
            flags |= t.HAS_IPV4 if held else 0
            usable = device in self.working
            yield device, flags, [a for a in held if not is_secondary(a, first)] if usable else []

    def candidates(self) -> list[tuple[int, int, int, int, int, int, int, int]]:
        """Rows of CANDIDATE: the IPv6 addresses of devices that work. Of the IPv6 facts."""
        found = []
        for device, held in self.addresses.items():
            for one in held if device in self.working else ():
                ip = one.interface.ip
                high, low = halves(int(ip), 128)
                where = self.handles.handle(ip), self.names.number(device), one.interface.network.prefixlen
                found.append((high, low, *where, scope_of(ip), label(ip), 0))
        return found


def lasting(address: Address) -> bool:
    """Does a route of global scope take this address of its device for a source?"""
    return SCOPES.get(address.scope, 0) <= SCOPES["global"]
