"""The messages of the stateful DHCPv6 client: what each must carry, and must not (RFC 8415 18.2.1 to 18.2.8)."""

from __future__ import annotations

from b4client.model.lease6 import Lease6
from b4client.protocol.dhcp6_exchange import PROVISIONING_OPTIONS, Exchange
from b4client.protocol.dhcp6_leases import Wanted, ask_again, ask_for
from b4client.protocol.dhcp6_states import (
    Confirming,
    Declining,
    Rebinding,
    Releasing,
    Renewing,
    Requesting,
    Soliciting,
    State,
)
from b4client.wire import dhcp6
from b4client.wire.dhcp6 import Dhcp6Message, MessageType, Option, Options

REQUESTED_OPTIONS = (Option.SOL_MAX_RT, *PROVISIONING_OPTIONS)
"""The Option Request Option: 82 is a MUST (RFC 8415 18.2.1, 18.2.4), 32 must not be there (21.23 [D-4])."""
ASK_NOTHING = frozenset({MessageType.CONFIRM, MessageType.DECLINE, MessageType.RELEASE})
"""Messages without Option Request Option."""


class MessageWriter:
    """Writes a state's message, with the time since the first of its exchange (RFC 8415 21.9)."""

    def __init__(self, duid: bytes, wanted: Wanted, *, rapid_commit: bool) -> None:
        self._duid = duid
        self._wanted = wanted
        self._rapid: Options = ((int(Option.RAPID_COMMIT), b""),) if rapid_commit else ()

    def write(self, state: State, held: Lease6, server: bytes | None, now: float) -> bytes:
        """The message of ``state``; ``held`` are the leases in use and ``server`` is who granted them."""
        wanted = self._wanted
        match state:
            case Soliciting(exchange):
                return self._write(MessageType.SOLICIT, exchange, now, None, (*ask_for(wanted, held), *self._rapid))
            case Requesting(exchange, chosen, offered):
                return self._write(MessageType.REQUEST, exchange, now, chosen, ask_for(wanted, offered))
            case Renewing(exchange):
                return self._write(MessageType.RENEW, exchange, now, server, ask_for(wanted, held))
            case Rebinding(exchange):
                return self._write(MessageType.REBIND, exchange, now, None, ask_for(wanted, held))
            case Confirming(exchange):
                ias = ask_again(wanted, held, prefixes=False)
                return self._write(MessageType.CONFIRM, exchange, now, None, ias)
            case Declining(exchange, granter, declined):
                return self._write(MessageType.DECLINE, exchange, now, granter, ask_again(wanted, declined))
            case Releasing(exchange, granter, released):
                return self._write(MessageType.RELEASE, exchange, now, granter, ask_again(wanted, released))
        raise AssertionError(f"nothing to say in {state}")

    def _write(self, kind: MessageType, exchange: Exchange, now: float, server: bytes | None, ias: Options) -> bytes:
        options: list[tuple[int, bytes]] = [(int(Option.CLIENTID), self._duid)]
        if server is not None:
            options.append((int(Option.SERVERID), server))
        options.append((int(Option.ELAPSED_TIME), dhcp6.encode_elapsed(now - exchange.began_at)))
        if kind not in ASK_NOTHING:
            options.append((int(Option.ORO), dhcp6.encode_oro(REQUESTED_OPTIONS)))
        return dhcp6.encode(Dhcp6Message(kind, exchange.transaction_id, (*options, *ias)))
