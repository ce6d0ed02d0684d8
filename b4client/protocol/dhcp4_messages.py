"""DHCPv4 messages of the client inside 4o6: requirements table T (RFC 2131 4.3.6, 4.4.1; RFC 7341 8; RFC 7618 5 to 7).

Writing: one function per row of the table. Reading: what an OFFER, ACK or NAK must be before it is believed.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from b4client.model.errors import OfferError, WireError
from b4client.model.lease import Lease4, LeasedSoftwire
from b4client.model.portset import PortSet
from b4client.protocol.counters import Counters
from b4client.protocol.dhcp4_states import Offer
from b4client.wire import dhcp4, dhcp6, softwire46
from b4client.wire.dhcp4 import BOOTREQUEST, ZERO, Dhcp4Message, MessageType, Option
from b4client.wire.softwire46 import PortParams

PARAMETERS = (
    Option.SUBNET_MASK,
    Option.DNS,
    Option.DOMAIN,
    Option.MTU,
    Option.NTP,
    Option.LEASE_TIME,
    Option.SERVER_ID,
    Option.T1,
    Option.T2,
    Option.DOMAIN_SEARCH,
    Option.V4_PORTPARAMS,
)
"""The parameter request list, the same in DISCOVER and every REQUEST [T-3]. 159 says that a shared address is welcome
(RFC 7618 5); 108 must not be in it, since IPv4 is what we are here for (RFC 8925 3.2 [S-19])."""
MAX_MESSAGE = 1472
"""Option 57: what we take in one DHCPv4 message. IPv6 fragmentation begins above it on common links."""
INFINITE = 0xFFFFFFFF
T1_SHARE, T2_SHARE, FUZZ = 0.5, 0.875, 0.02
KEPT_OPTIONS = frozenset(
    {
        Option.DNS,
        Option.DOMAIN,
        Option.MTU,
        Option.NTP,
        Option.DOMAIN_SEARCH,
    }
)
FORBIDDEN_OPTIONS = frozenset({Option.REQUESTED_ADDRESS, Option.PARAMETER_LIST, Option.MAX_SIZE})
"""What no server's message may hold (RFC 2131 table 3)."""
NAK_OPTIONS = frozenset(
    {Option.MESSAGE_TYPE, Option.SERVER_ID, Option.MESSAGE, Option.CLIENT_ID, Option.VENDOR_CLASS, Option.END}
)
"""All that a NAK may hold (RFC 2131 table 3)."""
_NO_HOST = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("224.0.0.0/3"),
)


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in every message of a client: option 61 (RFC 4361), chaddr [T-2], host name."""

    client_id: bytes
    hardware_address: bytes
    hostname: str | None = None


@dataclass(frozen=True, slots=True)
class Composer:
    """Writes the client's messages."""

    identity: Identity

    def _message(
        self,
        kind: MessageType,
        xid: int,
        *,
        secs: int = 0,
        ciaddr: IPv4Address = ZERO,
        requested: IPv4Address | None = None,
        server: IPv4Address | None = None,
        params: PortParams | None = None,
        saddr: IPv6Address | None = None,
        parameters: bool = True,
    ) -> Dhcp4Message:
        options: list[tuple[int, bytes]] = [
            (Option.MESSAGE_TYPE, bytes([kind])),
            (Option.CLIENT_ID, self.identity.client_id),
        ]
        if requested is not None:
            options.append((Option.REQUESTED_ADDRESS, requested.packed))
        if server is not None:
            options.append((Option.SERVER_ID, server.packed))
        if params is not None:
            options.append((Option.V4_PORTPARAMS, softwire46.encode_portparams(params)))
        if saddr is not None:
            options.append((Option.S46_SADDR, softwire46.encode_saddr(saddr)))
        if parameters:
            options.append((Option.MAX_SIZE, MAX_MESSAGE.to_bytes(2, "big")))
            if self.identity.hostname:
                options.append((Option.HOSTNAME, self.identity.hostname.encode("ascii")))
            options.append((Option.PARAMETER_LIST, dhcp4.encode_parameter_list(PARAMETERS)))
        hardware = self.identity.hardware_address
        return Dhcp4Message(
            op=BOOTREQUEST,
            xid=xid,
            secs=secs,
            ciaddr=ciaddr,
            htype=1 if hardware else 0,
            chaddr=hardware,
            options=tuple(options),
        )

    def discover(self, xid: int, secs: int, *, previous: Lease4 | None, hint: int | None) -> Dhcp4Message:
        """DISCOVER: U = 0. Asks for the previous address and port set, or hints at a size without an address [S-18]."""
        requested, params = None, None
        if previous is not None and previous.ports is not None:
            requested, params = previous.address, PortParams.of(previous.ports)
        elif previous is not None:
            requested = previous.address
        elif hint is not None:
            params = PortParams.hint(hint)
        return self._message(MessageType.DISCOVER, xid, secs=secs, requested=requested, params=params)

    def select(self, xid: int, secs: int, offer: Offer, saddr: IPv6Address | None = None) -> Dhcp4Message:
        """REQUEST in SELECTING: U = 0, secs as in the DISCOVER (RFC 2131 4.4.1), 50, 54 and 159 as offered.

        ``saddr`` is option 109 of this and all other REQUESTs (RFC 8539 7.1, 7.2 [E-7])."""
        return self._message(
            MessageType.REQUEST,
            xid,
            secs=secs,
            requested=offer.address,
            server=offer.server_id,
            params=_params(offer.ports),
            saddr=saddr,
        )

    def reboot(self, xid: int, secs: int, lease: Lease4, saddr: IPv6Address | None = None) -> Dhcp4Message:
        """REQUEST in INIT-REBOOT: U = 0, the stored 50 and 159, no 54."""
        params = _params(lease.ports)
        return self._message(MessageType.REQUEST, xid, secs=secs, requested=lease.address, params=params, saddr=saddr)

    def extend(self, xid: int, secs: int, lease: Lease4, saddr: IPv6Address | None = None) -> Dhcp4Message:
        """REQUEST in RENEWING (U = 1) and REBINDING (U = 0): ciaddr and 159, neither 50 nor 54."""
        params = _params(lease.ports)
        return self._message(MessageType.REQUEST, xid, secs=secs, ciaddr=lease.address, params=params, saddr=saddr)

    def release(self, xid: int, lease: Lease4) -> Dhcp4Message:
        """RELEASE: U = 1, ciaddr, 54 and 159 (RFC 7618 6 step 6, which overrides RFC 2131 table 5 [T-8]), no list."""
        return self._message(
            MessageType.RELEASE,
            xid,
            ciaddr=lease.address,
            server=lease.server_id,
            params=_params(lease.ports),
            parameters=False,
        )


