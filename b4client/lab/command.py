"""``b4client lab``: a network of customers behind an lwAFTR, on this machine, to try things with."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from b4client.lab.accessnet import AccessNetwork
from b4client.lab.accessplan import ENCAPSULATIONS, MODES, PREFIX_OPTION, SERVERS, AccessPlan
from b4client.lab.labview import draw_network, draw_table, explain_table
from b4client.lab.netns import LabError, Namespace
from b4client.lab.screen import Screen
from b4client.model.errors import B4Error

WATCH_S: Final = 1.0
CLEAR: Final = "\x1b[H\x1b[J"
INTERFACE: Final = {"lan": "eth0", "cpe": "wan", "isp": "wan", "aftr": "core", "srv": "eth0"}
DESCRIPTION: Final = """\
A laboratory on this machine: customers with the real client, an ISP with its DHCP server, an lwAFTR (border relay) and
an IPv4 server, each in a network namespace. Nothing of the machine's own network is touched.

   b4client lab up --customers 4         build it: four customers share 192.0.2.1
   b4client lab status --watch           who has which ports, and how many are in use
   b4client lab shell lan1 ping -c3 198.51.100.10      a command (or a shell) in a node
   b4client lab capture                  DHCP and softwires in the access network, packet by packet
   b4client lab down                     take it away; nothing is left

