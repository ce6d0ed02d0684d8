"""The veth pair of ``recirculation`` in the kernel: made, adopted, mended, removed."""

from __future__ import annotations

from functools import partial

from b4client.dataplane import rtaddr, rtlink, rtroute, sysctl
from b4client.dataplane.recirculation import LoopPlan
from b4client.dataplane.undo import Undo
from b4client.model.errors import DataplaneError


def ensure(loop: LoopPlan, undo: Undo) -> bool:
    """Make the pair as ``loop`` wants; True when something had to be done.

    Raises DataplaneError: no veth driver, or an interface of that name that is not ours.
    """
    changed = False
    ends = [rtlink.observe_end(name) for name in (loop.sender, loop.receiver)]
    for name, end in zip((loop.sender, loop.receiver), ends, strict=True):
        if end is not None and not _ours(end, loop):
            raise DataplaneError(
                f"make the NAT loop {name}",
                f"an interface of that name exists ({end.kind or 'unknown kind'})",
                remedy="Remove it, or choose another name with softwire.device.",
            )
    if None in ends:
        # One end alone cannot be: what bears the name is in another network namespace, or going away.
        remove(loop)
        undo.add("NAT loop", partial(rtlink.delete_link, loop.sender))
        rtlink.create_veth(loop.sender, loop.receiver, loop.hardware_address, loop.mtu)
        changed = True
    for path, value in loop.sysctls:
        if sysctl.read(path) not in (value, None):
            sysctl.write(path, value)
            changed = True
    sender, receiver = _end(loop.sender), _end(loop.receiver)
    if (loop.address, 32) not in rtaddr.addresses4(receiver.index):
        rtaddr.add_address4(loop.receiver, loop.address, host_scope=True)
        changed = True
    for name, end in ((loop.sender, sender), (loop.receiver, receiver)):
        if end.mtu != loop.mtu:
            rtlink.set_link(name, mtu=loop.mtu)
            changed = True
        if not end.silent:
            rtlink.silence(name)
            changed = True
    if (loop.route, loop.metric) not in rtroute.routes4(sender.index):
        rtroute.add_route4(loop.sender, loop.route, loop.metric)
        changed = True
    return changed


def _end(name: str) -> rtlink.End:
    end = rtlink.observe_end(name)
    if end is None:
        raise DataplaneError(f"make the NAT loop {name}", "the interface vanished", transient=True)
    return end


def remove(loop: LoopPlan) -> None:
    """Take the pair away if it is ours."""
    for name in (loop.sender, loop.receiver):
        end = rtlink.observe_end(name)
        if end is not None and _ours(end, loop):
            rtlink.delete_link(name)


def present(loop: LoopPlan) -> bool:
    """True when both ends are there and up."""
    ends = [rtlink.observe_end(name) for name in (loop.sender, loop.receiver)]
    return all(end is not None and end.silent and _ours(end, loop) for end in ends)


def _ours(end: rtlink.End, loop: LoopPlan) -> bool:
    return end.kind == "veth" and end.hardware_address == loop.hardware_address
