"""The agent: operators' commands, the data plane's failures, and what the agent shows of itself, as time scripts."""

from __future__ import annotations

import pytest
from agentscript import ADDRESS, BR, DHCP_SERVER, GLOBAL, OTHER_BR, PORTS, AgentScript, stored_lease
from timescript import OTHER_PORTS

from b4client.model.softwire import Mode, SoftwireConfig
from b4client.protocol import events
from b4client.wire.softwire46 import Lw4o6Container

SOFTWIRE = SoftwireConfig(Mode.LW4O6, "wan", GLOBAL, BR, ADDRESS, PORTS)

# ---- release, restart, stop


def test_release() -> None:
    """RFC 2131 4.4.6 [T-9]: one RELEASE; then quiet until an operator wants otherwise."""
    script = AgentScript().to_bound()
    assert script.post(events.ReleaseRequested()) == ["withdraw", "forget", "RELEASE U=1"]
    assert script.waiting_for == "b4client restart: the lease was given back"
    assert script.link(GLOBAL, moved=True) == []
    assert not any(word.startswith("DISCOVER") for _, word in script.until(1e5))
    script.inform()
    assert script.state == "STOPPED"


def test_restart_after_release() -> None:
    script = AgentScript().to_bound()
    script.post(events.ReleaseRequested())
    script.until(60)
    assert script.post(events.RestartRequested()) == ["INFORMATION-REQUEST"]
    assert script.inform() == ["DISCOVER U=0"]


def test_restart_of_a_bound_client() -> None:
    """From the DHCPv6 information on; the lease is no more used."""
    script = AgentScript().to_bound()
    assert script.post(events.RestartRequested()) == ["withdraw", "INFORMATION-REQUEST"]
    assert script.waiting_for == "an answer to the DHCPv6 INFORMATION-REQUEST"
    assert script.inform() == ["DISCOVER U=0"]


def test_restart_without_link() -> None:
    script = AgentScript()
    script.link(up=False)
    assert script.post(events.RestartRequested()) == []
    assert script.link(GLOBAL) == ["INFORMATION-REQUEST"]


@pytest.mark.parametrize(
    ("withdraw", "release", "done"),
    [
        (False, False, []),
        (True, False, ["withdraw"]),
        (True, True, ["withdraw", "forget", "RELEASE U=1"]),
        (False, True, ["withdraw", "forget", "RELEASE U=1"]),
    ],
)
def test_stop(withdraw: bool, release: bool, done: list[str]) -> None:
    """``keep`` leaves the softwire, ``withdraw`` the lease, ``release`` nothing. Then the machine does nothing more."""
    script = AgentScript().to_bound()
    assert script.post(events.StopRequested(withdraw=withdraw, release=release)) == done
    assert script.agent.deadline() is None
    assert script.link(GLOBAL, moved=True) == []
    assert script.post(events.RestartRequested(), events.Woke()) == []


def test_renew_and_rebind() -> None:
    script = AgentScript().to_bound()
    assert script.post(events.RenewRequested()) == ["REQUEST U=1"]
    assert script.post(events.RebindRequested()) == ["REQUEST U=0"]
    assert script.kernel == SOFTWIRE
    unbound = AgentScript().to_selecting()
    assert unbound.post(events.RenewRequested(), events.RebindRequested()) == []


def test_release_of_a_stored_lease_before_it_was_asked_for() -> None:
    script = AgentScript(stored=stored_lease())
    script.link(GLOBAL)
    assert script.post(events.ReleaseRequested()) == ["withdraw", "forget"]
    assert script.inform() == []


# ---- the data plane fails


def test_an_install_that_fails_is_tried_again() -> None:
    """1, 2, 4 ... 300 s; told once for each reason."""
    script = AgentScript()
    script.installs = "no room"
    script.to_bound()
    assert script.waiting_for == "no room"
    assert script.status.softwire is not None
    assert (script.status.softwire.installed, script.status.softwire.problem) == (False, "no room")
    assert [at for at, word in script.until(1500) if word == "install"] == [
        1,
        3,
        7,
        15,
        31,
        63,
        127,
        255,
        511,
        811,
        1111,
        1411,
    ]
    assert script.kinds().count("install-failed") == 1
    script.installs = "at once"
    script.until(1711)
    assert (script.kernel, script.status.waiting_for) == (SOFTWIRE, None)


