"""Configuration: what is accepted, and that every error names its key and a remedy."""

from __future__ import annotations

import tomllib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from b4client import config
from b4client.model.errors import ConfigError
from b4client.model.maprule import MappingRule
from b4client.model.portset import PortSet
from b4client.model.settings import NatTimeouts, ProtocolSettings, SoftwireSettings, StaticSoftwire
from b4client.model.softwire import Encapsulation, Mode, PortForward

FULL = """
[wan]
interface = "eth0.7"
[dhcp]
start_delay = false
psid_len_hint = 8
prefer_shared = true
offer_window = 2
keep_lease_without_option88 = false
servers = ["2001:db8::1", "2001:db8::2", "2001:db8::1"]
duid = "00:03:00:01:02:00:00:00:00:01"
iaid = 7
hardware_address = "02-00-00-00-00-01"
hostname = "cpe-1"
rfc8539 = "on"
saddr_retry = 30
[provisioning]
mechanisms = ["dhcp4o6", "lw4o6"]
profile = "rfc8585"
prefixes = ["2001:db8:12:3400::/56"]
[dhcp6]
mode = "address+prefix"
socket = "packet"
rapid_commit = true
prefix_len_hint = 56
[softwire]
aftr = "aftr.example"
interface_identifier = "draft03"
br = "2001:db8:ffff::1"
local = "2001:db8:1::46"
device = "b4tun"
encapsulation = "userspace"
mtu = 1400
default_route = false
route_metric = 10
lan = ["192.168.1.0/24"]
accept_local = false
clamp_mss = false
[nat.timeouts]
udp = 180
[daemon]
state_dir = "/srv/s"
run_dir = "/srv/r"
stop = "keep"
log_level = "debug"
log_format = "json"
interface_wait = 0
[[forward]]
protocol = "tcp"
port = 5000
to = "192.168.1.10"
to_port = 80
[[forward]]
protocol = "udp"
port = 5000
to = "192.168.1.10"
"""


