"""The player and the gallery: stepping, looping, comparing, searching, going on, downloading."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from openltx.media.io import read_metadata


@pytest.fixture
def pair(server: Any) -> list[dict[str, Any]]:
    """Two finished videos that differ in seed and prompt."""
    made = [
        server.create(f"{colour} pair of shoes", seed=seed, steps=1)["id"]
        for seed, colour in ((1, "green"), (2, "blue"))
    ]
    return [server.finished(job) for job in made]


def times(studio: Any) -> list[float]:
    return studio.page.eval_on_selector_all("#screen video", "videos => videos.map(video => video.currentTime)")


def test_frames_are_stepped_scrubbed_and_looped_with_mouse_and_keys(visit: Any, server: Any, pair: Any) -> None:
    studio = visit(server).open(f"#{pair[0]['id']}")
    page, place = studio.page, studio.page.locator("#place")
    studio.video()
    page.get_by_role("button", name="Pause").click()
    page.locator("#scrub").fill("4")
    expect(place).to_have_text("5 / 9 · 0.5 s")
    page.get_by_role("button", name="One frame on").click()
    expect(place).to_contain_text("6 / 9")
    page.locator("#about .prompt").click()  # the focus is nowhere: the page's own keys work
    for key, frame in ((",", 5), (".", 6), (".", 7)):
        page.keyboard.press(key)
        expect(place).to_contain_text(f"{frame} / 9")
    page.wait_for_function("() => Math.abs(document.querySelector('#screen video').currentTime - 6.5 / 8) < 0.01")
    page.keyboard.press("l")
    expect(page.get_by_role("button", name="Loop")).to_have_attribute("aria-pressed", "false")
    page.keyboard.press(" ")
    page.wait_for_function("() => document.querySelector('#screen video').ended")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Help and keys")).to_be_visible()
    page.get_by_label("Keys without Ctrl are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("l")
    expect(page.get_by_role("button", name="Loop")).to_have_attribute("aria-pressed", "false")


def test_two_videos_are_compared_in_step(visit: Any, server: Any, pair: Any) -> None:
    studio = visit(server).open(f"#{pair[0]['id']}")
    page = studio.page
    page.get_by_label("Search the gallery").fill("pair shoes blue")
    expect(page.locator(".card:visible")).to_have_count(
        len([1 for card in page.locator(".card .name").all_inner_texts() if "blue pair" in card])
    )
    card = page.locator(f'.card[data-id="{pair[1]["id"]}"]')
    card.hover()
    card.get_by_role("button", name="Compare with blue pair of shoes").click()
    studio.video(0), studio.video(1)
    table = page.locator("#about table")
    expect(table).to_contain_text("green pair of shoes")
    expect(table.get_by_role("row", name="Seed 1 2")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    page.locator("#scrub").fill("6")
    page.wait_for_function(
        "() => [...document.querySelectorAll('#screen video')].every(v => Math.abs(v.currentTime - 6.5 / 8) < 0.01)"
    )
    page.get_by_role("button", name="Play", exact=True).click()
    page.wait_for_function("() => [...document.querySelectorAll('#screen video')].every(v => !v.paused)")
    page.get_by_role("button", name="Show only the first video").click()
    expect(page.locator("#screen video")).to_have_count(1)


def test_a_video_is_gone_on_from_downloaded_and_deleted(visit: Any, server: Any, pair: Any, tmp_path: Path) -> None:
    job = pair[0]
    studio = visit(server).open(f"#{job['id']}")
    page = studio.page
    studio.video()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the video").click()
    assert download.value.suggested_filename == "green-pair-of-shoes-1.mp4"
    download.value.save_as(tmp_path / "video.mp4")
    assert '"green pair of shoes"' in read_metadata(tmp_path / "video.mp4")["request"]

    page.get_by_role("button", name="Start a new video from the last frame").click()
    expect(page.locator("#pins li")).to_contain_text("A frame of “green pair of shoes”")
    studio.fill(prompt="from the last frame", steps=1)
    assert server.finished(studio.generate())["request"]["keyframes"] == [f"{job['id']}[-1:]@0:1"]

    page.locator(f'.card[data-id="{job["id"]}"] .open').click()
    page.get_by_role("button", name="Go on from the end").click()
    expect(page.locator("#continued")).to_contain_text("green pair of shoes")
    studio.fill(prompt="and it goes on", steps=1, frames=8)
    longer = server.finished(studio.generate())
    assert (longer["status"], longer["extended_from_video_id"]) == ("completed", job["id"])
    assert float(longer["seconds"]) > float(job["seconds"])

    page.locator(f'.card[data-id="{job["id"]}"] .open').click()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete this video").click()
    expect(page.locator(f'.card[data-id="{job["id"]}"]')).to_have_count(0)
    assert server.call("GET", f"/v1/videos/{job['id']}").status == 404
