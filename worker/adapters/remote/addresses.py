"""Decides to which addresses the worker may connect for an adapter. Pure."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether `address` is one of the public internet.

    Private, loopback, link-local, multicast and reserved addresses aren't, in any notation: an IPv6
    address may hold an IPv4 address, to which the machine or a gateway would connect.
    """
    ip = ip_address(address.partition("%")[0])
    held = _held(ip) if isinstance(ip, IPv6Address) else None
    if held is not None:
        return is_public(str(held))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _held(ip: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, or None."""
    if ip in _NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    teredo = ip.teredo[1] if ip.teredo else None
    return ip.ipv4_mapped or ip.sixtofour or teredo
