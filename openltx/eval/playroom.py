"""Does a model make what its prompts say? Held-out captions, generated, judged, and set beside the real clips.

Every held-out scene gives a caption and a real clip. A video is generated from the caption alone, and the same judges
(`judge`) look at both: what they say of the real clips is the ceiling, the ratio of the two the result. With first
frames given (image to video) it is measured how well the first frame is kept and whether the solid keeps its colour.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL.Image import Image, fromarray

from openltx.data.manifest import Clip
from openltx.eval.intervals import mean_as_json
from openltx.eval.judge import Verdict, expected_motion, judge
from openltx.eval.metrics import psnr
from openltx.eval.probe import Probe
from openltx.eval.report import markdown_table
from openltx.eval.tracking import observe
from openltx.media.contact_sheet import contact_sheet
from openltx.media.io import read_video
from openltx.media.transforms import to_tensor
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest, LastStep

Frames = UInt8[np.ndarray, "_ _ _ 3"]
Maker = Callable[[Clip, int, Path | None], Frames]
"""A clip, its place in the list, and a picture to start from (or None) -> the frames of a generated video."""

ATTRIBUTES = ("colour", "motion", "shape", "all_correct")
KEPT_PART = 1 / 3  # the last part of a video, in which the solid must still have its colour


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How videos are made for the evaluation; None leaves a choice to the model."""

    seed: int = 0
    """Of the scenes and of the generation."""
    steps: int | None = None
    """Denoising steps, if other than the model's own."""
    cfg: float | None = None
    """Guidance, if other than the model's own."""
    last_step: LastStep | None = None
    """Who denoises last, if other than the model's own: the VAE's decoder, or the transformer."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One caption: the generated video and the real one, with their verdicts."""

    clip: Clip
    generated: Frames = field(repr=False)
    real: Frames = field(repr=False)
    verdict: Verdict
    ceiling: Verdict


@dataclass(frozen=True, kw_only=True)
class ImageTrial:
    """One first frame: how well it was kept, and whether the main solid ends in its colour (also in the real clip)."""

    clip: Clip
    generated: Frames = field(repr=False)
    real: Frames = field(repr=False)
    first_frame_psnr: float
    colour_kept: bool
    colour_kept_in_real: bool


def maker(generator: Generator, settings: Settings, out: Path) -> Maker:
    """Makes videos of the clips' own size and length with a model, and keeps them as MP4 in the folder ``out``."""

    def make(clip: Clip, index: int, picture: Path | None) -> Frames:
        request = GenerationRequest(
            clip.caption,
            image=picture,
            frames=clip.frames,
            size=f"{clip.width}x{clip.height}",
            fps=clip.fps,
            steps=settings.steps,
            cfg=settings.cfg,
            last_step=settings.last_step,
            seed=settings.seed * 1_000_003 + index,
        )
        video = generator(request)
        video.save(out / f"{'text' if picture is None else 'image'}-{index:03d}.mp4")
        return video.frames

    out.mkdir(parents=True, exist_ok=True)
    return make


def text_trials(make: Maker, probe: Probe, data: Path, clips: Sequence[Clip]) -> Iterator[Trial]:
    """Generate from each clip's caption, and judge it and the real clip."""
    for index, clip in enumerate(clips):
        real, _ = read_video(data / clip.path)
        generated = make(clip, index, None)
        yield Trial(
            clip=clip,
            generated=generated,
            real=real,
            verdict=verdict_of(probe, generated, clip),
            ceiling=verdict_of(probe, real, clip),
        )


def image_trials(make: Maker, probe: Probe, data: Path, clips: Sequence[Clip], pictures: Path) -> Iterator[ImageTrial]:
    """Generate from each clip's first frame (written as PNG into the folder ``pictures``) and caption."""
    for index, clip in enumerate(clips):
        real, _ = read_video(data / clip.path)
        picture = pictures / f"first-{index:03d}.png"
        fromarray(real[0]).save(picture)
        generated = make(clip, index, picture)
        yield ImageTrial(
            clip=clip,
            generated=generated,
            real=real,
            first_frame_psnr=psnr(to_tensor(generated[:1]), to_tensor(real[:1])),
            colour_kept=keeps_colour(probe, generated, clip),
            colour_kept_in_real=keeps_colour(probe, real, clip),
        )


def verdict_of(probe: Probe, frames: Frames, clip: Clip) -> Verdict:
    """What the judges say of a video made for this clip's caption."""
    return judge(observe(probe, frames), clip.truth, clip.caption, frames.shape[2])


def keeps_colour(probe: Probe, frames: Frames, clip: Clip) -> bool:
    """Whether a solid of the main one's colour is seen in the last part of the video."""
    part = frames[-max(4, round(len(frames) * KEPT_PART)) :]
    return any(track.colour == clip.truth["objects"][0]["color"] for track in observe(probe, part).tracks)


