"""How evenly VAEs use their latent channels: the redundancy study of the paper (section 2, figure 3).

The protocol: encode clips to the posterior's mean, take every latent position as a sample of c numbers, and look at
the covariance of the channels. In a code without redundancy all channels vary alike and none tells about another: the
correlation matrix is the identity and all principal components weigh the same.

    effective rank   exp(entropy of the eigenvalues as shares of their sum), 1 to c (Roy and Vetterli 2007); of the
                     covariance, and of the correlation matrix (what the transformer meets: normalised channels)
    dead channel     the mean's variance over positions is below a hundredth of the posterior's own mean variance, so
                     the channel says at most ln(1.01) / 2 = 0.005 nats a position. The KL term would not show
                     it: with one log-variance for all channels (2.1.4) a constant channel has a large KL too.
    correlation      mean and largest absolute value off the diagonal; a constant channel counts as uncorrelated
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from openltx.eval.report import markdown_table
from openltx.models.vae.autoencoder import VideoAutoencoder

DEAD = 0.01  # of the posterior's variance
FEW_POSITIONS = 10  # for each channel: below, ranks come out too small and correlations too large


@dataclass(frozen=True)
class ChannelUse:
    """What the latents of one VAE look like, un-normalised, over ``positions`` latent positions."""

    name: str
    positions: int
    covariance: Float[np.ndarray, "c c"]  # of the posterior's means
    noise: Float[np.ndarray, "c"]  # the posterior's variance, averaged over positions

    @cached_property
    def correlation(self) -> Float[np.ndarray, "c c"]:
        """Of the channels; a constant channel has 0 with all others."""
        deviation = np.sqrt(self.covariance.diagonal())
        safe = np.where(deviation > 0, deviation, 1.0)
        matrix = self.covariance / np.outer(safe, safe)
        np.fill_diagonal(matrix, 1.0)
        return matrix

    @property
    def explained(self) -> Float[np.ndarray, "c"]:
        """The share of the variance in the first 1, 2, ... c principal components."""
        values = spectrum(self.covariance)
        return values.cumsum() / max(values.sum(), np.finfo(float).tiny)

    @property
    def dead(self) -> list[int]:
        """The channels that say next to nothing."""
        return np.flatnonzero(self.covariance.diagonal() < DEAD * self.noise).tolist()

    @property
    def off_diagonal(self) -> Float[np.ndarray, "pairs"]:
        """The absolute correlation of each pair of channels."""
        return np.abs(self.correlation[np.triu_indices(len(self.correlation), k=1)])


def channel_use(name: str, vae: VideoAutoencoder, videos: Iterable[Float[Tensor, "3 _ _ _"]]) -> ChannelUse:
    """Encode the videos, whose sizes fit the VAE's grid, and gather the statistics of all latent positions."""
    means, variances = [], []
    for video in videos:
        mean, variance = posterior(vae, video)
        means.append(mean)
        variances.append(variance)
    samples = np.concatenate(means).astype(np.float64)
    noise = np.concatenate(variances).mean(0, dtype=np.float64)
    covariance = np.atleast_2d(np.cov(samples, rowvar=False))
    return ChannelUse(name=name, positions=len(samples), covariance=covariance, noise=noise)


@torch.inference_mode()
def posterior(
    vae: VideoAutoencoder, video: Float[Tensor, "3 F H W"]
) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
    """Mean and variance at each latent position, un-normalised."""
    weight = next(vae.parameters())
    mean, log_variance = vae.encoder(video[None].to(weight.device, weight.dtype))
    flat_mean, flat_log = (x[0].float().cpu().flatten(1).T.numpy() for x in (mean, log_variance))
    return flat_mean, np.exp(flat_log)


def spectrum(matrix: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c"]:
    """Eigenvalues of a covariance matrix, largest first."""
    return np.linalg.eigvalsh(matrix)[::-1].clip(min=0.0)


def effective_rank(eigenvalues: Float[np.ndarray, "c"]) -> float:
    """How many equal eigenvalues have the same entropy: c for equal ones, 1 for a single one, 0 if all are 0."""
    total = eigenvalues.sum()
    if total <= 0:
        return 0.0
    shares = eigenvalues[eigenvalues > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def components_for(share: float, explained: Float[np.ndarray, "c"]) -> int:
    """How many principal components hold so large a share of the variance."""
    return min(int(np.searchsorted(explained, share - 1e-12)) + 1, len(explained))


def describe(use: ChannelUse) -> dict[str, Any]:
    """One VAE's numbers as JSON values."""
    pairs = use.off_diagonal
    return {
        "name": use.name,
        "channels": len(use.covariance),
        "positions": use.positions,
        "effective_rank": effective_rank(spectrum(use.covariance)),
        "effective_rank_normalised": effective_rank(spectrum(use.correlation)),
        "components_90": components_for(0.90, use.explained),
        "components_99": components_for(0.99, use.explained),
        "dead_channels": len(use.dead),
        "dead": use.dead,
        "mean_correlation": float(pairs.mean()) if len(pairs) else 0.0,
        "largest_correlation": float(pairs.max()) if len(pairs) else 0.0,
        "explained_variance": use.explained.tolist(),
        "variance": use.covariance.diagonal().tolist(),
        "posterior_variance": use.noise.tolist(),
    }


def to_markdown(report: dict[str, Any]) -> str:
    """A row for each VAE."""
    header = [
        f"{report['clips']} clips",
        "channels",
        "effective rank",
        "of normalised",
        "components for 90%",
        "for 99%",
        "dead",
        "mean abs. correlation",
        "largest",
    ]
    keys = (
        "name",
        "channels",
        "effective_rank",
        "effective_rank_normalised",
        "components_90",
        "components_99",
        "dead_channels",
        "mean_correlation",
        "largest_correlation",
    )
    found = report["checkpoints"]
    text = f"Use of the latent channels\n\n{markdown_table(header, [[one[key] for key in keys] for one in found])}\n"
    few = [one["name"] for one in found if one["positions"] < FEW_POSITIONS * one["channels"]]
    if few:
        text += (
            f"\nOf {', '.join(few)} there are fewer than {FEW_POSITIONS} latent positions for each channel: ranks come "
            "out too small and correlations too large. Take more clips.\n"
        )
    return text
