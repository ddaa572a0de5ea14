"""Fine-tuning a trained transformer on one's own videos: a LoRA, an in-context LoRA, or all weights. (Paper 2.4, 2.5.)

The objective is that of training from scratch (``training.flow``): velocities at times that are shifted with the token
count, over the tokens that are not given. Positions, times and text masks are those of sampling, the causal first frame
included. For an in-context LoRA every video has a reference clip: clean tokens in front, at the same positions and at
t = 0, out of the loss; sampling gives the model just that (``conditioning.Reference``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from openltx.checkpoints.lora import save_lora
from openltx.conditioning import Given, training_state
from openltx.data.encoded import Encoded
from openltx.distributed.ranks import is_sharded
from openltx.errors import RunError
from openltx.flow.path import TokenState, velocity
from openltx.flow.schedule import HIGH_ANCHOR, LOW_ANCHOR, Anchor, sample_logit_normal, shift_for_tokens
from openltx.geometry import LatentShape, patchify, token_positions, unpatchify
from openltx.media.contact_sheet import contact_sheet
from openltx.models.bundle import LTXModel
from openltx.pipelines.generate import Generator
from openltx.pipelines.request import GenerationRequest
from openltx.training.config import OptimConfig
from openltx.training.loop import Phase
from openltx.training.lora import Adapters
from openltx.training.optim import ExponentialAverage


@dataclass(frozen=True, kw_only=True)
class TuneConfig:
    """How batches are made and noised. The anchors of the shift are (tokens, mu) pairs, by default the releases'."""

    batch_size: int = 1
    caption_dropout: float = 0.0
    first_frame_probability: float = 0.1
    first_frame_max_t: float = 0.0  # noise level of a given first frame: uniform in [0, this]
    shift_low: Anchor = LOW_ANCHOR
    shift_high: Anchor = HIGH_ANCHOR
    std: float = 1.0
    seed: int = 0


class TuneBatch(NamedTuple):
    """Videos of one size, with their references or without."""

    clean: Float[Tensor, "b n c"]
    text: Float[Tensor, "b l e"]
    text_mask: Bool[Tensor, "b l"]
    reference: Float[Tensor, "b m c"] | None
    shape: LatentShape
    fps: float


