"""The pump's way in, of its thread alone: what the kernel refuses to hand over is dropped, and the next one is read."""

from __future__ import annotations

import collections
import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

from b4client.dataplane.inward import Inward


def test_a_packet_without_a_virtio_header_is_dropped() -> None:
    answers = iter([errno.EINVAL, errno.EINVAL, errno.ENETDOWN])

    def refuse(buffer: bytearray) -> int:
        code = next(answers)
        raise OSError(code, os.strerror(code))

    counters: collections.Counter[str] = collections.Counter()
    forwarder: Any = SimpleNamespace(
        counters=counters, gate=None, addresses=bytes(32), packet=SimpleNamespace(recv_into=refuse)
    )
    with pytest.raises(OSError, match="Network is down"):
        Inward(forwarder).run()
    assert counters == {"drop-in-malformed": 2}
