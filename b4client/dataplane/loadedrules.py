"""The softwire's nft tables in the kernel: loaded unless they are there unchanged, and known again by their listing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from b4client.dataplane.memory import Memory, digest
from b4client.dataplane.nft import Nft, counters, essence
from b4client.dataplane.plan import Plan
from b4client.dataplane.ruleset import going_on, own_tables, table_name
from b4client.dataplane.undo import Undo
from b4client.model.errors import DataplaneError


class LoadedRules:
    """The tables of one device; ``save`` keeps the memory. Raises DataplaneError."""

    def __init__(self, device: str, save: Callable[[Memory], None]) -> None:
        self._device, self._save = device, save
        self._nft: Nft | None = None
        self._unlisted: tuple[tuple[str, str], ...] | None = None

    @property
    def nft(self) -> Nft:
        """The library, loaded at first use."""
        if self._nft is None:
            self._nft = Nft()
        return self._nft

    def close(self) -> None:
        """Free the library's context."""
        self._nft = None

    def present(self, tables: tuple[tuple[str, str], ...]) -> bool:
        """True when all of them are there."""
        return set(tables) <= self.nft.tables()

    def load(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        """Load the ruleset unless it is there unchanged; True when it was loaded. Named counters go on counting."""
        old = memory.ruleset
        if old == target.ruleset and memory.listing and memory.listing == self._listing(target.tables):
            return False
        existed = self.present(target.tables)
        counted = counters(self.nft.list_counters("ip", table_name(self._device))) if existed else {}
        self.nft.run("load the NAT rules", going_on(target.ruleset, counted))
        if existed and old:
            undo.add("NAT rules", partial(self.nft.run, "bring back the NAT rules", old))
        else:
            undo.add("NAT rules", partial(self.nft.delete_tables, own_tables(self._device)))
        memory.ruleset, memory.listing = target.ruleset, ""
        self._save(memory)
        self._unlisted = target.tables
        return True

    def note_listing(self, memory: Memory) -> None:
        """Note how the kernel lists what ``load`` loaded last, if that has not been noted."""
        tables, self._unlisted = self._unlisted, None
        if tables is None:
            return
        with suppress(DataplaneError):
            memory.listing = self._listing(tables)
            self._save(memory)

    def forget_listing(self) -> None:
        """What was loaded last is not there any more."""
        self._unlisted = None

    def _listing(self, tables: tuple[tuple[str, str], ...]) -> str:
        """A digest of what the kernel lists of the tables, less what changes by itself; "" when one is missing."""
        found = [self.nft.list_rules(family, name) for family, name in tables]
        return "" if None in found else digest([essence(text or "") for text in found])
