"""``b4client ports`` and ``forward list`` for people: maps, tables, colour, redrawing."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from b4client import api
from b4client.cli import main
from b4client.dataplane.ctdump import Flow
from b4client.dataplane.portuse import HostUse, ranges_of, tally
from b4client.forward import render_forwards
from b4client.model.portset import PortSet
from b4client.ports import redrawn
from b4client.portsview import render_ports
from b4client.protocol.status import PortsStatus

PUBLIC = IPv4Address("192.0.2.18")
OWN, LAN, OTHER, FAR = (IPv4Address(a).packed for a in (str(PUBLIC), "192.168.1.10", "192.168.1.11", "198.51.100.1"))
SET = PortSet(0, 8, 0x34)
TIME_WAIT, ESTABLISHED = 7, 3


def out(port: int, *, host: bytes = LAN, to: int = 443, protocol: int = 6, state: int = ESTABLISHED) -> Flow:
    return Flow(protocol, host, 5000, FAR, to, FAR, to, OWN, port, state if protocol == 6 else 0)


def told(
    flows: list[Flow], ports: PortSet | None = SET, forwarded: tuple[int, ...] = (), **more: Any
) -> dict[str, Any]:
    found = api.jsonable(tally(flows, PUBLIC, ports, forwarded))
    for use in found["protocols"].values():
        use["peak"] = use["used"] + use["time_wait"]
    return {
        **found,
        "address": str(PUBLIC),
        "ports": None if ports is None else api.jsonable(PortsStatus.of(ports)),
        "port_count": 65536 if ports is None else ports.port_count,
        "looks": 3,
        "complete": True,
        "counters": {},
        **more,
    }


def test_counting() -> None:
    """A port is in use while one flow holds it, in TIME_WAIT when only ended ones do, and forwarded before both."""
    flows = [
        out(13312),
        out(13312, to=80, state=TIME_WAIT),
        out(13313, state=TIME_WAIT),
        out(13314, host=OTHER, protocol=17, to=53),
        out(13315, protocol=1),
        out(13400),
        Flow(17, FAR, 9, OWN, 13316, OTHER, 80, FAR, 9, 0),  # inbound
        Flow(17, LAN, 9, OWN, 13317, OTHER, 80, OWN, 13318, 0),  # hairpinned: two ports
        out(80),  # of no set of ours
        out(13320, protocol=47),  # no ports
    ]
    use = tally(flows, PUBLIC, SET, (13400, 99))
    tcp, udp, icmp = (use.protocols[name] for name in ("tcp", "udp", "icmp"))
    assert (tcp.used, tcp.time_wait, tcp.forwarded, tcp.free, tcp.flows) == (1, 1, 1, 253, 5)
    assert udp.used_ports == ((13314, 13314), (13316, 13318))
    assert icmp.used == 1
    assert use.outside == 1
    assert use.forwarded_ports == ((13400, 13400),)
    assert use.hosts[0] == HostUse("192.168.1.10", 7, 6)
    assert (use.destinations[0].port, use.destinations[0].flows) == (443, 4)
    assert {d.port for d in use.destinations if d.protocol == "icmp"} == {None}
    assert use.flows == 9


def test_a_whole_address_and_many_ranges() -> None:
    assert tally([], PUBLIC, None, ()).protocols["tcp"].free == 65536
    assert len(ranges_of(range(0, 65536, 2))) == 2048
    assert ranges_of([1, 2, 3, 7]) == ((1, 3), (7, 7))


def test_one_cell_a_port() -> None:
    lines = render_ports(told([out(13312), out(13313, state=TIME_WAIT)], forwarded=(13315,)))
    assert "    13312 ●○·F" + "·" * 60 in [line.removeprefix("tcp  ") for line in lines]
    assert sum(line[9:].startswith(" 13") or line.strip().startswith("13") for line in lines) >= 3
    assert not any("\x1b" in line for line in lines)
    assert any("192.0.2.18, PSID 0x34/8 offset 0: 256 ports in 1 range" in line for line in lines)


def test_many_ports_a_cell() -> None:
    lines = render_ports(told([out(1024 + i) for i in range(300)], None))
    row = next(line for line in lines if "····█" in line)
    assert row.startswith("tcp          0 ····█░")  # 256 ports a cell: 256 of them, then 44
    coloured = render_ports(told([out(1024 + i) for i in range(300)], None), colour=True)
    assert any("\x1b[1;32m█\x1b[0m\x1b[1;32m░\x1b[0m" in line for line in coloured)


def test_losses_and_what_was_not_counted() -> None:
    text = "\n".join(
        render_ports(told([out(80)], counters={"exhausted": 4, "retries": 9, "in_drop": 0}, complete=False))
    )
    assert "exhausted 4" in text
    assert "in_drop" not in text
    assert "1 ports of flows from before" in text
    assert "more flows than were counted" in text


def test_nothing_in_use_draws_no_map() -> None:
    assert not any("·" in line for line in render_ports(told([])))


def test_redrawing_never_scrolls() -> None:
    frame = redrawn([str(i) for i in range(50)], 10)
    assert frame.startswith("\x1b[H")
    assert frame.count("\n") == 9
    assert "...\x1b[K\n\x1b[J" in frame
    assert redrawn(["a"], 24) == "\x1b[Ha\x1b[K\n\x1b[J"


def entry(**more: Any) -> dict[str, Any]:
    return {
        "protocol": "tcp", "port": 80, "to": "192.168.1.10", "to_port": 80, "on_change": "report",
        "external_port": None, "origin": "command", "active": False, "reason": "there is no softwire", **more,
    }  # fmt: skip


def test_forwards_listed() -> None:
    told = {
        "forwards": [
            entry(active=True, external_port=80, reason=None),
            entry(active=True, external_port=99, reason="why"),
            entry(),
        ],
        "address": "192.0.2.18", "possible": "1-65535", "problem": None,
    }  # fmt: skip
    head, first, moved, waits, _, possible = render_forwards(told)
    assert head.split() == ["protocol", "external", "to", "from"]
    assert first.endswith("192.0.2.18:80  192.168.1.10:80  command  active")
    assert moved.endswith("192.0.2.18:99  192.168.1.10:80  command  active, moved: why")
    assert waits.split()[1:3] == ["port", "80"]
    assert possible == "possible ports of 192.0.2.18: 1-65535"
    assert render_forwards({"forwards": [], "address": None, "possible": None, "problem": None}) == [
        "nothing is forwarded"
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("forward", "add", "tcp", "80"),
        ("forward", "list", "tcp"),
        ("forward", "del", "tcp", "80", "192.168.1.1"),
        ("forward", "del", "tcp", "80", "--any-port"),
        ("forward", "add", "tcp", "65536", "192.168.1.1"),
        ("forward", "add", "tcp", "80", "192.168.1.1:x"),
        ("ports", "--interval", "0.1"),
        ("ports", "--interval", "nan"),
    ],
)
def test_wrong_usage(words: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
