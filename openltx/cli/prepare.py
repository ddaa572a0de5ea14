"""``openltx data probe``, ``scenes``, ``prepare``, ``rate`` and ``rank``: from videos to a training set."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console

from openltx.data.manifest import read_manifest
from openltx.errors import DataError, MediaError


def prepare(  # noqa: PLR0913 (each is a flag)
    *sources: str,
    out: Annotated[Path, Parameter(name=["--out", "-o"])],
    config: Path | None = None,
    bucket: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    fps: float | None = None,
    detector: Literal["adaptive", "transnet"] | None = None,
    captions: Literal["files", "model", "endpoint"] | None = None,
    caption_model: str | None = None,
    caption_url: str | None = None,
    ranker: Path | None = None,
    min_score: float | None = None,
    shards: Literal["none", "webdataset", "parquet"] | None = None,
    credit: str | None = None,
    until: Literal["ingest", "look", "caption", "write"] = "write",
    workers: Annotated[int, Parameter(name=["--workers", "-w"])] = 2,
    ray: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make a training set of videos: find shots, measure, drop what is bad or there twice, crop, caption, write.

    Run it again to go on after an interruption, with more videos, or with other thresholds: nothing is decoded twice.
    The videos themselves are only read; one that cannot be used is listed with its reason. See docs/data.md.

    Parameters
    ----------
    sources
        Videos, folders of videos, or assets ("big-buck-bunny", see openltx assets list).
    out
        The folder: clips, manifest.jsonl (for training), records.jsonl (all that is known), contact sheets.
    config
        A JSON file with settings that differ from the defaults; world.json in a made set holds all of them. The flags
        below go before it.
    bucket
        Sizes that clips may have, WIDTHxHEIGHTxFRAMES.
    fps
        Leave frames out to come down to this rate.
    detector
        What finds cuts: PySceneDetect, or the network TransNetV2 (openltx assets pull transnet-v2).
    captions
        Who captions: text files beside the videos, a vision-language model, or an OpenAI-compatible endpoint.
    caption_model
        A folder or a hub name of a model; or the name by which the endpoint knows it.
    caption_url
        The endpoint, for example http://localhost:8000/v1. A key is taken from OPENAI_API_KEY.
    ranker
        A file of `openltx data rank`: clips are scored.
    min_score
        Clips that score less are dropped.
    shards
        What to write beside the folder.
    credit
        Whom to name as the videos' author, in world.json (of assets it is known).
    until
        End after this pass, with records.jsonl and the contact sheets: "look" for what would be kept, for example.
    workers
        Processes, or Ray's decoding actors.
    ray
        Work on Ray Data, on this machine or the cluster of RAY_ADDRESS (its machines must see the same files).
    """
    from openltx.cli.data import bars, places_of
    from openltx.data.prepare import run
    from openltx.data.prepare.report import contact_sheets, summary
    from openltx.data.prepare.settings import PrepareSettings
    from openltx.data.prepare.workers import Processes

    if workers < 1:
        raise DataError(f"At least one worker is needed; asked for {workers}.")
    settings = _with_flags(
        PrepareSettings() if config is None else PrepareSettings.read(config),
        {
            ("bucket", "sizes"): bucket or None,
            ("cut", "fps"): fps,
            ("cut", "detector"): detector,
            ("caption", "backend"): captions,
            ("caption", "model"): caption_model,
            ("caption", "url"): caption_url,
            ("aesthetic", "ranker"): None if ranker is None else str(ranker),
            ("aesthetic", "min_score"): min_score,
            ("export", "shards"): shards,
        },
    )
    if ray:
        from openltx.data.prepare.ray_workers import RayWorkers
    places = [place for source in sources for place in places_of(source)]
    with bars() as progress:
        made = run.prepare(
            places,
            out,
            settings,
            runner=RayWorkers(workers) if ray else Processes(workers),
            credit=credit,
            until=until,
            progress=progress,
        )
    _table(summary(made.records))
    for rejection in made.rejected:
        _say(f"not used: {rejection.source}: {rejection.reason}")
    for path in [*contact_sheets(made), *made.shards]:
        _say(str(path))


def probe(*sources: str) -> None:
    """Say of each video what it is, from its header: size, rate, frames, length, coding; or why it cannot be used.

    Parameters
    ----------
    sources
        Videos, folders of videos, or assets.
    """
    from rich.table import Table

    from openltx.cli.data import places_of
    from openltx.data.sources import find_files
    from openltx.media.io import described

    places = [place for source in sources for place in places_of(source)]
    table = Table("video", "size", "frames/s", "frames", "seconds", "coding", "pixels", box=None)
    refused = []
    for path, name in find_files(places, out=None):
        try:
            found = described(path)
        except (MediaError, OSError) as error:
            refused.append(f"cannot be used: {name}: {error}")
            continue
        shape = found.shape
        size, seconds = f"{shape.width}x{shape.height}", f"{shape.frames / shape.fps:.1f}"
        table.add_row(name, size, f"{shape.fps:.4g}", str(shape.frames), seconds, found.codec, found.pixels)
    Console().print(table)
    for line in refused:
        _say(line)


