"""What `openltx data prepare` finds, survives and costs, against truths that are known.

    python -m benchmarks.data_prepare cuts       F1 against the hand-checked cuts of five minutes of Big Buck Bunny
    python -m benchmarks.data_prepare defects    200 clips with bars, standstill, shaking, copies
    python -m benchmarks.data_prepare ranker     the aesthetic ranker on orders that are known
    python -m benchmarks.data_prepare speed      clips a second of each stage; against the official trainer's way
    python -m benchmarks.data_prepare kills      a run killed five times against one that was not

The film and the weights are assets: openltx assets pull big-buck-bunny, test-clips, vtest, mobilenet-v2, transnet-v2.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_videos import Known, encode, known_clips, odd_files
from openltx.checkpoints.assets import ASSETS
from openltx.data.prepare.dedupe import near_duplicates
from openltx.data.prepare.export import ExportStep
from openltx.data.prepare.ingest import Ingest, records_of
from openltx.data.prepare.looking import Group, LookStep, groups_of
from openltx.data.prepare.records import Record
from openltx.data.prepare.run import Prepared, prepare, stages_of
from openltx.data.prepare.settings import (
    BucketSettings,
    CutSettings,
    DedupeSettings,
    MotionSettings,
    PrepareSettings,
)
from openltx.data.prepare.workers import Processes
from openltx.data.shots import DetectorName, find_shots
from openltx.data.sources import Source
from openltx.media.stream import stream_pictures, stream_video

CUTS = Path(__file__).with_name("big_buck_bunny_cuts.json")
NEAR = 2  # frames by which a found cut may be off


def main() -> None:
    """Run what is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["cuts", "defects", "ranker", "speed", "kills"])
    parser.add_argument("--bases", type=int, default=40, help="clips of which the defects are made, five of each")
    parser.add_argument("--detector", choices=["adaptive", "transnet"], default="adaptive")
    parser.add_argument("--seconds", type=float, default=240.0, help="of the film, for speed")
    options = parser.parse_args()
    match options.what:
        case "cuts":
            cuts(options.detector)
        case "defects":
            defects(options.bases)
        case "ranker":
            from benchmarks.data_ranker import known_orders

            known_orders(film_clips(options.bases, 25, 640))
        case "speed":
            speed(options.seconds)
        case "kills":
            kills()


def cuts(detector: DetectorName) -> None:
    """Precision, recall and F1 of a detector."""
    truth = json.loads(CUTS.read_text())
    first, end = truth["frames"]
    began = time.perf_counter()
    shots = find_shots(film(), detector=detector)
    seconds = time.perf_counter() - began
    found = [shot.first for shot in shots if first < shot.first < end]
    true = transitions(truth)
    missed, wrong = compare(found, true)
    right = len(found) - len(wrong)
    precision, recall = right / max(len(found), 1), right / len(true)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    print(f"{detector}: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}; {len(true)} transitions")
    print(f"missed {missed}, wrongly found {wrong}; the whole film took {seconds:.0f} s")


def transitions(truth: dict[str, Any]) -> list[tuple[int, int]]:
    """(first, last) place where a transition may be found: a cut two frames off, a dissolve anywhere inside."""
    places = [(cut - NEAR, cut + NEAR) for cut in truth["cuts"]] + [tuple(one) for one in truth["dissolves"]]
    return sorted(places)


