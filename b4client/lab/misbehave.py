"""A server that misbehaves by script: every wrong answer that a client must survive, by name (requirements SV-15).

``MisbehavingServer(settings, leases, CASES["wrong-xid"], times=2)`` answers as the honest server does, except that its
first two answers to which the case applies are twisted; ``times=None`` never stops. Pure, like the honest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network

from b4client.lab.leases import LeaseDatabase
from b4client.lab.server import Reply, Server, ServerSettings
from b4client.model.errors import WireError
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46
from b4client.wire.dhcp4 import ZERO, Dhcp4Message, MessageType, Option
from b4client.wire.dhcp6 import Dhcp6Message, Options
from b4client.wire.softwire46 import Lw4o6Container, PortParams

SECOND_BR = IPv6Address("2001:db8:ffff::b2")
DHCPV4_MSG = int(dhcp6.Option.DHCPV4_MSG)


@dataclass(frozen=True, slots=True)
class Answer:
    """An honest answer, taken apart. ``phase`` says what it answers (see ``phase_of``)."""

    phase: str
    data: bytes
    outer: Options
    inner: Dhcp4Message

    def response(self, inner: Dhcp4Message | bytes | None = None, *, options: Options = (), flags: int = 0) -> bytes:
        """A DHCPV4-RESPONSE with another message inside, or with DHCPv6 options beside it."""
        message = self.inner if inner is None else inner
        octets = message if isinstance(message, bytes) else dhcp4.encode(message)
        return dhcp4o6.encode_response(octets, options=(*self.outer, *options), flags=flags)


Twist = Callable[[Answer], list[bytes]]


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of misbehaviour: in which phases, and what becomes of the honest answer (none, one or several)."""

    name: str
    text: str
    phases: frozenset[str]
    twist: Twist


CASES: dict[str, Case] = {}
OFFER = ("discover",)
ACK = ("selecting",)
EXTENSION = ("renewing", "rebinding")
INFORMATION = ("information",)
DHCP4 = (*OFFER, *ACK, "reboot", *EXTENSION)


def _case(name: str, text: str, phases: Iterable[str]) -> Callable[[Twist], Twist]:
    def add(twist: Twist) -> Twist:
        CASES[name] = Case(name, text, frozenset(phases), twist)
        return twist

    return add


def without(message: Dhcp4Message, *codes: int) -> Dhcp4Message:
    """``message`` without these options."""
    return replace(message, options=tuple((code, value) for code, value in message.options if code not in codes))


def with_option(message: Dhcp4Message, code: int, value: bytes) -> Dhcp4Message:
    """``message`` with this option instead of the one it may have."""
    return replace(without(message, code), options=(*without(message, code).options, (int(code), value)))


def with_raw(message: Dhcp4Message, code: int, *values: bytes) -> bytes:
    """The octets of ``message`` with an option as often as values are given, which no honest encoder writes."""
    octets = dhcp4.encode(without(message, code))
    return octets[:-1] + b"".join(bytes((code, len(value))) + value for value in values) + octets[-1:]


# ---- the message around


@_case("response-without-87", "a DHCPV4-RESPONSE without DHCPv4 Message option (RFC 7341 9)", DHCP4)
def _no_message(answer: Answer) -> list[bytes]:
    return [answer.data[:4] + dhcp6.encode_options(answer.outer)]


@_case("response-two-87", "two DHCPv4 Message options", DHCP4)
def _two_messages(answer: Answer) -> list[bytes]:
    one = (DHCPV4_MSG, dhcp4.encode(answer.inner))
    return [answer.data[:4] + dhcp6.encode_options((one, one))]


@_case("response-cut-off", "the last octets are missing", DHCP4)
def _cut_off(answer: Answer) -> list[bytes]:
    return [answer.data[:-3]]


@_case("flags-set", "all 24 flags are 1; they MUST be ignored (RFC 7341 6.4)", DHCP4)
def _flags(answer: Answer) -> list[bytes]:
    return [answer.response(flags=0xFFFFFF)]


@_case("bind-prefix-octets", "option 137 with fewer octets than its length needs (RFC 8539 7.4)", DHCP4)
def _bind_prefix(answer: Answer) -> list[bytes]:
    return [answer.response(options=((int(dhcp6.Option.S46_BIND_IPV6_PREFIX), b"\x38\x20\x01\x0d\xb8"),))]


