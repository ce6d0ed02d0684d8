"""The daemon speaks no TLS and needs no OpenSSL, which would be a tenth of its memory: it is loaded without.

asyncio and hashlib do with what Python has of its own where OpenSSL is missing; here they are told that it is.
pyroute2 0.9 imports ``ssl`` for a prober of TLS servers that nothing here calls: it gets an empty module.
"""

from __future__ import annotations

import importlib.util
import sys
import types

_HASHES = (("_md5",), ("_sha1",), ("_sha256", "_sha2"), ("_sha512", "_sha2"), ("_sha3",), ("_blake2",))
"""Python's own hashes: hashlib wants all of them. ``_sha2`` is the name from 3.12 on."""


def leave_out_openssl() -> bool:
    """Call before asyncio, hashlib and pyroute2 are loaded. False where that would be too late, or where this Python
    was built without hashes of its own: then everything is loaded as usual."""
    if "ssl" in sys.modules or "hashlib" in sys.modules:
        return False
    if not all(any(importlib.util.find_spec(name) for name in names) for names in _HASHES):
        return False
    # None is how Python itself marks a module that cannot be imported.
    modules: dict[str, types.ModuleType | None] = sys.modules  # type: ignore[assignment]
    modules["_hashlib"] = modules["ssl"] = None
    import asyncio  # noqa: F401
    import hashlib  # noqa: F401

    modules["ssl"] = types.ModuleType("ssl", "Empty: see b4client.daemon.lean.")
    return True
