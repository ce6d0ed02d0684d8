"""Run one command in User Mode Linux on this machine's own root file system, with a kernel that has ip6_tunnel.

No root is needed on the machine, and nothing that the command writes reaches it, but for directories named so.
``netns-scripts/run-in-uml`` finds or builds the kernel and calls this; ``netns-scripts/uml/init`` is the guest's side.
Exit status: the command's; 124 when the time was over; 125 when the guest died.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

EXIT_TIMEOUT = 124
EXIT_DIED = 125
PASSED_ON = re.compile(r"PATH|HOME|LANG|LC_.*|TERM|TZ|CI|COLUMNS|VIRTUAL_ENV|PYTHON.*|PYTEST_.*|B4_.*|B4CLIENT_.*")
CONSOLE_TAIL = 4000
DRAIN_S = 5.0


def write_job(directory: Path, command: Sequence[str], writable: Sequence[Path], environment: dict[str, str]) -> None:
    """Write what the guest's process 1 reads: ``settings`` and ``command``."""
    (directory / "settings").write_text(
        f"WRITABLE={shlex.quote(' '.join(str(path.resolve()) for path in writable))}\n", encoding="utf-8"
    )
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    lines += [f"cd {shlex.quote(os.getcwd())}", f"exec {shlex.join(command)}"]
    (directory / "command").write_text("\n".join(lines) + "\n", encoding="utf-8")


def passed_on(names: Sequence[str]) -> dict[str, str]:
    """The environment for the guest: harmless variables of ours, and ``NAME`` or ``NAME=VALUE`` as asked."""
    environment = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    for asked in names:
        name, given, value = asked.partition("=")
        if given:
            environment[name] = value
        elif name in os.environ:
            environment[name] = os.environ[name]
    return environment


def _memory_directory(size: int) -> str:
    """Where the guest's memory file is put: in the machine's memory when there is room, else on disk."""
    for path in ("/dev/shm", "/tmp", "/var/tmp"):  # noqa: S108 - only asked for room; the kernel makes the file safely
        with contextlib.suppress(OSError):
            stat = os.statvfs(path)
            if stat.f_bavail * stat.f_frsize > size:
                return path
    return tempfile.gettempdir()


def _copy(source: BinaryIO, destination: BinaryIO) -> None:
    while data := os.read(source.fileno(), 65536):
        destination.write(data)
        destination.flush()


def run(
    kernel: Path,
    init: Path,
    command: Sequence[str],
    *,
    memory_mib: int = 512,
    timeout_s: float | None = None,
    writable: Sequence[Path] = (),
    environment: Sequence[str] = (),
    time_travel: bool = False,
) -> int:
    """Run ``command``; its output goes to ours as it comes. Returns the exit status as the module's text says."""
    with tempfile.TemporaryDirectory(prefix="b4-uml-") as name:
        job = Path(name)
        write_job(job, command, writable, passed_on(environment))
        # The kernel's arguments are separated by blanks; the project's path may have some.
        shutil.copy(init, job / "init")
        console = (job / "console").open("wb")
        arguments = [
            *("rootfstype=hostfs", "rootflags=/", "rw", f"mem={memory_mib}M", f"init={job}/init", f"B4_JOB={job}"),
            # The kernel's own words go to a file; the serial lines are the command's standard output and error.
            *("con=null", f"con0=null,fd:{console.fileno()}", "ssl=null", "ssl0=null,fd:1", "ssl1=null,fd:2"),
            *(f"uml_dir={job}/uml", "umid=guest", "quiet", "random.trust_cpu=on"),
            *(["time-travel"] if time_travel else []),
        ]
        with console:
            # Pipes of our own: UML makes its descriptors non-blocking, and cannot wait for a regular file.
            process = subprocess.Popen(
                [str(kernel), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[console.fileno()],
                start_new_session=True,
                env={**os.environ, "TMPDIR": _memory_directory(memory_mib << 20)},
            )
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        assert process.stderr is not None  # noqa: S101
        pairs = ((process.stdout, sys.stdout.buffer), (process.stderr, sys.stderr.buffer))
        copies = [threading.Thread(target=_copy, args=pair, daemon=True) for pair in pairs]
        for copy in copies:
            copy.start()
        over = False
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            over = True
        finally:
            # UML is a process group of helpers; the leader's end does not always end them.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for copy in copies:
                copy.join(DRAIN_S)
        if over:
            print(f"run-in-uml: not done after {timeout_s:g} s: ended", file=sys.stderr)
            return EXIT_TIMEOUT
        try:
            return int((job / "status").read_text(encoding="ascii"))
        except (OSError, ValueError):
            tail = (job / "console").read_text(errors="replace")[-CONSOLE_TAIL:]
            print(f"{tail}\nrun-in-uml: the guest died; the end of its console is above", file=sys.stderr)
            return EXIT_DIED


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="run-in-uml", description="run a command in User Mode Linux")
    parser.add_argument("--kernel", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--init", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--mem", type=int, default=512, metavar="MIB", help="the guest's memory (default 512)")
    parser.add_argument("--timeout", type=float, metavar="S", help="end it after this time")
    parser.add_argument("--writable", type=Path, action="append", default=[], help="directory whose writes are kept")
    parser.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]", help="pass a variable on")
    parser.add_argument("--time-travel", action="store_true", help="the guest's clock leaps over idle time")
    parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    args = parser.parse_args(argv)
    command = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    if not command:
        parser.error("no COMMAND")
    # UML looks for no program: the shell in the guest does, but a missing one should be told here.
    if shutil.which(command[0]) is None:
        parser.error(f"{command[0]}: no such command")
    # The guest is a process group of its own: it must not outlive us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begin = time.monotonic()
    try:
        return run(
            args.kernel,
            args.init,
            command,
            memory_mib=args.mem,
            timeout_s=args.timeout,
            writable=args.writable,
            environment=args.env,
            time_travel=args.time_travel,
        )
    except KeyboardInterrupt:
        print(f"run-in-uml: interrupted after {time.monotonic() - begin:.0f} s", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
