"""One file in both implementations: openltx and the official package, as tiny random networks on the CPU in float32.

openltx writes the file, the official loaders read it. Both pipelines get the same token states of two prompts, and the
same seed: with ``noise_layout="official"`` openltx draws what they draw.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ltx_video.models.autoencoders.causal_video_autoencoder import CausalVideoAutoencoder
from ltx_video.models.transformers.symmetric_patchifier import SymmetricPatchifier
from ltx_video.models.transformers.transformer3d import Transformer3DModel
from ltx_video.pipelines.pipeline_ltx_video import ConditioningItem, LTXVideoPipeline
from ltx_video.schedulers.rf import RectifiedFlowScheduler
from ltx_video.utils.skip_layer_strategy import SkipLayerStrategy
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import openltx
from openltx import GenerationRequest, Generator
from openltx.checkpoints.config import official_schedule
from openltx.checkpoints.single_file import save_single_file
from openltx.flow.schedule import Schedule
from openltx.geometry import unpatchify
from openltx.media.io import read_image, read_video
from openltx.media.transforms import to_tensor
from openltx.models.presets import vae_preset
from openltx.models.text import TextContext
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

TOLERANCE = 1e-4  # of the largest latent
WIDTH, HEIGHT, FRAMES, FPS, STEPS, SEED = 96, 64, 25, 24.0, 5, 5
PROMPT, NEGATIVE = "a red ball", "a blue cube"
WORDS, CAPTION, CHANNELS = 7, 12, 16

TRANSFORMER = TransformerConfig(
    num_layers=3, num_heads=2, head_dim=20, caption_channels=CAPTION, in_channels=CHANNELS, out_channels=CHANNELS
)
SHIFTED = Schedule(kind="uniform", shift="tokens", terminal=0.1)
RELEASES = {"0.9.0": (False, SHIFTED), "0.9.1": (False, SHIFTED), "0.9.5": (True, Schedule())}

__all__ = ["LTXVideoPipeline", "RectifiedFlowScheduler"]

MODES = {
    "attention_values": SkipLayerStrategy.AttentionValues,
    "attention_skip": SkipLayerStrategy.AttentionSkip,
    "residual": SkipLayerStrategy.Residual,
    "transformer_block": SkipLayerStrategy.TransformerBlock,
}


class GivenWords:
    """A text encoder that knows two prompts by heart."""

    name, channels = "given", CAPTION

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        lengths = {PROMPT: 5, NEGATIVE: 3}
        self.states = {prompt: torch.randn(WORDS, CAPTION, generator=generator) for prompt in lengths}
        self.masks = {prompt: torch.arange(WORDS) < length for prompt, length in lengths.items()}

    def encode(self, prompts: Sequence[str]) -> TextContext:
        states, masks = ([table[prompt] for prompt in prompts] for table in (self.states, self.masks))
        return TextContext(torch.stack(states), torch.stack(masks))


class Pair:
    """One file in both implementations."""

    def __init__(self, path: Path) -> None:
        self.words = GivenWords()
        self.ours = replace(openltx.load(path, device="cpu", precision="float32"), text=self.words)
        with safe_open(path, "pt") as file:
            config = json.loads(file.metadata()["config"])
        nothing = ("image_caption_model", "image_caption_processor", "llm_model", "llm_tokenizer")
        self.theirs = LTXVideoPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=CausalVideoAutoencoder.from_pretrained(path).eval(),
            transformer=Transformer3DModel.from_pretrained(path).eval(),
            scheduler=RectifiedFlowScheduler.from_pretrained(path),
            patchifier=SymmetricPatchifier(patch_size=1),
            allowed_inference_steps=config.get("allowed_inference_steps"),
            **{f"prompt_enhancer_{name}": None for name in nothing},
        )
        self.theirs.set_progress_bar_config(disable=True)

    @cached_property
    def plain(self) -> torch.Tensor:
        """Their latents with nothing but guidance of 3."""
        return self.their_latents()

    def our_latents(self, noise: torch.Tensor | None = None, **wishes: Any) -> torch.Tensor:
        generator = Generator(self.ours)
        prepared = generator.prepare(a_request(**wishes), noise=noise)
        *_, last = generator.sample(prepared)
        return unpatchify(last.state.targets, prepared.grid)

    def their_latents(self, **wishes: Any) -> torch.Tensor:
        """What the official pipeline gives; frames (b 3 F H W) in [0, 1] with ``output_type="pt"``."""
        torch.manual_seed(SEED)
        return self.theirs(**self.their_arguments(**wishes))[0]

    def their_arguments(self, **wishes: Any) -> dict[str, Any]:
        """The arguments of the official pipeline for ``a_request``."""
        return {
            "height": HEIGHT,
            "width": WIDTH,
            "num_frames": FRAMES,
            "frame_rate": FPS,
            "generator": torch.Generator().manual_seed(SEED),
            "prompt_embeds": self.words.states[PROMPT][None],
            "prompt_attention_mask": self.words.masks[PROMPT][None].float(),
            "negative_prompt": None,
            "negative_prompt_embeds": self.words.states[NEGATIVE][None],
            "negative_prompt_attention_mask": self.words.masks[NEGATIVE][None].float(),
            "is_video": True,
            "vae_per_channel_normalize": True,
            "return_dict": False,
            "num_inference_steps": STEPS,
            "guidance_scale": 3.0,
            "stg_scale": 0.0,
            "rescaling_scale": 1.0,
            "output_type": "latent",
            **wishes,
        }


def a_request(**wishes: Any) -> GenerationRequest:
    """What ``their_latents`` asks for, in our words."""
    settings: dict[str, Any] = {
        "negative": NEGATIVE,
        "frames": FRAMES,
        "size": f"{WIDTH}x{HEIGHT}",
        "fps": FPS,
        "steps": STEPS,
        "cfg": 3.0,
        "seed": SEED,
        "noise_layout": "official",
        "last_step": "renoise",
        **wishes,
    }
    return GenerationRequest(PROMPT, **settings)


def write_file(path: Path, release: str, *, allowed: Sequence[float] | None = None) -> None:
    """A single file as openltx writes it; ``allowed``: the times that a distilled release may be called at."""
    causal, schedule = RELEASES[release]
    generator = torch.Generator().manual_seed(0)
    transformer = VideoTransformer(replace(TRANSFORMER, causal_positions=causal))
    vae = VideoAutoencoder(vae_preset(release, base_channels=4, latent_channels=CHANNELS))
    for module in (transformer, vae):
        _randomise(module, generator)
    save_single_file(path, transformer, vae, {}, official_schedule(schedule), dtype=torch.float32)
    if allowed is not None:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        config = json.loads(metadata["config"]) | {"allowed_inference_steps": list(allowed)}
        save_file(load_file(path), path, {**metadata, "config": json.dumps(config)})


@torch.no_grad()
def _randomise(module: torch.nn.Module, generator: torch.Generator) -> None:
    """Every weight random, also those that training starts at zero or one, on the scale of a trained network."""
    for name, tensor in module.state_dict().items():
        if name.endswith("timestep_scale_multiplier"):
            continue
        if name.endswith("std-of-means"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.ndim >= 2:
            fan_in = 25 if name.endswith("table") else tensor[0].numel()
            tensor.normal_(generator=generator).mul_(fan_in**-0.5)
        else:
            tensor.normal_(generator=generator).mul_(0.2)
            if name.endswith("norm.weight"):
                tensor.add_(1.0)


def item(path: Path, frame: int, strength: float = 1.0) -> ConditioningItem:
    """A picture or clip for the official pipeline."""
    return ConditioningItem(pixels(path), frame, strength)


def pixels(path: Path) -> torch.Tensor:
    """A picture or clip as both pipelines see it, in [-1, 1]."""
    frames = read_image(path)[None] if path.suffix == ".png" else read_video(path)[0]
    return to_tensor(frames)[None]


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def require_same(ours: torch.Tensor, theirs: torch.Tensor, *, unlike: torch.Tensor | None = None) -> None:
    """The two agree; and both are far from ``unlike``, which lacks what is compared."""
    assert error(ours, theirs) <= TOLERANCE
    assert unlike is None or error(theirs, unlike) > 100 * TOLERANCE