# ---- the message inside


@_case("wrong-xid", "an xid that nobody asked with (RFC 2131 4.4.1)", DHCP4)
def _wrong_xid(answer: Answer) -> list[bytes]:
    return [answer.response(replace(answer.inner, xid=answer.inner.xid ^ 1))]


@_case("foreign-client-id", "another client's option 61 (RFC 6842 3)", DHCP4)
def _foreign_client(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.CLIENT_ID, b"\xff\0\0\0\1\0\3\0\1foreign"))]


@_case("without-client-id", "option 61 is not echoed, as before RFC 6842", DHCP4)
def _without_client(answer: Answer) -> list[bytes]:
    return [answer.response(without(answer.inner, Option.CLIENT_ID))]


@_case("request-op", "op is BOOTREQUEST", DHCP4)
def _request_op(answer: Answer) -> list[bytes]:
    return [answer.response(replace(answer.inner, op=dhcp4.BOOTREQUEST))]


@_case("without-type", "no option 53", DHCP4)
def _without_type(answer: Answer) -> list[bytes]:
    return [answer.response(without(answer.inner, Option.MESSAGE_TYPE))]


@_case("without-server-id", "no option 54 (RFC 2131 table 3: MUST)", (*OFFER, *ACK))
def _without_server(answer: Answer) -> list[bytes]:
    return [answer.response(without(answer.inner, Option.SERVER_ID))]


@_case("address-zero", "yiaddr is 0.0.0.0", (*OFFER, *ACK))
def _address_zero(answer: Answer) -> list[bytes]:
    return [answer.response(replace(answer.inner, yiaddr=ZERO))]


@_case("ack-without-lease-time", "no option 51 in an ACK (RFC 2131 table 3: MUST)", (*ACK, *EXTENSION))
def _no_lease_time(answer: Answer) -> list[bytes]:
    return [answer.response(without(answer.inner, Option.LEASE_TIME))]


@_case("ack-lease-time-zero", "a lease of no time", (*ACK, *EXTENSION))
def _zero_lease_time(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.LEASE_TIME, bytes(4)))]


@_case("ack-times-disordered", "T1 behind T2 behind the lease's end (RFC 2131 4.4.5)", (*ACK, *EXTENSION))
def _disordered(answer: Answer) -> list[bytes]:
    late = with_option(answer.inner, Option.T1, dhcp4.encode_seconds(0xFFFFFFF0))
    return [answer.response(with_option(late, Option.T2, dhcp4.encode_seconds(0xFFFFFFE0)))]


@_case("offer-for-ack", "an OFFER where an ACK belongs", (*ACK, "reboot", *EXTENSION))
def _offer_for_ack(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.MESSAGE_TYPE, bytes((MessageType.OFFER,))))]


@_case("ack-for-offer", "an ACK where an OFFER belongs (RFC 2131 4.4.1: discarded)", OFFER)
def _ack_for_offer(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.MESSAGE_TYPE, bytes((MessageType.ACK,))))]


# ---- option 159 and 109


def _portparams(answer: Answer) -> bytes:
    return answer.inner.get(Option.V4_PORTPARAMS) or b"\0\4\x30\0"


@_case(
    "ack-other-psid", "an ACK with another PSID than offered or held; it MUST be used (RFC 7618 7)", (*ACK, *EXTENSION)
)
def _other_psid(answer: Answer) -> list[bytes]:
    params = softwire46.decode_portparams(_portparams(answer))
    other = PortParams(params.offset_len, params.psid_len, params.psid ^ 1)
    return [answer.response(with_option(answer.inner, Option.V4_PORTPARAMS, softwire46.encode_portparams(other)))]


@_case("ack-without-159", "an ACK that misses option 159 (RFC 7618 6 step 4: MUST)", (*ACK, *EXTENSION))
def _without_portparams(answer: Answer) -> list[bytes]:
    return [answer.response(without(answer.inner, Option.V4_PORTPARAMS))]


@_case("ack-without-109", "an ACK that misses option 109 (RFC 8539 8: MUST)", (*ACK, *EXTENSION))
def _without_saddr(answer: Answer) -> list[bytes]:
    return [answer.response(without(answer.inner, Option.S46_SADDR))]


@_case("portparams-3-octets", "option 159 of three octets", (*OFFER, *ACK))
def _portparams_short(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.V4_PORTPARAMS, _portparams(answer)[:3]))]


