"""Programs that the tests of the packages need and that not every machine has."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


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
