"""The queue's laws: in turn, once, whole, and nobody else's. On SQLite and on PostgreSQL alike."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from openltx.serve.settings import Limits, ServerSettings
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Job, Jobs, QueueFullError, TokenReusedError
from openltx.serve.store.totals import totals

Enter = Callable[..., Job]

NOTHING = {"resolved": {}, "stages": {}, "size": "64x32", "bytes": 10}


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, settings: ServerSettings) -> Iterator[Database]:
    url = settings.database_url if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = Database(url)
    database.migrate()
    yield database
    database.close()


def claimed(jobs: Jobs, worker: str = "w") -> Job:
    job = jobs.claim(worker)
    assert job is not None
    return job


def test_jobs_of_one_owner_run_in_turn_and_an_empty_queue_gives_none(jobs: Jobs, enter: Enter) -> None:
    entered = [enter(jobs) for _ in range(3)]
    assert [claimed(jobs).id for _ in range(3)] == [job.id for job in entered]
    assert jobs.claim("w") is None


def test_owners_take_turns_however_many_jobs_one_has(jobs: Jobs, enter: Enter) -> None:
    for _ in range(3):
        enter(jobs, "ann")
    enter(jobs, "bob")
    assert [claimed(jobs).owner for _ in range(4)] == ["ann", "bob", "ann", "ann"]


def test_a_keys_priority_comes_before_fairness_and_a_jobs_own_only_within_its_owner(jobs: Jobs, enter: Enter) -> None:
    late = enter(jobs, "ann", priority=1)
    later = enter(jobs, "ann", priority=9)
    other = enter(jobs, "bob")
    first = enter(jobs, "eve", key_priority=5)
    assert [claimed(jobs).id for _ in range(4)] == [first.id, later.id, other.id, late.id]


def test_many_workers_never_get_the_same_job(database: Database, enter: Enter) -> None:
    jobs = Jobs(database, Limits())
    entered = {enter(jobs, f"owner {index}").id for index in range(30)}
    got: list[str] = []

    def work() -> None:
        while (job := jobs.claim("w")) is not None:
            got.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(entered)


def test_progress_is_seen_and_told_as_events(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    job = claimed(jobs)
    assert jobs.report(job, stage="sample", step=2, steps=4, progress=45)
    assert jobs.note(job, "log", {"message": "hello"})
    seen = jobs.get("ann", job.id)
    assert seen is not None
    assert (seen.status, seen.stage, seen.step, seen.steps, seen.progress) == ("in_progress", "sample", 2, 4, 45)
    events = jobs.events(job.id)
    assert [event.kind for event in events] == ["status", "status", "progress", "log"]
    assert jobs.events(job.id, after=events[2].number)[0].data == {"message": "hello"}


def test_a_job_ends_once_whoever_else_still_holds_it(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    old = claimed(jobs)
    jobs.release("w", "killed", crashed=True)
    new = claimed(jobs, "v")
    assert new.id == old.id
    assert not jobs.report(old, stage="sample")
    assert not jobs.finish(old, **NOTHING)
    assert jobs.finish(new, **NOTHING)
    assert not jobs.fail(new, "late", "too late")
    seen = jobs.get("ann", new.id)
    assert seen is not None
    assert (seen.status, seen.attempt, seen.crashes, seen.progress) == ("completed", 2, 1, 100)


def test_three_crashes_end_a_job_with_its_reason_and_a_shutdown_is_none(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    for _ in range(5):
        claimed(jobs)
        (job,) = jobs.release(None, "the server was stopped", crashed=False)
        assert (job.status, job.crashes, job.worker) == ("queued", 0, None)
    for _ in range(3):
        claimed(jobs)
        (job,) = jobs.release("w", "killed by signal 9", crashed=True)
    assert (job.status, job.error_code) == ("failed", "worker_crashed")
    assert job.error_message is not None
    assert "3 times" in job.error_message
    assert "killed by signal 9" in job.error_message


def test_release_takes_only_the_jobs_of_that_worker(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    enter(jobs)
    mine, other = claimed(jobs, "w"), claimed(jobs, "v")
    assert [job.id for job in jobs.release("w", "gone", crashed=True)] == [mine.id]
    assert jobs.report(other, stage="sample")


@pytest.mark.parametrize("runs", [False, True])
def test_a_cancelled_job_stays_cancelled_and_its_worker_finds_out(jobs: Jobs, runs: bool, enter: Enter) -> None:
    job = enter(jobs)
    if runs:
        job = claimed(jobs)
    cancelled = jobs.cancel("ann", job.id)
    assert cancelled is not None
    assert cancelled.status == "cancelled"
    assert not jobs.report(job, stage="sample")
    assert jobs.claim("w") is None


def test_cancelling_what_has_ended_changes_nothing(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    job = claimed(jobs)
    jobs.finish(job, **NOTHING)
    kept = jobs.cancel("ann", job.id)
    assert kept is not None
    assert kept.status == "completed"


def test_a_deleted_job_is_gone_with_its_events_and_its_worker_finds_out(jobs: Jobs, enter: Enter) -> None:
    enter(jobs, token="t")
    job = claimed(jobs)
    assert jobs.delete("ann", job.id)
    assert jobs.get("ann", job.id) is None
    assert jobs.events(job.id) == []
    assert not jobs.finish(job, **NOTHING)
    assert not jobs.delete("ann", job.id)


def test_an_owner_sees_and_touches_only_their_own_jobs(jobs: Jobs, enter: Enter) -> None:
    job = enter(jobs, "ann")
    assert jobs.get("bob", job.id) is None
    assert jobs.cancel("bob", job.id) is None
    assert not jobs.delete("bob", job.id)
    assert jobs.page("bob") == ([], False)
    assert jobs.page("bob", after=job.id) is None
    assert jobs.get("ann", job.id) is not None


def test_pages_meet_without_gap_or_overlap_in_both_directions(jobs: Jobs, enter: Enter) -> None:
    entered = [enter(jobs).id for _ in range(4)]
    enter(jobs, "bob")
    for ascending, expected in ((True, entered), (False, entered[::-1])):
        seen, after, has_more = [], None, True
        while has_more:
            page = jobs.page("ann", after=after, limit=3, ascending=ascending)
            assert page is not None
            found, has_more = page
            seen += [job.id for job in found]
            after = seen[-1]
        assert seen == expected


def test_a_repeated_token_gives_the_same_job_and_another_request_is_refused(jobs: Jobs, enter: Enter) -> None:
    first = enter(jobs, token="t", digest="a")
    assert enter(jobs, token="t", digest="a").id == first.id
    assert jobs.repeated("ann", "t", "a") is not None
    assert enter(jobs, "bob", token="t", digest="a").id != first.id
    with pytest.raises(TokenReusedError):
        enter(jobs, token="t", digest="b")


def test_a_full_queue_and_a_greedy_owner_are_told_when_to_come_back(jobs: Jobs, enter: Enter) -> None:
    for _ in range(4):
        enter(jobs, "ann")
    with pytest.raises(QueueFullError, match="one key") as refusal:
        enter(jobs, "ann")
    assert refusal.value.code == "too_many_jobs"
    enter(jobs, "bob")
    enter(jobs, "eve")
    with pytest.raises(QueueFullError, match="queue is full") as refusal:
        enter(jobs, "joe")
    assert 1 <= refusal.value.retry_after <= 60


def test_a_full_disk_quota_refuses_new_work(database: Database, enter: Enter) -> None:
    jobs = Jobs(database, Limits(disk_bytes=100))
    enter(jobs)
    jobs.finish(claimed(jobs), **{**NOTHING, "bytes": 100})
    with pytest.raises(QueueFullError) as refusal:
        enter(jobs)
    assert refusal.value.code == "disk_quota_exceeded"


def test_finished_jobs_expire_then_are_forgotten_and_waiting_ones_never(database: Database, enter: Enter) -> None:
    jobs = Jobs(database, Limits(keep_seconds=100.0, forget_seconds=1000.0))
    enter(jobs)
    done = claimed(jobs)
    jobs.finish(done, **NOTHING)
    waiting = enter(jobs)
    now = time.time()
    assert jobs.expire(now) == []
    assert jobs.expire(now + 101) == [done.id]
    expired = jobs.get("ann", done.id)
    assert expired is not None
    assert (expired.status, expired.bytes) == ("expired", 0)
    assert jobs.expire(now + 1200) == []
    assert jobs.ids() == {waiting.id}


def test_a_lost_video_is_a_failed_job_that_says_so(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    job = claimed(jobs)
    jobs.finish(job, **NOTHING)
    jobs.lose(job.id)
    lost = jobs.get("ann", job.id)
    assert lost is not None
    assert (lost.status, lost.error_code) == ("failed", "files_lost")


def test_totals_only_grow(jobs: Jobs, database: Database, enter: Enter) -> None:
    enter(jobs)
    job = claimed(jobs)
    jobs.finish(job, **{**NOTHING, "stages": {"sample": 1.5, "decode": 0.5}})
    jobs.delete("ann", job.id)
    enter(jobs)
    counted = totals(database)
    assert counted[("jobs_accepted", "")] == 2
    assert counted[("jobs_finished", "completed")] == 1
    assert counted[("stage_seconds", "sample")] == 1.5


def test_a_claim_of_a_stale_copy_is_no_claim(jobs: Jobs, enter: Enter) -> None:
    enter(jobs)
    job = claimed(jobs)
    assert not jobs.report(replace(job, attempt=job.attempt + 1), stage="sample")
