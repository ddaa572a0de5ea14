"""``openltx train export``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.cli.train.flow import flow_recipe
from openltx.errors import RunError


def export(
    recipe: str,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    *,
    vae_run: Path | None = None,
    vae: Path | None = None,
    flow_run: Path | None = None,
    ema_length: float | None = None,
) -> None:
    """Write trained weights as one model file in the official layout.

    Parameters
    ----------
    recipe
        The named run, "playroom" or "playroom-mixed": how the file asks to be sampled.
    output
        The .safetensors file to write.
    vae_run
        Run folder of ``openltx train vae``, of whatever recipe.
    vae
        Model file to take the VAE from instead.
    flow_run
        Run folder of ``openltx train flow`` or ``distill``; without it the file holds the VAE only.
    ema_length
        Average the transformer's weights over about this share of the run (0.025 to 0.25), where the recipe stored what
        that needs; otherwise the run's own average is taken.
    """
    from openltx.checkpoints.load import load_vae
    from openltx.checkpoints.text import MINILM
    from openltx.training.export import distilled_times, trained_transformer, trained_vae
    from openltx.training.export import export as write

    chosen = flow_recipe(recipe)
    if (vae_run is None) == (vae is None):
        raise RunError("Say where the VAE comes from: either --vae-run RUN or --vae FILE.")
    autoencoder = load_vae(vae) if vae is not None else trained_vae(vae_run or Path())
    transformer = trained_transformer(flow_run, ema_length) if flow_run is not None else None
    write(
        output,
        transformer,
        autoencoder,
        schedule=chosen.schedule,
        sampling=chosen.sampling,
        text_encoder=MINILM,
        world="playroom",
        allowed_times=distilled_times(flow_run) if flow_run is not None else None,
    )
    print(output)
