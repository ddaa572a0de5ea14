"""Networks that take turns in memory, and blocks that pass through it: the residencies "offloaded" and "streamed".

What is not in its turn lies on the meta device: names, shapes and types are there, numbers are not. Whoever computes
asks for its weights (``VideoTransformer.block_source``, ``VideoAutoencoder.before_use``), and they are read from the
file, which is mapped into memory: what needs no conversion is not even copied. The numbers are those of a model that
lies in memory as a whole.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from openltx.checkpoints.load import load_bundle
from openltx.checkpoints.text import load_text_encoder
from openltx.checkpoints.weights import Weights
from openltx.kernels.volume import lay_out_kernels
from openltx.models.bundle import LTXModel
from openltx.models.text import TextContext, TextEncoder
from openltx.models.transformer import Block, VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder

BLOCKS = "transformer_blocks."
_PAGE = 4096


def load_in_turns(
    name: str | Path, dtype: torch.dtype, device: torch.device, *, streamed: bool, recipe: str | None = None
) -> LTXModel:
    """A model of which text encoder, transformer, the VAE's encoder and its decoder are in memory one at a time.

    With ``streamed`` the transformer's blocks pass through it one after the other, the next being read meanwhile. The
    few tensors outside the blocks and the VAE's statistics stay.
    """
    turns = Turns()

    def fill(module: nn.Module, weights: Weights) -> None:
        module.to(dtype).requires_grad_(False)
        match module:
            case VideoTransformer():
                _take_blocks_in_turn(module, weights, turns, streamed)
            case VideoAutoencoder():
                _take_halves_in_turn(module, weights, turns)
            case _:
                raise AssertionError(f"no turns are known for {type(module).__name__}")

    model = load_bundle(name, dtype, device, recipe, fill)
    if model.text is None:
        return model
    encoder = model.text.name
    return replace(
        model, text=TextOnCall(encoder, model.text.channels, lambda: load_text_encoder(encoder, device), turns)
    )


def _take_blocks_in_turn(transformer: VideoTransformer, weights: Weights, turns: "Turns", streamed: bool) -> None:
    # a part only, here and below: that names and shapes are those of the whole was checked before
    transformer.load_state_dict(weights.outside(BLOCKS).read_finite(), strict=False, assign=True)
    blocks = cast("list[Block]", list(transformer.transformer_blocks))
    if streamed:
        passing = BlockStream(blocks, [weights.under(f"{BLOCKS}{number}.") for number in range(len(blocks))])
    else:
        passing = Guest(transformer.transformer_blocks, weights.under(BLOCKS))

    def source(parts: tuple[str, ...]) -> Iterator[Block]:
        turns.give(passing)
        return passing.blocks(parts) if isinstance(passing, BlockStream) else iter(blocks)

    transformer.block_source = source


def _take_halves_in_turn(vae: VideoAutoencoder, weights: Weights, turns: "Turns") -> None:
    halves = {"encoder.": vae.encoder, "decoder.": vae.decoder}
    vae.load_state_dict(weights.outside(*halves).read_finite(), strict=False, assign=True)
    guests = {id(half): Guest(half, weights.under(prefix)) for prefix, half in halves.items()}
    vae.before_use = lambda network: turns.give(guests[id(network)])


class Turns:
    """Sees to it that one of several has its weights; the one before leaves first."""

    def __init__(self) -> None:
        self._present: Guest | BlockStream | None = None

    @torch.inference_mode(False)  # weights outlive the call that brought them
    def give(self, guest: "Guest | BlockStream | None") -> None:
        """Nobody's turn is None."""
        if self._present is guest:
            return
        if self._present is not None:
            self._present.leave()
        self._present = None  # stays so if there is no room for the next one
        if guest is not None:
            guest.arrive()
        self._present = guest


class Guest:
    """A module that has weights in its turn."""

    def __init__(self, module: nn.Module, weights: Weights) -> None:
        self._module, self._weights = module, weights
        self._absent = module.state_dict()  # on meta
        self._known = False  # whether the weights were looked at for numbers that are not finite

    def arrive(self) -> None:
        self._module.load_state_dict(self._weights.read() if self._known else self._weights.read_finite(), assign=True)
        self._known = True
        lay_out_kernels(self._module)

    def leave(self) -> None:
        self._module.load_state_dict(self._absent, assign=True)


class BlockStream:
    """Blocks that have weights one after the other; a thread reads those of the next while one computes."""

    def __init__(self, blocks: Sequence[Block], weights: Sequence[Weights]) -> None:
        self._blocks, self._weights = blocks, weights
        self._absent = [block.state_dict() for block in blocks]
        self._known: set[tuple[int, tuple[str, ...]]] = set()  # was looked at for numbers that are not finite
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="openltx-blocks")
        self._ahead: tuple[tuple[int, tuple[str, ...]], Future[dict[str, Tensor]]] | None = None

    def blocks(self, parts: tuple[str, ...] = ()) -> Iterator[Block]:
        """All blocks in order, each with its weights (whose names begin with one of ``parts``) until the next one."""
        last = len(self._blocks) - 1
        for number, block in enumerate(self._blocks):
            tensors = self._take(number, parts)
            self._read_ahead(*((number + 1, parts) if number < last else (0, ())))  # behind the last one: the next step
            block.load_state_dict(tensors, strict=False, assign=True)
            del tensors
            try:
                yield block
            finally:
                block.load_state_dict(self._absent[number], assign=True)

    def arrive(self) -> None:
        """Nothing has to be there before the first block is asked for."""

    def leave(self) -> None:
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def _take(self, number: int, parts: tuple[str, ...]) -> dict[str, Tensor]:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == (number, parts):
            return ahead[1].result()
        return self._read(number, parts)

    def _read_ahead(self, number: int, parts: tuple[str, ...]) -> None:
        self._ahead = (number, parts), self._reader.submit(self._read, number, parts)

    @torch.inference_mode(False)
    def _read(self, number: int, parts: tuple[str, ...]) -> dict[str, Tensor]:
        wanted = self._weights[number].under("", parts)
        if (number, parts) not in self._known:
            tensors = wanted.read_finite()
            self._known.add((number, parts))
            return tensors
        tensors = wanted.read()
        for tensor in tensors.values():
            _touch(tensor)
        return tensors


class TextOnCall:
    """A text encoder that is loaded when a prompt comes, in its turn, and forgotten when it is read."""

    def __init__(self, name: str, channels: int, load: Callable[[], TextEncoder], turns: Turns) -> None:
        self.name, self.channels = name, channels
        self._load, self._turns = load, turns

    def encode(self, prompts: Sequence[str]) -> TextContext:
        """The token states of ``prompts``; raises ``RequestError`` if one is too long."""
        self._turns.give(None)
        return self._load().encode(prompts)


def _touch(tensor: Tensor) -> None:
    """Have the pages of a mapped tensor read from the disk now."""
    if tensor.is_cpu and tensor.numel():
        tensor.flatten().view(torch.uint8)[::_PAGE].sum()
