"""The Playroom world: what it promises about its clips holds in the simulation, in the pictures and on disk."""

import importlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openltx.data.manifest import read_manifest
from openltx.data.worlds.playroom import generate
from openltx.data.worlds.playroom.camera import path
from openltx.data.worlds.playroom.clip import Performance, draw, perform, truth_of
from openltx.data.worlds.playroom.events import MIN_IN_VIEW
from openltx.data.worlds.playroom.formats import MIXED, parse_formats
from openltx.data.worlds.playroom.render import Renderer
from openltx.data.worlds.playroom.scene import ACTORS, PALETTE, Camera, is_distinct, lab, sample_scene
from openltx.data.worlds.playroom.split import HELDOUT_COMBINATIONS, all_combinations, split_of
from openltx.errors import DataError
from openltx.geometry import VideoShape
from openltx.media.io import read_video

SEED = 11
SIGNS = {"left": -1, "right": 1}


@pytest.fixture(scope="module")
def performances() -> list[Performance]:
    """Simulated scenes, not drawn."""
    return [perform(SEED, index) for index in range(60)]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return importlib.import_module("openltx.data.worlds.playroom.generate")._renderer()


def test_a_clip_depends_on_seed_and_index_only(renderer: Renderer) -> None:
    first = draw(perform(SEED, 3), renderer)
    draw(perform(SEED, 4), renderer)
    np.testing.assert_array_equal(draw(perform(SEED, 3), renderer), first)
    assert truth_of(perform(SEED, 3), SEED, 3) == truth_of(perform(SEED, 3), SEED, 3)
    assert truth_of(perform(SEED + 1, 3), SEED + 1, 3) != truth_of(perform(SEED, 3), SEED, 3)


def test_every_event_and_shape_occurs(performances: list[Performance]) -> None:
    assert {p.scene.event for p in performances} == set(ACTORS)
    assert {o.shape for p in performances for o in p.scene.objects} == {"ball", "cube", "cylinder", "capsule", "cone"}
    assert {p.scene.frames % 8 for p in performances} == {1}


def test_motion_to_a_side_is_seen_to_go_there(performances: list[Performance]) -> None:
    sideways = [p for p in performances if p.scene.event in ("roll", "slide") and p.scene.direction in SIGNS]
    assert len(sideways) >= 5
    for p in sideways:
        seen = [point for point in p.tracks[0] if point is not None]
        assert SIGNS[p.scene.direction] * (seen[-1][0] - seen[0][0]) > 30


def test_motion_in_depth_changes_the_size(performances: list[Performance]) -> None:
    deep = [p for p in performances if p.scene.direction in ("toward", "away")]
    assert len(deep) >= 3
    for p in deep:
        seen = [point for point in p.tracks[0] if point is not None]
        assert (seen[-1][2] > 1.25 * seen[0][2]) == (p.scene.direction == "toward")


def test_bounces_are_the_peaks_of_the_height_curve(performances: list[Performance]) -> None:
    balls = [p for p in performances if p.scene.event == "bounce"]
    assert {p.facts.bounces for p in balls} >= {1, 2}
    for p in balls:
        height = p.motion.positions[:, 0, 2]
        assert _rises(height, 0.08) <= p.facts.bounces <= _rises(height, 0.025)
        contact = p.facts.first_contact_frame
        assert height[contact - 1 : contact + 1].min() < p.solids[0].width * 1.35


def test_a_collision_begins_when_the_objects_meet_and_moves_the_other(performances: list[Performance]) -> None:
    collisions = [p for p in performances if p.scene.event == "collide"]
    assert len(collisions) >= 3
    for p in collisions:
        other, contact = p.motion.positions[:, 1], p.facts.first_contact_frame
        assert np.abs(other[contact - 1] - other[0]).max() < 0.02
        assert SIGNS[p.scene.direction] * (other[-1, 0] - other[0, 0]) > 0.1


def test_what_topples_ends_on_its_side(performances: list[Performance]) -> None:
    toppled = [p for p in performances if p.scene.event == "topple"]
    assert len(toppled) >= 2
    for p in toppled:
        upright = p.motion.rotations[:, 0, 2, 2]
        assert upright[0] > 0.99
        assert abs(upright[-1]) < 0.4
        assert SIGNS[p.scene.direction] * (p.motion.positions[-1, 0, 0] - p.motion.positions[0, 0, 0]) > 0


def test_what_swings_stays_at_its_string_and_what_stands_does_not_move(performances: list[Performance]) -> None:
    for p in performances:
        positions = p.motion.positions[:, 0]
        if p.scene.event == "swing":
            lengths = np.linalg.norm(positions - np.asarray(p.motion.pivot), axis=1)
            np.testing.assert_allclose(lengths, lengths[0], atol=1e-4)
        if p.scene.event == "still":
            assert np.abs(positions - positions[0]).max() < 0.02


