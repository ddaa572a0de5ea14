"""``openltx eval playroom``: whether generated videos show what their prompts say."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter

from openltx.cli.eval.output import Tick, progress, publish
from openltx.cli.output import open_generator
from openltx.errors import RequestError
from openltx.eval import playroom
from openltx.eval.clips import clips_to_measure
from openltx.eval.probe import load_probe
from openltx.pipelines.residency import Device

DEFAULTS = playroom.Settings()
T = TypeVar("T")


def playroom_command(
    *,
    prompts: int = 200,
    model: str = "playroom",
    data: Path | None = None,
    image_to_video: int = 0,
    settings: Annotated[playroom.Settings, Parameter(name="*")] = DEFAULTS,
    json: Path | None = None,
    out: Path = Path("outputs/eval-playroom"),
    device: Device = "auto",
) -> None:
    """Generate from held-out captions and judge colour, motion and shape, beside the real clips of the same scenes.

    Without --data the clips are rendered once, into the cache.

    Parameters
    ----------
    prompts
        How many captions; 0 for none.
    model
        "playroom" (bundled), or the path of a weight file.
    data
        A rendered Playroom folder to take the scenes from.
    image_to_video
        Also generate from so many held-out first frames.
    json
        Where to write the report (default: report.json in the folder).
    out
        Folder for the report, the contact sheets and the videos.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    if max(prompts, image_to_video) < 1:
        raise RequestError("Nothing to measure: ask for --prompts or --image-to-video of at least 1.")
    probe, generator = load_probe(), open_generator(model, device)
    make = playroom.maker(generator, settings, out / "videos")
    with progress("Rendering") as tick:
        folder, chosen = clips_to_measure(max(prompts, image_to_video), data=data, seed=settings.seed, progress=tick)
    with progress("From text") as tick:
        trials = counted(playroom.text_trials(make, probe, folder, chosen[:prompts]), prompts, tick)
    with progress("From an image") as tick, tempfile.TemporaryDirectory() as pictures:
        found = playroom.image_trials(make, probe, folder, chosen[:image_to_video], Path(pictures))
        images = counted(found, image_to_video, tick)
    report: dict[str, Any] = {"model": model, "fingerprint": generator.model.fingerprint, **asdict(settings)}
    report |= playroom.summarise(trials, images)
    sheets = {"contact_sheet.png": playroom.text_sheet(trials)} if trials else {}
    if images:
        sheets["contact_sheet_images.png"] = playroom.image_sheet(images)
    publish(report, playroom.to_markdown(report), sheets, out, json)


def counted(items: Iterator[T], total: int, tick: Tick) -> list[T]:
    """All items, with a tick for each."""
    found = []
    for item in items:
        found.append(item)
        tick(len(found), total)
    return found