def compare(found: Sequence[int], true: Sequence[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[int]]:
    """The transitions that were missed, and what was found where none is; each counts once."""
    left, missed = list(found), []
    for first, last in true:
        inside = [cut for cut in left if first <= cut <= last]
        if inside:
            left.remove(inside[0])
        else:
            missed.append((first, last))
    return missed, left


def defects(bases: int) -> None:
    """Precision and recall of crop, motion and dedupe."""
    clips = known_clips(film_clips(bases, 33, 480))
    found = measured(clips)
    print(f"{len(clips)} clips")
    for name, flagged, true in (
        ("crop", [_has_bars(r) for r in found], [any(c.bars) for c in clips]),
        ("crop, border right to 2 pixels", _right_bars(clips, found), [any(c.bars) for c in clips]),
        ("motion", [_moves_wrongly(r) for r in found], [c.is_still or c.is_shaken for c in clips]),
        ("motion: static or frozen", [_stands_still(r) for r in found], [c.is_still for c in clips]),
    ):
        _tell(name, flagged, true, clips)
    chosen = [(c, r) for c, r in zip(clips, found, strict=True) if not (c.is_still or c.is_shaken)]
    copies = near_duplicates([r for _, r in chosen], DedupeSettings().max_distance)
    groups = [{r.id for _, r in chosen if r.id[:3] == c.name[:3]} for c, _ in chosen]
    right = [r.id in copies and copies[r.id][0] in group for (_, r), group in zip(chosen, groups, strict=True)]
    wrong = sum(r.id in copies for _, r in chosen) - sum(right)
    expected = sum(len(group) - 1 for group in {frozenset(g): g for g in groups}.values())
    print(f"dedupe: precision {sum(right) / max(sum(right) + wrong, 1):.3f}, recall {sum(right) / expected:.3f}")


def measured(clips: Sequence[Known]) -> list[Record]:
    """The records of clip files, one each, whatever they are like."""
    settings = PrepareSettings(cut=CutSettings(frames=1000, min_frames=1))
    with tempfile.TemporaryDirectory() as folder:
        for clip in clips:
            encode(Path(folder) / f"{clip.name}.mp4", clip.frames, crf=clip.crf)
        paths = sorted(Path(folder).glob("*.mp4"))
        records = []
        for path in paths:
            (_, facts), *_ = Processes(1).run([Ingest(settings.cut)], [(path, path.name)])
            shots = facts["pieces"]
            records.append(_whole(path.stem, facts, sum(piece["frames"] for piece in shots)))
        groups = groups_of(records, {r.sha256: p for r, p in zip(records, paths, strict=True)})
        order = {record.id: record for record in records}
        for _, result in Processes(2).run([LookStep(stages_of(settings), None)], groups):
            for name, measures, _ in result:
                order[name].measures.update(measures)
    return [order[clip.name] for clip in clips]


def _whole(name: str, facts: dict[str, Any], frames: int) -> Record:
    piece = facts["pieces"][0]
    return Record(
        id=name, source=name, sha256=facts["sha256"], shot=0, first=0, frames=frames, picks=None, pts=piece["pts"],
        fps=facts["fps"], height=facts["height"], width=facts["width"], split="train", credit=None, caption="",
    )  # fmt: skip


def _has_bars(record: Record) -> bool:
    return record.measures["crop"]["left_over"] < 1


def _right_bars(clips: Sequence[Known], found: Sequence[Record]) -> list[bool]:
    sides = ("top", "bottom", "left", "right")
    return [
        _has_bars(r) and all(abs(r.measures["crop"][side] - bar) <= 2 for side, bar in zip(sides, c.bars, strict=True))
        for c, r in zip(clips, found, strict=True)
    ]


def _moves_wrongly(record: Record) -> bool:
    from openltx.data.prepare.motion import Motion

    return Motion(MotionSettings()).objection(record.measures["motion"]) is not None


def _stands_still(record: Record) -> bool:
    from openltx.data.prepare.motion import Motion

    why = Motion(MotionSettings()).objection(record.measures["motion"]) or ""
    return why.startswith(("static", "frozen"))


def _tell(name: str, flagged: Sequence[bool], true: Sequence[bool], clips: Sequence[Known]) -> None:
    right = sum(a and b for a, b in zip(flagged, true, strict=True))
    print(f"{name}: precision {right / max(sum(flagged), 1):.3f}, recall {right / max(sum(true), 1):.3f}")
    odd = [clip.name for a, b, clip in zip(flagged, true, clips, strict=True) if a != b]
    if odd:
        print(f"    wrong: {' '.join(odd)}")


def speed(seconds: float) -> None:
    """Clips a second of each pass on this machine's cores, and the same work as the official scripts do it."""
    size = "768x448x25"
    settings = PrepareSettings(cut=CutSettings(frames=121, min_frames=25), bucket=BucketSettings(sizes=(size,)))
    with tempfile.TemporaryDirectory() as folder:
        videos = [Path(folder) / f"part{number}.mp4" for number in range(2)]
        for number, video in enumerate(videos):
            cut_part(film(), video, 60 + number * seconds / 2, seconds / 2)
        times, made = _timed_passes(videos, Path(folder) / "set", settings)
        print(f"{seconds:.0f} s of film in two files, {len(made.records)} clips, {len(made.clips)} kept")
        for title, (spent, clips) in times.items():
            print(f"    {title}: {clips / spent:.2f} clips/s ({spent:.1f} s)")
        whole = sum(spent for spent, _ in times.values())
        print(f"    all: {len(made.records) / whole:.2f} clips/s ({whole:.1f} s)")
        for stage in stages_of(settings):
            print(f"    {stage.name} alone: {1 / _stage_seconds(stage, videos[0]):.1f} clips/s on one core")
        _against_official(videos, Path(folder))


def _timed_passes(
    videos: Sequence[Path], out: Path, settings: PrepareSettings
) -> tuple[dict[str, tuple[float, int]], Prepared]:
    began: dict[str, float] = {}
    ended: dict[str, tuple[float, int]] = {}

    def tell(title: str, _: int, total: int) -> None:
        began.setdefault(title, time.perf_counter())
        ended[title] = (time.perf_counter() - began[title], total)

    made = prepare(videos, out, settings, runner=Processes(os.cpu_count() or 1), progress=tell)
    return ended | {"ingest": (ended["ingest"][0], len(made.records))}, made


def _stage_seconds(stage: Any, video: Path) -> float:
    """Seconds for a clip of 121 frames that is decoded already."""
    from openltx.data.prepare.stage import SMALL_WIDTH, Look

    small, keys = [], []
    for index, picture in enumerate(stream_pictures(video)):
        if index == 121:
            break
        small.append(picture.pixels(SMALL_WIDTH))
        if index % 30 == 0:
            keys.append(picture.pixels())
    look = Look(fps=24.0, small=np.stack(small), keys=np.stack(keys))
    return min(_seconds(lambda: stage.measure(look)) for _ in range(3))


def _against_official(videos: Sequence[Path], folder: Path) -> None:
    """What the official scripts do before the VAE: scenes to files, and frames of the files at the bucket's size.

    Once the clips that the official way makes, the first 25 frames of each scene; and once every frame, in frames a
    second, as the two do not leave the same remainders out.
    """
    if shutil.which("ffmpeg") is None:
        print("    no ffmpeg here: the official way is not timed")
        return
    one = PrepareSettings(
        cut=CutSettings(frames=25, min_frames=25, per_shot=1), bucket=BucketSettings(sizes=("768x448x25",))
    )
    all_of_it = PrepareSettings(
        cut=CutSettings(frames=121, min_frames=9), bucket=BucketSettings(sizes=("768x448x121",))
    )
    for what, settings, most in (("the first 25 frames of each scene", one, 25), ("every frame", all_of_it, None)):
        ways = {"ours": partial(_ours, settings=settings), "the official way": partial(_theirs, most=most)}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn, (name, way) in product(range(2), ways.items()):
            began = time.perf_counter()
            frames = way(videos, folder / f"{what} {turn} {name}")
            rates[name].append(frames / (time.perf_counter() - began))
        ours, theirs = (max(values) for values in rates.values())
        print(
            f"    {what} at 768x448: ours {ours:.1f} frames/s, the official way {theirs:.1f}; "
            f"{ours / theirs:.2f} times as fast"
        )


def _ours(videos: Sequence[Path], out: Path, settings: PrepareSettings) -> int:
    """The passes ingest and write alone, without what the official scripts have not: no stage looks. Then reading."""
    workers = Processes(os.cpu_count() or 1)
    groups: list[Group] = []
    for index, facts in workers.run([Ingest(settings.cut)], [(video, video.name) for video in videos]):
        source = Source(
            path=videos[index],
            name=videos[index].name,
            sha256=facts["sha256"],
            frames=facts["frames"],
            fps=facts["fps"],
            credit=None,
        )
        whole = {"crop": {"top": 0, "bottom": 0, "left": 0, "right": 0, "left_over": 1.0}}
        records = [
            replace(record, measures=whole, bucket=settings.bucket.sizes[0])
            for record in records_of(source, facts, settings)
        ]
        groups += groups_of(records, {source.sha256: videos[index]})
    for _, result in workers.run([ExportStep(out, settings.export.crf)], groups):
        assert all(why is None for _, why in result)
    return sum(sum(1 for _ in stream_video(path)) for path in out.rglob("*.mp4"))


def _theirs(videos: Sequence[Path], out: Path, most: int | None) -> int:
    """PySceneDetect's content detector on OpenCV's frames, ffmpeg for each scene, and each file decoded and scaled.

    ``most`` frames of each file are read; files with fewer count for nothing.
    """
    import cv2
    from scenedetect import ContentDetector, detect
    from scenedetect.output import split_video_ffmpeg

    out.mkdir(parents=True)
    for video in videos:
        split_video_ffmpeg(str(video), detect(str(video), ContentDetector()), output_dir=out, show_progress=False)
    frames = 0
    for path in sorted(out.glob("*.mp4")):
        capture, count = cv2.VideoCapture(str(path)), 0
        while count != most:
            there, frame = capture.read()
            if not there:
                break
            cv2.resize(frame, (796, 448), interpolation=cv2.INTER_CUBIC)
            count += 1
        frames += count if most in (None, count) else 0
    return frames


def kills() -> None:
    """Forty odd files and the small films, prepared at once and killed five times on the way."""
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "videos"
        expected = odd_files(videos / "odd")
        for name in ("test-clips", "vtest"):
            for path in ASSETS[name].files.values() if ASSETS[name].is_present else ():
                shutil.copy(path, videos)
        cut_part(film(), videos / "film.mp4", 60.0, 60.0)
        config = Path(folder) / "config.json"
        config.write_text(json.dumps({
            "cut": {"frames": 49, "min_frames": 17},
            "bucket": {"sizes": ["192x128x17", "128x192x17", "96x96x17", "128x96x17", "160x128x49"]},
            "export": {"shards": "webdataset", "per_shard": 8},
        }))  # fmt: skip
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        command = [sys.executable, "-m", "openltx", "data", "prepare", str(videos), "--config", str(config), "--out"]
        began = time.perf_counter()
        result = subprocess.run([*command, str(whole)], capture_output=True, text=True)
        took = time.perf_counter() - began
        print(result.stdout, result.stderr[-2000:] if result.returncode else "")
        for kill in range(5):
            process = subprocess.Popen([*command, str(broken)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(took * (0.25 + 0.12 * kill))
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed; {sum(1 for _ in broken.rglob('*.mp4'))} clip files there")
        subprocess.run([*command, str(broken)], capture_output=True, check=True)
        a, b = (contents(place) for place in (whole, broken))
        differing = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
        print(f"{len(a)} files, the same bytes: {a == b} {differing}")
        rejected = {json.loads(line)["source"].split("/")[-1] for line in (whole / "rejected.jsonl").open()}
        wrong = [name for name, usable in expected.items() if usable == (name in rejected)]
        listed = sum(not usable for usable in expected.values())
        print(f"{len(expected)} odd files: {listed} should be listed; otherwise than expected: {wrong}")


def contents(folder: Path) -> dict[str, bytes]:
    """What a set consists of, without its journals."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".work" not in path.parts and path.name != ".lock"
    }


def film_clips(count: int, frames: int, width: int) -> list[np.ndarray]:
    """Clips of so many frames from different shots of the film in which something moves, evenly spread."""
    truth = json.loads(CUTS.read_text())
    begins = [first + 3 for first, end in pairwise(truth["cuts"]) if end - first >= frames + 6]
    dissolving = range(truth["dissolves"][0][0] - frames, truth["dissolves"][0][1])
    waiting, found, current = [first for first in begins if first not in dissolving], [], []
    for index, picture in enumerate(stream_pictures(film())):
        if not waiting:
            break
        if waiting[0] <= index:
            current.append(picture.pixels(width))
        if len(current) == frames:
            if _moves(current):
                found.append(np.stack(current)[:, : current[0].shape[0] // 2 * 2])
            waiting, current = waiting[1:], []
    chosen = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[place] for place in chosen]


def _moves(frames: Sequence[np.ndarray]) -> bool:
    """Whether a twentieth of the picture changes by ten levels in every half second: judged without optical flow."""
    steps = [frames[place].astype(int) for place in range(0, len(frames), 12)]
    shares = [float((np.abs(b - a).max(-1) > 10).mean()) for a, b in pairwise(steps)]
    return min(shares) > 0.05 and float(np.mean([s.mean() for s in steps])) > 30


def cut_part(source: Path, target: Path, begin: float, seconds: float) -> None:
    """So many seconds of a film from a key frame near ``begin`` on, coded as it is."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = given.streams.video[0]
        copy: Any = made.add_stream_from_template(stream)
        given.seek(round(1e6 * begin))
        start: int | None = None
        for packet in given.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            start = packet.dts if start is None else start
            if (packet.dts - start) * stream.time_base > seconds:
                break
            packet.pts, packet.dts = packet.pts - start, packet.dts - start
            packet.stream = copy
            made.mux(packet)


def film() -> Path:
    """Big Buck Bunny."""
    (path,) = ASSETS["big-buck-bunny"].files.values()
    return path


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
