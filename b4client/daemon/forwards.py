"""The port forwards of one daemon: those of the configuration and those of ``b4client forward``, where each one is, and
what is said when that changes.

Those of the command are kept in the state directory, as carefully as the lease: replaced whole, a damaged file set
aside, a directory that cannot be written reported and borne.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from b4client.config import MAX_FORWARDS, read_forward
from b4client.daemon.documentfile import DocumentFile
from b4client.model.errors import ConfigError, ControlError
from b4client.model.forwards import Placement, describe_ports, place
from b4client.model.softwire import PortForward, SoftwireConfig
from b4client.protocol.effects import Report

FORMAT = 1
MAX_FILE = 262144
LOST = "after a restart the forwards are as they were before"
NO_SOFTWIRE = "there is no softwire"
MAX_REPORTS = 32
REPORTED_RANGES = 8
SHOWN_INACTIVE = 16
"""How many inactive ones ``status`` names; ``forward list`` names all."""


class Forwards:
    """``configured`` are the configuration's, ``added`` those of the command, kept in ``file``; ``report`` is given
    what happens."""

    def __init__(self, configured: tuple[PortForward, ...], file: Path, report: Callable[[Report], None]) -> None:
        self.configured = configured
        self._file = DocumentFile(file, max_octets=MAX_FILE, lost=LOST)
        self.report = report
        self.added = self._file.load(_revive) or ()
        self._last: tuple[Placement, ...] = ()
        self.in_force: SoftwireConfig | None = None
        """What the data plane was last made."""

    @property
    def wanted(self) -> tuple[PortForward, ...]:
        """All of them; where two want one port, the configuration's has it."""
        return (*self.configured, *self.added)

    # ---- changing

    def read_addition(self, arguments: Mapping[str, Any]) -> PortForward:
        """The forward that a request describes. Raises ControlError when it is none, or cannot be had."""
        forward = _forward(arguments)
        for other in self.wanted:
            if (other.protocol, other.port) == (forward.protocol, forward.port):
                by = "the configuration" if other in self.configured else "b4client forward"
                raise ControlError(
                    f"{forward.protocol} {forward.port} is forwarded to {other.to}:{other.to_port} already (by {by})"
                )
        if len(self.added) >= MAX_FORWARDS:
            raise ControlError(f"there are {MAX_FORWARDS} forwards already: delete some first")
        config = self.in_force
        if config is None:
            return forward
        if forward.to == config.ipv4:
            raise ControlError(f"{forward.to} is the public address itself: name a host of the LAN")
        for item in self._last:
            if item.port == forward.port and item.forward.protocol == forward.protocol and not forward.move:
                f = item.forward
                raise ControlError(
                    f"{forward.protocol} {forward.port} is forwarded to {f.to}:{f.to_port} already: "
                    f"{f.protocol} {f.port} has moved there"
                )
        placed = place((*self.wanted, forward), config.mode, config.ports)[-1]
        if placed.port is None:
            possible = "" if config.ports is None else f". Possible ports: {describe_ports(config.ports)}"
            raise ControlError(f"{placed.reason}{possible}")
        return forward

    def find(self, arguments: Mapping[str, Any]) -> PortForward:
        """The forward of the command that a request means, by the port asked for or the one it has. Raises
        ControlError."""
        protocol, port = arguments.get("protocol"), arguments.get("port")
        for forward in self.added:
            if (forward.protocol, forward.port) == (protocol, port):
                return forward
        for item in self._last:
            if (item.forward.protocol, item.port) == (protocol, port) and item.forward in self.added:
                return item.forward
        if any((f.protocol, f.port) == (protocol, port) for f in self.configured):
            raise ControlError(
                f"{protocol} {port} is forwarded by the configuration: take it out there, then b4client reload"
            )
        known = ", ".join(f"{f.protocol} {f.port}" for f in self.added) or "none"
        raise ControlError(f"{protocol!s:.20} {port!s:.20} is not forwarded; b4client forward has made: {known:.2000}")

    def keep(self, added: Sequence[PortForward]) -> None:
        """These are those of the command from now on, over restarts too."""
        self.added = tuple(added)
        self._file.save({"format": FORMAT, "forwards": [_plain(f) for f in self.added]} if self.added else None)

    @property
    def problem(self) -> str | None:
        """Why the file cannot be trusted to be there after a restart."""
        return self._file.problem

    # ---- following the softwire

    def follow(self, config: SoftwireConfig | None) -> None:
        """The data plane is as ``config`` says (None: there is no softwire): report what that changes."""
        self.in_force = config
        if config is None:
            return  # the softwire's own end is told; what was where is remembered for when it comes back
        before = {p.forward: p for p in self._last}
        self._last = self._placements()
        changed = [p for p in self._last if (was := before.get(p.forward)) is None or was.port != p.port]
        for item in changed[:MAX_REPORTS]:
            self.report(_change(item, config, known=item.forward in before))
        if (more := len(changed) - MAX_REPORTS) > 0:
            text = f"{more} more forwards have changed; b4client forward list shows all"
            self.report(Report("forwards-changed", "warning", text, (("count", more),)))

    def _placements(self) -> tuple[Placement, ...]:
        config = self.in_force
        if config is None:
            return tuple(Placement(f, None, NO_SOFTWIRE) for f in self.wanted)
        # Between a change of the wishes and its installation the kernel has what is in force.
        return tuple(
            p if p.placed is None or p.placed in config.forwards else Placement(p.forward, None, "it is being set up")
            for p in place(self.wanted, config.mode, config.ports)
        )

    # ---- telling

    def entries(self) -> list[dict[str, Any]]:
        """All forwards, for ``forward list``."""
        return [
            {
                **_plain(p.forward),
                "external_port": p.port,
                "origin": "configuration" if i < len(self.configured) else "command",
                "active": p.port is not None,
                "reason": p.reason,
            }
            for i, p in enumerate(self._placements())
        ]

    def summary(self) -> dict[str, Any]:
        """For ``status`` and the metrics."""
        entries = self.entries()
        inactive = [e for e in entries if not e["active"]]
        return {
            "active": len(entries) - len(inactive),
            "inactive": len(inactive),
            "moved": sum(e["active"] and e["external_port"] != e["port"] for e in entries),
            "inactive_ones": [
                {k: e[k] for k in ("protocol", "port", "to", "to_port", "reason")} for e in inactive[:SHOWN_INACTIVE]
            ],
            "problem": self.problem,
        }


