"""Will it fit? Before a model is loaded, and before a request is begun; and if not, what would."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from openltx.checkpoints.load import Description
from openltx.errors import RequestError
from openltx.models import cost
from openltx.models.bundle import LTXModel
from openltx.pipelines.machines import available_memory
from openltx.pipelines.plan import RESIDENCIES, Placement, Residency, decode_bytes, plan
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples

TILES = (1024, 768, 512, 384, 256)
"""The tiles that are tried, in pixels, if the whole picture cannot be decoded."""


def require_room(
    model: Description, request: GenerationRequest, place: Placement, residency: Residency, room: int
) -> None:
    """Raise ``RequestError`` if a request does not fit into ``room`` bytes, tiles allowed; says what would."""
    wanted = plan(model, request, place, residency)
    if wanted.peak <= room or _fits(model, request, place, residency, room):
        return
    worst = max(wanted.stages, key=lambda stage: stage.memory)
    possible = "; ".join(_possible(model, request, place, residency, room)) or "nothing smaller that is worth making"
    raise RequestError(
        f'This takes {_gib(wanted.peak)} (in "{worst.name}", residency {residency}), and {_gib(room)} are free. What '
        f"would fit: {possible}."
    )


def fitted(
    model: LTXModel, request: GenerationRequest, device: torch.device, has_latents: bool = False
) -> GenerationRequest:
    """A resolved request for a loaded model, with tiles for the decoder if memory needs them and none are chosen.

    ``has_latents``: there are latents to start from. Raises ``RequestError`` if it does not fit even so.
    """
    weight = next(model.vae.decoder.parameters())
    place = Placement(dtype=weight.dtype, is_cpu=device.type == "cpu")
    room, known = available_memory(device), description_of(model)
    if weight.is_meta:
        room -= cost.decoder_parameters(model.vae.config) * weight.dtype.itemsize
    stages = plan(known, request, place, "resident", has_latents=has_latents).stages
    worst = max(stages[:-1], key=lambda stage: stage.working)
    if worst.working > room:
        raise RequestError(
            f'This takes {_gib(worst.working)} beside the weights (in "{worst.name}"), and {_gib(room)} are free. '
            "Ask for fewer frames or a smaller size; `openltx plan` shows what they take."
        )
    if request.tile is not None:
        return request
    return replace(request, tile=_tile(known, request, place, room))


def description_of(model: LTXModel) -> Description:
    """What ``checkpoints.load.describe`` says of a file, of a model that is loaded."""
    return Description(
        name=model.name,
        transformer=model.transformer.config,
        vae=model.vae.config,
        schedule=model.schedule,
        sampling=model.sampling,
        stored=None,
    )


def _tile(model: Description, request: GenerationRequest, place: Placement, room: int) -> int:
    """0 if the whole picture can be decoded in ``room``, else the largest tile that can; ``RequestError`` if none."""
    grid = request.settings(Sampling(**as_tuples(model.sampling))).shape.padded().latent()
    for tile in (0, *TILES):
        if decode_bytes(model, grid, place.dtype.itemsize, tile) <= room:
            return tile
    raise RequestError(
        f"Decoding takes {_gib(decode_bytes(model, grid, place.dtype.itemsize, TILES[-1]))} even in tiles of "
        f"{TILES[-1]} pixels, and {_gib(room)} are free."
    )


def _fits(model: Description, request: GenerationRequest, place: Placement, residency: Residency, room: int) -> bool:
    if request.tile is None:
        smallest = replace(request, tile=TILES[-1])
        return plan(model, smallest, place, residency).peak <= room
    return plan(model, request, place, residency).peak <= room


def _possible(
    model: Description, request: GenerationRequest, place: Placement, residency: Residency, room: int
) -> Iterator[str]:
    """Changes of one kind each that would make a request fit, in the words of the command line."""
    for other in RESIDENCIES[RESIDENCIES.index(residency) + 1 :]:
        if not place.int8 and _fits(model, request, place, other, room):
            yield f"--residency {other}"
    if place.dtype == torch.float32 and _fits(model, request, replace(place, dtype=torch.bfloat16), residency, room):
        yield "--precision bfloat16"
    for name, smaller in (("--size", _smaller(model, request)), ("--frames", _shorter(model, request))):
        for least in (residency, "streamed"):
            found = next((one for one in smaller if _fits(model, one, place, least, room)), None)
            if found is not None:
                value = found.size if name == "--size" else found.frames
                yield f"{name} {value}" + (f" --residency {least}" if least != residency else "")
                break


def _smaller(model: Description, request: GenerationRequest) -> list[GenerationRequest]:
    """The same video at three quarters, two quarters and one quarter of its sides."""
    shape = request.settings(Sampling(**as_tuples(model.sampling))).shape
    sizes = [[max(round(side * scale / 128) * 32, 32) for side in (shape.width, shape.height)] for scale in (3, 2, 1)]
    return [replace(request, size=f"{width}x{height}") for width, height in sizes]


def _shorter(model: Description, request: GenerationRequest) -> list[GenerationRequest]:
    """The same video with half, a quarter, ... of its frames."""
    frames = request.settings(Sampling(**as_tuples(model.sampling))).shape.padded().frames
    return [replace(request, frames=(frames - 1) // 2**halvings // 8 * 8 + 1) for halvings in (1, 2, 3, 4)]


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
