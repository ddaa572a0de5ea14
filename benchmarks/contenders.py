"""The same random weights in openltx, diffusers and OpenVINO."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from openltx.cache import cache_folder
from openltx.checkpoints.keys import TRANSFORMER_TABLE, vae_table
from openltx.models.presets import vae_preset
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

BLOCKS = TransformerConfig(num_layers=4, num_heads=32, head_dim=64, caption_channels=4096)  # four blocks of the 2B

DIFFUSERS_VAE_095: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 1024, 2048),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "layers_per_block": (4, 6, 6, 2, 2),
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "spatio_temporal_scaling": (True, True, True, True),
    "decoder_layers_per_block": (5, 5, 5, 5),
    "decoder_inject_noise": (False, False, False, False),
    "decoder_block_out_channels": (256, 512, 1024),
    "decoder_spatio_temporal_scaling": (True, True, True),
    "upsample_residual": (True, True, True),
    "upsample_factor": (2, 2, 2),
    "timestep_conditioning": True,
}


def transformers(config: TransformerConfig, dtype: torch.dtype) -> tuple[VideoTransformer, nn.Module]:
    """Ours and diffusers', with the same weights on the scale of trained ones."""
    from diffusers.models.transformers.transformer_ltx import LTXVideoTransformer3DModel

    theirs = LTXVideoTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        cross_attention_dim=config.width,
        num_layers=config.num_layers,
        caption_channels=config.caption_channels,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
    theirs = theirs.to(dtype)
    ours = VideoTransformer(config).eval().to(dtype)
    ours.load_state_dict(TRANSFORMER_TABLE.inverse.apply(theirs.state_dict()))
    return ours, theirs


def autoencoders(dtype: torch.dtype) -> tuple[VideoAutoencoder, nn.Module]:
    """The VAE of 0.9.5 in full width, ours and diffusers', with the same weights."""
    from diffusers import AutoencoderKLLTXVideo

    torch.manual_seed(0)
    theirs = AutoencoderKLLTXVideo(latent_channels=128, **DIFFUSERS_VAE_095).eval()
    for name, tensor in theirs.state_dict().items():
        if name.endswith(("scale_shift_table", "bias")):
            tensor.normal_(std=0.2)
    theirs = theirs.to(dtype)
    ours = VideoAutoencoder(vae_preset("0.9.5")).eval().to(dtype)
    ours.load_state_dict(vae_table(ours.config).inverse.apply(theirs.state_dict()))
    return ours, theirs


def openvino(
    name: str, module: nn.Module, inputs: tuple[Tensor, ...], dtype: str, threads: int
) -> Callable[..., np.ndarray]:
    """A module compiled by OpenVINO for the CPU; ``dtype`` is "bf16" or "f32". ``inputs`` are float32 examples.

    Tracing the VAE takes minutes, so the converted network is kept in the cache under ``name`` and the versions.
    """
    import openvino as ov

    versions = f"ov{ov.__version__.split('-')[0]}-torch{torch.__version__}-diffusers{version('diffusers')}"
    path = cache_folder() / "benchmarks" / f"{name}-{versions}.xml"
    if path.is_file():
        converted = ov.Core().read_model(path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            traced = torch.jit.trace(module.float(), inputs, check_trace=False)
            converted = ov.convert_model(traced, example_input=inputs)
        converted.reshape({i: list(x.shape) for i, x in enumerate(inputs)})
        ov.save_model(converted, path, compress_to_fp16=False)
    settings = {"INFERENCE_PRECISION_HINT": dtype, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = ov.Core().compile_model(converted, "CPU", settings).create_infer_request()

    def run(*tensors: Tensor) -> np.ndarray:
        return request.infer([x.numpy() for x in tensors])[0]

    return run
