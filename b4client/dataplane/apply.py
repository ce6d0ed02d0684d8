"""Makes a SoftwireConfig true in the kernel, keeps it true, takes it away: observe, diff, apply, verify, withdraw.

Every change first looks at the kernel and does only what differs; a change that fails half-way is undone in reverse
order. The NAT rules are in place before the address and the route, so that nothing can leave untranslated in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from b4client.dataplane import capabilities, conntrack, loopdevice, nft, prefixlan, rtnl, sharing, sysctl, userspace
from b4client.dataplane.capabilities import Capabilities
from b4client.dataplane.memory import Memory, MemoryFile, digest
from b4client.dataplane.meshview import view_mesh
from b4client.dataplane.plan import ICMP_TIMEOUT, RECIRCULATION, Plan, mesh_plan, plan
from b4client.dataplane.recirculation import LoopPlan, loop_plan
from b4client.dataplane.ruleset import own_tables, table_name
from b4client.dataplane.undo import MEMORY, DidNotStay, Undo, undoing
from b4client.model.errors import DataplaneError
from b4client.model.settings import SoftwireSettings
from b4client.model.softwire import Encapsulation, SoftwireConfig

if TYPE_CHECKING:
    from b4client.dataplane.neighbours import Conflict

__all__ = ["Applied", "Dataplane", "DidNotStay", "Observed"]

log = logging.getLogger("b4client.dataplane")

DEFAULT_PATH_MTU = 1500


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of ``install``: ``changed`` False when the kernel was as wanted already, else ``repaired`` names what
    was not; ``nat`` names the design."""

    changed: bool
    kind: str
    mtu: int
    nat: str
    repaired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """The kernel's state of the softwire, for ``status``. ``counters`` are the nft table's, by name; ``nat`` is the
    design in force and, where it is not the exact one, why; ``mesh`` is told by ``meshview``."""

    device: str
    kind: str | None
    up: bool
    mtu: int | None
    local: str | None
    remote: str | None
    addresses: tuple[str, ...]
    routes: tuple[str, ...]
    traffic: dict[str, int] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    pump: dict[str, Any] | None = None
    nat: dict[str, str | None] = field(default_factory=dict)
    mesh: dict[str, Any] | None = None


