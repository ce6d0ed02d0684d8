"""Other people's packet filters beside ours: which stand in the way of the softwire, and what to tell them. Pure.

Every packet that the softwire and its NAT need is walked through the rules of others (``fate``). What is dropped for
certain, or translated before our NAT sees it, is a conflict, with the commands that end it in the language of whoever
owns the rules (firewalld, ufw, Docker, OpenWrt's fw4, or nft itself).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from b4client.dataplane.fate import TRANSLATE, Chain, Packet, Rules
from b4client.dataplane.recirculation import LoopPlan
from b4client.dataplane.ruleset import NAT_PRIORITY, table_name

_OUTSIDE: Final = "9.9.9.9"
_SERVER6: Final = "fe80::1"


@dataclass(frozen=True, slots=True)
class Lan:
    """An interface behind which hosts are; ``host`` is an address of its network."""

    name: str
    host: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to work: the softwire ``device`` over ``wan`` with the public ``address``, for the ``lans``.

    ``loop`` is None where the NAT does without. ``default_route`` is whether the way to the Internet is the softwire.
    ``inbound`` is whether anybody outside may begin (port forwards, services of this machine). ``dhcp`` False means
    that no DHCPv6 answers need to come in (all is configured, or another client hands it over).
    """

    device: str
    wan: str | None
    address: str
    lans: tuple[Lan, ...] = ()
    loop: LoopPlan | None = None
    br: str | None = None
    local: str | None = None
    default_route: bool = True
    inbound: bool = False
    dhcp: bool = True


@dataclass(frozen=True, slots=True)
class Conflict:
    """``fatal`` keeps traffic from flowing; otherwise something is slower or some traffic is lost."""

    text: str
    remedy: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class _Need:
    """A packet that must pass: ``text`` in words, the match for it (``nft`` and ``iptables``), and ``ufw``'s words."""

    packet: Packet
    text: str
    nft: str
    iptables: str
    ufw: str
    fatal: bool = True


def find(objects: Iterable[Mapping[str, Any]], scene: Scene) -> list[Conflict]:
    """The conflicts of a whole ruleset with ``scene``, those of one chain as one, the first chain first."""
    rules = Rules(objects, ours=(table_name(scene.device),))
    conflicts = list(_translators(rules, scene))
    dropped: dict[Chain, list[_Need]] = {}
    for need in _needs(scene):
        chain = rules.dropping(need.packet)
        if chain is not None:
            dropped.setdefault(chain, []).append(need)
    for chain, needs in dropped.items():
        conflicts.append(
            Conflict(
                f"{chain} drops {_listed(dict.fromkeys(n.text for n in needs))}",
                _remedy(rules, chain, needs, scene),
                any(n.fatal for n in needs),
            )
        )
    return conflicts