def _change(item: Placement, config: SoftwireConfig, *, known: bool) -> Report:
    """What to say about a forward that is elsewhere than before; ``known``: it was there before."""
    f = item.forward
    where = f"{f.protocol} {f.port} to {f.to}:{f.to_port}"
    facts = (("protocol", f.protocol), ("port", f.port), ("external_port", item.port), ("to", f"{f.to}:{f.to_port}"))
    if item.port is None:
        possible = describe_ports(config.ports, REPORTED_RANGES)
        text = f"the forward {where} is inactive: {item.reason}. Possible ports: {possible}"
        return Report("forward-inactive", "warning", text, facts)
    if item.port != f.port:
        text = f"the forward {where} is reached at {config.ipv4}:{item.port}: {item.reason}"
        return Report("forward-moved", "warning" if known else "info", text, facts)
    return Report("forward-active", "info" if known else "debug", f"the forward {where} is active", facts)


def _plain(f: PortForward) -> dict[str, Any]:
    return {
        "protocol": f.protocol,
        "port": f.port,
        "to": str(f.to),
        "to_port": f.to_port,
        "on_change": "move" if f.move else "report",
    }


def _forward(arguments: Mapping[str, Any]) -> PortForward:
    try:
        return read_forward("forward", dict(arguments))
    except ConfigError as error:
        raise ControlError(str(error).replace("forward.", "", 1)) from None


def _revive(document: Any) -> tuple[PortForward, ...]:
    """Raises ValueError and the like for what is no file of ours."""
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}, not {FORMAT}")
    items = document["forwards"]
    if not isinstance(items, list) or len(items) > MAX_FORWARDS:
        raise ValueError("it holds no list of forwards")
    try:
        found = tuple(read_forward(f"forwards[{i}]", item) for i, item in enumerate(items))
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if len({(f.protocol, f.port) for f in found}) != len(found):
        raise ValueError("a port is forwarded twice")
    return found
