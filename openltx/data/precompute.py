"""Latents and caption states, computed once: what the transformer trains on.

A folder of shards, each a safetensors file of some clips, beside ``index.json`` with the fingerprint of the encoder
that made them. Every clip is kept twice, as it is and mirrored (with left and right exchanged in its captions), each
with several phrasings of its caption. Latents are posterior means, normalised, stored as bf16. A stopped run goes on
where it stopped; a folder made by another encoder is refused.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from openltx.checkpoints.fingerprint import fingerprint
from openltx.data.datasets import clips_of, read_clip
from openltx.data.manifest import Clip
from openltx.data.worlds.playroom.captions import mirror, phrase
from openltx.errors import DataError
from openltx.media.transforms import to_tensor
from openltx.models.text import TextEncoder
from openltx.models.vae.autoencoder import VideoAutoencoder

CLIPS_PER_SHARD = 128


@dataclass(frozen=True, kw_only=True)
class Example:
    """One clip for the transformer: normalised latents (c f h w) and the token states of its captions (l e) each."""

    latents: Tensor
    captions: tuple[Tensor, ...]
    fps: float


def precompute(
    source: Path,
    out: Path,
    vae: VideoAutoencoder,
    text: TextEncoder,
    *,
    split: str = "train",
    phrasings: int = 3,
    mirrored: bool = True,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Encode the clips of ``source`` into ``out``; ``progress`` is told (clips done, clips in all)."""
    clips = clips_of(source, split)[:limit]
    _require_same_encoder(out, {"encoder": fingerprint(vae), "text": text.name})
    for first in range(0, len(clips), CLIPS_PER_SHARD):
        shard = clips[first : first + CLIPS_PER_SHARD]
        path = out / f"shard-{first:06d}-{len(shard):03d}.safetensors"
        if not path.exists():
            for former in out.glob(
                f"shard-{first:06d}-*.safetensors"
            ):  # a shorter one, from when there were fewer clips
                former.unlink()
            _write_shard(path, source, shard, vae, text, phrasings, mirrored)
        if progress is not None:
            progress(first + len(shard), len(clips))


def read_examples(folder: Path) -> list[Example]:
    """All examples of a folder, in memory; ``DataError`` if there are none."""
    examples = [example for path in sorted(folder.glob("shard-*.safetensors")) for example in _read_shard(path)]
    if not examples:
        raise DataError(f"{folder} holds no precomputed latents.")
    return examples


@torch.inference_mode()
def _write_shard(
    path: Path,
    source: Path,
    clips: Sequence[Clip],
    vae: VideoAutoencoder,
    text: TextEncoder,
    phrasings: int,
    mirrored: bool,
) -> None:
    tensors: dict[str, Tensor] = {}
    for index, clip in enumerate(clips):
        video = to_tensor(read_clip(source, clip))[None].to(next(vae.parameters()).dtype)
        for flipped in (False, True)[: 1 + mirrored]:
            name = f"{index:03d}{'m' if flipped else ''}"
            latents = vae.encode(video.flip(-1) if flipped else video)[0]
            tensors[f"{name}/latents"] = latents.to(torch.bfloat16).contiguous()
            tensors[f"{name}/fps"] = torch.tensor(clip.fps)
            truth = mirror(clip.truth) if flipped else clip.truth
            rng = np.random.default_rng([truth["scene"], flipped])
            for k, states in enumerate(_encode(text, [phrase(truth, rng) for _ in range(phrasings)])):
                tensors[f"{name}/caption{k}"] = states
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary)
    temporary.replace(path)


def _encode(text: TextEncoder, prompts: Sequence[str]) -> Iterator[Float[Tensor, "l e"]]:
    context = text.encode(prompts)
    for states, mask in zip(context.embeddings, context.mask, strict=True):
        yield states[mask].to(torch.bfloat16).contiguous()


def _read_shard(path: Path) -> Iterator[Example]:
    with safe_open(path, framework="pt") as file:
        names = sorted(file.keys())
        for name in (key.removesuffix("/latents") for key in names if key.endswith("/latents")):
            captions = tuple(file.get_tensor(key) for key in names if key.startswith(f"{name}/caption"))
            yield Example(
                latents=file.get_tensor(f"{name}/latents"),
                captions=captions,
                fps=float(file.get_tensor(f"{name}/fps")),
            )


def _require_same_encoder(out: Path, made_by: dict[str, str]) -> None:
    index = out / "index.json"
    if index.exists() and (former := json.loads(index.read_text())) != made_by:
        raise DataError(
            f"{out} holds latents of another encoder (made by {former}, now {made_by}). Choose another folder or "
            "delete this one."
        )
    out.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps(made_by))
