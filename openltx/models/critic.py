"""The critic of the reconstruction GAN: a patch network over one video, or over two versions of it. (Paper 2.1.2.)

The paper lets the critic see the original and the reconstruction of the same sample, concatenated, and asks which of
the two is the original. That is easier than judging one version alone: blur that belongs to the scene is in both. What
the paper leaves open and we chose: concatenation over channels, the network (a PatchGAN), and one logit a patch, which
is the difference of the two logits of a two-class answer.

GroupNorm instead of the usual BatchNorm: no sample's verdict depends on the others of its batch.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from openltx.models.vae.autoencoder import patchify_pixels


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """Architecture of the critic. ``versions``: 2 for pairs (reconstruction GAN), 1 for the ordinary patch GAN."""

    versions: Literal[1, 2] = 2
    dimensions: Literal[2, 3] = 3  # 2 judges frames one by one
    patch_size: int = 2  # pixels of a side that become channels in front of the first layer
    channels: int = 48  # of the first layer; doubles with each further one, up to 4 times
    layers: int = 3  # that halve the resolution (in time from the second one on)


class PatchCritic(nn.Module):
    """One logit for each patch of a video, or of a pair of videos."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        self.config = config
        deep = config.dimensions == 3
        widths = [config.channels * min(2**i, 4) for i in range(config.layers)]
        inputs = [3 * config.versions * config.patch_size**2, *widths]
        self.convs = nn.ModuleList(
            nn.Conv3d(
                inputs[i],
                widths[i],
                (3 if deep else 1, 4, 4),
                stride=(2 if deep and i > 0 else 1, 2, 2),
                padding=(1 if deep else 0, 1, 1),
            )
            for i in range(config.layers)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(min(16, width), width) for width in widths[1:])
        self.verdict = nn.Conv3d(widths[-1], 1, (3 if deep else 1, 3, 3), padding=(1 if deep else 0, 1, 1))

    def forward(self, *videos: Float[Tensor, "b 3 F H W"]) -> Float[Tensor, "b f h w"]:
        """Logits: how surely the video is an original; of two videos, how surely the first one is."""
        assert len(videos) == self.config.versions
        x = patchify_pixels(torch.cat(videos, 1), self.config.patch_size)
        if self.config.dimensions == 2:
            x = rearrange(x, "b c f h w -> (b f) c 1 h w")
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = F.leaky_relu(self.norms[i - 1](x) if i else x, 0.2)
        return rearrange(self.verdict(x), "(b f1) 1 f2 h w -> b (f1 f2) h w", b=len(videos[0]))


def new_critic(config: CriticConfig, seed: int) -> PatchCritic:
    """A critic ready to be trained: kernels that keep the variance, and no opinion yet."""
    critic = PatchCritic(config)
    generator = torch.Generator().manual_seed(seed)
    for module in critic.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5, generator=generator)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    nn.init.zeros_(critic.verdict.weight)
    return critic
