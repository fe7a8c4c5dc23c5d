"""Every combination of what an envelope may tell and what an administrator may have configured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keycache.domain.examination import Direction, DirectionPolicy, Envelope
from keycache.domain.names import Domain, EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest.direction import decide

INBOUND = (Direction.INBOUND, None)
OUTBOUND = (Direction.OUTBOUND, Verdict.OUTBOUND_MESSAGE)
SUSPECT = (Direction.OUTBOUND, Verdict.CONNECTOR_SUSPECT)
UNKNOWN = (Direction.UNKNOWN, Verdict.DIRECTION_UNKNOWN)

OURS, THEIRS = "bob@ours.example", "ann@theirs.example"
POLICY = DirectionPolicy(
    managed_domains=(Domain("ours.example"), Domain("also.example")),
    inbound_listeners=("192.0.2.1:25", "[2001:db8::1]:25"),
    outbound_listeners=("192.0.2.2", "*:587"),
    internal_networks=("10.0.0.0/8", "2001:db8:10::/48"),
)
DOMAINS_ONLY = DirectionPolicy(managed_domains=POLICY.managed_domains)
NETWORKS_ONLY = DirectionPolicy(internal_networks=POLICY.internal_networks)
LISTENERS_ONLY = DirectionPolicy(inbound_listeners=POLICY.inbound_listeners, outbound_listeners=POLICY.outbound_listeners)
NOTHING = DirectionPolicy()


def ruling(
    policy: DirectionPolicy, author: str | None, recipients: tuple[str, ...] = (), **envelope: object
) -> tuple[object, object]:
    given_envelope = Envelope(recipients=recipients, **envelope)  # type: ignore[arg-type]
    decided = decide(given_envelope, policy, EmailAddress.parse(author) if author else None)
    assert decided.detail
    return decided.direction, decided.verdict


@pytest.mark.parametrize("policy", [POLICY, DOMAINS_ONLY, NETWORKS_ONLY, LISTENERS_ONLY, NOTHING])
@pytest.mark.parametrize("author", [OURS, THEIRS, None])
@pytest.mark.parametrize("recipients", [(), (OURS,), (THEIRS,), (OURS, THEIRS)])
def test_what_the_caller_states_wins(policy: DirectionPolicy, author: str | None, recipients: tuple[str, ...]) -> None:
    signals = {"user": "bob", "listener": "192.0.2.2:25", "client": "10.1.1.1"}
    assert ruling(policy, author, recipients, stated=Direction.INBOUND, **signals) == INBOUND
    assert ruling(policy, author, recipients, stated=Direction.OUTBOUND, listener="192.0.2.1:25") == OUTBOUND


@pytest.mark.parametrize("policy", [POLICY, DOMAINS_ONLY, NOTHING])
def test_who_authenticated_sends_outbound_whatever_the_listener(policy: DirectionPolicy) -> None:
    assert ruling(policy, OURS, (THEIRS,), user="bob", listener="192.0.2.1:25") == OUTBOUND


@pytest.mark.parametrize(
    ("author", "recipients", "expected"),
    [
        (OURS, (THEIRS,), OUTBOUND),
        (OURS, (OURS,), OUTBOUND),
        (OURS, (), OUTBOUND),
        (THEIRS, (THEIRS,), OUTBOUND),
        (THEIRS, (OURS, THEIRS), OUTBOUND),
        (THEIRS, (), OUTBOUND),
        (None, (), OUTBOUND),
        (THEIRS, (OURS,), SUSPECT),
        (THEIRS, (OURS, "carl@also.example"), SUSPECT),
        (None, (OURS,), SUSPECT),
    ],
)
@pytest.mark.parametrize(
    "signal",
    [{"listener": "192.0.2.2:25"}, {"listener": "192.0.2.9:587"}, {"client": "10.1.2.3"}, {"client": "2001:db8:10::7"}],
)
def test_an_outbound_listener_or_network_means_outbound_unless_only_a_wrong_set_up_explains_the_mail(
    signal: dict[str, str], author: str | None, recipients: tuple[str, ...], expected: tuple[object, object]
) -> None:
    assert ruling(POLICY, author, recipients, **signal) == expected


def test_forwarded_mail_that_we_send_in_our_own_name_is_no_suspect() -> None:
    assert ruling(POLICY, THEIRS, (OURS,), listener="192.0.2.2:25", mail_from="<srs0=x@ours.example>") == OUTBOUND


def test_the_suspect_is_told_what_to_change() -> None:
    author = EmailAddress(THEIRS)
    listener = decide(Envelope(listener="192.0.2.2:25", recipients=(OURS,)), POLICY, author).detail
    assert listener == (
        "Listener '192.0.2.2:25' is one of 'outbound_listeners', but the sender is in no managed domain and every recipient is. Let "
        "the connector that brings mail from outside use another address or port, and name that one in 'inbound_listeners'."
    )
    network = decide(Envelope(client="10.1.2.3", recipients=(OURS,)), POLICY, author).detail
    assert network == (
        "The client 10.1.2.3 lies in the internal network 10.0.0.0/8, but the sender is in no managed domain and every recipient is. "
        "If a mail filter or load balancer in front of this system has that address, narrow 'internal_networks', or let inbound mail "
        "use a listener of its own and name it in 'inbound_listeners'."
    )


@pytest.mark.parametrize("recipients", [(), (OURS,), (THEIRS,), (OURS, THEIRS)])
@pytest.mark.parametrize("author", [OURS, THEIRS, None])
@pytest.mark.parametrize("client", ["", "198.51.100.7", "10.1.2.3"])
def test_an_inbound_listener_means_inbound_even_behind_a_filter_with_an_internal_address(
    client: str, author: str | None, recipients: tuple[str, ...]
) -> None:
    assert ruling(POLICY, author, recipients, listener="192.0.2.1:25", client=client) == INBOUND


@pytest.mark.parametrize(
    ("author", "mail_from", "recipients", "expected"),
    [
        (THEIRS, THEIRS, (OURS,), INBOUND),
        (THEIRS, "", (OURS,), INBOUND),
        (THEIRS, THEIRS, (OURS, THEIRS), INBOUND),
        (THEIRS, "srs0=x@ours.example", (OURS,), INBOUND),
        (THEIRS, THEIRS, (), INBOUND),
        (None, THEIRS, (OURS,), INBOUND),
        (None, "<>", (OURS,), INBOUND),
        (None, THEIRS, (), INBOUND),
        (OURS, OURS, (OURS,), INBOUND),  # ends at the next gate: OWN_DOMAIN
        (OURS, "x@list.example", (OURS, "carl@also.example"), INBOUND),
        (OURS, OURS, (THEIRS,), OUTBOUND),
        (OURS, OURS, (OURS, THEIRS), OUTBOUND),
        (OURS, OURS, (), OUTBOUND),
        (None, OURS, (THEIRS,), OUTBOUND),
        (THEIRS, "srs0=x@ours.example", (THEIRS,), OUTBOUND),
        (THEIRS, THEIRS, (THEIRS,), UNKNOWN),
        (THEIRS, THEIRS, ("not an address",), UNKNOWN),
        (None, "", (), UNKNOWN),
        (None, "", (THEIRS,), UNKNOWN),
    ],
)
def test_the_managed_domains_decide_where_nothing_surer_does(
    author: str | None, mail_from: str, recipients: tuple[str, ...], expected: tuple[object, object]
) -> None:
    assert ruling(DOMAINS_ONLY, author, recipients, mail_from=mail_from) == expected
    # A listener that nobody configured and a client from outside change nothing.
    assert ruling(POLICY, author, recipients, mail_from=mail_from, listener="203.0.113.1:25", client="198.51.100.7") == expected


@pytest.mark.parametrize(
    ("policy", "envelope", "expected", "detail"),
    [
        (NOTHING, {}, UNKNOWN, "Neither managed domains nor listeners nor internal networks are configured"),
        (NOTHING, {"listener": "192.0.2.1:25", "client": "10.1.1.1"}, UNKNOWN, "Neither managed domains nor listeners"),
        (LISTENERS_ONLY, {}, UNKNOWN, "the caller gave neither listener nor client address"),
        (LISTENERS_ONLY, {"listener": "203.0.113.1:25"}, UNKNOWN, "Listener '203.0.113.1:25' is in neither"),
        (LISTENERS_ONLY, {"listener": "192.0.2.1:25"}, INBOUND, "Listener '192.0.2.1:25' is one of 'inbound_listeners'"),
        (LISTENERS_ONLY, {"client": "10.1.1.1"}, UNKNOWN, "neither listener nor client address tells"),
        (NETWORKS_ONLY, {"client": "10.1.1.1"}, OUTBOUND, "internal network 10.0.0.0/8"),
        (NETWORKS_ONLY, {"client": "198.51.100.7"}, INBOUND, "none of the internal networks"),
        (NETWORKS_ONLY, {"client": "::ffff:10.1.1.1"}, OUTBOUND, "internal network 10.0.0.0/8"),
        (NETWORKS_ONLY, {"client": "no address"}, UNKNOWN, "neither listener nor client address tells"),
        (NETWORKS_ONLY, {}, UNKNOWN, "the caller gave neither listener nor client address"),
        (DirectionPolicy(internal_networks=("nonsense",)), {"client": "10.1.1.1"}, UNKNOWN, "Neither managed domains"),
    ],
)
def test_half_a_configuration_decides_what_it_can_and_says_what_is_missing(
    policy: DirectionPolicy, envelope: dict[str, str], expected: tuple[object, object], detail: str
) -> None:
    decided = decide(Envelope(recipients=(OURS,), **envelope), policy, EmailAddress(THEIRS))  # type: ignore[arg-type]
    assert (decided.direction, decided.verdict) == expected
    assert detail in decided.detail


@pytest.mark.parametrize(
    ("inbound", "outbound", "listener", "expected"),
    [
        (("192.0.2.1",), (), "192.0.2.1:25", INBOUND),
        (("192.0.2.1:25",), (), "192.0.2.1", INBOUND),
        (("192.0.2.1:25",), (), "192.0.2.1:26", UNKNOWN),
        (("192.0.2.1:25",), ("192.0.2.1:587",), "192.0.2.1:587", OUTBOUND),
        (("192.0.2.1:25",), ("192.0.2.1:587",), "192.0.2.1", UNKNOWN),  # the port would tell
        (("*:25",), ("192.0.2.2:25",), "192.0.2.2:25", OUTBOUND),  # the closest wins
        (("*:25",), ("192.0.2.2:25",), "192.0.2.3:25", INBOUND),
        (("192.0.2.1",), ("*:25",), "192.0.2.1:25", INBOUND),  # an address counts above a port
        (("0.0.0.0:25",), (), "192.0.2.1:25", INBOUND),
        (("[::]:25",), (), "192.0.2.1:25", INBOUND),
        ((":25",), (), "[2001:db8::1]:25", INBOUND),
        (("[2001:db8::1]:25",), (), "[2001:DB8:0:0::1]:25", INBOUND),
        (("2001:db8::1",), (), "[2001:db8::1]:25", INBOUND),
        (("192.0.2.1:25",), (), "[::ffff:192.0.2.1]:25", INBOUND),
        (("mx1.example:25",), (), "MX1.example:25", INBOUND),
        (("mx1.example:25",), (), "mx2.example:25", UNKNOWN),
        (("192.0.2.1:25",), (), "mx1.example:25", UNKNOWN),
        (("192.0.2.1:25",), ("192.0.2.1:25",), "192.0.2.1:25", UNKNOWN),  # one interface for both: seed question 4
        ((), ("192.0.2.1:25",), "0.0.0.0:25", OUTBOUND),
        (("192.0.2.1:25",), (), "[unclosed", UNKNOWN),
        (("192.0.2.1:25",), (), ":::::", UNKNOWN),
    ],
)
def test_listeners_match_by_address_and_port_the_closest_first(
    inbound: tuple[str, ...], outbound: tuple[str, ...], listener: str, expected: tuple[object, object]
) -> None:
    policy = DirectionPolicy(inbound_listeners=inbound, outbound_listeners=outbound)
    assert ruling(policy, THEIRS, (), listener=listener) == expected


def test_one_interface_for_both_directions_is_decided_by_the_domains() -> None:
    policy = DirectionPolicy(
        managed_domains=POLICY.managed_domains, inbound_listeners=("192.0.2.1",), outbound_listeners=("192.0.2.1",)
    )
    assert ruling(policy, THEIRS, (OURS,), listener="192.0.2.1:25") == INBOUND
    assert ruling(policy, OURS, (THEIRS,), listener="192.0.2.1:25") == OUTBOUND


TEXTS = st.sampled_from(
    ["", "*", ":", "[", "[]:", "192.0.2.1:25", "0.0.0.0", "::", "10.0.0.1", "10.0.0.0/8", OURS, THEIRS, "\x00"]
) | st.text(max_size=20)


@settings(deadline=None)
@given(
    TEXTS, TEXTS, TEXTS, TEXTS, st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), st.sampled_from([OURS, THEIRS, None])
)
def test_any_envelope_gets_a_ruling(
    listener: str, client: str, user: str, mail_from: str, recipients: list[str], configured: list[str], author: str | None
) -> None:
    policy = DirectionPolicy(
        managed_domains=POLICY.managed_domains,
        inbound_listeners=tuple(configured),
        outbound_listeners=tuple(reversed(configured)),
        internal_networks=tuple(configured),
    )
    envelope = Envelope(listener=listener, client=client, user=user, mail_from=mail_from, recipients=tuple(recipients))
    decided = decide(envelope, policy, EmailAddress(author) if author else None)
    assert (decided.direction is Direction.INBOUND) == (decided.verdict is None)
