"""The lwAFTR as a process of a laboratory: started, asked, killed and started again."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address
from pathlib import Path
from typing import Any

from b4client import api
from b4client.lab import aftrfate
from b4client.lab.binding import Binding
from b4client.lab.netns import Namespace
from b4client.lab.process import NodeProcess
from b4client.model.errors import ControlError


@dataclass(frozen=True, slots=True)
class LwaftrPlace:
    """What an lwAFTR is told: its softwire ``address``, the IPv4 ``pool`` behind it, and where bindings come from.

    ``feed`` is the lab server's socket, ``rules`` are MAP-E mapping rules as ``binding.parse_rule`` reads them,
    ``reject`` makes it answer unbound packets with ICMPv6.
    """

    address: IPv6Address
    pool: IPv4Network
    bindings: tuple[Binding, ...] = ()
    rules: tuple[str, ...] = ()
    feed: Path | None = None
    reject: bool = False


class Lwaftr:
    """``b4client.lab.aftr`` inside ``namespace``, with its socket and log in ``directory``."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self._process = NodeProcess(namespace, directory, "aftr", "the lwAFTR")
        self.socket = directory / "aftr.sock"

    def start(self, place: LwaftrPlace) -> None:
        """Start it and wait until it answers. Raises LabError with what it said."""
        command = [sys.executable, "-m", "b4client.lab.aftr", "--address", str(place.address)]
        command += ["--route", str(place.pool), "--control", str(self.socket)]
        for option, values in (("--binding", place.bindings), ("--rule", place.rules)):
            command += [word for value in values for word in (option, str(value))]
        if place.feed is not None:
            command += ["--feed", str(place.feed)]
        if place.reject:
            command.append("--reject")
        self._process.start(command, lambda _: self.answers)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    @property
    def answers(self) -> bool:
        """True when it is there."""
        try:
            self.call("status")
        except ControlError:
            return False
        return True

    def call(self, command: str, **arguments: Any) -> dict[str, Any]:
        """One command of ``aftrcontrol``. Raises ControlError."""
        result: dict[str, Any] = api.call(self.socket, command, arguments, timeout_s=5)["arguments"]
        return result

    def counters(self) -> dict[str, int]:
        """Its counters by the name of the fate."""
        return self.call("counters")

    def customers(self) -> dict[Binding, dict[str, Any]]:
        """The lines of its table by binding (``aftrcustomer.Customer.to_json``)."""
        lines: Iterable[dict[str, Any]] = self.call("bindings")["customers"]
        return {Binding.parse(line["binding"]): line for line in lines}

    def refused(self) -> dict[str, int]:
        """The counters of what it has refused, those above 0; what a full queue lost is congestion, not among it."""
        counters = self.counters().items()
        return {name: n for name, n in counters if n and name.startswith("drop-") and name != aftrfate.QUEUE_FULL}
