"""The two ends of runs/lora_demo.sh: clips of an event that Playroom does not have, and whether a model has learned it.

    python runs/lora_demo.py clips OUT --clips 40
    python runs/lora_demo.py measure --lora FILE --prompts 40 --others 200 --out report.json

The event: a solid that rests, rolls or slides fades away, and the empty stage is left. Training clips and measured
prompts are of different scenes. It has happened in a video if a solid of the right colour is seen in the first third
and none in the last quarter; the rest of the world is measured as ``openltx eval playroom`` does.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

import openltx
from openltx.data.filling import write_clip
from openltx.data.manifest import Clip
from openltx.data.worlds.playroom import captions
from openltx.data.worlds.playroom.clip import FPS, Performance, caption_rng, draw, perform, truth_of
from openltx.data.worlds.playroom.render import Renderer
from openltx.data.worlds.playroom.scene import sample_scene
from openltx.eval import playroom
from openltx.eval.clips import clips_to_measure
from openltx.eval.probe import Probe, load_probe
from openltx.eval.report import write_json
from openltx.eval.tracking import observe
from openltx.media.io import read_video
from openltx.models.bundle import LTXModel
from openltx.pipelines.generate import Generator

TRAINING_SEED, MEASURED_SEED = 70_001, 70_002
FADES_FROM, GONE_BY = 0.35, 0.65  # of the clip
WORDS = ("and fades away", "and vanishes", "and disappears")


def scenes(seed: int) -> Iterator[int]:
    """The indices of scenes in which one solid rests, rolls or slides before a camera that stands still."""
    index = 0
    while True:
        scene = sample_scene(np.random.default_rng([seed, index, 0]))
        if scene.event in ("still", "roll", "slide") and scene.camera == "static" and len(scene.objects) == 1:
            yield index
        index += 1


def fading(performance: Performance, renderer: Renderer) -> UInt8[np.ndarray, "F H W 3"]:
    """The clip, whose solid dissolves into the empty stage."""
    full = draw(performance, renderer)
    empty_scene = replace(performance.scene, objects=())
    empty = renderer.render(empty_scene, (), performance.motion, performance.views)
    progress = np.linspace(0, 1, len(full))
    seen = 1 - np.clip((progress - FADES_FROM) / (GONE_BY - FADES_FROM), 0, 1)[:, None, None, None]
    return (seen * full + (1 - seen) * empty).round().astype(np.uint8)


def caption(performance: Performance, seed: int, index: int) -> tuple[str, dict[str, Any]]:
    """What the scene's caption says, and that the solid fades; and the truth behind it."""
    truth, rng = truth_of(performance, seed, index), caption_rng(seed, index)
    return f"{captions.short(truth, rng)} {rng.choice(WORDS)}", truth


def make_clips(out: Path, count: int, seed: int) -> list[Clip]:
    """``count`` clips, each with its caption beside it."""
    out.mkdir(parents=True, exist_ok=True)
    renderer, made = Renderer(), []
    for index in scenes(seed):
        performance = perform(seed, index)
        scene = performance.scene
        if scene.camera != "static" or len(scene.objects) != 1:
            continue  # its first proposed scene could not be played, and another took its place
        words, truth = caption(performance, seed, index)
        path = out / f"{index:06d}.mp4"
        frames = fading(performance, renderer)
        if not path.exists():
            write_clip(path, frames, float(FPS), crf=8)
            path.with_suffix(".txt").write_text(words + "\n")
        made.append(
            Clip(
                path=path.name, frames=len(frames), height=renderer.size[1], width=renderer.size[0], fps=float(FPS),
                caption=words, split="heldout", truth=truth,
            )
        )  # fmt: skip
        if len(made) == count:
            return made
    raise AssertionError("scenes never end")


def faded(probe: Probe, frames: UInt8[np.ndarray, "F H W 3"], clip: Clip) -> bool:
    """Whether a solid of the right colour is there at first and not in the end."""
    colour = clip.truth["objects"][0]["color"]
    first, last = frames[: max(4, len(frames) // 3)], frames[-max(4, len(frames) // 4) :]
    there, left = (any(t.colour == colour for t in observe(probe, part).tracks) for part in (first, last))
    return there and not left


def measure(model: LTXModel, clips: list[Clip], others: int, out: Path) -> dict[str, Any]:
    """Shares of right videos of a model: of the new event, and of the world as it was."""
    probe = load_probe()
    make = playroom.maker(Generator(model), playroom.Settings(), out)
    found = {"event": playroom.share(faded(probe, make(clip, i, None), clip) for i, clip in enumerate(clips))}
    if others:
        folder, chosen = clips_to_measure(others)
        found |= playroom.scores(list(playroom.text_trials(make, probe, folder, chosen)))["generated"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    clips = commands.add_parser("clips")
    clips.add_argument("out", type=Path)
    clips.add_argument("--clips", type=int, default=40)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--lora", required=True)
    measuring.add_argument("--base", default="playroom")
    measuring.add_argument("--prompts", type=int, default=40)
    measuring.add_argument("--others", type=int, default=200)
    measuring.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "clips":
        print(f"{options.out}  {len(make_clips(options.out, options.clips, TRAINING_SEED))} clips")
        return
    folder = options.out.parent / "event"
    asked = make_clips(folder, options.prompts, MEASURED_SEED)
    probe = load_probe()
    report: dict[str, Any] = {
        "ceiling": playroom.share(faded(probe, read_video(folder / clip.path)[0], clip) for clip in asked)
    }
    for name, loras in (("base", ()), ("lora", (options.lora,))):
        model = openltx.load(options.base, loras=loras)
        report[name] = measure(model, asked, options.others, options.out.parent / name)
    write_json(options.out, report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
