"""Other people's firewalls in a namespace: ufw, firewalld and iptables as they are; Docker's and fw4's rules as
documented. Each has files of its own: nothing of the machine's is changed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

from b4client.lab.netns import LabError, Namespace, wait_until

DOCKER = """
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""

_FW4_ZONE_B4 = """
  chain forward_b4 { jump accept_to_b4; jump reject_to_b4; }
  chain input_b4 { jump reject_from_b4; }
  chain output_b4 { jump accept_to_b4; }
  chain accept_to_b4 { oifname { "b4", "b4-n1" } counter accept; }
  chain reject_from_b4 { iifname { "b4", "b4-n1" } counter jump handle_reject; }
  chain reject_to_b4 { oifname { "b4", "b4-n1" } counter jump handle_reject; }
"""


def fw4(*, zone: bool) -> str:
    """What OpenWrt's fw4 renders of its default settings; with ``zone`` also of the zone that doctor tells to make."""

    def only(text: str) -> str:
        return text if zone else ""

    return f"""
table inet fw4
delete table inet fw4
table inet fw4 {{
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state vmap {{ established : accept, related : accept }}
    tcp flags & (fin | syn | rst | ack) == syn jump syn_flood
    iifname "lan0" jump input_lan
    iifname "wan" jump input_wan
    {only('iifname { "b4", "b4-n1" } jump input_b4')}
    jump handle_reject
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    ct state vmap {{ established : accept, related : accept }}
    iifname "lan0" jump forward_lan
    iifname "wan" jump forward_wan
    {only('iifname { "b4", "b4-n1" } jump forward_b4')}
    jump handle_reject
  }}
  chain output {{
    type filter hook output priority filter; policy accept;
    oifname "lo" accept
    ct state vmap {{ established : accept, related : accept }}
    oifname "lan0" jump accept_to_lan
    oifname "wan" jump accept_to_wan
    {only('oifname { "b4", "b4-n1" } jump output_b4')}
  }}
  chain prerouting {{
    type filter hook prerouting priority filter; policy accept;
    iifname "lan0" accept
  }}
  chain handle_reject {{ meta l4proto tcp reject with tcp reset; reject with icmpx port-unreachable; }}
  chain syn_flood {{ limit rate 25/second burst 50 packets return; drop; }}
  chain input_lan {{ iifname "lan0" counter accept; }}
  chain forward_lan {{
    jump accept_to_wan
    {only("jump accept_to_b4")}
    jump accept_to_lan
  }}
  chain accept_to_lan {{ oifname "lan0" counter accept; }}
  chain input_wan {{
    meta nfproto ipv4 udp dport 68 counter accept
    meta nfproto ipv6 udp dport 546 counter accept
    {only("meta nfproto ipv6 meta l4proto 4 counter accept")}
    iifname "wan" counter jump handle_reject
  }}
  chain forward_wan {{ iifname "wan" counter jump handle_reject; }}
  chain accept_to_wan {{
    meta nfproto ipv4 oifname "wan" ct state invalid counter drop
    oifname "wan" counter accept
  }}
  {only(_FW4_ZONE_B4)}
  chain srcnat {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "wan" jump srcnat_wan
  }}
  chain srcnat_wan {{ meta nfproto ipv4 masquerade; }}
}}
"""


class Firewall:
    """A firewall with files of its own in ``namespace``: ``places`` are directories that it sees as they are on the
    machine, and may change."""

    def __init__(self, namespace: Namespace, scratch: Path, places: tuple[str, ...]) -> None:
        # A /run of its own as well: buses and locks are there.
        own_run = "mount -t tmpfs none /run && mkdir /run/dbus && "
        script = f"mount --make-rprivate / && {own_run}mount -t tmpfs none $0 && " + "".join(
            f"mkdir -p $0/{i} && cp -a {place}/. $0/{i}/ && mount --bind $0/{i} {place} && "
            for i, place in enumerate(places)
        )
        scratch.mkdir(parents=True, exist_ok=True)
        self._holder = subprocess.Popen(
            namespace.argv("unshare", "--mount", "sh", "-c", f"{script}echo ready && exec cat", str(scratch)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            raise LabError(f"no place for a firewall in {namespace.name}")
        self._daemons: list[int] = []

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run shell commands where the firewall lives; their output."""
        inside = ["nsenter", "-t", str(self._holder.pid), "-m", "-n", "sh", "-ec", script]
        done = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode:
            raise LabError(f"{script}: {done.stdout} {done.stderr}")
        return done.stdout

    def start(self, script: str) -> None:
        """Start a daemon; ended by ``close``."""
        self._daemons.append(int(self.sh(f"{script} >/dev/null 2>&1 & echo $!")))

    def close(self) -> None:
        """End it all."""
        for pid in reversed(self._daemons):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self._holder.communicate("", timeout=10)

    def ended(self, pid: int) -> bool:
        """True when there is no such process."""
        return not Path(f"/proc/{pid}").exists()


def has_nft_compat(namespace: Namespace) -> bool:
    """True when the kernel takes the extensions of iptables, in nft's rules, that these firewalls use."""
    for condition in ("-m conntrack --ctstate INVALID", "-m addrtype --dst-type LOCAL", "-m limit --limit 3/min", ""):
        rule = ("OUTPUT", *condition.split(), "-j", "ACCEPT" if condition else "REJECT")
        if namespace.run("iptables-nft", "-A", *rule, check=False).returncode:
            return False
        namespace.run("iptables-nft", "-D", *rule)
    return True


def ufw(namespace: Namespace, scratch: Path) -> Firewall:
    """ufw, enabled, with Debian's defaults, whatever this machine's own are."""
    firewall = Firewall(namespace, scratch, ("/etc/ufw",))
    firewall.sh("ufw --force reset && ufw --force enable")
    return firewall


def iptables(namespace: Namespace, scratch: Path, rules: str) -> Firewall:
    """Rules loaded by iptables-nft."""
    firewall = Firewall(namespace, scratch, ())
    firewall.sh(f"iptables-nft-restore <<'END'\n{rules}\nEND")
    return firewall


def firewalld(namespace: Namespace, scratch: Path) -> Firewall:
    """firewalld on a bus of its own, with the LAN in the zone "home"."""
    firewall = Firewall(namespace, scratch, ("/etc/firewalld",))
    firewall.start("dbus-daemon --system --nofork --nopidfile --nosyslog")
    wait_until(lambda: firewall.sh("ls /run/dbus").strip(), 10, "the bus")
    firewall.start("firewalld --nofork --nopid")
    wait_until(lambda: firewall.sh("firewall-cmd --state", check=False), 20, "firewalld", poll_s=0.2)
    firewall.sh("firewall-cmd --permanent --zone=home --add-interface=lan0; firewall-cmd --reload")
    return firewall
