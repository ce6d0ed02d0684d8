"""The control API's real answers against the schema that is shipped, the command line's exit codes, metrics."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import b4client
from b4client import api
from b4client.lab.client import Client
from b4client.lab.netns import LabError, wait_until
from b4client.lab.testbed import Testbed
from b4client.metrics import METRICS
from b4client.model.errors import ControlError

jsonschema = pytest.importorskip("jsonschema", reason="not installed; netns-scripts/setup tests installs it")
pytestmark = pytest.mark.kea

SCHEMA = json.loads((Path(b4client.__file__).parent / "control-api.schema.json").read_text())


def check(value: object, *where: str) -> None:
    """``value`` keeps the part of the schema at ``where`` (below $defs), with no member that the schema forgot."""
    part: Any = SCHEMA["$defs"]
    for step in where:
        part = part[step]
    jsonschema.Draft202012Validator({**part, "$defs": SCHEMA["$defs"]}).validate(value)
    assert_all_known(value, part)


def assert_all_known(value: object, part: dict[str, Any], path: str = "") -> None:
    """Every member of an answer is described."""
    part = resolved(value, part)
    if isinstance(value, dict):
        known, others = part.get("properties", {}), part.get("additionalProperties")
        for name, member in value.items():
            assert name in known or others is not None, f"{path}/{name} is not in the schema"
            assert_all_known(member, known.get(name, others), f"{path}/{name}")
    elif isinstance(value, list):
        for item in value:
            assert_all_known(item, part.get("items", {}), f"{path}[]")


def resolved(value: object, part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part or "anyOf" in part:
        if "$ref" in part:
            part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
        else:
            part = next(
                p
                for p in part["anyOf"]
                if jsonschema.Draft202012Validator({**p, "$defs": SCHEMA["$defs"]}).is_valid(value)
            )
    return part


def call(client: Client, command: str, **arguments: object) -> dict[str, Any]:
    """One request, its answer checked."""
    jsonschema.Draft202012Validator(SCHEMA).validate({"command": command, "arguments": arguments})
    answer = api.call(client.run_dir / "wan.sock", command, arguments)
    check({k: v for k, v in answer.items() if k != "arguments"}, "answer")
    if "arguments" in answer:
        check(answer["arguments"], "answers", "properties", command)
    found: dict[str, Any] = answer["arguments"]
    return found


@contextmanager
def monitor(client: Client, log: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """``b4client monitor --json``; call the value for what it has printed so far."""
    with log.open("wb") as out:
        process = subprocess.Popen(Client._argv("monitor", "--json", "--run-dir", str(client.run_dir)), stdout=out)
    try:
        yield lambda: [json.loads(line) for line in log.read_text().splitlines()]
    finally:
        process.kill()
        process.wait()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_answer_keeps_the_schema(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    client = client_in(testbed)
    client.start()
    bound = client.wait_bound()
    check(bound, "status")
    commands = set(SCHEMA["$defs"]["answers"]["properties"])
    with pytest.raises(ControlError, match="unknown command; known: ") as refusal:
        api.call(client.run_dir / "wan.sock", "nonsense")
    assert set(str(refusal.value).partition("known: ")[2].split(", ")) == commands | {"monitor"}
    with monitor(client, tmp_path / "events") as events:
        call(client, "recent")
        call(client, "log-level", level="info")
        # Again until the monitor, a process that has to start, has seen one.
        wait_until(
            lambda: call(client, "reload") and any(e["kind"] == "reloaded" for e in events()),
            10,
            "an event",
            poll_s=0.1,
        )
        call(client, "renew")
        wait_until(lambda: any(e["kind"] == "renewed" for e in events()), 10, "the renewal")
        call(client, "rebind")
        forward = {"protocol": "tcp", "port": 80, "to": "192.168.1.10", "to_port": 8080, "on_change": "move"}
        check(forward, "arguments", "properties", "forward-add")
        assert call(client, "forward-add", **forward)["forward"]["active"]
        call(client, "forward-list")
        call(client, "ports")
        text = call(client, "metrics")["metrics"]
        call(client, "status")
        call(client, "forward-del", protocol="tcp", port=80)
        testbed.cpe.run("nft", "flush", "ruleset")
        wait_until(lambda: any(e["kind"] == "mended" for e in events()), 10, "the event")
        call(client, "status")
        call(client, "release")
        assert call(client, "status")["lease"] is None
        call(client, "restart")
        client.wait_bound()
        for event in events():
            check(event, "event")
    names = {line.split("{")[0] for line in text.splitlines() if line.startswith("b4client_")}
    absent = set(METRICS) - names
    expected = {"b4client_mesh_active", "b4client_mesh_packets_total"}  # no forwarding rules here
    assert absent == expected | ({"b4client_pump_packets_total"} if bound["dataplane"]["kind"] == "ip6tnl" else set())
    assert 'b4client_state{wan="wan",state="BOUND"} 1' in client.command("metrics")
    call(client, "stop", policy="withdraw")
    wait_until(lambda: not client.running, 15, "the daemon to end")


def test_a_hand_over_keeps_the_schema(testbed: Testbed, client_in: Callable[..., Client]) -> None:
    client = client_in(testbed, "--dhcp6", "external")
    client.start()
    client.wait_for_state("STOPPED")
    document = {"options": {"88": ""}, "prefixes": ["2001:db8:100::/56"], "addresses": []}
    check(document, "arguments", "properties", "provision")
    handed = call(client, "provision", **document)["provisioning"]
    assert (handed["mode"], handed["servers_4o6"]) == ("external", [])
    assert [item["network"] for item in handed["leases"]] == ["2001:db8:100::/56"]
    with pytest.raises(LabError, match="exit 1"):
        client._namespace.run(
            *Client._argv("provision", "--run-dir", str(client.run_dir), "-"), text='{"options": {"1": ""}}'
        )


def test_exit_codes(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    def code(*arguments: str) -> int:
        return testbed.cpe.run(*Client._argv(*arguments), check=False).returncode

    there = ("--run-dir", str(tmp_path / "client" / "run"))
    assert code("status", *there) == 3
    assert code("nonsense") == 2
    assert code("run", "--wan", "no/such") == 78
    assert code("run", "--wan", "absent0", "--run-dir", str(tmp_path), "--state-dir", str(tmp_path)) == 1
    client = client_in(testbed)
    client.start()
    client.wait_bound()
    assert code("status", *there) == code("metrics", *there) == code("monitor", "--recent", *there) == 0
    with pytest.raises(LabError, match="exit 2"):
        client.command("log-level", "shouting")


def test_metrics_by_http_and_file(testbed: Testbed, client_in: Callable[..., Client], tmp_path: Path) -> None:
    settings, file = tmp_path / "b4client.toml", tmp_path / "b4client.prom"
    settings.write_text(f'[metrics]\nport = 9546\ntextfile = "{file}"\ntextfile_interval = 1\n')
    client = client_in(testbed, "--config", str(settings))
    client.start()
    client.wait_bound()
    get = (
        "import urllib.request as r; a = r.urlopen('http://127.0.0.1:9546/metrics', timeout=5); "
        "print(a.headers['Content-Type'], a.read().decode())"
    )
    # Loopback of a namespace of our own.
    testbed.cpe.run("ip", "link", "set", "lo", "up")
    said = testbed.cpe.run("python3", "-c", get).stdout
    assert said.startswith("text/plain; version=0.0.4")
    assert 'b4client_ready{wan="wan"} 1' in said
    wait_until(lambda: file.exists() and 'b4client_ready{wan="wan"} 1' in file.read_text(), 5, "the file")
    settings.write_text(f'[metrics]\ntextfile = "{file}"\ntextfile_interval = 1\n')
    assert "metrics.port" in client.command("reload")
    assert testbed.cpe.run("python3", "-c", get, check=False).returncode != 0
