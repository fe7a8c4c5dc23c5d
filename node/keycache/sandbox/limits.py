"""What one worker may use, and how the node treats its workers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """`workers`: processes at most; parsing is bound to the processor, so one a core.

    Per task:
    `memory_bytes`: address space above what the worker has when ready. A message of 25 MiB is held some eight times over (frame,
    message, canonical copy, decoded part, and the parsers' own copies), doubled for safety.
    `cpu_seconds`: a usual mail takes milliseconds, the largest honest ones under a second; ten leaves room for slow machines.
    `wall_seconds`: for what uses no processor time, such as a stopped process; thrice the above, for a machine shared by others.

    `import_cpu_seconds`, `import_wall_seconds`: the same for an administrator's file of keys, which may hold 10,000 (`material`) of
    some milliseconds each.

    `tasks_per_worker`, `rss_bytes`: when a worker is replaced by a fresh one, so that neither leaks nor a silent take-over by a
    hostile mail last. A worker starts in a quarter of a second, so one in 2,000 tasks costs nothing that can be measured.
    `start_seconds`: until a new worker must be ready; generous, a machine that boots is busy.
    `waiting_bytes`: of messages that wait for a worker; callers beyond wait in turn (ten of the largest messages).
    `warm_seconds`: after this time without a task the first worker is started ahead, so as not to disturb the node's own start.
    """

    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    memory_bytes: int = 400 * MIB
    cpu_seconds: int = 10
    wall_seconds: float = 30.0
    import_cpu_seconds: int = 60
    import_wall_seconds: float = 180.0
    tasks_per_worker: int = 2_000
    rss_bytes: int = 300 * MIB
    start_seconds: float = 60.0
    waiting_bytes: int = 250 * MIB
    warm_seconds: float = 1.0
