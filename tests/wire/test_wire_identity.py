"""DUIDs and client identifiers (RFC 8415 11, RFC 4361 6.1)."""

from __future__ import annotations

import pytest
from wire_table import both_ways, cut_everywhere, refused

from b4client.wire import identity
from b4client.wire.identity import Duid

MAC = bytes.fromhex("020000000001")
UUID = bytes(range(16))


@pytest.mark.parametrize(
    ("duid", "text", "kind"),
    [
        (identity.duid_ll(1, MAC), "00030001020000000001", identity.DuidType.LL),
        (identity.duid_llt(1, 0x01020304, MAC), "0001000101020304020000000001", identity.DuidType.LLT),
        # RFC 8415 figure 6.
        (
            identity.duid_en(9, bytes.fromhex("0cc084d303000912")),
            "0002000000090cc084d303000912",
            identity.DuidType.EN,
        ),
        (identity.duid_uuid(UUID), "0004" + UUID.hex(), identity.DuidType.UUID),
    ],
)
def test_duids_of_every_type(duid, text, kind):
    assert duid.data == bytes.fromhex(text)
    assert bytes(duid) == duid.data
    assert duid.type == kind
    assert str(duid) == bytes.fromhex(text).hex(":")
    both_ways(identity.decode_duid, bytes, duid.data, duid)
    # DUIDs are opaque: any 3 to 130 octets are one.
    cut_everywhere(identity.decode_duid, duid.data, {n: Duid(duid.data[:n]) for n in range(3, len(duid.data))})


@pytest.mark.parametrize("length", [0, 1, 2, 131, 1000])
def test_duid_lengths_refused(length):
    refused(identity.decode_duid, bytes(length), f"{length} octets")
    with pytest.raises(ValueError, match=f"not {length}"):
        Duid(bytes(length))


@pytest.mark.parametrize("length", [3, 130])
def test_duid_lengths_accepted(length):
    assert identity.decode_duid(bytes(length)).data == bytes(length)


@pytest.mark.parametrize(
    "make",
    [
        lambda: identity.duid_ll(65536, MAC),
        lambda: identity.duid_ll(1, b""),
        lambda: identity.duid_ll(1, bytes(127)),
        lambda: identity.duid_llt(1, -1, MAC),
        lambda: identity.duid_llt(1, 1 << 32, MAC),
        lambda: identity.duid_llt(1, 0, b""),
        lambda: identity.duid_en(1 << 32, b"x"),
        lambda: identity.duid_en(9, b""),
        lambda: identity.duid_uuid(bytes(15)),
        lambda: identity.duid_uuid(bytes(17)),
    ],
)
def test_duids_that_cannot_be(make):
    with pytest.raises(ValueError, match=r"\S"):
        make()


def test_longest_link_layer_address():
    assert len(identity.duid_ll(1, bytes(126)).data) == 130


# -------------------------------------------------------------------------------------------------- client identifier


@pytest.mark.parametrize(
    ("text", "iaid", "duid"),
    [
        ("ff00000001 00030001020000000001", 1, "00030001020000000001"),
        ("ffffffffff 000000", 0xFFFFFFFF, "000000"),
        ("ff00000000" + "ab" * 130, 0, "ab" * 130),
    ],
)
def test_client_identifier_both_ways_and_cut(text, iaid, duid):
    octets, inner = bytes.fromhex(text), bytes.fromhex(duid)
    both_ways(identity.decode_client_identifier, lambda v: identity.client_identifier(*v), octets, (iaid, inner))
    cut_everywhere(
        identity.decode_client_identifier, octets, {n: (iaid, inner[: n - 5]) for n in range(8, len(octets))}
    )


def test_client_identifier_of_a_duid_object():
    # The reference value of a client with IAID 1 and DUID-LL 02:00:00:00:00:01.
    value = identity.client_identifier(1, identity.duid_ll(1, MAC))
    assert value.hex() == "ff0000000100030001020000000001"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "client identifier"),
        ("ff", "IAID"),
        ("01020000000001", "type 1"),
        ("00" * 20, "type 0"),
        ("ff00000001", "DUID of 0"),
        ("ff000000010003", "DUID of 2"),
        ("ff00000001" + "00" * 131, "DUID of 131"),
    ],
)
def test_client_identifier_refused(text, reason):
    refused(identity.decode_client_identifier, bytes.fromhex(text), reason)


@pytest.mark.parametrize(("iaid", "duid"), [(-1, bytes(3)), (1 << 32, bytes(3)), (1, bytes(2)), (1, bytes(131))])
def test_client_identifier_that_cannot_be(iaid, duid):
    with pytest.raises(ValueError, match=r"IAID|DUID"):
        identity.client_identifier(iaid, duid)
