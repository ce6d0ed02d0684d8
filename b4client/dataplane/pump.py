"""The pump: the process that is the softwire on kernels without ip6_tunnel. ``userspace.py`` starts and asks it.

It is a process of its own, in its own session, so that a restart of the daemon does not cut traffic. It imports
little on purpose. ``forward.py`` has the two threads that work; the main thread sleeps in poll() and wakes for a
request on the Unix socket, an ICMPv6 error, a signal, and, while the path MTU is lowered, to ask whether it still is.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import struct
import sys
import syslog

from b4client.dataplane.forward import TAKEOVER_S, Forwarder, StartError
from b4client.dataplane.mesh import MeshTable, Rule

RECHECK_S = 610.0
"""After a Packet Too Big: when to ask again. The kernel forgets after net.ipv6.route.mtu_expires, 600 s by default."""
REQUEST_S = 1.0
"""How long a client on the Unix socket may keep the main thread waiting."""

_PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 15, 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_ADMIN = 12


class Control:
    """The Unix socket: ``status`` is answered with one JSON line, ``stop`` by ending the process."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._staged = f"{path}.{os.getpid()}"
        self._waiting: list[socket.socket] = []  # who asked to stop: that the connection closes tells them that we have
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        mask = os.umask(0o177)
        try:
            self.listener.bind(self._staged)
            self.listener.listen(8)
        except OSError as error:
            raise StartError(f"listen on {path}", error) from error
        finally:
            os.umask(mask)

    def publish(self) -> None:
        """Appear under the name that others know: from now on this process is the softwire."""
        os.rename(self._staged, self.path)

    def close(self) -> None:
        """Disappear."""
        for path in (self._staged, self.path):
            try:
                os.unlink(path)
            except OSError:
                pass

    def discard(self) -> None:
        """Disappear without having been published."""
        os.unlink(self._staged)

    def release(self) -> None:
        """Make the predecessor end, and wait until it has."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as predecessor:
            predecessor.settimeout(TAKEOVER_S)
            try:
                predecessor.connect(self.path)
                predecessor.sendall(b"stop\n")
                while predecessor.recv(4096):
                    pass
            except OSError:
                pass  # it is gone or deaf: attaching to the TUN will tell

    def answer(self, forwarder: Forwarder) -> None:
        """Serve one client."""
        try:
            client, _ = self.listener.accept()
            client.settimeout(REQUEST_S)
            if client.recv(64).strip() == b"stop":
                forwarder.end("stop")
                self._waiting.append(client)
            else:
                client.sendall(json.dumps(forwarder.status()).encode() + b"\n")
                client.close()
        except OSError:
            pass  # the client went away


def drop_privileges() -> None:
    """Keep CAP_NET_ADMIN alone (the MTU of the TUN follows the path), and never gain any again. OSError.

    All sockets are open by now; the threads that start later inherit this.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NAME, b"b4client-pump", 0, 0, 0)
    keep = 1 << _CAP_NET_ADMIN
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.capset(header, struct.pack("=6I", keep, keep, 0, 0, 0, 0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def serve(forwarder: Forwarder, control: Control) -> str:
    """Sleep and serve until the end; returns why it came."""
    signal.set_wakeup_fd(forwarder.alarm.fileno())
    signal.signal(signal.SIGTERM, lambda number, frame: forwarder.end("SIGTERM"))
    poller = select.poll()
    poller.register(control.listener, select.POLLIN)
    poller.register(forwarder.ended, select.POLLIN)
    raws = {raw.fileno(): raw for raw in forwarder.raws}
    for fd in raws:
        poller.register(fd, 0)  # POLLERR is always reported
    lowered = forwarder.follow_path()
    while not forwarder.end_reason:
        for fd, _ in poller.poll(RECHECK_S * 1000 if lowered else None):
            if fd == forwarder.ended.fileno():
                forwarder.ended.recv(64)
            elif fd in raws:
                forwarder.read_errors(raws[fd])
            else:
                control.answer(forwarder)
        lowered = forwarder.follow_path()
    return forwarder.end_reason


def main() -> None:
    """One JSON line on standard input says what to do: device, local, remote, mtu, path of the Unix socket, forwarding
    rules (or null), whether the layout of their addresses is draft03. One line on standard output says how it went.
    Without input there is nothing to do: whoever kept us ready has ended."""
    line = sys.stdin.readline()
    if not line or os.fork():
        os._exit(0)  # whoever started us need not wait for us, nor be there for it
    device, local, remote, mtu, path, rules, draft03 = json.loads(line)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = None
    try:
        mesh = None if rules is None else MeshTable((Rule(*rule) for rule in rules), draft03=draft03)
        forwarder = Forwarder(device, local, remote, int(mtu), mesh)
        control = Control(path)
        forwarder.attach(control.release)
        drop_privileges()
        forwarder.start()
        control.publish()
    except StartError as error:
        if control:
            control.discard()
        print(json.dumps(error.report), flush=True)
        os._exit(1)
    print(json.dumps({"pid": os.getpid()}), flush=True)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
    reason = serve(forwarder, control)
    control.close()
    if reason not in ("SIGTERM", "stop"):
        syslog.openlog("b4client-pump", syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(syslog.LOG_ERR, f"{device}: {reason}")
    os._exit(0)  # the threads sleep in system calls; nothing is left to be written


if __name__ == "__main__":
    main()
