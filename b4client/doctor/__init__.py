"""``b4client doctor``: looks at the machine and the network and says in plain words what is wrong, and what to do.

Works with and without a running daemon. With ``--json`` one object is printed: ``worst`` (a level) and ``findings``, a
list of ``check``, ``level`` (``ok``, ``note``, ``warning``, ``error``), ``text`` and ``remedy``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from b4client import api
from b4client.config import DaemonSettings, load
from b4client.model.errors import ConfigError, ControlError, DataplaneError

if TYPE_CHECKING:
    from b4client.doctor.finding import Finding
    from b4client.doctor.system import Context, System

EXIT_OK: Final = 0
EXIT_ERRORS: Final = 1
EXIT_WARNINGS: Final = 4
STUN_PORT: Final = 3478
_COLOURS: Final = {"ok": "32", "note": "2", "warning": "33", "error": "1;31"}


def add_parser(subparsers: Any) -> None:
    """Register ``doctor`` with an argparse subparsers action; it sets ``func(args) -> exit status``."""
    doctor = subparsers.add_parser(
        "doctor",
        help="find out what is wrong with the machine or the network",
        description="Checks the machine, the access network and the softwire. Changes nothing.",
        epilog="Exit status: 0 all well, 1 something keeps IPv4 from working, 4 warnings only.",
    )
    doctor.add_argument("--run-dir", type=Path, metavar="DIR", help="sockets and locks (default /run/b4client)")
    doctor.add_argument("--instance", "--wan", metavar="NAME", help="the WAN interface (one of them, when several run)")
    doctor.add_argument("--config", type=Path, metavar="FILE", help="settings, when they are not in the usual place")
    doctor.add_argument("--ping", type=IPv4Address, metavar="IPV4", help="try to reach this host through the softwire")
    doctor.add_argument("--stun", type=_stun, metavar="IPV4[:PORT]", help="ask this STUN server which port it sees")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(func=_doctor)


def _stun(text: str) -> tuple[IPv4Address, int]:
    host, _, port = text.partition(":")
    return IPv4Address(host), int(port or STUN_PORT)


def examine(system: System, context: Context) -> list[Finding]:
    """Every check's findings, in the order in which things depend on each other."""
    from b4client.doctor import machine, mesh, network
    from b4client.doctor.finding import note

    if context.status is None and context.wan is not None:
        try:
            context = replace(context, answer=system.ask_dhcp6(context.wan))
        except OSError as error:
            context = replace(context, not_asked=error.strerror or str(error))
    found: list[Finding] = []
    for check in (*machine.CHECKS, *network.CHECKS, *mesh.CHECKS):
        name = check.__name__.removeprefix("check_").replace("_", "-")
        try:
            found += check(system, context)
        except (DataplaneError, OSError) as error:
            found.append(note(name, f"could not be looked at: {error}", "Run it as root."))
    return found


def _context(args: argparse.Namespace) -> tuple[Context, list[Finding]]:
    from b4client.doctor.finding import error
    from b4client.doctor.system import Context

    problems: list[Finding] = []
    status = None
    run_dir = args.run_dir or DaemonSettings().run_dir
    try:
        status = api.call(api.find_socket(run_dir, args.instance), "status")["arguments"]
    except ControlError:
        pass  # it is not running, or not for us: check_daemon says so
    wan = args.instance or (status or {}).get("instance")
    config = None
    try:
        config = load(args.config, {"wan": {"interface": wan} if wan else {}})
        wan = config.wan
    except ConfigError as refused:
        if wan is not None or refused.key != "wan.interface":
            problems.append(error("settings", str(refused), "b4client run --check shows whether it is right."))
    observed = ((status or {}).get("dataplane") or {}).get("device")
    device = observed or (config.softwire.device if config is not None else "b4")
    return Context(config, wan, status, args.ping, args.stun, device), problems


def _doctor(args: argparse.Namespace) -> int:
    from b4client.doctor.finding import Level
    from b4client.doctor.system import System

    context, findings = _context(args)
    findings += examine(System(), context)
    levels = {f.level for f in findings}
    worst = next((level for level in (Level.ERROR, Level.WARNING, Level.NOTE) if level in levels), Level.OK)
    if args.json:
        print(json.dumps({"worst": worst.value, "findings": api.jsonable(findings)}, indent=2))
    else:
        print("\n".join(render(findings, colour=sys.stdout.isatty())))
    return {Level.ERROR: EXIT_ERRORS, Level.WARNING: EXIT_WARNINGS}.get(worst, EXIT_OK)


def render(findings: list[Finding], *, colour: bool = False) -> list[str]:
    """A line for each finding and one for its remedy; at the end the sum."""
    lines = []
    for f in findings:
        mark = f"{f.level.value:8}"
        lines.append((f"\x1b[{_COLOURS[f.level.value]}m{mark}\x1b[0m" if colour else mark) + f.text)
        if f.remedy:
            lines.append(f"{'':8}-> {f.remedy}")
    counts = {level: sum(f.level.value == level for f in findings) for level in ("error", "warning")}
    said = [f"{n} {level}{'s' if n != 1 else ''}" for level, n in counts.items() if n]
    return [*lines, "", f"{', '.join(said)}" if said else "nothing is wrong"]
