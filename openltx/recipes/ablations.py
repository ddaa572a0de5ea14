"""What each part of the Video-VAE's training does: experiments with arms that differ in one thing. (Paper section 4.3.)

Source     LTX-Video, sections 2.1 and 4.3
Command    openltx train ablation NAME --data work/clips --base FILE --out work/NAME
Results    not run yet

Arms of one experiment see the same batches for the same number of steps, in the same order, from the same start.
"""

from dataclasses import dataclass, replace

from openltx.data.datasets import Draw, Stage
from openltx.models.critic import CriticConfig
from openltx.models.vae.autoencoder import Block, VAEConfig
from openltx.recipes import playroom
from openltx.recipes.vae import VAERecipe
from openltx.training.adversarial import AdversarialConfig
from openltx.training.config import OptimConfig
from openltx.training.vae import VAELossConfig


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of training; measured with the decoder told ``t`` and given as much noise."""

    name: str
    recipe: VAERecipe
    t: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A question, where the paper answers it, and the arms whose results do."""

    question: str
    paper: str
    arms: tuple[Arm, ...]


_OPTIM = OptimConfig(
    kind="muon", lr=3e-4, muon_lr=0.01, betas=(0.9, 0.98), schedule="trapezoid", warmup=20, cooldown=0.4
)
_SMALL = replace(playroom.VAE, encoder_base_channels=16, decoder_base_channels=16)
_SCRATCH = VAERecipe(  # half as wide as the bundled VAE, from nothing: what a part changes in how learning goes
    model=_SMALL,
    stages=(
        Stage(until=600, draws=(Draw(clips=8, frames=1, per_clip=3),)),
        Stage(until=10**9, draws=(Draw(clips=6, frames=9),)),
    ),
    losses=VAELossConfig(freeze_statistics_from=800, lpips_from=600),
    optim=_OPTIM,
    steps=1000,
    sample_every=1000,
)
_FURTHER = VAERecipe(  # the bundled VAE, trained on: what a part changes in a good reconstruction
    start="base",
    stages=(Stage(until=10**9, draws=(Draw(clips=4, frames=17),)),),
    losses=VAELossConfig(freeze_statistics_from=0),
    optim=replace(_OPTIM, muon_lr=0.003, lr=1e-4),
    steps=500,
    sample_every=500,
)
_CRITIC = AdversarialConfig(critic_from=0, weight_from=50)
_CRITIC_OPTIM = OptimConfig(lr=2e-4, betas=(0.5, 0.98), warmup=20)


def _with_critic(config: AdversarialConfig) -> VAERecipe:
    return replace(_FURTHER, adversarial=config, critic_optim=_CRITIC_OPTIM)


def _injecting(config: VAEConfig) -> VAEConfig:
    blocks = tuple(replace(block, inject_noise=block.kind == "res_x") for block in config.decoder_blocks)
    return replace(config, decoder_blocks=blocks)


_DENOISING = replace(_FURTHER, trained="decoder")
_COMPRESSED_8 = (
    replace(  # what others do: 8 x 8 x 8 pixels to 16 channels; a patchifier of 4 x 4 makes the same tokens of it
        _SMALL,
        latent_channels=16,
        encoder_blocks=(
            Block("res_x", 1),
            Block("compress_all_res", multiplier=2),
            Block("res_x", 1),
            Block("compress_time_res", multiplier=2),
            Block("res_x", 2),
            Block("compress_time_res"),
            Block("res_x", 2),
        ),
        decoder_blocks=(
            Block("res_x", 2),
            Block("compress_all", residual=True, multiplier=2),
            Block("res_x", 2),
            Block("compress_time"),
            Block("res_x", 2),
            Block("compress_time"),
            Block("res_x", 2),
        ),
    )
)

EXPERIMENTS = {
    "critic": Experiment(
        question="Is the reconstruction GAN better than the ordinary one, and either than none?",
        paper="2.1.2, Fig. 16: fewer artifacts than with the ordinary GAN, mostly in fast motion and fine detail",
        arms=(
            Arm(name="no critic", recipe=_FURTHER),
            Arm(name="ordinary GAN", recipe=_with_critic(replace(_CRITIC, critic=CriticConfig(versions=1)))),
            Arm(name="reconstruction GAN", recipe=_with_critic(_CRITIC)),
        ),
    ),
    "wavelets": Experiment(
        question="What does the video wavelet loss add?",
        paper="2.1.5: high frequencies that pixel and perceptual losses miss",
        arms=(
            Arm(name="with DWT loss", recipe=_SCRATCH),
            Arm(name="without", recipe=replace(_SCRATCH, losses=replace(_SCRATCH.losses, dwt=0.0))),
        ),
    ),
    "variance": Experiment(
        question="Does one log-variance for all channels keep channels alive?",
        paper="2.1.4: with one per channel, some are given up to the prior",
        arms=(
            Arm(name="uniform", recipe=_SCRATCH),
            Arm(name="per channel", recipe=replace(_SCRATCH, model=replace(_SMALL, latent_log_var="per_channel"))),
        ),
    ),
    "last-step": Experiment(
        question="Should the decoder learn to denoise?",
        paper="2.1.1, Fig. 18: the decoder at t = 0.05 is strongly preferred to a plain one",
        arms=(
            Arm(name="denoising decoder, t = 0.05", recipe=_DENOISING),
            Arm(
                name="plain decoder, t = 0",
                recipe=replace(_DENOISING, losses=replace(_FURTHER.losses, max_t=0.0)),
                t=0.0,
            ),
        ),
    ),
    "injection": Experiment(
        question="What does noise injected into the decoder's layers add?",
        paper="2.1.3: more varied high-frequency detail",
        arms=(
            Arm(name="without", recipe=_with_critic(_CRITIC)),
            Arm(name="with injected noise", recipe=replace(_with_critic(_CRITIC), model=_injecting(playroom.VAE))),
        ),
    ),
    "causality": Experiment(
        question="What does a causal encoder cost?",
        paper="2.1.6: a non-causal one was easier to train and slightly better",
        arms=(
            Arm(name="causal", recipe=_SCRATCH),
            Arm(name="not causal", recipe=replace(_SCRATCH, model=replace(_SMALL, causal_encoder=False))),
        ),
    ),
    "compression": Experiment(
        question="What does 32 x 32 x 8 to 128 channels lose against 8 x 8 x 8 to 16?",
        paper="2: the patchifier in front of the VAE instead of the transformer; twice the compression",
        arms=(
            Arm(name="32x32x8, 128 channels", recipe=_SCRATCH),
            Arm(name="8x8x8, 16 channels", recipe=replace(_SCRATCH, model=_COMPRESSED_8)),
        ),
    ),
}
