"""The bundled model, from nothing: a small LTX-Video that knows the Playroom world.

What       the paper's architecture at 1/60 of its size: Video-VAE (32 x 32 x 8 pixels to one token of 128 channels) and
           transformer, on procedural 128 x 128 clips of 25 to 49 frames at 24 fps
Source     LTX-Video, sections 2.1 to 2.5; what differs is named at each setting
Cost       on two Zen 4 cores, partly shared with other work: VAE 2.4 hours, latents 0.5, transformer 1.8; rendering 0.4
Result     VAE 27.7 dB at t = 0.05; of the judges' ceiling: colour 95%, motion 76%, shape 54% (README, docs/training.md)
Command    runs/playroom.sh
"""

from openltx.data.datasets import Draw, Stage
from openltx.models.transformer import TransformerConfig
from openltx.models.vae.autoencoder import Block, VAEConfig
from openltx.recipes.flow import FlowRecipe
from openltx.recipes.vae import VAERecipe
from openltx.training.config import OptimConfig
from openltx.training.flow import FlowConfig
from openltx.training.vae import VAELossConfig

VAE = VAEConfig(
    encoder_base_channels=32,
    decoder_base_channels=32,
    timestep_conditioning=True,
    encoder_blocks=(
        Block("res_x", 1),
        Block("compress_space_res", multiplier=2),
        Block("res_x", 1),
        Block("compress_time_res", multiplier=2),
        Block("res_x", 1),
        Block("compress_all_res"),
        Block("res_x", 2),
        Block("compress_all_res"),
        Block("res_x", 3),
    ),
    decoder_blocks=(
        Block("res_x", 2),
        Block("compress_all", residual=True, multiplier=2),
        Block("res_x", 2),
        Block("compress_all", residual=True, multiplier=2),
        Block("res_x", 2),
        Block("compress_all", residual=True),
        Block("res_x", 3),
    ),
)

TRANSFORMER = TransformerConfig(num_layers=8, num_heads=5, head_dim=64, caption_channels=384)

VAE_RUN = VAERecipe(
    model=VAE,
    stages=(  # an image stage long enough to learn still pictures: it costs a quarter as much per scene
        Stage(until=3100, draws=(Draw(clips=8, frames=1, per_clip=3),)),
        Stage(until=4000, draws=(Draw(clips=6, frames=9),)),
        Stage(until=10**9, draws=(Draw(clips=4, frames=17),)),
    ),
    losses=VAELossConfig(freeze_statistics_from=4000, lpips_from=4000),
    optim=OptimConfig(
        kind="muon", lr=3e-4, muon_lr=0.01, betas=(0.9, 0.98), schedule="trapezoid", warmup=50, cooldown=0.3
    ),
    steps=4800,
)

FLOW = FlowConfig(mixing="none")  # clips of one length in a batch

SAMPLING = {
    "frames": 49, "width": 128, "height": 128, "fps": 24.0,
    "steps": 30, "cfg": 3.0, "rescale": 0.0,
    "last_step": "decoder", "decode_timestep": 0.05, "decode_noise_scale": 0.025,
}  # fmt: skip

SAMPLE_PROMPTS = (
    "A small red rubber ball drops onto a wooden floor and bounces",
    "A large blue cube slides to the left on a checkered floor",
    "a green cylinder topples over on a white marble floor",
    "A yellow ball rolls to the right and hits a purple cube",
    "a pink cone stays still while the camera zooms in",
    "A large orange ball swings on a string",
    "A small blue ball rolls to the right on a grey concrete floor",
    "a large white cube drops onto grass",
)

FLOW_RUN = FlowRecipe(
    transformer=TRANSFORMER,
    flow=FLOW,
    optim=OptimConfig(
        kind="muon", lr=5e-4, muon_lr=0.01, betas=(0.9, 0.98), schedule="trapezoid", warmup=100, cooldown=0.3
    ),
    steps=3000,
    sampling=SAMPLING,
    sample_prompts=SAMPLE_PROMPTS,
)