def _params(ports: PortSet | None) -> PortParams | None:
    return None if ports is None else PortParams.of(ports)


# ---- reading


def usable_address(address: IPv4Address) -> bool:
    """False for addresses that cannot be one host's (RFC 1122 3.2.1.3; 169.254/16 is never ours [F-11])."""
    return not any(address in network for network in _NO_HOST)


def read_server(message: Dhcp4Message, counter: str) -> IPv4Address:
    """The Server Identifier, a MUST in OFFER, ACK and NAK (RFC 2131 table 3): who grants what, or refuses it.
    Raises OfferError with ``counter`` when it is missing or malformed."""
    try:
        server = dhcp4.address_option(message, Option.SERVER_ID)
    except WireError as error:
        raise OfferError(str(error), counter) from None
    if server is None:
        raise OfferError("no server identifier", counter)
    return server


def note_forbidden(message: Dhcp4Message, counters: Counters) -> None:
    """Count a message with options that RFC 2131 table 3 forbids there. It forbids servers to send them and nothing
    tells a client to discard the message: none of them is read."""
    codes = {code for code, _ in message.options}
    forbidden = codes - NAK_OPTIONS if message.message_type == MessageType.NAK else codes & FORBIDDEN_OPTIONS
    if forbidden:
        counters.count("warned-options-forbidden")


