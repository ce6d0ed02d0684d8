"""Wheel and source distribution: what is in them, and that each installs and works in a clean environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import b4client

PROJECT = Path(__file__).resolve().parents[2]
VERSION = b4client.__version__
DATA_FILES = {"b4client/py.typed", "b4client/ARCHITECTURE.md", "b4client/control-api.schema.json"}

# The hooks of PEP 517, called without an index to take the backend from.
BUILD = """
import os, sys
os.chdir(sys.argv[1])
from setuptools import build_meta
getattr(build_meta, sys.argv[3])(sys.argv[2])
"""


def run(*command: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, timeout=300)
    assert not check or done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both, built from a copy of what is in the checkout, tests and scripts included."""
    pytest.importorskip("setuptools", minversion="66", reason="the build backend; pip brings it elsewhere")
    directory = tmp_path_factory.mktemp("dist")
    copy = directory / "copy"
    shutil.copytree(
        PROJECT,
        copy,
        ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist"),
    )
    result = directory / "result"
    result.mkdir()
    for hook in ("build_sdist", "build_wheel"):  # each in a process of its own, as pip calls them
        run(sys.executable, "-c", BUILD, str(copy), str(result), hook)
    return result


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return dist / f"b4client-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    return dist / f"b4client-{VERSION}.tar.gz"


def modules() -> set[str]:
    return {str(file.relative_to(PROJECT)) for file in (PROJECT / "b4client").rglob("*.py")}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.startswith(f"b4client-{VERSION}.dist-info/")}
    assert names - metadata == modules() | DATA_FILES
    assert any(name.endswith("LICENSE") for name in metadata)


def test_sdist_holds_what_a_build_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}
    # Newer setuptools takes tests/test*.py along, and only a MANIFEST.in at the top would keep it from that.
    names = {name for name in names if ".egg-info/" not in name and not re.fullmatch(r"tests/test_\w+\.py", name)}
    expected = modules() | DATA_FILES | {"pyproject.toml", "README.md", "LICENSE", "PKG-INFO", "setup.cfg"}
    assert names == expected


def test_metadata_names_every_dependency_that_an_index_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"b4client-{VERSION}.dist-info/METADATA").decode()
    required = {line.split(": ", 1)[1] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")}
    always = {re.sub(r"[ ()]", "", line) for line in required if "extra ==" not in line}
    assert always == {"pyroute2>=0.7.2", "tenacity>=8"}
    assert "Requires-Python: >=3.11" in metadata


def environment(directory: Path) -> Path:
    """A new environment that sees nothing of the machine's; its ``bin``."""
    venv.EnvBuilder(with_pip=True, symlinks=True).create(directory)
    return directory / "bin"


def works(bin_dir: Path, away: Path) -> None:
    """The light commands work and come from the environment, not from the checkout."""
    assert run(str(bin_dir / "b4client"), "--version", cwd=away).stdout == f"b4client {VERSION}\n"
    answer = run(
        *(str(bin_dir / "b4client"), "calc", "portset", "--offset", "0", "--psid-len", "8", "--psid", "0x34"), cwd=away
    )
    assert "13312-13567" in answer.stdout.replace(" ", "")
    where = run(str(bin_dir / "python"), "-c", "import b4client; print(b4client.__file__)", cwd=away).stdout
    assert where.startswith(str(bin_dir.parent))


def test_wheel_installs_alone_and_calculates(wheel: Path, tmp_path: Path) -> None:
    """Without any dependency: what needs no network needs none of them."""
    bin_dir = environment(tmp_path / "env")
    run(str(bin_dir / "pip"), "install", "-q", "--no-index", "--no-deps", str(wheel))
    works(bin_dir, tmp_path)


@pytest.mark.timeout(600)
def test_sdist_installs_with_its_dependencies(sdist: Path, tmp_path: Path) -> None:
    """``pip install`` builds it in isolation and brings what the daemon imports."""
    bin_dir = environment(tmp_path / "env")
    done = run(str(bin_dir / "pip"), "install", "-q", "--retries", "1", str(sdist), check=False)
    if done.returncode and ("Could not find a version" in done.stderr or "Connection" in done.stderr):
        pytest.skip("no package index can be reached; where there is one (CI), this is tried")
    assert done.returncode == 0, done.stderr
    works(bin_dir, tmp_path)
    run(str(bin_dir / "python"), "-c", "import pyroute2, tenacity, b4client.daemon.loop", cwd=tmp_path)
    without = run(
        str(bin_dir / "b4client"), "run", "--wan", "b4none", "--run-dir", str(tmp_path), cwd=tmp_path, check=False
    )
    assert without.returncode != 0
    assert "Traceback" not in without.stderr
