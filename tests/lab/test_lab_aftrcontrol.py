"""The lwAFTR's control socket, its policy as JSON, and the ports that were seen lately."""

from __future__ import annotations

import itertools
import json
import math
import threading
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from aftrcase import ALICE, ALICE_PORT, BOB, BOB_B4, BOB_PORT, DAVE, OTHER, SHARED, Case, back, out
from hypothesis import given
from hypothesis import strategies as st

from b4client import api
from b4client.lab.aftrcontrol import MAX_LINES, Control
from b4client.lab.aftrcore import Aftr
from b4client.lab.aftrcustomer import RECENT_S, PortsSeen
from b4client.lab.aftrfate import COUNTERS
from b4client.lab.aftrfragments import HOLD_S
from b4client.lab.aftrpolicy import IcmpPolicy, Policy
from b4client.lab.binding import Binding, BindingTable
from b4client.lab.netns import wait_until
from b4client.model.errors import ControlError
from b4client.model.portset import PortSet


@pytest.fixture
def control(case: Case) -> Control:
    return Control(case.aftr, threading.Lock(), lambda: case.now, device="softwire")


def test_counters_and_what_they_mean(case: Case, control: Control) -> None:
    case.up(out())
    counters = control.answer("counters", {})
    assert counters == {**dict.fromkeys(COUNTERS, 0), "decapsulated": 1}
    assert control.answer("meanings", {}) == COUNTERS
    # What waited in vain is counted when somebody looks.
    case.up(bytes(out(frag=2)))
    case.now += HOLD_S
    assert control.answer("counters", {})["drop-fragment-without-first"] == 1


def test_bindings(case: Case, control: Control) -> None:
    case.up(out())
    case.down(back(BOB_PORT))
    answer = control.answer("bindings", {})
    assert answer["total"] == 4
    assert set(answer["bindings"]) == {str(b) for b in case.aftr.table}
    assert [line["binding"] for line in answer["customers"]] == answer["bindings"]
    by_binding = {line["binding"]: line for line in answer["customers"]}
    assert by_binding[str(ALICE)]["packets_up"] == by_binding[str(BOB)]["packets_down"] == 1
    assert by_binding[str(ALICE)]["ports_seen_ranges"] == [str(ALICE_PORT)]
    assert by_binding[str(DAVE)] == {
        "binding": "192.0.2.99,b4=2001:db8::d",
        "address": "192.0.2.99",
        "offset": None,
        "psid_len": None,
        "psid": None,
        "ports": 65536,
        "b4": "2001:db8::d",
        "until": None,
        "derived": False,
        "packets_up": 0,
        "octets_up": 0,
        "packets_down": 0,
        "octets_down": 0,
        "refused_up": 0,
        "ports_seen": 0,
        "ports_seen_ranges": [],
        "last_seen_s": None,
    }
    assert json.loads(api.encode(answer)) == answer


def test_bindings_in_part(control: Control) -> None:
    assert control.answer("bindings", {"address": str(SHARED)})["bindings"] == [str(ALICE), str(BOB)]
    second = control.answer("bindings", {"address": str(SHARED), "offset": 1, "limit": 1})
    assert (second["total"], second["bindings"]) == (2, [str(BOB)])
    for wrong in ({"offset": -1}, {"limit": "many"}, {"address": "::1"}, {"limit": None}, {"limit": math.inf}):
        with pytest.raises(ControlError):
            control.answer("bindings", wrong)


def test_the_longest_answer_fits() -> None:
    """A thousand customers with as many ranges of ports as are shown."""
    table = BindingTable(
        Binding(IPv4Address("192.100.200.100"), PortSet(1, 10, n), IPv6Address((1 << 128) - 1 - n)) for n in range(1024)
    )
    for customer in table.customers():
        customer.packets_up = customer.octets_up = customer.packets_down = customer.octets_down = 10**15
        customer.until = 1e10 + 0.123456
        assert customer.binding.ports is not None
        for port in list(customer.binding.ports.ports())[::2]:
            customer.sent(port, 1, 100.0)
    aftr = Aftr(table, IPv6Address("::1"))
    answer = Control(aftr, threading.Lock(), lambda: 100.0, device="x").answer("bindings", {})
    assert (answer["total"], len(answer["customers"])) == (1024, MAX_LINES)
    assert len(answer["customers"][0]["ports_seen_ranges"]) == 16
    assert len(api.encode({"result": 0, "text": "", "arguments": answer})) < api.MAX_LINE


