"""Other DHCPv6 clients, as distributions ship them, on the WAN of a testbed's CPE."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from b4client.lab.netns import LabError, reap, wait_until
from b4client.lab.testbed import Testbed

DHCPCD_CONF = """duid ll
nohook resolv.conf
script /bin/true
ipv6only
noipv6rs
interface wan
    ia_na 1
    ia_pd 2
"""
NETWORKD_CONF = """[Match]
Name=wan

[Network]
DHCP=ipv6
KeepConfiguration=static
IPv6AcceptRA=no
LinkLocalAddressing=ipv6

[DHCPv6]
WithoutRA=solicit
UseDNS=no
PrefixDelegationHint=::/56
"""


class OtherClient:
    """One that runs, with its log. ``text`` is the log so far."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, bound: str, renewed: str) -> None:
        self.process = process
        self._log = log
        self._bound = bound
        self._renewed = renewed

    @property
    def text(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_bound(self) -> None:
        """Until it has its lease. Raises LabError with its log."""
        self._wait(lambda: self._bound in self.text, "the other client's lease")

    def wait_replies(self, number: int) -> None:
        """Until it has accepted so many Replies."""
        self._wait(lambda: self.text.count(self._renewed) >= number, f"{number} Replies for the other client")

    def _wait(self, ready: object, what: str) -> None:
        try:
            wait_until(ready, 25, what)  # type: ignore[arg-type]
        except LabError as error:
            raise LabError(f"{error}; it said:\n{self.text}") from None


@contextlib.contextmanager
def _running(
    testbed: Testbed, directory: Path, script: str, name: str, *, bound: str, renewed: str
) -> Iterator[OtherClient]:
    """``script``, which becomes the program ``name``, in the CPE, with mounts and a host name of its own."""
    log = directory / "client.log"
    process = testbed.cpe.start("unshare", "-m", "-u", "sh", "-c", script, log=log)
    try:
        yield OtherClient(process, log, bound, renewed)
    finally:
        reap(process)
        # Its helper processes may outlive it a while, and the port is theirs as long.
        wait_until(lambda: name not in testbed.cpe.run("ss", "-Hulnp6", "sport = :546").stdout, 20, f"{name} to end")


@contextlib.contextmanager
def dhcpcd(testbed: Testbed, directory: Path) -> Iterator[OtherClient]:
    """dhcpcd with IA_NA and IA_PD; its files are its own."""
    directory.mkdir()
    program = shutil.which("dhcpcd", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        raise LabError("dhcpcd is missing: netns-scripts/setup tests installs it")
    (directory / "dhcpcd.conf").write_text(DHCPCD_CONF)
    script = (
        "mkdir -p /run/dhcpcd && mount -t tmpfs none /run/dhcpcd && mount -t tmpfs none /var/lib/dhcpcd && "
        f"exec {program} -B -d -6 -f {directory}/dhcpcd.conf wan"
    )
    with _running(testbed, directory, script, "dhcpcd", bound="BOUND6", renewed="REPLY6 received") as client:
        yield client


@contextlib.contextmanager
def networkd(testbed: Testbed, directory: Path) -> Iterator[OtherClient]:
    """systemd-networkd with its DHCPv6 client on the WAN. It runs without systemd, udev and bus, in a mount namespace
    where /run and /sys are its own (a read-only /sys tells it that there is no udev)."""
    directory.mkdir()
    program = Path("/usr/lib/systemd/systemd-networkd")
    if not program.exists():
        raise LabError("systemd-networkd is missing: it comes with Debian's systemd")
    (directory / "wan.network").write_text(NETWORKD_CONF)
    script = (
        "mount -o remount,ro /sys && mount -t tmpfs none /run && "
        "mkdir -p /run/systemd/network /run/systemd/netif/links /run/systemd/netif/leases && "
        f"cp {directory}/wan.network /run/systemd/network/ && "
        # Its newer versions take away routes that others have made.
        "mkdir /run/systemd/networkd.conf.d && "
        "printf '[Network]\\nManageForeignRoutes=no\\n' >/run/systemd/networkd.conf.d/routes.conf && "
        "chown -R systemd-network: /run/systemd/netif && mount -t tmpfs none /etc/systemd/network && "
        f"SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec {program}"
    )
    bound, renewed = "State changed: request -> bound", "Processed Reply message"
    with _running(testbed, directory, script, "systemd-network", bound=bound, renewed=renewed) as client:
        yield client
