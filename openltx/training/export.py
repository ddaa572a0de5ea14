"""From runs to one file: averaged weights in the official single-file layout."""

import json
from collections.abc import Mapping
from pathlib import Path

from openltx.checkpoints.config import official_schedule
from openltx.checkpoints.single_file import save_single_file
from openltx.flow.schedule import Schedule
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder
from openltx.training.state import load_weights


def trained_vae(run: Path, config: VAEConfig) -> VideoAutoencoder:
    """The averaged VAE of a run's newest checkpoint."""
    model = VideoAutoencoder(config)
    model.load_state_dict(load_weights(run))
    return model.eval()


def trained_transformer(run: Path, config: TransformerConfig) -> VideoTransformer:
    """The averaged transformer of a run's newest checkpoint."""
    model = VideoTransformer(config)
    model.load_state_dict(load_weights(run))
    return model.eval()


def export(
    path: Path,
    transformer: VideoTransformer | None,
    vae: VideoAutoencoder,
    *,
    schedule: Schedule,
    sampling: Mapping[str, object],
    text_encoder: str,
    world: str,
) -> None:
    """Write the file that ``openltx.load`` reads, in bf16, with how it wants to be sampled."""
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
    )
