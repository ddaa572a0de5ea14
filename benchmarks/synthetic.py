"""Full-size files with random weights, in the layout of the releases: something to measure memory and speed with.

    python -m benchmarks.synthetic 2b FILE      the 2B transformer and the VAE of 0.9.5, bfloat16, 6.4 GB
    python -m benchmarks.synthetic 13b FILE     the 13B transformer and the same VAE, bfloat16, 28.6 GB

Names and shapes are those of the modules on the meta device. The file is written tensor by tensor, so memory holds the
largest one only.
"""

import argparse
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from openltx.checkpoints.config import official_schedule, official_transformer, official_vae
from openltx.checkpoints.single_file import replacing
from openltx.flow.schedule import Schedule
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

_PIECE = 2**24  # numbers drawn at a time


def write(path: Path, transformer: TransformerConfig, vae: VAEConfig) -> None:
    """A whole model in bfloat16 (its latent statistics in float32) in the official single-file layout."""
    modules = {
        "model.diffusion_model.": _on_meta(VideoTransformer, transformer),
        "vae.": _on_meta(VideoAutoencoder, vae),
    }
    tensors = {
        prefix + name: tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()
    }
    config = {
        "transformer": official_transformer(transformer),
        "vae": official_vae(vae),
        "scheduler": official_schedule(Schedule(kind="linear_quadratic")),
    }
    header: dict[str, object] = {"__metadata__": {"format": "pt", "config": json.dumps(config)}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + math.prod(tensor.shape) * (4 if _is_statistic(name) else 2)
        dtype = "F32" if _is_statistic(name) else "BF16"
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = torch.Generator().manual_seed(0)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            for piece in _values(name, tensor, generator):
                file.write(piece.view(torch.uint8).numpy())


def _on_meta(kind: type[nn.Module], config: TransformerConfig | VAEConfig) -> nn.Module:
    with torch.device("meta"):
        return kind(config)


def _is_statistic(name: str) -> bool:
    return ".per_channel_statistics." in name


def _values(name: str, tensor: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Matrices and kernels on the scale that keeps variances, norms and deviations 1, the rest small."""
    if name.endswith(("_norm.weight", "std-of-means")):
        yield torch.ones(tensor.shape, dtype=torch.float32 if _is_statistic(name) else torch.bfloat16)
        return
    if name.endswith("timestep_scale_multiplier"):
        yield torch.full((1,), 1000.0).bfloat16()
        return
    scale = math.prod(tensor.shape[1:]) ** -0.5 if tensor.ndim > 1 else 0.02
    count = tensor.numel()
    draws = torch.rand(min(count, _PIECE), generator=generator).sub_(0.5).mul_(scale * 12**0.5)
    for start in range(0, count, _PIECE):  # the same draws again: nobody looks, and drawing takes longer than writing
        piece = draws[: min(_PIECE, count - start)]
        yield piece if _is_statistic(name) else piece.bfloat16()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=("2b", "13b"))
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    write(options.file, transformer_preset(options.size), vae_preset("0.9.5"))
    print(f"{options.file}: {options.file.stat().st_size / 1e9:.1f} GB")


if __name__ == "__main__":
    main()
