"""ICMPv4 through the lwAFTR: by identifier, by the packet quoted, by policy (RFC 7596 8.1, RFC 7597 8.2, RFC 5508)."""

from __future__ import annotations

import pytest
from aftrcase import (
    ALICE_PORT,
    BOB,
    BOB_B4,
    BOB_PORT,
    ROUTER,
    SERVER,
    SHARED,
    WHOLE,
    Case,
    back,
    echo,
    icmp_error,
    longer,
    out,
)
from scapy.layers.inet import IP, UDP

from b4client.lab.aftrpolicy import IcmpPolicy

# ---- ICMP (RFC 7596 8.1)


def test_icmp_echo_goes_by_its_identifier(case: Case) -> None:
    assert case.up(echo(SHARED, SERVER, ALICE_PORT)).fate == "decapsulated"
    assert case.up(echo(SHARED, SERVER, 7)).fate == "drop-outside-port-set"
    for kind in (0, 8):
        done = case.down(echo(SERVER, SHARED, BOB_PORT, kind))
        assert done.fate == "encapsulated"
        assert done.outcomes[0][2].b4 == BOB_B4.packed  # type: ignore[union-attr]
    assert case.down(echo(SERVER, SHARED, 7, 0)).fate == "drop-no-binding"


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
@pytest.mark.parametrize("octets", [bytes, longer])
def test_icmp_error_goes_by_what_it_quotes(case: Case, kind: int, octets: type) -> None:
    sent = octets(out(BOB_PORT))
    header = (sent[0] & 15) * 4
    for length in (header + 4, header + 8, len(sent)):
        done = case.down(icmp_error(ROUTER, SHARED, sent[:length], kind))
        assert done.fate == "encapsulated"
        assert done.outcomes[0][2].b4 == BOB_B4.packed  # type: ignore[union-attr]
    assert case.down(icmp_error(ROUTER, SHARED, sent[: header + 3], kind)).fate == "drop-malformed"
    # Up: about a packet that came in, from the address that it came to.
    came = octets(back(BOB_PORT))
    assert case.up(icmp_error(SHARED, SERVER, came, kind), BOB_B4).fate == "decapsulated"
    assert case.up(icmp_error(SHARED, SERVER, came, kind)).fate == "drop-outside-port-set"
    assert case.up(icmp_error("192.0.2.1", SERVER, came, kind), BOB_B4).fate == "drop-foreign-ipv4-address"


def test_icmp_error_about_an_echo_and_with_options_outside(case: Case) -> None:
    sent, came = bytes(echo(SHARED, SERVER, BOB_PORT)), bytes(echo(SERVER, SHARED, BOB_PORT))
    for length in (28, len(sent)):
        done = case.down(icmp_error(ROUTER, SHARED, sent[:length]))
        assert (done.fate, done.outcomes[0][2].binding) == ("encapsulated", BOB)  # type: ignore[union-attr]
        assert case.up(icmp_error(SHARED, SERVER, came[:length]), BOB_B4).fate == "decapsulated"
        assert case.up(icmp_error(SHARED, SERVER, came[:length])).fate == "drop-outside-port-set"
    assert case.down(longer(icmp_error(ROUTER, SHARED, out()))).fate == "encapsulated"


def test_icmp_error_about_a_first_fragment(case: Case) -> None:
    first = IP(src=str(SHARED), dst=SERVER, flags="MF") / UDP(sport=BOB_PORT, dport=80) / bytes(24)
    assert case.down(icmp_error(ROUTER, SHARED, first)).fate == "encapsulated"


def test_icmp_error_to_another_than_the_sender_it_quotes(case: Case) -> None:
    assert case.down(icmp_error(ROUTER, WHOLE, out())).fate == "drop-no-binding"


def test_icmp_error_that_names_no_port(case: Case) -> None:
    later = IP(src=str(SHARED), dst=SERVER, frag=10, proto=17) / bytes(16)
    for quoted in (later, icmp_error(SHARED, SERVER, out()), IP(src=str(SHARED), dst=SERVER, proto=47) / bytes(8)):
        assert case.down(icmp_error(ROUTER, SHARED, quoted)).fate == "drop-unsupported-protocol"


def test_icmp_checksums(case: Case) -> None:
    """RFC 5508 REQ-3: of the error, and of the IP header quoted; not of the transport quoted."""
    packet = bytearray(bytes(icmp_error(ROUTER, SHARED, out())))
    packet[22] ^= 1
    assert case.down(bytes(packet)).fate == "drop-bad-checksum"
    quoted = bytearray(bytes(out()))
    quoted[10] ^= 1
    assert case.down(icmp_error(ROUTER, SHARED, bytes(quoted))).fate == "drop-bad-checksum"
    transport = bytearray(bytes(out()))
    transport[26] ^= 1
    assert case.down(icmp_error(ROUTER, SHARED, bytes(transport))).fate == "encapsulated"


@pytest.mark.parametrize(
    ("policy", "passes"),
    [
        (IcmpPolicy.NONE, set()),
        (IcmpPolicy.ERRORS, {"error"}),
        (IcmpPolicy.ECHO, {"error", "echo", "echo reply"}),
        (IcmpPolicy.QUERIES, {"error", "echo", "echo reply", "timestamp", "mask"}),
    ],
)
def test_icmp_by_policy(policy: IcmpPolicy, passes: set[str]) -> None:
    case = Case(icmp=policy)
    down = {
        "error": icmp_error(ROUTER, SHARED, out()),
        "echo": echo(SERVER, SHARED, ALICE_PORT),
        "echo reply": echo(SERVER, SHARED, ALICE_PORT, 0),
        "timestamp": echo(SERVER, SHARED, ALICE_PORT, 13),
        "mask": echo(SERVER, SHARED, ALICE_PORT, 18),
    }
    for name, packet in down.items():
        assert case.down(packet).fate == ("encapsulated" if name in passes else "drop-icmp-policy")
    assert case.up(echo(SHARED, SERVER, ALICE_PORT)).fate == (
        "decapsulated" if "echo" in passes else "drop-icmp-policy"
    )
    assert case.down(echo(SERVER, SHARED, ALICE_PORT, 42)).fate == "drop-unsupported-protocol"
