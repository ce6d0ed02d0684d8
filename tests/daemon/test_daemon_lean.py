"""The daemon without OpenSSL: nothing of it is loaded, and everything that the daemon loads works."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys
from b4client.daemon import lean
found = {"done": lean.leave_out_openssl(), "again": lean.leave_out_openssl()}
import asyncio, hashlib
from b4client.daemon import loop
from b4client.dataplane import netlink
netlink.pyroute2().IPRoute
found["hash"] = hashlib.sha256(b"b4client").hexdigest()
found["answer"] = asyncio.run(asyncio.sleep(0, "yes"))
found["maps"] = [line.split()[-1] for line in open("/proc/self/maps") if "libcrypto" in line or "libssl" in line]
print(json.dumps(found))
"""
TOO_LATE = (
    "import ssl, sys; from b4client.daemon import lean; print(lean.leave_out_openssl(), sys.modules['ssl'] is ssl)"
)


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_nothing_of_openssl_is_loaded_and_all_works() -> None:
    assert json.loads(run(PROGRAM)) == {
        "done": True,
        "again": False,
        "hash": "ea3d5dcd2ef53378e3dbdc81fb48bd480953b59dfc2221cc2b621158cb76df48",
        "answer": "yes",
        "maps": [],
    }


def test_too_late_changes_nothing() -> None:
    assert run(TOO_LATE) == "False True\n"