def test_bind_and_unbind(case: Case, control: Control) -> None:
    new = f"{OTHER},a=6,k=8,psid=0x35,b4={BOB_B4}"
    assert control.answer("bind", {"binding": new}) == {}
    customer = case.aftr.table.customer(Binding.parse(new))
    assert control.answer("bind", {"binding": new}) == {}  # as a server does that was started again
    assert case.aftr.table.customer(Binding.parse(new)) is customer
    with pytest.raises(ControlError, match="overlaps"):
        control.answer("bind", {"binding": f"{OTHER},b4={BOB_B4}"})
    assert control.answer("unbind", {"binding": new}) == {}
    with pytest.raises(ControlError, match=r"192\.0\.2\.19"):
        control.answer("unbind", {"binding": new})
    for nonsense in ({}, {"binding": 7}, {"binding": "x"}):
        with pytest.raises(ControlError, match="not of the form"):
            control.answer("bind", nonsense)


def test_ports(case: Case, control: Control) -> None:
    for port in (1232, 1233, 1235, 2256):
        case.up(out(port))
    assert control.answer("ports", {"binding": str(ALICE)}) == {"ranges": ["1232-1233", "1235", "2256"]}
    with pytest.raises(ControlError, match="not bound"):
        control.answer("ports", {"binding": f"192.0.2.1,b4={BOB_B4}"})


def test_policy(case: Case, control: Control) -> None:
    before = control.answer("policy", {})
    assert before == {
        "reject": False,
        "unreachable": False,
        "hairpin": True,
        "honour_df": True,
        "icmp": "echo",
        "link_mtu": 1500,
        "reject_rate": 10.0,
        "icmpv4_rate": 100.0,
    }
    changed = {"reject": True, "icmp": "none", "link_mtu": 1280, "reject_rate": 0}
    assert control.answer("policy", changed) == before | changed
    assert case.aftr.policy == Policy(reject=True, icmp=IcmpPolicy.NONE, link_mtu=1280, reject_rate=0)
    assert control.answer("policy", before) == before
    for wrong in (
        {"reject": "yes"},
        {"reject": 1},
        {"icmp": "all"},
        {"icmp": 2},
        {"link_mtu": 1279},
        {"link_mtu": 1500.5},
        {"link_mtu": True},
        {"reject_rate": -1},
        {"icmpv4_rate": "fast"},
        {"colour": "red"},
    ):
        with pytest.raises(ControlError, match=next(iter(wrong))):
            control.answer("policy", {"unreachable": True, **wrong})
    assert case.aftr.policy == Policy()


def test_status_and_nonsense(case: Case) -> None:
    control = Control(case.aftr, threading.Lock(), lambda: 0.0, device="dev", feed=lambda: {"connected": False})
    assert control.answer("status", {}) == {
        "address": "2001:db8:ffff::1",
        "device": "dev",
        "customers": 4,
        "waiting_fragments": 0,
        "policy": Policy().to_json(),
        "feed": {"connected": False},
    }
    with pytest.raises(ControlError, match="unknown command 'dance'"):
        control.answer("dance", {})


def test_on_the_socket(control: Control, tmp_path: Path) -> None:
    path = tmp_path / "aftr.sock"
    path.touch()  # left by another process
    threading.Thread(target=control.serve, args=(path,), daemon=True).start()

    def answers() -> bool:
        try:
            return bool(api.call(path, "status")["arguments"]["customers"] == 4)
        except ControlError:
            return False  # not yet listening

    wait_until(answers, 5, "an answer")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ControlError, match="unknown command"):
        api.call(path, "dance")
    with pytest.raises(ControlError, match="link_mtu"):
        api.call(path, "policy", {"link_mtu": 7})


# ---- ports seen lately


@given(st.sets(st.integers(0, 65535), max_size=60))
def test_ports_as_ranges(ports: set[int]) -> None:
    seen = PortsSeen()
    for port in ports:
        seen.note(port, 5.0)
    ranges = list(seen.ranges(5.0))
    assert [port for r in ranges for port in range(r.first, r.last + 1)] == sorted(ports)
    assert all(a.last + 1 < b.first for a, b in itertools.pairwise(ranges))
    assert seen.count(5.0) == len(ports)


def test_ports_of_everything() -> None:
    seen = PortsSeen()
    for port in range(65536):
        seen.note(port, 5.0)
    assert [str(r) for r in seen.ranges(5.0)] == ["0-65535"]


def test_ports_are_forgotten() -> None:
    seen = PortsSeen()
    assert seen.count(0.0) == 0
    seen.note(1, 0.0)
    seen.note(2, RECENT_S - 1)
    seen.note(3, RECENT_S)  # a new map begins; the old one is still known
    assert seen.count(RECENT_S) == 3
    seen.note(4, 2 * RECENT_S)
    assert [r.first for r in seen.ranges(2 * RECENT_S)] == [3]
    assert seen.count(3 * RECENT_S) == 2
    assert seen.count(4 * RECENT_S) == 0
    seen.note(5, 9 * RECENT_S)
    assert seen.count(9 * RECENT_S) == 1
