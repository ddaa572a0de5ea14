"""TransNetV2 (Soucek and Lokoc 2020): which frames of a video are the last before a cut or inside a dissolve.

It sees 100 frames of 48 x 27 pixels at once, through dilated convolutions over time and two tables of how alike frames
are (learned features, colour histograms). Modules and tensors carry the names of the published PyTorch weights, which
are not part of this project: ``openltx assets pull transnet-v2`` fetches them.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

HEIGHT, WIDTH = 27, 48
WINDOW, MARGIN = 100, 25  # frames seen at once, and how many at either end are context only
FILTERS, LEVELS, DILATIONS = 16, 3, (1, 2, 4, 8)
REACH = 50  # frames before and after that each frame is compared with


class TransNetV2(nn.Module):
    """The detector, frozen: 7.6 million weights."""

    def __init__(self) -> None:
        super().__init__()
        widths = [4 * FILTERS * 2**level for level in range(LEVELS)]
        self.SDDCNN = nn.ModuleList(
            Level(inputs, width // 4) for inputs, width in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.frame_sim_layer = FrameSimilarity(sum(widths))
        self.color_hist_layer = ColourSimilarity()
        self.fc1 = nn.Linear(widths[-1] * 3 * 6 + 2 * 128, 1024)
        self.cls_layer1 = nn.Linear(1024, 1)
        self.cls_layer2 = nn.Linear(1024, 1)
        self.requires_grad_(False)
        self.eval()

    def forward(self, frames: UInt8[Tensor, "b n 27 48 3"]) -> Float[Tensor, "b n"]:
        """The logit, for each frame, of a change of shot between it and the next."""
        x = frames.permute(0, 4, 1, 2, 3).float() / 255
        levels = []
        for level in self.SDDCNN:
            x = level(x)
            levels.append(x)
        flat = x.permute(0, 2, 3, 4, 1).flatten(2)
        x = torch.cat([self.color_hist_layer(frames), self.frame_sim_layer(levels), flat], 2)
        return self.cls_layer1(F.relu(self.fc1(x)))[..., 0]

    @torch.inference_mode()
    def probabilities(self, frames: UInt8[Tensor, "n 27 48 3"]) -> Float[Tensor, "n"]:
        """Of a change of shot after each frame of a whole video; its ends are continued by their own frames."""
        step, count = WINDOW - 2 * MARGIN, len(frames)
        rest = -count % step
        padded = torch.cat(
            [frames[:1].expand(MARGIN, -1, -1, -1), frames, frames[-1:].expand(MARGIN + rest, -1, -1, -1)]
        )
        parts = [
            self(padded[None, start : start + WINDOW])[0, MARGIN : MARGIN + step]
            for start in range(0, count + rest, step)
        ]
        return torch.cat(parts).sigmoid()[:count]


class Level(nn.Module):
    """Two dilated blocks, the first one's output added to the second's, at half the size."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        self.DDCNN = nn.ModuleList([DilatedBlock(inputs, filters), DilatedBlock(4 * filters, filters)])

    def forward(self, x: Float[Tensor, "b _ n _ _"]) -> Float[Tensor, "b _ n _ _"]:
        first = F.relu(self.DDCNN[0](x))
        return F.avg_pool3d(F.relu(self.DDCNN[1](first)) + first, (1, 2, 2))


class DilatedBlock(nn.Module):
    """Four convolutions side by side that look 1, 2, 4 and 8 frames far."""

    def __init__(self, inputs: int, filters: int) -> None:
        super().__init__()
        for dilation in DILATIONS:
            self.add_module(f"Conv3D_{dilation}", SeparableConv(inputs, filters, dilation))
        self.bn = nn.BatchNorm3d(4 * filters, eps=1e-3)

    def forward(self, x: Float[Tensor, "b _ n _ _"]) -> Float[Tensor, "b _ n _ _"]:
        return self.bn(torch.cat([self.get_submodule(f"Conv3D_{dilation}")(x) for dilation in DILATIONS], 1))


class SeparableConv(nn.Module):
    """A convolution over space, then one over time."""

    def __init__(self, inputs: int, filters: int, dilation: int) -> None:
        super().__init__()
        space = nn.Conv3d(inputs, 2 * filters, (1, 3, 3), padding=(0, 1, 1), bias=False)
        time = nn.Conv3d(
            2 * filters, filters, (3, 1, 1), dilation=(dilation, 1, 1), padding=(dilation, 0, 0), bias=False
        )
        self.layers = nn.ModuleList([space, time])

    def forward(self, x: Float[Tensor, "b _ n _ _"]) -> Float[Tensor, "b _ n _ _"]:
        return self.layers[1](self.layers[0](x))


class FrameSimilarity(nn.Module):
    """How alike each frame's features are to those of the 50 frames before and after it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.projection = nn.Linear(inputs, 128)
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, levels: list[Float[Tensor, "b _ n _ _"]]) -> Float[Tensor, "b n 128"]:
        pooled = torch.cat([x.mean((3, 4)) for x in levels], 1).transpose(1, 2)
        return F.relu(self.fc(_neighbours(F.normalize(self.projection(pooled), dim=2))))


class ColourSimilarity(nn.Module):
    """How alike each frame's histogram of 512 colours is to those of its neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * REACH + 1, 128)

    def forward(self, frames: UInt8[Tensor, "b n 27 48 3"]) -> Float[Tensor, "b n 128"]:
        red, green, blue = (frames.int() >> 5).flatten(2, 3).unbind(-1)
        colours: Int[Tensor, "b n _"] = (red << 6) + (green << 3) + blue
        counts = torch.zeros(*frames.shape[:2], 512, device=frames.device)
        counts.scatter_add_(2, colours.long(), torch.ones_like(colours, dtype=torch.float32))
        return F.relu(self.fc(_neighbours(F.normalize(counts, dim=2))))


def _neighbours(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n 101"]:
    """The inner products of each frame with the 50 frames before it, itself, and the 50 after it; 0 beyond the ends."""
    padded = F.pad(x @ x.transpose(1, 2), (REACH, REACH))
    return torch.stack([padded[:, i, i : i + 2 * REACH + 1] for i in range(x.shape[1])], 1)
