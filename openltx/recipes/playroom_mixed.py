"""The transformer of the next bundled model: Playroom in many sizes and lengths, from text and from pictures.

What       25 to 97 frames, 96x96 to 192x128 pixels, in two families of about 96 to 120 and 176 to 216 tokens; single
           frames; first frames, openings, keyframes, endings and masks are given now and then; averages of the weights
           whose length is chosen afterwards
Source     LTX-Video, sections 2.4 and 2.5; what the paper leaves open is in ``training.flow``
Cost       not trained yet
Command    runs/playroom_mixed.sh WORK VAE
"""

from dataclasses import replace

from openltx.data.precompute import Precompute
from openltx.recipes import playroom
from openltx.training.conditions import ConditionMix
from openltx.training.config import OptimConfig
from openltx.training.distill import DistillConfig
from openltx.training.flow import FlowConfig

FLOW = FlowConfig(
    tokens_per_batch=2048,
    image_share=0.08,
    conditions=ConditionMix(first_frame=0.25, opening=0.05, inpainting=0.05, keyframes=0.1, ending=0.05),
    shift_low=(96, 0.8),  # as much for a doubling of the tokens as in the releases, 0.55
    shift_high=(192, 1.35),
)

FLOW_RUN = replace(
    playroom.FLOW_RUN,
    flow=FLOW,
    latents=Precompute(stills=3, ending=3),
    accumulate=2,
    steps=6000,
    posthoc_every=250,
    distill=DistillConfig(steps=8, substeps=4, cfg=3.0, tokens=112),
    distill_optim=OptimConfig(
        kind="muon", lr=1e-4, muon_lr=0.002, betas=(0.9, 0.98), schedule="trapezoid", warmup=50, cooldown=0.5
    ),
    distill_steps=1000,
)
