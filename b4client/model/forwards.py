"""Where port forwards are in a port set: which can be had as asked, which move, which wait, and why. Pure.

A forward is asked for by its external port. It is had when the set has the port and no forward before it has taken it.
One that may move (``PortForward.move``) otherwise takes the port whose place in the ascending set is the port asked for
modulo the number of ports, or the next one after it, past the end from the beginning, that no forward of the protocol
has. The same wishes and the same set give the same ports, today and after a restart; TCP and UDP forwards of the same
port move to the same port where both are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from b4client.model.portset import PORT_MAX, PortSet
from b4client.model.softwire import Mode, PortForward

SHOWN_RANGES = 64


@dataclass(frozen=True, slots=True)
class Placement:
    """``forward`` as it was asked for. ``port`` is the external port that it has, None when it has none; ``reason``
    says why it has none or another than it asked for."""

    forward: PortForward
    port: int | None
    reason: str | None = None

    @property
    def placed(self) -> PortForward | None:
        """The forward as it goes into the rules."""
        f = self.forward
        return None if self.port is None else PortForward(f.protocol, self.port, f.to, f.to_port)


def place(wanted: Sequence[PortForward], mode: Mode, ports: PortSet | None) -> tuple[Placement, ...]:
    """A placement for each of ``wanted``, in the same order; earlier ones come first where two want one port.

    ``ports`` None: the address is not shared. A port that may be had as asked is never taken by one that moves.
    """
    if mode is Mode.DS_LITE:
        reason = "the address is the AFTR's (DS-Lite): nothing can be forwarded here"
        return tuple(Placement(f, None, reason) for f in wanted)
    taken: dict[tuple[str, int], PortForward] = {}
    found: list[Placement | None] = [None] * len(wanted)
    for i, forward in enumerate(wanted):
        key = (forward.protocol, forward.port)
        if key not in taken and (ports is None or forward.port in ports):
            taken[key] = forward
            found[i] = Placement(forward, forward.port)
    for i, forward in enumerate(wanted):
        if found[i] is None:
            reason = _obstacle(forward, taken, ports)
            port = _another(forward, taken, ports) if forward.move else None
            if port is not None:
                taken[forward.protocol, port] = forward
            elif forward.move:
                reason += "; no port of the set is free of forwards"
            found[i] = Placement(forward, port, reason)
    return tuple(p for p in found if p is not None)


def in_force(wanted: Sequence[PortForward], mode: Mode, ports: PortSet | None) -> tuple[PortForward, ...]:
    """Those of ``wanted`` that have a port, with the port that they have."""
    return tuple(p.placed for p in place(wanted, mode, ports) if p.placed is not None)


def describe_ports(ports: PortSet | None, most: int = SHOWN_RANGES) -> str:
    """The ports that can be forwarded, in words; ``most`` ranges of them."""
    if ports is None:
        return "1-65535"
    shown = [str(ports.range_at(i)) for i in range(min(ports.range_count, most))]
    return ", ".join(shown) + (f", ... ({ports.range_count} ranges)" if ports.range_count > most else "")


def _obstacle(forward: PortForward, taken: dict[tuple[str, int], PortForward], ports: PortSet | None) -> str:
    if ports is not None and forward.port not in ports:
        return f"port {forward.port} is not in the port set ({ports})"
    other = taken[forward.protocol, forward.port]
    return f"{forward.protocol} {forward.port} is forwarded to {other.to}:{other.to_port} already"


def _another(forward: PortForward, taken: dict[tuple[str, int], PortForward], ports: PortSet | None) -> int | None:
    count = PORT_MAX + 1 if ports is None else ports.port_count
    for step in range(count):
        port = _port_at(ports, (forward.port + step) % count)
        if port and (forward.protocol, port) not in taken:  # 0 is no port that can be sent to
            return port
    return None


def _port_at(ports: PortSet | None, index: int) -> int:
    if ports is None:
        return index
    number, rest = divmod(index, ports.range_size)
    return ports.range_at(number).first + rest
