"""Frechet distance between two sets of feature vectors: how far apart two kinds of pictures are as distributions.

    d = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))         Dowson and Landau 1982, for Gaussians

The features are MobileNetV2's (ImageNet, pooled, 1280 numbers a frame), so the numbers are not those of FID or FVD,
which use other networks, and are never called so.

With fewer samples than dimensions the covariances are singular, and matrix square roots lose their footing. With
S = X^T X, where X holds the centred samples over sqrt(n - 1), the eigenvalues of S_a S_b are the squared singular
values of X_a X_b^T: the trace of the root is their sum, exact at any rank, in float64, and nothing is added to the
diagonal. What no formula repairs is that few samples make the distance of equal distributions large; so it is also
given in the leading principal components of the first set, one for every ten samples and at most 64.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openltx.models.mobilenet import MobileNetV2

SAMPLES_PER_COMPONENT = 10
MOST_COMPONENTS = 64


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """The distance in all dimensions, and in the leading components (None where the samples do not suffice)."""

    distance: float
    reduced: float | None


def compare_features(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "n d"]) -> Frechet | None:
    """Both distances of two sets of equal size; None for less than two samples."""
    samples, dimensions = a.shape
    if samples < 2:
        return None
    components = num_components(samples, dimensions)
    axes = principal_axes(a, components)
    return Frechet(
        distance=frechet_distance(a, b),
        reduced=frechet_distance(a @ axes, b @ axes) if components else None,
    )


def num_components(samples: int, dimensions: int) -> int:
    """To how many principal components so many samples are reduced; 0 where they do not suffice for one."""
    return min(samples // SAMPLES_PER_COMPONENT, MOST_COMPONENTS, dimensions)


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """Frechet distance of the Gaussians with the samples' means and covariances; two samples each at least."""
    root_a, root_b = _covariance_root(a), _covariance_root(b)
    root_of_product = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    means = a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)
    distance = means @ means + np.square(root_a).sum() + np.square(root_b).sum() - 2 * root_of_product
    return max(float(distance), 0.0)  # rounding leaves equal sets a little below


def principal_axes(x: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "d count"]:
    """The unit vectors along which the samples vary most, strongest first."""
    _, _, axes = np.linalg.svd(_covariance_root(x), full_matrices=False)
    return axes[:count].T


@torch.inference_mode()
def frame_features(network: MobileNetV2, video: Float[Tensor, "3 F H W"]) -> Float[np.ndarray, "F 1280"]:
    """The features of each frame of a video in [-1, 1], in float64."""
    return network.embed(video.clamp(-1, 1).transpose(0, 1).float()).double().numpy()


def _covariance_root(x: np.ndarray) -> np.ndarray:
    """A matrix R with R^T R = the samples' covariance, with as few rows as there are samples or dimensions."""
    centred = (x - x.mean(0, dtype=np.float64)) / np.sqrt(len(x) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if centred.shape[0] > centred.shape[1] else centred
