"""What each part of the transformer's training does: arms that differ in one thing, on equal terms.

Source     LTX-Video, sections 2.1 to 2.5 and 4.3
Command    openltx train flow-ablation NAME --latents DIR --heldout DIR --vae FILE --out DIR
Results    not run yet

Latents are those of ``playroom-mixed`` (openltx data precompute). "patchifier" needs a second set, of a VAE of 8x8x8 to
16 (openltx train ablation compression trains one) with --patch 4. "last-step" trains nothing: it samples --base.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from openltx.models.transformer import TransformerConfig
from openltx.recipes import playroom, playroom_mixed
from openltx.recipes.flow import FlowRecipe
from openltx.training.conditions import ConditionMix
from openltx.training.config import OptimConfig


@dataclass(frozen=True, kw_only=True)
class FlowArm:
    """One way of training and sampling.

    ``source`` says which of the given latents and VAEs are its own; ``trains`` False takes the base as it is.
    """

    name: str
    recipe: FlowRecipe
    sampling: Mapping[str, Any] = field(default_factory=dict)
    source: int = 0
    trains: bool = True


@dataclass(frozen=True, kw_only=True)
class FlowExperiment:
    """A question, where the paper answers it, and the arms whose results do."""

    question: str
    paper: str
    arms: tuple[FlowArm, ...]

    @property
    def num_sources(self) -> int:
        """How many sets of latents it needs."""
        return 1 + max(arm.source for arm in self.arms)


_OPTIM = OptimConfig(
    kind="muon", lr=5e-4, muon_lr=0.01, betas=(0.9, 0.98), schedule="trapezoid", warmup=50, cooldown=0.4
)
_ADAMW = replace(_OPTIM, kind="adamw", lr=1e-3)
_SMALL = TransformerConfig(num_layers=4, num_heads=4, head_dim=64, caption_channels=384)
_FLOW = replace(playroom_mixed.FLOW, image_share=0.0, conditions=ConditionMix(first_frame=0.25))
_BASE = FlowRecipe(
    transformer=_SMALL,
    flow=_FLOW,
    optim=_OPTIM,
    steps=800,
    sampling=playroom.SAMPLING,
    sample_every=None,
)
_LEVEL = (_FLOW.shift_low[1] + _FLOW.shift_high[1]) / 2


def _model(**changes: Any) -> FlowRecipe:
    return replace(_BASE, transformer=replace(_SMALL, **changes))


def _flow(**changes: Any) -> FlowRecipe:
    return replace(_BASE, flow=replace(_FLOW, **changes))


def _arms(**recipes: FlowRecipe) -> tuple[FlowArm, ...]:
    return tuple(FlowArm(name=name.replace("_", " "), recipe=recipe) for name, recipe in recipes.items())


_FAST = replace(_ADAMW, lr=1e-2)
_UNNORMED = replace(_SMALL, qk_norm="none")
FLOW_EXPERIMENTS = {
    "rope-spacing": FlowExperiment(
        question="Do rotary frequencies that rise exponentially learn faster than the usual ones?",
        paper="2.2, Fig. 17: lower loss all along",
        arms=_arms(exponential=_BASE, inverse_exponential=_model(rope_spacing="inverse")),
    ),
    "positions": FlowExperiment(
        question="Should positions be a share of a fixed maximum, of the clip itself, or absolute?",
        paper="2.2: the share of a fixed maximum is best",
        arms=_arms(
            share_of_a_maximum=_BASE,
            share_of_the_clip=_model(rope_positions="fractional"),
            absolute=_model(rope_positions="absolute", rope_spacing="inverse"),  # rising frequencies would alias
        ),
    ),
    "token-shift": FlowExperiment(
        question="Does it help to train larger videos at more noise?",
        paper="2.5: the distribution of t moves with the token count",
        arms=_arms(
            with_the_token_count=_BASE,
            the_same_for_all=_flow(shift_low=(96, _LEVEL), shift_high=(192, _LEVEL)),
        ),
    ),
    "tails": FlowExperiment(
        question="What do clamped tails of the distribution of t do, and which reading of them?",
        paper='2.5: "to prevent starvation ... we clamp the pdf at percentiles 0.5 and 99.9"',
        arms=_arms(flat=_BASE, stretched=_flow(tails="stretched"), none=_flow(tails="none")),
    ),
    "mixing": FlowExperiment(
        question="Sizes in one batch: drop tokens, pad, or only equal counts?",
        paper="2.5: 0 to 20% of the tokens are dropped; no packing, no padding",
        arms=_arms(drop=_BASE, pad=_flow(mixing="pad"), equal_counts_only=_flow(mixing="none")),
    ),
    "qk-norm": FlowExperiment(
        question="Does the norm of q and k keep attention's entropy up, and training stable at a high learning rate?",
        paper="2.2: it avoids huge logits and near-zero entropy",
        arms=_arms(
            rms=replace(_BASE, optim=_ADAMW),
            none=replace(_BASE, optim=_ADAMW, transformer=_UNNORMED),
            rms_ten_times_the_rate=replace(_BASE, optim=_FAST),
            none_ten_times_the_rate=replace(_BASE, optim=_FAST, transformer=_UNNORMED),
        ),
    ),
    "image-to-video": FlowExperiment(
        question="What does learning from first frames too cost text to video?",
        paper="2.4: both are trained simultaneously",
        arms=_arms(joint=_BASE, text_alone=_flow(conditions=ConditionMix(first_frame=0.0))),
    ),
    "attention": FlowExperiment(
        question="Cross-attention to the caption, or one sequence of caption and video?",
        paper="2.3: cross-attention gave better results than MM-DiT (which also has weights of its own for text)",
        arms=_arms(cross=_BASE, joint=_model(text_attention="joint", num_layers=5)),  # of about as many parameters
    ),
    "patchifier": FlowExperiment(
        question="At equal tokens: compress in the VAE, or patchify in front of the transformer?",
        paper="2: 32x32x8 to 128 channels without a patchifier, against 8x8x8 to 16 with one",
        arms=(
            FlowArm(name="32x32x8 x 128", recipe=_BASE),
            FlowArm(name="8x8x8 x 16, patches of 4x4", recipe=_model(in_channels=256, out_channels=256), source=1),
        ),
    ),
    "last-step": FlowExperiment(
        question="Who should denoise last: the decoder, or the transformer?",
        paper="4.3, Fig. 18: the decoder at t = 0.05 is strongly preferred",
        arms=(
            FlowArm(name="decoder, t = 0.05", recipe=playroom.FLOW_RUN, trains=False),
            FlowArm(
                name="transformer, decoder at t = 0",
                recipe=playroom.FLOW_RUN,
                sampling={"last_step": "renoise", "decode_timestep": 0.0, "decode_noise_scale": 0.0},
                trains=False,
            ),
            FlowArm(
                name="transformer, renoised for the decoder",
                recipe=playroom.FLOW_RUN,
                sampling={"last_step": "renoise"},
                trains=False,
            ),
        ),
    ),
    "optimizer": FlowExperiment(
        question="Muon for the matrices of the blocks, or AdamW for all?",
        paper="4.1: AdamW",
        arms=_arms(muon=_BASE, adamw=replace(_BASE, optim=_ADAMW)),
    ),
}
