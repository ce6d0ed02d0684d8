"""Names to IPv6 addresses, in a thread that nobody waits for: a resolver may take half a minute to give up."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv6Address

from b4client.protocol.events import Resolved

MAX_ADDRESSES = 16


def resolve(name: str, answer: Callable[[Resolved], object]) -> None:
    """Ask for the AAAA records of ``name``; ``answer`` is called once, from the thread."""

    def work() -> None:
        event = look_up(name)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            answer(event)

    threading.Thread(target=work, name="resolver", daemon=True).start()


def look_up(name: str) -> Resolved:
    """The answer, or none and the reason. RFC 6333 5.5: over IPv6, as the machine's resolver is configured."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET6, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        return Resolved(name, (), getattr(error, "strerror", None) or str(error))
    # A link-local answer carries its scope in the text.
    addresses = (IPv6Address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found)
    return Resolved(name, tuple(dict.fromkeys(addresses))[:MAX_ADDRESSES])
