"""``openltx train ablation``."""

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from openltx.checkpoints.assets import load_lpips
from openltx.checkpoints.load import load_vae
from openltx.cli.eval.networks import load_networks
from openltx.cli.eval.output import progress, save_picture
from openltx.cli.output import say
from openltx.cli.train.options import Steps, Threads
from openltx.errors import RunError
from openltx.eval.clips import clips_to_measure
from openltx.eval.report import write_json, write_text

DEFAULT_SEEDS = [0, 1]


def ablation(
    name: str,
    *,
    data: Annotated[list[Path], Parameter(consume_multiple=True, negative="")],
    out: Path,
    base: Path | None = None,
    seeds: Annotated[list[int], Parameter(consume_multiple=True, negative="")] = DEFAULT_SEEDS,
    steps: Steps = None,
    clips: int = 32,
    frames: int = 25,
    threads: Threads = None,
) -> None:
    """Train the arms of an experiment on equal terms and compare them: one table, one picture.

    Run it again to go on after an interruption, or with more seeds.

    Parameters
    ----------
    name
        critic, wavelets, variance, last-step, injection, causality or compression.
    data
        Clip folders with manifests. Arms are measured on the first one's held-out clips.
    out
        Folder of the runs and of report.md, report.json, hardest.png.
    base
        Weight file whose VAE some experiments go on from (critic, last-step, injection).
    seeds
        Each arm is trained once with each.
    clips
        How many held-out clips to measure on.
    frames
        At most so many frames of each.
    """
    from openltx.recipes.ablations import EXPERIMENTS
    from openltx.recipes.arms import to_markdown
    from openltx.recipes.experiment import COLUMNS, Conditions, hardest_clips, run_experiment

    if name not in EXPERIMENTS:
        raise RunError(f'There is no experiment "{name}". The experiments are: {", ".join(EXPERIMENTS)}.')
    experiment = EXPERIMENTS[name]
    if base is None and any(arm.recipe.start == "base" for arm in experiment.arms):
        raise RunError(f'The experiment "{name}" goes on from a trained model: give a weight file with --base.')
    networks = load_networks()
    with progress("Rendering") as tick:
        folder, chosen = clips_to_measure(clips, split="heldout", data=data[0], seed=0, progress=tick)
    conditions = Conditions(
        data=dict.fromkeys(data, 1.0),
        base=load_vae(base, dtype=torch.float32) if base is not None else None,
        folder=folder,
        clips=chosen,
        frames=frames,
        steps=steps,
        threads=threads,
        perceptual=load_lpips("vgg") if any(arm.recipe.losses.lpips for arm in experiment.arms) else None,
        networks=networks,
    )
    report = run_experiment(experiment, out, seeds, conditions, say)
    if report is None:
        say("Stopped; the same command goes on.")
        return
    write_text(out / "report.md", to_markdown(report, COLUMNS))
    write_json(out / "report.json", report)
    save_picture(hardest_clips(experiment, out, seeds[0], conditions), out / "hardest.png")
    print(to_markdown(report, COLUMNS))
    say(f"{out}  report.md, report.json, hardest.png")
