"""MobileNetV2 (Sandler et al. 2018): an ImageNet classifier whose pooled features say what a frame shows.

The evaluation compares distributions of these features (``openltx.eval.frechet``). Modules and tensors carry
torchvision's names, so its published weights load as they are. They are not part of this project:
``openltx assets pull mobilenet-v2`` fetches them, ``openltx.checkpoints.assets.load_mobilenet`` loads them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 224  # of the pictures that the published weights were trained on
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels in [0, 1]
FEATURES = 1280
CLASSES = 1000

STAGES = (  # expansion, channels, blocks, stride of the first one (table 2 of the paper)
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """The classifier, frozen, for pictures of any size in [-1, 1]. It has 3,504,872 weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_norm_relu(3, 32, kernel=3, stride=2)]
        inputs = 32
        for expansion, outputs, blocks, stride in STAGES:
            for index in range(blocks):
                layers.append(InvertedResidual(inputs, outputs, expansion, stride if index == 0 else 1))
                inputs = outputs
        layers.append(_conv_norm_relu(inputs, FEATURES, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(FEATURES, CLASSES))
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).reshape(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1000"]:
        """The logits of ImageNet's classes."""
        return self.classifier(self.embed(images))

    def embed(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b 1280"]:
        """The last feature map, averaged over the picture; each picture is first scaled, whole, to 224 x 224."""
        x = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        x = ((x + 1) / 2 - self.mean) / self.deviation
        return self.features(x).mean((2, 3))


class InvertedResidual(nn.Module):
    """Widen by a 1 x 1 convolution, filter each channel by itself, narrow again; added to the input if it fits."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.is_residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([_conv_norm_relu(inputs, wide, kernel=1)] if expansion > 1 else []),
            _conv_norm_relu(wide, wide, kernel=3, stride=stride, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        return x + self.conv(x) if self.is_residual else self.conv(x)


def _conv_norm_relu(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(),
    )
