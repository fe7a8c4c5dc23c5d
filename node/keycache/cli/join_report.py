"""What a join came to: this node beside another one, the timeouts in force, and what a restart would do with what is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keycache.cli import present

if TYPE_CHECKING:
    from keycache.v1.admin_pb2 import Status
    from keycache.v1.cluster_pb2 import CheckResponse


def joined(status: Status, check: CheckResponse) -> dict[str, Any]:
    """For JSON, and for `lines`."""
    compared = status.cluster.comparison
    settings = present.settings(check.settings)
    return {
        "compared": {
            "with": compared.address,
            "revision": compared.revision,
            "entries": compared.entries,
            "their_entries": compared.their_entries,
            "digest": compared.digest,
            "their_digest": compared.their_digest,
            "equal": compared.equal,
        }
        if compared.address
        else None,
        "timeouts": settings["timeouts"],
        "timeouts_text": settings["timeouts_text"],
        "restart": {
            "action": check.action,
            "kept": check.kept,
            "expired": check.expired,
            "held_back": check.held_back,
            "held_reason": check.held_reason,
        },
    }


def lines(report: dict[str, Any]) -> list[str]:
    """For people; none where nothing was joined."""
    if not report:
        return []
    compared, restart = report["compared"], report["restart"]
    spans = ", ".join(f"{name} {text}" for name, text in report["timeouts_text"].items())
    why = f": {restart['held_reason']}" if restart["held_reason"] else "."
    return [
        _beside(compared),
        f"Timeouts in force: {spans}.",
        f"A restart would keep {restart['kept']}, expire {restart['expired']} and hold back {restart['held_back']}{why}",
    ]


def _beside(compared: dict[str, Any] | None) -> str:
    if compared is None:
        return (
            "No other node of the cluster answered, so what is here was compared with nothing: see 'keycache cluster members'."
        )
    entries = f"{compared['entries']} entries here, {compared['their_entries']} on {compared['with']}"
    digests = f"digest {compared['digest'][:16]} here, {compared['their_digest'][:16]} there"
    return f"At revision {compared['revision']}: {entries}; {digests}: {'equal' if compared['equal'] else 'THEY DIFFER'}."
