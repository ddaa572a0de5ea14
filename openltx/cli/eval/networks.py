"""The networks that the evaluation loads: the VAE to measure, and those that look at its output."""

from collections.abc import Callable
from typing import TypeVar

import torch

from openltx.checkpoints.assets import load_lpips, load_mobilenet
from openltx.checkpoints.load import BUNDLED, load_bundle, load_vae
from openltx.cli.output import say
from openltx.errors import AssetError
from openltx.eval.comparison import Networks
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.pipelines.residency import Device, choose_device

Network = TypeVar("Network")


def load_autoencoder(model: str, device: Device) -> VideoAutoencoder:
    """The VAE of a named model or of a weight file, in float32."""
    place = choose_device(device)
    if model in BUNDLED:
        return load_bundle(model, dtype=torch.float32, device=place).vae
    return load_vae(model, dtype=torch.float32, device=place)


def load_networks() -> Networks:
    """The networks whose weights are here; a line for each of the others says how to get them."""
    return Networks(
        lpips_alex=if_present("LPIPS", lambda: load_lpips("alex")),
        lpips_vgg=if_present("LPIPS", lambda: load_lpips("vgg")),
        mobilenet=if_present("the Frechet distance", load_mobilenet),
    )


def if_present(what: str, load: Callable[[], Network]) -> Network | None:
    """What ``load`` gives; None, and a line that says so, if its weights are not here."""
    try:
        return load()
    except AssetError as error:
        say(f"Without {what}. {error}")
        return None
