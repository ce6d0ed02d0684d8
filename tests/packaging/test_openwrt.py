"""The OpenWrt package: UCI to settings, the netifd handler and the procd script in busybox ash, with netifd stubbed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest
import tools

from b4client import config
from b4client.lab.kea import KeaSettings
from b4client.lab.netns import wait_until
from b4client.lab.testbed import BR, CPE_WAN, ISP_WAN, SERVER, Testbed, TestbedSettings
from b4client.model.maprule import MappingRule
from b4client.model.portset import PortSet
from b4client.model.settings import StaticSoftwire
from b4client.model.softwire import Mode

PROJECT = Path(__file__).resolve().parents[2]
FILES = PROJECT / "packaging/openwrt/b4client/files"
STUBS = Path(__file__).parent / "openwrt"

JSONFILTER = """#!{python}
import json, sys
arguments = sys.argv[1:]
try:
    value = json.load(sys.stdin)
    for name in arguments[arguments.index("-e") + 1].removeprefix("@.").split("."):
        value = value[name]
except (ValueError, KeyError, TypeError):
    sys.exit(1)
if value is None:
    sys.exit(1)
print(value if not isinstance(value, (dict, list)) else json.dumps(value))
"""


class OpenWrt:
    """A directory that plays the router: stubs, and our files where they would lie."""

    def __init__(self, directory: Path, busybox: str) -> None:
        self.directory = directory
        self.busybox = busybox
        self.run_dir = directory / "run"
        (directory / "bin").mkdir()
        self._tool("jsonfilter", JSONFILTER.format(python=sys.executable))
        self._tool("logger", f'#!/bin/sh\necho "$@" >>{directory}/log\n')
        self._tool("b4client", f'#!/bin/sh\nexec {sys.executable} -m b4client "$@"\n')
        self.uci("")
        (directory / "devices").write_text("wan6 wan\nlan br-lan\n")

    def _tool(self, name: str, text: str) -> None:
        file = self.directory / "bin" / name
        file.write_text(text)
        file.chmod(0o755)

    def uci(self, text: str) -> None:
        """What /etc/config/b4client holds, in the stub's form."""
        (self.directory / "uci").write_text(text)

    def environment(self, **options: str) -> dict[str, str]:
        """Of a process on the router; ``options`` are the interface's."""
        return {
            "PATH": f"{self.directory}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "STUB": str(self.directory),
            "B4_LIB": str(FILES),
            "B4_NETIFD": str(STUBS),
            "B4_RUN": str(self.run_dir),
            **{f"OPT_{name}": value for name, value in options.items()},
        }

    def ash(self, script: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Run ``script`` in busybox ash with the stubs loaded."""
        text = f"INCLUDE_ONLY=1\n. {STUBS}/functions.sh\n. {STUBS}/netifd-proto.sh\n{script}"
        return subprocess.run(
            [self.busybox, "ash", "-eu" if "set +u" not in script else "-e", "-c", text],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=self.environment(**options),
            cwd=PROJECT,
        )

    def handler(self, call: str, **options: str) -> subprocess.CompletedProcess[str]:
        """Call one of the protocol handler's functions."""
        return self.ash(f"set +u\n. {FILES}/b4client.sh\n{call}", **options)

    @property
    def calls(self) -> list[str]:
        """What netifd or procd was told, in order."""
        file = self.directory / "calls"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def log(self) -> str:
        """What went to the system's log."""
        file = self.directory / "log"
        return file.read_text() if file.exists() else ""

    def settings(self, instance: str) -> config.Config:
        """The settings that were written for an interface, as b4client understands them."""
        return config.load(self.run_dir / instance / "settings.toml")


@pytest.fixture
def openwrt(tmp_path: Path) -> OpenWrt:
    return OpenWrt(tmp_path, tools.need("busybox"))


# ---- settings


def shell_settings() -> dict[str, str]:
    """SECTION.KEY -> TYPE, as uci.sh lists them."""
    listed = re.search(r'B4_SETTINGS="([^"]*)"', (FILES / "uci.sh").read_text())
    assert listed
    return dict(word.split(":") for word in listed[1].split())


def test_every_setting_can_be_made_in_uci() -> None:
    """A key that is added to the program is missed here, not by a user."""
    assert set(shell_settings()) == tools.settings()


def test_options_become_settings(openwrt: OpenWrt) -> None:
    done = openwrt.handler(
        "proto_b4client_setup wan4",
        psid_len_hint="8",
        prefer_shared="1",
        start_delay="0",
        servers="2001:db8::1 2001:db8::2",
        lan="192.168.1.0/24",
        timeout_icmp="90",
        offer_window="0.5",
        br="2001:db8:ffff::1",
        stop="keep",
    )
    assert done.returncode == 0, done.stderr
    made = openwrt.settings("wan4")
    assert made.wan == "wan"
    assert made.protocol.psid_len_hint == 8
    assert made.protocol.prefer_shared
    assert not made.protocol.start_delay
    assert made.protocol.servers_4o6 == (IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2"))
    assert made.protocol.offer_window_s == 0.5
    assert made.protocol.br == IPv6Address("2001:db8:ffff::1")
    assert made.softwire.device == "b4-wan4"
    assert made.softwire.lan == (IPv4Network("192.168.1.0/24"),)
    assert made.softwire.timeouts.icmp == 90
    assert made.daemon.stop == "keep"
    assert made.daemon.run_dir == openwrt.run_dir / "wan4"
    # What was not set is the program's default.
    assert made.softwire.accept_local
    assert made.daemon.log_level == "info"


def test_a_static_softwire(openwrt: OpenWrt) -> None:
    done = openwrt.handler(
        "proto_b4client_setup wan4", br="2001:db8:ffff::1", static_mode="lw4o6", static_ipv4="192.0.2.18",
        static_psid="0x34", static_psid_len="8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + openwrt.log
    assert openwrt.settings("wan4").protocol.static == StaticSoftwire(
        Mode.LW4O6, IPv4Address("192.0.2.18"), PortSet(0, 8, 0x34)
    )


def test_rules_of_a_static_softwire(openwrt: OpenWrt) -> None:
    openwrt.uci(
        "rule a\na.ipv6=2001:db8::/40\na.ipv4=192.0.2.0/24\na.ea_len=16\na.fmr=1\n"
        "rule b\nb.instance=other\nb.ipv6=2001:db8:100::/40\nb.ipv4=198.51.100.0/24\nb.ea_len=16\n"
    )
    done = openwrt.handler("proto_b4client_setup wan4", br="2001:db8:ffff::1", static_mode="map-e")
    assert done.returncode == 0, done.stderr + openwrt.log
    static = openwrt.settings("wan4").protocol.static
    assert static is not None
    rule = MappingRule(IPv6Network("2001:db8::/40"), IPv4Network("192.0.2.0/24"), 16, fmr=True)
    assert static.rules == (rule,)


def test_every_key_of_a_rule_can_be_made_in_uci() -> None:
    listed = re.search(r'B4_RULE="(.*)"', (FILES / "uci.sh").read_text())
    assert listed
    assert {word.split(":")[0] for word in listed[1].split()} == set(config.RULE_KEYS)


def test_forwards_of_this_interface_and_of_all(openwrt: OpenWrt) -> None:
    openwrt.uci(
        "forward a\na.instance=wan4\na.protocol=tcp\na.port=13312\na.to=192.168.1.10\na.to_port=80\n"
        "forward b\nb.protocol=udp\nb.port=13313\nb.to=192.168.1.11\nb.on_change=move\n"
        "forward c\nc.instance=other\nc.protocol=udp\nc.port=13314\nc.to=192.168.1.12\n"
    )
    assert openwrt.handler("proto_b4client_setup wan4").returncode == 0
    forwards = openwrt.settings("wan4").softwire.forwards
    assert [(f.protocol, f.port, f.to, f.to_port, f.move) for f in forwards] == [
        ("tcp", 13312, IPv4Address("192.168.1.10"), 80, False),
        ("udp", 13313, IPv4Address("192.168.1.11"), 13313, True),
    ]


@pytest.mark.parametrize(
    "value",
    ['x"\nwan.interface = "y', "a\\", "'; reboot; '", "$(reboot)", "`reboot`", "a\tb", "x\r\n[daemon]", '"""', "é"],
)
def test_no_value_becomes_anything_else(openwrt: OpenWrt, value: str) -> None:
    """Whatever is in UCI: one TOML string, and the settings around it as they were."""
    done = openwrt.ash(
        f'. {FILES}/uci.sh\nb4_option() {{ [ "$1" = hostname ] && printf "%s" "$OPT_hostname"; :; }}\n'
        "b4_list() { :; }\nb4_write_settings eth0",
        hostname=value,
    )
    document = tomllib.loads(done.stdout)
    assert document["wan"] == {"interface": "eth0"}
    assert document["dhcp"] == {"hostname": "".join(c for c in value if c.isprintable())}
    assert set(document) == {"wan", "dhcp"}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("psid_len_hint", "eight"),
        ("psid_len_hint", "08"),
        ("mtu", "1.2.3"),
        ("prefer_shared", "perhaps"),
        ("br", "192.0.2.1"),
        ("stop", "never"),
    ],
)
def test_a_wrong_value_is_told_and_not_tried_again(openwrt: OpenWrt, option: str, value: str) -> None:
    done = openwrt.handler("proto_b4client_setup wan4", **{option: value})
    assert done.returncode != 0
    assert any(call.startswith("proto_notify_error wan4 INVALID_CONFIG") and option in call for call in openwrt.calls)
    assert "proto_block_restart wan4" in openwrt.calls
    assert not any(call.startswith("proto_run_command") for call in openwrt.calls)
    assert option in openwrt.log


# ---- the protocol handler


def test_every_option_is_declared_to_netifd(openwrt: OpenWrt) -> None:
    """netifd hands over only declared options."""
    assert openwrt.handler("proto_b4client_init_config").returncode == 0
    names = [call.split()[1] for call in openwrt.calls]
    kinds = {call.split()[1]: call.split()[0] for call in openwrt.calls}
    assert len(names) == len(set(names)) == len(shell_settings()) + 1
    assert kinds["servers"] == kinds["lan"] == "proto_config_add_array"
    assert kinds["prefer_shared"] == "proto_config_add_boolean"
    assert "timeout_udp" in names
    assert "tunlink" in names


def test_setup_waits_for_the_ipv6_interface(openwrt: OpenWrt) -> None:
    done = openwrt.handler("proto_b4client_setup wan4", tunlink="absent")
    assert done.returncode != 0
    assert "proto_notify_error wan4 NO_WAN_LINK" in openwrt.calls
    assert "proto_block_restart wan4" not in openwrt.calls  # netifd tries again when the interface comes


def test_setup_starts_the_daemon_once(openwrt: OpenWrt) -> None:
    assert openwrt.handler("proto_b4client_setup wan4", tunlink="wan6").returncode == 0
    file = openwrt.run_dir / "wan4/settings.toml"
    assert [call for call in openwrt.calls if call.startswith("proto_run")] == [
        f"proto_run_command wan4 {FILES}/netifd-run wan4 wan {file}"
    ]
    assert "proto_add_host_dependency wan4 :: wan6" in openwrt.calls


def test_teardown_after_wrong_settings_blocks_the_restart(openwrt: OpenWrt) -> None:
    openwrt.handler("ERROR=78\nproto_b4client_teardown wan4")
    assert openwrt.calls == [
        "proto_notify_error wan4 INVALID_CONFIG",
        "proto_block_restart wan4",
        "proto_kill_command wan4",
    ]


# ---- procd


INIT = f". {FILES}/b4client.init\n"


def test_procd_gets_one_instance_a_section(openwrt: OpenWrt) -> None:
    openwrt.uci(
        "instance one\none.wan=eth1\none.lan=192.168.1.0/24\none.lan=192.168.2.0/24\none.hostname=cpe\n"
        "instance two\ntwo.wan=eth2\ntwo.enabled=0\n"
        "instance bad\nbad.wan=eth3\nbad.mtu=1\n"
    )
    done = openwrt.ash(f"{INIT}set +u\nstart_service\nservice_triggers")
    assert done.returncode == 0, done.stderr
    file = openwrt.run_dir / "one.toml"
    opened = [call for call in openwrt.calls if call.startswith("procd_open_instance")]
    assert opened == ["procd_open_instance one"]
    assert f"procd_set_param command /usr/bin/b4client run --config {file}" in openwrt.calls
    assert "procd_set_param netdev eth1" in openwrt.calls
    assert openwrt.calls[-1] == "procd_add_reload_trigger b4client"
    made = config.load(file)
    assert made.softwire.lan == (IPv4Network("192.168.1.0/24"), IPv4Network("192.168.2.0/24"))
    assert made.protocol.hostname == "cpe"
    assert "softwire.mtu" in openwrt.log  # the bad one is named, and stops nobody else


# ---- the package


def test_shellcheck() -> None:
    names = ["uci.sh", "b4client.sh", "netifd-run", "b4client.init", "odhcp6c.user"]
    done = subprocess.run(
        [tools.need("shellcheck"), "-x", *names], capture_output=True, text=True, check=False, cwd=FILES
    )
    assert done.returncode == 0, done.stdout


MAKE = """
INSTALL_DIR := install -d -m0755
INSTALL_BIN := install -m0755
INSTALL_CONF := install -m0600
INSTALL_DATA := install -m0644
CP := cp -fpR
BUILD_DIR := {work}/build
PKG_BUILD_DIR = $(BUILD_DIR)/$(PKG_NAME)
PKG_INSTALL_DIR := {work}/install
PYTHON3_PKG_DIR := /usr/lib/python3/site-packages
define Py3Package
endef
define BuildPackage
prepare: ; $(Build/Prepare)
install: ; $(call Py3Package/$(1)/install,{work}/root)
depends: ; $(info $(PKG_VERSION) $(Package/$(1)))@:
endef
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str, str], str]:
    """Run a target of a package's Makefile with a stub of OpenWrt's rules; its output."""
    make_program = tools.need("make")
    for name in ("rules.mk", "feeds/packages/lang/python/python3-package.mk", "include/package.mk"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "rules.mk").write_text(MAKE.format(work=tmp_path))
    (tmp_path / "feeds/packages/lang/python/pypi.mk").write_text("")

    def run(package: str, target: str) -> str:
        done = subprocess.run(
            [make_program, "-s", target, f"TOPDIR={tmp_path}", f"INCLUDE_DIR={tmp_path}/include"],
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT / "packaging/openwrt" / package,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_makefile_installs_every_file(make: Callable[[str, str], str], tmp_path: Path) -> None:
    import b4client

    assert make("b4client", "depends").split()[0] == b4client.__version__
    make("b4client", "prepare")
    assert (tmp_path / "build/b4client/b4client/cli.py").is_file()
    program = tmp_path / "install/usr/bin/b4client"
    program.parent.mkdir(parents=True)
    program.write_text("")
    make("b4client", "install")
    root = tmp_path / "root"
    installed = {str(file.relative_to(root)): file.stat().st_mode & 0o777 for file in root.rglob("*") if file.is_file()}
    assert installed.pop("usr/bin/b4client")
    assert installed == {
        "etc/config/b4client": 0o600,
        "etc/init.d/b4client": 0o755,
        "etc/odhcp6c.user.d/b4client": 0o644,
        "lib/b4client/uci.sh": 0o644,
        "lib/b4client/netifd-run": 0o755,
        "lib/netifd/proto/b4client.sh": 0o755,
    }
    assert len(installed) == len(list(FILES.iterdir()))


@pytest.mark.parametrize("package", ["python-tenacity", "python-nftables"])
def test_makefiles_of_what_the_feed_lacks(make: Callable[[str, str], str], package: str) -> None:
    assert "python3-light" in make(package, "depends")


# ---- with the real daemon


@pytest.fixture
def testbed() -> Iterator[Testbed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root (CI is)")
    testbed = Testbed(TestbedSettings(prefix=f"ow{os.getpid()}", kea=replace(KeaSettings(), valid_lifetime=600)))
    testbed.up()
    yield testbed
    testbed.down()


def memory_kib(pid: int, field: str = "VmRSS") -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def test_from_setup_to_teardown(openwrt: OpenWrt, testbed: Testbed) -> None:
    """netifd's view of a whole life: up with the address told, traffic, down, exit status; and what it costs."""
    openwrt.handler(
        "proto_b4client_setup wan4",
        tunlink="wan6",
        encapsulation="userspace",
        start_delay="0",
        state_dir=str(openwrt.directory / "state"),
    )
    command = next(call.split()[2:] for call in openwrt.calls if call.startswith("proto_run_command"))
    with (openwrt.directory / "runner").open("wb") as output:
        runner = subprocess.Popen(
            testbed.cpe.argv(shutil.which("busybox") or "busybox", "ash", *command),
            stdout=output,
            stderr=output,
            env=openwrt.environment(),
            cwd=PROJECT,
        )
    try:
        wait_until(lambda: "proto_send_update wan4" in openwrt.calls, 30, "netifd to be told")
        assert "proto_init_update b4-wan4 1 1" in openwrt.calls
        assert "proto_add_ipv4_address 192.0.2.18 32" in openwrt.calls
        assert "json_add_int psid 52" in openwrt.calls
        assert "json_add_string softwire_br 2001:db8:ffff::1" in openwrt.calls
        testbed.lan.run("ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", str(SERVER))
        assert "leased 192.0.2.18" in openwrt.log
        renewed = openwrt.handler("proto_b4client_renew wan4")
        assert renewed.returncode == 0, renewed.stderr
        wait_until(lambda: "renewed" in openwrt.log, 10, "the renewal to be logged")
        # The shell that waits beside the daemon is small; the daemon keeps its budget (40 MB of its own memory).
        assert memory_kib(runner.pid) < 4096
        daemon = next(
            pid for pid in testbed.cpe.pids() if b"run\0--config" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        assert memory_kib(daemon, "RssAnon") < 40 * 1024
        openwrt.directory.joinpath("calls").unlink()
        runner.send_signal(signal.SIGTERM)
        assert runner.wait(20) == 0
    finally:
        if runner.poll() is None:
            runner.kill()
        assert (openwrt.directory / "runner").read_text() == ""
    assert openwrt.calls == ["proto_init_update b4-wan4 0", "proto_send_update wan4"]
    assert testbed.cpe.run("ip", "link", "show", "b4-wan4", check=False).returncode != 0
    assert testbed.cpe.pids() == []


def odhcp6c(openwrt: OpenWrt, event: str, **variables: str) -> None:
    """odhcp6c's script reports an event of the device wan, and comes to its user scripts."""
    program = f'set -- wan {event}\n. {FILES}/odhcp6c.user\necho "left: ${{directory:-}}${{problem:-}}"'
    done = subprocess.run(
        [shutil.which("busybox") or "busybox", "ash", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**openwrt.environment(), **variables},
        cwd=PROJECT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "left: \n"  # nothing of ours in the script that sources it


REPLY = {
    "OPTION_88": ISP_WAN.ip.packed.hex(),
    "OPTION_96": f"005a0010{BR.packed.hex()}",
    "ADDRESSES": f"{CPE_WAN},3600,7200",
    "HOME": "/root",
}


@pytest.mark.parametrize("early", [True, False], ids=["before the daemon starts", "while it runs"])
def test_hand_over_of_odhcp6c(openwrt: OpenWrt, testbed: Testbed, early: bool) -> None:
    """What odhcp6c got leads to a lease, whoever was first; what it has no more takes the softwire away."""
    if early:
        odhcp6c(openwrt, "bound", **REPLY)
    done = openwrt.handler(
        "proto_b4client_setup wan4",
        tunlink="wan6",
        encapsulation="userspace",
        start_delay="0",
        dhcp6_mode="external",
        keep_lease_without_option88="0",
        state_dir=str(openwrt.directory / "state"),
    )
    assert done.returncode == 0, done.stderr
    command = next(call.split()[2:] for call in openwrt.calls if call.startswith("proto_run_command"))
    runner = testbed.cpe.start(
        *(openwrt.busybox, "ash", *command), log=openwrt.directory / "runner", env=openwrt.environment(), cwd=PROJECT
    )
    try:
        wait_until((openwrt.run_dir / "wan4/wan.sock").exists, 20, "the daemon to listen")
        if not early:
            odhcp6c(openwrt, "informed", **REPLY)
        wait_until(lambda: "proto_send_update wan4" in openwrt.calls, 30, f"netifd to be told\n{openwrt.log}")
        assert "proto_add_ipv4_address 192.0.2.18 32" in openwrt.calls
        odhcp6c(openwrt, "unbound")
        wait_until(lambda: "proto_init_update b4-wan4 0" in openwrt.calls, 20, "netifd to be told of the end")
    finally:
        runner.terminate()
        assert runner.wait(20) == 0


def test_a_daemon_that_cannot_start_ends_the_runner_with_its_status(openwrt: OpenWrt) -> None:
    file = openwrt.run_dir / "wan4/settings.toml"
    file.parent.mkdir(parents=True)
    file.write_text("wan.interface = 3\n")
    done = subprocess.run(
        [shutil.which("busybox") or "busybox", "ash", str(FILES / "netifd-run"), "wan4", "wan", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env=openwrt.environment(),
        cwd=PROJECT,
    )
    assert done.returncode == 78
    assert "wan.interface" in openwrt.log  # plain words of the program reach the log too
    assert openwrt.calls == []