def summarise(trials: Sequence[Trial], images: Sequence[ImageTrial]) -> dict[str, Any]:
    """The report as JSON values: shares of right verdicts, overall and by event and shape, and every trial."""
    report: dict[str, Any] = {}
    if trials:
        report["text_to_video"] = {
            "prompts": len(trials),
            **scores(trials),
            "intervals": intervals(trials),
            "by_event": grouped(trials, lambda clip: clip.truth["event"]),
            "by_shape": grouped(trials, lambda clip: clip.truth["objects"][0]["shape"]),
            "trials": [describe(trial) for trial in trials],
        }
    if images:
        kept = [trial.first_frame_psnr for trial in images]
        report["image_to_video"] = {
            "images": len(images),
            "first_frame_psnr": mean(kept),
            "first_frame_psnr_worst": min(kept),
            "colour_kept": share(trial.colour_kept for trial in images),
            "colour_kept_in_real": share(trial.colour_kept_in_real for trial in images),
            "trials": [
                {"caption": t.clip.caption, "psnr": t.first_frame_psnr, "colour_kept": t.colour_kept} for t in images
            ],
        }
    return report


def scores(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """For each attribute the share of right verdicts, for generated and real videos, and their ratio."""
    generated = {name: share(getattr(trial.verdict, name) for trial in trials) for name in ATTRIBUTES}
    real = {name: share(getattr(trial.ceiling, name) for trial in trials) for name in ATTRIBUTES}
    ratio = {name: generated[name] / real[name] if real[name] else 0.0 for name in ATTRIBUTES}
    return {"generated": generated, "real": real, "ratio": ratio}


def intervals(trials: Sequence[Trial]) -> dict[str, Any]:
    """The shares of the generated videos as value, 95% interval and n."""
    return {
        name: mean_as_json([float(getattr(trial.verdict, name)) for trial in trials], is_share=True)
        for name in ATTRIBUTES
    }


def grouped(trials: Sequence[Trial], key: Callable[[Clip], str]) -> dict[str, dict[str, Any]]:
    """The scores of each group of trials."""
    names = sorted({key(trial.clip) for trial in trials})
    members = {name: [trial for trial in trials if key(trial.clip) == name] for name in names}
    return {name: {"prompts": len(group), **scores(group)} for name, group in members.items()}


def describe(trial: Trial) -> dict[str, Any]:
    """One trial as JSON values."""
    truth = trial.clip.truth
    return {
        "caption": trial.clip.caption,
        "objects": [f"{item['color']} {item['shape']}" for item in truth["objects"]],
        "motion": expected_motion(truth),
        "generated": asdict(trial.verdict),
        "real": asdict(trial.ceiling),
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report's numbers as tables."""
    parts = [f"Playroom, model {report['model']}, seed {report['seed']}"]
    if text := report.get("text_to_video"):
        rows = [
            [name.replace("_", " "), *(percent(text[who][name]) for who in ("generated", "real", "ratio"))]
            for name in ATTRIBUTES
        ]
        header = [f"{text['prompts']} prompts", "generated", "real clips (ceiling)", "of the ceiling"]
        parts.append(markdown_table(header, rows))
        by_event = [
            [
                name,
                group["prompts"],
                *(percent(group["generated"][a]) for a in ATTRIBUTES),
                percent(group["real"]["motion"]),
            ]
            for name, group in text["by_event"].items()
        ]
        parts.append(
            markdown_table(["event", "prompts", "colour", "motion", "shape", "all", "motion, real clips"], by_event)
        )
    if images := report.get("image_to_video"):
        rows = [
            ["first frame PSNR, dB", images["first_frame_psnr"], None],
            ["worst first frame PSNR, dB", images["first_frame_psnr_worst"], None],
            ["colour kept to the end", percent(images["colour_kept"]), percent(images["colour_kept_in_real"])],
        ]
        parts.append(markdown_table([f"{images['images']} first frames", "generated", "real clips"], rows))
    return "\n\n".join(parts) + "\n"


def share(verdicts: Iterable[bool]) -> float:
    """The part of the verdicts that are true, 0 to 1."""
    return float(np.mean(list(verdicts)))


def percent(part: float) -> str:
    """0.875 -> "87.5%"."""
    return f"{100 * part:.1f}%"


def text_sheet(trials: Sequence[Trial], most: int = 16) -> Image:
    """The real clip and the generated one of the first trials, with what was seen."""
    rows = []
    for trial in trials[:most]:
        rows.append((f"real: {trial.clip.caption}  [seen: {trial.ceiling.seen}]", trial.real))
        rows.append((f"generated  [seen: {trial.verdict.seen}; {marks(trial.verdict)}]", trial.generated))
    return contact_sheet(rows)


def image_sheet(trials: Sequence[ImageTrial], most: int = 16) -> Image:
    """The real clip and the one generated from its first frame."""
    rows = []
    for trial in trials[:most]:
        kept = "colour kept" if trial.colour_kept else "colour lost"
        rows.append((f"real: {trial.clip.caption}", trial.real))
        rows.append((f"from its first frame  [{trial.first_frame_psnr:.1f} dB, {kept}]", trial.generated))
    return contact_sheet(rows)


def marks(verdict: Verdict) -> str:
    """What is right and what is wrong, in words."""
    named = {"colour": verdict.colour, "shape": verdict.shape, "motion": verdict.motion}
    wrong = [name for name, right in named.items() if not right]
    return f"wrong: {', '.join(wrong)}" if wrong else "all right"
