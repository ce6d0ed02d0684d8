"""How well a port set is used, and what that costs: this project's NAT beside what else there is.

    .venv/bin/python tests/bench/nat_bench.py [--rounds N] [--svg FILE] [--markdown FILE]      as root; two minutes

Namespaces as in tests/netns/natbed.py. Costs are CPU time of the sending thread, in which the kernel forwards a packet
all the way, so that a busy machine disturbs little; the generator is Python and in every figure, so look at differences
and at ratios of a run, not at packets per second. All designs take turns in every round; medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "netns"), str(ROOT / "tests" / "bench")]

from natbed import ADDRESS, FAR, PORT, NatBed, plan_of, serving  # noqa: E402
from picture import bars  # noqa: E402

from b4client.dataplane.nft import Nft  # noqa: E402
from b4client.model.portset import PortSet  # noqa: E402

PACKETS = 20_000
FLOWS = 4_000
SETS = {
    "1 range of 256": PortSet(0, 8, 0x34),
    "15 ranges of 16": PortSet(4, 8, 0x34),
    "63 ranges of 4": PortSet(6, 8, 0x34),
}
MAIN = "15 ranges of 16"
HOOK = "type nat hook postrouting priority srcnat; policy accept;"
EMPTY = "table ip b4client_b4\ndelete table ip b4client_b4\n"


def nothing(_: PortSet) -> str:
    """Plain forwarding."""
    return EMPTY


def one_snat(ports: PortSet) -> str:
    """One snat rule to one range, as for an address of one's own; it does not keep to the set."""
    return _table(f"oifname b4 meta l4proto {{ tcp, udp, icmp }} snat ip to {ADDRESS}:{ports.floor or 1024}-65535")


def rule_list(ports: PortSet) -> str:
    """A snat rule per range and protocol, as firewall4 of OpenWrt writes them for MAP-E."""
    return _table(
        *(
            f"oifname b4 meta l4proto {protocol} snat ip to {ADDRESS}:{r.first}-{r.last}"
            for r in ports.ranges()
            for protocol in ("icmp", "tcp", "udp")
        )
    )


def one_port_per_index(ports: PortSet) -> str:
    """A map from a running number to one port, as scripts for MAP-E lines do."""
    indices = ", ".join(f"{i} : {port}" for i, port in enumerate(ports.ports()))
    return _table(
        f"oifname b4 meta l4proto {{ tcp, udp, icmp }} snat ip to {ADDRESS} : "
        f"numgen inc mod {ports.port_count} map {{ {indices} }}"
    )


def without_loop(ports: PortSet) -> str:
    """b4client where the kernel cannot recirculate."""
    return plan_of(ports, recirculation=False).ruleset


def with_loop(ports: PortSet) -> str:
    """b4client."""
    return plan_of(ports).ruleset


DESIGNS: dict[str, Callable[[PortSet], str]] = {
    "plain forwarding": nothing,
    "one snat rule": one_snat,
    "rule per range (fw4)": rule_list,
    "one port per index": one_port_per_index,
    "b4client, one try": without_loop,
    "b4client": with_loop,
}


def _table(*rules: str) -> str:
    lines = "\n".join(rules)
    return f"{EMPTY}table ip b4client_b4 {{\nchain out {{\n{HOOK}\n{lines}\n}}\n}}\n"


@dataclass
class Result:
    """Of one design and set. Shares are of connections up without a retransmission, in percent; costs in ns of CPU."""

    fill: list[float] = field(default_factory=list)
    churn: list[float] = field(default_factory=list)
    packet: list[float] = field(default_factory=list)
    flow: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    wrong: int = 0


def load(bed: NatBed, design: str, ports: PortSet) -> None:
    text = DESIGNS[design](ports)
    if design == "b4client":
        bed.load(plan_of(ports), ports)  # the loop as well
    else:
        bed.load_text(text, ports)


def measure_fill(bed: NatBed, ports: PortSet) -> float:
    with serving(bed):
        outcomes = bed.connect(ports.port_count)
        bed.drop_sockets()
    return 100 * sum(o.immediate for o in outcomes) / len(outcomes)


def measure_churn(bed: NatBed, ports: PortSet, percent: int = 90, count: int = 150) -> float:
    """Connections that replace closed ones while ``percent`` of the set is in use towards one destination."""
    with serving(bed):
        target = ports.port_count * percent // 100
        up, fresh = [], []
        for outcome in bed.connect(target):
            if outcome.immediate:
                up.append(outcome)
            else:
                outcome.socket.close()
        for i in range(count):
            if len(up) >= target and up:
                bed.end(up.pop(i * 7919 % len(up)).socket)
            outcome = bed.connect(1, patience_s=0.1)[0]
            fresh.append(outcome)
            if outcome.immediate:
                up.append(outcome)
            else:
                outcome.socket.close()
        bed.drop_sockets()
    return 100 * sum(o.immediate for o in fresh) / len(fresh)


def measure_packets(bed: NatBed) -> float:
    """ns per 64-octet datagram of an established flow."""
    s = bed.socket(bed.lan, socket.SOCK_DGRAM)
    s.connect((FAR[0], PORT))
    payload = bytes(36)
    send = s.send
    for _ in range(100):
        send(payload)
    begun = time.thread_time_ns()
    for _ in range(PACKETS):
        send(payload)
    return (time.thread_time_ns() - begun) / PACKETS