def read_offer(message: Dhcp4Message, counters: Counters) -> Offer:
    """What an OFFER or ACK grants. Raises OfferError, with the counter's name, for what must be refused."""
    if not usable_address(message.yiaddr):
        raise OfferError(f"{message.yiaddr} is no host's address", "drop-offer-address")
    server = read_server(message, "drop-offer-without-server-id")
    value = message.get(Option.V4_PORTPARAMS)
    ports = None
    if value is not None:
        try:
            params = softwire46.decode_portparams(value)
        except WireError as error:
            raise OfferError(str(error), "drop-offer-portparams") from None
        if params.looks_right_aligned:
            # Masking it off would make another subscriber's ports of it.
            raise OfferError("the PSID in option 159 is aligned to the right", "drop-offer-portparams-misaligned")
        if params.padding:
            counters.count("warned-portparams-padding")  # masked off [P-4]
        ports = params.port_set()
    return Offer(message.yiaddr, ports, server)


def read_softwire(outer: dhcp6.Options, counters: Counters) -> LeasedSoftwire | None:
    """What stands beside the DHCPv4 message (RFC 8539 6, 7.1, 7.4); None without a valid BR (option 90).

    A malformed binding prefix (137) is as if absent, and so are several of them: a server MUST send one [E-4].
    """
    brs = []
    for value in dhcp6.every(outer, dhcp6.Option.S46_BR):
        try:
            brs.append(softwire46.decode_br(value))
        except WireError:
            counters.count("ignored-br-unusable")
    if not brs:
        return None
    prefix = None
    values = dhcp6.every(outer, dhcp6.Option.S46_BIND_IPV6_PREFIX)
    try:
        if len(values) > 1:
            raise WireError(f"{len(values)} binding prefixes")
        prefix = softwire46.decode_bind_prefix(values[0]) if values else None
    except WireError:
        counters.count("ignored-bind-prefix-malformed")
    return LeasedSoftwire(tuple(dict.fromkeys(brs)), prefix)


def read_lease(
    message: Dhcp4Message, *, requested_at: float, wanted: PortSet | None, rng: random.Random, counters: Counters
) -> Lease4:
    """The lease that an ACK grants, counted from ``requested_at`` [S-6].

    ``wanted`` is the port set of the offer or lease that the ACK answers: an ACK that then misses option 159 breaks
    RFC 7618 6 step 4 and is refused, since taking the whole address would use other subscribers' ports.
    Raises OfferError.
    """
    granted = read_offer(message, counters)
    if wanted is not None and message.get(Option.V4_PORTPARAMS) is None:
        raise OfferError("option 159 is missing although the address is shared", "drop-ack-without-portparams")
    if wanted is not None and granted.ports is None:
        counters.count("warned-portparams-whole")  # PSID length 0 says so in so many words [P-2, X-11]
    try:
        seconds = dhcp4.seconds_option(message, Option.LEASE_TIME)
    except WireError as error:
        raise OfferError(str(error), "drop-ack-lease-time") from None
    if not seconds:
        raise OfferError("no lease time", "drop-ack-lease-time")
    if seconds == INFINITE:
        t1 = t2 = lease = math.inf
    else:
        lease = float(seconds)
        t1, t2 = _renewal_times(message, lease, rng, counters)
    return Lease4(
        address=granted.address,
        ports=granted.ports,
        server_id=granted.server_id,
        requested_at=requested_at,
        t1_at=requested_at + t1,
        t2_at=requested_at + t2,
        expires_at=requested_at + lease,
        options=tuple((code, value) for code, value in message.options if code in KEPT_OPTIONS),
    )


def _renewal_times(message: Dhcp4Message, lease: float, rng: random.Random, counters: Counters) -> tuple[float, float]:
    """T1 and T2 in seconds: the server's if T1 < T2 < lease holds, else the defaults with a little fuzz [S-7]."""

    def given(code: Option) -> int | None:
        try:
            return dhcp4.seconds_option(message, code)
        except WireError:
            return None

    server_t1, server_t2 = given(Option.T1), given(Option.T2)
    fuzz = rng.uniform(-FUZZ, FUZZ) * lease
    t1 = float(server_t1) if server_t1 is not None else T1_SHARE * lease + fuzz
    t2 = float(server_t2) if server_t2 is not None else T2_SHARE * lease + fuzz
    if not 0 < t1 < t2 < lease:
        if server_t1 is not None or server_t2 is not None:
            counters.count("warned-lease-times")
        t1, t2 = T1_SHARE * lease + fuzz, T2_SHARE * lease + fuzz
    return t1, t2
