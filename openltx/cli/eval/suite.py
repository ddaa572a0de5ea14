"""``openltx eval suite`` and ``openltx eval compare``: all measures of generated videos, of one model or of two."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from openltx.checkpoints.assets import load_lpips, load_mobilenet
from openltx.cli.eval.networks import if_present
from openltx.cli.eval.output import progress, publish
from openltx.cli.output import open_generator, say
from openltx.errors import RequestError
from openltx.eval import paired, suite
from openltx.eval.clips import clips_to_measure
from openltx.eval.image_text import AlexNetFeatures, MobileNetFeatures, TransformersImageText, TransformersVision
from openltx.eval.intervals import Estimate
from openltx.eval.page import report_page
from openltx.eval.probe import load_probe
from openltx.eval.report import write_text
from openltx.eval.suite import Lookers, Score
from openltx.eval.videos import (
    Entry,
    Making,
    Prompt,
    in_common,
    make_videos,
    peak_memory,
    prompt_of,
    read_prompts,
    read_videos,
    short_names,
)
from openltx.media.contact_sheet import contact_sheet
from openltx.media.io import read_video
from openltx.pipelines.residency import Device

SHEET_ROWS = 16
PLAYROOM_PROMPTS = 32
DEFAULT_MAKING = Making()
Count = Annotated[int | None, Parameter(name=["--count", "-n"], validator=Number(gte=1))]


@dataclass(frozen=True, kw_only=True)
class LookerFlags:
    """Which networks look at the videos."""

    image_text_model: str | None = None
    """Such as CLIP, for prompt adherence and the background: a folder in transformers' layout, or a hub name."""
    subject_model: str | None = None
    """A vision model such as DINO, for the subject; MobileNetV2 if left out."""

    def open(self, prompts: Sequence[Prompt] | None) -> Lookers:
        """Load what is here; a line for each network that is missing says what is left out."""
        image_text = None if self.image_text_model is None else TransformersImageText(self.image_text_model)
        subject = None if self.subject_model is None else TransformersVision(self.subject_model)
        mobilenet = if_present("MobileNetV2", lambda: MobileNetFeatures(load_mobilenet()))
        return Lookers(
            subject=subject or mobilenet,
            background=image_text or if_present("AlexNet", lambda: AlexNetFeatures(load_lpips("alex"))),
            image_text=image_text,
            frechet=mobilenet,
            probe=load_probe() if prompts and any(prompt.clip is not None for prompt in prompts) else None,
        )


DEFAULT_LOOKERS = LookerFlags()


