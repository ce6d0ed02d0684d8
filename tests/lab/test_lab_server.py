"""The lab server's behaviour, from datagram to datagram (RFC 7341 11, RFC 7618 8, RFC 8539 8, RFC 2131 4.3)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from labquery import (
    A1,
    A2,
    ALICE,
    BOB,
    BOTH,
    BR,
    BR2,
    CAROL,
    DUID,
    F1,
    HOME,
    LINK_LOCAL,
    LISTED,
    NOT_LISTED,
    PREFIX,
    SERVER_ID,
    SETTINGS,
    SHARED_ONLY,
    Client,
    message,
    params,
    query,
    server,
)

from b4client.lab.leases import LeaseDatabase
from b4client.lab.pools import Pools, SharedPool, Slot
from b4client.lab.server import Server
from b4client.lab.servercounters import COUNTERS
from b4client.model.portset import PortSet
from b4client.wire import dhcp4, dhcp4o6, dhcp6, softwire46
from b4client.wire.dhcp4 import Dhcp4Message, MessageType, Option
from b4client.wire.dhcp6 import Dhcp6Message, RelayMessage

D, R = MessageType.DISCOVER, MessageType.REQUEST
OTHER_SERVER = IPv4Address("192.0.0.2")
ELSEWHERE = IPv4Address("203.0.113.9")
SADDR, SADDR2 = IPv6Address("2001:db8:1:2::109"), IPv6Address("2001:db8:1:2::10a")


def kind_of(answer: Dhcp4Message | None) -> int | None:
    return None if answer is None else answer.message_type


def ports_of(answer: Dhcp4Message) -> tuple[IPv4Address, PortSet | None]:
    value = answer.get(Option.V4_PORTPARAMS)
    return answer.yiaddr, None if value is None else softwire46.decode_portparams(value).port_set()


# ---- the shared address (RFC 7618 6, 8)


def test_the_whole_exchange() -> None:
    lab = server()
    client = Client(lab)
    offer = client.ask(D, xid=7)
    assert offer is not None
    # [SV-6] address and port set in one message; [SV-11] table 3; [SV-10] option 61 unaltered.
    assert (offer.op, offer.xid, offer.secs, offer.hops, offer.ciaddr) == (2, 7, 0, 0, dhcp4.ZERO)
    assert ports_of(offer) == (A1, PortSet(0, 2, 1))
    assert dict(offer.options) == {
        53: b"\2",
        54: SERVER_ID.packed,
        61: ALICE,
        51: dhcp4.encode_seconds(3600),
        58: dhcp4.encode_seconds(1800),
        59: dhcp4.encode_seconds(3150),
        159: params(1),
        6: b"\x08\x08\x08\x08",  # 26 is configured and not asked for
    }
    ack = client.ask(R, requested=A1, ports=params(1), server_id=SERVER_ID, xid=7)
    assert ack is not None
    assert dict(ack.options) == {**dict(offer.options), 53: b"\5"}
    (lease,) = lab.leases.active(0.0)
    assert (lease.slot, lease.client_id, lease.source) == (Slot(A1, PortSet(0, 2, 1)), ALICE, HOME)
    renewed = client.ask(R, 1800.0, unicast=True, ciaddr=A1, ports=params(1), xid=8)
    assert renewed is not None
    assert (kind_of(renewed), renewed.ciaddr, ports_of(renewed)) == (5, A1, (A1, PortSet(0, 2, 1)))
    assert not lab.leases.free(lease.slot, BOB, 1800.0 + 3599)
    assert client.ask(MessageType.RELEASE, 2000.0, unicast=True, ciaddr=A1, ports=params(1), listed=None) is None
    assert lab.leases.active(2000.0) == []
    assert +lab.counters == {
        "received-discover": 1,
        "sent-offer": 1,
        "received-request-selecting": 1,
        "received-request-renewing": 1,
        "sent-ack": 2,
        "received-release": 1,
    }


def test_one_address_several_clients_sv2() -> None:
    lab = server()
    got = [ports_of(Client(lab, bytes([255, n])).bind()) for n in range(6)]
    assert len(set(got)) == 6
    assert {address for address, _ in got} == {A1, A2}
    assert Client(lab, b"\xffseventh").ask(D) is None
    assert lab.counters["silent-nothing-free"] == 1


@pytest.mark.parametrize(
    ("pools", "listed", "answer"),
    [
        pytest.param(SHARED_ONLY, LISTED, (A1, PortSet(0, 2, 1)), id="listed: shared"),
        pytest.param(SHARED_ONLY, NOT_LISTED, None, id="not listed, only shared pools: discarded"),
        pytest.param(SHARED_ONLY, None, None, id="no list at all: discarded"),
        pytest.param(BOTH, LISTED, (A1, PortSet(0, 2, 1)), id="both pools, listed: shared"),
        pytest.param(BOTH, NOT_LISTED, (F1, None), id="both pools, not listed: whole"),
        pytest.param(replace(BOTH, ignore_portparams=True), LISTED, (F1, None), id="159 ignored by policy"),
        pytest.param(Pools(full=BOTH.full), LISTED, (F1, None), id="only whole addresses"),
    ],
)
def test_who_gets_what_sv1_sv8(pools: Pools, listed: bytes | None, answer: object) -> None:
    lab = server(pools)
    client = Client(lab)
    offer = client.ask(D, listed=listed)
    assert (None if offer is None else ports_of(offer)) == answer
    # 159 in the query, even a whole one, does not make up for a list without it [SV-1].
    wish = client.ask(D, listed=listed, requested=A1, ports=params(1))
    assert (None if wish is None else ports_of(wish)) == answer
    if answer is None:
        assert client.ask(R, listed=listed, requested=A1, ports=params(1), server_id=SERVER_ID) is None
        assert lab.counters["drop-not-listed-159"] == 3
    else:
        client.bind(listed=listed)


def test_no_shared_address_by_request_sv8() -> None:
    # Where whole addresses exist too the request is answered, with NAK.
    lab = server(BOTH)
    client = Client(lab)
    request = client.ask(R, listed=NOT_LISTED, requested=A1, ports=params(1), server_id=SERVER_ID)
    assert kind_of(request) == MessageType.NAK


def test_order_of_choice_sv3() -> None:
    lab = server()
    client = Client(lab)
    offer = client.ask(D, requested=A2, ports=params(2))
    assert offer is not None
    assert ports_of(offer) == (A2, PortSet(0, 2, 2))
    client.ask(R, requested=A2, ports=params(2), server_id=SERVER_ID)
    again = client.ask(D, 10.0, requested=A1, ports=params(1))
    assert again is not None
    assert ports_of(again) == (A2, PortSet(0, 2, 2))
    late = client.ask(D, 9999.0)  # it has expired
    assert late is not None
    assert ports_of(late) == (A2, PortSet(0, 2, 2))


@pytest.mark.parametrize(
    ("ports", "psid_len"),
    [(params(0, 6), 6), (params(0, 3), 4), (b"\0\0\0\0", 4), (b"\0\4\0\0", 4), (None, 4)],
    ids=["permitted", "not permitted", "length 0", "the default", "no hint"],
)
def test_size_hint_sv4(ports: bytes | None, psid_len: int) -> None:
    lab = server(Pools((SharedPool(A1, A1, psid_len=4, hints=(6,)),)))
    offer = Client(lab).ask(D, ports=ports)
    assert offer is not None
    port_set = ports_of(offer)[1]
    assert port_set is not None
    assert port_set.psid_len == psid_len


@pytest.mark.parametrize(
    ("what", "released"),
    [
        pytest.param({}, True, id="right"),
        pytest.param({"ports": params(2)}, False, id="another PSID"),
        pytest.param({"ports": None}, False, id="no 159"),
        pytest.param({"ciaddr": A2}, False, id="another address"),
        pytest.param({"server_id": OTHER_SERVER}, False, id="another server"),
        pytest.param({"client": BOB}, False, id="another client"),
    ],
)
def test_release_sv5(what: dict[str, object], released: bool) -> None:
    lab = server()
    Client(lab).bind()
    sent = {"ports": params(1), "ciaddr": A1, "server_id": SERVER_ID, "listed": None, **what}
    sender = Client(lab, sent.pop("client", ALICE))  # type: ignore[arg-type]
    assert sender.ask(MessageType.RELEASE, 5.0, unicast=True, **sent) is None
    assert lab.leases.free(Slot(A1, PortSet(0, 2, 1)), CAROL, 5.0) is released
    assert lab.counters["received-release" if released else "drop-release-unmatched"] == 1


@pytest.mark.parametrize(
    ("pool", "first"),
    [(SharedPool(A1, A1, psid_len=6), 1), (SharedPool(A1, A1, psid_len=8), 4), (SharedPool(A1, A1, 6, 6), 0)],
)
def test_system_ports_are_never_leased_sv7(pool: SharedPool, first: int) -> None:
    offer = Client(server(Pools((pool,)))).ask(D)
    assert offer is not None
    port_set = ports_of(offer)[1]
    assert port_set is not None
    assert port_set.psid == first
    unreserved = Client(server(Pools((pool,), reserved=()))).ask(D)
    assert unreserved is not None
    assert ports_of(unreserved)[1] == replace(port_set, psid=0)


def test_limit_for_a_site() -> None:
    lab = server(limit=2)
    home = [IPv6Address(f"2001:db8:1:2{n:02x}::1") for n in range(4)]  # one /56
    for n in (0, 1):
        Client(lab, bytes([255, n]), home[n]).bind()
    assert Client(lab, b"\xffthird", home[2]).ask(D) is None
    assert lab.counters["silent-limit"] == 1
    request = Client(lab, b"\xffthird", home[2]).ask(R, requested=A2, ports=params(3), server_id=SERVER_ID)
    assert kind_of(request) == MessageType.NAK
    assert Client(lab, b"\xffneighbour", IPv6Address("2001:db8:1:300::1")).ask(D) is not None
    # Link-local addresses say nothing about sites: each is one.
    assert Client(lab, b"\xfflink", LINK_LOCAL).ask(D) is not None


# ---- what a REQUEST is, and its answer (RFC 2131 4.3.2)


def bound() -> tuple[Server, Client]:
    """ALICE has PSID 1 of A1, BOB PSID 2, CAROL had PSID 3 until 10 s ago."""
    lab = server()
    for who in (ALICE, BOB, CAROL):
        Client(lab, who).bind()
    lab.leases.release(Slot(A1, PortSet(0, 2, 3)), CAROL, 1, 0.0)
    lab.counters.clear()
    return lab, Client(lab)


SELECTING = {"server_id": SERVER_ID}
ACK, NAK, SILENCE = MessageType.ACK, MessageType.NAK, None


@pytest.mark.parametrize(
    ("who", "what", "unicast", "answer", "counter"),
    [
        pytest.param(
            ALICE, {**SELECTING, "requested": A1, "ports": params(1)}, False, ACK, "sent-ack", id="select own"
        ),
        pytest.param(ALICE, {**SELECTING, "requested": A1, "ports": params(2)}, False, NAK, "sent-nak", id="taken"),
        pytest.param(ALICE, {**SELECTING, "requested": A1, "ports": params(0)}, False, NAK, "sent-nak", id="reserved"),
        pytest.param(ALICE, {**SELECTING, "requested": A1}, False, NAK, "sent-nak", id="whole of a shared one"),
        pytest.param(ALICE, {**SELECTING, "requested": ELSEWHERE}, False, NAK, "sent-nak", id="never offered"),
        pytest.param(
            ALICE,
            {"server_id": OTHER_SERVER, "requested": A1, "ports": params(1)},
            False,
            SILENCE,
            "silent-other-server",
            id="another server's offer",
        ),
        pytest.param(ALICE, SELECTING, False, SILENCE, "drop-query-inconsistent", id="selecting without 50"),
        pytest.param(
            ALICE,
            {**SELECTING, "requested": A1, "ciaddr": A1},
            False,
            SILENCE,
            "drop-query-inconsistent",
            id="selecting with ciaddr",
        ),
        pytest.param(ALICE, {"requested": A1, "ports": params(1)}, False, ACK, "received-request-reboot", id="reboot"),
        pytest.param(CAROL, {"requested": A1, "ports": params(3)}, False, ACK, "sent-ack", id="reboot, former lease"),
        pytest.param(ALICE, {"requested": A1, "ports": params(2)}, False, NAK, "sent-nak", id="reboot, wrong PSID"),
        pytest.param(ALICE, {"requested": A2, "ports": params(1)}, False, NAK, "sent-nak", id="reboot, wrong address"),
        pytest.param(ALICE, {"requested": A1}, False, NAK, "sent-nak", id="reboot without 159"),
        pytest.param(ALICE, {"requested": ELSEWHERE}, False, SILENCE, "silent-not-ours", id="reboot, another network"),
        pytest.param(
            b"\xffstranger",
            {"requested": A1, "ports": params(3)},
            False,
            SILENCE,
            "silent-unknown-client",
            id="unknown",
        ),
        pytest.param(ALICE, {}, False, SILENCE, "drop-query-inconsistent", id="neither 50 nor ciaddr"),
        pytest.param(
            ALICE, {"requested": A1, "ciaddr": A1}, False, SILENCE, "drop-query-inconsistent", id="both 50 and ciaddr"
        ),
        pytest.param(ALICE, {"ciaddr": A1, "ports": params(1)}, True, ACK, "received-request-renewing", id="renew"),
        pytest.param(ALICE, {"ciaddr": A1, "ports": params(1)}, False, ACK, "received-request-rebinding", id="rebind"),
        pytest.param(ALICE, {"ciaddr": A1, "ports": params(2)}, True, NAK, "sent-nak", id="renew another's"),
        pytest.param(ALICE, {"ciaddr": A1, "ports": params(2)}, False, NAK, "sent-nak", id="rebind another's"),
        pytest.param(ALICE, {"ciaddr": A1}, True, NAK, "sent-nak", id="renew without 159"),
        pytest.param(ALICE, {"ciaddr": A1, "ports": params(1, 3)}, True, NAK, "sent-nak", id="renew another length"),
        pytest.param(CAROL, {"ciaddr": A1, "ports": params(3)}, True, ACK, "adopted-lease", id="renew a former lease"),
        pytest.param(b"\xffnew", {"ciaddr": A2, "ports": params(2)}, True, ACK, "adopted-lease", id="renew unknown"),
        pytest.param(b"\xffnew", {"ciaddr": A2, "ports": params(2)}, False, ACK, "adopted-lease", id="rebind unknown"),
        pytest.param(ALICE, {"ciaddr": ELSEWHERE}, True, SILENCE, "silent-not-ours", id="renew elsewhere"),
        pytest.param(ALICE, {"ciaddr": ELSEWHERE}, False, SILENCE, "silent-not-ours", id="rebind elsewhere"),
    ],
)
def test_request_sv12(who: bytes, what: dict[str, object], unicast: bool, answer: int | None, counter: str) -> None:
    lab, _ = bound()
    before = {lease.slot: lease.client_id for lease in lab.leases.active(10.0)}
    got = Client(lab, who).ask(R, 10.0, unicast=unicast, xid=99, **what)
    assert kind_of(got) == answer
    assert lab.counters[counter] == 1
    after = {lease.slot: lease.client_id for lease in lab.leases.active(10.0)}
    if answer != ACK:
        assert after == before
    if got is not None and answer == NAK:
        # [SV-11], [SV-10]: 53, 54, 56, 61 and no address anywhere.
        assert {code for code, _ in got.options} == {53, 54, 56, 61}
        assert got.get(61) == who
        assert (got.xid, got.yiaddr, got.ciaddr, got.secs) == (99, dhcp4.ZERO, dhcp4.ZERO, 0)


@pytest.mark.parametrize(
    ("what", "unicast"),
    [({"requested": ELSEWHERE}, False), ({"ciaddr": ELSEWHERE}, True), ({"ciaddr": ELSEWHERE}, False)],
)
def test_an_authoritative_server_refuses_other_networks(what: dict[str, object], unicast: bool) -> None:
    lab = server(authoritative=True)
    assert kind_of(Client(lab, b"\xffstranger").ask(R, unicast=unicast, **what)) == NAK
    assert Client(lab, b"\xffstranger").ask(R, requested=A1, ports=params(1)) is None  # still the MUST of 4.3.2


def test_an_offer_is_taken_back_when_another_server_is_chosen() -> None:
    lab = server(Pools((SharedPool(A1, A1, psid_len=1),)))
    Client(lab).ask(D)
    assert Client(lab, BOB).ask(D) is None
    Client(lab).ask(R, server_id=OTHER_SERVER, requested=ELSEWHERE)
    assert Client(lab, BOB).ask(D) is not None


def test_decline_and_inform() -> None:
    lab = server(BOTH)
    client = Client(lab)
    client.bind(listed=NOT_LISTED)
    info = client.ask(MessageType.INFORM, ciaddr=F1)
    assert info is not None
    assert (kind_of(info), info.ciaddr, info.yiaddr) == (5, F1, dhcp4.ZERO)
    assert {code for code, _ in info.options} == {53, 54, 61, 6}
    assert client.ask(MessageType.DECLINE, requested=F1, server_id=SERVER_ID, listed=None) is None
    assert Client(lab, BOB).ask(D, 10.0, listed=NOT_LISTED) is None
    assert client.ask(MessageType.DECLINE, requested=A1, ports=params(1), listed=None) is None
    assert lab.counters["received-decline"] == lab.counters["drop-release-unmatched"] == 1


def test_infinite_lease() -> None:
    lab = server(lease_s=0xFFFFFFFF)
    ack = Client(lab).bind()
    assert ack.get(51) == b"\xff\xff\xff\xff"
    assert lab.leases.of_client(ALICE, 1e12) != []


@pytest.mark.parametrize(
    ("kind", "what", "unicast", "warned"),
    [
        (D, {}, False, 0),
        (D, {}, True, 1),
        (R, {**SELECTING, "requested": A1, "ports": params(1)}, True, 1),
        (R, {"requested": A1, "ports": params(1)}, True, 1),
        (MessageType.RELEASE, {"ciaddr": A1, "ports": params(1), "listed": None}, False, 1),
        (MessageType.RELEASE, {"ciaddr": A1, "ports": params(1), "listed": None}, True, 0),
    ],
)
def test_u_flag_sv9(kind: int, what: dict[str, object], unicast: bool, warned: int) -> None:
    lab, client = bound()
    client.ask(kind, 1.0, unicast=unicast, **what)
    assert lab.counters["warned-unicast-flag"] == warned


# ---- RFC 8539


BOTH_LISTED = dhcp6.encode_oro((90, 137))


@pytest.mark.parametrize(
    ("oro", "codes"),
    [
        (None, []),
        (b"", []),
        (b"\0", []),
        (dhcp6.encode_oro((90,)), [90]),
        (dhcp6.encode_oro((137,)), [137]),
        (BOTH_LISTED, [90, 137]),
        (dhcp6.encode_oro((137, 137, 88, 90)), [90, 137]),
    ],
)
def test_softwire_options_sv14(oro: bytes | None, codes: list[int]) -> None:
    client = Client(server())
    assert client.ask(D, oro=oro) is not None
    assert client.outer is not None
    assert [code for code, _ in client.outer.options] == codes
    if 137 in codes:
        value = client.outer.get(137)
        assert value is not None
        assert softwire46.decode_bind_prefix(value) == PREFIX


def test_two_brs_and_none_in_a_nak() -> None:
    lab = Server(replace(SETTINGS, brs=(BR, BR2)), LeaseDatabase(SHARED_ONLY))
    client = Client(lab)
    client.ask(D, oro=BOTH_LISTED)
    assert client.outer is not None
    assert client.outer.get_all(90) == (BR.packed, BR2.packed)
    assert kind_of(client.ask(R, oro=BOTH_LISTED, requested=ELSEWHERE, server_id=SERVER_ID)) == NAK
    assert client.outer.options == ()


def test_saddr_is_in_every_ack_and_in_nothing_else_sv13() -> None:
    lab = server()
    client = Client(lab)
    offer = client.ask(D, saddr=SADDR)
    assert offer is not None
    assert offer.get(109) is None
    assert client.bind(saddr=SADDR).get(109) == SADDR.packed
    lease = {"ciaddr": A1, "ports": params(1)}
    for now, sent, stored in ((10.0, SADDR, SADDR), (20.0, None, SADDR), (30.0, SADDR2, SADDR2), (40.0, None, SADDR2)):
        ack = client.ask(R, now, unicast=True, saddr=sent, **lease)
        assert ack is not None
        assert ack.get(109) == stored.packed
    assert lab.counters["saddr-updated"] == 1
    assert lab.leases.active(40.0)[0].softwire_source == SADDR2


@pytest.mark.parametrize("drop", [False, True])
def test_saddr_changes_too_soon_sv13(drop: bool) -> None:
    lab = server(saddr_interval_s=60.0, drop_saddr_changes=drop)
    client = Client(lab)
    client.bind(saddr=SADDR)
    lease = {"ciaddr": A1, "ports": params(1), "saddr": SADDR2}
    early = client.ask(R, 59.0, unicast=True, **lease)
    assert (None if early is None else early.get(109)) == (None if drop else SADDR.packed)
    late = client.ask(R, 60.0, unicast=True, **lease)
    assert late is not None
    assert late.get(109) == SADDR2.packed
    assert lab.counters["saddr-refused-too-soon"] == lab.counters["saddr-updated"] == 1


@pytest.mark.parametrize("drop", [False, True])
def test_saddr_of_another_client_sv13(drop: bool) -> None:
    lab = server(drop_saddr_changes=drop)
    Client(lab, BOB).bind(saddr=SADDR)
    alice = Client(lab)
    select = {"requested": A1, "ports": params(2), "server_id": SERVER_ID}
    assert kind_of(alice.ask(R, saddr=SADDR, **select)) == NAK  # no lease yet
    alice.bind(saddr=SADDR2)
    update = alice.ask(R, 10.0, unicast=True, ciaddr=A1, ports=params(2), saddr=SADDR)
    assert (None if update is None else update.get(109)) == (None if drop else SADDR2.packed)
    assert lab.counters["saddr-refused-conflict"] == 2
    assert kind_of(alice.ask(R, 9999.0, saddr=SADDR, **select)) == ACK  # BOB's has expired


def test_saddr_malformed() -> None:
    lab = server()
    inner = message(R, requested=A1, ports=params(1), server_id=SERVER_ID)
    bad = replace(inner, options=(*inner.options, (109, bytes(15))))
    assert lab.handle(query(bad), HOME, 0.0) == []
    assert lab.counters["drop-query-malformed"] == 1


# ---- INFORMATION-REQUEST


def inform(*options: tuple[int, bytes]) -> bytes:
    return dhcp6.encode(Dhcp6Message(11, 0xABCDEF, options))


EVERYTHING = (6, dhcp6.encode_oro((32, 83, 88, 94, 96, 111)))


def test_information_request() -> None:
    lab = server()
    (reply,) = lab.handle(inform((1, b"\0\3duid"), EVERYTHING, (8, b"\0\0")), LINK_LOCAL, 0.0)
    assert (reply.destination, reply.port) == (LINK_LOCAL, 546)
    answer = dhcp6.decode(reply.data)
    assert (answer.msg_type, answer.transaction_id) == (7, 0xABCDEF)
    assert [code for code, _ in answer.options] == [1, 2, 32, 88, 94, 96, 111]
    assert (answer.get(1), answer.get(2)) == (b"\0\3duid", DUID)
    assert dhcp4o6.decode_servers(answer.get(88) or b"") == (HOME,)
    assert softwire46.decode_lw4o6(answer.get(96) or b"") == SETTINGS.lw4o6
    assert softwire46.decode_mape(answer.get(94) or b"") == SETTINGS.map_e
    assert softwire46.decode_priority(answer.get(111) or b"") == (96, 94)
    assert dhcp6.decode_seconds(answer.get(32) or b"") == 7200


@pytest.mark.parametrize(("listed", "codes"), [((88,), [2, 88]), ((94, 111), [2, 94, 111]), ((), [2])])
def test_only_what_is_listed(listed: tuple[int, ...], codes: list[int]) -> None:
    (reply,) = server().handle(inform((6, dhcp6.encode_oro(listed))), LINK_LOCAL, 0.0)
    assert [code for code, _ in dhcp6.decode(reply.data).options] == codes


def test_option_88_empty_or_absent() -> None:
    for servers, value in (((), b""), (None, None)):
        lab = Server(replace(SETTINGS, servers_4o6=servers, inf_max_rt_s=120), LeaseDatabase(SHARED_ONLY))
        (reply,) = lab.handle(inform(EVERYTHING), LINK_LOCAL, 0.0)
        assert dhcp6.decode(reply.data).get(88) == value
        assert dhcp6.decode(reply.data).get(83) == dhcp6.encode_seconds(120)


@pytest.mark.parametrize(
    ("data", "destination", "counter"),
    [
        pytest.param(inform(EVERYTHING, (25, bytes(12))), None, "drop-information-request", id="with an IA"),
        pytest.param(inform(EVERYTHING, (3, b"")), None, "drop-information-request", id="with an empty IA"),
        pytest.param(inform(EVERYTHING, (2, b"\0\3other")), None, "drop-information-request", id="another server's"),
        pytest.param(inform(EVERYTHING), HOME, "drop-information-request", id="by unicast"),
        pytest.param(inform((6, b"\0")), None, "drop-malformed", id="odd list"),
        pytest.param(inform(EVERYTHING)[:-1], None, "drop-malformed", id="cut off"),
        pytest.param(b"", None, "drop-malformed", id="nothing"),
        pytest.param(b"\x01\0\0\1", None, "drop-unexpected-type", id="SOLICIT"),
        pytest.param(b"\x15\0\0\0", None, "drop-unexpected-type", id="a DHCPV4-RESPONSE"),
        pytest.param(b"\x0c\0", None, "drop-relay-malformed", id="a piece of a RELAY-FORW"),
    ],
)
def test_dropped(data: bytes, destination: IPv6Address | None, counter: str) -> None:
    lab = server()
    assert lab.handle(data, LINK_LOCAL, 0.0, destination=destination) == []
    assert +lab.counters == {counter: 1}


def test_information_request_for_this_server_by_multicast() -> None:
    assert server().handle(inform(EVERYTHING, (2, DUID)), LINK_LOCAL, 0.0, destination=dhcp6.ALL_SERVERS)


# ---- DHCPV4-QUERY that is refused


GOOD = dhcp4.encode(message(D))


@pytest.mark.parametrize(
    ("data", "counter"),
    [
        pytest.param(b"\x14\0\0\0", "drop-query-without-message", id="no option 87"),
        pytest.param(
            b"\x14\0\0\0" + (b"\0\x57" + len(GOOD).to_bytes(2, "big") + GOOD) * 2,
            "drop-query-without-message",
            id="two",
        ),
        pytest.param(dhcp4o6.encode_query(GOOD[:100], unicast=False), "drop-query-malformed", id="cut off"),
        pytest.param(query(message(D, None)), "drop-query-without-client-id", id="no 61"),
        pytest.param(query(message(D, b"")), "drop-query-without-client-id", id="empty 61"),
        pytest.param(query(message(MessageType.OFFER)), "drop-query-not-a-request", id="an OFFER"),
        pytest.param(query(replace(message(D), op=2)), "drop-query-not-a-request", id="op 2"),
        pytest.param(query(replace(message(D), options=((61, ALICE),))), "drop-query-not-a-request", id="no 53"),
        pytest.param(query(message(D, ports=b"\0\2\x40")), "drop-query-portparams", id="159 of 3"),
        pytest.param(query(message(D, ports=b"\x10\2\x40\0")), "drop-query-portparams", id="159 offset 16"),
        pytest.param(query(message(D, ports=b"\x0c\5\x40\0")), "drop-query-portparams", id="159 a+k > 16"),
    ],
)
def test_query_dropped_sv9(data: bytes, counter: str) -> None:
    lab = server()
    assert lab.handle(data, HOME, 0.0) == []
    assert +lab.counters == {counter: 1}
    assert counter in COUNTERS


def test_reserved_flag_bits_are_ignored_sv9() -> None:
    lab = server()
    data = bytearray(query(message(D)))
    data[1:4] = b"\x7f\xff\xff"
    (reply,) = lab.handle(bytes(data), HOME, 0.0)
    assert dhcp4o6.decode(reply.data).flags == 0
    assert lab.counters["warned-flags"] == 1


# ---- relays


def test_through_two_relays_sv9() -> None:
    lab = server(limit=1)
    client, near, far = IPv6Address("fe80::1"), IPv6Address("2001:db8:5::1"), IPv6Address("2001:db8:6::1")

    def relayed(inner: bytes, interface: bytes, hops: int = 0) -> bytes:
        first = RelayMessage(12, hops, near, client, ((18, interface), (9, inner)))
        return dhcp6.encode_relay(RelayMessage(12, hops + 1, far, near, ((9, dhcp6.encode_relay(first)), (99, b"?"))))

    (reply,) = lab.handle(relayed(query(message(D)), b"port-1"), far, 0.0)
    assert (reply.destination, reply.port) == (far, 547)
    outer = dhcp6.decode_relay(reply.data)
    inner = dhcp6.decode_relay(outer.relayed())
    assert (outer.msg_type, outer.hop_count, outer.link, outer.peer) == (13, 1, far, near)
    assert [code for code, _ in outer.options] == [9]
    assert (inner.msg_type, inner.hop_count, inner.link, inner.peer) == (13, 0, near, client)
    assert dhcp6.first(inner.options, 18) == b"port-1"
    offer = dhcp4.decode(dhcp4o6.decode(inner.relayed()).dhcp4)
    assert ports_of(offer) == (A1, PortSet(0, 2, 1))
    # The interface that the relay names is the customer's site.
    assert lab.handle(relayed(query(message(D, BOB)), b"port-1"), far, 0.0) == []
    assert lab.handle(relayed(query(message(D, BOB)), b"port-2"), far, 0.0) != []
    assert lab.handle(relayed(inform(EVERYTHING), b"port-1"), far, 0.0, destination=HOME) != []
    assert lab.counters["received-relayed"] == 4
    too_far = relayed(query(message(D)), b"", hops=8)
    for _ in range(2):
        assert lab.handle(too_far, far, 0.0) == []
    without = dhcp6.encode_relay(RelayMessage(12, 0, near, client, ()))
    assert lab.handle(without, far, 0.0) == []
    assert lab.counters["drop-relay-malformed"] == 3


def test_nesting_is_bounded() -> None:
    lab = server()
    data = query(message(D))
    for _ in range(10):
        data = dhcp6.encode_relay(RelayMessage(12, 0, HOME, HOME, ((9, data),)))
    assert lab.handle(data, HOME, 0.0) == []
    assert lab.counters["drop-relay-malformed"] == 1


def test_counters_are_in_the_table() -> None:
    lab, client = bound()
    client.ask(D)
    assert set(lab.counters) <= set(COUNTERS)
