"""``openltx train flow-ablation``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from cyclopts import Parameter

from openltx.cli.eval.networks import load_networks
from openltx.cli.output import say
from openltx.cli.train.flow import base_transformer
from openltx.cli.train.options import Steps, Threads
from openltx.errors import RunError
from openltx.eval.clips import clips_to_measure
from openltx.eval.report import write_json, write_text

if TYPE_CHECKING:
    from openltx.data.latents import Example, LatentFolder
    from openltx.recipes.flow_experiment import Source

Several = Parameter(consume_multiple=True, negative="")
DEFAULT_SEEDS = [0, 1]
MOST_HELD_OUT = 64


def flow_ablation(  # noqa: PLR0913 (a flag each)
    name: str,
    *,
    vae: Annotated[list[Path], Several],
    latents: Annotated[list[Path], Several],
    heldout: Annotated[list[Path], Several],
    out: Path,
    unseen: Path | None = None,
    base: Path | None = None,
    data: Path | None = None,
    prompts: int = 0,
    seeds: Annotated[list[int], Several] = DEFAULT_SEEDS,
    steps: Steps = None,
    threads: Threads = None,
) -> None:
    """Train the arms of an experiment on the transformer on equal terms and compare them: one table, one picture.

    Run it again to go on after an interruption, or with more seeds.

    Parameters
    ----------
    name
        rope-spacing, positions, token-shift, tails, mixing, qk-norm, image-to-video, attention, patchifier, last-step
        or optimizer.
    vae
        Model file whose VAE made the latents; for "patchifier" also the one with 8x8x8 to 16.
    latents
        Folder of latents to train on, one for each VAE (``openltx data precompute``).
    heldout
        Folder of latents to measure the loss on, one for each VAE.
    out
        Folder of the runs and of report.md, report.json, curves.png.
    unseen
        Folder of held-out latents in sizes that are not trained on (rendered with --formats unseen).
    base
        Weight file with the transformer of "last-step", which trains nothing.
    data
        Clip folder whose held-out captions --prompts takes (default: rendered into the cache).
    prompts
        Also generate from so many held-out captions and judge the videos.
    seeds
        Each arm is trained once with each.
    """
    from openltx.checkpoints.text import MINILM, load_text_encoder
    from openltx.data.latents import LatentFolder
    from openltx.eval.comparison import Networks
    from openltx.eval.probe import load_probe
    from openltx.recipes.arms import to_markdown
    from openltx.recipes.flow_ablations import FLOW_EXPERIMENTS
    from openltx.recipes.flow_experiment import COLUMNS, FlowConditions, run_flow_experiment

    if name not in FLOW_EXPERIMENTS:
        raise RunError(f'There is no experiment "{name}". The experiments are: {", ".join(FLOW_EXPERIMENTS)}.')
    experiment = FLOW_EXPERIMENTS[name]
    if not len(vae) == len(latents) == len(heldout) == experiment.num_sources:
        raise RunError(
            f'The experiment "{name}" needs {experiment.num_sources} of each of --vae, --latents and --heldout; given '
            f"were {len(vae)}, {len(latents)} and {len(heldout)}."
        )
    untrained = any(not arm.trains for arm in experiment.arms)
    if untrained and (base is None or not prompts):
        raise RunError(f'The experiment "{name}" samples a trained model: give it with --base, and --prompts.')
    folder, clips = clips_to_measure(prompts, data=data, seed=0) if prompts else (None, [])
    conditions = FlowConditions(
        sources=[_source(*places) for places in zip(vae, latents, heldout, strict=True)],
        text=load_text_encoder(MINILM),
        unseen=_some(LatentFolder(unseen)) if unseen is not None else (),
        base=base_transformer(base),
        folder=folder,
        clips=clips,
        probe=load_probe() if prompts else None,
        networks=load_networks() if prompts else Networks(),
        steps=steps,
        threads=threads,
    )
    report = run_flow_experiment(experiment, out, seeds, conditions, say)
    if report is None:
        say("Stopped; the same command goes on.")
        return
    write_text(out / "report.md", to_markdown(report, COLUMNS))
    write_json(out / "report.json", report)
    print(to_markdown(report, COLUMNS))
    say(f"{out}  report.md, report.json, curves.png")


def _source(vae: Path, latents: Path, heldout: Path) -> "Source":
    from openltx.checkpoints.load import load_vae
    from openltx.data.latents import INDEX, LatentFolder
    from openltx.recipes.flow_experiment import Source

    patches = {json.loads((place / INDEX).read_text()).get("patch", 1) for place in (latents, heldout)}
    if len(patches) > 1:
        raise RunError(f"{latents} and {heldout} were folded differently; make both with the same --patch.")
    return Source(
        vae=load_vae(vae, dtype=torch.float32),
        latents=LatentFolder(latents),
        held_out=_some(LatentFolder(heldout)),
        patch=patches.pop(),
    )


def _some(examples: "LatentFolder") -> "list[Example]":
    """Evenly spaced examples, in memory."""
    from openltx.media.contact_sheet import evenly_spaced

    return [examples[i] for i in evenly_spaced(len(examples), min(len(examples), MOST_HELD_OUT))]