Nodes: lanN (LAN host 192.168.1.10 of customer N), cpeN (b4client; its control socket is found by itself), isp, aftr,
srv (198.51.100.10). Needs root; netns-scripts/setup installs what else it needs."""


def _up(args: argparse.Namespace) -> int:
    plan = AccessPlan(
        args.customers, args.sharing_ratio, args.mode, args.server, args.encapsulation, args.prefix, args.lease
    )
    network, screen = AccessNetwork(plan), Screen(sys.stderr if args.json else None)
    network.check_machine()
    screen.title(f"The lab {plan.prefix!r}")
    screen.lines(draw_network(plan, coloured=screen.colour))
    screen.print()
    # A signal must find its way through the clean-up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    begun = time.monotonic()
    try:
        built = network.up(screen.progress)
    finally:
        screen.end_progress()
    seconds = time.monotonic() - begun
    rows = network.table()
    if args.json:
        print(json.dumps({**_document(network, rows), "built": built, "seconds": round(seconds, 3)}, indent=2))
        return 0
    _show(screen, network, rows)
    screen.print()
    if built:
        screen.print(f"{plan.customers} customer{'s' * (plan.customers > 1)} up in {seconds:.1f} s. Try:")
    else:
        screen.print("It was up already. Try:")
    given = "" if plan.prefix == AccessPlan().prefix else f" {PREFIX_OPTION} {plan.prefix}"
    screen.lines(
        [
            f"b4client lab{given} shell lan1 ping -c3 198.51.100.10",
            f"b4client lab{given} shell cpe1 b4client status",
            f"b4client lab{given} down",
        ]
    )
    return 0


def _document(network: AccessNetwork, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"plan": json.loads(network.state), "customers": rows, "lwaftr": network.lwaftr.counters()}


def _show(screen: Screen, network: AccessNetwork, rows: list[dict[str, Any]]) -> None:
    screen.title("The customers")
    screen.lines(draw_table(rows, coloured=screen.colour))
    screen.lines(explain_table())
    refused = network.lwaftr.refused()
    drops = ", ".join(f"{name} {n}" for name, n in refused.items()) or "none"
    screen.lines([f"refused by the lwAFTR: {drops}"])


def _status(args: argparse.Namespace) -> int:
    network, screen = AccessNetwork.existing(args.prefix), Screen()
    while True:
        rows = network.table()
        if args.watch and screen.terminal and not args.json:
            screen.print(CLEAR)
        if args.json:
            print(json.dumps(_document(network, rows), indent=None if args.watch else 2), flush=True)
        else:
            _show(screen, network, rows)
        if not args.watch:
            return 0
        time.sleep(WATCH_S)


def _down(args: argparse.Namespace) -> int:
    # The plan does not matter: everything under the prefix goes.
    gone = AccessNetwork(AccessPlan(prefix=args.prefix)).down()
    print(f"the lab {args.prefix!r} is gone" if gone else f"no lab {args.prefix!r} is up")
    return 0


def _node(args: argparse.Namespace, name: str) -> tuple[AccessNetwork, Namespace]:
    network = AccessNetwork.existing(args.prefix)
    node = network.nodes.get(name)
    if node is None:
        last = network.plan.customers
        raise LabError(f"no node {name!r}: there are isp, aftr, srv, cpe1 to cpe{last} and lan1 to lan{last}")
    return network, node


def _shell(args: argparse.Namespace) -> int:
    network, node = _node(args, args.name)
    environment = dict(os.environ)
    # The tool of this very installation, and the control socket of this very node.
    here = str(Path(sys.executable).parent)
    environment["PATH"] = f"{here}:{environment.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    if args.name.startswith("cpe"):
        environment["B4CLIENT_RUN_DIR"] = str(network.customers[int(args.name[3:]) - 1].client.run_dir)
    command = args.argv or [os.environ.get("SHELL", "/bin/sh")]
    if not args.argv:
        environment["PS1"] = f"{node.name}# "
        print(f"a shell in {node.name}; exit ends it", file=sys.stderr)
    argv = node.argv(*command)
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environment)  # noqa: S606 - the wished-for program takes our place


def _capture(args: argparse.Namespace) -> int:
    name, _, interface = args.name.partition(":")
    _, node = _node(args, name)
    where = ["-w", str(args.write)] if args.write else []
    interface = interface or INTERFACE[name.rstrip("0123456789")]
    argv = node.argv("tcpdump", "-n", "-U", "-i", interface, *where, *([args.filter] if args.filter else []))
    os.execvp(argv[0], argv)  # noqa: S606 - the wished-for program takes our place


def _demo(_: argparse.Namespace) -> int:
    from b4client.lab.__main__ import main as testbed

    return testbed(["demo"])


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``b4client lab``."""
    parser = argparse.ArgumentParser(
        prog="b4client lab", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    for target, default in ((parser, AccessPlan().prefix), (common, argparse.SUPPRESS)):
        target.add_argument(PREFIX_OPTION, metavar="NAME", default=default, help="which lab (default b4lab)")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        command.set_defaults(func=function)
        return command

    up = add("up", _up, "build it; nothing happens when it is up, another one under this name is taken away first")
    up.add_argument("--customers", type=int, default=2, metavar="N", help="how many (default 2)")
    up.add_argument("--sharing-ratio", type=int, metavar="R", help="port sets of an address (default: the fewest)")
    up.add_argument("--mode", choices=MODES, default="lw4o6")
    up.add_argument("--server", choices=SERVERS, default="lab", help="lab shares one address (RFC 7618), Kea cannot")
    up.add_argument("--encapsulation", choices=ENCAPSULATIONS, default="auto")
    up.add_argument("--lease", type=int, default=3600, metavar="S", help="lease time (default 3600)")
    up.add_argument("--json", action="store_true", help="the result as JSON")
    status = add("status", _status, "the customers: address, port set, ports in use, state")
    status.add_argument("--json", action="store_true", help="as JSON")
    status.add_argument("--watch", action="store_true", help="every second, until Ctrl-C")
    shell = add("shell", _shell, "a shell, or a command, in a node")
    shell.add_argument("name", metavar="NAME", help="isp, aftr, srv, cpeN, lanN")
    shell.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    capture = add("capture", _capture, "show or record packets until Ctrl-C")
    capture.add_argument(
        "name", metavar="NAME[:INTERFACE]", nargs="?", default="isp", help="default isp:wan, the access network"
    )
    capture.add_argument("-w", "--write", type=Path, metavar="FILE", help="record into a pcap file (b4client decode)")
    capture.add_argument("--filter", metavar="EXPRESSION", help='what, in tcpdump\'s language, e.g. "port 546"')
    add("demo", _demo, "the demonstration: one customer with Kea, then two on one address, with real traffic")
    add("down", _down, "take it away; nothing is left")
    return parser


def main(argv: Sequence[str]) -> int:
    """Entry point for the arguments after ``b4client lab``. Returns the exit status."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.func(args))
    except (LabError, B4Error, OSError) as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        print(f"b4client lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
