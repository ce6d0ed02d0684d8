"""Questions and orders to the kernel by rtnetlink: the only importer of pyroute2.

Works with pyroute2 0.7.2 (Debian 12) and 0.9. Blocking; never call it from the event loop. Opening a socket costs more
than asking through it, so what asks many questions does so inside a ``session``.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import tenacity

from b4client.model.errors import DataplaneError

TRANSIENT = frozenset({errno.EBUSY, errno.ENOBUFS, errno.EAGAIN, errno.EINTR, -1})
"""-1 is pyroute2's NetlinkDumpInterrupted: something changed while it was listed."""
T = TypeVar("T")


@cache
def pyroute2() -> Any:
    """pyroute2 at first use: it costs 0.1 s and 8 MB, which `b4client status` need not pay."""
    try:
        import pyroute2
    except ImportError:
        raise DataplaneError(
            "load pyroute2", "not installed", remedy="apt install python3-pyroute2, or pip install pyroute2."
        ) from None
    return pyroute2


def netlink_error() -> Any:
    """pyroute2's exception class, for an ``except`` clause."""
    return pyroute2().NetlinkError


def _transient(error: BaseException) -> bool:
    # A kernel's answer has a code; a socket that fails itself, as with ENOBUFS when its buffer ran over, an errno.
    return code_of(error) in TRANSIENT


def code_of(error: Any) -> int:
    """The errno of pyroute2's exception or of an OSError; 0 when it has none."""
    return int(getattr(error, "code", 0) or getattr(error, "errno", 0) or 0)


def patiently(work: Callable[[], T]) -> T:
    """Do ``work`` again when netlink was busy or out of buffers."""
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_transient),
        stop=tenacity.stop_after_attempt(5),
        wait=tenacity.wait_exponential(0.02),
        reraise=True,
    )
    return retry(work)


def dataplane_error(what: str, error: Any) -> DataplaneError:
    """The kernel's no, in our words."""
    code = code_of(error)
    text = str(error.args[-1]) if error.args else str(error)
    remedy = ""
    if code == errno.EPERM:
        remedy = "Run as root, or with CAP_NET_ADMIN."
    return DataplaneError(what, text, errno=code, remedy=remedy, transient=code in TRANSIENT)


class _Session(threading.local):
    depth = 0
    socket: Any = None


_session = _Session()


@contextmanager
def session() -> Iterator[None]:
    """One route socket for all that this thread does inside. It belongs to the network namespace it was opened in: do
    not change the thread's within. Sessions nest."""
    _session.depth += 1
    try:
        yield
    finally:
        _session.depth -= 1
        if _session.depth == 0 and _session.socket is not None:
            opened, _session.socket = _session.socket, None
            opened.close()


@contextmanager
def _route_socket() -> Iterator[Any]:
    with session():
        if _session.socket is None:
            _session.socket = pyroute2().IPRoute()
        yield _session.socket


def do(what: str, work: Callable[[Any], T], *, fine: frozenset[int] = frozenset()) -> T | None:
    """Run one netlink request; the errno values in ``fine`` mean that it was so already."""

    def attempt() -> T:
        with _route_socket() as ipr:
            try:
                return work(ipr)
            except OSError:
                # What it was still to read is of unknown state: the next request has a socket of its own.
                _session.socket = None
                ipr.close()
                raise

    with session():
        try:
            return patiently(attempt)
        except (pyroute2().NetlinkError, OSError) as error:
            if code_of(error) in fine:
                return None
            raise dataplane_error(what, error) from None


def ask(what: str, question: Callable[[Any], Iterable[Any]], *, fine: frozenset[int] = frozenset()) -> list[Any]:
    """What netlink answers to a question, all of it; nothing for the errno values in ``fine``."""
    return do(what, lambda ipr: list(question(ipr)), fine=fine) or []


def lookup(name: str) -> int | None:
    """The index of an interface: by ioctl, a tenth of what a netlink request costs."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def index_of(name: str) -> int:
    """The index of an interface. Raises DataplaneError when there is none of that name."""
    index = lookup(name)
    if index is None:
        raise DataplaneError(f"find {name}", "no such interface", errno=errno.ENODEV)
    return index
