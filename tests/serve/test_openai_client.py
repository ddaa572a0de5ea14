"""The acceptance test: the official ``openai`` client against a running server."""

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from openltx.media.io import read_video

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def png(size: tuple[int, int] = (64, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def poll(client: Any, **fields: Any) -> Any:
    return client.videos.create_and_poll(prompt="a red ball", poll_interval_ms=50, **fields)


def test_create_and_poll_then_download_every_variant(client: Any, tmp_path: Path) -> None:
    video = poll(client, seconds="2", size="64x32", model="tiny")
    assert (video.status, video.progress, video.object) == ("completed", 100, "video")
    assert (video.seconds, video.size, video.model) == ("2", "64x32", "tiny")
    assert video.error is None
    assert video.completed_at >= video.created_at
    assert video.expires_at > video.completed_at
    client.videos.download_content(video.id).write_to_file(tmp_path / "ball.mp4")
    frames, fps = read_video(tmp_path / "ball.mp4")
    assert (frames.shape, fps) == ((16, 32, 64, 3), 8)
    for variant in ("thumbnail", "spritesheet"):
        content = client.videos.download_content(video.id, variant=variant).read()
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == {"thumbnail": "WEBP", "spritesheet": "JPEG"}[variant]


def test_sizes_off_the_grid_are_made(client: Any, tmp_path: Path) -> None:
    video = poll(client, size="50x40")
    assert (video.status, video.size) == ("completed", "50x40")
    client.videos.download_content(video.id).write_to_file(tmp_path / "x.mp4")
    assert read_video(tmp_path / "x.mp4")[0].shape == (9, 40, 50, 3)


def test_extension_fields_go_through_extra_body(client: Any) -> None:
    wishes = {"steps": 2, "seed": 7, "cfg": 1.5, "negative": "a box", "stochastic": True, "skip_blocks": [0]}
    video = poll(client, extra_body=wishes)
    assert video.status == "completed"
    assert {name: video.request[name] for name in wishes} == wishes


def test_an_input_reference_is_sent_as_a_file_an_upload_or_a_data_url(client: Any) -> None:
    by_file = poll(client, input_reference=("start.png", png(), "image/png"))
    upload = client.files.create(file=("start.png", png()), purpose="vision")
    assert (upload.object, upload.filename, upload.purpose) == ("file", "start.png", "vision")
    by_id = poll(client, extra_body={"input_reference": {"file_id": upload.id}})
    url = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    by_url = poll(client, extra_body={"input_reference": {"image_url": url}})
    by_field = poll(client, extra_body={"image": upload.id})
    assert by_file.status == by_url.status == by_id.status == by_field.status == "completed"
    assert by_id.request["image"] == by_field.request["image"] == upload.id
    assert client.files.retrieve(upload.id).id == upload.id
    assert upload.id in [file.id for file in client.files.list()]
    assert client.files.delete(upload.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(upload.id)


def test_list_pages_through_all_videos_latest_first(client: Any) -> None:
    made = [client.videos.create(prompt=f"ball {index}").id for index in range(3)]
    pages = client.videos.list(limit=2)
    assert [video.id for video in pages.data] == made[:0:-1]
    every = [video.id for video in client.videos.list(limit=2)]
    assert every[:3] == made[::-1]
    assert len(every) == len(set(every))
    assert [video.id for video in client.videos.list(order="asc", limit=100)] == every[::-1]


def test_remix_keeps_the_settings_and_takes_another_prompt_and_seed(client: Any) -> None:
    source = poll(client, size="64x64", extra_body={"steps": 2, "seed": 5})
    remix = client.videos.remix(source.id, prompt="a blue ball")
    assert remix.remixed_from_video_id == source.id
    remix = client.videos.poll(remix.id, poll_interval_ms=50)
    assert (remix.status, remix.size, remix.request["steps"]) == ("completed", "64x64", 2)
    assert remix.request["prompt"] == "a blue ball"
    assert remix.request["seed"] != 5


def test_delete_then_nothing_is_left(client: Any, server: Any) -> None:
    video = poll(client)
    deleted = client.videos.delete(video.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (video.id, "video.deleted", True)
    assert not (server.data / "jobs" / video.id).exists()
    for call in (client.videos.retrieve, client.videos.download_content, client.videos.delete):
        with pytest.raises(openai.NotFoundError):
            call(video.id)


def test_models_are_listed_and_retrieved(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "openltx"


def test_mistakes_are_the_clients_own_error_classes(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.videos.create(prompt="")
    assert "prompt is empty" in refusal.value.message
    with pytest.raises(openai.BadRequestError) as refusal:
        client.videos.create(prompt="a ball", extra_body={"colour": "red"})
    assert (refusal.value.code, refusal.value.param) == ("unknown_parameter", "colour")
    with pytest.raises(openai.NotFoundError) as refusal:
        client.videos.create(prompt="a ball", model="sora-2")
    assert (refusal.value.code, refusal.value.type) == ("model_not_found", "invalid_request_error")
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(f"video_{'0' * 32}")
    with pytest.raises(openai.NotFoundError):
        client.videos.create(prompt="a ball", extra_body={"image": f"file-{'0' * 32}"})


def test_content_of_an_unfinished_video_is_a_conflict(client: Any) -> None:
    video = client.videos.create(prompt="a ball", extra_body={"steps": 200})
    with pytest.raises(openai.ConflictError) as refusal:
        client.videos.download_content(video.id)
    assert refusal.value.code == "video_not_ready"
    client.videos.delete(video.id)


def test_a_repeated_idempotency_key_makes_one_video(client: Any) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.videos.create(prompt="a ball", extra_headers=headers)
    assert client.videos.create(prompt="a ball", extra_headers=headers).id == first.id
    with pytest.raises(openai.ConflictError) as refusal:
        client.videos.create(prompt="another ball", extra_headers=headers)
    assert refusal.value.code == "idempotency_key_reused"
    picture = {"input_reference": ("start.png", png(), "image/png"), "extra_headers": {"Idempotency-Key": "twice"}}
    kept = client.videos.create(prompt="a ball", **picture)
    assert client.videos.create(prompt="a ball", **picture).id == kept.id
    other = {**picture, "input_reference": ("start.png", png((32, 32)), "image/png")}
    with pytest.raises(openai.ConflictError):
        client.videos.create(prompt="a ball", **other)
