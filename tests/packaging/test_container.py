"""The container recipe: well-formed, and what it gives a container is enough.

No container engine is needed: its steps are those of test_deb.py (a minimal Debian, apt-get install of the package);
here is what is special at run time.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest

from b4client import api
from b4client.dataplane.plan import ICMP_TIMEOUT, plan
from b4client.lab.netns import reap, wait_until
from b4client.lab.testbed import SERVER, Testbed, TestbedSettings
from b4client.model.errors import ControlError
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, Mode, SoftwireConfig

PROJECT = Path(__file__).resolve().parents[2]
RECIPE = PROJECT / "packaging/container/Containerfile"

# A container: /proc/sys read-only, three capabilities and no way to more, everything else as in the image.
ENTER = """
mount --make-rprivate /
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys || exit 125
drop=$1; shift
exec setpriv --no-new-privs --bounding-set "$drop" --inh-caps=-all "$@"
"""


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the recipe; continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", RECIPE.read_text()).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def advised(option: str) -> list[str]:
    """The values of an option of the ``podman run`` in the recipe's comment."""
    return re.findall(rf"--{option} (\S+)", RECIPE.read_text())


def test_recipe() -> None:
    found = instructions()
    assert [name for name, _ in found] == ["FROM", "COPY", "RUN", "VOLUME", "STOPSIGNAL", "ENTRYPOINT"]
    arguments = dict(found)
    assert json.loads(arguments["ENTRYPOINT"]) == ["/usr/bin/b4client", "run"]
    assert arguments["VOLUME"] == "/var/lib/b4client"
    # Every file that is copied into the image is used and removed again.
    package = "/tmp/b4client_*_all.deb"  # noqa: S108 - inside the image
    assert arguments["COPY"] == f"{Path(package).name} /tmp/"
    assert f"install -y --no-install-recommends {package}" in arguments["RUN"]
    assert f"rm -rf {package}" in arguments["RUN"]


def test_every_sysctl_that_is_set_is_advised() -> None:
    """One that is added to the plan is missed here, not by a user."""
    config = SoftwireConfig(
        Mode.LW4O6,
        "eth0",
        IPv6Address("2001:db8::1"),
        IPv6Address("2001:db8::2"),
        IPv4Address("192.0.2.1"),
        None,
        False,
    )
    planned = plan(config, SoftwireSettings(), encapsulation=Encapsulation.USERSPACE, path_mtu=1500)
    wanted = {(path.replace("/b4/", "/default/").replace("/", "."), value) for path, value in planned.sysctls}
    wanted.add((ICMP_TIMEOUT.replace("/", "."), str(planned.icmp_timeout)))
    assert {tuple(text.split("=")) for text in advised("sysctl")} == wanted


@pytest.fixture
def testbed() -> Iterator[Testbed]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root (CI is)")
    testbed = Testbed(TestbedSettings(prefix=f"ct{os.getpid()}"))
    testbed.up()
    yield testbed
    testbed.down()


def test_what_the_recipe_gives_is_enough(testbed: Testbed, tmp_path: Path) -> None:
    testbed.cpe.run("sysctl", "-q", "-w", *advised("sysctl"))
    capabilities = ",".join(f"+{name.lower()}" for name in advised("cap-add"))
    run_dir = tmp_path / "run"
    places = ("--run-dir", str(run_dir), "--state-dir", str(tmp_path / "state"))
    program = (sys.executable, "-m", "b4client", "run", "--wan", "wan")
    command = (*program, "--no-start-delay", "--encapsulation", "userspace", *places)
    log = tmp_path / "log"
    process = testbed.cpe.start(
        "unshare", "--mount", "sh", "-c", ENTER, "sh", f"-all,{capabilities}", *command, log=log
    )

    def up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            status: dict[str, Any] = api.call(run_dir / "wan.sock", "status")["arguments"]
        except ControlError:
            return False
        return bool((status.get("dataplane") or {}).get("up")) and status["waiting_for"] is None

    try:
        wait_until(up, 30, "the softwire to be up")
        testbed.lan.run("ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", str(SERVER))
    finally:
        print(log.read_text())
        status = reap(process, grace_s=15)
    assert status == 0
    assert testbed.cpe.pids() == []
