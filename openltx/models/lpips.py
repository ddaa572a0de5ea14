"""LPIPS v0.1: the distance of two images as a trained eye would put it, on VGG16 or AlexNet features.

Both images go through a frozen classifier; at five ReLU taps the feature vectors are brought to unit length over the
channels, their squared differences are weighted by a learned non-negative weight per channel, averaged over the image
and summed over the taps (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric").
It is a training loss of the autoencoder (paper section 3.1) and a number of the evaluation. The weights are not part of
this project: ``openltx assets pull lpips`` fetches them, ``openltx.checkpoints.assets.load_lpips`` loads them.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Network = Literal["vgg", "alex"]

SHIFT = (-0.030, -0.088, -0.188)  # ImageNet mean and deviation, carried over to inputs in [-1, 1]
SCALE = (0.458, 0.448, 0.450)
SMALLEST_SQUARE = 1e-20  # keeps the gradient of a square root finite where all channels are zero; changes no value


class LPIPS(nn.Module):
    """The distance itself: frozen, deterministic, differentiable in both images."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.plan = NETWORKS[network]
        self.convs = nn.ModuleList(
            nn.Conv2d(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.padding) for conv in self.plan
        )
        self.channel_weights = nn.ParameterList(nn.Parameter(torch.empty(c.outputs)) for c in self.plan if c.tapped)
        self.register_buffer("shift", torch.tensor(SHIFT).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, a: Float[Tensor, "b 3 H W"], b: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b"]:
        """Distance of each pair of images in [-1, 1], in float32: 0 for equal ones, about 0.7 for unrelated ones."""
        total = a.new_zeros(a.shape[0], dtype=torch.float32)
        # Two passes instead of one doubled batch: a target without gradient then costs no backward pass.
        for weights, features_a, features_b in zip(
            self.channel_weights, self.features(a), self.features(b), strict=True
        ):
            difference = (unit_length(features_a) - unit_length(features_b)).square()
            total = total + torch.einsum("bchw,c->b", difference, weights.float()) / difference[0, 0].numel()
        return total

    def features(self, images: Float[Tensor, "b 3 H W"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The five tapped feature maps, shallow to deep."""
        taps = []
        x = (images - self.shift) / self.scale
        for conv, settings in zip(self.convs, self.plan, strict=True):
            if settings.pool_first:
                x = F.max_pool2d(x, settings.pool_first, stride=2)
            x = F.relu(conv(x))
            if settings.tapped:
                taps.append(x)
        return taps


def unit_length(features: Float[Tensor, "b c H W"]) -> Float[Tensor, "b c H W"]:
    """Each pixel's feature vector divided by its length, in float32."""
    features = features.float()  # the sum of up to 512 squares is too coarse in half precision
    squares = features.square().sum(dim=1, keepdim=True)
    return features / (squares.clamp_min(SMALLEST_SQUARE).sqrt() + 1e-10)


@dataclass(frozen=True, kw_only=True)
class Conv:
    """One convolution and its ReLU; ``pool_first`` is the window of the max pooling (stride 2) before it, 0: none."""

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool_first: int = 0
    tapped: bool = False


NETWORKS: dict[str, tuple[Conv, ...]] = {
    "vgg": (
        Conv(inputs=3, outputs=64),
        Conv(inputs=64, outputs=64, tapped=True),
        Conv(inputs=64, outputs=128, pool_first=2),
        Conv(inputs=128, outputs=128, tapped=True),
        Conv(inputs=128, outputs=256, pool_first=2),
        Conv(inputs=256, outputs=256),
        Conv(inputs=256, outputs=256, tapped=True),
        Conv(inputs=256, outputs=512, pool_first=2),
        Conv(inputs=512, outputs=512),
        Conv(inputs=512, outputs=512, tapped=True),
        Conv(inputs=512, outputs=512, pool_first=2),
        Conv(inputs=512, outputs=512),
        Conv(inputs=512, outputs=512, tapped=True),
    ),
    "alex": (
        Conv(inputs=3, outputs=64, kernel=11, stride=4, padding=2, tapped=True),
        Conv(inputs=64, outputs=192, kernel=5, padding=2, pool_first=3, tapped=True),
        Conv(inputs=192, outputs=384, pool_first=3, tapped=True),
        Conv(inputs=384, outputs=256, tapped=True),
        Conv(inputs=256, outputs=256, tapped=True),
    ),
}
