"""A new decoder for a Video-VAE whose encoder stays as it is: transformers that use its latents need no training.

Needs      any VAE as --base, a released one too; clips like those that it shall decode as --data
Source     LTX-Video, section 2.1.1, for the denoising decoder; the frozen encoder is ours
Command    openltx train vae decoder --base FILE --data work/clips --out work/decoder

As it stands it fine-tunes the base's decoder. With ``decoder_base_channels`` a smaller one is trained from nothing. For
the wide decoders of the releases add --recompute.
"""

from openltx.data.datasets import Draw, Stage
from openltx.recipes.vae import VAERecipe
from openltx.training.config import OptimConfig
from openltx.training.vae import VAELossConfig

VAE_RUN = VAERecipe(
    start="base",
    trained="decoder",
    stages=(Stage(until=10**9, draws=(Draw(clips=6, frames=9), Draw(clips=4, frames=17))),),
    losses=VAELossConfig(),
    optim=OptimConfig(
        kind="muon", lr=2e-4, muon_lr=0.005, betas=(0.9, 0.98), schedule="trapezoid", warmup=50, cooldown=0.5
    ),
    steps=2000,
)
