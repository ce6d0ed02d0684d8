"""Programs that the tests of the packages need and that not every machine has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from b4client import config


def need(command: str, package: str = "") -> str:
    """Path of ``command``, installed from Debian's ``package`` (its own name by default) where it is missing and we are
    root; else the test is skipped, naming it."""
    package = package or command
    if not shutil.which(command) and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", package]
        for before in ([], ["apt-get", "-q", "update"]):
            if before:
                subprocess.run(before, capture_output=True, check=False, env=environment)
            if subprocess.run(install, capture_output=True, check=False, env=environment).returncode == 0:
                break
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"{command} is missing: install the package {package} (root: the test does it)")
    return found


def settings() -> set[str]:
    """SECTION.KEY of every setting that there is once: those read from a table of config.py, and those of [static]."""
    found = {"static.mode", *(f"static.{key}" for keys in config.STATIC_KEYS.values() for key in keys)} - {
        "static.rule"
    }
    for name, table in vars(config).items():
        if re.fullmatch(r"_[A-Z0-9_]+", name) and isinstance(table, dict):
            section = "nat.timeouts" if name == "_TIMEOUTS" else name[1:].split("_")[0].lower()
            found |= {f"{section}.{key}" for key in table}
    return found
