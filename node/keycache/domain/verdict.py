"""The closed set of outcomes of looking at one message, or at one key in it, each with what the administrator can do.

The order of the members is the order of rank: a message's verdict is the best-ranked verdict of its keys, and a message
without keys gets one of its own. `docs` in README lists every member; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Self


class Verdict(Enum):
    """`value` is the name on the wire and in `--json`; `advice` the sentence for the administrator."""

    advice: str

    def __new__(cls, name: str, advice: str) -> Self:
        member = object.__new__(cls)
        member._value_ = name
        member.advice = advice
        return member

    # Kept and served.
    CACHED = ("CACHED", "The key is new here and is now served on every node; nothing to do.")
    REFRESHED = ("REFRESHED", "The key was known; its time starts again; nothing to do.")
    ALREADY_FRESH = ("ALREADY_FRESH", "The key was seen again only recently, so nothing was written; nothing to do.")
    # Kept, not served by default.
    UNTRUSTED_ISSUER = (
        "UNTRUSTED_ISSUER",
        "Kept but not served: no trusted root vouches for the issuer. Decide with 'keycache issuers list' and 'approve'.",
    )
    SELF_SIGNED = (
        "SELF_SIGNED",
        "Kept but not served: the certificate vouches only for itself. Decide with 'keycache issuers list' and 'approve'.",
    )
    REVOCATION_LEARNED = (
        "REVOCATION_LEARNED",
        "The key we have was revoked by its owner and is no longer served; ask the sender for the new one.",
    )
    # A person's earlier decision.
    BLOCKED = ("BLOCKED", "An administrator blocked this key or address; see 'keycache block list', undo with 'block remove'.")
    ISSUER_REJECTED = (
        "ISSUER_REJECTED",
        "An administrator rejected this issuer; 'keycache issuers approve' takes that back.",
    )
    # The key itself cannot be used.
    CERTIFICATE_EXPIRED = ("CERTIFICATE_EXPIRED", "The certificate's own validity is over; the sender must renew it.")
    NOT_YET_VALID = ("NOT_YET_VALID", "The certificate is not valid yet; check this node's clock, else wait.")
    CERTIFICATE_REVOKED = ("CERTIFICATE_REVOKED", "The issuer revoked the certificate; the sender must get a new one.")
    SIGNING_ONLY = (
        "SIGNING_ONLY",
        "The certificate may only sign; unless the mail brought another for encryption, the sender must include that one.",
    )
    NOT_PREFERRED = ("NOT_PREFERRED", "The sender prefers another certificate for encryption, which was looked at instead.")
    WEAK_KEY = (
        "WEAK_KEY",
        "Key or signature algorithm is too weak today (RSA below 2048 bits, MD5, SHA-1); the sender must renew.",
    )
    KEY_EXPIRED = ("KEY_EXPIRED", "The OpenPGP key has expired; the sender must extend it and send it again.")
    KEY_REVOKED = ("KEY_REVOKED", "The OpenPGP key is revoked; the sender must send a new one.")
    NO_ENCRYPTION_KEY = ("NO_ENCRYPTION_KEY", "The OpenPGP key has no part that can encrypt now; the sender must add a subkey.")
    SECRET_KEY = (
        "SECRET_KEY",
        "The sender mailed a SECRET key. It was not stored. Tell the sender at once: the key must be considered lost.",
    )
    KEY_TOO_LARGE = (
        "KEY_TOO_LARGE",
        "The key is larger than any honest one; it may be flooded. Ask the sender for a minimal one.",
    )
    MALFORMED_KEY = ("MALFORMED_KEY", "The key cannot be read; ask the sender to send it again.")
    TOO_MANY_KEYS = (
        "TOO_MANY_KEYS",
        "So many keys are kept for this address already that somebody may be flooding it; delete the wrong ones, or import this one.",
    )
    # No proof that the key belongs to the sender.
    SIGNATURE_INVALID = (
        "SIGNATURE_INVALID",
        "The signature does not fit the message: it was altered on its way (a disclaimer, a gateway, a list) or forged.",
    )
    SIGNER_NOT_FOUND = (
        "SIGNER_NOT_FOUND",
        "The signer's certificate did not come with the mail; the sender must let the mail program include it.",
    )
    CHAIN_INVALID = ("CHAIN_INVALID", "The certificate's chain breaks a rule (see the detail); the issuer must mend it.")
    ADDRESS_MISMATCH = (
        "ADDRESS_MISMATCH",
        "The key does not name the sender's address, so nothing proves it is the sender's; not kept.",
    )
    NOT_FROM_SENDER = (
        "NOT_FROM_SENDER",
        "The key lies inside a forwarded message and is not the sender's; harvest the original mail instead.",
    )
    UNSIGNED_CERTIFICATES = (
        "UNSIGNED_CERTIFICATES",
        "Certificates came without a signature, which proves nothing; import them with 'keycache import' if you trust them.",
    )
    AUTOCRYPT_INVALID = ("AUTOCRYPT_INVALID", "The Autocrypt header breaks the rules and was ignored; see the detail.")
    AUTOCRYPT_SEVERAL = ("AUTOCRYPT_SEVERAL", "Several valid Autocrypt headers: by the rules none counts.")
    # The message as a whole.
    OUTBOUND_MESSAGE = (
        "OUTBOUND_MESSAGE",
        "Outbound mail is not harvested. If this was inbound mail, check listeners and managed domains in the configuration.",
    )
    CONNECTOR_SUSPECT = (
        "CONNECTOR_SUSPECT",
        "Listener or network say outbound, yet every recipient is ours: let the connector bring inbound mail to an inbound listener.",
    )
    DIRECTION_UNKNOWN = (
        "DIRECTION_UNKNOWN",
        "Nothing tells whether the mail came in or went out: configure managed domains or listeners, or state the direction.",
    )
    OWN_DOMAIN = (
        "OWN_DOMAIN",
        "The sender's address lies in a managed domain of ours; keys of our own people are not cached.",
    )
    NO_SENDER = ("NO_SENDER", "The mail has no usable From address, so no key can be bound to anybody.")
    SEVERAL_SENDERS = ("SEVERAL_SENDERS", "The mail has several From addresses; which one a key belongs to is not proven.")
    ENCRYPTED_MESSAGE = (
        "ENCRYPTED_MESSAGE",
        "The mail is encrypted and a signature inside cannot be seen; hand the mail over after decryption.",
    )
    NO_KEY_MATERIAL = ("NO_KEY_MATERIAL", "No signature brought a certificate, and the mail carries no key; nothing to do.")
    UNREADABLE_MESSAGE = ("UNREADABLE_MESSAGE", "This is not a mail that can be read; see the detail.")
    MESSAGE_TOO_LARGE = ("MESSAGE_TOO_LARGE", "The mail is over the size limit ('message_limit' in the configuration).")
    TOO_COMPLEX = (
        "TOO_COMPLEX",
        "The mail's structure is beyond the limits for nesting, parts or headers; it was not looked into.",
    )
    PARSER_LIMIT = (
        "PARSER_LIMIT",
        "Reading the mail took more time or memory than a worker may use, and the worker was replaced; the mail may be hostile.",
    )

    @property
    def rank(self) -> int:
        """0 is best."""
        return _RANK[self]

    @property
    def is_kept(self) -> bool:
        """Whether the key is in the cache after this verdict (served or held)."""
        return self.rank <= Verdict.SELF_SIGNED.rank

    @property
    def is_served(self) -> bool:
        return self.rank <= Verdict.ALREADY_FRESH.rank


_RANK = {verdict: rank for rank, verdict in enumerate(Verdict)}


def best(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The best-ranked verdict, or None of none."""
    return min(verdicts, key=lambda verdict: verdict.rank, default=None)
