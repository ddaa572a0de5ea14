"""The random numbers of one generation: which there are, and in which order and shape a seed gives them.

A seed covers everything that is drawn. Two generators serve it, ``first`` and ``later``:

    what is drawn, in this order          "openltx"                          "official"
    a given video or picture, encoded     not drawn: the posterior's mean    later, a sample of the posterior
    the video's noise                     first, as tokens                   first, as tokens
    the noise of extra tokens             first, as tokens                   first, as latents
    every step: noise on given pictures   later                              first
    every step: stochastic sampling       later                              later
    before decoding, and in the decoder   first                              later

In "official" ``first`` stands for the generator that the official code is given, and ``later`` for torch's global one,
which it uses beside it; both start from the seed. So a seed gives what the official pipeline gives on a CPU in float32
after ``torch.manual_seed(seed)`` and with ``generator=torch.Generator().manual_seed(seed)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from openltx.errors import RequestError
from openltx.flow.path import interpolate
from openltx.flow.solvers import Noise
from openltx.geometry import LatentShape, patchify, unpatchify
from openltx.noise import derived_generator, randn

NoiseLayout = Literal["openltx", "official"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The generators of one sample, and the rules of its layout; ``seeded_draws`` makes it."""

    layout: NoiseLayout
    grid: LatentShape
    first: torch.Generator
    later: torch.Generator

    @property
    def posterior(self) -> torch.Generator | None:
        """What samples the posterior of given pictures; None takes its mean."""
        return self.later if self.layout == "official" else None

    def start(self, channels: int) -> Float[Tensor, "1 n c"]:
        """The noise that the video begins as."""
        return _randn((1, self.grid.num_tokens, channels), self.first)

    def extra(self, shape: Sequence[int]) -> Float[Tensor, "b n c"]:
        """The noise of extra tokens of ``shape``: whole latent frames of the grid's height and width."""
        if self.layout == "openltx":
            return _randn(shape, self.first)
        b, n, c = shape
        height, width = self.grid.height, self.grid.width
        return patchify(_randn((b, c, n // (height * width), height, width), self.first))

    def of_steps(self) -> tuple[Noise, Noise]:
        """Fresh noise for stochastic sampling, and for given pictures; from the beginning at every call."""
        later = self.later.clone_state()
        pictures = self.first.clone_state() if self.layout == "official" else later

        def source(generator: torch.Generator) -> Noise:
            return lambda like: _randn(like.shape, generator).to(like)

        return source(later), source(pictures)

    def of_decoder(self, tokens: Sequence[int], renewed: int) -> torch.Generator:
        """What the decoder draws from, after steps that have ``renewed`` noise of the shape ``tokens`` so many times.

        A clone: decoding a preview does not change the video that follows.
        """
        if self.layout == "openltx":
            return self.first.clone_state()
        generator = self.later.clone_state()
        for _ in range(renewed):
            _randn(tokens, generator)
        return generator

    def mixed(
        self, tokens: Float[Tensor, "1 n c"], scale: float, generator: torch.Generator
    ) -> tuple[Float[Tensor, "1 n c"], float]:
        """Tokens for the decoder, and how much noise the VAE is still to mix in: in "official" all is done here.

        The official latents lie in memory as tokens, and their noise is drawn in the order in which it lies there.
        """
        if self.layout == "openltx":
            return tokens, scale
        noise = unpatchify(torch.empty(tokens.shape), self.grid).normal_(generator=generator)
        return interpolate(tokens, patchify(noise).to(tokens), torch.tensor(scale)), 0.0


def seeded_draws(layout: NoiseLayout, seed: int, grid: LatentShape) -> Draws:
    """The random numbers of a sample with this seed."""
    first = torch.Generator().manual_seed(seed)
    later = torch.Generator().manual_seed(seed) if layout == "official" else derived_generator(seed, "steps")
    return Draws(layout=layout, grid=grid, first=first, later=later)


def as_tokens(
    noise: Float[Tensor, "1 n c"] | Float[Tensor, "1 c f h w"], grid: LatentShape, channels: int
) -> Float[Tensor, "1 n c"]:
    """Given noise, tokens or latents, as tokens; raises ``RequestError`` if it is not that of the video."""
    latents = (1, channels, grid.frames, grid.height, grid.width)
    tokens = (1, grid.num_tokens, channels)
    if noise.shape not in (latents, tokens):
        raise RequestError(
            f"The given noise has the shape {tuple(noise.shape)}; this video needs {tokens} (tokens) or {latents} "
            "(latents). Give noise of that shape, or change the request's size and frames."
        )
    return patchify(noise) if noise.ndim == 5 else noise


def _randn(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return randn(shape, generator, device=torch.device("cpu"), dtype=torch.float32)
