"""The pool of workers: what it answers, and what it does when they die, hang, lie or never come to life."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from keycache.domain.entry import Defect, Protocol, Trust
from keycache.domain.errors import Unavailable
from keycache.domain.examination import Direction, DirectionPolicy, Envelope, Examination, TrustBase
from keycache.domain.names import EmailAddress
from keycache.domain.verdict import Verdict
from keycache.harvest import material, openpgp, pipeline
from keycache.harvest.budget import Budget
from keycache.harvest.paths import PathJudge
from keycache.sandbox.limits import SandboxLimits
from keycache.sandbox.pool import PoolState, WorkerPool
from support import rogue_worker
from support.odd_mails import HEAD
from support.openpgp import DAY, Maker
from support.smime import NOW, authority, certs_only, person, signed_mail

ROOT = authority("Pool Root")
ALICE = person("alice@example.org", ROOT)
MAIL = signed_mail(ALICE, ROOT)
BASE = TrustBase(anchors=(ROOT.der,))
ENVELOPE = Envelope(stated=Direction.INBOUND)
POLICY = DirectionPolicy()
PGP = Maker("pool")
KEY = PGP.certificate("Alice <alice@example.org>")
ADDRESS = EmailAddress("alice@example.org")
LIMITS = SandboxLimits(workers=1, warm_seconds=3600.0)


def rogue(kind: str, limits: SandboxLimits = LIMITS) -> WorkerPool:
    return WorkerPool(limits, command=(rogue_worker.__file__, kind))


async def examine(pool: WorkerPool, message: bytes = MAIL) -> Examination:
    return await pool.examine(message, ENVELOPE, POLICY, NOW)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 -- nothing else tells that another process has ended
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Ended, and waited for by its parent (or by nobody yet, when the parent is gone too)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def told(examination: Examination) -> list[tuple[str, Trust]]:
    return [(one.key.fingerprint.text, one.key.trust) for one in examination.findings if one.key]


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    async with WorkerPool(LIMITS) as running:
        running.trust(BASE)
        yield running


# Answers --------------------------------------------------------------------------------------------------------------------------


async def test_every_task_is_answered_as_by_the_pipeline_itself(pool: WorkerPool) -> None:
    judge = PathJudge(BASE)
    assert await examine(pool) == pipeline.examine(MAIL, ENVELOPE, POLICY, judge, NOW)
    for blob in (ALICE.pem, KEY, ALICE.key_pem, b"nothing"):
        for addresses in ((), (ADDRESS,), (EmailAddress("eve@example.org"),)):
            assert await pool.read_material(blob, addresses, NOW) == material.read_material(blob, addresses, judge, NOW)
    assert await pool.certificates(certs_only(ALICE, ROOT)) == (ALICE.der, ROOT.der)
    (known,) = openpgp.examine_keys(KEY, ADDRESS, NOW)
    (seen,) = openpgp.examine_keys(PGP.certificate("Alice <alice@example.org>", before=PGP.revoke(at=NOW - DAY)), ADDRESS, NOW)
    assert known.key is not None
    assert seen.key is not None
    merged = await pool.merge(known.key, seen.key, NOW)
    assert merged == openpgp.merge(known.key, seen.key, NOW)
    assert merged.defect is Defect.REVOKED
    assert pool.state == PoolState(workers=1, busy=0, waiting=0, held_bytes=0, replaced=0, failed=0)


async def test_trust_counts_from_the_next_call_on(pool: WorkerPool) -> None:
    assert told(await examine(pool)) == [(ALICE.fingerprint, Trust.ANCHORED)]
    pool.trust(TrustBase())
    assert told(await examine(pool)) == [(ALICE.fingerprint, Trust.HELD)]
    pool.trust(BASE)
    assert told(await examine(pool)) == [(ALICE.fingerprint, Trust.ANCHORED)]


async def test_without_any_trust_nobody_is_trusted() -> None:
    async with WorkerPool(LIMITS) as pool:
        assert told(await examine(pool)) == [(ALICE.fingerprint, Trust.HELD)]


async def test_many_tasks_at_once_are_all_answered_by_several_workers() -> None:
    async with WorkerPool(SandboxLimits(workers=3)) as pool:
        pool.trust(BASE)
        answers = await asyncio.gather(*[examine(pool) for _ in range(60)])
        assert {tuple(told(answer)) for answer in answers} == {((ALICE.fingerprint, Trust.ANCHORED),)}
        assert pool.state.workers == 3


async def test_a_quiet_node_has_one_worker(pool: WorkerPool) -> None:
    for _ in range(5):
        await examine(pool)
    async with WorkerPool(SandboxLimits(workers=4)) as quiet:
        for _ in range(5):
            await examine(quiet)
        assert quiet.state.workers == 1


async def test_starting_the_pool_starts_no_process_and_the_first_worker_comes_by_itself() -> None:
    async with WorkerPool(SandboxLimits(workers=2, warm_seconds=0.0)) as pool:
        assert pool.pids == ()
        await until(lambda: len(pool.pids) == 1)


async def test_messages_over_the_limit_never_reach_a_worker(pool: WorkerPool) -> None:
    async with WorkerPool(LIMITS, Budget(message_bytes=100)) as small:
        assert (await examine(small)).verdict is Verdict.MESSAGE_TOO_LARGE
        (finding,) = await small.read_material(b"x" * 101, (), NOW)
        assert finding.verdict is Verdict.KEY_TOO_LARGE
        assert await small.certificates(b"x" * 101) == ()
        assert small.pids == ()


async def test_the_limit_on_messages_holds_in_the_workers_too() -> None:
    async with WorkerPool(LIMITS, Budget(message_bytes=len(MAIL))) as pool:
        assert (await examine(pool)).verdict is None


def test_the_pool_runs_on_uvloop() -> None:
    async def main() -> Examination:
        async with WorkerPool(LIMITS) as pool:
            pool.trust(BASE)
            return await examine(pool)

    assert told(uvloop.run(main())) == [(ALICE.fingerprint, Trust.ANCHORED)]


# Deaths ---------------------------------------------------------------------------------------------------------------------------


async def test_a_worker_killed_in_the_middle_of_a_task_costs_that_task_alone(pool: WorkerPool) -> None:
    await examine(pool)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    task = asyncio.create_task(examine(pool))
    await until(lambda: pool.state.busy == 1)
    os.kill(pid, signal.SIGKILL)
    answer = await task
    assert answer == Examination(
        direction=Direction.INBOUND,
        sender=None,
        message_id="",
        verdict=Verdict.PARSER_LIMIT,
        detail="The worker was ended by SIGKILL.",
    )
    assert told(await examine(pool)) == [(ALICE.fingerprint, Trust.ANCHORED)]
    assert (pool.state.replaced, pool.state.failed) == (1, 1)
    assert pid not in pool.pids


async def test_a_worker_killed_while_it_has_nothing_to_do_costs_nothing(pool: WorkerPool) -> None:
    await examine(pool)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not pool.pids)
    assert told(await examine(pool)) == [(ALICE.fingerprint, Trust.ANCHORED)]
    assert (pool.state.replaced, pool.state.failed) == (1, 0)


async def test_a_worker_that_stands_still_is_killed_when_its_time_is_up() -> None:
    async with WorkerPool(SandboxLimits(workers=1, wall_seconds=0.5)) as pool:
        await examine(pool)
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        answer = await examine(pool)
        assert (answer.verdict, answer.detail) == (Verdict.PARSER_LIMIT, "It took longer than 0.5 seconds.")
        assert is_gone(pid)
        await until(lambda: pool.pids and pid not in pool.pids)


async def test_a_task_that_takes_too_much_processor_time_is_ended() -> None:
    async with rogue("spinning", SandboxLimits(workers=1, cpu_seconds=1)) as pool:
        answer = await examine(pool)
        assert (answer.verdict, answer.detail) == (Verdict.PARSER_LIMIT, "It took more processor time than a task may.")


async def test_processor_time_is_counted_for_each_task_anew() -> None:
    """More tasks than one allowance could pay for: the worker stays."""
    async with rogue("slow", SandboxLimits(workers=1, cpu_seconds=1)) as pool:
        assert [(await examine(pool)).verdict for _ in range(5)] == [None] * 5
        assert pool.state.replaced == 0


NONSENSE = "A parser worker answered nonsense; it may have been taken over by the mail."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def obedient() -> AsyncIterator[WorkerPool]:
    async with rogue("obedient") as running:
        yield running


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("kind", "verdict", "detail"),
    [
        ("crashing", Verdict.PARSER_LIMIT, "The worker was ended by SIGABRT."),
        ("babbling", Verdict.PARSER_LIMIT, NONSENSE),
        ("strange", Verdict.PARSER_LIMIT, NONSENSE),
        ("contradictory", Verdict.PARSER_LIMIT, NONSENSE),
        ("inventive", Verdict.PARSER_LIMIT, NONSENSE),
        ("silent", Verdict.PARSER_LIMIT, NONSENSE),
        (
            "boundless",
            Verdict.PARSER_LIMIT,
            "A parser worker announced an answer of 4,294,967,295 bytes; it may have been taken over.",
        ),
        ("failing", Verdict.UNREADABLE_MESSAGE, "A parser failed on it (ValueError). Please report this."),
        ("panicking", Verdict.UNREADABLE_MESSAGE, "A parser failed on it (SystemExit). Please report this."),
        ("hoarding", Verdict.PARSER_LIMIT, "It took more than 400 MiB of memory."),
    ],
)
async def test_a_worker_that_breaks_or_lies_is_replaced_and_its_task_gets_a_verdict(
    obedient: WorkerPool, kind: str, verdict: Verdict, detail: str
) -> None:
    assert (await examine(obedient, b"")).verdict is Verdict.UNREADABLE_MESSAGE  # it does well unless told otherwise
    before, (pid,) = obedient.state, obedient.pids
    answer = await examine(obedient, kind.encode())
    assert (answer.verdict, answer.detail, answer.findings) == (verdict, detail, ())
    assert (obedient.state.replaced, obedient.state.failed) == (before.replaced + 1, before.failed + 1)
    await until(lambda: is_gone(pid))


async def test_what_a_broken_worker_cannot_read_or_merge_is_told_or_left_as_it_was() -> None:
    (known,) = openpgp.examine_keys(KEY, ADDRESS, NOW)
    (seen,) = openpgp.examine_keys(PGP.certificate("Alice <alice@example.org>", before=PGP.revoke(at=NOW - DAY)), ADDRESS, NOW)
    assert known.key is not None
    assert seen.key is not None
    async with rogue("failing") as pool:
        (finding,) = await pool.read_material(ALICE.der, (), NOW)
        assert (finding.protocol, finding.key, finding.verdict) == (Protocol.SMIME, None, Verdict.MALFORMED_KEY)
        assert await pool.certificates(ALICE.der) == ()
        merged = await pool.merge(known.key, seen.key, NOW)
        assert (merged.material, merged.defect) == (known.key.material, Defect.REVOKED)


@pytest.mark.parametrize("kind", ["stillborn", "rude"])
async def test_when_no_worker_comes_to_life_callers_are_told_and_not_kept(kind: str) -> None:
    async with rogue(kind) as pool:
        with pytest.raises(Unavailable, match="No parser worker can be started"):
            await asyncio.wait_for(asyncio.gather(*[examine(pool) for _ in range(3)]), 30)


async def test_a_worker_that_cannot_take_over_the_trust_base_judges_nothing() -> None:
    async with rogue("distrustful") as pool:
        pool.trust(BASE)
        assert (await examine(pool)).verdict is Verdict.PARSER_LIMIT


async def test_a_worker_can_write_no_file_start_no_process_and_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYCACHE_TEST_SECRET", "x")
    inherited = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    async with rogue("curious") as pool:
        assert await pool.certificates(b"") == ()
    os.close(inherited)


# Life -----------------------------------------------------------------------------------------------------------------------------


async def test_a_worker_that_did_its_share_is_replaced_without_a_loss() -> None:
    async with WorkerPool(SandboxLimits(workers=1, tasks_per_worker=2)) as pool:
        seen = set()
        for _ in range(6):
            assert (await examine(pool)).verdict is None
            seen.update(pool.pids)
        await until(lambda: pool.pids)
        assert len(seen | set(pool.pids)) >= 3
        assert (pool.state.replaced, pool.state.failed) == (0, 0)


async def test_a_worker_that_holds_on_to_memory_is_replaced() -> None:
    async with WorkerPool(SandboxLimits(workers=1, rss_bytes=1)) as pool:
        await examine(pool)
        await until(lambda: pool.pids)
        first = pool.pids
        await examine(pool)
        await until(lambda: pool.pids and pool.pids != first)


async def test_callers_wait_while_too_many_bytes_wait() -> None:
    async with WorkerPool(SandboxLimits(workers=1, waiting_bytes=3 * len(MAIL))) as pool:
        await examine(pool)
        os.kill(pool.pids[0], signal.SIGSTOP)
        tasks = [asyncio.create_task(examine(pool)) for _ in range(10)]
        await until(lambda: pool.state.busy == 1)
        assert pool.state.held_bytes == 3 * len(MAIL)
        tasks[5].cancel()
        tasks[0].cancel()
        os.kill(pool.pids[0], signal.SIGCONT)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(answer, asyncio.CancelledError) for answer in answers] == [number in (0, 5) for number in range(10)]
        assert all(answer.verdict is None for answer in answers if isinstance(answer, Examination))
        assert pool.state.held_bytes == 0


async def test_one_message_larger_than_the_room_for_waiting_is_still_taken() -> None:
    async with WorkerPool(SandboxLimits(workers=1, waiting_bytes=1)) as pool:
        answers = await asyncio.gather(examine(pool), examine(pool))
        assert [answer.verdict for answer in answers] == [None, None]


async def test_closing_ends_the_workers_and_tells_those_who_wait() -> None:
    pool = WorkerPool(SandboxLimits(workers=1, waiting_bytes=2 * len(MAIL)))
    await pool.start()
    await examine(pool)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGSTOP)
    tasks = [asyncio.create_task(examine(pool)) for _ in range(4)]
    await until(lambda: pool.state.busy == 1)
    await pool.close()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 4
    assert is_gone(pid)
    with pytest.raises(Unavailable, match="stopping"):
        await examine(pool)


async def test_closing_an_idle_pool_lets_its_workers_end_by_themselves() -> None:
    async with WorkerPool(LIMITS) as pool:
        await examine(pool)
        (pid,) = pool.pids
    assert is_gone(pid)


async def test_a_worker_ends_with_its_node(tmp_path: Path) -> None:
    """Even when the node is killed and can end nobody."""
    script = tmp_path / "node.py"
    script.write_text(
        "import asyncio, time\n"
        "from keycache.sandbox.pool import WorkerPool\n"
        "from keycache.sandbox.limits import SandboxLimits\n"
        "async def main():\n"
        "    async with WorkerPool(SandboxLimits(workers=1, warm_seconds=0.0)) as pool:\n"
        "        while not pool.pids: await asyncio.sleep(0.01)\n"
        "        print(pool.pids[0], flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    node = await asyncio.create_subprocess_exec(sys.executable, str(script), stdout=asyncio.subprocess.PIPE)
    assert node.stdout is not None
    pid = int(await node.stdout.readline())
    assert not is_gone(pid)
    node.kill()
    await node.wait()
    await until(
        lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]
    )


async def test_no_mail_content_is_told_of_a_failure() -> None:
    async with rogue("failing") as pool:
        assert "secret" not in repr(await examine(pool, HEAD + b"\r\na secret of the mail"))
