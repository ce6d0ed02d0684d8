"""The softwire on a TUN, for kernels without ip6_tunnel: starting, finding and ending its pump (``pump.py``).

The pump lives by itself; what ties it to a device is a Unix socket in ``run_dir``. A socket file that nobody listens on
is stale and means nothing. Addresses, routes and the state of the TUN are the caller's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from b4client.dataplane import tunio
from b4client.dataplane.mesh import Rule
from b4client.dataplane.plan import MeshPlan
from b4client.model.errors import DataplaneError

START_S = 10.0
STOP_S = 3.0
ASK_S = 2.0
_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13


@dataclass(frozen=True, slots=True)
class Pump:
    """A living pump. ``mtu`` is the configured IPv4 MTU in octets, ``tunnel_mtu`` what the path allows now.

    ``counters``: packets by fate, the names are those of ``fates.COUNTERS``. ``by_rule``: packets sent and received
    by each of the rules of ``mesh``.
    """

    pid: int
    local: IPv6Address
    remote: IPv6Address
    mtu: int
    tunnel_mtu: int
    counters: dict[str, int]
    mesh: MeshPlan | None = None
    by_rule: tuple[tuple[int, int], ...] = ()


def available() -> str | None:
    """None when the userspace softwire can work here; else the reason and its remedy in words. Changes nothing."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "/dev/net/tun is missing: load the module tun (modprobe tun), or give the container that device"
    except OSError as error:
        return (
            f"/dev/net/tun cannot be opened ({error.strerror}): load the module tun, or allow this service the device"
        )
    effective = _effective_capabilities()
    for number, name in ((_CAP_NET_ADMIN, "CAP_NET_ADMIN"), (_CAP_NET_RAW, "CAP_NET_RAW")):
        if not effective >> number & 1:
            return f"{name} is missing: run as root, or give the service this capability"
    for family, protocol, name in (
        (socket.AF_INET6, socket.IPPROTO_IPIP, "a raw IPv6 socket"),
        (socket.AF_PACKET, 0, "a packet socket"),
    ):
        try:
            socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol).close()
        except OSError as error:
            return f"{name} cannot be opened ({error.strerror}): the kernel lacks it or a sandbox forbids it"
    return None


def kernel_driver_known() -> bool:
    """True when ip6_tunnel is loaded, or lies ready to be: the userspace softwire will hardly be needed.

    A guess from files, for a decision that only costs time when it is wrong; the kernel itself is asked later.
    """
    if Path("/sys/module/ip6_tunnel").exists() or Path("/proc/sys/net/ipv6/conf/ip6tnl0").exists():
        return True
    modules = Path("/lib/modules", os.uname().release)
    for name in ("modules.dep", "modules.builtin"):
        with contextlib.suppress(OSError):
            if b"/ip6_tunnel.ko" in (modules / name).read_bytes():
                return True
    return False


class Standby:
    """A pump that has loaded everything and waits to be told what to do: the slow half of a start, done before
    the lease is there. It ends by itself when whoever keeps it ends."""

    def __init__(self, run_dir: Path) -> None:
        """Raises DataplaneError when no process can be started."""
        self._process: subprocess.Popen[bytes] | None = _launch(run_dir)

    def take(self) -> subprocess.Popen[bytes] | None:
        """The process, once; None when it is used up or has ended."""
        process, self._process = self._process, None
        return process if process is not None and process.poll() is None else None

    def close(self) -> None:
        """Let it go, if it was not used."""
        process = self.take()
        if process is not None:
            process.communicate()


def start(
    device: str,
    local: IPv6Address,
    remote: IPv6Address,
    mtu: int,
    *,
    run_dir: Path,
    standby: Standby | None = None,
    mesh: MeshPlan | None = None,
) -> None:
    """Make ``device`` a softwire from ``local`` to ``remote``; returns when it forwards. ``mtu``: IPv4 octets.
    ``mesh``: forwarding rules for the other customers' edges.

    The TUN is created when absent. A pump with these parameters is left alone; with others it is replaced, the new one
    being ready before the old one lets go. DataplaneError, ``transient`` while ``local`` is tentative or has no route.
    """
    with _locked(run_dir):
        pump = running(device, run_dir=run_dir)
        if pump and (pump.local, pump.remote, pump.mtu, pump.mesh) == (local, remote, mtu, mesh):
            return
        process = standby.take() if standby is not None else None
        rules, draft03 = (None, False) if mesh is None else (mesh.rules, mesh.draft03)
        _employ(
            process or _launch(run_dir),
            [device, str(local), str(remote), mtu, _socket_name(device), rules, draft03],
        )


