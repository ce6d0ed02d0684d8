"""scapy as a second, independent encoder: what it writes we read, what we write it reads the same way."""

from __future__ import annotations

import warnings
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from wire_table import refused

from b4client.wire import dhcp4, dhcp6, identity, softwire46
from b4client.wire.dhcp4 import Dhcp4Message, Option

MAC = bytes.fromhex("020000000001")
CLIENT_ID = identity.client_identifier(1, identity.duid_ll(1, MAC))


@pytest.fixture(scope="module")
def v4():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scapy.layers.dhcp
    return scapy.layers.dhcp


@pytest.fixture(scope="module")
def v6():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scapy.layers.dhcp6
    return scapy.layers.dhcp6


ACK = Dhcp4Message(
    op=2,
    xid=0xCAFEBABE,
    secs=7,
    broadcast=True,
    ciaddr=IPv4Address("192.0.2.18"),
    yiaddr=IPv4Address("192.0.2.19"),
    siaddr=IPv4Address("192.0.2.20"),
    giaddr=IPv4Address("192.0.2.21"),
    hops=3,
    chaddr=MAC,
    sname=b"server",
    file=b"boot",
    options=(
        (Option.MESSAGE_TYPE, b"\5"),
        (Option.SERVER_ID, bytes.fromhex("c0000201")),
        (Option.LEASE_TIME, bytes.fromhex("00000e10")),
        (Option.T1, bytes.fromhex("00000708")),
        (Option.T2, bytes.fromhex("00000c4e")),
        (Option.DNS, bytes.fromhex("c0000235c0000236")),
        (Option.MAX_SIZE, bytes.fromhex("05dc")),
        (Option.CLIENT_ID, CLIENT_ID),
        (Option.V4_PORTPARAMS, bytes.fromhex("06083400")),
    ),
)
SCAPY_OPTIONS = [
    ("message-type", "ack"),
    ("server_id", "192.0.2.1"),
    ("lease_time", 3600),
    ("renewal_time", 1800),
    ("rebinding_time", 3150),
    ("name_server", "192.0.2.53", "192.0.2.54"),
    ("max_dhcp_size", 1500),
    ("client_id", CLIENT_ID),
    ("v4-portparams", bytes.fromhex("06083400")),
    "end",
]


def bootp(v4, **changes):
    fields = {
        "op": 2,
        "xid": 0xCAFEBABE,
        "secs": 7,
        "flags": "B",
        "ciaddr": "192.0.2.18",
        "yiaddr": "192.0.2.19",
        "siaddr": "192.0.2.20",
        "giaddr": "192.0.2.21",
        "hops": 3,
        "hlen": 6,
        "chaddr": MAC,
        "sname": b"server",
        "file": b"boot",
    }
    return v4.BOOTP(**(fields | changes))


def test_dhcp4_message_is_the_same_octets(v4):
    octets = bytes(bootp(v4) / v4.DHCP(options=list(SCAPY_OPTIONS)))
    assert dhcp4.encode(ACK) == octets
    assert dhcp4.decode(octets) == ACK


def test_scapy_reads_what_we_write(v4):
    packet = v4.BOOTP(dhcp4.encode(ACK))
    assert (packet.op, packet.xid, packet.secs, packet.hops) == (2, 0xCAFEBABE, 7, 3)
    assert str(packet.flags) == "B"
    assert (packet.ciaddr, packet.yiaddr) == ("192.0.2.18", "192.0.2.19")
    assert (packet.siaddr, packet.giaddr) == ("192.0.2.20", "192.0.2.21")
    assert packet.chaddr == MAC.ljust(16, b"\0")
    options = dict(o[:2] for o in packet[v4.DHCP].options if isinstance(o, tuple))
    assert options["message-type"] == 5
    assert options["server_id"] == "192.0.2.1"
    assert (options["lease_time"], options["renewal_time"], options["rebinding_time"]) == (3600, 1800, 3150)
    assert options["max_dhcp_size"] == 1500
    assert options["client_id"] == CLIENT_ID
    assert options["v4-portparams"] == bytes.fromhex("06083400")


@pytest.mark.parametrize("kind", dhcp4.MessageType)
def test_message_types_have_scapys_names(v4, kind):
    octets = bytes(v4.BOOTP(chaddr=MAC) / v4.DHCP(options=[("message-type", kind.name.lower()), "end"]))
    assert dhcp4.decode(octets).message_type == kind


def test_scapy_without_end_is_refused(v4):
    octets = bytes(v4.BOOTP(chaddr=MAC) / v4.DHCP(options=[("message-type", "offer")]))
    refused(dhcp4.decode, octets, "END is missing")


def test_scapy_with_padding(v4):
    octets = bytes(v4.BOOTP(chaddr=MAC) / v4.DHCP(options=["pad", ("message-type", "offer"), "pad", "end", "pad"]))
    assert dhcp4.decode(octets).options == ((53, b"\2"),)


# ------------------------------------------------------------------------------------------------------------- DHCPv6


def test_information_request_is_the_same_octets(v6):
    octets = bytes(
        v6.DHCP6_InfoRequest(trid=0x123456)
        / v6.DHCP6OptClientId(duid=v6.DUID_LL(lladdr="02:00:00:00:00:01"))
        / v6.DHCP6OptElapsedTime(elapsedtime=123)
        / v6.DHCP6OptOptReq(reqopts=[88, 32, 83, 94, 96])
    )
    message = dhcp6.Dhcp6Message(
        dhcp6.MessageType.INFORMATION_REQUEST,
        0x123456,
        (
            (dhcp6.Option.CLIENTID, identity.duid_ll(1, MAC).data),
            (dhcp6.Option.ELAPSED_TIME, dhcp6.encode_elapsed(1.23)),
            (dhcp6.Option.ORO, dhcp6.encode_oro((88, 32, 83, 94, 96))),
        ),
    )
    assert dhcp6.decode(octets) == message
    assert dhcp6.encode(message) == octets


