"""One worker process, from the node's side: start it, hand it one task at a time, end it by its own process id."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from keycache.codec import decode
from keycache.domain.errors import InvalidInput
from keycache.harvest.budget import Budget
from keycache.sandbox.frames import ANSWER_LIMIT, LENGTH, frame
from keycache.sandbox.limits import SandboxLimits
from keycache.v1 import sandbox_pb2

T = TypeVar("T")

COMMAND = ("-m", "keycache.sandbox.child")
"""The real worker."""

_CHUNK = 64 * 1024
"""Bytes; the capacity of a pipe on Linux (pipe(7))."""

_KILL_GRACE = 2.0
"""Seconds for a worker to end by itself once its input is closed."""


class WorkerLost(Exception):
    """The worker is gone or not to be trusted any more; the text says why, for the administrator."""


class WorkerProcess:
    """Use one task at a time. After WorkerLost from any method only `kill` and `stop` make sense."""

    def __init__(self, process: Process, limits: SandboxLimits) -> None:
        self._process = process
        self._limits = limits
        self.trust_version = -1
        self.tasks = 0

    @classmethod
    async def start(cls, limits: SandboxLimits, budget: Budget, command: Sequence[str] = COMMAND) -> WorkerProcess:
        """Ready for tasks. Raises WorkerLost. `command`: for Python; limits follow as further arguments (see `child`)."""
        importing = max(limits.import_cpu_seconds, limits.cpu_seconds)
        numbers = (os.getpid(), limits.memory_bytes, limits.cpu_seconds, importing, budget.message_bytes)
        arguments = [str(number) for number in numbers]
        # -I: neither the environment nor the working directory decides what is imported. -B: the worker can write no files.
        # Its own session: a terminal's signals are for the node. No environment: it may hold secrets.
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-B", *command, *arguments,
                stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={"LANG": "C.UTF-8"}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise WorkerLost(f"A parser worker cannot be started: {error.strerror}.") from error
        worker = cls(process, limits)
        async with worker._within(limits.start_seconds):
            hello = await worker._read()
        if hello:
            await worker.kill()
            raise WorkerLost("A parser worker began with something else than its greeting.")
        return worker

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, task: bytes) -> None:
        """An encoded task without an answer. Raises WorkerLost."""
        async with self._within(self._limits.start_seconds):
            await self._write(task)

    async def ask(self, task: bytes, read: Callable[[sandbox_pb2.WorkerAnswer], T], *, extra_seconds: float = 0.0) -> T:
        """An encoded task. `read` makes the answer a value; it raises InvalidInput or ValueError for what no honest worker says.

        Raises WorkerLost, also when the task takes longer than the limit and `extra_seconds`.
        """
        self.tasks += 1
        async with self._within(self._limits.wall_seconds + extra_seconds):
            await self._write(task)
            payload = await self._read()
        try:
            return read(decode(sandbox_pb2.WorkerAnswer, payload))
        except (InvalidInput, ValueError, OverflowError) as error:
            raise WorkerLost("A parser worker answered nonsense; it may have been taken over by the mail.") from error

    def is_worn(self) -> bool:
        """Whether it has done its share of tasks, or holds on to too much memory."""
        return self.tasks >= self._limits.tasks_per_worker or self.resident_bytes() > self._limits.rss_bytes

    def resident_bytes(self) -> int:
        """Of memory, as proc(5) has it; 0 if the process is gone."""
        try:
            with open(f"/proc/{self.pid}/statm", encoding="ascii") as statm:  # noqa: PTH123 -- a file of the kernel, read per task
                return int(statm.read().split()[1]) * resource.getpagesize()
        except (OSError, IndexError, ValueError):
            return 0

    async def stop(self) -> None:
        """In order: its input ends, then so does it; killed if it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(_KILL_GRACE):
                await self._process.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """At once, and reaped when this returns; a caller who is cancelled meanwhile still sees it through."""
        ending = asyncio.ensure_future(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def _end(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._close_pipes()

    async def _close_pipes(self) -> None:
        """asyncio frees a process only when its pipes have ended, which may be after its exit: wait for that too."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(_KILL_GRACE):
                while await self._process.stdout.read(_CHUNK):
                    pass
        with contextlib.suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(_KILL_GRACE):
                await self._process.stdin.wait_closed()

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        """Translates whatever may happen on the pipes into WorkerLost. The process is killed where it did not end by itself."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            await self.kill()
            raise WorkerLost(f"It took longer than {seconds:g} seconds.") from error
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError) as error:  # RuntimeError: uvloop, of a closed pipe
            raise WorkerLost(await self._last_words()) from error
        except asyncio.CancelledError:
            await self.kill()
            raise

    async def _last_words(self) -> str:
        """Why the process ended: by its exit status."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_GRACE):
                await self._process.wait()
        await self.kill()
        status = self._process.returncode or 0
        if status == -signal.SIGXCPU:
            return "It took more processor time than a task may."
        if status < 0:
            return f"The worker was ended by {_signal_name(-status)}."
        return f"The worker ended with status {status}."

    async def _write(self, task: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(frame(task))
        await self._process.stdin.drain()

    async def _read(self) -> bytes:
        assert self._process.stdout is not None
        (length,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        if length > ANSWER_LIMIT:
            await self.kill()
            raise WorkerLost(f"A parser worker announced an answer of {length:,} bytes; it may have been taken over.")
        return await self._process.stdout.readexactly(length)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
