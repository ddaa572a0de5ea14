"""``openltx eval specs``: Table 1 of the paper, computed."""

from pathlib import Path
from typing import Annotated

import torch
from cyclopts import Parameter

from openltx.cli.eval.output import progress, publish
from openltx.errors import RequestError
from openltx.eval.specs import measure as measuring
from openltx.eval.specs import table
from openltx.eval.specs.architectures import ARCHITECTURES, Architecture
from openltx.geometry import VideoShape
from openltx.pipelines.request import parse_size


def specs_command(
    *,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    size: str = "768x512",
    frames: int = 121,
    fps: float = 24.0,
    measure: Annotated[bool, Parameter(negative="")] = False,
    precision: str = "bfloat16",
    repeats: int = 1,
    out: Path = Path("outputs/eval-specs"),
) -> None:
    """Compute the paper's Table 1 from the networks themselves, with tokens and operations beside it.

    Nothing is downloaded and no weights are made. Models other than LTX-Video and Movie Gen come from diffusers
    (pip install 'openltx[bench]').

    Parameters
    ----------
    models
        Only these columns: LTX-Video, "Movie Gen", HunyuanVideo, "Pyramid Flow", CogVideoX-2B, CogVideoX-5B.
    size
        WIDTHxHEIGHT for which tokens and operations are counted.
    frames
        Frames of the video.
    fps
        Frames a second.
    measure
        Also run one block of each on this CPU, with random weights, and say how long it takes.
    precision
        Number format of these: bfloat16 or float32.
    repeats
        How often; the best time counts.
    out
        Folder for report.md and report.json.
    """
    chosen = _chosen(models)
    width, height = parse_size(size)
    shape = VideoShape(frames=frames, height=height, width=width, fps=fps)
    if width % 32 or height % 32 or frames % 8 != 1 or repeats < 1:
        raise RequestError(
            f"size={size}, frames={frames}, repeats={repeats} is not possible: sides must be multiples of 32, frames "
            "8k+1, repeats at least 1."
        )
    if precision not in ("bfloat16", "float32"):
        raise RequestError(f"precision={precision!r} is not possible: choose bfloat16 or float32.")
    dtype = getattr(torch, precision)
    found = []
    with progress("Counting") as tick:
        for done, architecture in enumerate(chosen, start=1):
            found.append(table.specs_of(architecture, shape))
            tick(done, len(chosen))
    report, text = table.to_json(found, chosen, shape), table.to_markdown(found, chosen, shape)
    if measure:
        times = []
        with progress("Measuring") as tick:
            total = sum(len(architecture.blocks) for architecture in chosen)
            for done, each in enumerate(measuring.measure(chosen, shape, dtype, repeats), start=1):
                times.append(each)
                tick(done, total)
        report["measured"] = measuring.to_json(times, dtype)
        text = f"{text}\n{measuring.to_markdown(times, shape, dtype)}"
    publish(report, text, {}, out)


def _chosen(names: tuple[str, ...]) -> list[Architecture]:
    known = {architecture.name: architecture for architecture in ARCHITECTURES}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RequestError(f"There is no model {unknown[0]!r} in the table. Possible: {', '.join(known)}.")
    return [known[name] for name in names] or list(ARCHITECTURES)
