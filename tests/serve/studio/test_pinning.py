"""Pictures, clips and settings that are dropped, pasted, dragged, and moved with keys."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from openltx.media.io import write_video


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "start.png"
    Image.fromarray(np.full((32, 64, 3), (200, 40, 40), np.uint8)).save(path)
    return path


def test_a_picture_is_dropped_dragged_to_frame_0_and_moved_with_keys(studio: Any, server: Any, picture: Path) -> None:
    page = studio.page
    studio.fill(prompt="it starts with a picture", frames=17)
    studio.drop(picture, "image/png", "#track", 0.98)
    pin = page.get_by_role("slider", name="start.png")
    expect(pin).to_have_attribute("aria-valuenow", "16")
    expect(page.locator("#pins li")).not_to_contain_text("uploading")
    box, track = pin.bounding_box(), page.locator("#track").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(track["x"] + 60, box["y"] + 20, steps=4)
    page.mouse.move(track["x"] + 5, box["y"] + 20)
    page.mouse.up()
    expect(pin).to_have_attribute("aria-valuenow", "0")
    pin.focus()
    for key, frame in (("ArrowRight", "1"), ("Shift+ArrowRight", "9"), ("End", "16"), ("Home", "0")):
        page.keyboard.press(key)
        expect(pin).to_have_attribute("aria-valuenow", frame)
    page.locator("#pins").get_by_label("Strength").fill("0.8")
    page.reload()  # at once: no change is lost
    pin = page.get_by_role("slider", name="start.png")
    expect(pin).to_have_attribute("aria-valuetext", "frame 0, strength 0.8")
    request = server.finished(studio.generate())["request"]
    (upload,) = (one["id"] for one in server.call("GET", "/v1/files").json()["data"] if one["filename"] == "start.png")
    assert request["keyframes"] == [f"{upload}@0:0.8"]

    page.reload()  # the draft stays, with its picture
    expect(page.get_by_role("slider", name="start.png")).to_have_attribute("aria-valuetext", "frame 0, strength 0.8")
    page.get_by_role("slider", name="start.png").press("Delete")
    expect(page.locator(".pin")).to_have_count(0)


def test_pictures_are_pasted_clips_pinned_and_nonsense_refused_in_words(
    studio: Any, tmp_path: Path, picture: Path
) -> None:
    page = studio.page
    studio.fill(frames=25)
    studio.paste(picture, "image/png")
    expect(page.get_by_role("slider", name="start.png")).to_have_attribute("aria-valuenow", "0")
    clip = tmp_path / "clip.mp4"
    write_video(clip, np.zeros((9, 32, 64, 3), np.uint8), 8.0)
    studio.drop(clip, "video/mp4", "#track", 0.3)
    expect(page.get_by_role("slider", name="clip.mp4")).to_have_attribute("aria-valuenow", "8")
    expect(page.locator("#pins li").nth(1)).not_to_contain_text("uploading")
    nonsense = tmp_path / "nonsense.png"
    nonsense.write_bytes(b"this is no picture")
    studio.drop(nonsense, "image/png", "#track")
    expect(page.locator("#problems")).to_contain_text("nonsense.png: This is no picture and no video")
    expect(page.locator("#pins li")).to_have_count(2)


def test_a_video_made_by_openltx_brings_its_settings_back(studio: Any, server: Any, tmp_path: Path) -> None:
    job = server.finished(
        server.create("a cube that knows its settings", steps=2, seed=77, cfg=1.5, decode_timestep=0.1)["id"]
    )
    video = tmp_path / "cube.mp4"
    video.write_bytes(server.call("GET", f"/v1/videos/{job['id']}/content").body)
    studio.drop(video, "video/mp4", "body")
    page = studio.page
    expect(page.locator("#prompt")).to_have_value("a cube that knows its settings")
    assert [page.locator(f"#{name}").input_value() for name in ("seed", "steps", "cfg")] == ["77", "2", "1.5"]
    again = server.finished(studio.generate())
    assert again["request"] == job["request"]
    first, second = (server.call("GET", f"/v1/videos/{one['id']}/content").body for one in (job, again))
    assert len(first) == len(second)
