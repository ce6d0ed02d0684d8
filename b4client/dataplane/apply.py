"""Makes a SoftwireConfig true in the kernel, keeps it true, takes it away: observe, diff, apply, verify, withdraw.

Every change first looks at the kernel and does only what differs; a change that fails half-way is undone in reverse
order. The NAT rules are in place before the address and the route, so that nothing can leave untranslated in between.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from b4client.dataplane import capabilities, conntrack, loopdevice, netlink, prefixlan, rtaddr, rtlink, rtroute, sysctl
from b4client.dataplane.capabilities import Capabilities
from b4client.dataplane.device import Device
from b4client.dataplane.loadedrules import LoadedRules
from b4client.dataplane.memory import Memory, MemoryFile
from b4client.dataplane.observed import Observed, observe
from b4client.dataplane.plan import ICMP_TIMEOUT, RECIRCULATION, Plan, mesh_plan, plan
from b4client.dataplane.recirculation import LoopPlan, loop_plan
from b4client.dataplane.ruleset import own_tables, table_name
from b4client.dataplane.undo import MEMORY, DidNotStay, Undo, undoing
from b4client.dataplane.withdrawal import take_away
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


class Dataplane:
    """The softwire of one daemon. Blocking; called from one worker thread, never from the event loop."""

    def __init__(self, settings: SoftwireSettings, *, state_dir: Path | None = None) -> None:
        self._settings = settings
        self._device = settings.device
        self._run_dir = state_dir or Path("/run/b4client")
        self._link = Device(settings.device, self._run_dir)
        self._file = MemoryFile(state_dir, settings.device)
        self._memory: Memory | None = None
        self._rules = LoadedRules(settings.device, self._file.save)
        self._capabilities: Capabilities | None = None
        self._icmp_told = False
        self._config: SoftwireConfig | None = None
        self._lan: str | None = None
        self._wan_up: bool | None = None

    # ---- what the machine can do

    def probe(self) -> Capabilities:
        """Find out once what this machine can do. Raises DataplaneError when it can do nothing for us."""
        if self._capabilities is None:
            with netlink.session():
                found = capabilities.probe(self._settings, self._rules.nft)
            wanted = found.encapsulation(self._settings.encapsulation)
            if wanted is not Encapsulation.USERSPACE:
                self._link.close()
            self._capabilities = found
        return self._capabilities

    def prepare(self) -> None:
        """Begin what takes long and needs no lease: a pump that loads while we do, where one will be needed.

        One that carries traffic already is left to it. What cannot be started now is started, or explained, later.
        """
        self._link.prepare(self._settings.encapsulation)

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
        link = rtlink.observe_link(wan)
        if link is None:
            raise DataplaneError(f"add {address} to {wan}", "no such interface")
        memory = self._remembered()
        if rtaddr.has_address6(link.index, address):
            return
        if str(address) not in memory.wan_addresses:
            # Before it is there: whatever happens next, it is known to be ours.
            memory.wan, memory.wan_addresses = wan, [*memory.wan_addresses, str(address)]
            self._file.save(memory)
        rtaddr.add_address6(wan, address)

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
        with netlink.session():
            wan = rtlink.observe_link(config.wan)
            if wan is None:
                raise DataplaneError(f"install the softwire over {config.wan}", "no such interface")
            path_mtu = rtroute.path_mtu(config.remote) or wan.mtu or DEFAULT_PATH_MTU
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
                self._link.refuse_foreign(memory)
                changed = self._wan_address(target, wan.index, memory, undo)
                # A process takes a while to start; the device does nothing before it has an address and a route.
                link = aside.submit(self._link.ensure, target.link, wan.index, memory, self._file.save, undo)
                if target.loop is not None:
                    made, problem = self._loop(target.loop, undo)
                    changed |= made
                    if problem is not None:
                        target = planned(False)
                shared = [(k, v) for k, v in target.sysctls if f"/{self._device}/" not in k]
                changed |= sysctl.ensure(shared, undo, memory, self._file.save)
                changed |= self._rules.load(target, memory, undo)
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
        with netlink.session():
            tunnel = rtlink.observe_tunnel(self._device)
            if tunnel is None or not tunnel.up or ("ip", table_name(self._device)) in self._rules.nft.tables():
                return False
            rtlink.set_link(self._device, up=False)
        return True

    def _restore(self, memory: Memory) -> None:
        self._memory = memory
        self._rules.forget_listing()
        self._file.save(memory)

    def _wan_address(self, target: Plan, wan_index: int, memory: Memory, undo: Undo) -> bool:
        address = target.wan_address
        if address is None or rtaddr.has_address6(wan_index, address):
            return False
        if str(address) not in memory.wan_addresses:
            memory.wan, memory.wan_addresses = target.wan, [*memory.wan_addresses, str(address)]
            self._file.save(memory)
        undo.add("softwire address", partial(rtaddr.delete_address6, target.wan, address))
        rtaddr.add_address6(target.wan, address)
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
        tunnel = rtlink.observe_tunnel(self._device)
        if tunnel is None:
            raise DataplaneError(f"set up {self._device}", "the interface vanished while it was set up", transient=True)
        if tunnel.mtu != target.link.device_mtu:
            rtlink.set_link(self._device, mtu=target.link.device_mtu)
            undo.add("MTU", partial(rtlink.set_link, self._device, mtu=tunnel.mtu))
            changed = True
        own = [(k, v) for k, v in target.sysctls if f"/{self._device}/" in k and sysctl.read(k) is not None]
        changed |= sysctl.ensure(own, undo)
        changed |= self._address(target, tunnel.index, undo)
        if not tunnel.up:
            rtlink.set_link(self._device, up=True)
            undo.add("link up", partial(rtlink.set_link, self._device, up=False))
            changed = True
        changed |= prefixlan.ensure(target.lan, memory, lambda: self._file.save(memory), undo)
        return changed

    def _follow_routes(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        index = netlink.lookup(self._device)
        return index is not None and self._route(target, index, memory, undo)

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
                rtaddr.delete_address6(memory.wan, IPv6Address(address))
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

    def _keep_icmp(self, target: Plan, memory: Memory, undo: Undo) -> bool:
        """Have the NAT keep ICMP queries as long as it should. Others' longer time is as good; where the setting cannot
        be changed the softwire is worth more than the time."""
        present = sysctl.read(ICMP_TIMEOUT)
        if target.icmp_timeout is None or present is None or int(present) >= target.icmp_timeout:
            return False
        try:
            return sysctl.ensure([(ICMP_TIMEOUT, str(target.icmp_timeout))], undo, memory, self._file.save)
        except DataplaneError as error:
            if not self._icmp_told:
                log.warning("ICMP queries are translated for %s s only: %s", present, error)
            self._icmp_told = True
            return False

    def note_listing(self) -> None:
        """Note how the kernel lists the rules that the last ``install`` loaded: by it they are known again.

        It takes as long as the loading, and traffic need not wait for it. Until then the rules count as unknown: the
        next ``install`` loads them again.
        """
        self._rules.note_listing(self._remembered())

    def _address(self, target: Plan, index: int, undo: Undo) -> bool:
        changed = False
        present = rtaddr.addresses4(index)
        if (target.address, 32) not in present:
            rtaddr.add_address4(self._device, target.address)
            undo.add("address", lambda: rtaddr.delete_address4(self._device, target.address, 32))
            changed = True
        for address, length in present:
            if (address, length) != (target.address, 32):
                rtaddr.delete_address4(self._device, address, length)
                undo.add("address", lambda address=address: rtaddr.add_address4(self._device, address))  # type: ignore[misc]
                changed = True
        return changed

    def _route(self, target: Plan, index: int, memory: Memory, undo: Undo) -> bool:
        present = rtroute.routes4(index)
        changed = False
        wanted = [(r.destination, r.metric) for r in target.routes]
        for destination, metric in wanted:
            if (destination, metric) not in present:
                rtroute.add_route4(self._device, destination, metric)
                undo.add(
                    "route",
                    lambda destination=destination, metric=metric: rtroute.delete_route4(  # type: ignore[misc]
                        self._device, destination, metric
                    ),
                )
                changed = True
        for text, metric in memory.routes:
            destination = IPv4Network(text)
            if (destination, metric) in present and (destination, metric) not in wanted:
                rtroute.delete_route4(self._device, destination, metric)
                changed = True
        return changed

    def _verify(self, target: Plan) -> None:
        """Look again after a change: what was asked for must be what is there."""
        tunnel = rtlink.observe_tunnel(self._device)
        missing = []
        if tunnel is None or not tunnel.up or tunnel.kind != target.link.kind:
            missing.append(f"the interface {self._device}")
        else:
            if (target.address, 32) not in rtaddr.addresses4(tunnel.index):
                missing.append(f"the address {target.address}")
            routes = rtroute.routes4(tunnel.index)
            missing += [f"the route {r.destination}" for r in target.routes if (r.destination, r.metric) not in routes]
        if not self._rules.present(target.tables):
            missing.append("the NAT rules")
        if missing:
            raise DidNotStay(tuple(missing))

    # ---- withdraw, observe

    def withdraw(self) -> None:
        """Take away everything of ours, also what an earlier process left. Idempotent; goes on past what fails, then
        raises DataplaneError with all of it."""
        with netlink.session():
            problems = take_away(self._link, self._rules.nft, self._remembered(), self._run_dir)
        if problems:
            raise DataplaneError("take the softwire away", "; ".join(problems))
        self._memory = Memory()
        self._rules.forget_listing()
        self._config = None
        self._file.forget()

    def observe(self) -> Observed:
        """What the kernel has of the softwire now."""
        with netlink.session():
            return observe(self._link, self._rules.nft, self._remembered(), self._settings, self._config)

    def conflicts(self, config: SoftwireConfig) -> list[Conflict]:
        """What nft's rules of others do to the softwire, as far as nft itself knows (not what iptables' extensions
        match: ``b4client doctor`` asks iptables too). Raises DataplaneError."""
        if self._rules.nft.tables() <= set(own_tables(self._device)):
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
        return find(self._rules.nft.list_ruleset(), scene)

    def close(self) -> None:
        """Free what this process holds; the softwire stays."""
        self._rules.close()
        self._link.close()
