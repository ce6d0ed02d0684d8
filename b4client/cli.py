"""The command line. Heavy parts are imported by the command that needs them, so that the light ones start at once."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import b4client
from b4client import api, calc, completion, decode, doctor, forward, ports
from b4client.config import DEFAULT_CONFIG, DHCP6_MODES, LOG_FORMATS, LOG_LEVELS, STOP_POLICIES, DaemonSettings, load
from b4client.model.errors import ConfigError, ControlError, DataplaneError, NotRunningError

RUN_DIR_VARIABLE = "B4CLIENT_RUN_DIR"
"""Where to look for a running client when --run-dir does not say: ``b4client lab shell`` sets it."""
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_RUNNING = 3
EXIT_CONFIG = 78  # EX_CONFIG: a supervisor must not start us again and again


def _run_dir(parser: argparse.ArgumentParser, default: str = "/run/b4client") -> None:
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help=f"sockets and locks (default {default})")


def _target(parser: argparse.ArgumentParser, *, as_json: bool = False) -> None:
    _run_dir(parser, f"${RUN_DIR_VARIABLE}, else /run/b4client")
    parser.add_argument("--instance", "--wan", metavar="NAME", help="which one, when several run (its WAN interface)")
    if as_json:
        parser.add_argument("--json", action="store_true", help="as JSON")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="b4client",
        description="Lightweight 4over6 / MAP-E customer edge: leases an IPv4 address (and its share of the ports) "
        "over IPv6, builds the softwire and the NAT.",
        epilog="Exit status: 0 done, 1 failed or refused, 2 wrong usage, 3 not running, "
        "4 warnings only (doctor, forward), 78 wrong configuration.",
    )
    parser.add_argument("--version", action="version", version=f"b4client {b4client.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    run = commands.add_parser("run", help="run the client in the foreground")
    run.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"settings (default: /etc/b4client/IFACE.toml, else {DEFAULT_CONFIG}, if there is one)",
    )
    run.add_argument("--wan", metavar="IFACE", help="interface towards the provider: all that must be given")
    run.add_argument("--state-dir", type=Path, metavar="DIR", help="lease and DUID (default /var/lib/b4client)")
    _run_dir(run)
    run.add_argument("--encapsulation", choices=("auto", "kernel", "userspace"), help="who encapsulates (default auto)")
    run.add_argument("--device", metavar="NAME", help="name of the softwire's interface (default b4)")
    run.add_argument("--br", metavar="IPV6", help="lwAFTR / BR address, instead of what DHCPv6 says")
    run.add_argument("--server", metavar="IPV6", action="append", help="DHCP 4o6 server, instead of option 88")
    run.add_argument("--dhcp6", choices=DHCP6_MODES, help="what to ask for by DHCPv6 (default stateless)")
    run.add_argument("--psid-len-hint", type=int, metavar="K", help="ask for a port set of 2^(16-K) ports")
    run.add_argument("--no-start-delay", action="store_true", help="no random waits before the first messages")
    run.add_argument("--on-stop", choices=STOP_POLICIES, help="what SIGTERM does to the softwire (default withdraw)")
    run.add_argument("--log-format", choices=LOG_FORMATS, help="text or json on stderr, or syslog (default text)")
    run.add_argument("--log-level", choices=LOG_LEVELS)
    run.add_argument("-v", "--verbose", action="store_true", help="the same as --log-level debug")
    run.add_argument("--check", action="store_true", help="only check the configuration")
    run.set_defaults(func=_run)

    status = commands.add_parser("status", help="what the client has and does")
    _target(status, as_json=True)
    status.set_defaults(func=_status)

    monitor = commands.add_parser("monitor", help="events as they happen")
    _target(monitor, as_json=True)
    monitor.add_argument("--recent", action="store_true", help="the latest events, and no waiting for more")
    monitor.set_defaults(func=_monitor)

    metrics = commands.add_parser("metrics", help="numbers for Prometheus (text format)")
    _target(metrics)
    metrics.set_defaults(func=_metrics)

    for name, text in (
        ("renew", "renew the lease now"),
        ("rebind", "renew the lease now, with any server"),
        ("release", "give the lease back and stay idle"),
        ("restart", "start the exchange anew"),
        ("reload", "read the configuration again and change what has changed (as SIGHUP does)"),
    ):
        verb = commands.add_parser(name, help=text)
        _target(verb, as_json=True)
        verb.set_defaults(func=_verb, arguments={})
    stop = commands.add_parser("stop", help="end the client and take the softwire down")
    _target(stop, as_json=True)
    stop.add_argument("--policy", choices=STOP_POLICIES, default="withdraw", help="what becomes of the softwire")
    stop.set_defaults(func=_stop)
    teardown = commands.add_parser(
        "teardown",
        help="take down what an ended daemon left in the kernel",
        description="Takes down the softwire, NAT, addresses and settings of a daemon that has ended and left them, "
        "by what it noted in the run directory. Refused while it runs. Doing it twice does no harm.",
    )
    _target(teardown, as_json=True)
    teardown.add_argument("--device", metavar="NAME", help="the softwire's interface, where the run directory is lost")
    teardown.set_defaults(func=_teardown)
    provision = commands.add_parser(
        "provision",
        help="take over what another DHCPv6 client got",
        description='For dhcp6.mode = "external": what another DHCPv6 client holds, that is the options of the Reply '
        "that are about IPv4, prefixes, addresses. Everything each time: what is not there any more is gone.",
        epilog="From the script of odhcp6c (odhcp6c -r 88,111 -s SCRIPT IFACE): b4client provision --from-odhcp6c "
        '--instance "$1". A document: {"options": {"88": "HEX", "96": "HEX"}, "prefixes": [{"prefix": "2001:db8::/56", '
        '"preferred": 3600, "valid": 7200}], "addresses": []}; lifetimes in seconds.',
    )
    _target(provision, as_json=True)
    where = provision.add_mutually_exclusive_group(required=True)
    where.add_argument("file", nargs="?", metavar="FILE", help="a JSON document; - is standard input")
    where.add_argument("--from-odhcp6c", action="store_true", help="the environment that odhcp6c gives its script")
    where.add_argument("--clear", action="store_true", help="the other client has nothing any more")
    provision.set_defaults(func=_provision)
    level = commands.add_parser("log-level", help="change how much is logged")
    _target(level, as_json=True)
    level.add_argument("level", choices=LOG_LEVELS)
    level.set_defaults(func=_log_level)

    # Its arguments are its own: main hands them over before they are looked at here.
    text = "a laboratory on this machine: many customers on one address"
    commands.add_parser("lab", help=text, description=f"{text}; it has a help of its own", add_help=False)
    calc.add_parser(commands)
    decode.add_parser(commands)
    doctor.add_parser(commands)
    forward.add_parser(commands, _target, _socket)
    ports.add_parser(commands, _target, _socket)
    completion.add_parser(commands, build_parser)
    return parser


# ---- run


def _overrides(args: argparse.Namespace) -> dict[str, dict[str, object]]:
    given: dict[str, dict[str, object]] = {
        "wan": {"interface": args.wan},
        "dhcp": {
            "servers": args.server,
            "psid_len_hint": args.psid_len_hint,
            "start_delay": False if args.no_start_delay else None,
        },
        "dhcp6": {"mode": args.dhcp6},
        "softwire": {"encapsulation": args.encapsulation, "device": args.device, "br": args.br},
        "daemon": {
            "state_dir": args.state_dir and str(args.state_dir.absolute()),
            "run_dir": args.run_dir and str(args.run_dir.absolute()),
            "stop": args.on_stop,
            "log_level": "debug" if args.verbose else args.log_level,
            "log_format": args.log_format,
        },
    }
    return {section: {k: v for k, v in table.items() if v is not None} for section, table in given.items()}


def _run(args: argparse.Namespace) -> int:
    config = load(args.config, _overrides(args))
    if args.check:
        print(f"the configuration is good (WAN {config.wan})")
        return EXIT_OK
    from b4client.daemon import privileges

    if missing := privileges.missing():
        raise DataplaneError(
            "start",
            f"missing privileges: {', '.join(missing)}",
            remedy="Run as root, or give these capabilities (setpriv, systemd AmbientCapabilities).",
        )
    from b4client.daemon import allocator, lean, logs

    allocator.spare()
    lean.leave_out_openssl()
    import asyncio

    from b4client.daemon.loop import Daemon

    logs.setup(config.daemon.log_level, config.daemon.log_format, journal="JOURNAL_STREAM" in os.environ)
    asyncio.run(Daemon(config, lambda: load(args.config, _overrides(args))).run())
    return EXIT_OK


# ---- talking to a running one


def _socket(args: argparse.Namespace) -> Path:
    run_dir = args.run_dir or Path(os.environ.get(RUN_DIR_VARIABLE) or DaemonSettings().run_dir)
    return api.find_socket(run_dir, args.instance)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _status(args: argparse.Namespace) -> int:
    answer = api.call(_socket(args), "status")["arguments"]
    if args.json:
        _print_json(answer)
    else:
        from b4client.statusview import render_status

        print("\n".join(render_status(answer, colour=sys.stdout.isatty())))
    return EXIT_OK


def _metrics(args: argparse.Namespace) -> int:
    print(api.call(_socket(args), "metrics")["arguments"]["metrics"], end="")
    return EXIT_OK


def _command(args: argparse.Namespace, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = api.call(_socket(args), command, arguments)
    if args.json:
        _print_json(answer)
    else:
        print(answer["text"])
    return answer


def _verb(args: argparse.Namespace) -> int:
    _command(args, args.command, args.arguments)
    return EXIT_OK


def _provision(args: argparse.Namespace) -> int:
    from b4client.provision import from_odhcp6c, read_document

    try:
        document: dict[str, Any] = {}
        if args.from_odhcp6c:
            document = from_odhcp6c(os.environ)
        elif not args.clear:
            document = read_document(args.file)
        _command(args, "provision", document)
    except ValueError as error:
        print(f"b4client: provision: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


def _log_level(args: argparse.Namespace) -> int:
    _command(args, "log-level", {"level": args.level})
    return EXIT_OK


def _stop(args: argparse.Namespace) -> int:
    answer = _command(args, "stop", {"policy": args.policy})
    pid = int(answer["arguments"]["pid"])
    # Back only when it is really gone: what a script does next may rely on it.
    with contextlib.suppress(ProcessLookupError):
        import select

        descriptor = os.pidfd_open(pid)
        try:
            ready, _, _ = select.select([descriptor], [], [], 15)
        finally:
            os.close(descriptor)
        if not ready:
            raise ControlError(f"b4client (pid {pid}) is still ending")
    return EXIT_OK


def _teardown(args: argparse.Namespace) -> int:
    from b4client.daemon import teardown

    run_dir = args.run_dir or Path(os.environ.get(RUN_DIR_VARIABLE) or DaemonSettings().run_dir)
    left = teardown.find(run_dir, args.instance, args.device)
    if len(left) > 1:
        names = ", ".join(item.wan or item.device for item in left)
        raise ControlError(f"several instances left something ({names}): name one with --instance")
    removed = [text for item in left for text in teardown.take_down(run_dir, item)]
    if args.json:
        _print_json({"removed": removed})
    else:
        print("\n".join(f"removed: {text}" for text in removed) or "nothing was left")
    return EXIT_OK


def _monitor(args: argparse.Namespace) -> int:
    path = _socket(args)

    def show(event: dict[str, Any]) -> None:
        print(json.dumps(event) if args.json else f"{event['level']:7} {event['kind']:24} {event['text']}", flush=True)

    if args.recent:
        for event in api.call(path, "recent")["arguments"]["events"]:
            show(event)
        return EXIT_OK
    for line in api.stream(path, "monitor", {}, None):
        if "kind" in line:
            show(line)
        elif line.get("result") != api.RESULT_OK:
            raise ControlError(str(line.get("text")))
    raise NotRunningError("the daemon ended")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a picture with gaps rather than none on a terminal without UTF-8
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["lab"]:
        from b4client.lab.command import main as lab

        return lab(arguments[1:])
    args = build_parser().parse_args(arguments)
    try:
        return int(args.func(args))
    except ConfigError as error:
        print(f"b4client: configuration: {error}", file=sys.stderr)
        return EXIT_CONFIG
    except ControlError as error:
        print(f"b4client: {error}", file=sys.stderr)
        return EXIT_NOT_RUNNING if isinstance(error, NotRunningError) else EXIT_FAILED
    except DataplaneError as error:
        print(f"b4client: cannot {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
