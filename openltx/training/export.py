"""From runs to one file: averaged weights in the official single-file layout."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from openltx.checkpoints.config import official_schedule
from openltx.checkpoints.single_file import save_single_file
from openltx.errors import RunError
from openltx.flow.schedule import Schedule
from openltx.models.bundle import LTXModel
from openltx.models.text import MiniLMEncoder
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import Block, VAEConfig, VideoAutoencoder
from openltx.training.posthoc import averaged_weights
from openltx.training.state import load_settings, load_task_settings, load_weights


def trained_vae(run: Path) -> VideoAutoencoder:
    """The averaged VAE of a run's newest checkpoint, or of a checkpoint; an adversarial run's critic stays behind.

    Raises RunError if the run trained something else.
    """
    settings = load_settings(run)
    try:
        sides = ("encoder_blocks", "decoder_blocks")
        blocks = {side: tuple(Block(**block) for block in settings[side]) for side in sides}
        model = VideoAutoencoder(VAEConfig(**{**settings, **blocks}))
    except (KeyError, TypeError) as error:
        raise RunError(
            f"{run} does not say which VAE it holds ({error!r}). Give a run or checkpoint of `openltx train vae`, or a "
            "file that `openltx train export` wrote."
        ) from error
    weights = load_weights(run)
    if any(name.startswith("critic.") for name in weights):
        weights = {name.removeprefix("vae."): tensor for name, tensor in weights.items() if name.startswith("vae.")}
    model.load_state_dict(weights)
    return model.eval()


def trained_transformer(run: Path, length: float | None = None) -> VideoTransformer:
    """The averaged transformer of a run's newest checkpoint, or with averages of the ``length`` sigma_rel (posthoc)."""
    settings = load_settings(run)
    config = TransformerConfig(**{**settings, "max_positions": tuple(settings["max_positions"])})
    model = VideoTransformer(config)
    model.load_state_dict(load_weights(run) if length is None else averaged_weights(run, length))
    return model.eval()


def distilled_times(run: Path) -> tuple[float, ...] | None:
    """The times for which a run distilled its transformer; None if it is no distillation."""
    times = load_task_settings(run).get("distill", {}).get("times")
    return None if times is None else tuple(times)


def export_tuned(path: Path, run: Path, base: LTXModel) -> None:
    """Write the averaged transformer of a run that trained all of ``base``'s, with its VAE and settings, in bf16."""
    transformer = VideoTransformer(base.transformer.config)
    transformer.load_state_dict(load_weights(run))
    metadata = {"openltx.sampling": json.dumps(base.sampling)}
    if isinstance(base.text, MiniLMEncoder):
        metadata["openltx.text_encoder"] = base.text.name
    save_single_file(path, transformer, base.vae, metadata=metadata, scheduler=official_schedule(base.schedule))


def export(
    path: Path,
    transformer: VideoTransformer | None,
    vae: VideoAutoencoder,
    *,
    schedule: Schedule,
    sampling: Mapping[str, object],
    text_encoder: str,
    world: str,
    allowed_times: Sequence[float] | None = None,
) -> None:
    """Write the file that ``openltx.load`` reads, in bf16, with how it wants to be sampled.

    ``allowed_times`` are those of a distilled transformer, which is sampled at them without guidance.
    """
    if allowed_times is not None:
        sampling = {**sampling, "times": list(allowed_times), "steps": len(allowed_times), "cfg": 1.0, "rescale": 0.0}
    save_single_file(
        path,
        transformer,
        vae,
        metadata={
            "openltx.text_encoder": text_encoder,
            "openltx.world": world,
            "openltx.sampling": json.dumps(dict(sampling)),
        },
        scheduler=official_schedule(schedule),
        allowed_times=allowed_times,
    )