def test_the_main_object_is_in_view(performances: list[Performance]) -> None:
    for p in performances:
        assert all(track[0] is not None for track in p.tracks)
        assert np.mean([point is not None for point in p.tracks[0]]) >= MIN_IN_VIEW


def test_the_picture_shows_the_colour_where_the_track_says(performances: list[Performance], renderer: Renderer) -> None:
    matte = [p for p in performances if len(p.scene.objects) == 1 and p.scene.objects[0].material == "rubber"][:6]
    for p in matte:
        frame = draw(p, renderer)[0]
        x, y, radius = p.tracks[0][0]
        columns, rows = np.meshgrid(np.arange(128) + 0.5, np.arange(128) + 0.5)
        seen = frame[np.hypot(columns - x, rows - y) < 0.35 * radius]
        median = tuple(int(v) for v in np.median(seen, axis=0))
        assert _nearest_colour(median) == p.scene.objects[0].color


@pytest.mark.parametrize(("move", "sideways"), [("pan left", 1), ("pan right", -1)])
def test_a_pan_shifts_the_picture_the_other_way(move: Camera, sideways: int) -> None:
    first, last = _ends_of(move)
    shift = last.project(np.zeros(3), 0.1, 128)[0] - first.project(np.zeros(3), 0.1, 128)[0]
    assert sideways * shift > 10


@pytest.mark.parametrize(("move", "side"), [("orbit left", -1), ("orbit right", 1)])
def test_an_orbit_moves_the_eye_and_keeps_the_middle(move: Camera, side: int) -> None:
    first, last = _ends_of(move)
    assert side * (last.eye[0] - first.eye[0]) > 0.3
    middle = np.array([0.0, 0.0, 0.4])
    for view in (first, last):
        np.testing.assert_allclose(view.project(middle, 0.1, 128)[:2], (64, 64), atol=1e-6)


@pytest.mark.parametrize(("move", "grows"), [("zoom in", True), ("zoom out", False)])
def test_a_zoom_changes_the_scale(move: Camera, grows: bool) -> None:
    first, last = _ends_of(move)
    assert (last.project(np.zeros(3), 0.1, 128)[2] > 1.15 * first.project(np.zeros(3), 0.1, 128)[2]) == grows


def test_objects_stand_out_from_floor_and_backdrop() -> None:
    for index in range(100):
        scene = sample_scene(np.random.default_rng([SEED, index]))
        assert all(is_distinct(o.color, scene.floor, scene.backdrop) for o in scene.objects)
        assert len({o.color for o in scene.objects}) == len(scene.objects)
    assert not is_distinct("green", "green grass", "blue sky")
    assert not is_distinct("white", "white marble", "night sky")


def test_heldout_combinations_never_train() -> None:
    splits = []
    for index in range(400):
        scene = sample_scene(np.random.default_rng([SEED, index, 0]))
        splits.append(split_of(SEED, index, scene))
        main = scene.objects[0]
        if (main.color, main.shape, scene.event) in HELDOUT_COMBINATIONS:
            assert splits[-1] == "heldout"
    assert 0.04 < np.mean([s == "heldout" for s in splits]) < 0.2


def test_training_still_sees_every_pair_of_a_heldout_combination() -> None:
    assert 12 <= len(HELDOUT_COMBINATIONS) <= 16
    left = set(all_combinations()) - set(HELDOUT_COMBINATIONS)
    for colour, shape, event in HELDOUT_COMBINATIONS:
        assert any(c[:2] == (colour, shape) for c in left)
        assert any(c[1:] == (shape, event) for c in left)
        assert any((c[0], c[2]) == (colour, event) for c in left if c[1] != shape or len(ACTORS[event]) == 1)


