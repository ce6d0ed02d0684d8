"""The softwire's device: the kernel's ip6tnl, or a TUN device with its pump. Made, changed, recognised, removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from b4client.dataplane import rtlink, userspace
from b4client.dataplane.memory import Memory
from b4client.dataplane.plan import LinkPlan
from b4client.dataplane.undo import Undo
from b4client.model.errors import DataplaneError
from b4client.model.softwire import Encapsulation


class Device:
    """The device ``name`` of one daemon; its pump's files are in ``run_dir``."""

    def __init__(self, name: str, run_dir: Path) -> None:
        self.name = name
        self._run_dir = run_dir
        self._standby: userspace.Standby | None = None

    @property
    def pump(self) -> userspace.Pump | None:
        """The pump that serves the device now."""
        return userspace.running(self.name, run_dir=self._run_dir)

    def prepare(self, encapsulation: Encapsulation) -> None:
        """Have a pump load where one will be needed. One that carries traffic already is left to it. What cannot be
        started now is started, or explained, later."""
        if encapsulation is Encapsulation.KERNEL or self.pump is not None:
            return
        if encapsulation is Encapsulation.USERSPACE or not userspace.kernel_driver_known():
            with suppress(DataplaneError):
                self._standby = userspace.Standby(self._run_dir)

    def close(self) -> None:
        """End a pump that was prepared and serves nothing."""
        if self._standby is not None:
            self._standby.close()

    def refuse_foreign(self, memory: Memory) -> None:
        """Raises DataplaneError when there is an interface of that name that is nothing of ours."""
        present = rtlink.observe_tunnel(self.name)
        if present is None or memory.device == self.name:
            return
        if not (present.kind == "ip6tnl" and present.ours) and self.pump is None:
            raise DataplaneError(
                f"make the softwire {self.name}",
                f"an interface of that name exists ({present.kind or 'unknown kind'})",
                remedy="Remove it, or choose another name with softwire.device or --device.",
            )

    def ensure(
        self, link: LinkPlan, wan_index: int, memory: Memory, save: Callable[[Memory], None], undo: Undo
    ) -> bool:
        """Make or change the device as ``link`` wants; True when something was done. It is noted in ``memory`` before
        it is there. MTU, state and addresses are the caller's."""
        present = rtlink.observe_tunnel(self.name)
        replaced = present is not None and (present.kind != link.kind or not present.ours)
        if present is not None and replaced:
            self._remove(present.kind)
            present = None
        if present is None:
            memory.device, memory.kind = self.name, link.kind
            save(memory)
        make = self._ensure_kernel if link.kind == "ip6tnl" else self._ensure_userspace
        return make(link, wan_index, present, undo) or replaced

    def _ensure_kernel(self, link: LinkPlan, wan_index: int, present: rtlink.Tunnel | None, undo: Undo) -> bool:
        if present is None:
            undo.add("tunnel", partial(rtlink.delete_link, self.name))
            rtlink.create_ip6tnl(self.name, wan_index, link.local, link.remote, link.mtu)
            return True
        # A WAN that went and came again (a PPP session) has another index; beside other uplinks the tunnel needs it.
        if (present.local, present.remote, present.over) == (link.local, link.remote, wan_index):
            return False
        rtlink.change_ip6tnl(self.name, wan_index, link.local, link.remote)
        if present.local is not None and present.remote is not None:
            old = present.over or wan_index
            undo.add("tunnel", partial(rtlink.change_ip6tnl, self.name, old, present.local, present.remote))
        return True

    def _ensure_userspace(self, link: LinkPlan, _: int, present: rtlink.Tunnel | None, undo: Undo) -> bool:
        old = self.pump
        start = partial(userspace.start, self.name, run_dir=self._run_dir)
        if present is None or old is None:
            undo.add("softwire", partial(userspace.stop, self.name, run_dir=self._run_dir))
        elif (
            (old.local, old.remote, old.mesh) == (link.local, link.remote, link.mesh)
            # A path that has become narrower is what the pump follows by itself.
            and link.mtu in (old.mtu, old.tunnel_mtu)
        ):
            return False
        else:
            undo.add("softwire", partial(start, old.local, old.remote, old.mtu, mesh=old.mesh))
        start(link.local, link.remote, link.mtu, standby=self._standby, mesh=link.mesh)
        return True

    def _remove(self, kind: str | None) -> None:
        if kind == "tun":
            userspace.stop(self.name, run_dir=self._run_dir)
        rtlink.delete_link(self.name)

    def take_away(self, memory: Memory) -> None:
        """Remove it, also what an earlier process left; what is nothing of ours stays. Idempotent."""
        present = rtlink.observe_tunnel(self.name)
        if self.pump is not None or memory.kind == "tun":
            userspace.stop(self.name, run_dir=self._run_dir)
        if present is not None and (memory.device == self.name or (present.kind == "ip6tnl" and present.ours)):
            rtlink.delete_link(self.name)