def scenes(video: str, *, detector: Literal["adaptive", "transnet"] = "adaptive") -> None:
    """Find the shots of a video: the number, first frame, length in frames and time of each, separated by tabs.

    Parameters
    ----------
    video
        A video, or an asset with one.
    detector
        What finds cuts: PySceneDetect, or the network TransNetV2 (openltx assets pull transnet-v2).
    """
    from openltx.cli.data import bar, places_of
    from openltx.data.shots import find_shots
    from openltx.media.io import probe as shape_of

    for place in places_of(video):
        shape = shape_of(place)
        with bar("Looking") as tell:
            shots = find_shots(place, detector=detector, progress=partial(_of_all, tell, shape.frames))
        print("shot", "first_frame", "frames", "seconds", sep="\t")
        for number, shot in enumerate(shots):
            print(number, shot.first, shot.frames, f"{shot.first / shape.fps:.3f}", sep="\t")


def rate(
    folder: Path,
    *,
    rater: str = "me",
    goal: int = 200,
    host: str = "127.0.0.1",
    port: int = 8010,
) -> None:
    """Serve a page on which a person says which of two clips is better: arrow keys, U takes the last answer back.

    Answers are kept in ratings.sqlite in the folder, each at once. Stop it with Ctrl-C; go on whenever you like.

    Parameters
    ----------
    folder
        A folder with a manifest.
    rater
        Who answers: part of the address that is printed; several people can answer at once.
    goal
        Answers that the progress bar counts towards.
    host
        The address to listen on. There is no password: leave it at this machine's own.
    port
        The port to listen on.
    """
    import uvicorn

    from openltx.data.aesthetic.page import Session, create_app
    from openltx.data.aesthetic.ratings import RATINGS, Ratings

    described = _described(folder)
    app = create_app(Session(folder, described, Ratings(folder / RATINGS), goal))
    _say(f"http://{host}:{port}/?rater={rater}    {len(described.paths)} clips; Ctrl-C ends it")
    uvicorn.run(app, host=host, port=port, log_level="warning")


def rank(folder: Path, *, out: Annotated[Path, Parameter(name=["--out", "-o"])], seed: int = 0) -> None:
    """Train the aesthetic ranker on what people have answered, and say how well it orders pairs it has not learned.

    Parameters
    ----------
    folder
        A folder with a manifest and ratings.sqlite, from `openltx data rate`.
    out
        The ranker's file, for `openltx data prepare --ranker`.
    seed
        Of what is held out.
    """
    from openltx.data.aesthetic.ranker import accuracy, hold_out, score, train_ranker
    from openltx.data.aesthetic.ratings import RATINGS, Ratings, rated_pairs

    if not (folder / RATINGS).is_file():
        raise DataError(f"There is no {RATINGS} in {folder}. Rate some pairs first: openltx data rate {folder}")
    described = _described(folder)
    places = {path: place for place, path in enumerate(described.paths)}
    pairs = rated_pairs(Ratings(folder / RATINGS).all(), places)
    learned, measured = hold_out(pairs, range(len(places)), seed=seed)
    found = accuracy(score(train_ranker(described.features, learned), described.features), measured)
    final = train_ranker(described.features, pairs)
    final.save(out, {"pairs": len(pairs), "heldout_accuracy": found.share, "low": found.low, "high": found.high})
    _say(f"{out}  learned from {len(pairs)} pairs; trained without a fifth of the clips: right on {found}")


def _of_all(tell: Callable[[int, int], None], total: int, done: int) -> None:
    tell(done, total)


def _described(folder: Path) -> Any:
    from openltx.cli.data import bar
    from openltx.data.aesthetic.features import describe_clips
    from openltx.data.prepare.run import WORK

    clips = read_manifest(folder)
    if len(clips) < 2:
        raise DataError(f"{folder} has {len(clips)} clips; at least two are needed to compare them.")
    with bar("Describing") as progress:
        return describe_clips(folder, clips, folder / WORK / "features.safetensors", progress)


def _with_flags(settings: Any, flags: dict[tuple[str, str], Any]) -> Any:
    """The settings with every flag that was given."""
    given: dict[str, dict[str, Any]] = {}
    for (part, name), value in flags.items():
        if value is not None:
            given.setdefault(part, {})[name] = value
    return replace(settings, **{part: replace(getattr(settings, part), **values) for part, values in given.items()})


def _table(rows: list[tuple[str, int, float]]) -> None:
    from rich.table import Table

    table = Table("", "clips", "minutes", box=None)
    for name, clips, seconds in rows:
        table.add_row(name, str(clips), f"{seconds / 60:.1f}")
    Console().print(table)


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(line, markup=False)