def suite_command(
    *,
    model: str = "playroom",
    videos: Path | None = None,
    prompts: Path | None = None,
    count: Count = None,
    reference: Path | None = None,
    making: Annotated[Making, Parameter(name="*")] = DEFAULT_MAKING,
    using: Annotated[LookerFlags, Parameter(name="*")] = DEFAULT_LOOKERS,
    players: int = 24,
    out: Path = Path("outputs/eval-suite"),
    device: Device = "auto",
) -> None:
    """Measure videos: prompt adherence, flicker, consistency, smoothness, dynamics, Frechet distance, speed, memory.

    Videos are made with a model, or taken from a folder. Without --prompts, held-out Playroom captions are used, and
    their real clips are the reference. Made videos are kept: an interrupted run goes on where it was.

    Parameters
    ----------
    model
        "playroom" (bundled), a released model that was pulled, or the path of a weight file.
    videos
        Take the videos of this folder instead of making some.
    prompts
        A text file with a prompt a line, a .jsonl with "prompt" and perhaps "image", or a data set's folder.
    count
        Only so many of the prompts, or of the videos (Playroom captions: 32).
    reference
        A folder of videos that these should resemble, for the Frechet distance.
    players
        How many videos to put into report.html.
    out
        Folder for report.json, report.md, report.html, contact_sheet.png and the videos.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    wanted = None if prompts is None else read_prompts(prompts)
    memory = None
    if videos is not None:
        name, entries = videos.resolve().name, read_videos(videos, wanted)[:count]
    else:
        if wanted is None:
            wanted, clips = _playroom(count)
            reference = reference or clips
        name = Path(model).stem
        entries, memory = _make(model, wanted[:count], out / "videos", making, device)
    lookers = using.open(wanted)
    scores = _score(name, entries, lookers, _features(lookers, reference, len(entries)), making.seed)
    scores += [] if memory is None else [memory]
    report = {
        "model": name,
        "videos": [_described(entry) for entry in entries],
        **asdict(making),
        "reference": None if reference is None else str(reference),
        "scores": suite.to_json(scores),
        "per_video": _per_video(entries, scores),
    }
    text = suite.to_markdown(f"{name}: {len(entries)} videos, seed {making.seed}", scores)
    names = [entry.name for entry in entries[:players]]
    _publish(report, text, {name: (entries, scores)}, names, out)


def compare_command(
    a: str,
    b: str,
    /,
    *,
    prompts: Path | None = None,
    count: Count = None,
    reference: Path | None = None,
    making: Annotated[Making, Parameter(name="*")] = DEFAULT_MAKING,
    using: Annotated[LookerFlags, Parameter(name="*")] = DEFAULT_LOOKERS,
    players: int = 12,
    out: Path = Path("outputs/eval-compare"),
    device: Device = "auto",
) -> None:
    """Measure two models on the same prompts and seeds: every difference with its interval, videos side by side.

    Parameters
    ----------
    a
        A model, or a folder with its videos.
    b
        Another. Videos of one prompt have the same file name in both folders.
    prompts
        A text file with a prompt a line, a .jsonl with "prompt" and perhaps "image", or a data set's folder.
    count
        Only so many of the prompts, or of the videos (Playroom captions: 32).
    reference
        A folder of videos that these should resemble, for the Frechet distance.
    players
        How many pairs to put into report.html.
    out
        Folder for report.json, report.md, report.html, contact_sheet.png and the videos.
    device
        Where to compute; auto takes CUDA, else MPS, else the CPU.
    """
    sources = [Path(each) for each in (a, b)]
    given = [source.is_dir() and _has_videos(source) for source in sources]
    wanted = None if prompts is None else read_prompts(prompts)
    if wanted is None and not all(given):
        if any(given):
            raise RequestError(f"What do the videos in {sources[given.index(True)]} show? Say it with --prompts.")
        wanted, clips = _playroom(count)
        reference = reference or clips
    names = short_names(sources)
    sets: dict[str, list[Entry]] = {}
    for name, source, is_given in zip(names, sources, given, strict=True):
        if is_given:
            sets[name] = read_videos(source, wanted)[:count]
        else:
            sets[name], _ = _make(str(source), (wanted or [])[:count], out / "videos" / name, making, device)
    common = in_common(sets)
    sets = {name: [entry for entry in entries if entry.name in common] for name, entries in sets.items()}
    lookers = using.open(wanted)
    features = _features(lookers, reference, len(common))
    scores = {name: _score(name, entries, lookers, features, making.seed) for name, entries in sets.items()}
    found = paired.differences(scores[names[0]], scores[names[1]], making.seed)
    report = {
        "a": a,
        "b": b,
        "prompts": {entry.name: entry.prompt for entry in sets[names[0]]},
        **asdict(making),
        "reference": None if reference is None else str(reference),
        "differences": paired.to_json(found),
        "per_video": {name: _per_video(sets[name], scores[name]) for name in names},
    }
    models = {name: (sets[name], scores[name]) for name in names}
    _publish(report, paired.to_markdown((a, b), found), models, common[:players], out)


def _playroom(count: int | None) -> tuple[list[Prompt], Path]:
    """Held-out Playroom captions, and the folder of their clips, which are rendered once."""
    with progress("Rendering") as tick:
        folder, clips = clips_to_measure(PLAYROOM_PROMPTS if count is None else count, progress=tick)
    return [prompt_of(clip) for clip in clips], folder


def _make(
    model: str, prompts: Sequence[Prompt], folder: Path, making: Making, device: Device
) -> tuple[list[Entry], Score | None]:
    """The videos of a model; and the most memory that the process had, if it made some."""
    generator = open_generator(model, device)
    with progress(f"Making, {Path(model).stem}") as tick:
        entries, made = make_videos(generator, prompts, folder, making, tick)
    most = peak_memory() if made else None
    if most is None:
        return entries, None
    estimate = Estimate(value=most / 2**30, low=None, high=None, n=made)
    return entries, Score(name="peak_memory_gib", better="lower", estimate=estimate)


def _features(lookers: Lookers, reference: Path | None, count: int) -> list[Any] | None:
    """The features of as many reference videos as there are to measure."""
    if reference is None or lookers.frechet is None:
        return None
    with progress("Reading the reference") as tick:
        return suite.set_features(lookers.frechet, read_videos(reference)[:count], tick)


def _score(name: str, entries: Sequence[Entry], lookers: Lookers, features: list[Any] | None, seed: int) -> list[Score]:
    with progress(f"Measuring {name}") as tick:
        return suite.score(entries, lookers, features, tick, seed)


def _publish(
    report: dict[str, Any],
    text: str,
    models: Mapping[str, tuple[Sequence[Entry], Sequence[Score]]],
    names: Sequence[str],
    out: Path,
) -> None:
    title = " and ".join(models)
    write_text(out / "report.html", report_page(f"openltx eval: {title}", text, models, names))
    rows = [
        (f"{model}: {entry.prompt or entry.name}", read_video(entry.path)[0])
        for name in names[: SHEET_ROWS // len(models)]
        for model, (entries, _) in models.items()
        for entry in entries
        if entry.name == name
    ]
    publish(report, text, {"contact_sheet.png": contact_sheet(rows)} if rows else {}, out)
    say(f"{out / 'report.html'}  {len(names)} of the videos to play")


def _described(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "prompt": entry.prompt, "path": str(entry.path)}


def _per_video(entries: Sequence[Entry], scores: Sequence[Score]) -> dict[str, dict[str, float | None]]:
    return {
        entry.name: {score.name: score.values[i] for score in scores if score.values} for i, entry in enumerate(entries)
    }


def _has_videos(folder: Path) -> bool:
    """Whether this is a folder of videos rather than of weights."""
    return not (folder / "model_index.json").is_file() and not any(folder.glob("*.safetensors"))
