"""Fixtures of the end-to-end tests: a testbed of namespaces, a fresh daemon per test.

``B4CLIENT_TEST_ENCAPSULATION`` (``userspace``, the default, or ``kernel``) says what the softwire is made of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b4client.lab.client import Client
from b4client.lab.testbed import Testbed, TestbedSettings

HERE = os.path.dirname(__file__)
BOTH = frozenset(
    f"test_netns_{name}.py"
    for name in (
        *("daemon_doctor", "daemon_privileges", "forwards", "lab", "lab_load", "mesh", "ports", "prefix", "teardown"),
        "unnumbered",
    )
)
"""Beside the end-to-end tests, those for which it may matter what the softwire is made of."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.netns)
            if item.path.name in BOTH or item.path.name.startswith("test_e2e_"):
                item.add_marker(pytest.mark.both)


@pytest.fixture(scope="session")
def prefix() -> str:
    """Of the namespaces' names; another one in every test process."""
    return f"t{os.getpid()}"


@pytest.fixture(scope="session")
def encapsulation() -> str:
    """What the softwire is made of in this run."""
    return os.environ.get("B4CLIENT_TEST_ENCAPSULATION", "userspace")


@pytest.fixture(scope="session")
def testbed_with(prefix: str) -> Iterator[Callable[..., Testbed]]:
    """Call it with TestbedSettings' fields (``kea=...``) for a testbed that is up.

    The one that is up is used again when its settings are the same and it is in good health, else built anew.
    """

    def build(**settings: object) -> Testbed:
        testbed = Testbed(TestbedSettings(prefix=prefix, **settings))  # type: ignore[arg-type]
        testbed.up()
        return testbed

    yield build
    Testbed(TestbedSettings(prefix=prefix)).down()


@pytest.fixture
def testbed(testbed_with: Callable[..., Testbed]) -> Testbed:
    """A testbed with default settings: 192.0.2.18, PSID 0x34/8 at offset 0."""
    return testbed_with()


@pytest.fixture
def client_in(tmp_path: Path, encapsulation: str) -> Iterator[Callable[..., Client]]:
    """Call it with a testbed (and options of ``b4client run``) for a daemon's handle; stopped at the test's end.

    A daemon that cannot be stopped as it should be takes its testbed with it, so that the next test has a fresh one.
    """
    used: list[tuple[Testbed, Client]] = []

    def make(testbed: Testbed, *options: str, name: str = "client") -> Client:
        client = Client(testbed.cpe, tmp_path / name, encapsulation=encapsulation, options=options)
        used.append((testbed, client))
        return client

    yield make
    for testbed, client in used:
        try:
            if client.running:
                client.stop()
        finally:
            if testbed.cpe.exists and (
                testbed.cpe.pids() or "b4client" in testbed.cpe.run("nft", "list", "tables").stdout
            ):
                testbed.down()
