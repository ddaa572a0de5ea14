"""One job made in this process: what comes out, how far it is at each moment, and that it can be stopped."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from openltx import GenerationRequest, Generator, LTXModel, RequestError
from openltx.media.io import read_metadata, read_video
from openltx.recipes.opening import ModelFlags
from openltx.recipes.upscaling import UpscalerFlags
from openltx.serve.files import PREVIEW, Files
from openltx.serve.making import DroppedError, Maker, StoppingError, is_like, is_plain
from openltx.serve.settings import Limits, ServerSettings
from openltx.serve.store.jobs import Job, Jobs

Enter = Callable[..., Job]


@pytest.fixture
def files(settings: ServerSettings) -> Files:
    files = Files(settings.data)
    files.prepare()
    return files


@pytest.fixture
def claim(jobs: Jobs, files: Files, enter: Enter) -> Callable[..., Job]:
    def accept_and_claim(inputs: dict[str, Path] | None = None, **request: Any) -> Job:
        job = enter(jobs, request={"prompt": "a ball", "fit": "pad", "seed": 3, **request})
        files.open_job(job.id, inputs or {})
        claimed = jobs.claim("w")
        assert claimed is not None
        return claimed

    return accept_and_claim


def maker(model: LTXModel, jobs: Jobs, files: Files, is_stopping: Callable[[], bool] = lambda: False) -> Maker:
    return Maker(Generator(model), jobs, files, is_stopping)


def test_a_job_is_the_same_video_as_the_request_makes_anywhere(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], tmp_path: Path
) -> None:
    job = claim(size="60x30", frames=12)
    stages = maker(tiny_model, jobs, files)(job)
    done = jobs.get("ann", job.id)
    assert done is not None
    assert (done.status, done.progress, done.size) == ("completed", 100, "60x30")
    assert set(stages) == {"queued", "prepare", "sample", "decode", "write"} == set(done.stages)
    frames, fps = read_video(files.content(job.id, "video"))
    assert (frames.shape, fps) == ((12, 30, 60, 3), 8)
    again = Generator(tiny_model)(GenerationRequest("a ball", size="60x30", frames=12, fit="pad", seed=3))
    again.save(tmp_path / "again.mp4")
    assert np.array_equal(frames, read_video(tmp_path / "again.mp4")[0])
    embedded = GenerationRequest.from_json(read_metadata(files.content(job.id, "video"))["request"])
    assert (embedded.size, embedded.seed, embedded.steps) == ("60x30", 3, 3)
    assert done.resolved is not None
    assert done.resolved["steps"] == 3
    assert done.bytes == sum(path.stat().st_size for path in files.job(job.id).glob("*.*") if path.name != PREVIEW)


def test_every_step_is_told_and_a_preview_is_shown(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job]
) -> None:
    job = claim(steps=4)
    maker(tiny_model, jobs, files)(job)
    told = [event.data for event in jobs.events(job.id) if event.kind == "progress"]
    assert [data["stage"] for data in told] == ["prepare", *["sample"] * 4, "decode", "decode", "write"]
    percent = [data["progress"] for data in told]
    assert percent == sorted(percent)
    previews = [event.data["step"] for event in jobs.events(job.id) if event.kind == "preview"]
    assert previews[0] == 1
    with Image.open(io.BytesIO((files.job(job.id) / PREVIEW).read_bytes())) as image:
        assert image.size == (64, 32)


def test_thumbnail_and_spritesheet_show_the_video(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job]
) -> None:
    job = claim(frames=9)
    maker(tiny_model, jobs, files)(job)
    frames, _ = read_video(files.content(job.id, "video"))
    with Image.open(files.content(job.id, "thumbnail")) as image:
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frames[4]).mean() < 12
    with Image.open(files.content(job.id, "spritesheet")) as sheet:
        assert sheet.size == (4 * 64, 3 * 32)
        first = np.asarray(sheet.convert("RGB"))[:32, :64].astype(int)
        assert np.abs(first - frames[0]).mean() < 12


def test_inputs_are_found_by_identifier_and_no_place_leaves_the_server(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], tmp_path: Path
) -> None:
    name = f"file-{'0' * 32}"
    place = files.upload(name, "picture")
    Image.new("RGB", (64, 32), (200, 30, 30)).save(place)
    job = claim({name: place}, image=name, keyframes=[f"{name}@8:0.5"])
    maker(tiny_model, jobs, files)(job)
    done = jobs.get("ann", job.id)
    assert done is not None
    assert done.resolved is not None
    assert (done.resolved["image"], done.resolved["keyframes"]) == (name, [f"{name}@8:0.5"])
    assert str(files.root).encode() not in files.content(job.id, "video").read_bytes()


def test_a_cancelled_job_stops_within_one_step_and_leaves_nothing(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claim(steps=50)
    steps = []
    report = jobs.report

    def cancel_at_the_third(job: Job, **news: Any) -> bool:
        if news["step"] == 3:
            jobs.cancel("ann", job.id)
        steps.append(news["step"])
        return report(job, **news)

    monkeypatch.setattr(jobs, "report", cancel_at_the_third)
    with pytest.raises(DroppedError):
        maker(tiny_model, jobs, files)(job)
    assert max(steps) == 3
    assert list((files.root / "scratch").iterdir()) == []


def test_a_deleted_job_leaves_no_files(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claim()
    finish = files.hand_over

    def deleted_first(source: Path, job_id: str) -> int:
        jobs.delete("ann", job_id)
        files.discard_job(job_id)
        return finish(source, job_id)

    monkeypatch.setattr(files, "hand_over", deleted_first)
    with pytest.raises(DroppedError):
        maker(tiny_model, jobs, files)(job)
    assert [path for name in ("jobs", "scratch", "trash") for path in (files.root / name).iterdir()] == []


def test_a_stopping_server_hands_the_job_back(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job]
) -> None:
    job, asked = claim(steps=50), []

    def after_five() -> bool:
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(StoppingError):
        maker(tiny_model, jobs, files, after_five)(job)
    assert jobs.release("w", "stopped", crashed=False)[0].status == "queued"


def test_what_only_the_model_can_refuse_is_a_request_error(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job]
) -> None:
    with pytest.raises(RequestError, match="skip_blocks"):
        maker(tiny_model, jobs, files)(claim(stg=1.0, skip_blocks=[99]))


class Endings:
    """Takes what is raised, as the worker does."""

    def __init__(self) -> None:
        self.raised: dict[str, Exception] = {}

    @contextmanager
    def __call__(self, job: Job) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.raised[job.id] = error


def test_jobs_made_together_are_the_videos_that_they_are_alone(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], tmp_path: Path
) -> None:
    batch = [claim(prompt=prompt, seed=seed) for seed, prompt in enumerate(("a ball", "a large red ball", "a cube"))]
    endings = Endings()
    assert maker(tiny_model, jobs, files).together(batch, endings) == []
    assert endings.raised == {}
    for job in batch:
        done = jobs.get("ann", job.id)
        assert done is not None
        assert (done.status, done.progress) == ("completed", 100)
        assert {event.data["stage"] for event in jobs.events(job.id) if event.kind == "progress"} >= {"sample", "write"}
        Generator(tiny_model)(GenerationRequest(**job.request)).save(tmp_path / "alone.mp4")
        alone, together = (read_video(path)[0] for path in (tmp_path / "alone.mp4", files.content(job.id, "video")))
        assert np.abs(together.astype(int) - alone).mean() < 0.1


def test_one_that_is_dropped_refused_or_unlike_leaves_the_others_alone(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, dropped, refused, unlike = claim(), claim(seed=4), claim(stg=1.0, skip_blocks=[99]), claim(frames=17)
    report = jobs.report

    def cancel_at_the_second(job: Job, **news: Any) -> bool:
        if news["step"] == 2 and job.id == dropped.id:
            jobs.cancel("ann", job.id)
        return report(job, **news)

    monkeypatch.setattr(jobs, "report", cancel_at_the_second)
    endings = Endings()
    left = maker(tiny_model, jobs, files).together([kept, dropped, refused, unlike], endings)
    assert [job.id for job in left] == [unlike.id]
    assert {job: type(error) for job, error in endings.raised.items()} == {
        dropped.id: DroppedError,
        refused.id: RequestError,
    }
    done = jobs.get("ann", kept.id)
    assert done is not None
    assert done.status == "completed"
    assert not files.content(dropped.id, "video").exists()


def test_what_fails_for_all_is_told_to_each(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, endings = [claim(), claim(seed=4)], Endings()

    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("as much as that")

    monkeypatch.setattr(tiny_model.transformer, "step", fails)
    assert maker(tiny_model, jobs, files).together(batch, endings) == []
    assert [type(endings.raised[job.id]) for job in batch] == [torch.OutOfMemoryError] * 2


def test_only_small_plain_jobs_are_made_together(
    tiny_model: LTXModel, jobs: Jobs, files: Files, claim: Callable[..., Job]
) -> None:
    make = maker(tiny_model, jobs, files)

    def ended(**request: Any) -> Job:
        job = claim(**request)
        jobs.fail(job, "done", "with it")
        return job

    small = ended(frames=9)
    assert make.most_together(small) > 4
    assert make.most_together(ended(frames=257, size="512x512")) == 1
    assert make.most_together(ended(frames=9, cache_threshold=0.1)) == 1
    assert make.most_together(ended(frames=10**9)) == 1  # refused when it is its turn
    assert is_like(small, ended(frames=9, prompt="a cube", seed=9, negative="fog"))
    assert not is_like(small, ended(frames=17))
    assert not is_like(small, ended(frames=9, image=f"file-{'0' * 32}"))
    claim()
    jobs.release("w", "crashed", crashed=True)
    again = jobs.claim("w")
    assert again is not None
    assert not is_plain(again)


def test_the_next_in_turn_is_taken_only_if_it_is_wanted(jobs: Jobs, enter: Enter) -> None:
    first = enter(jobs, request={"prompt": "a"})
    assert jobs.claim("w", lambda job: job.request["prompt"] == "b") is None
    taken = jobs.claim("w", lambda job: job.request["prompt"] == "a")
    assert taken is not None
    assert taken.id == first.id


def test_settings_reach_the_worker_whole(settings: ServerSettings) -> None:
    using = ModelFlags(model="m", lora=("a:0.5", "b"), text_encoder=Path("/t5"), residency="streamed")
    upscaling = UpscalerFlags(upscaler="u", first_pass=("steps=3",))
    given = ServerSettings(
        data=settings.data, using=using, upscaling=upscaling, threads=2, database="x", limits=Limits(queue=3)
    )
    assert ServerSettings.from_json(given.to_json()) == given
