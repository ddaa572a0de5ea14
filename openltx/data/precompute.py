"""Latents and caption states, computed once: what the transformer trains on (see ``latents`` for what is stored).

Every clip is kept twice, as it is and mirrored (with left and right exchanged in its captions), with several phrasings
of its caption where its world can phrase, else with its one caption. Latents are posterior means, normalised.

``index.json`` has the fingerprint of the encoder and all settings, and every shard a digest of the clips that it was
made of. A stopped run goes on where it stopped; a folder or shard made by another encoder, with other settings or of
other clips is refused.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from openltx.checkpoints.fingerprint import fingerprint
from openltx.data.datasets import clips_of, read_clip
from openltx.data.filling import sole_user
from openltx.data.latents import INDEX, Example, LatentFolder, read_examples
from openltx.data.manifest import Clip, write_atomically
from openltx.data.worlds.playroom.captions import mirror, mirror_caption, phrase, phrase_still
from openltx.errors import DataError
from openltx.media.transforms import to_tensor
from openltx.models.text import TextEncoder
from openltx.models.vae.autoencoder import VideoAutoencoder

CLIPS_PER_SHARD = 128
FORMAT = 2

__all__ = ["Example", "LatentFolder", "Precompute", "precompute", "read_examples"]


@dataclass(frozen=True, kw_only=True)
class Precompute:
    """What is computed of each clip.

    phrasings   captions of each clip, and of its mirror image
    mirrored    whether to keep the mirror image too
    stills      single frames encoded by themselves, at random places (the last frame is the first of them)
    ending      latent frames of the clip's end, encoded as a clip of their own; 0 for none
    patch       fold squares of so many latents into channels, for a VAE whose latents a transformer must patchify
    """

    phrasings: int = 3
    mirrored: bool = True
    stills: int = 0
    ending: int = 0
    patch: int = 1


PLAIN = Precompute()


def precompute(
    source: Path,
    out: Path,
    vae: VideoAutoencoder,
    text: TextEncoder,
    *,
    split: str = "train",
    settings: Precompute = PLAIN,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Encode the clips of ``source`` into ``out``; ``progress`` is told (clips done, clips in all).

    Raises ``DataError`` if ``out`` holds latents that other weights, settings or clips gave.
    """
    clips = clips_of(source, split)[:limit]
    out.mkdir(parents=True, exist_ok=True)
    with sole_user(out):
        made_by = {"format": FORMAT, "encoder": fingerprint(vae), "text": text.name, **asdict(settings)}
        _require_same_making(out, made_by)
        for first in range(0, len(clips), CLIPS_PER_SHARD):
            shard = clips[first : first + CLIPS_PER_SHARD]
            path = out / f"shard-{first:06d}-{len(shard):03d}.safetensors"
            if not _is_done(path, source, shard):
                for former in out.glob(f"shard-{first:06d}-*"):  # from when there were fewer clips, or half written
                    former.unlink()
                _write_shard(path, source, shard, vae, text, settings)
            if progress is not None:
                progress(first + len(shard), len(clips))


def fold(latents: Float[Tensor, "c f h w"], patch: int) -> Float[Tensor, "d f i j"]:
    """Squares of ``patch`` x ``patch`` latents as one cell of more channels."""
    return rearrange(latents, "c f (h p) (w q) -> (c p q) f h w", p=patch, q=patch)


def unfold(cells: Float[Tensor, "b d f i j"], patch: int) -> Float[Tensor, "b c f h w"]:
    """The inverse of ``fold``, of a batch."""
    return rearrange(cells, "b (c p q) f h w -> b c f (h p) (w q)", p=patch, q=patch)


