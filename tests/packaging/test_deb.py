"""The Debian package: what is in it, and its whole life in a fresh Debian 12 and 13 with Debian's own libraries.

The second needs root, debootstrap and Debian's mirror, and takes a minute or two for each suite.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import debroot
import pytest

import b4client
from b4client.lab import traffic
from b4client.lab.netns import wait_until
from b4client.lab.testbed import SERVER, Testbed, TestbedSettings

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="installs packages: as root (CI is)")


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built with the one command."""
    if shutil.which("apt-get") is None:
        pytest.skip("no Debian: the package is built there")
    directory = tmp_path_factory.mktemp("deb")
    built = debroot.run(str(PROJECT / "packaging/build-deb"), str(directory)).stdout.split()
    assert built == [str(directory / f"b4client_{b4client.__version__}_all.deb")]
    return Path(built[0])


@pytest.fixture(scope="module")
def contents(deb: Path) -> set[str]:
    """Paths of the package's files."""
    listing = debroot.run("dpkg-deb", "-c", str(deb)).stdout.splitlines()
    return {line.split()[5].removeprefix(".") for line in listing if not line.startswith("d")}


def test_every_module_is_in_the_package_and_nothing_else(contents: set[str]) -> None:
    place = "/usr/lib/python3/dist-packages/"
    modules = {str(file.relative_to(PROJECT)) for file in (PROJECT / "b4client").rglob("*.py")}
    packed = {name.removeprefix(place) for name in contents if name.startswith(f"{place}b4client/")}
    assert {name for name in packed if name.endswith(".py")} == modules
    assert {name for name in packed if not name.endswith(".py")} <= {
        "b4client/py.typed",
        "b4client/ARCHITECTURE.md",
        "b4client/control-api.schema.json",
    }
    others = {name for name in contents if name.startswith(place)} - {place + name for name in packed}
    assert all(re.search(r"/b4client-[0-9.]+\.dist-info/", name) for name in others)


def test_files_lie_where_the_system_looks_for_them(contents: set[str]) -> None:
    assert {
        "/usr/bin/b4client",
        "/usr/lib/systemd/system/b4client@.service",
        "/usr/lib/systemd/network/10-b4client.network",
        "/usr/lib/NetworkManager/conf.d/10-b4client.conf",
        "/usr/share/doc/b4client/examples/b4client.toml.example",
        "/usr/share/doc/b4client/copyright",
        "/usr/share/doc/b4client/doc/troubleshooting.md",
        "/usr/share/man/man1/b4client.1.gz",
        "/usr/share/man/man5/b4client.toml.5.gz",
        "/usr/share/man/man8/b4client@.service.8.gz",
    } <= contents
    # Nothing to be configured is shipped as configured: an upgrade never asks about a changed file.
    assert not any(name.startswith(("/etc/", "/var/", "/run/")) for name in contents)


def test_it_depends_on_what_it_imports(deb: Path) -> None:
    depends = debroot.run("dpkg-deb", "-f", str(deb), "Depends").stdout
    for needed in ("python3 (>= 3.11)", "python3-nftables", "python3-pyroute2 (>= 0.7.2)", "python3-tenacity (>= 8)"):
        assert needed in depends
    assert "rich" not in depends  # only where people look, and only if it is there
    assert "scapy" not in depends


# ---- in a fresh Debian

READ_BACK = """
from b4client.dataplane.nft import Nft, essence
rules = Nft()
first = essence(rules.list_rules("ip", "b4client_b4"))
rules.run("read the listing back", "delete table ip b4client_b4" + chr(10) + first)
print("0 : goto range_0" in first, essence(rules.list_rules("ip", "b4client_b4")) == first)
"""


