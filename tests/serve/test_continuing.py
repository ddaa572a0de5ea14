"""Videos from videos: continued, edited, with pictures and clips at any frame, and settings that come back."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from openltx.media.io import read_metadata, read_video, write_video

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def client(server: Any) -> Any:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of 40x36 that become brighter, at 10 a second."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames = np.stack([np.full((36, 40, 3), 5 + 10 * index, np.uint8) for index in range(20)])
    write_video(path, frames, 10.0, crf=4)
    return path


def png(colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


def frames_of(client: Any, video: str, place: Path) -> tuple[np.ndarray, float]:
    client.videos.download_content(video).write_to_file(place)
    return read_video(place)


def test_an_extension_is_the_old_video_and_more_of_it(client: Any, server: Any, tmp_path: Path) -> None:
    first = server.finished(server.create(frames=17, steps=2)["id"])
    old, fps = frames_of(client, first["id"], tmp_path / "old.mp4")
    fields = {"prompt": "it goes on", "seconds": "1", "video[id]": first["id"], "steps": "2"}  # as the client's form
    body, kind = server.form(fields, {})
    asked = server.call("POST", "/v1/videos/extensions", body, {"Content-Type": kind}).json()
    done = server.finished(asked["id"])
    assert (done["status"], done["extended_from_video_id"]) == ("completed", first["id"])
    assert float(done["seconds"]) == (17 + 8) / fps
    assert done["size"] == first["size"]
    whole, new_fps = frames_of(client, asked["id"], tmp_path / "whole.mp4")
    assert (len(whole), new_fps) == (17 + 8, fps)
    assert np.abs(whole[:17].astype(int) - old).mean() < 8  # noise, coded once more
    assert done["request"]["keyframes"] == [f"{first['id']}[-17:]@0"]
    assert '"overlap": 17' in read_metadata(tmp_path / "whole.mp4")["extends"]
    again = server.call("POST", f"/v1/videos/{asked['id']}/remix", {"seconds": "2"}).json()
    remixed = server.finished(again["id"])
    assert remixed["extended_from_video_id"] == first["id"]
    assert len(frames_of(client, remixed["id"], tmp_path / "again.mp4")[0]) == 17 + 16


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_an_uploaded_clip_is_continued_and_edited(client: Any, server: Any, clip: Path, tmp_path: Path) -> None:
    wishes = {"overlap": 9, "steps": 2}
    longer = client.videos.extend(prompt="on", seconds="1", video=clip, extra_body=wishes)
    anew = client.videos.edit(prompt="other", video=clip, extra_body={"steps": 3})
    done = server.finished(longer.id)
    assert (done["status"], done["size"]) == ("completed", "40x36")
    whole, fps = frames_of(client, longer.id, tmp_path / "whole.mp4")
    assert (whole.shape, fps) == ((20 + 10, 36, 40, 3), 10)
    assert np.abs(whole[:20].mean((1, 2, 3)) - (5 + 10 * np.arange(20))).max() < 4
    edited = server.finished(anew.id)
    assert (edited["status"], edited["size"]) == ("completed", "40x36")
    assert edited["request"]["skip_initial"] == 1
    assert frames_of(client, anew.id, tmp_path / "anew.mp4")[0].shape == (17, 36, 40, 3)


@pytest.mark.parametrize(
    ("path", "fields", "status", "expected"),
    [
        ("extensions", {}, 400, "video"),
        ("extensions", {"video": {"id": f"video_{'0' * 32}"}}, 404, "no finished video"),
        ("extensions", {"video": {"id": "../server.db"}}, 400, "video"),
        ("extensions", {"video": "PICTURE"}, 400, "a picture"),
        ("extensions", {"video": "VIDEO", "seconds": "1", "frames": 9}, 400, "Both"),
        ("extensions", {"video": "VIDEO", "frames": 9, "image": "PICTURE"}, 400, "leave image"),
        ("extensions", {"video": "VIDEO", "frames": 9, "fps": 3.0}, 400, "frames a second"),
        ("extensions", {"video": "VIDEO", "overlap": 0}, 400, "overlap"),
        ("edits", {"video": {"name": "x"}}, 400, "video"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    server: Any, path: str, fields: dict[str, Any], status: int, expected: str
) -> None:
    named = {"PICTURE": server.upload(png()).json()["id"], "VIDEO": server.finished(server.create(steps=1)["id"])["id"]}
    asked = {name: named.get(value, value) if isinstance(value, str) else value for name, value in fields.items()}
    answer = server.call("POST", f"/v1/videos/{path}", {"prompt": "on", **asked})
    assert answer.status == status, answer.body
    assert expected in answer.error["message"] + str(answer.error["param"])


def test_pictures_and_clips_are_shown_at_their_frames(server: Any, client: Any, clip: Path, tmp_path: Path) -> None:
    picture = server.upload(png((10, 200, 10))).json()["id"]
    moving = server.upload(clip.read_bytes(), "x.mp4", "video/mp4").json()["id"]
    data = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    job = server.create(
        frames=25,
        size="64x32",
        steps=2,
        conditioning=[
            {"image_url": data},
            {"file_id": moving, "frame": 8, "strength": 0.75, "first": -9},
            {"file_id": picture, "frame": -1},
        ],
    )
    done = server.finished(job["id"])
    assert done["status"] == "completed", done
    first, clip_word, last = done["request"]["keyframes"]
    assert first.endswith("@0:1")
    assert clip_word == f"{moving}[-9:]@8:0.75"
    assert last == f"{picture}@-1:1"
    for wrong, expected in (
        ({"frame": 0}, "no file"),
        ({"file_id": picture, "strength": 0}, "greater than 0"),
        ({"file_id": "/etc/passwd"}, "match pattern"),
        ({"file_id": picture, "image_url": data}, "not both"),
    ):
        answer = server.call("POST", "/v1/videos", {"prompt": "a", "conditioning": [wrong]})
        assert answer.status == 400
        assert answer.error["param"] == "conditioning"
        assert expected in answer.error["message"]


def test_what_fails_in_the_worker_names_no_place_on_the_disk(server: Any, clip: Path) -> None:
    moving = server.upload(clip.read_bytes(), "x.mp4", "video/mp4").json()["id"]
    job = server.finished(server.create(video=moving, frames=33, skip_initial=1, steps=2)["id"])
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
    assert "too short" in job["error"]["message"]
    assert str(server.data) not in job["error"]["message"]


def test_the_settings_of_a_video_come_back(server: Any, tmp_path: Path) -> None:
    picture = server.upload(png()).json()["id"]
    job = server.finished(server.create("a green box", steps=2, seed=5, cfg=1.5, image=picture)["id"])
    content = server.call("GET", f"/v1/videos/{job['id']}/content").body
    body, kind = server.form({}, {"file": ("my.mp4", content, "video/mp4")})
    back = server.call("POST", "/v1/videos/settings", body, {"Content-Type": kind})
    assert back.status == 200, back.body
    found = back.json()
    assert (found["model"], found["missing"]) == ("tiny", [])
    wanted = {"prompt": "a green box", "steps": 2, "seed": 5, "cfg": 1.5, "image": picture, "frames": 9}
    assert {name: found["request"][name] for name in wanted} == wanted
    again = server.finished(server.call("POST", "/v1/videos", found["request"]).json()["id"])
    assert server.call("GET", f"/v1/videos/{again['id']}/content").body[-2000:] == content[-2000:]
    server.call("DELETE", f"/v1/files/{picture}")
    gone = server.call("POST", "/v1/videos/settings", body, {"Content-Type": kind}).json()
    assert (gone["missing"], "image" in gone["request"]) == (["image"], False)


@pytest.mark.parametrize(
    "metadata", [{}, {"request": "[]"}, {"request": '{"prompt": 5}'}, {"request": '{"prompt": "a", "x": 1}'}]
)
def test_a_video_without_settings_is_told_so(server: Any, tmp_path: Path, metadata: dict[str, str]) -> None:
    for name in ("x.mp4", "x.gif", "x.png"):
        frames = np.zeros((1 if name == "x.png" else 3, 32, 32, 3), np.uint8)
        write_video(tmp_path / name, frames, 10.0, metadata)
        body, kind = server.form({}, {"file": (name, (tmp_path / name).read_bytes(), "video/mp4")})
        answer = server.call("POST", "/v1/videos/settings", body, {"Content-Type": kind})
        assert (answer.status, answer.error["code"]) == (400, "no_settings")
    for content in (b"nonsense", png()[:40]):
        body, kind = server.form({}, {"file": ("x", content, "video/mp4")})
        answer = server.call("POST", "/v1/videos/settings", body, {"Content-Type": kind})
        assert answer.status == 400