def test_a_failed_change_of_the_port_set_takes_the_old_one_away() -> None:
    """What is there still is not covered by the lease."""
    script = AgentScript().to_bound()
    script.until(1800)
    script.installs = "no room"
    assert script.ack(ports=OTHER_PORTS) == ["save", "install", "withdraw"]
    script.installs = "at once"
    assert script.after(1) == ["install"]
    assert script.kernel is not None
    assert script.kernel.ports == OTHER_PORTS


def test_a_failed_change_of_the_br_leaves_the_old_softwire() -> None:
    """All or nothing: the address is still ours, and the old BR may still answer."""
    script = AgentScript().to_bound(information={"refresh": 600})
    script.installs = "no room"
    assert script.refresh(lw=Lw4o6Container((OTHER_BR,))) == ["install"]
    assert script.kernel == SOFTWIRE


def test_a_new_configuration_ends_the_old_ones_wait() -> None:
    script = AgentScript()
    script.installs = "no room"
    script.to_bound(information={"refresh": 600})
    script.until(500)
    script.installs = "at once"
    assert script.refresh(lw=Lw4o6Container((OTHER_BR,)))[0] == "install"
    assert script.kernel is not None
    assert not any(word == "install" for word in script.after(400))


def test_answers_about_what_is_not_wanted_any_more() -> None:
    """The worker thread is slower than the machine."""
    script = AgentScript()
    script.installs = None
    script.to_bound()
    script.post(events.ReleaseRequested())
    assert script.post(events.Installed(SOFTWIRE), events.InstallFailed(SOFTWIRE, "late")) == []
    assert script.status.softwire is None
    again = AgentScript()
    again.installs = None
    again.to_bound()
    other = SoftwireConfig(Mode.LW4O6, "wan", GLOBAL, OTHER_BR, ADDRESS, PORTS)
    again.post(events.InstallFailed(other, "late"))
    assert again.waiting_for == "the softwire to be made"


# ---- what does not fit


def test_the_br_is_ourselves() -> None:
    script = AgentScript().to_asking()
    script.inform(lw=Lw4o6Container((GLOBAL,)))
    script.offer()
    assert script.ack() == ["save"]
    assert script.waiting_for == f"the BR address {GLOBAL} is our own"
    assert script.kinds().count("unfit") == 1


# ---- snapshot


def test_snapshot_before_anything() -> None:
    status = AgentScript().status
    assert (status.state, status.lease, status.softwire, status.source) == ("STOPPED", None, None, None)
    assert status.identity == {
        "duid": "00030001020000000001",
        "client_id": "ff0000000100030001020000000001",
    }


def test_snapshot_when_bound() -> None:
    script = AgentScript().to_bound(information={"refresh": 7200})
    script.now = 600.0
    status = script.status
    assert (status.state, status.state_for_s, status.waiting_for, status.deadline_in_s) == ("BOUND", 600, None, 1200)
    assert (status.source, status.destinations) == (str(GLOBAL), (str(DHCP_SERVER),))
    assert status.provisioning.state == "informed"
    assert status.provisioning.refresh_in_s == 6600
    assert status.provisioning.servers_4o6 == (str(DHCP_SERVER),)
    assert (status.provisioning.brs, status.provisioning.containers) == ((str(BR),), ("lw4o6",))
    assert status.lease is not None
    assert (status.lease.t1_in_s, status.lease.t2_in_s, status.lease.expires_in_s) == (1200, 2550, 3000)
    assert status.softwire is not None
    assert status.softwire.installed is True
    assert status.counters["sent-query"] == 2


def test_state_changes_are_reported_with_both_names() -> None:
    script = AgentScript().to_bound()
    moves = [dict(r.fields) for r in script.reports if r.kind == "state"]
    assert [(m["from"], m["to"]) for m in moves] == [
        ("STOPPED", "SELECTING"),
        ("SELECTING", "REQUESTING"),
        ("REQUESTING", "BOUND"),
    ]