@pytest.fixture(params=["bookworm", "trixie"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[debroot.Root]:
    """A fresh Debian beside a testbed's CPE: its commands run in that namespace."""
    if shutil.which("debootstrap") is None:
        debroot.run("apt-get", "-q", "-y", "install", "--no-install-recommends", "debootstrap")
    testbed = Testbed(TestbedSettings(prefix=f"deb{os.getpid()}"))
    path = tmp_path / "root"
    made = debroot.Root(path, testbed)
    try:
        debroot.bootstrap(request.param, path)
        testbed.up()
        yield made
    finally:
        made.stop_daemon()
        testbed.down()
        shutil.rmtree(path, ignore_errors=True)


def newer(deb: Path, directory: Path) -> Path:
    """The same package under a higher version number."""
    tree = directory / "newer"
    debroot.run("dpkg-deb", "-R", str(deb), str(tree))
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", r"\g<0>+next", control.read_text()))
    result = directory / "newer.deb"
    debroot.run("dpkg-deb", "--root-owner-group", "-b", str(tree), str(result))
    return result


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_life_in_a_fresh_debian(root: debroot.Root, deb: Path, tmp_path: Path) -> None:
    """Install, calculate, run with real traffic, upgrade under traffic, remove, purge; nothing is left."""
    testbed = root.testbed
    root.apt("update")
    # netbase is on every machine: without its /etc/protocols nft 1.0.6 lists ct timeouts in a way that it cannot read.
    root.apt("satisfy", debroot.run("dpkg-deb", "-f", str(deb), "Depends").stdout.strip() + ", netbase")
    before = root.files()
    root.install(deb)

    # Debian's own libraries, and the light commands.
    assert root.run("b4client", "--version").strip() == f"b4client {b4client.__version__}"
    assert "13312" in root.run("b4client", "calc", "portset", "--offset", "0", "--psid-len", "8", "--psid", "0x34")
    where = root.run("python3", "-c", "import pyroute2, nftables, tenacity; print(pyroute2.__file__)").strip()
    assert where.startswith("/usr/lib/python3/dist-packages/")

    # The daemon, as the unit runs it, against Kea and with traffic.
    root.write("/usr/local/bin/systemctl", debroot.SYSTEMCTL)
    unit = root.read("/usr/lib/systemd/system/b4client@.service")
    start = re.search(r"(?m)^ExecStart=(.*)$", unit)
    assert start
    assert "KillMode=process" in unit  # the process of the userspace softwire outlives the daemon
    command = start[1].replace("%I", "wan").replace("%i", "wan")
    root.write("/daemon.start", debroot.DAEMON_START.format(command=command))
    (root.path / "run/systemd/system").mkdir(parents=True)
    root.run("/daemon.start")
    wait_until(lambda: '"up": true' in root.call("b4client", "status", "--json").stdout, 30, root.read("/daemon.log"))
    assert "BOUND" in root.run("b4client", "status").upper()
    ping = ["ping", "-n", "-i", "0.05", "-W", "1", str(SERVER)]
    testbed.lan.run(*ping[:2], "-c", "3", *ping[2:])
    with traffic.Server(testbed.srv) as server:
        assert traffic.tcp_transfer(testbed.lan, SERVER, 200_000).octets == 200_000
        ports = testbed.settings.kea.ports
        assert ports is not None
        assert server.seen
        assert {seen.port for seen in server.seen if seen.port is None or seen.port not in ports} == set()

    # This Debian's nftables reads its own listing of our table.
    assert root.run("python3", "-c", READ_BACK) == "True True\n"

    # Upgrade: the maintainer script restarts the daemon; not one packet is lost meanwhile.
    old = root.read("/daemon.pid")
    with (tmp_path / "ping").open("wb") as output:
        pinging = subprocess.Popen(testbed.lan.argv(*ping), stdout=output, stderr=subprocess.STDOUT)
        try:
            root.install(newer(deb, tmp_path), offline=True)
            wait_until(lambda: root.call("b4client", "status").returncode == 0, 30, root.read("/daemon.log"))
        finally:
            pinging.send_signal(2)
            pinging.wait(10)
    assert "try-restart b4client@*.service" in root.read("/systemctl.log")
    assert root.read("/daemon.pid") != old
    assert " 0% packet loss" in (tmp_path / "ping").read_text()
    assert root.run("dpkg-query", "-W", "-f", "${Version}", "b4client").endswith("+next")

    # Removal takes the softwire down, whether a daemon runs or one has left it standing; purge leaves nothing.
    os.kill(int(root.read("/daemon.pid")), 9)
    wait_until(lambda: root.call("b4client", "status").returncode != 0, 10, "the daemon to be gone")
    assert "b4" in testbed.cpe.run("ip", "-o", "link", "show", "b4").stdout
    root.run("dpkg", "--purge", "b4client")
    assert testbed.cpe.run("ip", "link", "show", "b4", check=False).returncode != 0
    assert "b4client" not in testbed.cpe.run("nft", "list", "tables").stdout
    assert testbed.cpe.pids() == []  # the process of the userspace softwire is gone too
    ours = {"run/systemd", "run/systemd/system", "usr/local/bin/systemctl"}
    assert root.files() - before - ours == set()
    assert before - root.files() == set()
