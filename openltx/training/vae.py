"""Training the Video-VAE: a reconstruction task whose decoder learns the last denoising step. (Paper section 2.1.)

    z0 = encoder(x)                  one log-variance for all channels (2.1.4), sampled
    z_t = (1 - t) z0 + t eps         t ~ U(0, max_t), mixed in normalised latents (2.1.1)
    x' = D(z_t, t)
    loss = pixels(x', x) + DWT(x', x) + LPIPS(x', x) + KL (+ w adversarial(x', x))

What the paper leaves open and we chose: every weight below, the distribution of t (uniform), the wavelet (Haar). The
per-channel statistics that normalise latents run along with training, so that a noise level t means the same
signal-to-noise ratio in training and in use, and are frozen for the last part of it.

With a critic (``training.adversarial``, 2.1.2) a step has two phases: the autoencoder's, then the critic's on the same
videos and reconstructions.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from openltx.data.datasets import ClipBatches
from openltx.distributed.ranks import mean_over_ranks
from openltx.flow.path import interpolate
from openltx.media.contact_sheet import contact_sheet
from openltx.media.transforms import to_frames
from openltx.models.lpips import LPIPS
from openltx.models.vae.autoencoder import Encoder, VAEConfig, VideoAutoencoder
from openltx.models.vae.layers import CausalConv3d
from openltx.training.adversarial import Critic, combined_at_pixels, with_gradient
from openltx.training.config import OptimConfig
from openltx.training.inflate import inflate
from openltx.training.loop import Phase
from openltx.training.losses import dwt_loss, gaussian_kl, saliency
from openltx.training.optim import ExponentialAverage

WIDEST_FOR_MUON = 512


@dataclass(frozen=True, kw_only=True)
class VAELossConfig:
    """Weights of the terms. Means over all values, so they do not depend on the size of a clip."""

    l1: float = 1.0
    mse: float = 1.0
    dwt: float = 0.5
    dwt_levels: int = 2
    lpips: float = 0.05
    lpips_frames: int = 4  # per step: VGG costs more than the VAE
    lpips_from: int = 0  # first step with LPIPS
    kl: float = 1e-5  # per latent value; 1e-3 collapses the posterior of small objects
    saliency: float = 6.0  # extra pixel weight of what moves, see losses.saliency
    max_t: float = 0.2  # the decoder's noise range (2.1.1)
    statistics_momentum: float = 0.02
    freeze_statistics_from: int = 10**9  # step; the recipe sets it


@dataclass(frozen=True, kw_only=True)
class VAETask:
    """The reconstruction task for ``training.loop``.

    ``trained``: "decoder" leaves encoder and latent statistics as they are, so that latents keep their meaning: a
    better or a smaller decoder for a VAE that transformers were trained with.
    """

    model: VideoAutoencoder
    data: ClipBatches
    heldout: Sequence[Float[Tensor, "3 _ _ _"]]
    losses: VAELossConfig
    optim: OptimConfig
    perceptual: LPIPS | None = None  # needed if its weight is not 0
    critic: Critic | None = None
    critic_optim: OptimConfig | None = None  # needed with a critic
    trained: Literal["all", "decoder"] = "all"
    name: str = "vae"
    seen: deque[tuple[Tensor, Tensor]] = field(default_factory=deque)  # videos and reconstructions, for the critic
    moments: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # of this step's latents

    @property
    def module(self) -> nn.Module:
        """The VAE; with a critic, both under the names "vae" and "critic"."""
        if self.critic is None:
            return self.model
        return nn.ModuleDict({"vae": self.model, "critic": self.critic})

    @property
    def settings(self) -> Mapping[str, object]:
        settings: dict[str, object] = {
            "model": asdict(self.model.config),
            "losses": asdict(self.losses),
            "data": self.data.settings,
            "trained": self.trained,
        }
        return settings if self.critic is None else settings | {"critic": asdict(self.critic.config)}

    @property
    def phases(self) -> list[Phase]:
        learner = self.model.decoder if self.trained == "decoder" else self.model
        phases = [
            Phase(
                name="reconstruction",
                parameters=list(learner.parameters()),
                muon_parameters=inner_kernels(learner),
                optim=self.optim,
                loss=self.loss,
            )
        ]
        if self.critic is not None:
            assert self.critic_optim is not None
            critic = Phase(
                name="critic",
                parameters=list(self.critic.parameters()),
                optim=self.critic_optim,
                loss=self.critic_loss,
                start=self.critic.config.critic_from,
            )
            phases.append(critic)
        return phases

    def batch(self, step: int, micro: int) -> Float[Tensor, "b 3 F H W"]:
        return self.data.batch(step, micro)

    def on_step(self, step: int, average: ExponentialAverage) -> None:
        """Where images give way to clips, go on from the averaged weights, inflated (``training.inflate``)."""
        self.seen.clear()
        self.moments.clear()
        if step > 0 and self.data.stage(step - 1).is_of_images and not self.data.stage(step).is_of_images:
            average.overwrite_weights()
            inflate(self.model)
            average.copy_weights()

    def after_step(self, step: int) -> None:
        """Move the latent statistics, unless they are frozen, towards those of all batches of this step."""
        if self.trained == "all" and step < self.losses.freeze_statistics_from:
            mean, square = (torch.stack(x).mean(0) for x in zip(*self.moments, strict=True))
            momentum = self.losses.statistics_momentum if step else 1.0
            update_statistics(self.model, mean_over_ranks(mean), mean_over_ranks(square), momentum)

    def loss(
        self, video: Float[Tensor, "b 3 F H W"], step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The autoencoder's total loss of a batch, and its parts."""
        model, config = self.model, self.losses
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.trained == "all"):
            mean, log_variance = (x.float() for x in model.encoder(video))
        self.moments.append(_moments(mean.detach()))
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
        t = torch.rand(len(video), generator=generator) * config.max_t
        z_t = interpolate(model.normalise(z), torch.randn(z.shape, generator=generator), t)
        level = t if model.config.timestep_conditioning else None
        output = model.decoder(model.unnormalise(z_t), level, generator).float()
        total, logs = self._at_pixels(video, output, step, generator)
        logs["kl"] = gaussian_kl(mean, log_variance)
        total = total + config.kl * logs["kl"]
        logs = {name: value.detach() for name, value in logs.items()}
        logs["psnr"] = -10 * (logs["mse"] / 4).log10()
        logs["latent_std"] = model.per_channel_statistics.std.mean()
        logs["posterior_std"] = (0.5 * log_variance.detach()).exp().mean()
        return total, logs

    def critic_loss(self, _video: Tensor, _step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The critic's loss on the next of the videos that the autoencoder's phase has reconstructed."""
        assert self.critic is not None
        return self.critic.critic_loss(*self.seen.popleft(), generator)

    def _at_pixels(
        self, video: Tensor, output: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """All losses that compare pixels, and their parts."""
        critic = self.critic
        if critic is not None and step >= critic.config.critic_from:
            self.seen.append((video, output.detach()))
        if critic is None or step < critic.config.weight_from:
            return self._reconstruction(video, output, step, generator)
        leaf = output.detach().requires_grad_()
        total, parts = self._reconstruction(video, leaf, step, generator)
        adversarial = critic.autoencoder_loss(video, leaf, generator)
        gradient, weight = combined_at_pixels(leaf, total, adversarial, critic.config)
        total = with_gradient(total + weight * adversarial, output, gradient)
        return total, parts | {"adversarial": adversarial, "adversarial_weight": weight}

    def _reconstruction(
        self, video: Tensor, output: Tensor, step: int, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of pixel, wavelet and perceptual losses, and each of them."""
        config = self.losses
        weight = saliency(video, config.saliency)
        error = output - video
        parts = {
            "l1": (weight * error.abs()).mean(),
            "mse": error.square().mean(),
            "dwt": dwt_loss(output, video, config.dwt_levels),
        }
        if self.perceptual is not None and step >= config.lpips_from:
            parts["lpips"] = self._on_some_frames(self.perceptual, video, output, generator)
        return torch.stack([getattr(config, name) * value for name, value in parts.items()]).sum(), parts

    def _on_some_frames(self, distance: LPIPS, a: Tensor, b: Tensor, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(a.shape[0] * a.shape[2], generator=generator)[: self.losses.lpips_frames]
        frames = [x.movedim(2, 1).flatten(0, 1)[chosen] for x in (a, b)]
        return distance(*frames).mean()

    @torch.no_grad()
    def write_samples(self, folder: Path, step: int, ema: bool) -> dict[str, float]:
        """Originals above reconstructions at t = 0.05, as a contact sheet; PSNR on the held-out clips."""
        generators = [torch.Generator().manual_seed(i) for i in range(len(self.heldout))]
        rows, squared = [], []
        for clip, generator in zip(self.heldout, generators, strict=True):
            output = self.model.decode(self.model.encode(clip[None]), 0.05, generator=generator)[0].clamp(-1, 1)
            squared.append((output - clip).square().mean())
            rows += [("original", to_frames(clip)), (f"step {step}", to_frames(output))]
        contact_sheet(rows, columns=6, cell=128).save(folder / f"step_{step:08d}{'_ema' if ema else ''}.png")
        psnr = torch.stack([-10 * (x / 4).log10() for x in squared]).mean()
        return {"heldout_psnr": float(psnr)}


def _moments(mean: Float[Tensor, "b c f h w"]) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """Mean and mean square of each channel."""
    values = mean.movedim(1, 0).flatten(1)
    return values.mean(1), values.square().mean(1)


def update_statistics(
    model: VideoAutoencoder, mean: Float[Tensor, "c"], square: Float[Tensor, "c"], momentum: float
) -> None:
    """Mix latents with these first and second moments into the per-channel statistics, with a share of ``momentum``."""
    statistics = model.per_channel_statistics
    between = momentum * (1 - momentum) * (mean - statistics.mean).square()
    variance = statistics.std.square().lerp(square - mean.square(), momentum) + between
    statistics.std.copy_(variance.clamp(min=1e-8).sqrt())
    statistics.mean.lerp_(mean, momentum)


def inner_kernels(model: nn.Module) -> list[nn.Parameter]:
    """The convolution kernels that Muon trains: all but those that meet pixels or latents, and very wide ones.

    A pixel shuffle's kernel can have a thousand rows, at which Newton-Schulz would cost more than all others together.
    """
    outer = ("conv_in.", "conv_out.")
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 5 and len(parameter) <= WIDEST_FOR_MUON and not any(part in name for part in outer)
    ]


def init_weights(model: VideoAutoencoder, generator: torch.Generator) -> None:
    """For training from scratch: scaled normal kernels, residual branches that start at zero, a small posterior noise.

    The log-variance starts at -5: a bias of 0 would drown the latents in noise of standard deviation 1.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=fan_in**-0.5, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for name, module in model.named_modules():
        if isinstance(module, CausalConv3d) and name.endswith("conv2"):
            nn.init.zeros_(module.conv.weight)
    for name, parameter in model.named_parameters():
        if name.endswith("scale_shift_table") or "linear_2" in name:
            nn.init.zeros_(parameter)
    _start_log_variance(model.encoder, -5.0)


def _start_log_variance(encoder: Encoder, value: float) -> None:
    conv, latents = encoder.conv_out.conv, encoder.config.latent_channels
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight[latents:].zero_()
        conv.bias[latents:].fill_(value)


def new_autoencoder(config: VAEConfig, seed: int) -> VideoAutoencoder:
    """A Video-VAE ready to be trained from nothing."""
    model = VideoAutoencoder(config)
    init_weights(model, torch.Generator().manual_seed(seed))
    return model
