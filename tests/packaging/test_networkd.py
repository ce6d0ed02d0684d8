"""systemd-networkd beside b4client, in the testbed's CPE, with the files that the examples and the package bring."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tools

from b4client.lab.client import Client
from b4client.lab.netns import LabError, reap, wait_until
from b4client.lab.testbed import CPE_WAN, ISP_WAN, SERVER, Testbed, TestbedSettings

PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = PROJECT / "packaging/examples/networkd"
DROP_IN = PROJECT / "packaging/networkd/10-b4client.network"
NETWORKD = Path("/lib/systemd/systemd-networkd")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root (CI is)"),
    pytest.mark.skipif(not NETWORKD.exists(), reason="no systemd-networkd on this machine: its package is systemd"),
]

# Its own /run and /etc, and a read-only /sys: networkd then does not wait for a udev that knows nothing of all this.
ENTER = """
mount --make-rprivate /
mount -o remount,bind,ro /sys 2>/dev/null || mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network /run/systemd/netif
mount --bind "$1" /etc/systemd/network
mount -t tmpfs tmpfs /usr/lib/systemd/network
exec /lib/systemd/systemd-networkd
"""

# The testbed's router sends no advertisements: the line's addresses by hand.
BY_HAND = f"""[Network]
Address={CPE_WAN}
Gateway={ISP_WAN.ip}
"""

CATCH_ALL = """[Match]
Name=*

[Network]
LinkLocalAddressing=yes
"""


@pytest.fixture
def testbed() -> Iterator[Testbed]:
    testbed = Testbed(TestbedSettings(prefix=f"nd{os.getpid()}"))
    testbed.up()
    yield testbed
    testbed.down()


@pytest.fixture
def networkd(testbed: Testbed, tmp_path: Path) -> Iterator[Callable[[dict[str, str]], None]]:
    """Call it with file names and contents for /etc/systemd/network: runs networkd in the CPE."""
    started: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "networkd.log"

    def start(files: dict[str, str]) -> None:
        directory = tmp_path / "network"
        for name, text in files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        command = ("unshare", "--mount", "sh", "-c", ENTER, "sh", str(directory))
        environment = {
            **os.environ,
            "SYSTEMD_LOG_TARGET": "console",
            # From systemd 256 on its DHCP server waits for a service of its own to say so.
            "SYSTEMD_NETWORK_PERSISTENT_STORAGE_READY": "1",
        }
        started.append(testbed.cpe.start(*command, log=log, env=environment))

    yield start
    for process in started:
        reap(process)
    print(log.read_text() if log.exists() else "")


def address_list(testbed: Testbed, device: str) -> str:
    return testbed.cpe.run("ip", "-o", "address", "show", "dev", device).stdout


def make_softwire_device(testbed: Testbed) -> None:
    """A device with the softwire's name."""
    testbed.cpe.run("ip", "link", "add", "b4", "type", "veth", "peer", "name", "far")
    testbed.cpe.run("ip", "link", "set", "b4", "up")
    testbed.cpe.run("ip", "link", "set", "far", "up")


@pytest.mark.timeout(180)
def test_drop_in_keeps_networkd_off_the_softwire(testbed: Testbed, networkd: Callable[[dict[str, str]], None]) -> None:
    make_softwire_device(testbed)
    networkd({"99-all.network": CATCH_ALL, DROP_IN.name: DROP_IN.read_text()})
    # As soon as the others have one, it has been asked and left alone.
    wait_until(lambda: "169.254." in address_list(testbed, "lan"), 60, "networkd to configure the LAN")
    assert "inet 169.254" not in address_list(testbed, "b4")


@pytest.mark.timeout(180)
def test_without_it_networkd_takes_hold(testbed: Testbed, networkd: Callable[[dict[str, str]], None]) -> None:
    """What the drop-in is for."""
    make_softwire_device(testbed)
    networkd({"99-all.network": CATCH_ALL})
    wait_until(lambda: "inet 169.254" in address_list(testbed, "b4"), 60, "a link-local address on the softwire")


@pytest.mark.timeout(180)
def test_plain_router(testbed: Testbed, networkd: Callable[[dict[str, str]], None], tmp_path: Path) -> None:
    """The example as it stands: networkd holds WAN and LAN, b4client the softwire, and the LAN gets addresses."""
    files = {file.name: file.read_text() for file in [*EXAMPLE.glob("*.network"), DROP_IN]}
    networkd({**files, "10-wan.network.d/by-hand.conf": BY_HAND, "99-all.network": CATCH_ALL})
    busybox = tools.need("busybox")

    def leased() -> bool:
        done = testbed.lan.run(
            *(busybox, "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true"), check=False
        )
        return "192.168.1." in done.stderr + done.stdout

    wait_until(leased, 60, "a DHCP lease from networkd in the LAN")
    settings = tmp_path / "b4client.toml"
    shutil.copy(EXAMPLE / "b4client.toml", settings)
    client = Client(testbed.cpe, tmp_path, encapsulation="userspace", options=("--config", str(settings)))
    client.start()
    try:
        client.wait_bound()
        testbed.lan.run("ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", str(SERVER))
        assert "inet 169.254" not in address_list(testbed, "b4")
        assert "192.0.2.18" in address_list(testbed, "b4")
    except LabError as error:
        raise AssertionError(client.explain()) from error
    finally:
        client.stop()