def measure_flows(bed: NatBed) -> float:
    """ns per first datagram of a flow; every flow has a destination of its own, so that no port is ever short."""
    s = bed.socket(bed.lan, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.setblocking(True)
    source = socket.inet_aton("192.168.1.10")
    packets = []
    for i in range(FLOWS):
        udp = struct.pack("!HHHH", 20_000 + i % 40_000, 1024 + i // len(FAR), 12, 0) + b"flow"
        header = struct.pack("!BBHHHBBH", 0x45, 0, 32, i & 0xFFFF, 0x4000, 64, 17, 0)
        packets.append((header + source + socket.inet_aton(FAR[i % len(FAR)]) + udp, (FAR[i % len(FAR)], 0)))
    send = s.sendto
    begun = time.thread_time_ns()
    for packet, to in packets:
        send(packet, to)
    return (time.thread_time_ns() - begun) / FLOWS


def measure_load(bed: NatBed, text: str) -> float:
    """ms to load the table whole, in this process."""
    with bed.cpe.entered():
        rules = Nft()
        times = []
        for _ in range(5):
            begun = time.thread_time_ns()
            rules.run("load", text)
            times.append((time.thread_time_ns() - begun) / 1e6)
    return min(times)


def run(rounds: int, sets: Sequence[str]) -> dict[tuple[str, str], Result]:
    """All measurements of some of SETS."""
    results: dict[tuple[str, str], Result] = {}
    bed = NatBed(f"bench{os.getpid()}")
    bed.build()
    try:
        bed.far.run("ip", "route", "add", "192.168.1.0/24", "dev", "eth0")  # for plain forwarding
        for number in range(rounds):
            for title in sets:
                ports = SETS[title]
                for design, rules in DESIGNS.items():
                    result = results.setdefault((title, design), Result())
                    load(bed, design, ports)
                    result.load.append(measure_load(bed, rules(ports)))
                    # Nobody answers: what is measured is the way there.
                    bed.far.run("nft", "add chain ip judge after { type filter hook prerouting priority 0; }")
                    bed.far.run("nft", "add rule ip judge after udp dport != 53 drop")
                    result.packet.append(measure_packets(bed))
                    result.flow.append(measure_flows(bed))
                    if number == 0 and design not in ("plain forwarding", "one snat rule"):
                        load(bed, design, ports)
                        result.fill.append(measure_fill(bed, ports))
                        load(bed, design, ports)
                        result.churn.append(measure_churn(bed, ports))
                        result.wrong += bed.judged()[0]
                    print(f"round {number + 1}: {title}, {design}", file=sys.stderr)
    finally:
        bed.close()
    return results


def table(results: dict[tuple[str, str], Result]) -> list[str]:
    """Markdown: a table per set. Ratios are to plain forwarding, per packet and per new flow."""
    lines = []
    for title in dict.fromkeys(title for title, _ in results):
        plain = results[title, "plain forwarding"]
        packet0, flow0 = statistics.median(plain.packet), statistics.median(plain.flow)
        lines += [
            f"**{title}**",
            "",
            "| design | whole set at once | churn at 90 % | packet rate | + ns/packet | flow rate | + ns/flow | load |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for design in DESIGNS:
            r = results[title, design]
            packet, flow = statistics.median(r.packet), statistics.median(r.flow)
            shares = [f"{statistics.median(values):.1f} %" if values else "-" for values in (r.fill, r.churn)]
            lines.append(
                f"| {design} | {shares[0]} | {shares[1]} | {packet0 / packet:.2f} | {packet - packet0:+.0f} "
                f"| {flow0 / flow:.2f} | {flow - flow0:+.0f} | {statistics.median(r.load):.1f} ms |"
            )
        lines.append("")
    return lines


def svg(results: dict[tuple[str, str], Result]) -> str:
    """Bars: the share of connections that are up at once, per design, for the middle set."""
    rows = []
    for design in DESIGNS:
        r = results[MAIN, design]
        if r.fill:
            shares = [statistics.median(values) for values in (r.fill, r.churn)]
            rows.append((design, [(share, f"{share:.1f} %") for share in shares]))
    title = f"Connections up at once: {MAIN}, one destination"
    return bars(title, rows, series=("whole set at once", "one leaves, one comes, at 90 %"), top=100.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--main", action="store_true", help=f"only the set that is drawn, {MAIN}")
    parser.add_argument("--svg", type=Path, help="draw the shares here")
    parser.add_argument("--markdown", type=Path, help="write the tables here as well")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000, max(20_000, hard)))
    results = run(options.rounds, [MAIN] if options.main else list(SETS))
    information = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.split(":", 1)[1].strip() for line in information if line.startswith("model name")), "?")
    wrong = sum(r.wrong for (_, design), r in results.items() if design.startswith("b4client"))
    lines = [
        f"Linux {platform.release()}, {processor}, Python {platform.python_version()}, {options.rounds} rounds.",
        f"Packets of b4client with a source outside the set: {wrong}.",
        "",
        *table(results),
    ]
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines))
    if options.svg:
        options.svg.write_text(svg(results))


if __name__ == "__main__":
    main()