def test_reply_with_delegated_prefix_is_the_same_octets(v6):
    octets = bytes(
        v6.DHCP6_Reply(trid=0xABCDEF)
        / v6.DHCP6OptServerId(duid=v6.DUID_LLT(timeval=0x01020304, lladdr="02:00:00:00:00:02"))
        / v6.DHCP6OptPref(prefval=255)
        / v6.DHCP6OptStatusCode(statuscode=4, statusmsg=b"not on link")
        / v6.DHCP6OptInfoRefreshTime(reftime=600)
        / v6.DHCP6OptIA_PD(
            iaid=1,
            T1=1800,
            T2=2880,
            iapdopt=[v6.DHCP6OptIAPrefix(preflft=3600, validlft=7200, plen=56, prefix="2001:db8:12:3400::")],
        )
        / v6.DHCP6OptIA_NA(
            iaid=2,
            T1=0,
            T2=0,
            ianaopts=[v6.DHCP6OptIAAddress(addr="2001:db8::1", preflft=100, validlft=200)],
        )
    )
    prefix = dhcp6.IaPrefix(IPv6Network("2001:db8:12:3400::/56"), 3600, 7200)
    address = dhcp6.IaAddress(IPv6Address("2001:db8::1"), 100, 200)
    delegation = dhcp6.IdentityAssociation(1, 1800, 2880, ((dhcp6.Option.IAPREFIX, dhcp6.encode_iaprefix(prefix)),))
    association = dhcp6.IdentityAssociation(2, 0, 0, ((dhcp6.Option.IAADDR, dhcp6.encode_iaaddr(address)),))
    server = identity.duid_llt(1, 0x01020304, bytes.fromhex("020000000002"))
    message = dhcp6.Dhcp6Message(
        dhcp6.MessageType.REPLY,
        0xABCDEF,
        (
            (dhcp6.Option.SERVERID, server.data),
            (dhcp6.Option.PREFERENCE, b"\xff"),
            (dhcp6.Option.STATUS_CODE, dhcp6.encode_status(4, "not on link")),
            (dhcp6.Option.INFORMATION_REFRESH_TIME, dhcp6.encode_seconds(600)),
            (dhcp6.Option.IA_PD, dhcp6.encode_ia(delegation)),
            (dhcp6.Option.IA_NA, dhcp6.encode_ia(association)),
        ),
    )
    assert dhcp6.decode(octets) == message
    assert dhcp6.encode(message) == octets
    assert dhcp6.decode_ia(message.get(25)).prefixes() == (prefix,)
    assert dhcp6.decode_ia(message.get(3)).addresses() == (address,)
    assert dhcp6.decode_status(message.get(13)) == (4, "not on link")


@pytest.mark.parametrize("msg_type", range(1, 12))
def test_message_types_are_scapys(v6, msg_type):
    kind = dhcp6.MessageType(msg_type)
    names = {9: "Decline", 10: "Reconf", 11: "InfoRequest"}
    packet = getattr(v6, "DHCP6_" + names.get(msg_type, kind.name.title()))()
    assert dhcp6.decode(bytes(packet)).msg_type == kind


def test_relay_forward_is_the_same_octets(v6):
    inner = bytes(v6.DHCP6_Solicit(trid=1))
    octets = bytes(
        v6.DHCP6_RelayForward(hopcount=2, linkaddr="2001:db8::1", peeraddr="fe80::2")
        / v6.DHCP6OptIfaceId(ifaceid=b"eth0")
        / v6.DHCP6OptRelayMsg(message=v6.DHCP6_Solicit(trid=1))
    )
    message = dhcp6.RelayMessage(
        dhcp6.MessageType.RELAY_FORW,
        2,
        IPv6Address("2001:db8::1"),
        IPv6Address("fe80::2"),
        ((dhcp6.Option.INTERFACE_ID, b"eth0"), (dhcp6.Option.RELAY_MSG, inner)),
    )
    assert dhcp6.decode_relay(octets) == message
    assert dhcp6.encode_relay(message) == octets
    assert message.relayed() == inner


def test_duids_are_the_same_octets(v6):
    mac = "02:00:00:00:00:01"
    assert bytes(v6.DUID_LL(lladdr=mac)) == identity.duid_ll(1, MAC).data
    assert bytes(v6.DUID_LLT(timeval=99, lladdr=mac)) == identity.duid_llt(1, 99, MAC).data
    assert bytes(v6.DUID_EN(enterprisenum=9, id=b"abc")) == identity.duid_en(9, b"abc").data
    uuid = bytes(range(16))
    assert bytes(v6.DUID_UUID(uuid=uuid)) == identity.duid_uuid(uuid).data


def test_softwire_options_are_cut_alike(v6):
    """scapy knows none of 64 to 137 by content, but cuts them out of a message at the same places."""
    container = softwire46.encode_lw4o6(softwire46.Lw4o6Container((IPv6Address("2001:db8:ffff::1"),)))
    message = dhcp6.Dhcp6Message(7, 1, ((88, b""), (96, container), (111, softwire46.encode_priority((96, 94)))))
    packet = v6.DHCP6_Reply(dhcp6.encode(message))
    cut = []
    layer = packet.payload
    while layer:
        cut.append((layer.optcode, bytes(layer.data)))
        layer = layer.payload
    assert tuple(cut) == message.options
