"""From an image model to a video model without forgetting: inflation of the Video-VAE's weights.

A single frame meets itself in all three time taps of a convolution, and the decoder drops the first of the two frames
that each upsampling in time makes of it. So images train the three taps only as a sum, and one frame in eight. Behind
an image stage the weights are rewritten so that a still video is coded as well as its picture, in every frame:

* each kernel's taps are summed into the one that is on the present frame: frames no longer blur into each other;
* where time is doubled, the channels of the dropped frame get the weights of the kept one.

What an image becomes does not change. (Carreira & Zisserman 2017 inflate 2D kernels likewise; the second half is ours.)
"""

import itertools

import torch
from torch import nn

from openltx.models.vae.layers import CausalConv3d, DepthToSpace


@torch.no_grad()
def inflate(model: nn.Module) -> None:
    """Rewrite, in place, the convolutions of a Video-VAE that has seen only single frames."""
    for module in model.modules():
        if isinstance(module, CausalConv3d):
            kernel = module.conv.weight  # d c 3 h w
            present = 2 if module.causal else 1
            total = kernel.sum(2)
            kernel.zero_()[:, :, present] = total
    for module in model.modules():
        if isinstance(module, DepthToSpace) and module.stride[0] == 2:
            _copy_kept_frame(module)


def _copy_kept_frame(layer: DepthToSpace) -> None:
    """Channels are (c p1 p2 p3): make p1 = 0 what p1 = 1 is, the layer's skip connection included."""
    conv, (p1, p2, p3) = layer.conv.conv, layer.stride
    assert conv.bias is not None
    kernel, bias = (x.unflatten(0, (-1, p1, p2, p3)) for x in (conv.weight, conv.bias))  # views
    kernel[:, 0] = kernel[:, 1]
    bias[:, 0] = bias[:, 1]
    if not layer.residual:
        return
    present = 2 if layer.conv.causal else 1
    narrow = conv.in_channels // (p1 * p2 * p3)  # of the shuffled input, whose channels are repeated
    for c, row, column in itertools.product(range(len(kernel)), range(p2), range(p3)):
        kept = (c % narrow * p1 + 1) * p2 * p3 + row * p3 + column
        centre = kernel[c, 0, row, column, :, present, 1, 1]  # the convolution adds kept - dropped of its own input
        centre[kept] += 1
        centre[kept - p2 * p3] -= 1