@_case("portparams-5-octets", "option 159 of five octets", (*OFFER, *ACK))
def _portparams_long(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.V4_PORTPARAMS, _portparams(answer) + b"\0"))]


@_case("portparams-doubled", "option 159 twice, which is one of eight octets (RFC 3396 7)", (*OFFER, *ACK))
def _portparams_doubled(answer: Answer) -> list[bytes]:
    value = _portparams(answer)
    return [answer.response(with_raw(answer.inner, Option.V4_PORTPARAMS, value, value))]


@_case("portparams-offset-16", "option 159 with an offset of 16 bits (RFC 7618 9: at most 15)", (*OFFER, *ACK))
def _portparams_offset(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.V4_PORTPARAMS, b"\x10" + _portparams(answer)[1:]))]


@_case("portparams-17-bits", "option 159 whose offset and PSID need 17 bits of a port", (*OFFER, *ACK))
def _portparams_sum(answer: Answer) -> list[bytes]:
    return [answer.response(with_option(answer.inner, Option.V4_PORTPARAMS, b"\x0d\x04" + _portparams(answer)[2:]))]


@_case("portparams-padding", "option 159 with bits right of the PSID", (*OFFER, *ACK))
def _portparams_padding(answer: Answer) -> list[bytes]:
    value = _portparams(answer)
    return [answer.response(with_option(answer.inner, Option.V4_PORTPARAMS, value[:3] + bytes((value[3] | 1,))))]


# ---- NAK


def _nak(answer: Answer) -> bytes:
    kept = {int(Option.SERVER_ID), int(Option.CLIENT_ID)}
    options = tuple((code, value) for code, value in answer.inner.options if code in kept)
    refusal = ((int(Option.MESSAGE_TYPE), bytes((MessageType.NAK,))), *options)
    return answer.response(replace(answer.inner, yiaddr=ZERO, ciaddr=ZERO, options=refusal))


for _phase in DHCP4:

    @_case(f"nak-{_phase}", f"NAK instead of the answer to {_phase}", (_phase,))
    def _nak_instead(answer: Answer) -> list[bytes]:
        return [_nak(answer)]


@_case("nak-bound", "an ACK, and a NAK behind it: BOUND waits for nothing (RFC 2131 figure 5)", ACK)
def _nak_behind(answer: Answer) -> list[bytes]:
    return [answer.data, _nak(answer)]


@_case("nak-other-server", "a NAK of a server that was not asked", (*ACK, "renewing"))
def _nak_other(answer: Answer) -> list[bytes]:
    other = with_option(answer.inner, Option.SERVER_ID, b"\xc0\0\0\xfe")
    return [_nak(replace(answer, inner=other))]


@_case("nak-without-server-id", "a NAK that does not say whose it is (RFC 2131 table 3)", (*ACK, "renewing"))
def _nak_nobodys(answer: Answer) -> list[bytes]:
    options = tuple((code, value) for code, value in answer.inner.options if code != Option.SERVER_ID)
    return [_nak(replace(answer, inner=replace(answer.inner, options=options)))]


# ---- INFORMATION-REQUEST


def _information(answer: Answer, code: int, *values: bytes) -> list[bytes]:
    reply = dhcp6.decode(answer.data)
    options = (*((c, v) for c, v in reply.options if c != code), *((int(code), value) for value in values))
    return [dhcp6.encode(Dhcp6Message(reply.msg_type, reply.transaction_id, options))]


def _servers(answer: Answer) -> bytes:
    return dhcp6.decode(answer.data).get(dhcp6.Option.DHCP4_O_DHCP6_SERVER) or dhcp6.ALL_SERVERS.packed


@_case("servers-empty", "option 88 without addresses: multicast (RFC 7341 9)", INFORMATION)
def _servers_empty(answer: Answer) -> list[bytes]:
    return _information(answer, dhcp6.Option.DHCP4_O_DHCP6_SERVER, b"")


@_case("servers-duplicate", "option 88 with one address a hundred times (RFC 7341 12: amplification)", INFORMATION)
def _servers_duplicate(answer: Answer) -> list[bytes]:
    return _information(answer, dhcp6.Option.DHCP4_O_DHCP6_SERVER, _servers(answer)[:16] * 100)


