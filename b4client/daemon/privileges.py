"""What the daemon may do from the moment on at which strangers' octets can reach it.

Three capabilities, no way to more, and (where the kernel has Landlock) no file that it could write outside of its own
places.

Capabilities belong to threads: ``drop`` is called while there is only one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from b4client.config import Config, HookSettings
from b4client.model.errors import DataplaneError

NEEDED = {"CAP_NET_BIND_SERVICE": 10, "CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
"""Port 546; links, addresses, routes, nft and the sysctls below net; the userspace softwire's sockets."""
KEPT = sum(1 << bit for bit in NEEDED.values())

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_MAX_CAPABILITY = 63

_SYS_LANDLOCK = 444
"""landlock_create_ruleset; add_rule and restrict_self follow. The same numbers on every architecture."""
_RULE_PATH_BENEATH = 1
_WRITE_FILE = 1 << 1
_CHANGES_V1 = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # removing and making files, directories, sockets ...
_TRUNCATE, _TRUNCATE_SINCE = 1 << 14, 3
_FILE_RIGHTS = _WRITE_FILE | _TRUNCATE


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _refused(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def capabilities(which: str = "CapEff") -> int:
    """A set of this thread's capabilities as a bit mask; ``which`` as in /proc/thread-self/status."""
    for line in Path("/proc/thread-self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1], 16)
    return 0


def missing() -> list[str]:
    """Names of the capabilities that are needed and not there."""
    effective = capabilities()
    return [name for name, bit in NEEDED.items() if not effective >> bit & 1]


def drop() -> None:
    """Keep the needed capabilities alone, in every set, and never gain any again. Raises OSError."""
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise _refused("no_new_privs")
    for bit in range(_MAX_CAPABILITY + 1):
        if KEPT >> bit & 1 or libc.prctl(_PR_CAPBSET_READ, bit, 0, 0, 0) != 1:
            continue
        if libc.prctl(_PR_CAPBSET_DROP, bit, 0, 0, 0) and ctypes.get_errno() != errno.EPERM:
            # EPERM: without CAP_SETPCAP the bounding set stays, but there is nothing left that could be gained by it.
            raise _refused("bounding set")
    if capabilities("CapPrm") == capabilities("CapEff") == KEPT:
        return  # a supervisor has done it, and may forbid the system call too
    # Inheritable: the pump of the userspace softwire is started later and needs them, whoever runs us.
    header, low = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), KEPT & 0xFFFFFFFF
    if libc.capset(header, struct.pack("=6I", low, low, low, 0, 0, 0)):
        raise _refused("capset")


def settle(config: Config) -> bool:
    """Drop and confine as ``config`` allows; called when strangers' octets can reach us, while there is one thread.

    True when confined: who is told by hooks must be able to write elsewhere. Raises DataplaneError.
    """
    daemon, textfile = config.daemon, config.metrics.textfile
    places = [daemon.state_dir, daemon.run_dir, Path("/proc/sys/net")]
    if textfile is not None:
        places.append(textfile.parent)
    with contextlib.suppress(OSError):
        daemon.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        drop()
        return not _hooks_write(config.hooks) and confine(places, (Path("/dev/net/tun"), Path("/dev/null")))
    except OSError as error:
        raise DataplaneError("drop privileges", error.strerror or str(error), errno=error.errno or 0) from None


def _hooks_write(hooks: HookSettings) -> bool:
    if hooks.script is not None or hooks.dns == "none":
        return hooks.script is not None
    from b4client.daemon import dnsrecord

    return dnsrecord.find(hooks.dns) == "resolvconf"


def confine(directories: Iterable[Path], files: Iterable[Path]) -> bool:
    """Nothing outside of ``directories`` and ``files`` can be changed from now on, by this process and those it starts.

    False where the kernel has no Landlock. Raises OSError when it refuses.
    """
    libc = _libc()
    abi = libc.syscall(_SYS_LANDLOCK, None, 0, 1)
    if abi < 1:
        return False
    rights = _CHANGES_V1 | (_TRUNCATE if abi >= _TRUNCATE_SINCE else 0)
    with contextlib.ExitStack() as stack:
        ruleset = libc.syscall(_SYS_LANDLOCK, struct.pack("=Q", rights), 8, 0)
        if ruleset < 0:
            raise _refused("landlock")
        stack.callback(os.close, ruleset)
        for path, allowed in (*((d, rights) for d in directories), *((f, rights & _FILE_RIGHTS) for f in files)):
            try:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue  # what is not there needs no permission
            stack.callback(os.close, descriptor)
            rule = struct.pack("=Qi", allowed, descriptor)
            if libc.syscall(_SYS_LANDLOCK + 1, ruleset, _RULE_PATH_BENEATH, rule, 0):
                raise _refused(f"landlock rule for {path}")
        if libc.syscall(_SYS_LANDLOCK + 2, ruleset, 0):
            raise _refused("landlock")
    return True