class TuneTask:
    """The task for ``training.loop``. With ``adapters`` they alone are trained, else all of the transformer.

    ``validation`` are the videos that samples are made of. Raises RunError if some examples have references and others
    have none.
    """

    def __init__(
        self,
        model: LTXModel,
        examples: Sequence[Encoded],
        config: TuneConfig,
        optim: OptimConfig,
        *,
        adapters: Adapters | None = None,
        validation: Sequence[GenerationRequest] = (),
    ) -> None:
        assert model.text is not None, "captions were encoded with it"
        self.name = "full" if adapters is None else "lora"
        self.model, self.config, self.optim, self.adapters = model, config, optim, adapters
        self.validation = validation
        self.null = model.text.encode([""])
        self.buckets: dict[tuple[tuple[int, ...], float], list[Encoded]] = {}
        for example in examples:
            self.buckets.setdefault((tuple(example.latents.shape), example.fps), []).append(example)
        self.keys = sorted(self.buckets)
        self.weights = np.array([len(self.buckets[key]) for key in self.keys], dtype=float)
        with_reference = sum(example.reference is not None for example in examples)
        if with_reference not in (0, len(examples)):
            raise RunError(
                f"{with_reference} of {len(examples)} videos have a reference clip: an in-context LoRA needs one for "
                "each, any other training none."
            )

    @property
    def module(self) -> nn.Module:
        return self.model.transformer if self.adapters is None else self.adapters

    @property
    def settings(self) -> Mapping[str, object]:
        buckets = {str(key): len(self.buckets[key]) for key in self.keys}
        lora = None if self.adapters is None else asdict(self.adapters.config)
        model = asdict(self.model.transformer.config)
        return {"model": model, "base": self.model.fingerprint, "tune": asdict(self.config), "lora": lora} | {
            "buckets": buckets
        }

    @property
    def phases(self) -> list[Phase]:
        return [Phase(name="tune", parameters=list(self.module.parameters()), optim=self.optim, loss=self.loss)]

    def on_step(self, step: int, average: ExponentialAverage) -> None:
        """Nothing changes between steps."""

    def after_step(self, step: int) -> None:
        """Nothing to keep."""

    def batch(self, step: int, micro: int) -> TuneBatch:
        """Videos of one size and rate, each with its caption or none."""
        rng = np.random.default_rng([self.config.seed, step, micro])
        shape, fps = self.keys[rng.choice(len(self.keys), p=self.weights / self.weights.sum())]
        bucket, count = self.buckets[shape, fps], self.config.batch_size
        chosen = [bucket[i] for i in rng.choice(len(bucket), count, replace=len(bucket) < count)]
        null = self.null.embeddings[0][self.null.mask[0]].cpu()
        captions = [null if rng.random() < self.config.caption_dropout else example.text for example in chosen]
        text = nn.utils.rnn.pad_sequence([caption.float() for caption in captions], batch_first=True)
        lengths = torch.tensor([len(caption) for caption in captions])
        references = [example.reference.float() for example in chosen if example.reference is not None]
        return TuneBatch(
            clean=patchify(torch.stack([example.latents.float() for example in chosen])),
            text=text,
            text_mask=torch.arange(text.shape[1]) < lengths[:, None],
            reference=patchify(torch.stack(references)) if references else None,
            shape=LatentShape(frames=shape[1], height=shape[2], width=shape[3]),
            fps=fps,
        )

    def loss(self, batch: TuneBatch, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002 (the loop's signature)
        """Mean squared error of the velocity over the tokens that are not given."""
        config, device = self.config, generator.device
        clean, text, text_mask = (x.to(device) for x in (batch.clean, batch.text, batch.text_mask))
        b = len(clean)
        if self.adapters is not None and self.adapters.config.dropout:
            self.adapters.set_dropout_seed(int(torch.randint(2**62, (), generator=generator, device=device)))
        mu = shift_for_tokens(batch.shape.num_tokens, config.shift_low, config.shift_high)
        t = sample_logit_normal(b, mu, config.std, generator)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        level = torch.rand(b, generator=generator, device=device) * config.first_frame_max_t
        given = torch.rand(b, generator=generator, device=device) < config.first_frame_probability
        causal = self.model.transformer.config.causal_positions
        first = Given(latents=unpatchify(clean, batch.shape)[:, :, :1], strength=(1 - level) * given)
        items = [first] if batch.shape.frames > 1 else []  # an image that is given leaves nothing to learn
        state, times, counted = training_state(clean, noise, t, batch.shape, batch.fps, items, causal)
        if batch.reference is not None:
            state, times = with_reference(state, times, batch.reference.to(device), batch.shape, batch.fps, causal)
        predicted = self.model.transformer(state.tokens, times, state.positions, text, text_mask)
        predicted = predicted[:, -state.num_targets :].float()
        error = (predicted - velocity(clean, noise)).square().mean(-1) * counted
        return (error.sum(1) / counted.sum(1)).mean(), {}

    @torch.no_grad()
    def write_samples(self, folder: Path, step: int, ema: bool) -> dict[str, float]:
        """The validation videos as MP4 and one contact sheet; and, averaged, the LoRA as it is by now.

        No videos are made with a transformer that lies in pieces on several ranks: one rank has not all of it.
        """
        name = f"step_{step:08d}{'_ema' if ema else '_raw'}"
        if self.adapters is not None and ema:
            write_lora(self.adapters, folder.parent / "lora", f"step_{step:08d}", self.model)
        transformer, rows = self.model.transformer, []
        if is_sharded(transformer.parameters()):
            return {}
        training = transformer.training
        transformer.eval()
        for index, request in enumerate(self.validation):
            video = Generator(self.model)(request)
            video.save(folder / f"{name}_{index}.mp4")
            rows.append((request.prompt, video.frames))
        transformer.train(training)
        if rows:
            contact_sheet(rows).save(folder / f"{name}.png")
        return {}


def with_reference(
    state: TokenState,
    times: Float[Tensor, "b n"],
    reference: Float[Tensor, "b m c"],
    shape: LatentShape,
    fps: float,
    causal: bool,
) -> tuple[TokenState, Float[Tensor, "b total"]]:
    """A training state with a clean reference clip in front: as many pixels as the video, and at most its frames."""
    cells = shape.height * shape.width
    own = LatentShape(frames=reference.shape[1] // cells, height=shape.height, width=shape.width)
    b, device = len(reference), reference.device
    positions = torch.cat([token_positions(own, fps, causal).to(device), state.positions[0]], 1)
    front = torch.ones(b, reference.shape[1], device=device)
    joined = TokenState(
        tokens=torch.cat([reference, state.tokens], 1),
        clean=torch.cat([reference, state.clean], 1),
        strength=torch.cat([front, state.strength], 1),
        positions=positions.expand(b, -1, -1),
        num_targets=state.num_targets,
    )
    return joined, torch.cat([1 - front, times], 1)


def write_lora(adapters: Adapters, folder: Path, name: str, model: LTXModel) -> list[Path]:
    """The LoRA in the names of diffusers (``name``.safetensors) and of ComfyUI (``name``-comfyui.safetensors)."""
    folder.mkdir(parents=True, exist_ok=True)
    lora, metadata = adapters.as_lora(), {"openltx.base": f"{model.name} {model.fingerprint}"}
    paths = [folder / f"{name}.safetensors", folder / f"{name}-comfyui.safetensors"]
    save_lora(paths[0], lora, "diffusers", metadata)
    save_lora(paths[1], lora, "comfyui", metadata)
    return paths