def running(device: str, *, run_dir: Path) -> Pump | None:
    """The pump that serves ``device``, or None."""
    try:
        with _connected(device, run_dir) as connection:
            connection.sendall(b"status\n")
            line = b""
            while not line.endswith(b"\n") and (part := connection.recv(65536)):
                line += part
            status = json.loads(line)
            return Pump(
                pid=_peer_pid(connection),
                local=IPv6Address(status["local"]),
                remote=IPv6Address(status["remote"]),
                mtu=status["mtu"],
                tunnel_mtu=status["tunnel-mtu"],
                counters=status["counters"],
                mesh=_mesh(status["mesh"]) if status.get("mesh") else None,
                by_rule=tuple((sent, received) for sent, received in status.get("by-rule", ())),
            )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mesh(said: dict[str, Any]) -> MeshPlan:
    return MeshPlan(tuple(Rule(*map(int, rule)) for rule in said["rules"]), bool(said["draft03"]))


def stop(device: str, *, run_dir: Path) -> None:
    """End the pump and delete the TUN; nothing when there is neither. DataplaneError."""
    with _locked(run_dir):
        _end_pump(device, run_dir)
        deadline = time.monotonic() + STOP_S
        while True:
            try:
                tunio.delete_tun(device)
                break
            except OSError as error:
                # A process that was just ended may still be closing its descriptors.
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise DataplaneError(
                        f"delete the TUN {device}",
                        error.strerror or str(error),
                        errno=error.errno or 0,
                        remedy="another process holds it" if error.errno == errno.EBUSY else "",
                    ) from error
                time.sleep(0.005)
        with contextlib.suppress(OSError):
            (run_dir / _socket_name(device)).unlink()


def _end_pump(device: str, run_dir: Path) -> None:
    try:
        with _connected(device, run_dir) as connection:
            pidfd = os.pidfd_open(_peer_pid(connection))
            try:
                connection.settimeout(STOP_S)
                connection.sendall(b"stop\n")
                while connection.recv(4096):
                    pass
            except TimeoutError:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
    except OSError:
        pass  # no pump, or it ended in between


def _launch(run_dir: Path) -> subprocess.Popen[bytes]:
    """Start a pump's process, detached; it waits on its standard input. DataplaneError."""
    # Isolated, and without site: the package's own place is all that it needs to find, installed or in a checkout.
    root = str(Path(__file__).resolve().parents[2])
    program = f"import sys; sys.path.append({root!r}); from b4client.dataplane.pump import main; main()"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", program],
            cwd=run_dir,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise DataplaneError("start a pump", error.strerror or str(error), errno=error.errno or 0) from error


def _employ(process: subprocess.Popen[bytes], arguments: list[Any]) -> None:
    """Tell a waiting pump what to do and wait for its word. DataplaneError."""
    operation = f"start the pump of {arguments[0]}"
    try:
        output, _ = process.communicate(json.dumps(arguments).encode() + b"\n", timeout=START_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise DataplaneError(operation, f"no answer within {START_S:.0f} s") from None
    try:
        answer = json.loads(output.splitlines()[-1])
    except (ValueError, IndexError):
        raise DataplaneError(operation, output.decode(errors="replace").strip() or "it ended without a word") from None
    if "pid" not in answer:
        number = int(answer["errno"])
        raise DataplaneError(
            f"{operation}: {answer['operation']}",
            answer["reason"],
            errno=number,
            remedy="another process holds the device" if number == errno.EBUSY else "",
            transient=number in (errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EBUSY),
        )


def _socket_name(device: str) -> str:
    return f"{device}.softwire"


@contextlib.contextmanager
def _connected(device: str, run_dir: Path) -> Iterator[socket.socket]:
    """A connection to the pump of ``device``. OSError when there is none."""
    # Through the directory's descriptor: the path of a Unix socket may have 107 octets, that of a directory more.
    directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ASK_S)
            connection.connect(f"/proc/self/fd/{directory}/{_socket_name(device)}")
            yield connection
    finally:
        os.close(directory)


@contextlib.contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """One starter or stopper at a time. The lock is on the directory: no file that could be left."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        directory = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DataplaneError(f"open {run_dir}", error.strerror or str(error), errno=error.errno or 0) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _peer_pid(connection: socket.socket) -> int:
    """Who listens, told by the kernel."""
    pid: int = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
