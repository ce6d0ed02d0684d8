"""The story that a failed simulation tells: what happened last, in words."""

from __future__ import annotations

import re

from b4client.model.errors import WireError
from b4client.protocol import effects, events
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46
from b4client.wire.dhcp4 import MessageType, Option

LINES = 80

Thing = tuple[float, str, object]
"""When, who, what: an event, an effect or a word."""


def tell(trace: list[Thing], failure: str) -> list[str]:
    """The last lines of the trace; of one client only, when the failure names one, and of what concerns all."""
    named = re.findall(r"client \d+", failure)
    chosen = [thing for thing in trace if not thing[1].startswith("client") or not named or thing[1] in named]
    return [f"  {at:.3f} {who}: {describe(what)}" for at, who, what in chosen[-LINES:]]


def describe(what: object) -> str:
    """One event, effect or word."""
    match what:
        case effects.Send(data, destination, source):
            return f"sends {datagram(data)} from {source} to {destination}"
        case events.DatagramReceived(data, source):
            return f"receives {datagram(data)} from {source}"
        case effects.SaveLease(lease):
            return f"saves {lease.address} {lease.ports} until {lease.expires_at:.3f}, T1 {lease.t1_at:.3f}"
        case effects.Report(kind, level, text):
            return f"reports {level} {kind}: {text}"
    return repr(what)


def datagram(data: bytes) -> str:
    """A datagram in a few words."""
    try:
        kind = dhcp6.message_type(data)
        if kind in (dhcp6.MessageType.DHCPV4_QUERY, dhcp6.MessageType.DHCPV4_RESPONSE):
            outer = dhcp4o6.decode(data)
            return f"{'U ' if outer.unicast else ''}{inner(dhcp4.decode(outer.dhcp4))}"
        message = dhcp6.decode(data)
        name = dhcp6.MessageType(kind).name
        return f"{name} {message.transaction_id:06x} with {[code for code, _ in message.options]}"
    except (WireError, ValueError) as error:
        return f"{len(data)} octets that are nothing ({error})"


def inner(message: dhcp4.Dhcp4Message) -> str:
    """A DHCPv4 message in a few words."""
    words = [MessageType(message.message_type or 0).name, f"xid {message.xid:08x}"]
    for name, address in (("ciaddr", message.ciaddr), ("yiaddr", message.yiaddr)):
        if address != dhcp4.ZERO:
            words.append(f"{name} {address}")
    requested = dhcp4.address_option(message, Option.REQUESTED_ADDRESS)
    if requested is not None:
        words.append(f"wants {requested}")
    server = dhcp4.address_option(message, Option.SERVER_ID)
    if server is not None:
        words.append(f"server {server}")
    ports = message.get(Option.V4_PORTPARAMS)
    if ports is not None:
        words.append(f"[{softwire46.decode_portparams(ports).port_set()}]")
    seconds = dhcp4.seconds_option(message, Option.LEASE_TIME)
    if seconds is not None:
        words.append(f"for {seconds} s")
    return " ".join(words)
