"""Our Video-VAE against diffusers' independent one: same weights, carried through our rename tables, same numbers.

Every released block layout, a sixteenth as wide, random weights, float32. Diffusers knows no normalised latents, so
each comparison is made with trivial statistics and with random ones. Injected noise (0.9.1) is off: the two draw it
differently.
"""

import json

import pytest
import torch

from openltx.checkpoints import diffusers as our_diffusers
from openltx.checkpoints import load_vae
from openltx.checkpoints.keys import vae_table
from openltx.data.datasets import ClipBatches, Draw, Stage
from openltx.models.presets import vae_preset
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.export import trained_vae
from openltx.training.loop import run
from openltx.training.vae import VAELossConfig, VAETask, new_autoencoder

BASE, LATENT = 8, 16
TOLERANCE = 1e-4

_CONDITIONED = {
    "decoder_block_out_channels": (2 * BASE, 4 * BASE, 8 * BASE),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}
DIFFUSERS = {
    "0.9.0": {
        "block_out_channels": (BASE, 2 * BASE, 4 * BASE, 4 * BASE),
        "decoder_block_out_channels": (BASE, 2 * BASE, 4 * BASE, 4 * BASE),
    },
    "0.9.1": {
        "block_out_channels": (BASE, 2 * BASE, 4 * BASE, 4 * BASE),
        "decoder_layers_per_block": (5, 6, 7, 8),
        "decoder_inject_noise": (True, True, True, False),
        **_CONDITIONED,
    },
    "0.9.5": {
        "block_out_channels": (BASE, 2 * BASE, 4 * BASE, 8 * BASE, 16 * BASE),
        "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
        "layers_per_block": (4, 6, 6, 2, 2),
        "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        "spatio_temporal_scaling": (True, True, True, True),
        "decoder_layers_per_block": (5, 5, 5, 5),
        "decoder_inject_noise": (False, False, False, False),
        **_CONDITIONED,
    },
}
RELEASES = pytest.mark.parametrize("release", DIFFUSERS)
STATISTICS = pytest.mark.parametrize("statistics", ["trivial", "random"])


def reference(release):
    """Diffusers' module with every weight random, on the scale of a trained one."""
    from diffusers import AutoencoderKLLTXVideo

    torch.manual_seed(0)
    theirs = AutoencoderKLLTXVideo(latent_channels=LATENT, **DIFFUSERS[release]).eval()
    for name, tensor in theirs.state_dict().items():
        if name.endswith(("scale_shift_table", "bias")):
            tensor.normal_(std=0.2)
        elif "per_channel_scale" in name:
            tensor.zero_()
    return theirs


def ours_of(theirs, release):
    ours = VideoAutoencoder(vae_preset(release, base_channels=BASE, latent_channels=LATENT)).eval()
    ours.load_state_dict(vae_table(ours.config).inverse.apply(theirs.state_dict()))
    return ours


def set_statistics(theirs, statistics):
    if statistics == "random":
        theirs.latents_mean.normal_()
        theirs.latents_std.uniform_(0.5, 2)


def relative_error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def column(values):
    return values[:, None, None, None]


@RELEASES
def test_every_tensor_has_a_place_in_both(release):
    theirs = reference(release)
    ours = ours_of(theirs, release)
    back = vae_table(ours.config).apply(ours.state_dict())
    assert back.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(back[name], tensor), name


@RELEASES
@STATISTICS
@torch.no_grad()
def test_encode_agrees_with_diffusers(release, statistics):
    theirs = reference(release)
    set_statistics(theirs, statistics)
    video = torch.rand(2, 3, 17, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    posterior = theirs.encode(video).latent_dist
    ours = ours_of(theirs, release)
    expected = (posterior.mean - column(theirs.latents_mean)) / column(theirs.latents_std)
    assert expected.shape == (2, LATENT, 3, 2, 3)
    assert relative_error(ours.encode(video), expected) <= TOLERANCE
    assert relative_error(ours.encoder(video).log_variance, posterior.logvar) <= TOLERANCE


@RELEASES
@STATISTICS
@torch.no_grad()
def test_decode_agrees_with_diffusers(release, statistics):
    theirs = reference(release)
    set_statistics(theirs, statistics)
    latents = torch.randn(2, LATENT, 3, 2, 3, generator=torch.Generator().manual_seed(2))
    t = torch.tensor([0.05, 0.15]) if theirs.config.timestep_conditioning else None
    ours = ours_of(theirs, release)
    unnormalised = latents * column(theirs.latents_std) + column(theirs.latents_mean)
    expected = theirs.decode(unnormalised, t).sample
    assert expected.shape == (2, 3, 17, 64, 96)
    assert relative_error(ours.decode(latents, t=t, noise_scale=0.0), expected) <= TOLERANCE


@torch.no_grad()
def test_the_comparison_of_conditioned_decoders_depends_on_t():
    theirs = reference("0.9.5")
    ours = ours_of(theirs, "0.9.5")
    latents = torch.randn(1, LATENT, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    low, high = (ours.decode(latents, t=t, noise_scale=0.0) for t in (0.05, 0.15))
    assert relative_error(low, high) > 100 * TOLERANCE


@RELEASES
def test_a_folder_that_diffusers_wrote_is_read(release, tmp_path):
    theirs = reference(release)
    theirs.save_pretrained(tmp_path / "vae")
    config = our_diffusers.vae_config(json.loads((tmp_path / "vae" / "config.json").read_text()))
    assert config == vae_preset(release, base_channels=BASE, latent_channels=LATENT)
    loaded = vae_table(config).apply(load_vae(tmp_path).state_dict())
    assert all(torch.equal(loaded[name], tensor) for name, tensor in theirs.state_dict().items())


def test_a_vae_trained_here_decodes_the_same_in_diffusers(clip_folder, tmp_path):
    start = vae_preset("0.9.5", base_channels=BASE, latent_channels=LATENT)
    data = ClipBatches(clip_folder, (Stage(until=9, draws=(Draw(clips=1, frames=9),)),), seed=0)
    task = VAETask(
        model=new_autoencoder(start, seed=0),
        data=data,
        heldout=[data.batch(0, 0)[0]],
        losses=VAELossConfig(),
        optim=OptimConfig(kind="muon", lr=2e-3, muon_lr=0.02),
    )
    run(task, RunConfig(steps=3, out=tmp_path, autocast="none", tensorboard=False, progress=False))
    ours, theirs = trained_vae(tmp_path), reference("0.9.5")
    theirs.load_state_dict(vae_table(ours.config).apply(ours.state_dict()))
    with torch.no_grad():
        latents = ours.encode(data.batch(1, 0))
        unnormalised = latents * column(theirs.latents_std) + column(theirs.latents_mean)
        expected = theirs.decode(unnormalised, torch.tensor([0.05])).sample
        assert relative_error(ours.decode(latents, t=0.05, noise_scale=0.0), expected) <= TOLERANCE
