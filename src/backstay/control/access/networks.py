"""From which networks a token may come."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from backstay.errors import InvalidRequest

_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> str:
    """A network such as `10.0.0.0/8` or `fd00::/8` in its usual form; an address is a network of one.

    Raises InvalidRequest.
    """
    try:
        found = ip_network(text)
        if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
            found = ip_network(f"{IPv4Address(int(found.network_address) & 0xFFFFFFFF)}/{found.prefixlen - 96}")
    except ValueError as error:
        raise InvalidRequest(
            f"{text!r} is no network", cause=str(error), hint="write it like 10.0.0.0/8 or fd00::/8"
        ) from error
    return str(found)


def is_from(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of the networks; one that cannot be read lies in none."""
    found = _address(address)
    if found is None:
        return False
    return any(found in ip_network(network) for network in networks)


def is_part_of(network: str, others: Iterable[str]) -> bool:
    """Whether a whole network lies in one of the others."""
    inner = ip_network(network)
    for outer in map(ip_network, others):
        if isinstance(inner, IPv6Network) == isinstance(outer, IPv6Network) and (
            inner.network_address in outer and inner.prefixlen >= outer.prefixlen
        ):
            return True
    return False


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address is the same when it comes through a socket for IPv6, as `::ffff:10.0.0.1`."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        return IPv6Address(int(found))  # without the interface of a link-local one
    return found
