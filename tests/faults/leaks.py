"""What a process, a namespace and the machine hold, so that it can be compared: nothing may be left or grow."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path

from b4client.lab.netns import Namespace


@dataclass(frozen=True, slots=True)
class Holding:
    """Of a process: open descriptors, threads, resident kilobytes, seconds of CPU, voluntary context switches."""

    descriptors: int
    threads: int
    rss_kb: int
    cpu_s: float
    switches: int


def holding(pid: int) -> Holding:
    """What it holds now."""
    status = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        if ":" in line
    )
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text(encoding="ascii").splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
    return Holding(
        len(os.listdir(f"/proc/{pid}/fd")),
        int(status["Threads"]),
        int(status["VmRSS"].split()[0]),
        (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
        switches,
    )


def namespaces() -> set[str]:
    """Names of the network namespaces."""
    path = Path("/run/netns")
    return set(os.listdir(path)) if path.exists() else set()


def own_descriptors() -> int:
    """Open descriptors of this process."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def tracked(namespace: Namespace, address: str) -> int:
    """Conntrack entries that have the address (the ``conntrack`` command is not everywhere)."""
    with namespace.entered():
        from pyroute2.netlink.nfnetlink.nfctsocket import NFCTSocket

        ct = NFCTSocket()
        try:
            return sum(address in str(entry) for entry in ct.dump())
        finally:
            ct.close()
