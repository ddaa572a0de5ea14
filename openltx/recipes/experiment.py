"""Experiments on the Video-VAE's training: what ``arms`` needs to know of them, and a picture.

OUT/hardest.png   the clips that the first arm restores worst: original, then every arm
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from openltx.data.manifest import Clip
from openltx.eval import vae as measure
from openltx.eval import vae_report
from openltx.eval.comparison import Networks
from openltx.eval.latents import channel_use, describe
from openltx.media.contact_sheet import contact_sheet
from openltx.media.transforms import to_frames
from openltx.models.lpips import LPIPS
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.recipes.ablations import Arm, Experiment
from openltx.recipes.arms import arm_folder, run_arms
from openltx.recipes.vae import vae_task
from openltx.training import loop
from openltx.training.export import trained_vae

COLUMNS = {
    **{title: key for title, key in vae_report.COLUMNS.items() if title != "reduced"},
    "effective rank": "effective_rank",
    "dead channels": "dead_channels",
    "s/step": "step_seconds",
}
SHEET_CLIPS = 4


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What all arms have in common."""

    data: Mapping[Path, float]  # clip folders to train on, with their shares
    base: VideoAutoencoder | None  # what arms that go on from a model start from
    folder: Path  # of the held-out ``clips`` that arms are measured on
    clips: Sequence[Clip]
    frames: int
    steps: int | None = None  # instead of the recipes' own
    threads: int | None = None
    perceptual: LPIPS | None = None
    networks: Networks = dataclasses.field(default_factory=Networks)


def run_experiment(
    experiment: Experiment,
    out: Path,
    seeds: Sequence[int],
    conditions: Conditions,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any] | None:
    """Train and measure every arm with every seed; the report, or None if a run was stopped before its end."""

    def result(arm: Arm, seed: int, folder: Path) -> dict[str, Any] | None:
        return _measure(arm, folder, conditions) if _train(arm, seed, folder, conditions) else None

    found = run_arms(experiment.arms, out, seeds, result, COLUMNS, say)
    return None if found is None else {"question": experiment.question, "paper": experiment.paper, **found}


def hardest_clips(experiment: Experiment, out: Path, seed: int, conditions: Conditions) -> Image:
    """Originals above every arm's reconstruction of them; the clips that the first arm restores worst."""
    first = json.loads((arm_folder(out, experiment.arms[0], seed) / "result.json").read_text())
    order = sorted(range(len(conditions.clips)), key=lambda index: first["psnr_per_clip"][index])[:SHEET_CLIPS]
    networks = [trained_vae(arm_folder(out, arm, seed)) for arm in experiment.arms]
    rows = []
    for index in order:
        for arm, network in zip(experiment.arms, networks, strict=True):
            settings = _settings(arm, conditions)
            video = measure.read_clip(conditions.folder, conditions.clips[index], network.config, settings)
            levels = measure.levels_of(network.config, settings)
            (restored,) = measure.reconstruct(network, video, levels, measure.noise_seed(settings, index))
            if arm is experiment.arms[0]:
                rows.append((conditions.clips[index].caption or conditions.clips[index].path, to_frames(video)))
            rows.append((arm.name, to_frames(restored)))
    return contact_sheet(rows)


def _train(arm: Arm, seed: int, folder: Path, conditions: Conditions) -> bool:
    """Whether the run came to its end."""
    task = vae_task(
        arm.recipe,
        conditions.data,
        seed=seed,
        base=conditions.base if arm.recipe.start == "base" else None,
        perceptual=conditions.perceptual,
    )
    config = arm.recipe.run(folder, seed)
    config = dataclasses.replace(config, steps=conditions.steps or config.steps, threads=conditions.threads)
    return loop.run(task, config).reason == "finished"


def _settings(arm: Arm, conditions: Conditions) -> measure.Settings:
    return measure.Settings(t=(arm.t,), frames=conditions.frames)


def _measure(arm: Arm, folder: Path, conditions: Conditions) -> dict[str, Any]:
    network, settings = trained_vae(folder), _settings(arm, conditions)
    found = measure.evaluate(network, conditions.folder, conditions.clips, settings, conditions.networks)
    outcome = found.levels[0][1]
    videos = (measure.read_clip(conditions.folder, clip, network.config, settings) for clip in conditions.clips)
    channels = describe(channel_use(arm.name, network, videos))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        **vae_report.measures(outcome, found.features),
        "psnr_per_clip": [similarity.psnr for similarity in outcome.similarities],
        "effective_rank": channels["effective_rank"],
        "dead_channels": channels["dead_channels"],
        "step_seconds": float(torch.tensor([line["step_seconds"] for line in lines]).median()),
        "steps": lines[-1]["step"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