@_case("servers-odd", "option 88 whose length is no multiple of 16", INFORMATION)
def _servers_odd(answer: Answer) -> list[bytes]:
    return _information(answer, dhcp6.Option.DHCP4_O_DHCP6_SERVER, _servers(answer) + b"\0")


@_case("servers-withdrawn", "no option 88 (RFC 7341 9: stop)", INFORMATION)
def _servers_withdrawn(answer: Answer) -> list[bytes]:
    return _information(answer, dhcp6.Option.DHCP4_O_DHCP6_SERVER)


@_case("two-brs", "an lw4o6 container with a second BR behind the first", INFORMATION)
def _two_brs(answer: Answer) -> list[bytes]:
    value = dhcp6.decode(answer.data).get(dhcp6.Option.S46_CONT_LW)
    present = softwire46.decode_lw4o6(value) if value is not None else Lw4o6Container((SECOND_BR,))
    two = replace(present, brs=(*present.brs, SECOND_BR))
    return _information(answer, dhcp6.Option.S46_CONT_LW, softwire46.encode_lw4o6(two))


@_case("reply-wrong-transaction", "a Reply to a transaction that nobody began (RFC 8415 16.10)", INFORMATION)
def _wrong_transaction(answer: Answer) -> list[bytes]:
    reply = dhcp6.decode(answer.data)
    return [dhcp6.encode(replace(reply, transaction_id=reply.transaction_id ^ 1))]


@_case("reply-without-server-id", "a Reply without Server Identifier (RFC 8415 16.10)", INFORMATION)
def _reply_without_server(answer: Answer) -> list[bytes]:
    return _information(answer, dhcp6.Option.SERVERID)


@_case("reply-foreign-client-id", "a Reply with another client's DUID (RFC 8415 16.10)", INFORMATION)
def _reply_foreign(answer: Answer) -> list[bytes]:
    return _information(answer, dhcp6.Option.CLIENTID, b"\0\3\0\1foreign")


@_case("bind-prefix-malformed", "an lw4o6 container whose binding prefix is cut off (RFC 7598 8)", INFORMATION)
def _bind_prefix_malformed(answer: Answer) -> list[bytes]:
    prefix = IPv6Network("2001:db8::/56")
    bad = dhcp6.encode_options(((92, bytes(4) + bytes((prefix.prefixlen,)) + b"\x20\x01"), (90, SECOND_BR.packed)))
    return _information(answer, dhcp6.Option.S46_CONT_LW, bad)


# ---- the server


def phase_of(data: bytes) -> str | None:
    """What a client's datagram is: ``information``, ``discover``, ``selecting``, ``reboot``, ``renewing``,
    ``rebinding``; None for everything else."""
    try:
        if dhcp6.message_type(data) == dhcp6.MessageType.INFORMATION_REQUEST:
            return "information"
        query = dhcp4o6.decode(data)
        message = dhcp4.decode(query.dhcp4)
    except WireError:
        return None
    if message.message_type == MessageType.DISCOVER:
        return "discover"
    if message.message_type != MessageType.REQUEST:
        return None
    if message.get(Option.SERVER_ID) is not None:
        return "selecting"
    if message.ciaddr == ZERO:
        return "reboot"
    return "renewing" if query.unicast else "rebinding"


class MisbehavingServer(Server):
    """The honest server with one case; ``done`` counts the answers that were twisted."""

    def __init__(self, settings: ServerSettings, leases: LeaseDatabase, case: Case, times: int | None = None) -> None:
        super().__init__(settings, leases)
        self.case = case
        self.done = 0
        self._times = times

    def handle(
        self, data: bytes, source: IPv6Address, now: float, *, destination: IPv6Address | None = None
    ) -> list[Reply]:
        """As the honest server's; an answer to which the case applies is twisted."""
        replies = super().handle(data, source, now, destination=destination)
        phase = phase_of(data)
        if phase is None or phase not in self.case.phases or (self._times is not None and self.done >= self._times):
            return replies
        twisted = []
        for reply in replies:
            self.done += 1
            twisted += [replace(reply, data=octets) for octets in self.case.twist(_take_apart(phase, reply.data))]
        return twisted


def _take_apart(phase: str, data: bytes) -> Answer:
    if phase == "information":
        return Answer(phase, data, (), Dhcp4Message(op=dhcp4.BOOTREPLY, xid=0))
    response = dhcp4o6.decode(data)
    return Answer(phase, data, response.options, dhcp4.decode(response.dhcp4))
