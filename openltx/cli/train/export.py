"""``openltx train export``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.train.flow import require_recipe
from openltx.errors import RunError


def export(
    recipe: str,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    *,
    vae_run: Path | None = None,
    vae: Path | None = None,
    flow_run: Path | None = None,
) -> None:
    """Write trained weights as one model file in the official layout.

    Parameters
    ----------
    recipe
        The named run; so far "playroom".
    output
        The .safetensors file to write.
    vae_run
        Run folder of ``openltx train vae``, of whatever recipe.
    vae
        Model file to take the VAE from instead.
    flow_run
        Run folder of ``openltx train flow``; without it the file holds the VAE only.
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM
    from openltx.recipes import playroom
    from openltx.training.export import export as write
    from openltx.training.export import trained_transformer, trained_vae
    from openltx.training.flow import inference_schedule

    require_recipe(recipe)
    if (vae_run is None) == (vae is None):
        raise RunError("Say where the VAE comes from: either --vae-run RUN or --vae FILE.")
    autoencoder = load_vae(vae) if vae is not None else trained_vae(vae_run or Path())
    transformer = trained_transformer(flow_run) if flow_run is not None else None
    write(
        output,
        transformer,
        autoencoder,
        schedule=inference_schedule(playroom.FLOW),
        sampling=playroom.SAMPLING,
        text_encoder=MINILM,
        world="playroom",
    )
    print(output)
