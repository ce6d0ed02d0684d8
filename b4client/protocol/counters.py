"""What is counted, and what each count means. Every refusal of something from the network has a name here."""

from __future__ import annotations

COUNTERS: dict[str, str] = {
    "sent-information-request": "DHCPv6 INFORMATION-REQUESTs sent",
    "sent-dhcp6": "other DHCPv6 messages sent: SOLICIT, REQUEST, RENEW, REBIND, CONFIRM, DECLINE, RELEASE",
    "sent-query": "DHCPV4-QUERY messages sent, one for each server address",
    "sent-rate-limited": "messages held back by the rate limit of RFC 8415 14.1; the next retransmission replaces them",
    "sent-no-source": "queries that could not leave: no IPv6 address of the scope that the server needs (RFC 7341 9)",
    "sent-failed": "messages that the kernel refused to send",
    "received-reply": "DHCPv6 Replies accepted",
    "received-reply-late": "those of them that came after another server's, which had provisioned nothing",
    "received-advertise": "DHCPv6 Advertises accepted as candidates",
    "received-offer": "DHCPOFFERs accepted as candidates",
    "received-ack": "DHCPACKs accepted",
    "received-nak": "DHCPNAKs accepted",
    "drop-datagram-malformed": "datagrams that are no DHCPv6 message",
    "drop-datagram-unexpected-type": "DHCPv6 messages of a type that a client in this state has no use for",
    "drop-reply-foreign-transaction": "Replies to somebody else's, or to an earlier, transaction (RFC 8415 16.10)",
    "drop-reply-without-server-id": "Replies without Server Identifier (RFC 8415 16.10)",
    "drop-reply-failed": "Replies that say that the question was not processed: it stays open (RFC 8415 18.2.10)",
    "drop-reply-late": "Replies that provision nothing, like the one before them to the same question",
    "drop-reply-foreign-client-id": "Replies without our Client Identifier (RFC 8415 16.10)",
    "drop-advertise-without-lease": "Advertises that offer no address and no prefix (RFC 8415 18.2.9)",
    "drop-reply-without-lease": "Replies that grant or extend nothing of what was asked for (RFC 8415 18.2.10.1)",
    "ignored-ia-malformed": "identity associations that are malformed, or whose T1 is beyond T2: as if absent",
    "ignored-lease6-unusable": "addresses and prefixes whose lifetimes contradict, or that are no customer's",
    "ignored-option88-malformed": "option 88 with a length that is no multiple of 16: as if absent",
    "ignored-container-malformed": "S46 containers that break RFC 7598 4 to 6: as if absent",
    "ignored-container-misaligned": "S46 containers whose PSID is aligned to the right: another subscriber's ports",
    "ignored-aftr-name-malformed": "option 64 that is no host name (RFC 6334 3): as if absent",
    "ignored-container-unsupported": "S46 containers that this client has no use for: MAP-T, and further domains",
    "ignored-br-unusable": "BR addresses that no packet can be sent to",
    "ignored-priority-malformed": "option 111 that breaks RFC 8026 1.3: as if absent",
    "drop-response-malformed": "DHCPV4-RESPONSEs without exactly one readable option 87 (RFC 7341 9)",
    "drop-response-not-in-use": "DHCPV4-RESPONSEs while no exchange waits for one",
    "drop-response-not-a-reply": "inner DHCPv4 messages whose op is not BOOTREPLY, or without a message type",
    "drop-response-foreign-xid": "inner messages with an xid that is not pending (RFC 2131 4.4.1)",
    "drop-response-foreign-client-id": "inner messages with another client identifier (RFC 6842 3)",
    "drop-response-wrong-state": "inner messages of a type that the state does not wait for (RFC 2131 figure 5)",
    "drop-nak-without-server-id": "NAKs without (readable) Server Identifier (RFC 2131 table 3)",
    "drop-response-other-server": "ACKs and NAKs of a server other than the one that was asked",
    "drop-offer-address": "OFFERs and ACKs of an address that is no host's",
    "drop-offer-without-server-id": "OFFERs and ACKs without (readable) Server Identifier",
    "drop-offer-portparams": "OFFERs and ACKs whose option 159 is malformed (RFC 7618 9)",
    "drop-offer-portparams-misaligned": "OFFERs and ACKs whose PSID is aligned to the right: another's ports",
    "drop-offer-without-br": "OFFERs without a valid BR address (option 90) where RFC 8539 is in use (RFC 8539 7.1)",
    "ignored-bind-prefix-malformed": "option 137 that is malformed or there several times: as if absent (RFC 8539 7.4)",
    "drop-ack-lease-time": "ACKs without (readable, positive) lease time, or of a lease that had ended when they came",
    "drop-ack-without-portparams": "ACKs that miss option 159 although the offer or lease is a shared one (RFC 7618 6)",
    "drop-offer-surplus": "OFFERs beyond the number that is remembered",
    "warned-options-forbidden": "OFFERs, ACKs and NAKs with options that RFC 2131 table 3 forbids there: not read",
    "warned-portparams-padding": "option 159 with bits set right of the PSID: masked off",
    "warned-portparams-whole": "ACKs that lease the whole address although the offer or lease was a shared one",
    "warned-saddr-mismatch": "ACKs whose option 109 is not our softwire's source, or missing (RFC 8539 7.5)",
    "warned-lease-times": "ACKs whose T1 and T2 are not below the lease time in order: defaults used (RFC 2131 4.4.5)",
}


class Counters:
    """Counts by name; a name that is not in the table is a bug."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def count(self, name: str, by: int = 1) -> None:
        """Add to a counter."""
        if name not in COUNTERS:
            raise KeyError(name)
        self._counts[name] = self._counts.get(name, 0) + by

    def __getitem__(self, name: str) -> int:
        return self._counts.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """All counters that are not zero."""
        return dict(sorted(self._counts.items()))