class Dataplane:
    """The softwire of one daemon. Blocking; called from one worker thread, never from the event loop."""

    def __init__(self, settings: SoftwireSettings, *, state_dir: Path | None = None) -> None:
        self._settings = settings
        self._device = settings.device
        self._run_dir = state_dir or Path("/run/b4client")
        self._file = MemoryFile(state_dir, settings.device)
        self._memory: Memory | None = None
        self._nft: nft.Nft | None = None
        self._capabilities: Capabilities | None = None
        self._standby: userspace.Standby | None = None
        self._unlisted: tuple[tuple[str, str], ...] | None = None
        self._icmp_told = False
        self._config: SoftwireConfig | None = None
        self._lan: str | None = None
        self._wan_up: bool | None = None

    # ---- what the machine can do

    def probe(self) -> Capabilities:
        """Find out once what this machine can do. Raises DataplaneError when it can do nothing for us."""
        if self._capabilities is None:
            with rtnl.session():
                found = capabilities.probe(self._settings, self._rules())
            wanted = found.encapsulation(self._settings.encapsulation)
            if wanted is not Encapsulation.USERSPACE and self._standby is not None:
                self._standby.close()
            self._capabilities = found
        return self._capabilities

    def prepare(self) -> None:
        """Begin what takes long and needs no lease: a pump that loads while we do, where one will be needed.

        One that carries traffic already is left to it. What cannot be started now is started, or explained, later.
        """
        if self._settings.encapsulation is Encapsulation.KERNEL or userspace.running(
            self._device, run_dir=self._run_dir
        ):
            return
        if self._settings.encapsulation is Encapsulation.USERSPACE or not userspace.kernel_driver_known():
            with suppress(DataplaneError):
                self._standby = userspace.Standby(self._run_dir)

    def _rules(self) -> nft.Nft:
        if self._nft is None:
            self._nft = nft.Nft()
        return self._nft

    def _remembered(self) -> Memory:
        if self._memory is None:
            self._memory = self._file.load()
        return self._memory

    # ---- addresses of ours on the WAN

    def own_addresses(self) -> frozenset[IPv6Address]:
        """The IPv6 addresses that we have added to the WAN, this process or one before."""
        return frozenset(IPv6Address(address) for address in self._remembered().wan_addresses)

    def prepare_address(self, wan: str, address: IPv6Address) -> None:
        """Add an address for a softwire that is to come (RFC 8539 7.1), and wait until it may be used. Idempotent.

        ``install`` keeps the one it needs and removes the others; ``withdraw`` removes all. Raises DataplaneError.
        """
        link = rtnl.observe_link(wan)
        if link is None:
            raise DataplaneError(f"add {address} to {wan}", "no such interface")
        memory = self._remembered()
        if rtnl.has_address6(link.index, address):
            return
        if str(address) not in memory.wan_addresses:
            # Before it is there: whatever happens next, it is known to be ours.
            memory.wan, memory.wan_addresses = wan, [*memory.wan_addresses, str(address)]
            self._file.save(memory)
        rtnl.add_address6(wan, address)

    # ---- install

    def configure(self, settings: SoftwireSettings) -> None:
        """Other settings from the next ``install`` on. The device and who encapsulates cannot change."""
        if (settings.device, settings.encapsulation) != (self._settings.device, self._settings.encapsulation):
            raise ValueError("device and encapsulation are for life")
        self._settings = settings

    def install(self, config: SoftwireConfig, *, list_later: bool = False) -> Applied:
        """Make the kernel as ``config`` wants. Idempotent; all or nothing: on DataplaneError the old state holds.

        With ``list_later`` the caller has promised to call ``note_listing`` soon.
        """
        done = self._install(config)
        if not list_later:
            self.note_listing()
        return done

    def _install(self, config: SoftwireConfig) -> Applied:
        found = self.probe()
        with rtnl.session():
            wan = rtnl.observe_link(config.wan)
            if wan is None:
                raise DataplaneError(f"install the softwire over {config.wan}", "no such interface")
            path_mtu = rtnl.path_mtu(config.remote) or wan.mtu or DEFAULT_PATH_MTU
            encapsulation = found.encapsulation_for(config, self._settings)

            def planned(recirculation: bool) -> Plan:
                wanted = plan(
                    config,
                    self._settings,
                    encapsulation=encapsulation,
                    path_mtu=path_mtu,
                    ct_timeouts=found.ct_timeouts,
                    recirculation=recirculation,
                )
                # Without a carrier the route would only keep another uplink's, of a larger metric, from being used.
                return wanted if wan.up else replace(wanted, routes=())

            memory = self._remembered()
            target = planned(found.recirculation is None)
            problem = found.recirculation if config.ports is not None else None
            # The pool ends, and with it what it does, before a failure is undone.
            with undoing() as undo, ThreadPoolExecutor(max_workers=1) as aside:
                undo.add(MEMORY, partial(self._restore, replace(memory)))
                self._refuse_foreign_device(memory)
                changed = self._wan_address(target, wan.index, memory, undo)
                # A process takes a while to start; the device does nothing before it has an address and a route.
                link = aside.submit(self._make_link, target, wan.index, memory, undo)
                if target.loop is not None:
                    made, problem = self._loop(target.loop, undo)
                    changed |= made
                    if problem is not None:
                        target = planned(False)
                shared = [(k, v) for k, v in target.sysctls if f"/{self._device}/" not in k]
                changed |= self._set_sysctls(shared, memory, undo)
                changed |= self._load_rules(target, memory, undo)
                changed |= self._keep_icmp(target, memory, undo)
                changed |= link.result()
                changed |= self._set_up(target, memory, undo)
                # Routes that follow the WAN's carrier are no repair.
                routed = self._follow_routes(target, memory, undo)
                changed |= routed and self._wan_up in (None, wan.up)
                self._wan_up = wan.up
                if changed:
                    self._verify(target)
                changed |= self._settle(target, config, problem, memory)
        self._note_config(config, target)
        repaired = (undo.names or ("parts of it",)) if changed else ()
        return Applied(changed, target.link.kind, target.link.mtu, target.nat, repaired)

    def _note_config(self, config: SoftwireConfig, target: Plan) -> None:
        """Remember what is installed, and say once that forwarding rules are not followed."""
        wanted = mesh_plan(config, self._settings) is not None and target.link.mesh is None
        if wanted and (self._config is None or self._config.rules != config.rules):
            log.warning(
                "%d forwarding rules, but the kernel's ip6_tunnel has one far end: all goes by the BR, and who sends"
                " directly is not heard; softwire.encapsulation = userspace has a mesh",
                len(config.rules),
            )
        self._config = config
        self._lan = None if target.lan is None else target.lan.interface

    @property
    def lan(self) -> str | None:
        """The interface of the LAN where an address of ours is wanted."""
        return self._lan

    @property
    def lan_missing(self) -> bool:
        """True when that interface was not there."""
        return bool(self._remembered().lan_missing)

    def shut_unguarded(self) -> bool:
        """Take the softwire down when its NAT rules are gone: without them packets would leave on others' ports.

        True when that was so. The next ``install`` brings both back.
        """
        with rtnl.session():
            tunnel = rtnl.observe_tunnel(self._device)
            if tunnel is None or not tunnel.up or ("ip", table_name(self._device)) in self._rules().tables():
                return False
            rtnl.set_link(self._device, up=False)
        return True

    def _restore(self, memory: Memory) -> None:
        self._memory, self._unlisted = memory, None
        self._file.save(memory)

    def _wan_address(self, target: Plan, wan_index: int, memory: Memory, undo: Undo) -> bool:
        address = target.wan_address
        if address is None or rtnl.has_address6(wan_index, address):
            return False
        memory.wan, memory.wan_addresses = target.wan, [*memory.wan_addresses, str(address)]
        self._file.save(memory)
        undo.add("softwire address", partial(rtnl.delete_address6, target.wan, address))
        rtnl.add_address6(target.wan, address)
        return True

    def _loop(self, loop: LoopPlan, undo: Undo) -> tuple[bool, str | None]:
        """Make the veth pair: (whether something changed, None or why it cannot be and recirculation must do without).

        What went wrong half-way is gone again when this returns.
        """
        try:
            with undoing() as own:
                changed = loopdevice.ensure(loop, own)
        except DataplaneError as error:
            return False, str(error)
        undo.take(own)
        return changed, None

    def _set_up(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        """The device's MTU, address and routes, when the rules are there: nothing can leave untranslated in between."""
        changed = False
        tunnel = rtnl.observe_tunnel(self._device)
        if tunnel is None:
            raise DataplaneError(f"set up {self._device}", "the interface vanished while it was set up", transient=True)
        if tunnel.mtu != target.link.device_mtu:
            rtnl.set_link(self._device, mtu=target.link.device_mtu)
            undo.add("MTU", partial(rtnl.set_link, self._device, mtu=tunnel.mtu))
            changed = True
        own = [(k, v) for k, v in target.sysctls if f"/{self._device}/" in k and sysctl.read(k) is not None]
        changed |= self._set_sysctls(own, None, undo)
        changed |= self._address(target, tunnel.index, undo)
        if not tunnel.up:
            rtnl.set_link(self._device, up=True)
            undo.add("link up", partial(rtnl.set_link, self._device, up=False))
            changed = True
        changed |= prefixlan.ensure(target.lan, memory, lambda: self._file.save(memory), undo)
        return changed

    def _follow_routes(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        tunnel = rtnl.observe_tunnel(self._device)
        return tunnel is not None and self._route(target, tunnel.index, memory, undo)

    def _settle(self, target: Plan, config: SoftwireConfig, nat_problem: str | None, memory: Memory) -> bool:
        """What only goes once the new state stands: old NAT entries, old addresses, a loop that is no longer used."""
        binding = f"{config.ipv4} {config.ports}"
        changed = False
        if memory.binding and memory.binding != binding:
            self._flush(memory, config)
            changed = True
        forwards = [[f.protocol, f.port, str(f.to), f.to_port] for f in config.forwards]
        if memory.address and forwards != memory.forwards:
            from b4client.dataplane.forwardflush import flush_forwards

            flush_forwards(memory.address, memory.forwards, forwards)
        if target.loop is None:
            loopdevice.remove(loop_plan(self._device))
        if nat_problem is not None and nat_problem != memory.nat_problem:
            log.warning("NAT without recirculation, so that some connections are delayed: %s", nat_problem)
        # Last of all: when something fails before, the old softwire needs its address to come back.
        for address in memory.wan_addresses:
            if target.wan_address is None or IPv6Address(address) != target.wan_address:
                rtnl.delete_address6(memory.wan, IPv6Address(address))
                changed = True
        kept = [str(target.wan_address)] if str(target.wan_address) in memory.wan_addresses else []
        final = {
            "device": self._device,
            "kind": target.link.kind,
            "wan": target.wan,
            "wan_addresses": kept,
            "address": str(target.address),
            "binding": binding,
            "forwards": forwards,
            "routes": [(str(r.destination), r.metric) for r in target.routes],
            "nat": target.nat,
            "nat_problem": nat_problem or "",
        }
        if any(getattr(memory, name) != value for name, value in final.items()):
            for name, value in final.items():
                setattr(memory, name, value)
            self._file.save(memory)
        return changed

    def _flush(self, memory: Memory, config: SoftwireConfig) -> None:
        """The NAT entries of the binding before: all of another address, of the same one what is not in the set now."""
        try:
            old = IPv4Address(memory.address)
        except ValueError:
            return  # nothing remembered that could be flushed
        if old == config.ipv4 and config.ports is None:
            return
        flushed = conntrack.flush(old, keep=config.ports if old == config.ipv4 else None)
        log.info("flushed %d NAT entries of %s", flushed, memory.binding)

    def _refuse_foreign_device(self, memory: Memory) -> None:
        present = rtnl.observe_tunnel(self._device)
        if present is None or memory.device == self._device:
            return
        pump = userspace.running(self._device, run_dir=self._run_dir)
        if not (present.kind == "ip6tnl" and present.ours) and pump is None:
            raise DataplaneError(
                f"make the softwire {self._device}",
                f"an interface of that name exists ({present.kind or 'unknown kind'})",
                remedy="Remove it, or choose another name with softwire.device or --device.",
            )

    def _set_sysctls(self, wanted: list[tuple[str, str]], memory: Memory | None, undo: Undo) -> bool:
        changed = False
        for path, value in wanted:
            present = sysctl.read(path)
            if present == value or (
                present is not None and path.endswith(("arp_ignore", "arp_announce")) and present > value
            ):
                continue  # a stricter setting of the operator's is as good
            if memory is not None and present is not None:
                memory.sysctls.setdefault(path, present)
                self._file.save(memory)
            try:
                sysctl.write(path, value)
            except DataplaneError:
                # What was not changed need not be put back, which would fail for the same reason.
                if memory is not None and memory.sysctls.get(path) == present:
                    del memory.sysctls[path]
                    self._file.save(memory)
                raise
            if present is not None:
                old = present
                undo.add(path, lambda path=path, old=old: sysctl.write(path, old))  # type: ignore[misc]
            changed = True
        return changed

    def _keep_icmp(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        """Have the NAT keep ICMP queries as long as it should. Others' longer time is as good; where the setting cannot
        be changed the softwire is worth more than the time."""
        present = sysctl.read(ICMP_TIMEOUT)
        if target.icmp_timeout is None or present is None or int(present) >= target.icmp_timeout:
            return False
        try:
            return self._set_sysctls([(ICMP_TIMEOUT, str(target.icmp_timeout))], memory, undo)
        except DataplaneError as error:
            if not self._icmp_told:
                log.warning("ICMP queries are translated for %s s only: %s", present, error)
            self._icmp_told = True
            return False

    def _listing(self, tables: tuple[tuple[str, str], ...]) -> str:
        """A digest of what the kernel lists of our tables, less what changes by itself; "" when one is missing."""
        found = [self._rules().list_rules(family, name) for family, name in tables]
        return "" if None in found else digest([nft.essence(text or "") for text in found])

    def _tables_exist(self, tables: tuple[tuple[str, str], ...]) -> bool:
        return set(tables) <= self._rules().tables()

    def _load_rules(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        """Load the ruleset unless it is there unchanged."""
        old = memory.ruleset
        if old == target.ruleset and memory.listing and memory.listing == self._listing(target.tables):
            return False
        rules = self._rules()
        existed = self._tables_exist(target.tables)
        rules.run("load the NAT rules", target.ruleset)
        if existed and old:
            undo.add("NAT rules", partial(rules.run, "bring back the NAT rules", old))
        else:
            undo.add("NAT rules", self._delete_tables)
        memory.ruleset, memory.listing = target.ruleset, ""
        self._file.save(memory)
        self._unlisted = target.tables
        return True

    def note_listing(self) -> None:
        """Note how the kernel lists the rules that the last ``install`` loaded: by it they are known again.

        It takes as long as the loading, and traffic need not wait for it. Until then the rules count as unknown: the
        next ``install`` loads them again.
        """
        tables, self._unlisted = self._unlisted, None
        if tables is None:
            return
        memory = self._remembered()
        with suppress(DataplaneError):
            memory.listing = self._listing(tables)
            self._file.save(memory)

    def _delete_tables(self) -> None:
        for family, name in own_tables(self._device):
            self._rules().delete_table(family, name)

    def _make_link(self, target: Plan, wan_index: int, memory: Memory, undo: Undo) -> bool:
        link = target.link
        present = rtnl.observe_tunnel(link.name)
        changed = False
        if present is not None and (present.kind != link.kind or not present.ours):
            self._remove_link(present.kind)
            present, changed = None, True
        if present is None:
            memory.device, memory.kind = link.name, link.kind
            self._file.save(memory)
        if link.kind == "ip6tnl":
            if present is None:
                undo.add("tunnel", lambda: rtnl.delete_link(link.name))
                rtnl.create_ip6tnl(link.name, wan_index, link.local, link.remote, link.mtu)
                changed = True
            elif (present.local, present.remote) != (link.local, link.remote):
                old_local, old_remote = present.local, present.remote
                rtnl.change_ip6tnl(link.name, wan_index, link.local, link.remote)
                if old_local is not None and old_remote is not None:
                    undo.add("tunnel", lambda: rtnl.change_ip6tnl(link.name, wan_index, old_local, old_remote))
                changed = True
        else:
            pump = userspace.running(link.name, run_dir=self._run_dir)
            wanted = (link.local, link.remote, link.mesh)
            if (
                present is None
                or pump is None
                or (pump.local, pump.remote, pump.mesh) != wanted
                # A path that has become narrower is what the pump follows by itself.
                or link.mtu not in (pump.mtu, pump.tunnel_mtu)
            ):
                if present is None or pump is None:
                    undo.add("softwire", lambda: userspace.stop(link.name, run_dir=self._run_dir))
                else:
                    old = pump
                    undo.add(
                        "softwire",
                        lambda: userspace.start(
                            link.name, old.local, old.remote, old.mtu, run_dir=self._run_dir, mesh=old.mesh
                        ),
                    )
                userspace.start(
                    link.name,
                    link.local,
                    link.remote,
                    link.mtu,
                    run_dir=self._run_dir,
                    standby=self._standby,
                    mesh=link.mesh,
                )
                changed = True
        return changed

    def _address(self, target: Plan, index: int, undo: Undo) -> bool:
        changed = False
        present = rtnl.addresses4(index)
        if (target.address, 32) not in present:
            rtnl.add_address4(self._device, target.address)
            undo.add("address", lambda: rtnl.delete_address4(self._device, target.address, 32))
            changed = True
        for address, length in present:
            if (address, length) != (target.address, 32):
                rtnl.delete_address4(self._device, address, length)
                undo.add("address", lambda address=address: rtnl.add_address4(self._device, address))  # type: ignore[misc]
                changed = True
        return changed

    def _route(self, target: Plan, index: int, memory: Memory, undo: Undo) -> bool:
        present = rtnl.routes4(index)
        changed = False
        wanted = [(r.destination, r.metric) for r in target.routes]
        for destination, metric in wanted:
            if (destination, metric) not in present:
                rtnl.add_route4(self._device, destination, metric)
                undo.add(
                    "route",
                    lambda destination=destination, metric=metric: rtnl.delete_route4(  # type: ignore[misc]
                        self._device, destination, metric
                    ),
                )
                changed = True
        for text, metric in memory.routes:
            destination = IPv4Network(text)
            if (destination, metric) in present and (destination, metric) not in wanted:
                rtnl.delete_route4(self._device, destination, metric)
                changed = True
        return changed

    def _verify(self, target: Plan) -> None:
        """Look again after a change: what was asked for must be what is there."""
        tunnel = rtnl.observe_tunnel(self._device)
        missing = []
        if tunnel is None or not tunnel.up or tunnel.kind != target.link.kind:
            missing.append(f"the interface {self._device}")
        else:
            if (target.address, 32) not in rtnl.addresses4(tunnel.index):
                missing.append(f"the address {target.address}")
            routes = rtnl.routes4(tunnel.index)
            missing += [f"the route {r.destination}" for r in target.routes if (r.destination, r.metric) not in routes]
        if not self._tables_exist(target.tables):
            missing.append("the NAT rules")
        if missing:
            raise DidNotStay(tuple(missing))

    # ---- withdraw, observe

    def _remove_link(self, kind: str | None) -> None:
        if kind == "tun":
            userspace.stop(self._device, run_dir=self._run_dir)
        rtnl.delete_link(self._device)

    def withdraw(self) -> None:
        """Take away everything of ours, also what an earlier process left. Idempotent; goes on past what fails, then
        raises DataplaneError with all of it."""
        with rtnl.session():
            problems = self._take_away(self._remembered())
        if problems:
            raise DataplaneError("take the softwire away", "; ".join(problems))
        self._memory, self._unlisted = Memory(), None
        self._config = None
        self._file.forget()

    def _take_away(self, memory: Memory) -> list[str]:
        problems: list[str] = []
        before = sharing.give_up(self._run_dir, self._device, memory.sysctls)

        def attempt(step: Callable[[], object]) -> None:
            try:
                step()
            except DataplaneError as error:
                problems.append(str(error))

        def remove_device() -> None:
            present = rtnl.observe_tunnel(self._device)
            pump = userspace.running(self._device, run_dir=self._run_dir)
            if pump is not None or memory.kind == "tun":
                userspace.stop(self._device, run_dir=self._run_dir)
            if present is not None and (memory.device == self._device or (present.kind == "ip6tnl" and present.ours)):
                rtnl.delete_link(self._device)

        def remove_addresses() -> None:
            for address in memory.wan_addresses:
                rtnl.delete_address6(memory.wan, IPv6Address(address))

        def flush() -> None:
            if memory.address:
                conntrack.flush(IPv4Address(memory.address))

        # The route goes with the device: from here on nothing can leave, so the rules may go after it.
        attempt(remove_device)
        attempt(self._delete_tables)
        attempt(lambda: loopdevice.remove(loop_plan(self._device)))
        attempt(remove_addresses)
        attempt(lambda: prefixlan.remove(memory))
        attempt(flush)
        for path, value in before.items():
            attempt(lambda path=path, value=value: sysctl.write(path, value))  # type: ignore[misc]
        return problems

    def observe(self) -> Observed:
        """What the kernel has of the softwire now."""
        with rtnl.session():
            return self._observe()

    def _observe(self) -> Observed:
        tunnel = rtnl.observe_tunnel(self._device)
        listing = self._rules().list_table("ip", table_name(self._device))
        pump = userspace.running(self._device, run_dir=self._run_dir)
        if tunnel is None:
            return Observed(self._device, None, False, None, None, None, (), (), {}, nft.counters(listing))
        local, remote = (pump.local, pump.remote) if pump is not None else (tunnel.local, tunnel.remote)
        return Observed(
            device=self._device,
            kind=tunnel.kind,
            up=tunnel.up,
            mtu=tunnel.mtu if pump is None else min(pump.tunnel_mtu, tunnel.mtu),
            local=str(local) if local else None,
            remote=str(remote) if remote else None,
            addresses=tuple(f"{a}/{n}" for a, n in rtnl.addresses4(tunnel.index)),
            routes=tuple(f"{d} metric {m}" for d, m in rtnl.routes4(tunnel.index)),
            traffic={k: getattr(tunnel, k) for k in ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes")},
            counters=nft.counters(listing),
            pump={"pid": pump.pid, **pump.counters} if pump is not None else None,
            nat=self._nat(),
            mesh=view_mesh(
                self._config,
                self._settings,
                kind=tunnel.kind,
                active=pump is not None and pump.mesh is not None,
                by_rule=pump.by_rule if pump is not None else (),
            ),
        )

    def _nat(self) -> dict[str, str | None]:
        memory = self._remembered()
        problem = memory.nat_problem or None
        if memory.nat == RECIRCULATION and not loopdevice.present(loop_plan(self._device)):
            problem = "the veth pair of its loop is gone or down: new flows have one try each"
        return {"design": memory.nat or None, "problem": problem}

    def conflicts(self, config: SoftwireConfig) -> list[Conflict]:
        """What nft's rules of others do to the softwire, as far as nft itself knows (not what iptables' extensions
        match: ``b4client doctor`` asks iptables too). Raises DataplaneError."""
        if self._rules().tables() <= set(own_tables(self._device)):
            return []  # nobody else has any: what would look at them need not even be loaded
        from b4client.dataplane.foreign import lans
        from b4client.dataplane.neighbours import Scene, find

        loop = loop_plan(self._device) if self._remembered().nat == RECIRCULATION else None
        scene = Scene(
            self._device,
            config.wan,
            str(config.ipv4),
            lans(self._device, config.wan),
            loop,
            str(config.remote),
            str(config.local),
            default_route=self._settings.default_route,
            inbound=bool(config.forwards or self._settings.accept_local),
        )
        return find(self._rules().list_ruleset(), scene)

    def close(self) -> None:
        """Free what this process holds; the softwire stays."""
        self._nft = None
        if self._standby is not None:
            self._standby.close()
