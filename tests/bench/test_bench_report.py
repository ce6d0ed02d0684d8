"""What draws and writes the benches' report; nothing here looks at a clock."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import codec_bench
import pytest
import report as bench_report
import startup
from picture import WIDTH, bars, stacks, table

from b4client.wire import dhcp4, dhcp4o6

SVG = "{http://www.w3.org/2000/svg}"


def drawn(text: str) -> tuple[list[float], list[str]]:
    """(width of each bar, every text), of a document that is well-formed."""
    root = ET.fromstring(text)  # noqa: S314 - our own
    boxes = [float(r.attrib["width"]) for r in root.iter(f"{SVG}rect") if r.attrib["width"] != "100%"]
    return boxes, [t.text or "" for t in root.iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_values() -> None:
    boxes, texts = drawn(bars("A & B <x>", [("one", [(10.0, "10 ms")]), ("two", [(5.0, "5 ms")])]))
    assert boxes == [WIDTH, WIDTH / 2]
    assert texts == ["A & B <x>", "one", "10 ms", "two", "5 ms"]


def test_bars_of_several_series_with_a_mark() -> None:
    text = bars("t", [("row", [(1.0, "a"), (4.0, "b")])], series=("s1", "s2"), top=2.0, mark=1.0)
    boxes, texts = drawn(text)
    assert boxes == [WIDTH / 2, WIDTH]  # what is greater than the top ends there
    assert texts == ["t", "s1", "s2", "row", "a", "b"]
    assert ET.fromstring(text).find(f"{SVG}path") is not None  # noqa: S314


@pytest.mark.parametrize("rows", [[], [("nothing", [(0.0, "0")])], [("less", [(-1.0, "-1")])]])
def test_bars_of_nothing(rows: list[tuple[str, list[tuple[float, str]]]]) -> None:
    assert set(drawn(bars("t", rows))[0]) <= {0.0}


def test_everything_drawn_is_inside_the_picture() -> None:
    text = bars("t", [("a long name of a row", [(3.0, "12345 leases/s")])])
    root = ET.fromstring(text)  # noqa: S314
    box = next(r for r in root.iter(f"{SVG}rect") if r.attrib["width"] != "100%")
    assert float(box.attrib["x"]) + float(box.attrib["width"]) < float(root.attrib["width"]) - 80
    assert float(box.attrib["y"]) + float(box.attrib["height"]) < float(root.attrib["height"])


def test_stacks_add_up() -> None:
    boxes, texts = drawn(stacks("t", ("p", "q"), [("cold", (30.0, 10.0)), ("warm", (20.0, 0.0))], "ms"))
    legend = [12.0, 12.0]
    assert boxes == [WIDTH * 0.75, WIDTH * 0.25, WIDTH * 0.5, 0.0, *legend]
    assert texts == ["t", "cold", "40 ms", "warm", "20 ms", "p", "q"]
    with pytest.raises(ValueError, match="cold: 1 values of 2 parts"):
        stacks("t", ("p", "q"), [("cold", (1.0,))], "ms")


def test_table() -> None:
    assert table(("a", "b"), [("1", "x|y")]) == ["", "| a | b |", "| --- | --- |", r"| 1 | x\|y |", ""]
    with pytest.raises(ValueError, match="1 cells below 2 heads"):
        table(("a", "b"), [("1",)])


COLD = {"11": 10.4, "7": 10.5, "DISCOVER": 10.6, "OFFER": 10.8, "REQUEST": 10.9, "ACK": 11.2}


def test_phases_of_a_cold_start() -> None:
    phases = startup.phases_of(COLD, 10.0, 11.5, 11.6)
    assert [round(took, 3) for took in phases.values()] == [0.4, 0.1, 0.1, 0.2, 0.1, 0.3, 0.3, 0.1]
    network = sum(took for name, took in phases.items() if startup.PHASES[name])
    assert round(network, 3) == 0.6


def test_phases_of_an_init_reboot_have_no_offer() -> None:
    seen = {key: at for key, at in COLD.items() if key not in ("DISCOVER", "OFFER")}
    phases = startup.phases_of(seen, 10.0, 11.5, 11.4)
    assert [round(took, 3) for took in phases.values()] == [0.4, 0.1, 0.4, 0.0, 0.0, 0.3, 0.2, 0.0]
    assert round(sum(phases.values()), 3) == 1.4  # the packet was through before all was verified
    with pytest.raises(KeyError):
        startup.phases_of({}, 0.0, 1.0, 1.0)


def test_both_codecs_do_the_same_work() -> None:
    works = codec_bench.works()  # raises when they do not say the same
    for work in works:
        ours, theirs = work.ours(), work.scapy()
        assert ours == theirs
        assert ours


def test_queries_of_the_lease_bench() -> None:
    import lease_bench

    outer = dhcp4o6.decode(lease_bench.query(dhcp4.MessageType.DISCOVER, 70_000, (50, b"\1\2\3\4")))
    inner = dhcp4.decode(outer.dhcp4)
    assert (inner.xid, inner.message_type, inner.get(50)) == (70_000, 1, b"\1\2\3\4")
    assert inner.get(61) != dhcp4.decode(dhcp4o6.decode(lease_bench.query(dhcp4.MessageType.DISCOVER, 4)).dhcp4).get(61)
    homes = {str(lease_bench.home(n)) for n in (1, 2, 65_535)}
    assert homes == {"2001:db8:1000:100::1", "2001:db8:1000:200::1", "2001:db8:10ff:ff00::1"}


def section_of(write: Any, found: object, tmp_path: Path) -> bench_report.Report:
    report = bench_report.Report(tmp_path, quick=True)
    write(report, found)
    return report


def test_sections_of_the_report(tmp_path: Path) -> None:
    figures = {"exec_to_first_packet_s": 0.5, "round_trips_s": 0.1, "rss_mb": 50.0, "phases": {"a": 0.4, "b": 0.1}}
    startup_found = {"runs": 2, "medians": {"cold": figures, "INIT-REBOOT": figures}}
    report = section_of(bench_report.write_start_up, startup_found, tmp_path)
    text = bench_report.markdown(report.lines)
    assert "| a | 400.0 | 400.0 |" in text
    assert "cold: 0.400 s above the network's round trips (100.0 ms)." in text
    assert "50.0 MB, **above** the budget of 45 MB" in text
    assert drawn((tmp_path / "startup.svg").read_text())[0][:2] == [WIDTH * 0.8, WIDTH * 0.2]

    apply_found = {
        "runs": 3,
        "medians_ms": {"install": 30.0, "ip and nft": 60.0},
        "processes": {"install": 0, "ip and nft": 9},
    }
    report = section_of(bench_report.write_apply, apply_found, tmp_path)
    assert report.summary == [("apply, beside ip and nft", "30.0 ms", "60.0 ms", "2.00")]

    report = section_of(
        bench_report.write_codecs, [{"work": "decode", "octets": 9, "ours_us": 2.0, "scapy_us": 5.0}], tmp_path
    )
    assert "| decode | 9 | 2.0 µs | 5.0 µs | 2.5 |" in report.lines

    values = {"leases_per_s": 100.0, "cpu_ms_per_lease": 1.0, "generator": 0.1, "resent": 0}
    leases = {"clients": 5, "rounds": 1, "medians": {"lab": values, "Kea": {**values, "leases_per_s": 400.0}}}
    report = section_of(bench_report.write_leases, leases, tmp_path)
    assert "| Kea | 400 | 1.00 | 0.10 | 0 |" in report.lines
    assert report.summary == [("lab server's leases", "100/s", "Kea 400/s", "0.25")]


def test_speed_of_the_simulation_is_what_it_says() -> None:
    assert bench_report.client_years("years: 1 seeds, 2.0 client-years in 9 s (1,234 client-years a minute)") == 1234
    with pytest.raises(ValueError, match="tells no speed"):
        bench_report.client_years("it failed")


def test_a_section_that_fails_is_told_and_the_others_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(report: bench_report.Report) -> None:
        raise subprocess.CalledProcessError(3, ["bench"], stderr="line\nno such device")

    def works(report: bench_report.Report) -> None:
        report.add("measured")

    monkeypatch.setattr(bench_report, "SECTIONS", {"one": ("One", breaks), "two": ("Two", works)})
    report = bench_report.Report(tmp_path, quick=True)
    assert bench_report.fill(report, ["one", "two"]) == ["one"]
    text = bench_report.markdown(report.lines)
    assert "no such device" in text
    assert text.endswith("## Two\n\nmeasured\n")
    assert "\n\n\n" not in text
