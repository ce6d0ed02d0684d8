"""Checks of the MAP-E mesh: whether forwarding rules are followed, and whether somebody sends in others' names."""

from __future__ import annotations

from collections.abc import Iterator

from b4client.doctor.finding import Finding, note, ok, warning
from b4client.doctor.system import Context, System


def check_mesh(_: System, context: Context) -> Iterator[Finding]:
    """What the daemon says of the forwarding rules; nothing where there are none."""
    mesh = context.observed.get("mesh")
    if not mesh:
        return
    rules = f"{mesh['count']} forwarding rule{'s' if mesh['count'] != 1 else ''}"
    if mesh["active"]:
        yield ok("mesh", f"other customers are reached directly, by {rules}")
    elif context.config is not None and context.config.softwire.mesh == "off":
        yield note("mesh", f"all goes by the BR, as configured, though there are {rules}")
    else:
        yield warning(
            "mesh",
            f"all goes by the BR, though there are {rules}: {mesh['reason']}; who sends directly is not heard",
            "softwire.encapsulation = userspace (or auto); softwire.mesh = off where the provider has no mesh.",
        )
    spoofed = (context.observed.get("pump") or {}).get("drop-in-spoofed", 0)
    if spoofed:
        yield warning(
            "mesh-spoofed",
            f"{spoofed} packets came from customers' edges that have another IPv4 address or port (RFC 7597 8.1)",
            "They were dropped. Tell the provider: somebody spoofs, or the rules here and there are not the same.",
        )


CHECKS = (check_mesh,)
