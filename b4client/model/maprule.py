"""Softwire addresses: the IPv6 address that carries an IPv4 address and a PSID (RFC 7597 6, RFC 7596 5.1)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

PSID_MAX = 0xFFFF


def lw_address(prefix: IPv6Network, ipv4: IPv4Address, psid: int) -> IPv6Address:
    """The lwB4's /128: ``prefix`` padded with zeros to 64 bits, 0x0000, ``ipv4``, ``psid`` (RFC 7596 5.1 Fig. 3 [L-3]).

    ``psid`` is the ordinary integer, 0 for an address that is not shared. A prefix longer than 64 bits overwrites what
    it reaches of the lower half (RFC 7597 6 [M-7, X-10]). Raises ValueError when the PSID does not fit in 16 bits.
    """
    if not 0 <= psid <= PSID_MAX:
        raise ValueError(f"PSID {psid} does not fit in the 16 bits of an interface identifier")
    identifier = int(ipv4) << 16 | psid
    return IPv6Address(int(prefix.network_address) | identifier & int(prefix.hostmask))
