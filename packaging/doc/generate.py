#!/usr/bin/env python3
"""Writes what the code knows best: the configuration reference and the manual pages of program and settings.

    packaging/doc/generate.py            writes packaging/doc/{configuration,counters}.md and packaging/man/b4client.*
    packaging/doc/generate.py --check    exit status 1 and names when a committed file is not what would be written

What a key takes comes from its reader in ``b4client/config.py``, its default from the settings, its description from
the comment in ``packaging/b4client.toml.example`` (and DETAILS here, where a line is not enough); commands and options
come from ``b4client/cli.py``. A key without a description is an error.
"""

from __future__ import annotations

import argparse
import enum
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from b4client import cli, config, configvalues  # noqa: E402 - of this checkout, whatever is installed
from b4client.dataplane.ruleset import COUNTERS as DATAPLANE_COUNTERS  # noqa: E402
from b4client.model.maprule import DEFAULT_OFFSET_LEN  # noqa: E402
from b4client.model.settings import ANY_PREFIX, MECHANISMS  # noqa: E402
from b4client.model.softwire import Encapsulation, Mode  # noqa: E402
from b4client.protocol.counters import COUNTERS  # noqa: E402

EXAMPLE = HERE.parent / "b4client.toml.example"
DATE = "November 25, 2026"

SECTIONS = {
    "wan": "The line.",
    "dhcp": "How the lease is asked for.",
    "dhcp6": "Where the provider's DHCPv6 information comes from.",
    "provisioning": "Which ways to IPv4 may be used.",
    "static": "A softwire that is described here instead of by the provider; nothing is asked for then. The far end is "
    "softwire.br, of DS-Lite softwire.aftr.",
    "static.rule": "A mapping rule of MAP-E (RFC 7597 5); at most 1024.",
    "softwire": "What is built with it.",
    "nat.timeouts": "How long the NAT remembers what is silent, in seconds.",
    "daemon": "The process.",
    "forward": "One table for each port of the set that leads to a host of the LAN; at most 1024.",
}
ARRAYS = ("forward", "static.rule")
"""Sections of which there may be several tables."""
OTHER_NAMES = {"_TIMEOUTS": "nat.timeouts"}
"""Tables of readers in config.py whose name does not begin with their section's."""

