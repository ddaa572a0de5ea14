"""A store that several servers share: PostgreSQL, its limits kept exactly, and the jobs of lost servers recovered."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openltx.cli import main
from openltx.errors import ServeError
from openltx.serve.settings import Limits
from openltx.serve.store.database import Database
from openltx.serve.store.jobs import Job, Jobs, NewJob, QueueFullError, new_id
from openltx.serve.store.keys import Keys
from openltx.serve.store.workers import ModelCard, Workers

Enter = Callable[..., Job]
NEW: dict[str, Any] = {"model": "m", "prompt": "a ball", "size": "64x32", "seconds": "1", "request": {"prompt": "a"}}


@pytest.fixture
def stores(postgres_url: str) -> Iterator[list[Database]]:
    """Three servers' ways to one database."""
    stores = [Database(postgres_url) for _ in range(3)]
    at_once([store.migrate for store in stores])
    yield stores
    for store in stores:
        store.close()


def at_once(calls: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_the_queues_limit_holds_however_many_servers_accept_at_once(stores: list[Database]) -> None:
    limits, accepted, refused = Limits(queue=7, jobs_per_key=100), [], []

    def accept(store: Database) -> None:
        for _ in range(6):
            try:
                accepted.append(Jobs(store, limits).add(NewJob(owner="ann", **NEW), new_id("video_"))[0].id)
            except QueueFullError:
                refused.append(1)

    at_once([lambda store=store: accept(store) for store in stores])
    assert (len(accepted), len(refused)) == (7, 11)


def test_a_request_that_comes_to_all_servers_at_once_becomes_one_job(stores: list[Database]) -> None:
    found = []

    def accept(store: Database) -> None:
        new = NewJob(owner="ann", token="t", digest="d", **NEW)
        found.append(Jobs(store, Limits()).add(new, new_id("video_")))

    at_once([lambda store=store: accept(store) for store in stores])
    assert len({job.id for job, _ in found}) == 1
    assert sorted(is_new for _, is_new in found) == [False, False, True]


def test_jobs_of_a_worker_that_fell_silent_wait_again_and_only_those(stores: list[Database], enter: Enter) -> None:
    one, other = (Jobs(store, Limits()) for store in stores[:2])
    workers = Workers(stores[0])
    for name in ("silent", "alive"):
        workers.add(name, 1)
    lost, kept = enter(one), enter(one)
    assert (one.claim("silent") or lost).id == lost.id
    held = other.claim("alive")
    assert held is not None
    silent = workers.get("silent")
    assert silent is not None
    workers.beat("alive")
    assert workers.remove_silent(silent.beat_at + 1e-6) == ["silent"]
    assert [job.id for job in other.release(None, "gone", crashed=True)] == [lost.id]
    assert not workers.beat("silent")
    again = other.get("ann", lost.id)
    assert again is not None
    assert (again.status, again.crashes) == ("queued", 1)
    assert one.report(held, stage="sample")
    assert held.id == kept.id


def test_workers_that_load_the_same_model_at_once_share_its_card(stores: list[Database]) -> None:
    card = ModelCard(source="s", name="m", fingerprint="f", sampling={"steps": 3}, loaded_at=1.0)
    for number, store in enumerate(stores):
        Workers(store).add(f"w{number}", 1)
    at_once([lambda w=f"w{n}", store=store: Workers(store).ready(w, card) for n, store in enumerate(stores)])
    assert Workers(stores[0]).model("s") == card
    assert {worker.state for worker in Workers(stores[0]).all()} == {"ready"}


def test_keys_are_made_in_the_shared_store(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "keys", "add", "ann", "--database", postgres_url]) == 0
    secret = capsys.readouterr().out.strip()
    store = Database(postgres_url)
    assert (Keys(store).find(secret) or Keys(store).all()[0]).name == "ann"
    assert Keys(store).find("other") is None
    store.close()
    monkeypatch.setenv("OPENLTX_DATABASE", postgres_url)
    assert main(["serve", "keys", "list"]) == 0
    assert capsys.readouterr().out.startswith("ann")


def test_a_database_that_cannot_be_used_is_named_without_its_password(postgres_url: str) -> None:
    wrong = postgres_url.replace(postgres_url.split(":")[2].split("@")[0], "hunter2")
    store = Database(wrong)
    with pytest.raises(ServeError, match="cannot be used") as caught:
        store.migrate()
    store.close()
    assert "hunter2" not in str(caught.value)
    for address in ("mysql://a:hunter2@b/c", "nonsense"):
        with pytest.raises(ServeError, match="no database") as caught:
            Database(address)
        assert "hunter2" not in str(caught.value)


def test_several_servers_need_a_database_that_they_share(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    assert main(["serve", "--ray"]) == 2
    assert "--database" in capsys.readouterr().err
