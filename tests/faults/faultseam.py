"""A kernel that says no: the data plane's calls into pyroute2 and libnftables, of which the n-th fails.

    with Seam(fail_at=7, error=...) as seam: dataplane.install(config)

Calls are counted in the order in which they are made, over all threads; ``seam.calls`` names them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

from b4client.dataplane import ctdump, netlink, nft, sysctl

ROUTE_CALLS = ("link", "addr", "route", "get_links", "get_addr", "get_routes", "link_lookup")


def netlink_error(code: int) -> Callable[[], Exception]:
    """Makes pyroute2's exception for an answer of the kernel."""
    return lambda: netlink.pyroute2().NetlinkError(code, os.strerror(code))


def socket_error(code: int) -> Callable[[], Exception]:
    """Makes the exception of a netlink socket that fails itself, as with ENOBUFS when its buffer ran over."""
    return lambda: OSError(code, os.strerror(code))


def dump_interrupted() -> Exception:
    """What pyroute2 raises when the kernel says that a listing changed while it was read (NLM_F_DUMP_INTR)."""
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

    made: Exception = NetlinkDumpInterrupted()
    return made


REFUSED = netlink_error(errno.EPERM)


class Seam:
    """Counts the calls; the ``fail_at``-th (from 1) and ``times - 1`` after it fail with ``error()``.

    nftables' context fails with ``refusal``, its own words. ``only`` takes the names of calls that count.
    """

    def __init__(
        self,
        fail_at: int | None = None,
        error: Callable[[], Exception] = REFUSED,
        *,
        times: int = 1,
        refusal: str = "Error: Could not process rule: Device or resource busy",
        only: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self.calls: list[str] = []
        self.failed: list[str] = []
        self._fail_at, self._error, self._times = fail_at, error, times
        self._refusal, self._only = refusal, only
        self._lock = threading.Lock()
        self._patches = contextlib.ExitStack()

    def _fails(self, name: str) -> bool:
        with self._lock:
            if not self._only(name):
                return False
            self.calls.append(name)
            number = len(self.calls)
            fails = self._fail_at is not None and self._fail_at <= number < self._fail_at + self._times
            if fails:
                self.failed.append(name)
            return fails

    def __enter__(self) -> Seam:
        real = netlink.pyroute2()
        seam = self

        class Route:
            """The real socket; its calls are counted."""

            def __init__(self) -> None:
                self._real = real.IPRoute()

            def __getattr__(self, name: str) -> Any:
                found = getattr(self._real, name)
                if name not in ROUTE_CALLS:
                    return found

                def call(*args: Any, **kwargs: Any) -> Any:
                    if seam._fails(f"{name} {args[0]}" if args and isinstance(args[0], str) else name):
                        raise seam._error()
                    return found(*args, **kwargs)

                return call

        pyroute2 = mock.Mock(wraps=real)
        pyroute2.IPRoute, pyroute2.NetlinkError = Route, real.NetlinkError
        self._patches.enter_context(mock.patch.object(netlink, "pyroute2", return_value=pyroute2))
        run, write = nft.Nft.run, sysctl.write

        def refuse(rules: nft.Nft, what: str, text: str) -> None:
            if self._fails(f"nft: {what}"):
                raise nft._refused(what, self._refusal)
            run(rules, what, text)

        def refuse_sysctl(path: str, value: str) -> None:
            if self._fails(f"sysctl {path}"):
                raise netlink.dataplane_error(f"set {path} to {value}", OSError(errno.EPERM, os.strerror(errno.EPERM)))
            write(path, value)

        entries = ctdump._entries

        def refuse_dump(*args: Any, **kwargs: Any) -> Any:
            if self._fails("conntrack dump"):
                code = netlink.code_of(self._error())
                raise OSError(code, os.strerror(code))
            return entries(*args, **kwargs)

        self._patches.enter_context(mock.patch.object(ctdump, "_entries", refuse_dump))
        self._patches.enter_context(mock.patch.object(nft.Nft, "run", refuse))
        self._patches.enter_context(mock.patch.object(sysctl, "write", refuse_sysctl))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()