@torch.inference_mode()
def _write_shard(
    path: Path,
    source: Path,
    clips: Sequence[Clip],
    vae: VideoAutoencoder,
    text: TextEncoder,
    settings: Precompute,
) -> None:
    tensors: dict[str, Tensor] = {}
    for index, clip in enumerate(clips):
        frames = read_clip(source, clip)
        video = to_tensor(frames[: (len(frames) - 1) // 8 * 8 + 1])[None].to(next(vae.parameters()).dtype)
        for flipped in (False, True)[: 1 + settings.mirrored]:
            name = f"{index:03d}{'m' if flipped else ''}"
            rng = np.random.default_rng([*hashlib.sha256(clip.path.encode()).digest()[:8], flipped])
            parts = _encode_clip(vae, video.flip(-1) if flipped else video, settings, rng)
            parts["fps"] = torch.tensor(clip.fps)
            for kind, captions in _captions(clip, flipped, settings, rng).items():
                parts |= {f"{kind}{k}": states for k, states in enumerate(_encode_texts(text, captions))}
            tensors |= {f"{name}/{part}": tensor for part, tensor in parts.items()}
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"clips": _digest(source, clips)})
    temporary.replace(path)


def _encode_clip(
    vae: VideoAutoencoder, video: Tensor, settings: Precompute, rng: np.random.Generator
) -> dict[str, Tensor]:
    def encode(pixels: Tensor) -> Tensor:
        return fold(vae.encode(pixels)[0], settings.patch).to(torch.bfloat16).contiguous()

    length = video.shape[2]
    parts = {"latents": encode(video)}
    if settings.stills:
        places = [length - 1, *rng.choice(length, settings.stills - 1, replace=length < settings.stills - 1)]
        parts["stills"] = torch.stack([encode(video[:, :, place : place + 1]) for place in places])
        parts["still_frames"] = torch.tensor(places)
    last = 8 * settings.ending - 7
    if settings.ending and last < length:
        parts["ending"] = encode(video[:, :, length - last :])
    return parts


def _captions(clip: Clip, flipped: bool, settings: Precompute, rng: np.random.Generator) -> dict[str, list[str]]:
    """The captions of the clip and of its stills, by the kind of their tensors."""
    if "objects" not in clip.truth:  # no world that can phrase it anew
        caption = mirror_caption(clip.caption) if flipped else clip.caption
        return {"caption": [caption]} | ({"still_caption": [caption]} if settings.stills else {})
    truth = mirror(clip.truth, clip.width) if flipped else clip.truth
    captions = {"caption": [phrase(truth, rng) for _ in range(settings.phrasings)]}
    if settings.stills:
        captions["still_caption"] = [phrase_still(truth, rng) for _ in range(settings.phrasings)]
    return captions


def _encode_texts(text: TextEncoder, prompts: Sequence[str]) -> Iterator[Float[Tensor, "l e"]]:
    context = text.encode(prompts)
    for states, mask in zip(context.embeddings, context.mask, strict=True):
        yield states[mask].to(torch.bfloat16).contiguous()


def _is_done(path: Path, source: Path, clips: Sequence[Clip]) -> bool:
    """Whether the shard is there; ``DataError`` if it was made of other clips."""
    if not path.exists():
        return False
    with safe_open(path, framework="pt") as file:
        made_of = (file.metadata() or {}).get("clips")
    if made_of != _digest(source, clips):
        raise DataError(
            f"{path} was made of other clips than those that {source} has now. Choose another folder or delete this "
            "one."
        )
    return True


def _digest(source: Path, clips: Sequence[Clip]) -> str:
    """What the clips are: their lines in the manifest, and the sizes of their files."""
    lines = [[asdict(clip), (source / clip.path).stat().st_size] for clip in clips]
    return hashlib.sha256(json.dumps(lines, sort_keys=True).encode()).hexdigest()


def _require_same_making(out: Path, made_by: dict[str, object]) -> None:
    index = out / INDEX
    if index.exists():
        former = json.loads(index.read_text())
        changed = [key for key in {**former, **made_by} if former.get(key) != made_by.get(key)]
        if changed:
            listed = "; ".join(f"{key} was {former.get(key)}, now {made_by.get(key)}" for key in sorted(changed))
            raise DataError(
                f"{out} holds latents of another encoder or other settings ({listed}). Choose another folder or delete "
                "this one."
            )
    write_atomically(index, json.dumps(made_by, indent=2).encode())
