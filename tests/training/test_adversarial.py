"""The adversarial losses: what an undecided, a right and a wrong critic cost, and whose gradient goes where."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from openltx.models.critic import CriticConfig
from openltx.training.adversarial import AdversarialConfig, Critic, combined_at_pixels, with_gradient

TINY = CriticConfig(channels=8, layers=2)
PAIRS = AdversarialConfig(critic=TINY)
SINGLES = AdversarialConfig(critic=replace(TINY, versions=1))


def videos(*, frames: int = 9) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    original = torch.rand(2, 3, frames, 32, 32, generator=generator) * 2 - 1
    return original, (original + 0.1 * torch.randn(original.shape, generator=generator)).clamp(-1, 1)


def opinionated(config: AdversarialConfig) -> Critic:
    critic = Critic(config, seed=1)
    torch.nn.init.normal_(critic.network.verdict.weight, std=0.1, generator=torch.Generator().manual_seed(2))
    return critic


@pytest.mark.parametrize("loss", ["hinge", "cross_entropy"])
@pytest.mark.parametrize("config", [PAIRS, SINGLES])
def test_a_new_critic_is_undecided_and_pays_one(config: AdversarialConfig, loss: str) -> None:
    critic = Critic(replace(config, loss=loss))
    total, logs = critic.critic_loss(*videos())
    assert total.item() == pytest.approx(1.0)
    assert float(logs["accuracy"]) == 0.0


@pytest.mark.parametrize("config", [PAIRS, SINGLES, replace(PAIRS, loss="hinge")])
def test_a_critic_learns_to_tell_the_original(config: AdversarialConfig) -> None:
    critic = Critic(config)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        total, logs = critic.critic_loss(*videos(), generator)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.5
    assert float(logs["accuracy"]) > 0.9


def test_a_critic_that_sees_each_pair_once_learns_from_larger_batches() -> None:
    """With two samples a step it only learned which order was drawn last."""
    critic = Critic(replace(PAIRS, orders="random"))
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    original, reconstruction = (x.repeat(8, 1, 1, 1, 1) for x in videos(frames=1))
    for _ in range(60):
        total, _ = critic.critic_loss(original, reconstruction, generator)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.5


def test_both_orders_of_a_pair_are_shown_and_neither_is_favoured() -> None:
    critic = opinionated(PAIRS)
    original, reconstruction = videos()
    up, down = critic.scores(original, reconstruction)
    swapped_up, swapped_down = critic.scores(reconstruction, original)
    torch.testing.assert_close(up, swapped_down)
    torch.testing.assert_close(down, swapped_up)
    assert not torch.allclose(up, down)


def test_random_orders_show_each_pair_once() -> None:
    critic = opinionated(replace(PAIRS, orders="random"))
    original, reconstruction = (x.repeat(8, 1, 1, 1, 1) for x in videos())
    up, down = critic.scores(original, reconstruction, torch.Generator().manual_seed(0))
    assert len(up) + len(down) == 16
    assert len(up)
    assert len(down)


@pytest.mark.parametrize("config", [PAIRS, SINGLES, replace(PAIRS, loss="hinge"), replace(SINGLES, loss="hinge")])
def test_the_autoencoder_is_drawn_to_what_the_critic_takes_for_the_original(config: AdversarialConfig) -> None:
    critic = opinionated(config)
    original, reconstruction = videos()
    reconstruction.requires_grad_()
    before = critic.autoencoder_loss(original, reconstruction)
    (gradient,) = torch.autograd.grad(before, reconstruction)
    after = critic.scores(original, reconstruction - 0.5 * gradient / gradient.abs().max())
    scores = critic.scores(original, reconstruction)
    assert after.down.mean() > scores.down.mean()
    if config.critic.versions == 2:
        assert after.up.mean() < scores.up.mean()


def test_the_critic_phase_leaves_the_reconstruction_alone() -> None:
    original, reconstruction = videos()
    reconstruction.requires_grad_()
    total, _ = opinionated(PAIRS).critic_loss(original, reconstruction)
    total.backward()
    assert reconstruction.grad is None


def test_a_pair_of_equal_versions_cannot_be_told_apart() -> None:
    original, _ = videos()
    up, down = opinionated(PAIRS).scores(original, original)
    torch.testing.assert_close(up, down)


def test_the_gradient_penalty_is_the_squared_slope_of_the_critic_at_the_original() -> None:
    critic = Critic(replace(SINGLES, gradient_penalty=10.0))
    for conv in critic.network.convs:  # a critic without layers in between: its score is linear in the video
        torch.nn.init.zeros_(conv.weight)
    _, logs = critic.critic_loss(*videos())
    assert float(logs["gradient_penalty"]) == 0.0

    critic = opinionated(replace(SINGLES, gradient_penalty=10.0))
    original, reconstruction = videos()
    total, logs = critic.critic_loss(original, reconstruction)
    original.requires_grad_()
    scores = critic.network(original).flatten(1).mean(1)
    (slope,) = torch.autograd.grad(scores.sum(), original)
    torch.testing.assert_close(logs["gradient_penalty"], slope.square().flatten(1).sum(1).mean())
    total.backward()
    assert critic.network.convs[0].weight.grad is not None


def test_lecam_holds_scores_near_the_running_means_of_the_opposite_kind() -> None:
    critic = opinionated(replace(PAIRS, lecam=1.0))
    original, reconstruction = videos()
    _, first = critic.critic_loss(original, reconstruction)
    means = critic.mean_up.item(), critic.mean_down.item()
    up, down = (x.mean() for x in critic.scores(original, reconstruction))
    assert means == pytest.approx((0.01 * up.item(), 0.01 * down.item()), rel=1e-4)
    expected = (up - means[1]).relu().square() + (means[0] - down).relu().square()
    assert float(first["lecam"]) == pytest.approx(expected.item(), rel=1e-4, abs=1e-9)


def test_the_adaptive_weight_makes_the_critics_pull_a_fixed_share() -> None:
    pixels = torch.rand(1, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    by_losses, by_adversarial = 18 * pixels.detach(), torch.ones(1, 3, 1, 4, 4)  # of 9 p^2 and of p
    adaptive, fixed = (replace(PAIRS, weight=0.25, adaptive=wanted) for wanted in (True, False))
    gradient, weight = combined_at_pixels(pixels, (3 * pixels).square().sum(), pixels.sum(), adaptive)
    assert ((weight * by_adversarial).norm() / by_losses.norm()).item() == pytest.approx(0.25)
    torch.testing.assert_close(gradient, by_losses + weight * by_adversarial)
    gradient, weight = combined_at_pixels(pixels, (3 * pixels).square().sum(), pixels.sum(), fixed)
    assert weight.item() == 0.25
    torch.testing.assert_close(gradient, by_losses + 0.25)


def test_a_value_with_a_given_gradient_has_both() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    total = with_gradient(torch.tensor(7.0), x, torch.tensor([3.0, -1.0]))
    total.backward()
    assert total.item() == 7.0
    assert torch.equal(x.grad, torch.tensor([3.0, -1.0]))  # type: ignore[arg-type]  # backward has just set it


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("frames", [1, 9])
def test_a_verdict_on_a_sample_does_not_depend_on_its_batch(dimensions: int, frames: int) -> None:
    critic = opinionated(replace(PAIRS, critic=replace(TINY, dimensions=dimensions))).network
    original, reconstruction = videos(frames=frames)
    together = critic(original, reconstruction)
    torch.testing.assert_close(together[1:], critic(original[1:], reconstruction[1:]))


def test_a_critic_of_frames_does_not_look_at_neighbours() -> None:
    critic = opinionated(replace(PAIRS, critic=replace(TINY, dimensions=2))).network
    original, reconstruction = videos()
    changed = reconstruction.clone()
    changed[:, :, 4] = 0
    before, after = critic(original, reconstruction), critic(original, changed)
    assert before.shape == (2, 9, 4, 4)
    same = [torch.equal(before[:, i], after[:, i]) for i in range(9)]
    assert same == [i != 4 for i in range(9)]
