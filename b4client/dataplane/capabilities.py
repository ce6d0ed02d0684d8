"""What this machine can do for us, found out by trying, without a trace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from b4client.dataplane import nft, rtlink, userspace
from b4client.dataplane.plan import mesh_plan
from b4client.dataplane.portchoice import PortChoice
from b4client.dataplane.recirculation import loop_plan
from b4client.model.errors import DataplaneError
from b4client.model.portset import PortRange
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, SoftwireConfig


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this machine can do. ``userspace`` is None when the userspace softwire works, ``recirculation`` when
    nf_tables has what the exact port choice needs; else the reason in words."""

    ip6tnl: bool
    userspace: str | None
    ct_timeouts: bool
    recirculation: str | None = None

    def encapsulation(self, wanted: Encapsulation) -> Encapsulation:
        """The one to use. Raises DataplaneError when there is none."""
        if wanted is not Encapsulation.USERSPACE and self.ip6tnl:
            return Encapsulation.KERNEL
        if wanted is Encapsulation.KERNEL:
            raise DataplaneError(
                "make a kernel softwire",
                "this kernel has no ip6_tunnel driver",
                remedy="modprobe ip6_tunnel, install the kernel's module package, or use encapsulation = userspace.",
            )
        if self.userspace is not None:
            raise DataplaneError("make a userspace softwire", self.userspace)
        return Encapsulation.USERSPACE

    def encapsulation_for(self, config: SoftwireConfig, settings: SoftwireSettings) -> Encapsulation:
        """The one to use for ``config``. Raises DataplaneError when there is none.

        The kernel's driver knows one far end. In a domain with forwarding rules the others send to us directly, and
        would not be heard: there the userspace softwire goes first (RFC 7597 5 [M-11]).
        """
        wanted = settings.encapsulation
        if mesh_plan(config, settings) is None:
            return self.encapsulation(wanted)
        if settings.mesh == "on" and wanted is Encapsulation.KERNEL:
            raise DataplaneError(
                "follow the forwarding rules",
                "the kernel's ip6_tunnel knows one far end and no port sets",
                remedy="Set softwire.encapsulation = userspace, or softwire.mesh = off to send everything by the BR.",
            )
        if settings.mesh == "on" and self.userspace is not None:
            raise DataplaneError("follow the forwarding rules in a userspace softwire", self.userspace)
        if wanted is Encapsulation.AUTO and self.userspace is None:
            return Encapsulation.USERSPACE
        return self.encapsulation(wanted)


def probe(settings: SoftwireSettings, rules: nft.Nft) -> Capabilities:
    """Look. Raises DataplaneError when nf_tables cannot be used at all, or no softwire can be made."""
    rules.probe()
    found = Capabilities(
        ip6tnl=settings.encapsulation is not Encapsulation.USERSPACE and rtlink.has_ip6tnl(),
        userspace=userspace.available(),
        ct_timeouts=_refused(rules, "conntrack timeouts", CT_TIMEOUT) is None,
        recirculation=_refused(rules, "recirculation", _recirculation()),
    )
    found.encapsulation(settings.encapsulation)
    return found


PROBE_TABLE = "b4client_probe"
CT_TIMEOUT = ("ct timeout t {", "protocol udp", "l3proto ip", "policy = { unreplied : 120 }", "}")


def _recirculation() -> list[str]:
    """The very rules, in chains that no hook leads to."""
    choice = PortChoice(
        device='"lo"',
        address=IPv4Address("192.0.2.1"),
        ranges=(PortRange(4096, 4111), PortRange(8192, 8207)),
        forwards=False,
        # Names of interfaces are resolved when rules are loaded: one that exists.
        loop=replace(loop_plan("lo"), sender="lo", receiver="lo"),
    )
    hook = "type nat hook"
    return [
        *(f"counter {c} {{ }}" for c in ("out_drop", "retries")),
        *choice.maps(),
        *choice.copies(),
        *(line for line in choice.source_nat() if hook not in line),
    ]


def _refused(rules: nft.Nft, what: str, lines: tuple[str, ...] | list[str]) -> str | None:
    """None when the kernel takes the lines as a table, which is gone in the same transaction; else its words."""
    text = "\n".join((f"table ip {PROBE_TABLE} {{", *lines, "}", f"delete table ip {PROBE_TABLE}", ""))
    try:
        rules.run(f"look for {what}", text)
    except DataplaneError as error:
        return error.reason
    return None
