"""The packet socket's filter, run by a small machine of our own: who gets through, and that no jump leads astray."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from b4client.dataplane import tunio

LOCAL = bytes.fromhex("20010db8001234000000c00002120034")
BR = int.from_bytes(bytes.fromhex("20010db8ffff00000000000000000001"), "big")


def run(program: list[tuple[int, int, int, int]], packet: bytes, packet_type: int = 0) -> int:
    """What the program returns for an IPv6 ``packet``; only what our filters use of BPF. Reading past it returns 0."""
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20 if operand == tunio._PACKET_TYPE:
                accumulator = packet_type
            case 0x20 | 0x30:
                size, offset = (4 if code == 0x20 else 1), operand - tunio._NETWORK
                if offset + size > len(packet):
                    return 0
                accumulator = int.from_bytes(packet[offset : offset + size], "big")
            case 0x54:
                accumulator &= operand
            case 0x05:
                at += operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def packet(source: int, *, target: bytes = LOCAL, next_header: int = 4, behind: int = 0x45) -> bytes:
    return (
        b"\x60\0\0\0\0\x14"
        + bytes((next_header, 64))
        + source.to_bytes(16, "big")
        + target
        + bytes((behind, *(23 * [0])))
    )


def test_the_relay_alone() -> None:
    program = tunio.softwire_filter(LOCAL, [(BR, 128)])
    assert run(program, packet(BR))
    assert not run(program, packet(BR + 1))
    assert not run(program, packet(BR ^ 1 << 127))
    assert not run(program, packet(BR, target=LOCAL[:-1] + b"\x01"))
    assert not run(program, packet(BR), packet_type=4)  # sent by ourselves
    assert not run(program, packet(BR)[:30])


def test_next_headers() -> None:
    program = tunio.softwire_filter(LOCAL, [(BR, 128), (0, 1)])
    passed = {n for n in range(256) if run(program, packet(BR, next_header=n))}
    assert passed == {4}
    behind = {n for n in range(256) if run(program, packet(BR, next_header=44, behind=n))}
    assert behind == {4, 44, 60}
    assert behind == {n for n in range(256) if run(program, packet(BR, next_header=60, behind=n))}


@given(
    st.lists(st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)), max_size=300),
    st.integers(0, 2**128 - 1),
    st.integers(0, 127),
    st.integers(0, 1000),
)
def test_prefixes(drawn: list[tuple[int, int]], source: int, flipped: int, chosen: int) -> None:
    """A source in one of the prefixes passes, another does not; near misses are looked for."""
    prefixes = [(network >> (128 - length) << (128 - length), length) for network, length in drawn]
    program = tunio.softwire_filter(LOCAL, [(BR, 128), *prefixes])
    assert len(program) <= 4096  # BPF_MAXINSNS
    near = (prefixes[chosen % len(prefixes)][0] if prefixes else BR) ^ 1 << flipped
    for address in (source, near, BR, BR ^ 1 << flipped):
        inside = address == BR or any(address >> (128 - n) << (128 - n) == p for p, n in prefixes)
        # With too many prefixes the kernel lets all through and the pump decides.
        assert bool(run(program, packet(address))) == (inside or len(prefixes) >= tunio.MAX_FILTERED)
    assert all(0 <= jump <= 255 for _, if_true, if_false, _ in program for jump in (if_true, if_false))
