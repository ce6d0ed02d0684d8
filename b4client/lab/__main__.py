"""``python -m b4client.lab``: the testbed's commands, which the scripts in ``netns-scripts/`` call."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

from b4client.lab.kea import KeaSettings
from b4client.lab.netns import LabError
from b4client.lab.testbed import BR, CPE_WAN, LAN_HOST, NODES, SERVER, Testbed, TestbedSettings, parse_portparams
from b4client.model.errors import B4Error


def add_testbed_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose what Kea serves."""
    parser.add_argument("--portparams", default="0, 0x34/8", help='port set as "OFFSET, PSID/PSIDLEN", or none')
    parser.add_argument("--address", type=IPv4Address, default=KeaSettings().first, help="the IPv4 address to lease")
    parser.add_argument("--option88", choices=("unicast", "multicast", "none"), default="unicast")
    parser.add_argument("--container", choices=("lw4o6", "map-e", "none"), default="lw4o6", help="what carries the BR")
    parser.add_argument("--bind-prefix", type=IPv6Network, help="binding prefix (option 92) in the lw4o6 container")
    parser.add_argument("--lease", type=int, default=600, metavar="S", help="lease time (default 600)")
    parser.add_argument("--renew", type=int, metavar="S", help="T1 (default: half of the lease)")
    parser.add_argument("--rebind", type=int, metavar="S", help="T2 (default: 7/8 of the lease)")
    parser.add_argument("--refresh", type=int, metavar="S", help="information refresh time (option 32)")
    parser.add_argument("--authoritative", action="store_true", help="NAK instead of silence for unknown clients")
    parser.add_argument("--reject", action="store_true", help="the lwAFTR answers unbound packets with ICMPv6")


def settings_from(args: argparse.Namespace) -> TestbedSettings:
    """The testbed that the options describe. Raises LabError."""
    kea = replace(
        KeaSettings(),
        first=args.address,
        last=args.address,
        ports=parse_portparams(args.portparams),
        valid_lifetime=args.lease,
        renew_timer=args.lease // 2 if args.renew is None else args.renew,
        rebind_timer=args.lease * 7 // 8 if args.rebind is None else args.rebind,
        option88=args.option88,
        container=args.container,
        bind_prefix=args.bind_prefix,
        refresh_time=args.refresh,
        authoritative=args.authoritative,
    )
    return TestbedSettings(prefix=_prefix(), kea=kea, reject=args.reject)


def _prefix() -> str:
    return os.environ.get("B4_PREFIX", "b4")


def _up(args: argparse.Namespace) -> int:
    testbed = Testbed(settings_from(args))
    built = testbed.up()
    print(f"the testbed {testbed.settings.prefix!r} is {'up' if built else 'up already'}:")
    print(f"  {testbed.lan.name} {LAN_HOST} - {testbed.cpe.name} {CPE_WAN.ip} - {testbed.isp.name} (Kea) -", end=" ")
    print(f"{testbed.aftr.name} {BR} - {testbed.srv.name} {SERVER}")
    print(f"  lwAFTR binding: {testbed.settings.binding}")
    print(f"  the client: ip netns exec {testbed.cpe.name} b4client run --wan wan")
    return 0


def _down(args: argparse.Namespace) -> int:
    Testbed(TestbedSettings(prefix=_prefix())).down()
    return 0


def _status(args: argparse.Namespace) -> int:
    print(json.dumps(Testbed.existing(_prefix()).describe(), indent=2))
    return 0


def _exec(args: argparse.Namespace) -> int:
    command = Testbed.existing(_prefix()).nodes[args.node].argv(*args.argv)
    os.execvp(command[0], command)  # noqa: S606 - the wished-for program takes our place


def _capture(args: argparse.Namespace) -> int:
    testbed = Testbed.existing(_prefix())
    where = ["-w", str(args.write)] if args.write else []
    command = testbed.nodes[args.node].argv("tcpdump", "-n", "-U", "-i", args.interface, *where, *args.filter)
    os.execvp(command[0], command)  # noqa: S606 - the wished-for program takes our place


def _ladder(args: argparse.Namespace) -> int:
    from b4client.lab import ladder

    for line in ladder.render(ladder.read_pcap(args.file), colour=sys.stdout.isatty()):
        print(line)
    return 0


def _demo(args: argparse.Namespace) -> int:
    from b4client.lab.demo import demo

    return demo(settings_from(args), encapsulation=args.encapsulation)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m b4client.lab", description="The testbed. B4_PREFIX chooses which one (default b4)."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, function: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(func=function)
        return command

    add_testbed_options(add("up", _up, "build the testbed (nothing happens when it is up)"))
    add("down", _down, "take the testbed away (nothing happens when it is away)")
    add("status", _status, "what is up, as JSON")
    inside = add("exec", _exec, "run a command in a node")
    inside.add_argument("node", choices=NODES)
    inside.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    capture = add("capture", _capture, "show or record packets until Ctrl-C")
    capture.add_argument("node", choices=NODES, nargs="?", default="cpe")
    capture.add_argument("interface", nargs="?", default="wan")
    capture.add_argument("-w", "--write", type=Path, metavar="FILE", help="record into a pcap file")
    capture.add_argument("filter", nargs="*", help="what to record, in tcpdump's language")
    pcap = add("ladder", _ladder, "draw the DHCP exchange in a pcap file")
    pcap.add_argument("file", type=Path)
    demo = add("demo", _demo, "the whole thing once, with real traffic")
    add_testbed_options(demo)
    demo.add_argument("--encapsulation", choices=("auto", "kernel", "userspace"), default="auto")
    args = parser.parse_args(argv)
    try:
        return int(args.func(args))
    except (LabError, B4Error, OSError) as error:
        print(f"netns-scripts: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
