"""nftables: the only importer of python-nftables. Text in (built by ``plan`` from validated values), JSON out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from b4client.model.errors import DataplaneError

PACKAGE_REMEDY = "Install the distribution's package (Debian: apt install python3-nftables; OpenWrt: nftables-json)."
_DYNAMIC = re.compile(r"^\tset \S+ \{\n(?:\t\t.*\n)*?\t\tflags [^\n]*dynamic[^\n]*\n(?:\t\t.*\n)*?\t\}$", re.MULTILINE)
_ELEMENTS = re.compile(r"^\t\telements = \{[^}]*\}\n", re.MULTILINE)


class Nft:
    """One libnftables context. Raises DataplaneError with the library's own words."""

    def __init__(self) -> None:
        try:
            import nftables
        except ImportError:
            raise DataplaneError("load python-nftables", "not installed", remedy=PACKAGE_REMEDY) from None
        try:
            self._context = nftables.Nftables()
        except OSError as error:
            raise DataplaneError("load libnftables", str(error), remedy=PACKAGE_REMEDY) from None
        self._context.set_handle_output(False)
        self._context.set_stateless_output(False)

    def run(self, what: str, text: str) -> None:
        """Apply ``text`` as one transaction: all of it or nothing. ``what`` names the operation in the error."""
        status, _, error = self._context.cmd(text)
        if status:
            raise _refused(what, error)

    def list_rules(self, family: str, name: str) -> str | None:
        """The table as text without what its counters count; None when there is no such table. A third of the price of
        ``list_table``."""
        self._context.set_stateless_output(True)
        try:
            status, output, error = self._context.cmd(f"list table {family} {name}")
        finally:
            self._context.set_stateless_output(False)
        if status:
            if "No such file" in error:
                return None
            raise _refused(f"list nft table {family} {name}", error)
        return str(output)

    def list_table(self, family: str, name: str) -> list[dict[str, Any]] | None:
        """The objects of one table as libnftables' JSON has them; None when there is no such table."""
        return self._list(f"table {family} {name}")

    def list_counters(self, family: str, name: str) -> list[dict[str, Any]] | None:
        """The named counters of one table, as ``counters`` reads them; None when there is no such table."""
        return self._list(f"counters table {family} {name}")

    def list_ruleset(self) -> list[dict[str, Any]]:
        """The objects of all tables, everybody's."""
        return self._list("ruleset") or []

    def _list(self, what: str) -> list[dict[str, Any]] | None:
        self._context.set_json_output(True)
        try:
            status, output, error = self._context.cmd(f"list {what}")
        finally:
            self._context.set_json_output(False)
        if status:
            if "No such file" in error:
                return None
            raise _refused(f"list nft {what}", error)
        objects = json.loads(output)["nftables"]
        return [o for o in objects if "metainfo" not in o]

    def tables(self) -> set[tuple[str, str]]:
        """(family, name) of all tables."""
        status, output, error = self._context.cmd("list tables")
        if status:
            raise _refused("list nft tables", error)
        words = (line.split() for line in output.splitlines())
        return {(w[1], w[2]) for w in words if len(w) >= 3 and w[0] == "table"}

    def delete_tables(self, tables: Iterable[tuple[str, str]]) -> None:
        """Remove the tables (family, name) that are there."""
        for family, name in tables:
            # "table" before "delete table" makes the deletion valid whether it exists or not.
            self.run(f"delete nft table {family} {name}", f"table {family} {name}\ndelete table {family} {name}\n")

    def probe(self) -> None:
        """Raises DataplaneError with the remedy when this kernel or process cannot use nf_tables."""
        status, _, error = self._context.cmd("list tables")
        if status:
            raise _refused("use nf_tables", error)


def _refused(what: str, error: str) -> DataplaneError:
    lines = [line for line in error.splitlines() if line.strip() and not line.lstrip().startswith(("^", "~"))]
    reason = " | ".join(lines[:2]) or "refused without a word"
    if "Operation not permitted" in error:
        return DataplaneError(what, "not permitted", errno=1, remedy="Run as root, or with CAP_NET_ADMIN.")
    if "not supported" in error or "Protocol error" in error:
        return DataplaneError(
            what,
            reason,
            errno=95,
            remedy="The kernel lacks a part of nf_tables (CONFIG_NF_TABLES, NFT_NAT, NFT_CT ...).",
        )
    return DataplaneError(what, reason, transient="busy" in error.lower())


def essence(text: str) -> str:
    """A listing of a table without the elements of its dynamic sets, which come and go: equal means equal rules."""
    return _DYNAMIC.sub(lambda found: _ELEMENTS.sub("", found[0]), text)


def counters(objects: list[dict[str, Any]] | None) -> dict[str, dict[str, int]]:
    """``{"guard_drop": {"packets": 0, "bytes": 0}, ...}`` of a listing."""
    found = {}
    for item in objects or ():
        counter = item.get("counter")
        if counter:
            found[str(counter["name"])] = {"packets": int(counter["packets"]), "bytes": int(counter["bytes"])}
    return found
