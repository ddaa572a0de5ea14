"""Named architectures: every released transformer and Video-VAE, and tiny ones for tests.

The VAE tables list the encoder's blocks from the pixels to the latents and the decoder's blocks from the output side
to the latents, so both read from pixels inwards (the decoder runs its list backwards). Widths follow from the base
channels: a preset with 8 base channels has every block of the release at a sixteenth of its width.

Sources: LTX-Video paper sections 2.1 and 2.2 (0.9.0), and the released configurations 0.9.0, 0.9.1 and 0.9.5; the
VAE of 0.9.5 also serves 0.9.6, 0.9.7 and 0.9.8. The transformer presets are those of 0.9.5 and later; 0.9.0 and 0.9.1
differ from "2b" in ``causal_positions=False`` only.
"""

from openltx.errors import CheckpointError
from openltx.models.transformer import TransformerConfig
from openltx.models.vae.autoencoder import Block, VAEConfig


def transformer_preset(name: str) -> TransformerConfig:
    """The configuration of a named transformer; raises ``CheckpointError`` for an unknown name."""
    if name not in _TRANSFORMERS:
        raise CheckpointError(f"There is no transformer preset {name!r}. The presets are: {', '.join(_TRANSFORMERS)}.")
    return _TRANSFORMERS[name]


def vae_preset(name: str, base_channels: int | None = None, latent_channels: int | None = None) -> VAEConfig:
    """The configuration of a named VAE; raises ``CheckpointError`` for an unknown name.

    ``base_channels`` is the width of both networks beside the pixels (releases: 128, tiny: 8), ``latent_channels``
    the depth of the latents (releases: 128, tiny: 16).
    """
    if name not in _VAES:
        raise CheckpointError(f"There is no VAE preset {name!r}. The presets are: {', '.join(_VAES)}.")
    base = base_channels or (8 if name == "tiny" else 128)
    encoder, decoder, conditioned = _VAES[name]
    return VAEConfig(
        encoder_blocks=encoder,
        decoder_blocks=decoder,
        latent_channels=latent_channels or (16 if name == "tiny" else 128),
        encoder_base_channels=base,
        decoder_base_channels=base,
        timestep_conditioning=conditioned,
    )


def _res(num_layers: int, *, inject_noise: bool = False) -> Block:
    return Block(kind="res_x", num_layers=num_layers, inject_noise=inject_noise)


_WIDEN = Block(kind="res_x_y", multiplier=2)
_STRIDE = Block(kind="compress_all")
_SPACE = Block(kind="compress_space_res", multiplier=2)
_TIME = Block(kind="compress_time_res", multiplier=2)
_ALL = Block(kind="compress_all_res", multiplier=2)
_GROW = Block(kind="compress_all", multiplier=2, residual=True)

_BLOCKS_090 = (
    *(_res(4), _STRIDE, _WIDEN),
    *(_res(3), _STRIDE, _WIDEN),
    *(_res(3), _STRIDE, _res(3), _res(4)),
)
_DECODER_091 = (
    *(_res(5, inject_noise=True), _GROW),
    *(_res(6, inject_noise=True), _GROW),
    *(_res(7, inject_noise=True), _GROW),
    _res(8),
)
_ENCODER_095 = (_res(4), _SPACE, _res(6), _TIME, _res(6), _ALL, _res(2), _ALL, _res(2))
_DECODER_095 = (_res(5), _GROW, _res(5), _GROW, _res(5), _GROW, _res(5))
_NARROW_ALL = Block(kind="compress_all_res")
_ENCODER_TINY = (_res(1), _SPACE, _res(1), _TIME, _res(1), _NARROW_ALL, _res(1), _NARROW_ALL, _res(1))
_DECODER_TINY = (_res(1, inject_noise=True), _GROW, _res(1, inject_noise=True), _GROW, _res(1), _GROW, _res(1))

_VAES: dict[str, tuple[tuple[Block, ...], tuple[Block, ...], bool]] = {  # encoder, decoder, timestep conditioning
    "0.9.0": (_BLOCKS_090, _BLOCKS_090, False),
    "0.9.1": (_BLOCKS_090, _DECODER_091, True),
    "0.9.5": (_ENCODER_095, _DECODER_095, True),
    "tiny": (_ENCODER_TINY, _DECODER_TINY, True),
}

_TRANSFORMERS: dict[str, TransformerConfig] = {
    "2b": TransformerConfig(num_layers=28, num_heads=32, head_dim=64, caption_channels=4096),
    "13b": TransformerConfig(num_layers=48, num_heads=32, head_dim=128, caption_channels=4096),
    "tiny": TransformerConfig(
        num_layers=2, num_heads=4, head_dim=8, caption_channels=384, in_channels=16, out_channels=16
    ),
}
