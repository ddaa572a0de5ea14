"""Adversarial losses of the Video-VAE: the reconstruction GAN and the ordinary one it replaces. (Paper section 2.1.2.)

    reconstruction GAN    s+ = C(x, x')     s- = C(x', x)     the pair in both orders: which version is the original?
    ordinary patch GAN    s+ = C(x)         s- = C(x')        each version alone: is it an original?

The critic C wants s+ > 0 and s- < 0, the autoencoder the opposite. With pairs it has a hold on both scores, since
either order shows its reconstruction. Losses: hinge, or the cross-entropy of the two answers in units of ln 2 (an
undecided critic has loss 1 with both). The paper names no loss, weight, start or regulariser: all are our choice.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from openltx.models.critic import CriticConfig, PatchCritic, new_critic

LARGEST_ADAPTIVE_WEIGHT = 1e4
LECAM_MOMENTUM = 0.99


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """How the critic takes part."""

    critic: CriticConfig = field(default_factory=CriticConfig)
    loss: Literal["hinge", "cross_entropy"] = "cross_entropy"
    weight: float = 0.1  # of the autoencoder's loss; with `adaptive` the ratio of the two gradients at the pixels
    adaptive: bool = True
    orders: Literal["both", "random"] = "both"  # of a pair; "random" costs half and halves what a step learns
    critic_from: int = 0  # first step in which the critic learns
    weight_from: int = 0  # first step in which the autoencoder listens
    gradient_penalty: float = 0.0  # R1: squared gradient of the critic at the original
    lecam: float = 0.0  # pull of the scores towards running means of the opposite ones


class Scores(NamedTuple):
    """What the critic shall raise, and what it shall lower; (b f h w), or fewer samples with random orders."""

    up: Tensor
    down: Tensor


class Critic(nn.Module):
    """The critic network with the running means that LeCAM needs."""

    mean_up: Tensor
    mean_down: Tensor

    def __init__(self, config: AdversarialConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.network: PatchCritic = new_critic(config.critic, seed)
        self.register_buffer("mean_up", torch.zeros(()))
        self.register_buffer("mean_down", torch.zeros(()))

    def scores(
        self,
        original: Float[Tensor, "b 3 F H W"],
        reconstruction: Float[Tensor, "b 3 F H W"],
        generator: torch.Generator | None = None,
    ) -> Scores:
        """The critic's view of both versions; a generator draws the order of each pair if the config says random."""
        if self.config.critic.versions == 1:
            up, down = self.network(torch.cat([original, reconstruction])).chunk(2)
        elif self.config.orders == "both":
            firsts, seconds = torch.cat([original, reconstruction]), torch.cat([reconstruction, original])
            up, down = self.network(firsts, seconds).chunk(2)
        else:
            swap = torch.rand(len(original), generator=generator).to(original.device) < 0.5
            choose = swap[:, None, None, None, None]
            logits = self.network(
                torch.where(choose, reconstruction, original), torch.where(choose, original, reconstruction)
            )
            up, down = logits[~swap], logits[swap]
        return Scores(up.float(), down.float())

    def critic_loss(
        self,
        original: Float[Tensor, "b 3 F H W"],
        reconstruction: Float[Tensor, "b 3 F H W"],
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss, 1 if it has no opinion, and what to log: its accuracy and the regularisers."""
        config = self.config
        penalised = config.gradient_penalty > 0
        original = original.detach().requires_grad_(penalised)
        scores = self.scores(original, reconstruction.detach(), generator)
        total = _pooled(scores, lambda s, sign: _judged(s * sign, config.loss))
        logs = {"accuracy": _pooled(scores, lambda s, sign: (s * sign > 0).float()).detach()}
        if penalised:
            logs["gradient_penalty"] = _gradient_penalty(scores, original)
        if config.lecam:
            logs["lecam"] = self._lecam(scores)
        total = total + config.gradient_penalty * logs.get("gradient_penalty", 0) + config.lecam * logs.get("lecam", 0)
        return total, {name: value.detach() for name, value in logs.items()}

    def autoencoder_loss(
        self,
        original: Float[Tensor, "b 3 F H W"],
        reconstruction: Float[Tensor, "b 3 F H W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """The autoencoder's share, before its weight: 1 at indecision with cross-entropy, 0 with hinge."""
        scores = self.scores(original, reconstruction, generator)
        if self.config.critic.versions == 1:
            scores = Scores(scores.down[:0], scores.down)
        if self.config.loss == "hinge":
            return _pooled(scores, lambda s, sign: s * sign)
        return _pooled(scores, lambda s, sign: _judged(-s * sign, "cross_entropy"))

    def _lecam(self, scores: Scores) -> Tensor:
        """LeCAM (Tseng et al. 2021): scores are kept near running means of the opposite kind."""
        up, down = scores.up.mean(), scores.down.mean()
        with torch.no_grad():
            self.mean_up.lerp_(up, 1 - LECAM_MOMENTUM)
            self.mean_down.lerp_(down, 1 - LECAM_MOMENTUM)
        return F.relu(up - self.mean_down).square() + F.relu(self.mean_up - down).square()


def combined_at_pixels(
    reconstruction: Float[Tensor, "b 3 F H W"], losses: Tensor, adversarial: Tensor, config: AdversarialConfig
) -> tuple[Tensor, Tensor]:
    """A loss with the gradient of losses + w x adversarial, and w. Both must depend on ``reconstruction`` as a leaf.

    Adaptive: w = weight x |d losses| / |d adversarial|, so that the critic's pull is a fixed share of the other
    losses' pull. The norms are taken at the pixels, where both gradients are at hand anyway; elsewhere they are taken
    at the last layer's kernel (Esser et al. 2021), which costs a second backward pass through all losses.
    """
    (by_losses,) = torch.autograd.grad(losses, reconstruction)
    (by_adversarial,) = torch.autograd.grad(adversarial, reconstruction)
    weight = torch.as_tensor(config.weight, device=losses.device)
    if config.adaptive:
        ratio = by_losses.norm() / by_adversarial.norm().clamp(min=1e-12)
        weight = weight * ratio.clamp(max=LARGEST_ADAPTIVE_WEIGHT)
    return by_losses + weight * by_adversarial, weight


def with_gradient(value: Tensor, at: Tensor, gradient: Tensor) -> Tensor:
    """A scalar that equals ``value`` and whose gradient with respect to ``at`` is ``gradient``."""
    linear = (at * gradient).sum()
    return value.detach() + linear - linear.detach()


def _judged(agreement: Tensor, kind: str) -> Tensor:
    """The loss of scores that should be positive."""
    return F.relu(1 - agreement) if kind == "hinge" else F.softplus(-agreement) / math.log(2)


def _pooled(scores: Scores, loss: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The mean of loss(score, sign) over all patches of both kinds, each kind alike."""
    kinds = [loss(values, sign).mean() for values, sign in ((scores.up, 1), (scores.down, -1)) if values.numel()]
    return torch.stack(kinds).mean()


def _gradient_penalty(scores: Scores, original: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018): squared gradient of a sample's mean score, at the original; mean over samples."""
    total = scores.up.flatten(1).mean(1).sum() - scores.down.flatten(1).mean(1).sum()
    (gradient,) = torch.autograd.grad(total, original, create_graph=True)
    return gradient.float().square().flatten(1).sum(1).mean()