def test_every_setting_reaches_its_place() -> None:
    read = config.parse(tomllib.loads(FULL))
    forwards = (
        PortForward("tcp", 5000, IPv4Address("192.168.1.10"), 80),
        PortForward("udp", 5000, IPv4Address("192.168.1.10"), 5000),
    )
    assert read.wan == read.instance == "eth0.7"
    assert read.protocol == ProtocolSettings(
        start_delay=False,
        psid_len_hint=8,
        prefer_shared=True,
        offer_window_s=2.0,
        keep_lease_without_option88=False,
        br=IPv6Address("2001:db8:ffff::1"),
        servers_4o6=(IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")),
        local=IPv6Address("2001:db8:1::46"),
        duid=bytes.fromhex("00030001020000000001"),
        iaid=7,
        hardware_address=bytes.fromhex("020000000001"),
        hostname="cpe-1",
        rfc8539="on",
        saddr_retry_s=30.0,
        mechanisms=("dhcp4o6", "lw4o6"),
        profile="rfc8585",
        prefixes=(IPv6Network("2001:db8:12:3400::/56"),),
        aftr="aftr.example.",
        interface_identifier="draft03",
        dhcp6_mode="address+prefix",
        rapid_commit=True,
        prefix_len_hint=56,
    )
    assert read.softwire == SoftwireSettings(
        device="b4tun",
        encapsulation=Encapsulation.USERSPACE,
        mtu=1400,
        default_route=False,
        route_metric=10,
        lan=(IPv4Network("192.168.1.0/24"),),
        accept_local=False,
        clamp_mss=False,
        forwards=forwards,
        timeouts=NatTimeouts(udp=180),
    )
    assert read.daemon == config.DaemonSettings(Path("/srv/s"), Path("/srv/r"), "keep", "debug", "json", 0.0, "packet")


def test_the_wan_is_all_that_is_needed() -> None:
    read = config.parse({"wan": {"interface": "eth0"}})
    assert (read.protocol, read.softwire, read.daemon) == (
        ProtocolSettings(),
        SoftwireSettings(),
        config.DaemonSettings(),
    )


@pytest.mark.parametrize(
    ("toml", "key", "words"),
    [
        ("", "wan.interface", "--wan"),
        ("[wan]\ninterfce = 'x'", "wan.interfce", "did you mean 'interface'"),
        ("[wam]\n", "wam", "did you mean 'wan'"),
        ("wan = 3", "wan", "must be a table"),
        ("[wan]\ninterface = 'a/b'", "wan.interface", "no interface name"),
        ("[wan]\ninterface = 'sixteen-letters-'", "wan.interface", "no interface name"),
        ("[wan]\ninterface = 'x;y'", "wan.interface", "no interface name"),
        ("[wan]\ninterface = ''", "wan.interface", "empty"),
        ("[dhcp]\nstart_delay = 1", "dhcp.start_delay", "true or false"),
        ("[dhcp]\npsid_len_hint = 17", "dhcp.psid_len_hint", "1 to 16"),
        ("[dhcp]\npsid_len_hint = true", "dhcp.psid_len_hint", "true/false"),
        ("[dhcp]\noffer_window = -1", "dhcp.offer_window", "0 to 30"),
        ("[dhcp]\nservers = '::1'", "dhcp.servers", "a list"),
        ("[dhcp]\nservers = ['::1']", "dhcp.servers[0]", "no unicast address"),
        ("[dhcp]\nservers = ['2001:db8::1', 'x']", "dhcp.servers[1]", "no IPv6 address"),
        ("[dhcp]\nduid = 'xyz'", "dhcp.duid", "hexadecimal"),
        ("[dhcp]\nduid = '00'", "dhcp.duid", "3 to 130"),
        ("[dhcp]\nhardware_address = '02:00'", "dhcp.hardware_address", "6 to 6"),
        ("[dhcp]\nhostname = '-a'", "dhcp.hostname", "no host name"),
        ("[dhcp6]\nmode = 'stateful'", "dhcp6.mode", "stateless, prefix, address+prefix, external"),
        ("[dhcp6]\nsocket = 'tcp'", "dhcp6.socket", "auto, udp, packet"),
        ("[dhcp6]\nprefix_len_hint = 128", "dhcp6.prefix_len_hint", "24 to 64"),
        ("[dhcp6]\nmod = 'prefix'", "dhcp6.mod", "did you mean 'mode'"),
        ("[softwire]\nbr = 'ff02::1'", "softwire.br", "no unicast address"),
        ("[softwire]\nencapsulation = 'gre'", "softwire.encapsulation", "auto, kernel, userspace"),
        ("[softwire]\nmtu = 68", "softwire.mtu", "576"),
        ("[softwire]\nlan = ['192.168.1.1/24']", "softwire.lan[0]", "host bits"),
        ("[softwire]\ndevice = 'eth0'", "softwire.device", "is the WAN"),
        ("[softwire]\naftr = 'a b'", "softwire.aftr", "neither an IPv6 address nor a host name"),
        ("[softwire]\naftr = 'ff02::1'", "softwire.aftr", "no unicast address"),
        ("[softwire]\ninterface_identifier = 'x'", "softwire.interface_identifier", "rfc7597, draft03"),
        ("[provisioning]\nmechanisms = ['map-t']", "provisioning.mechanisms[0]", "dhcp4o6, lw4o6, map-e, ds-lite"),
        ("[provisioning]\nprefixes = ['2001:db8::1/64']", "provisioning.prefixes[0]", "host bits"),
        ("[provisioning]\nprofile = 'rfc'", "provisioning.profile", "rfc8026, rfc8585"),
        ("[dhcp]\nrfc8539 = true", "dhcp.rfc8539", "auto, on, off"),
        ("[dhcp]\nsaddr_retry = 0", "dhcp.saddr_retry", "1 to 3600"),
        ("[nat]\ntimeout = 1", "nat.timeout", "did you mean 'timeouts'"),
        ("[nat.timeouts]\nudp = 0", "nat.timeouts.udp", "from 1"),
        ("[daemon]\nstate_dir = 'x'", "daemon.state_dir", "absolute"),
        ("[daemon]\nstop = 'kill'", "daemon.stop", "keep, withdraw, release"),
        ("forward = 3", "forward", "[[forward]]"),
        ("[[forward]]\nprotocol = 'tcp'\nport = 1", "forward[0].to", "missing"),
        ("[[forward]]\nprotocol = 'icmp'\nport = 1\nto = '10.0.0.1'", "forward[0].protocol", "tcp, udp"),
        ("[[forward]]\nprotocol = 'tcp'\nport = 0\nto = '10.0.0.1'", "forward[0].port", "from 1 to 65535"),
        ("[[forward]]\nprotocol = 'tcp'\nport = 1\nto = '127.0.0.1'", "forward[0].to", "no host of the LAN"),
        (
            "[[forward]]\nprotocol = 'tcp'\nport = 1\nto = '10.0.0.1'\n" * 2,
            "forward[1].port",
            "taken by forward[0]",
        ),
    ],
)
def test_an_error_names_its_key_and_the_remedy(toml: str, key: str, words: str) -> None:
    document = tomllib.loads(toml)
    if toml and "wan" not in document and "wam" not in document:
        document["wan"] = {"interface": "eth0"}
    with pytest.raises(ConfigError) as caught:
        config.parse(document)
    assert caught.value.key == key
    assert words in caught.value.reason


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[wan]\ninterface = "eth0"\n[softwire]\nmtu = 1400\ndevice = "a"\n')
    read = config.load(file, {"wan": {"interface": "eth1"}, "softwire": {"device": "b"}, "dhcp": {}})
    assert (read.wan, read.softwire.mtu, read.softwire.device) == ("eth1", 1400, "b")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        config.load(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("[wan\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: is no valid TOML"):
        config.load(tmp_path / "bad.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml: is no valid TOML"):
        config.load(tmp_path / "binary.toml")


def test_the_example_shows_the_defaults() -> None:
    """packaging/b4client.toml.example is what people start from: it must load, and its live lines be the defaults."""
    example = Path(__file__).parent.parent / "packaging" / "b4client.toml.example"
    read = config.parse(tomllib.loads(example.read_text()))
    assert read == config.Config("eth0")
    text = example.read_text()
    tables = (config._DHCP, config._PROVISIONING, config._SOFTWIRE, config._SOFTWIRE_PROTOCOL, config._TIMEOUTS)
    for known in (*tables, config._DHCP6, config._DHCP6_DAEMON, config._DAEMON, config._METRICS, config._HOOKS):
        for name in known:
            assert f"{name} = " in text, f"{name} is not in the example"
    uncommented = tomllib.loads("\n".join(line.removeprefix("# ") for line in text.splitlines()[3:]))
    read = config.parse(uncommented)
    assert read.softwire.forwards[0].to_port == 80
    assert read.protocol.static == StaticSoftwire(
        Mode.LW4O6, IPv4Address("192.0.2.18"), PortSet(0, 8, 0x34), IPv6Network("2001:db8:12:3400::/56")
    )


# ---- a static softwire

WAN = "[wan]\ninterface = 'eth0'\n"
BR = "[softwire]\nbr = '2001:db8:ffff::1'\n"


def static(text: str, more: str = BR) -> ProtocolSettings:
    return config.parse(tomllib.loads(WAN + more + "[static]\n" + text)).protocol


def test_static_lw4o6() -> None:
    assert static("mode = 'lw4o6'\nipv4 = '192.0.2.18'").static == StaticSoftwire(Mode.LW4O6, IPv4Address("192.0.2.18"))


def test_static_map_e() -> None:
    read = static(
        "mode = 'map-e'\n[[static.rule]]\nipv6 = '2001:db8::/40'\nipv4 = '192.0.2.0/24'\nea_len = 16\n"
        "[[static.rule]]\nipv6 = '2001:db8:ff00::/56'\nipv4 = '192.0.2.18/32'\nea_len = 0\n"
        "offset = 4\npsid = 3\npsid_len = 4\nfmr = true"
    ).static
    assert read is not None
    assert read.rules == (
        MappingRule(IPv6Network("2001:db8::/40"), IPv4Network("192.0.2.0/24"), 16),
        MappingRule(IPv6Network("2001:db8:ff00::/56"), IPv4Network("192.0.2.18/32"), 0, 4, 4, 3, True),
    )


@pytest.mark.parametrize(
    ("aftr", "read"),
    [
        ("aftr.example", "aftr.example."),
        ("aftr.example.", "aftr.example."),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
    ],
)
def test_static_ds_lite(aftr: str, read: IPv6Address | str) -> None:
    settings = static("mode = 'ds-lite'", f"[softwire]\naftr = '{aftr}'\n")
    assert (settings.static, settings.aftr) == (StaticSoftwire(Mode.DS_LITE), read)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("", "static.mode", "missing"),
        ("mode = 'map-t'", "static.mode", "lw4o6, map-e, ds-lite"),
        ("mode = 'lw4o6'", "static.ipv4", "missing"),
        ("mode = 'lw4o6'\nipv4 = 'x'", "static.ipv4", "no IPv4 address"),
        ("mode = 'lw4o6'\nipv4 = '192.0.2.1'\npsid = 1", "static.psid_len", "missing"),
        ("mode = 'lw4o6'\nipv4 = '192.0.2.1'\npsid = 16\npsid_len = 4", "static.psid", "does not fit"),
        ("mode = 'lw4o6'\nipv4 = '192.0.2.1'\npsid = 1\npsid_len = 4\noffset = 13", "static.psid", "exceed"),
        ("mode = 'lw4o6'\nrule = []", "static.rule", "unknown setting"),
        ("mode = 'lw4o6'\nipv4 = '192.0.2.1'\nbind_prefix = '::1/64'", "static.bind_prefix", "host bits"),
        ("mode = 'map-e'", "static.rule", "1 to 1024"),
        ("mode = 'map-e'\nrule = [3]", "static.rule[0]", "a table"),
        ("mode = 'map-e'\nrule = [{ipv6 = '2001:db8::/40'}]", "static.rule[0].ipv4", "missing"),
        (
            "mode = 'map-e'\nrule = [{ipv6 = '2001:db8::/40', ipv4 = '10.0.0.0/24', ea_len = 30}]",
            "static.rule[0]",
            "exceeds",
        ),
    ],
)
def test_a_static_softwire_that_lacks_something(text: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        static(text)
    assert caught.value.key == key
    assert words in caught.value.reason


@pytest.mark.parametrize(
    ("mode", "key"), [("lw4o6", "softwire.br"), ("map-e", "softwire.br"), ("ds-lite", "softwire.aftr")]
)
def test_a_static_softwire_needs_its_far_end(mode: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        static(f"mode = '{mode}'", "")
    assert caught.value.key == key