def test_an_interrupted_run_goes_on_to_the_same_files(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    clips = generate(whole, clips=4, seed=SEED)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(broken, clips=4, seed=SEED, progress=stop)
    with (broken / "manifest.jsonl").open("a") as file:
        file.write('{"path": "clips/000/0000')
    (broken / "clips/000/000002.77.partial.mp4").write_bytes(b"half a film")
    assert len(read_manifest(broken)) == 2
    generate(broken, clips=4, seed=SEED, workers=2)
    for path_of_file in ["manifest.jsonl", "world.json", *(clip.path for clip in clips)]:
        assert (broken / path_of_file).read_bytes() == (whole / path_of_file).read_bytes()
    assert not list(broken.rglob("*partial*"))


def test_the_stored_video_is_the_rendered_one(tmp_path: Path, renderer: Renderer) -> None:
    (clip,) = generate(tmp_path, clips=1, seed=SEED)
    stored, fps = read_video(tmp_path / clip.path)
    rendered = draw(perform(SEED, 0), renderer)
    assert (len(stored), fps) == (clip.frames, clip.fps) == (len(rendered), 24.0)
    error = np.square(stored.astype(float) - rendered).mean()
    assert 10 * math.log10(255**2 / error) > 40


def test_a_folder_of_another_seed_is_refused(tmp_path: Path) -> None:
    generate(tmp_path, clips=1, seed=SEED)
    with pytest.raises(DataError, match=f"seed {SEED}, not playroom version 1 with seed 5"):
        generate(tmp_path, clips=1, seed=5)


def test_two_runs_cannot_fill_one_folder(tmp_path: Path) -> None:
    def again(done: int, total: int) -> None:
        generate(tmp_path, clips=1, seed=SEED)

    with pytest.raises(DataError, match="Another run"):
        generate(tmp_path, clips=1, seed=SEED, progress=again)


@pytest.mark.parametrize(("clips", "workers"), [(0, 1), (1, 0)])
def test_no_clips_or_no_workers_is_refused(tmp_path: Path, clips: int, workers: int) -> None:
    with pytest.raises(DataError, match="at least one"):
        generate(tmp_path, clips=clips, seed=SEED, workers=workers)


def test_without_a_context_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from openltx.data.worlds.playroom import offscreen

    monkeypatch.setattr(offscreen, "_load", lambda _: None)
    with pytest.raises(DataError, match=r"libegl1 libgl1-mesa-dri.*libosmesa6"):
        offscreen.choose_backend()


def _rises(height: np.ndarray, least: float) -> int:
    """How often the curve falls and then rises by more than ``least``."""
    count, low, high, falling = 0, height[0], height[0], True
    for value in height:
        if falling:
            low = min(low, value)
            if value > low + least:
                count, falling, high = count + 1, False, value
        else:
            high = max(high, value)
            if value < high - 0.01:
                falling, low = True, value
    return count


def _nearest_colour(rgb: tuple[int, int, int]) -> str:
    """By hue and chroma first: shading changes the lightness."""
    weights = np.array([0.4, 1.0, 1.0])
    return min(PALETTE, key=lambda name: float(np.linalg.norm(weights * (lab(PALETTE[name]) - lab(rgb)))))


def _ends_of(move: Camera):
    scene = replace(sample_scene(np.random.default_rng(0)), camera=move, direction=None)
    views = path(scene)
    return views[0], views[-1]


@pytest.mark.parametrize("size", [(192, 128), (96, 160)])
def test_another_shape_shows_the_same_middle_and_the_tracks_fit_it(size: tuple[int, int], renderer: Renderer) -> None:
    width, height = size
    square = perform(SEED, 3)
    other = perform(SEED, 3, size)
    try:
        renderer.resize(size)
        frames = draw(other, renderer)
        renderer.resize(min(size))
        small = draw(replace(other, views=other.views[:1]), renderer)[0]
    finally:
        renderer.resize(128)
    assert frames.shape == (other.scene.frames, height, width, 3)
    top, left = (height - min(size)) // 2, (width - min(size)) // 2
    middle = frames[0, top : top + min(size), left : left + min(size)].astype(float)
    assert np.abs(middle - small).mean() < 1.0
    scale = min(size) / 128
    if other.scene == square.scene:
        x, y, radius = square.tracks[0][0]
        expected = ((x - 64) * scale + width / 2, (y - 64) * scale + height / 2, radius * scale)
        np.testing.assert_allclose(other.tracks[0][0], expected, atol=1e-6)


def test_clips_of_many_formats_have_the_size_and_length_of_theirs(tmp_path: Path) -> None:
    formats = parse_formats(["96x160x33", "192x128x25"])
    clips = generate(tmp_path, clips=4, seed=SEED, formats=formats)
    sizes = {(clip.width, clip.height, clip.frames) for clip in clips}
    assert sizes == {(96, 160, 33), (192, 128, 25)}
    for clip in clips:
        stored, _ = read_video(tmp_path / clip.path)
        assert stored.shape == (clip.frames, clip.height, clip.width, 3)
    with pytest.raises(DataError, match="other formats"):
        generate(tmp_path, clips=4, seed=SEED)


def test_the_named_formats_are_on_the_grid_and_share_two_token_counts() -> None:
    counts = sorted(
        VideoShape(frames=f.frames, height=f.height, width=f.width, fps=24.0).latent().num_tokens for f in MIXED
    )
    low, high = [n for n in counts if n < 150], [n for n in counts if n > 150]
    assert min(low) >= 0.8 * max(low)
    assert min(high) >= 0.8 * max(high)
    assert not set(parse_formats(["unseen"])) & set(MIXED)
    for wrong in ("huge", "100x64x25", "96x96x20", "96x96x9"):
        with pytest.raises(DataError, match="format"):
            parse_formats([wrong])


@pytest.mark.parametrize("frames", [97])
def test_every_event_comes_about_in_long_clips(frames: int) -> None:
    made = [perform(SEED, index, 96, frames) for index in range(10)]
    assert {len(p.views) for p in made} == {frames}
    assert len({p.scene.event for p in made}) >= 4
