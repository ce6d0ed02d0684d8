"""What is said about IPv4: option 88, S46 containers and AFTR name of a DHCPv6 Reply, or the operator's file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import TypeVar

from b4client.model.errors import WireError
from b4client.model.maprule import DEFAULT_OFFSET_LEN, MappingRule
from b4client.model.settings import ProtocolSettings
from b4client.model.softwire import Mode
from b4client.protocol.counters import Counters
from b4client.wire import aftrname, dhcp4o6, softwire46
from b4client.wire.dhcp6 import Dhcp6Message, Option
from b4client.wire.softwire46 import PortParams

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Provisioning:
    """The IPv4-related content of one Reply.

    ``servers_4o6`` is None when option 88 is absent (4o6 must not be used [F-1]), empty when it is there without
    addresses (multicast [F-3]). ``lw4o6`` and ``map_e`` are the containers that are valid; ``priority`` is option 111;
    ``aftr`` the name in option 64 (RFC 6334) or an address. ``problems`` are sentences about what was ignored.
    """

    servers_4o6: tuple[IPv6Address, ...] | None = None
    lw4o6: softwire46.Lw4o6Container | None = None
    map_e: softwire46.MapEContainer | None = None
    priority: tuple[int, ...] = ()
    problems: tuple[str, ...] = ()
    aftr: IPv6Address | str | None = None

    @property
    def brs(self) -> tuple[IPv6Address, ...]:
        """BR (lwAFTR) addresses, those of the lw4o6 container first."""
        found = (*(self.lw4o6.brs if self.lw4o6 else ()), *(self.map_e.brs if self.map_e else ()))
        return tuple(dict.fromkeys(found))


def read_reply(reply: Dhcp6Message, counters: Counters) -> Provisioning:
    """Read what a Reply provisions. A malformed part is counted, named in ``problems`` and otherwise as if absent."""
    problems: list[str] = []

    def read(value: bytes | None, name: str, counter: str, decode: Callable[[bytes], T]) -> T | None:
        if value is None:
            return None
        try:
            return decode(value)
        except WireError as error:
            # X-3 for option 88; RFC 7598 6 and 8 [M-13] for containers; RFC 8026 1.4 [F-13] for the priority.
            counters.count(counter)
            problems.append(f"{name} ignored: {error}")
            return None

    def decode_mape(value: bytes) -> softwire46.MapEContainer:
        found = softwire46.decode_mape(value)
        try:
            mapping_rules(found.rules)
        except ValueError as error:
            raise WireError(str(error)) from None
        return found

    def misaligned(name: str, found: object) -> bool:
        # Whose ports would be used? Masking off the padding, as for other bits there, would use another subscriber's.
        if not any(params.looks_right_aligned for params in _port_params(found)):
            return False
        counters.count("ignored-container-misaligned")
        problems.append(
            f"{name} ignored: its PSID is aligned to the right, which is another subscriber's (RFC 7598 4.5)"
        )
        return True

    def container(code: Option, name: str, decode: Callable[[bytes], T]) -> T | None:
        """The first valid one: several may come, one for each domain (RFC 7598 5.1), and one domain is used."""
        values = (read(value, name, "ignored-container-malformed", decode) for value in reply.get_all(code))
        valid = [found for found in values if found is not None and not misaligned(name, found)]
        if len(valid) > 1:
            counters.count("ignored-container-unsupported", len(valid) - 1)
            problems.append(f"{name}: the first of {len(valid)} domains is used")
        return valid[0] if valid else None

    if reply.get(Option.S46_CONT_MAPT) is not None:
        counters.count("ignored-container-unsupported")
        problems.append("MAP-T container (95) ignored: not implemented")
    return Provisioning(
        servers_4o6=read(
            reply.get(Option.DHCP4_O_DHCP6_SERVER), "option 88", "ignored-option88-malformed", dhcp4o6.decode_servers
        ),
        lw4o6=container(Option.S46_CONT_LW, "lw4o6 container (96)", softwire46.decode_lw4o6),
        map_e=container(Option.S46_CONT_MAPE, "MAP-E container (94)", decode_mape),
        priority=read(
            reply.get(Option.S46_PRIORITY), "option 111", "ignored-priority-malformed", softwire46.decode_priority
        )
        or (),
        aftr=read(reply.get(Option.AFTR_NAME), "option 64", "ignored-aftr-name-malformed", aftrname.decode_aftr_name),
        problems=tuple(problems),
    )


def _port_params(container: object) -> tuple[PortParams, ...]:
    """All options 93 in a container."""
    match container:
        case softwire46.Lw4o6Container(binding=binding):
            found = [None if binding is None else binding.port_params]
        case softwire46.MapEContainer(rules=rules):
            found = [rule.port_params for rule in rules]
        case _:
            found = []
    return tuple(params for params in found if params is not None)


def mapping_rules(rules: Iterable[softwire46.Rule]) -> tuple[MappingRule, ...]:
    """The rules of a container as the arithmetic takes them. Raises ValueError when the parts of one do not fit
    together (RFC 7597 5.2), which is an invalid value: the container is not used (RFC 7598 8)."""
    return tuple(map(_mapping_rule, rules))


def _mapping_rule(rule: softwire46.Rule) -> MappingRule:
    params = rule.port_params
    if params is None:
        return MappingRule(rule.rule_ipv6, rule.rule_ipv4, rule.ea_len, DEFAULT_OFFSET_LEN, fmr=rule.fmr)
    return MappingRule(
        rule.rule_ipv6, rule.rule_ipv4, rule.ea_len, params.offset_len, params.psid_len, params.psid, rule.fmr
    )


def static_provisioning(settings: ProtocolSettings) -> Provisioning:
    """What the operator's file says instead of a Reply; nothing when it describes no softwire."""
    static = settings.static
    brs = () if settings.br is None else (settings.br,)
    if static is None:
        return Provisioning()
    match static.mode:
        case Mode.LW4O6 if brs:
            binding = None
            if static.ipv4 is not None:
                params = None if static.ports is None else PortParams.of(static.ports)
                binding = softwire46.V4V6Bind(static.ipv4, static.bind_prefix, params)
            return Provisioning(lw4o6=softwire46.Lw4o6Container(brs, binding))
        case Mode.MAP_E if brs:
            return Provisioning(map_e=softwire46.MapEContainer(tuple(map(_rule_option, static.rules)), brs))
        case Mode.DS_LITE:
            return Provisioning(aftr=settings.aftr or settings.br)
    return Provisioning()


def _rule_option(rule: MappingRule) -> softwire46.Rule:
    params = PortParams(rule.offset_len, rule.psid_len, rule.psid)
    return softwire46.Rule(rule.fmr, rule.ea_len, rule.rule_ipv4, rule.rule_ipv6, params)
