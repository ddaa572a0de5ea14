"""Fine-tuning: named settings for a LoRA, an in-context LoRA, or all weights.

Source     the released trainer's configurations for the 2B and 13B models (rank, learning rate, steps, targets); what
           the bundled model wants was not measured yet
Command    openltx train lora RECIPE --base FILE --data DIR --out RUN
           openltx train full RECIPE --base FILE --data DIR --out RUN

Different from the released trainer on purpose: causal positions and text masks as in sampling, averaged weights, each
sample decides for itself whether its first frame is given.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from openltx.data.encoded import Size
from openltx.recipes import playroom
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.lora import BLOCKS, LoRAConfig
from openltx.training.tuning import TuneConfig

BasePrecision = Literal["float32", "bfloat16", "int8", "float8"]


@dataclass(frozen=True, kw_only=True)
class TuneRecipe:
    """All of a run but its model and its data."""

    lora: LoRAConfig | None  # None: all weights
    references: bool = False  # an in-context LoRA: every video has a clip to look at
    precision: BasePrecision = "bfloat16"  # of the frozen weights; all weights are trained in float32
    sizes: tuple[Size, ...]
    tune: TuneConfig = field(default_factory=TuneConfig)
    optim: OptimConfig
    steps: int
    accumulate: int = 1
    ema_decay: float = 0.99
    sample_every: int = 250
    recompute: bool = False

    def run(self, out: Path, seed: int = 0) -> RunConfig:
        """The loop's settings."""
        return RunConfig(
            steps=self.steps,
            out=out,
            seed=seed,
            accumulate=self.accumulate,
            ema_decay=self.ema_decay,
            sample_every=self.sample_every,
            log_every=10,
        )


_RELEASED = (Size(width=768, height=512, frames=49), Size(width=512, height=768, frames=49))
_PLAYROOM = TuneRecipe(
    lora=LoRAConfig(rank=16, targets=BLOCKS),
    precision="float32",
    sizes=(Size(width=128, height=128, frames=49),),
    tune=TuneConfig(
        batch_size=8,
        caption_dropout=0.1,
        first_frame_probability=0.3,
        first_frame_max_t=0.05,
        shift_low=playroom.FLOW.shift_low,
        shift_high=playroom.FLOW.shift_high,
    ),
    optim=OptimConfig(lr=1e-3, betas=(0.9, 0.99), warmup=20, schedule="cosine"),
    steps=600,
    sample_every=200,
)
_LTXV = TuneRecipe(
    lora=LoRAConfig(rank=32),
    sizes=_RELEASED,
    tune=TuneConfig(batch_size=2),
    optim=OptimConfig(lr=2e-4, betas=(0.9, 0.999), weight_decay=0.01, schedule="linear", final_ratio=0.1),
    steps=1500,
)
_LTXV_13B = TuneRecipe(
    lora=LoRAConfig(rank=128),
    precision="float8",
    sizes=_RELEASED,
    tune=TuneConfig(first_frame_probability=0.5),
    optim=_LTXV.optim,
    steps=2000,
    recompute=True,
)

LORA: dict[str, TuneRecipe] = {
    "playroom": _PLAYROOM,
    "ltxv-2b": _LTXV,
    "ltxv-13b": _LTXV_13B,
    "ltxv-13b-ic": TuneRecipe(
        lora=LoRAConfig(rank=128, targets=BLOCKS),
        references=True,
        precision="float8",
        sizes=(Size(width=512, height=512, frames=81),),
        tune=TuneConfig(first_frame_probability=0.2),
        optim=_LTXV.optim,
        steps=2000,
        recompute=True,
    ),
}
FULL: dict[str, TuneRecipe] = {
    "playroom": TuneRecipe(
        lora=None,
        sizes=_PLAYROOM.sizes,
        tune=_PLAYROOM.tune,
        optim=OptimConfig(lr=1e-4, betas=(0.9, 0.99), warmup=20, schedule="cosine"),
        steps=600,
        sample_every=200,
    ),
    "ltxv-2b": TuneRecipe(
        lora=None,
        sizes=_RELEASED,
        tune=TuneConfig(batch_size=2),
        optim=OptimConfig(lr=1e-5, betas=(0.9, 0.999), weight_decay=0.01),
        steps=1000,
        recompute=True,
    ),
}