def _listed(texts: Iterable[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


# ---- source NAT of others


def _translators(rules: Rules, scene: Scene) -> Iterator[Conflict]:
    """Chains that give a new flow its source before our NAT could: those of a smaller priority."""
    lans = scene.lans or (Lan("lan", "192.168.1.10"),)
    for chain in rules.chains:
        if chain.kind != "nat" or chain.hook != "postrouting" or chain.priority > NAT_PRIORITY:
            continue
        flows = [_outbound("postrouting", lan.name, scene, lan.host) for lan in lans]
        flows.append(_outbound("postrouting", None, scene, scene.address))
        if chain.family in ("ip", "inet") and any(TRANSLATE in rules.outcomes(chain, flow) for flow in flows):
            yield Conflict(
                f"{chain} translates sources on their way out of {scene.device}, before b4client's NAT (priority "
                f"{chain.priority}, ours {NAT_PRIORITY}): to ports of other subscribers, which the guard then drops",
                f'Give it a priority above {NAT_PRIORITY} (srcnat is 100), or exclude oifname "{scene.device}" there.',
                True,
            )


# ---- packets


def _tcp(source: str, destination: str) -> dict[str, Any]:
    return {
        "ip saddr": source,
        "ip daddr": destination,
        "ip ttl": 64,
        "tcp sport": 50000,
        "tcp dport": 443,
        "tcp flags": frozenset({"syn"}),
    }


def _outbound(hook: str, iif: str | None, scene: Scene, source: str, oif: str | None = None) -> Packet:
    return Packet(hook, "ip", iif, oif or scene.device, "new", "tcp", _tcp(source, _OUTSIDE), local_source=iif is None)


def _needs(scene: Scene) -> Iterator[_Need]:
    device = scene.device
    for lan in scene.lans:
        text = f"what comes from {lan.name} for {device}"
        words = (f'iifname "{lan.name}" oifname "{device}"', f"-i {lan.name} -o {device}")
        ufw = f"ufw route allow in on {lan.name} out on {device}"
        for hook, iif, oif in (("forward", lan.name, device), ("postrouting", lan.name, device)):
            yield _Need(_outbound(hook, iif, scene, lan.host, oif), text, *words, ufw)
        back = f"answers from {device} to {lan.name}"
        match = (
            f'iifname "{device}" oifname "{lan.name}" ct state established,related',
            f"-i {device} -o {lan.name} -m conntrack --ctstate ESTABLISHED,RELATED",
        )
        answer = _tcp(_OUTSIDE, lan.host) | {"tcp flags": frozenset({"syn", "ack"})}
        packet = Packet("forward", "ip", device, lan.name, "established", "tcp", answer)
        yield _Need(packet, back, *match, f"ufw route allow in on {device} out on {lan.name}")
    yield from _needs_of_the_loop(scene)
    yield from _needs_of_the_machine(scene)
    yield from _needs_of_the_wan(scene)


def _needs_of_the_loop(scene: Scene) -> Iterator[_Need]:
    loop, device = scene.loop, scene.device
    if loop is None:
        return
    text = f"copies from {loop.receiver}, by which the NAT tries all ports"
    out = "copies to the NAT's loop"
    for lan in scene.lans or (Lan("lan", "192.168.1.10"),):
        fields = _tcp(lan.host, _OUTSIDE)
        come = Packet("prerouting", "ip", loop.receiver, None, "new", "tcp", fields, reverse_path=False)
        words = (f'iifname "{loop.receiver}"', f"-i {loop.receiver}")
        ufw = f"ufw route allow in on {loop.receiver} out on {device}"
        yield _Need(come, text, *words, ufw, fatal=False)
        words = (f'iifname "{loop.receiver}" oifname "{device}"', f"-i {loop.receiver} -o {device}")
        yield _Need(_outbound("forward", loop.receiver, scene, lan.host), text, *words, ufw, fatal=False)
        send = Packet("output", "ip", None, loop.sender, "untracked", "tcp", fields)
        words = (f'oifname "{loop.sender}"', f"-o {loop.sender}")
        yield _Need(send, out, *words, f"ufw allow out on {loop.sender}", fatal=False)
    # In the place of the originals, not beside them: what is dropped here is lost.
    fields = _tcp(scene.address, _OUTSIDE)
    text = f"this machine's own connections, which come from {loop.receiver}"
    words = (f'iifname "{loop.receiver}"', f"-i {loop.receiver}")
    ufw = f"ufw route allow in on {loop.receiver} out on {device}"
    come = Packet("prerouting", "ip", loop.receiver, None, "new", "tcp", fields, reverse_path=False, local_source=True)
    yield _Need(come, text, *words, ufw)
    words = (f'iifname "{loop.receiver}" oifname "{device}"', f"-i {loop.receiver} -o {device}")
    yield _Need(_outbound("forward", loop.receiver, scene, scene.address), text, *words, ufw)


def _needs_of_the_machine(scene: Scene) -> Iterator[_Need]:
    device = scene.device
    out = _outbound("output", None, scene, scene.address)
    ufw = f"ufw allow out on {device}"
    yield _Need(out, f"what this machine sends to {device}", f'oifname "{device}"', f"-o {device}", ufw)
    answer = _tcp(_OUTSIDE, scene.address) | {"tcp flags": frozenset({"syn", "ack"})}
    words = (
        f'iifname "{device}" ct state established,related',
        f"-i {device} -m conntrack --ctstate ESTABLISHED,RELATED",
    )
    for hook, path in (("prerouting", scene.default_route), ("input", True)):
        packet = Packet(hook, "ip", device, None, "established", "tcp", answer, reverse_path=path)
        match = (f'iifname "{device}"', f"-i {device}") if hook == "prerouting" else words
        yield _Need(packet, f"answers from {device}", *match, f"ufw allow in on {device}")


def _needs_of_the_wan(scene: Scene) -> Iterator[_Need]:
    wan = scene.wan
    if wan is None:
        return
    ends = {"ip6 saddr": scene.br or "2001:db8::1", "ip6 daddr": scene.local or "2001:db8::2"}
    source = f" ip6 saddr {scene.br}" if scene.br else ""
    words = (
        f'iifname "{wan}"{source} meta l4proto 4',
        f"-i {wan}{f' -s {scene.br}' if scene.br else ''} -p 4",
    )
    ufw = f"ufw allow in on {wan} from {scene.br or '::/0'}"
    text = f"the softwire's packets (IPv6, protocol 4) that come from the BR on {wan}"
    for state in ("established", "new") if scene.inbound else ("established",):
        lost = text if state == "established" else f"{text} when nothing was sent before"
        packet = Packet("input", "ip6", wan, None, state, "ipencap", ends)
        yield _Need(packet, lost, *words, ufw, fatal=state == "established")
    if scene.dhcp:
        fields = {"ip6 saddr": _SERVER6, "ip6 daddr": "fe80::2", "udp sport": 547, "udp dport": 546}
        packet = Packet("input", "ip6", wan, None, "new", "udp", fields)
        words = (f'iifname "{wan}" udp dport 546', f"-i {wan} -p udp --dport 546")
        ufw = f"ufw allow in on {wan} to any port 546 proto udp"
        yield _Need(packet, f"answers of DHCPv6 servers on {wan}", *words, ufw)


# ---- what to do


def _remedy(rules: Rules, chain: Chain, needs: list[_Need], scene: Scene) -> str:
    if chain.table == "firewalld":
        return _firewalld(chain, scene)
    if chain.table == "fw4":
        return _fw4(chain, scene)
    program = "ip6tables" if chain.family == "ip6" else "iptables"
    if rules.has_chain(chain.family, chain.table, "ufw-user-forward") or rules.has_chain(
        chain.family, chain.table, "ufw6-user-forward"
    ):
        return "; ".join(dict.fromkeys(n.ufw for n in needs))
    if chain.name == "FORWARD" and rules.has_chain(chain.family, chain.table, "DOCKER-USER"):
        return "; ".join(dict.fromkeys(f"{program} -I DOCKER-USER {n.iptables} -j ACCEPT" for n in needs))
    if chain.table.split()[0] in ("filter", "mangle", "raw") and chain.name.isupper():
        table = chain.table.split()[0]
        where = "" if table == "filter" else f"-t {table} "
        return "; ".join(dict.fromkeys(f"{program} {where}-I {chain.name} {n.iptables} -j ACCEPT" for n in needs))
    place = f"{chain.family} {chain.table} {chain.name}"
    return "; ".join(dict.fromkeys(f"nft 'insert rule {place} {n.nft} accept'" for n in needs))


def _firewalld(chain: Chain, scene: Scene) -> str:
    """Zones filter by interface: the softwire and its loop get one, and a policy lets the LAN into it."""
    p = "firewall-cmd --permanent"
    if chain.hook == "input":
        rules = f"rule family=ipv6 {f'source address={scene.br} ' if scene.br else ''}protocol value=4 accept"
        return (
            f"in the zone of {scene.wan}: {p} --zone=ZONE --add-rich-rule='{rules}'; "
            f"{p} --zone=ZONE --add-service=dhcpv6-client; firewall-cmd --reload"
        )
    zone = [f"{p} --new-zone=b4", f"{p} --zone=b4 --add-forward"]
    zone += [f"{p} --zone=b4 --add-interface={device}" for device in _devices(scene)]
    policy = [
        f"{p} --new-policy=lan-b4",
        f"{p} --policy=lan-b4 --add-ingress-zone=ZONE-OF-THE-LAN",
        f"{p} --policy=lan-b4 --add-egress-zone=b4",
        f"{p} --policy=lan-b4 --set-target=ACCEPT",
    ]
    return "; ".join((*zone, *policy, "firewall-cmd --reload"))


def _fw4(chain: Chain, scene: Scene) -> str:
    """OpenWrt: a zone of its own without masquerading, and forwarding into it."""
    if chain.hook == "input":
        return (
            "uci add firewall rule; uci set firewall.@rule[-1].src=wan; uci set firewall.@rule[-1].family=ipv6; "
            "uci set firewall.@rule[-1].proto=4; uci set firewall.@rule[-1].target=ACCEPT; uci commit firewall; "
            "/etc/init.d/firewall reload (and the same with proto=udp dest_port=546 where Allow-DHCPv6 was taken away)"
        )
    devices = "; ".join(f"uci add_list firewall.b4.device={d}" for d in _devices(scene))
    return (
        f"uci set firewall.b4=zone; uci set firewall.b4.name=b4; {devices}; uci set firewall.b4.input=REJECT; "
        "uci set firewall.b4.output=ACCEPT; uci set firewall.b4.forward=ACCEPT; uci set firewall.lan_b4=forwarding; "
        "uci set firewall.lan_b4.src=lan; uci set firewall.lan_b4.dest=b4; uci commit firewall; "
        "/etc/init.d/firewall reload"
    )


def _devices(scene: Scene) -> tuple[str, ...]:
    return (scene.device,) if scene.loop is None else (scene.device, scene.loop.receiver)