DETAILS = {
    "wan.interface": "Interface towards the provider. The only setting that must be given, here or with --wan.",
    "dhcp.psid_len_hint": "K: ask for a port set of 2^(16-K) ports; the server decides (RFC 7618 7).",
    "dhcp.prefer_shared": "Take a shared address although a whole one is offered.",
    "dhcp.duid": "DUID (RFC 8415 11) instead of the one that is made from the hardware address and kept in state_dir.",
    "dhcp.iaid": "IAID in the client identifier (RFC 4361) instead of the one that follows from the interface's name.",
    "dhcp.hardware_address": "Hardware address in the DHCPv4 messages instead of the interface's.",
    "dhcp.hostname": "Host name to send (option 12).",
    "dhcp.offer_window": "Seconds to collect further offers after the first one.",
    "dhcp6.mode": "stateless asks for information only; prefix for a delegated prefix too; address+prefix for an "
    "address as well; external asks nothing: another DHCPv6 client hands over with b4client provision.",
    "dhcp6.socket": "udp: port 546 is ours. packet: listen beside another client that has it. auto: udp, or packet "
    "when the port is taken.",
    "dhcp.rfc8539": "Let DHCP 4o6 provision the softwire too (RFC 8539): auto does where option 88 comes without a BR.",
    "dhcp.saddr_retry": "Least wait before a softwire source that the server refused is sent again (RFC 8539 7.5).",
    "provisioning.mechanisms": "The mechanisms that may be used (RFC 8585 TRANS-2).",
    "provisioning.profile": "What it means when option 111 is missing or names nothing usable: rfc8026 any mechanism, "
    "rfc8585 none.",
    "provisioning.prefixes": "Prefixes delegated to this machine that nothing else tells it, for MAP-E.",
    "static.mode": "What is built. lw4o6 needs ipv4, map-e one or more [[static.rule]], ds-lite nothing else here.",
    "static.ipv4": "lw4o6: the public IPv4 address.",
    "static.psid": "lw4o6: PSID of the port set. Without psid and psid_len the address is not shared.",
    "static.psid_len": "lw4o6: number of bits of the PSID.",
    "static.offset": "lw4o6: PSID offset.",
    "static.bind_prefix": "lw4o6: the source address is built in the WAN's prefix that matches this one "
    "(RFC 7596 5.1); softwire.local names it itself.",
    "static.rule.ipv6": "Rule IPv6 prefix. It is matched with the WAN's prefixes and provisioning.prefixes.",
    "static.rule.ea_len": "Number of EA bits.",
    "static.rule.psid": "Port set that the End-user prefix does not tell; without meaning unless the rule gives a "
    "whole address (RFC 7598 4.5).",
    "static.rule.psid_len": "Number of bits of that PSID.",
    "static.rule.fmr": "Forwarding rule as well: traffic to its customers goes to them directly.",
    "softwire.interface_identifier": "Layout of MAP-E addresses: rfc7597, or draft03 for the operators that use the "
    "older one.",
    "softwire.aftr": "DS-Lite: the AFTR instead of option 64.",
    "softwire.route_metric": "Metric of that route; 0 is the best.",
    "nat.timeouts.udp": "UDP, one direction seen only (RFC 4787 REQ-5: at least 120).",
    "nat.timeouts.udp_stream": "UDP, both directions seen (RFC 4787 REQ-5: 300 is recommended).",
    "nat.timeouts.tcp_established": "TCP connections that stand (RFC 5382 REQ-5: at least 7440).",
    "nat.timeouts.tcp_transitory": "TCP connections that open or close (RFC 5382 REQ-5: at least 240).",
    "nat.timeouts.icmp": "ICMP queries (RFC 5508 REQ-2: at least 60), of the whole network namespace; "
    "a longer time that is set already stays.",
    "daemon.log_level": "How much is logged.",
    "forward.protocol": "Protocol.",
    "forward.port": "Port of the shared address; one of the set, else the forward waits or moves.",
    "forward.to": "IPv4 address of the host in the LAN.",
    "forward.to_port": "Port of that host; the same as port when it is not given.",
    "forward.on_change": "When the port is not in the set (any more): report leaves the forward inactive and says so, "
    "until the set has the port; move gives it another port of the set.",
}


