"""What the mutations begin with: whole messages and options, files, scripts."""

from __future__ import annotations

import random
from pathlib import Path

HERE = Path(__file__).parent
HEX = {
    "options": [
        "0000083400",
        "01011018c00002002820010db800",
        "02c00002123820010db8001234005d000400083400",
        "0320010db8ffff00000000000000000001",
        "060059000d011018c00002002820010db800005a001020010db8ffff00000000000000000001",
        "08005c0014c00002123820010db8001234005d000400083400005a001020010db8ffff00000000000000000001",
        "090060005800 5e".replace(" ", ""),
        "0b0461667472076578616d706c6503636f6d00",
        "0d00000001000000000000000000190029000151800001518038 20010db8001234000000000000000000".replace(" ", ""),
    ],
}
TEXT = {
    "control": ['{"command":"status"}\n', '{"command":"stop","arguments":{"policy":"keep"}}\n', "[1,2]\n"],
    "leasefile": [
        '{"format":1,"address":"192.0.2.18","ports":{"offset":0,"psid_len":8,"psid":52},"server_id":"203.0.113.1",'
        '"source":"2001:db8::1","boot_id":"here","requested_at":1000.0,"t1_at":1300.0,"t2_at":1500.0,'
        '"expires_at":null,"saved_boot":1000.0,"saved_wall":1000000000.0,"options":[[6,"c0000235"]]}'
    ],
}


def seeds(target: str) -> list[bytes]:
    """Inputs that ``target`` understands, or nearly."""
    if target in HEX:
        return [bytes.fromhex(text) for text in HEX[target]]
    if target in TEXT:
        return [text.encode() for text in TEXT[target]]
    if target == "config":
        return [(HERE.parent.parent / "packaging" / "b4client.toml.example").read_bytes(), b'[wan]\ninterface = "x"\n']
    if target == "machine":
        # Link, reply, offer, ACK, softwire; then time passes.
        script = "02000000 04000f00 04001400 04002420 0b000000 00060000 04002420 00070000"
        return [bytes.fromhex(script), bytes.fromhex(script) * 8]
    if target == "reassembly":
        return [bytes((1, 0, 3, 2, 65, 0, 1, 2, 2, 1, 66, 0)) * 4]
    if target in ("ipip", "aftr"):
        from scapy.layers.inet import ICMP, IP, TCP, UDP

        quoted = bytes(IP(src="192.0.2.18", dst="198.51.100.10") / UDP(sport=13312, dport=53) / b"x")
        ends = {"src": "192.0.2.18", "dst": "198.51.100.10"}
        back = {"src": "198.51.100.10", "dst": "192.0.2.18"}
        packets = [
            IP(**ends) / TCP(sport=13313, dport=80, flags="S"),
            IP(**back) / UDP(sport=53, dport=13312) / b"answer",
            IP(**ends) / ICMP(type=8, id=13320) / b"ping",
            IP(**back) / ICMP(type=3, code=3) / quoted,
            IP(**ends, flags="MF", frag=0) / UDP(sport=13312, dport=53) / bytes(24),
        ]
        return [bytes(p) for p in packets]
    return _messages(target)


def _messages(target: str) -> list[bytes]:
    import captures

    if target == "capture":
        frames = [
            bytes(captures.ETHERNET / packet)
            for packet in (captures.packet6(captures.reply()), captures.packet4(captures.inner(1)))
        ]
        blocks = b"".join(captures.enhanced(frame, 1000 + n) for n, frame in enumerate(frames))
        return [captures.pcap(frames), captures.section() + captures.interface() + blocks]
    inner = [captures.inner(kind, 2, (51, b"\0\0\2X"), (159, b"\0\x08\x34\0")) for kind in (2, 5, 6)]
    if target == "dhcp4":
        return [*inner, captures.inner(1, 1, (55, bytes((1, 3, 6, 159)) * 80))]
    wrapped = [bytes((21, 0, 0, 0, 0, 87)) + len(m).to_bytes(2, "big") + m for m in inner]
    return [captures.reply(), captures.discover(), *wrapped, *(inner if target == "explain" else [])]


def mutations(target: str, count: int, rng: random.Random) -> list[bytes]:
    """``count`` inputs: seeds, cut, spliced, with octets changed, inserted and removed."""
    material = seeds(target)
    made = list(material)
    while len(made) < count:
        data = bytearray(rng.choice(material))
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(6):
                case 0:
                    del data[at : at + rng.randint(1, 9)]
                case 1:
                    data[at:at] = rng.randbytes(rng.randint(1, 9))
                case 2:
                    del data[at:]
                case 3:
                    other = rng.choice(material)
                    data[at:] = other[rng.randrange(len(other) + 1) :]
                case _:
                    for position in range(at, min(at + rng.choice((1, 1, 1, 2, 4)), len(data))):
                        data[position] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        made.append(bytes(data[:4096]))
    return made[:count]
