"""Captions: cleaned of their captioners' habits; a model and an endpoint are really asked; nothing is asked twice."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("scenedetect")

from benchmarks.data_videos import encode, picture
from openltx.data.prepare.captioners import EndpointCaptioner, ModelCaptioner
from openltx.data.prepare.captions import clean, statistics
from openltx.data.prepare.run import Prepared, prepare
from openltx.data.prepare.settings import (
    BucketSettings,
    CaptionSettings,
    CutSettings,
    MotionSettings,
    OverlaySettings,
    PrepareSettings,
    SharpnessSettings,
)
from openltx.data.prepare.workers import Processes
from openltx.errors import CheckpointError, DataError


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The video shows a dog that runs.", "A dog that runs."),
        ("In this video, the camera captures a dog. It ru", "The camera captures a dog."),
        ('"**A dog** runs\n  over sand."', "A dog runs over sand."),
        ("Assistant: This clip depicts a dog. It runs. It runs. It runs.", "A dog. It runs."),
        ("I'm sorry, but I cannot see the video.", ""),
        ("a dog", "A dog"),
        ("The scene opens with a dog. " + "It runs on and on. " * 1, "A dog. It runs on and on."),
        ("One two three. Four five six. Seven eight.", "One two three. Four five six."),
        ("", ""),
    ],
)
def test_captions_lose_their_captioners_habits(text: str, cleaned: str) -> None:
    assert clean(text, max_words=7) == cleaned


@dataclass
class Stub:
    """A server that speaks the chat API and remembers what it was asked; it fails the first time."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    fails: int = 1


@pytest.fixture
def stub() -> Iterator[Stub]:
    state = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if state.fails:
                state.fails -= 1
                self.send_error(503)
                return
            state.asked.append(body)
            text = f"The video shows boxes that drift, number {len(state.asked)}. And th"
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": text}}],
            }
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    server.server_close()


def prepared(folder: Path, caption: CaptionSettings) -> Prepared:
    """A set of two clips."""
    if not (folder / "videos").exists():
        (folder / "videos").mkdir()
        for seed in (1, 2):
            encode(folder / "videos" / f"{seed}.mp4", picture(18, seed=seed))
    settings = PrepareSettings(
        cut=CutSettings(frames=17, min_frames=9),
        sharpness=SharpnessSettings(max_blur=1.0),
        overlay=OverlaySettings(max_share=1.0),
        motion=MotionSettings(max_frozen=9.0),
        bucket=BucketSettings(sizes=("96x64x17",)),
        caption=caption,
    )
    return prepare([folder / "videos"], folder / "set", settings, runner=Processes(1))


def test_an_endpoint_is_shown_frames_and_asked_once_for_each_clip(stub: Stub, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    settings = CaptionSettings(backend="endpoint", model="eyes", url=stub.url, frames=3, prompt="What is it?")
    made = prepared(tmp_path, settings)
    captions = [f"Boxes that drift, number {number}." for number in (1, 2)]
    assert sorted(clip.caption for clip in made.clips) == captions
    *shown, question = stub.asked[0]["messages"][0]["content"]
    assert question == {"type": "text", "text": "What is it?"}
    assert stub.asked[0]["model"] == "eyes"
    for part in shown:
        content = base64.b64decode(part["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        assert Image.open(io.BytesIO(content)).size == (128, 96)
    assert len(shown) == 3
    assert [c.caption for c in prepared(tmp_path, settings).clips] == [c.caption for c in made.clips]
    assert len(stub.asked) == 2
    found = json.loads((tmp_path / "set" / "statistics.json").read_text())
    assert found["captioned"] == 2
    assert found["word_cloud"]["boxes"] == 2
    assert sum(found["words"]["count"]) == sum(found["durations"]["count"]) == 2


def test_an_endpoint_that_is_not_there_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0)
    monkeypatch.setattr("openltx.data.prepare.captioners._client", lambda _: client)
    with pytest.raises(DataError, match="did not answer"):
        EndpointCaptioner("http://127.0.0.1:9/v1", "eyes", "What?").caption([Image.new("RGB", (8, 8))])


def test_a_vision_language_model_captions(tiny_vlm: Path, tmp_path: Path) -> None:
    made = prepared(tmp_path, CaptionSettings(backend="model", model=str(tiny_vlm), frames=2))
    again = ModelCaptioner(str(tiny_vlm), "What?").caption([Image.new("RGB", (30, 20), "red")])
    assert again == ModelCaptioner(str(tiny_vlm), "What?").caption([Image.new("RGB", (30, 20), "red")])
    assert len(again.split()) > 3
    assert all(clip.caption for clip in made.clips)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be loaded as a vision-language model"):
        ModelCaptioner(str(tmp_path), "What?").caption([])


def test_clips_without_a_caption_can_be_dropped(tmp_path: Path) -> None:
    prepared(tmp_path, CaptionSettings())
    (tmp_path / "videos" / "1.txt").write_text("Boxes drift.")
    made = prepared(tmp_path, CaptionSettings(required=True))
    assert [clip.caption for clip in made.clips] == ["Boxes drift."]
    assert [r.dropped for r in made.records if r.source == "2.mp4"] == [("without a caption",)]
    assert statistics(made.records)["clips"] == 2
