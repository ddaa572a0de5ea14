"""Stages: each finds what it is for in frames where that is known, and nothing where it is not."""

import numpy as np
import pytest

pytest.importorskip("cv2")

from benchmarks.data_videos import known_clips, picture
from openltx.data.prepare.crop import Crop
from openltx.data.prepare.fingerprint import perceptual_hash
from openltx.data.prepare.motion import Motion
from openltx.data.prepare.overlay import Overlay
from openltx.data.prepare.settings import CropSettings, MotionSettings, OverlaySettings, SharpnessSettings
from openltx.data.prepare.sharpness import Sharpness, blur
from openltx.data.prepare.stage import KEYS, Look
from openltx.media.contact_sheet import evenly_spaced


def look_at(frames: np.ndarray, fps: float = 24.0) -> Look:
    return Look(fps=fps, small=frames, keys=frames[evenly_spaced(len(frames), KEYS)])


@pytest.mark.parametrize("bars", [(0, 0, 0, 0), (14, 14, 0, 0), (0, 0, 20, 20), (8, 22, 12, 6)])
def test_black_bars_are_measured_to_the_pixel(bars: tuple[int, int, int, int]) -> None:
    frames = picture(12, seed=3, size=(144, 192))
    top, bottom, left, right = bars
    noise = np.random.default_rng(0).integers(0, 12, frames.shape, np.uint8)
    mask = np.zeros(frames.shape[1:3], bool)
    mask[:top] = mask[144 - bottom :] = True
    mask[:, :left] = mask[:, 192 - right :] = True
    frames[:, mask] = noise[:, mask]
    found = Crop(CropSettings()).measure(look_at(frames))
    assert tuple(found[side] for side in ("top", "bottom", "left", "right")) == bars


def test_a_dark_scene_without_an_edge_keeps_its_borders_and_black_frames_are_dropped() -> None:
    ramp = np.linspace(0, 90, 120)[:, None, None] * np.ones((1, 160, 3))
    stage = Crop(CropSettings())
    assert stage.measure(look_at(np.stack([ramp] * 6).astype(np.uint8)))["left_over"] == 1.0
    black = stage.measure(look_at(np.full((6, 64, 96, 3), 9, np.uint8)))
    assert stage.objection(black) == "nothing but black"


def test_a_border_that_is_black_only_for_a_while_is_no_bar() -> None:
    frames = picture(20, seed=4, size=(144, 192))
    frames[:, :20] = 0
    frames[7:9, :20] = 180
    assert Crop(CropSettings()).measure(look_at(frames))["top"] == 0


def test_standstill_and_shaking_are_told_from_motion_and_from_a_pan() -> None:
    stage = Motion(MotionSettings())
    base = picture(48, seed=5, size=(144, 256))
    assert stage.objection(stage.measure(look_at(base))) is None
    texture = picture(1, seed=6, size=(160, 512))[0]
    pan = np.stack([texture[:144, 3 * i : 3 * i + 256] for i in range(40)])
    assert stage.objection(stage.measure(look_at(pan))) is None
    on_twos = np.repeat(pan[::2], 2, axis=0)
    assert stage.objection(stage.measure(look_at(on_twos))) is None
    still = stage.measure(look_at(np.repeat(base[:1], 30, axis=0)))
    assert stage.objection(still) is not None
    assert still["frozen"] == 1.0
    places = np.random.default_rng(0).integers(0, 12, (40, 2))
    shaken = np.stack([texture[y : y + 144, x : x + 256] for y, x in places])
    assert "jittery" in str(stage.objection(stage.measure(look_at(shaken))))


def test_blur_is_that_of_scikit_image_and_grows_with_blurring() -> None:
    measure = pytest.importorskip("skimage.measure")
    cv2 = pytest.importorskip("cv2")
    frame = picture(1, seed=7, size=(200, 240))[0]
    noisy = (frame + np.random.default_rng(1).normal(0, 9, frame.shape)).clip(0, 255).astype(np.uint8)
    grey = [cv2.cvtColor(cv2.GaussianBlur(noisy, (0, 0), s), cv2.COLOR_RGB2GRAY) for s in (0.3, 1.0, 2.0, 4.0)]
    ours = [blur(g.astype(np.float32)) for g in grey]
    theirs = [measure.blur_effect(g.astype(float)) for g in grey]
    assert ours == sorted(ours)
    assert ours == pytest.approx(theirs, abs=0.03)


def test_dark_light_and_blurred_clips_are_dropped() -> None:
    stage = Sharpness(SharpnessSettings())
    frames = picture(6, seed=8)
    assert stage.objection(stage.measure(look_at((frames // 20).astype(np.uint8)))) is not None
    assert "too light" in str(stage.objection(stage.measure(look_at(np.full_like(frames, 250)))))
    soft = np.linspace(40, 200, 128)[None, None, :, None] * np.ones((6, 96, 1, 3))
    assert "blurred" in str(stage.objection(stage.measure(look_at(soft.astype(np.uint8)))))


def test_text_that_stays_in_place_is_found_and_a_moving_picture_is_none() -> None:
    from PIL import Image, ImageDraw, ImageFont

    stage = Overlay(OverlaySettings())
    frames = np.stack([np.array(Image.fromarray(f).resize((640, 360))) for f in picture(10, seed=9, size=(180, 320))])
    assert stage.objection(stage.measure(look_at(frames))) is None
    written = []
    for frame in frames:
        page = Image.fromarray(frame)
        draw = ImageDraw.Draw(page)
        for line, top in (("A subtitle that tells a story", 300), ("and goes on below", 325)):
            draw.text(
                (180, top), line, font=ImageFont.load_default(20), fill="white", stroke_width=2, stroke_fill="black"
            )
        written.append(np.array(page))
    found = stage.measure(look_at(np.stack(written)))
    assert found["lines"] >= 1
    assert "text" in str(stage.objection(found))


def test_copies_hash_alike_and_other_pictures_do_not() -> None:
    clips = {clip.name: clip.frames for clip in known_clips([picture(8, seed=s, size=(180, 320)) for s in (1, 2)])}
    clean, again, other = (perceptual_hash(clips[name][4]) for name in ("000-clean", "000-again", "001-clean"))
    assert (clean ^ again).bit_count() <= 3
    assert (clean ^ other).bit_count() >= 16
