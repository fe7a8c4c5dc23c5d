"""How long properties are tried: a bounded, repeatable number of examples, or many new ones with KEYCACHE_LONG_TESTS=1."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

LONG = bool(os.environ.get("KEYCACHE_LONG_TESTS"))


def bounded(examples: int = 60, **options: int) -> settings:
    """The same examples in every run, so that a red build is red again. No deadline: the machine may be busy."""
    return settings(
        max_examples=examples * (30 if LONG else 1),
        deadline=None,
        derandomize=not LONG,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
        **options,
    )