FATES = {
    "in_drop": "came out of the softwire for another subscriber's address or port, or for no flow of ours",
    "out_drop": "could not be translated: their protocol has no ports",
    "guard_drop": "would have left with a source that is not ours: the NAT's safety net",
    "link_local_drop": "had a 169.254.0.0/16 address",
    "not_lan_drop": "came from a network that may not use the softwire (softwire.lan)",
    "not_forwarded": "came in on a port of ours that no forward leads anywhere",
    "exhausted": "new flows that found no free port in the whole set; refused with an ICMP error or a TCP reset",
    "refused": "new flows towards a destination for which that was known already; likewise refused",
    "retries": "no drops: tries of new flows after their first one, when the range that they hash to is full",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A setting: section, name, what it takes, default (None: unset), description."""

    section: str
    name: str
    takes: str
    default: str | None
    text: str


def takes(reader: Callable[[str, object], object]) -> str:
    """What a reader of configvalues.py accepts, in words. Raises SystemExit for one that this script does not know."""
    name = reader.__qualname__.split(".")[0]
    inside = dict(zip(reader.__code__.co_freevars, (c.cell_contents for c in reader.__closure__ or ()), strict=True))
    if name == "integer":
        return f"whole number, {inside['low']} to {inside['high']}"
    if name == "seconds":
        return f"seconds, {inside['low']:g} to {inside['high']:g}"
    if name == "choice":
        return " | ".join(f'"{option}"' for option in inside["options"])
    if name == "octets":
        low, high = inside["low"], inside["high"]
        return f"hexadecimal, {low if low == high else f'{low} to {high}'} octets"
    plain = {
        "boolean": "true | false",
        "text": "text",
        "interface": "interface name",
        "ipv6": "IPv6 address",
        "ipv6_list": "list of IPv6 addresses",
        "networks": "list of IPv4 networks",
        "hostname": "host name",
        "host": "IP address",
        "path": "absolute path",
        "ipv4": "IPv4 address",
        "ipv4_network": "IPv4 network",
        "prefix": "IPv6 prefix",
        "prefixes": "list of IPv6 prefixes",
        "mechanisms": "list of " + ", ".join(f'"{mechanism}"' for mechanism in MECHANISMS),
        "aftr": "IPv6 address or host name",
        "encapsulation": " | ".join(f'"{e.value}"' for e in Encapsulation),
    }
    if name not in plain:
        raise SystemExit(f"configvalues.{name}: say in takes() of {Path(__file__).name} what it accepts")
    return plain[name]


def sentence(text: str) -> str:
    """``text`` with a capital letter (but for names such as lwAFTR, and values that are explained) and a full stop."""
    first = text[0] if re.match(r"[a-z]+[A-Z0-9]|[a-z]+: ", text) else text[0].upper()
    return first + text[1:].rstrip(".") + "."


def comments() -> dict[str, str]:
    """SECTION.KEY -> the comment behind it in the example."""
    found, section = {}, ""
    for line in EXAMPLE.read_text(encoding="utf-8").splitlines():
        if header := re.match(r"#{0,2} ?\[+([a-z0-9.]+)\]+", line):
            section = header[1]
        elif key := re.match(r"#{0,2} ?([a-z0-9_]+) = [^#]*(?:#\s*(.*))?$", line):
            found[f"{section}.{key[1]}"] = key[2] or ""
    return found


def show(value: object) -> str | None:
    """A default as TOML writes it; None when there is none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(str(show(item)) for item in value) + "]"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return f'"{value.value if isinstance(value, enum.Enum) else value}"'


def tables() -> Iterator[tuple[str, dict[str, Any]]]:
    """(section, table of readers) of config.py: ``_DHCP`` and ``_DHCP_MORE`` both read the section dhcp."""
    for name, table in vars(config).items():
        if re.fullmatch(r"_[A-Z0-9_]+", name) and isinstance(table, dict):
            yield OTHER_NAMES.get(name) or name[1:].split("_")[0].lower(), table


def written_tables() -> dict[str, dict[str, tuple[Callable[[str, object], object], str | None]]]:
    """Section -> key -> (reader, default) of what config.py reads without a table. Raises SystemExit for a key of
    [static] or [[static.rule]] that is not here."""
    port = configvalues.integer(1, 65535)
    psid, psid_len, offset = configvalues.integer(0, 0xFFFF), configvalues.integer(1, 16), configvalues.integer(0, 15)
    static: dict[str, tuple[Callable[[str, object], object], str | None]] = {
        "mode": (configvalues.choice(tuple(mode.value for mode in Mode)), None),
        "ipv4": (configvalues.ipv4, None),
        "psid": (psid, None),
        "psid_len": (psid_len, None),
        "offset": (offset, "0"),
        "bind_prefix": (configvalues.prefix, show(str(ANY_PREFIX))),
    }
    rule: dict[str, tuple[Callable[[str, object], object], str | None]] = {
        "ipv6": (configvalues.prefix, None),
        "ipv4": (configvalues.ipv4_network, None),
        "ea_len": (configvalues.integer(0, 48), None),
        "offset": (offset, show(DEFAULT_OFFSET_LEN)),
        "psid": (psid, None),
        "psid_len": (psid_len, None),
        "fmr": (configvalues.boolean, "false"),
    }
    known = {"mode", *(key for mode in config.STATIC_KEYS.values() for key in mode)} - {"rule"}
    for section, table, read in (("static", static, known), ("static.rule", rule, set(config.RULE_KEYS))):
        if set(table) != read:
            raise SystemExit(f"{section}: written_tables() of {Path(__file__).name} and config.py differ: "
                             f"{', '.join(sorted(set(table) ^ read))}")  # fmt: skip
    return {
        "static": static,
        "static.rule": rule,
        "forward": {
            "protocol": (configvalues.choice(config.FORWARD_PROTOCOLS), None),
            "port": (port, None),
            "to": (configvalues.ipv4, None),
            "to_port": (port, None),
            "on_change": (configvalues.choice(config.ON_CHANGE), show("report")),
        },
    }


def keys() -> list[Key]:
    """Every setting, in the order of the code. Raises SystemExit naming what is not described."""
    said = comments()
    made = config.parse({"wan": {"interface": "eth0"}})
    places = [getattr(made, field.name) for field in fields(made) if is_dataclass(getattr(made, field.name))]

    def text(name: str) -> str:
        described = DETAILS.get(name) or said.get(name, "")
        if not described:
            raise SystemExit(f"{name} is described nowhere: write a comment behind it in {EXAMPLE.name}")
        return sentence(described)

    def default(section: str, attribute: str) -> str | None:
        order = places if section != "nat.timeouts" else [made.softwire.timeouts]
        return next((show(getattr(place, attribute)) for place in order if hasattr(place, attribute)), None)

    result = [Key("wan", "interface", takes(configvalues.interface), None, text("wan.interface"))]
    for section, table in tables():
        for name, (attribute, reader) in table.items():
            result.append(Key(section, name, takes(reader), default(section, attribute), text(f"{section}.{name}")))
    for section, table in written_tables().items():
        for name, (reader, initial) in table.items():
            result.append(Key(section, name, takes(reader), initial, text(f"{section}.{name}")))
    order = [*SECTIONS, *(key.section for key in result)]
    return sorted(result, key=lambda key: order.index(key.section))


def by_section() -> Iterator[tuple[str, list[Key]]]:
    """Sections with their keys."""
    found = keys()
    for section in dict.fromkeys(key.section for key in found):
        yield section, [key for key in found if key.section == section]


# ---- Markdown


def configuration() -> str:
    """The configuration reference."""
    lines = [
        "# Configuration reference",
        "",
        "<!-- Written by packaging/doc/generate.py from b4client/config.py; changes here are lost. -->",
        "",
        f"Settings are TOML, by default in `{config.DEFAULT_CONFIG}`. Only `wan.interface` must be given. "
        "`b4client run --check --config FILE` checks a file and starts nothing; an unknown or wrong key is refused "
        "with its name and the nearest known one. A complete file with comments: `packaging/b4client.toml.example`.",
    ]
    for section, members in by_section():
        header = f"[[{section}]]" if section in ARRAYS else f"[{section}]"
        lines += [
            "",
            f"## `{header}`",
            "",
            *([SECTIONS[section], ""] if section in SECTIONS else []),
            "| key | takes | default | |",
            "|---|---|---|---|",
        ]
        for key in members:
            accepted = key.takes.replace("|", "\\|")
            default = "" if key.default is None else f"`{key.default}`"
            lines.append(f"| `{key.name}` | {accepted} | {default} | {key.text} |")
    return "\n".join(lines) + "\n"


def counters() -> str:
    """What is counted, and what each count means."""
    lines = [
        "# Counters",
        "",
        "<!-- Written by packaging/doc/generate.py from the code; changes here are lost. -->",
        "",
        "`b4client status --json` shows those that are not zero. Whatever from the network is refused has a name here.",
        "",
        "## DHCP (`counters`)",
        "",
        "| counter | counts |",
        "|---|---|",
        *(f"| `{name}` | {text} |" for name, text in COUNTERS.items()),
        "",
        "## Packets (`dataplane.counters`, packets and octets each)",
        "",
        "| counter | counts packets that |",
        "|---|---|",
    ]
    for name in DATAPLANE_COUNTERS:
        if name not in FATES:
            raise SystemExit(f"dataplane counter {name}: describe it in FATES of {Path(__file__).name}")
        lines.append(f"| `{name}` | {FATES[name]} |")
    return "\n".join(lines) + "\n"


# ---- manual pages (mdoc)


def roff(text: str) -> str:
    """``text`` as one line of running roff text: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def sentences(text: str) -> list[str]:
    """Every sentence on a line of its own, as mdoc wants it."""
    return [roff(part) for part in re.split(r"(?<=\.) (?=[A-Z])", text) if part]


def argument(action: argparse.Action) -> str:
    """The argument of an option as mdoc macros; empty when it takes none."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return " | ".join(f"Cm {choice}" for choice in action.choices)
    return f"Ar {action.metavar or action.dest.upper()}"


def flags(action: argparse.Action) -> str:
    """An option's names and its argument as mdoc macros."""
    names = " , ".join(f"Fl {roff(name[1:])}" for name in action.option_strings)
    return f"{names} {argument(action)}".strip() if names else argument(action)


def parsers(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, argparse.ArgumentParser]]:
    """(words of the command, help, parser) of every command that does something."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                words = (*path, name)
                if any(isinstance(inner, argparse._SubParsersAction) for inner in sub._actions):
                    yield from parsers(sub, words)
                else:
                    yield words, helps.get(name, ""), sub


def man_program() -> str:
    """b4client(1)."""
    parser = cli.build_parser()
    lines = [
        f".Dd {DATE}",
        ".Dt B4CLIENT 1",
        ".Os",
        ".Sh NAME",
        ".Nm b4client",
        ".Nd Lightweight 4over6 / MAP\\-E customer edge",
        ".Sh SYNOPSIS",
        ".Nm",
        ".Fl \\-version",
    ]
    commands = list(parsers(parser))
    for words, _, _ in commands:
        lines += [".Nm", f".Cm {roff(' '.join(words))}", ".Op Ar options"]
    lines += [
        ".Sh DESCRIPTION",
        ".Nm",
        "gives IPv4 to a network behind an IPv6\\-only line.",
        "It leases an IPv4 address over IPv6 (DHCPv4 over DHCPv6, RFC 7341), which may be shared with other "
        "subscribers together with a set of ports of its own (RFC 7618),",
        "builds the softwire to the provider's lwAFTR or BR (RFC 7596, RFC 7597),",
        "and programs source NAT that never leaves those ports.",
        ".Pp",
        "One process serves one interface towards the provider.",
        ".Nm Cm run",
        "is that process;",
        ".Nm Cm status ,",
        "the verbs and",
        ".Nm Cm monitor",
        "talk to it through a Unix socket, as its own user or root;",
        ".Nm Cm calc",
        "and",
        ".Nm Cm decode",
        "need neither it nor privileges.",
        ".Sh COMMANDS",
    ]
    for words, text, sub in commands:
        lines += [f".Ss {roff(' '.join(words))}"]
        lines += sentences(sentence(sub.description or text))
        options = [a for a in sub._actions if not isinstance(a, argparse._HelpAction)]
        if not options:
            continue  # they are told by the command's own --help
        lines.append(".Bl -tag -width Ds")
        for action in options:
            told = (action.help or "").strip()
            if not told:
                told = "one of these" if action.choices else action.dest.replace("_", " ")
            lines += [f".It {flags(action)}", *sentences(sentence(told))]
        lines.append(".El")
    lines += [
        ".Sh SIGNALS",
        ".Bl -tag -width Ds",
        ".It Dv SIGTERM , SIGINT",
        "End; what becomes of the softwire is decided by",
        ".Fl \\-on\\-stop .",
        "A second one does not wait.",
        ".El",
        ".Sh FILES",
        ".Bl -tag -width Ds",
        f".It Pa {config.DEFAULT_CONFIG}",
        "Settings, see",
        ".Xr b4client.toml 5 .",
        ".It Pa /var/lib/b4client",
        "The lease of each instance, its forwards by command, and the DUID: what survives a reboot.",
        ".It Pa /run/b4client",
        "Control socket and lock of each instance, and what is remembered of the kernel's state.",
        ".El",
        ".Sh EXIT STATUS",
        ".Bl -tag -width Ds",
        f".It {cli.EXIT_OK}",
        "Done.",
        f".It {cli.EXIT_FAILED}",
        "Failed.",
        f".It {cli.EXIT_USAGE}",
        "Wrong usage.",
        f".It {cli.EXIT_NOT_RUNNING}",
        "Not running, or the running one refused.",
        ".It 4",
        "Warnings only (doctor); done, but not kept over a restart (forward).",
        f".It {cli.EXIT_CONFIG}",
        "Wrong configuration: starting again does not help.",
        ".El",
        ".Sh EXAMPLES",
        "Run on eth0 and look at it:",
        ".Bd -literal -offset indent",
        "b4client run \\-\\-wan eth0",
        "b4client status",
        ".Ed",
        ".Pp",
        "A web server in the LAN, on the port of the set that it gets, and how the set is used:",
        ".Bd -literal -offset indent",
        "b4client forward add tcp 80 192.168.1.10 \\-\\-any\\-port",
        "b4client ports \\-\\-watch",
        ".Ed",
        ".Pp",
        "Which ports are those of PSID 0x34 of 8 bits at offset 6:",
        ".Bd -literal -offset indent",
        "b4client calc portset \\-\\-offset 6 \\-\\-psid\\-len 8 \\-\\-psid 0x34",
        ".Ed",
        ".Sh SEE ALSO",
        ".Xr b4client.toml 5 ,",
        ".Xr b4client@.service 8",
        ".Sh STANDARDS",
        "RFC 7341, RFC 7596, RFC 7597, RFC 7598, RFC 7618.",
    ]
    return "\n".join(lines) + "\n"


def man_settings() -> str:
    """b4client.toml(5)."""
    lines = [
        f".Dd {DATE}",
        ".Dt B4CLIENT.TOML 5",
        ".Os",
        ".Sh NAME",
        ".Nm b4client.toml",
        ".Nd settings of b4client",
        ".Sh DESCRIPTION",
        "The file is TOML.",
        "Only",
        ".Va wan.interface",
        "must be given; an unknown key or a value that does not fit is refused with the key's name, and",
        ".Xr b4client 1",
        "exits with status 78.",
        "Options of the command line win over the file.",
        ".Pp",
        ".Dl b4client run \\-\\-check \\-\\-config FILE",
        ".Pp",
        "checks a file and starts nothing.",
    ]
    for section, members in by_section():
        header = f"[[{section}]]" if section in ARRAYS else f"[{section}]"
        lines += [f".Ss {header}", *sentences(SECTIONS.get(section, "")), ".Bl -tag -width Ds"]
        for key in members:
            lines += [f".It Va {key.name}", f"({roff(key.takes)}"]
            lines[-1] += ")" if key.default is None else f"; default {roff(key.default)})"
            lines += [".br", *sentences(key.text)]
        lines.append(".El")
    lines += [
        ".Sh FILES",
        ".Bl -tag -width Ds",
        f".It Pa {config.DEFAULT_CONFIG}",
        "Read when no other file is named.",
        ".El",
        ".Sh EXAMPLES",
        ".Bd -literal -offset indent",
        "[wan]",
        'interface = "eth0"',
        "",
        "[softwire]",
        'lan = ["192.168.1.0/24"]',
        "",
        "[[forward]]",
        'protocol = "tcp"',
        "port = 13312",
        'to = "192.168.1.10"',
        "to_port = 80",
        ".Ed",
        ".Sh SEE ALSO",
        ".Xr b4client 1 ,",
        ".Xr b4client@.service 8",
    ]
    return "\n".join(lines) + "\n"


def documents() -> dict[Path, str]:
    """Every file that is written, with its contents."""
    return {
        HERE / "configuration.md": configuration(),
        HERE / "counters.md": counters(),
        HERE.parent / "man/b4client.1": man_program(),
        HERE.parent / "man/b4client.toml.5": man_settings(),
    }


def main() -> int:
    """Write the files, or check them. Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(HERE.parents[1])} is not current: run packaging/doc/generate.py")
        else:
            path.write_text(documents()[path], encoding="utf-8")
            print(path.relative_to(HERE.parents[1]))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
