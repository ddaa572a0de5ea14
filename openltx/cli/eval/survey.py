"""``openltx eval survey``: people compare models' videos, blind, on a page that this machine serves."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from openltx.cli.eval.output import progress, publish
from openltx.cli.eval.suite import Count
from openltx.cli.output import open_generator, say
from openltx.errors import RequestError
from openltx.eval.survey import analysis
from openltx.eval.survey.answers import CRITERIA, Answers
from openltx.eval.survey.picture import matrix_picture
from openltx.eval.survey.study import ANSWERS, STUDY, Study, create_study, open_study
from openltx.eval.videos import Entry, Making, make_videos, read_prompts, read_videos, short_names
from openltx.pipelines.residency import Device

survey_app = App(name="survey", help="Let people compare models' videos, blind.")
DEFAULT_MAKING = Making()
DEFAULT_FOLDER = Path("outputs/survey")


@survey_app.default
def survey_command(  # noqa: PLR0913 (each is a flag)
    *,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative="")] = (),
    videos: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative="")] = (),
    prompts: Path | None = None,
    count: Count = None,
    making: Annotated[Making, Parameter(name="*")] = DEFAULT_MAKING,
    raters: int = 20,
    comparisons: int = 50,
    host: str = "127.0.0.1",
    port: int = 8010,
    serve: Annotated[bool, Parameter(negative="--no-serve")] = True,
    out: Path = DEFAULT_FOLDER,
    device: Device = "auto",
) -> None:
    """Make a study of two models or more, and serve the page on which raters answer; Ctrl-C ends it.

    Without --models and --videos the study in --out is served again: answers are kept and raters go on where they were.

    Parameters
    ----------
    models
        Models to make videos with: "playroom", released models that were pulled, paths of weight files.
    videos
        Folders of videos that are there already, named after their models. A prompt's video is called the same in each.
    prompts
        A text file with a prompt a line, a .jsonl with "prompt" and perhaps "image", or a data set's folder.
    count
        Only so many of the prompts.
    raters
        How many raters may answer; each gets a code.
    comparisons
        How many pairs each rater is shown, attention checks apart.
    host
        The address to listen on. The code is all that protects the page.
    port
        The port to listen on; 0 takes a free one.
    serve
        Whether to serve the page, or only make the study.
    out
        The study's folder.
    device
        Where to make videos; auto takes CUDA, else MPS, else the CPU.
    """
    if models or videos:
        if (out / STUDY).exists():
            raise RequestError(
                f"{out} holds a study already. Leave --models and --videos out to go on, or choose another --out."
            )
        sets = _sets(models, videos, prompts, count, making, out, device)
        with progress("Blinding") as tick:
            study = create_study(out, sets, raters=raters, comparisons=comparisons, seed=making.seed, progress=tick)
        _say_codes(study)
    else:
        study = open_study(out)
    if serve:
        from openltx.eval.survey.app import serve as run

        say(f"Serving {out} on http://{host}:{port}/ . Ctrl-C ends it; then: openltx eval survey report --study {out}")
        run(study, out, host, port)


@survey_app.command(name="report")
def report_command(*, study: Path = DEFAULT_FOLDER, out: Path | None = None, seed: int = 0) -> None:
    """Evaluate a study: win rates, ties, the pairwise matrix, Bradley-Terry scores, two groups of raters.

    Parameters
    ----------
    study
        The study's folder.
    out
        Folder for report.md, report.json and the matrices; the study's own if left out.
    seed
        Of the intervals.
    """
    found = open_study(study)
    result = analysis.analyse(found, Answers(study / ANSWERS).all(), seed)
    pictures = {
        f"matrix_{name}.png": matrix_picture(f"{name}: how often the row beats the column", result.verdicts[name])
        for name in CRITERIA
    }
    publish(analysis.to_json(result), analysis.to_markdown(result), pictures, out or study)


def _sets(
    models: tuple[str, ...],
    videos: tuple[Path, ...],
    prompts: Path | None,
    count: int | None,
    making: Making,
    out: Path,
    device: Device,
) -> dict[str, list[Entry]]:
    """Each model's videos by its name."""
    if models and videos:
        raise RequestError("Give --models to make videos, or --videos with folders of them, but not both.")
    if models and prompts is None:
        raise RequestError("Which videos are to be made? Say it with --prompts FILE.")
    names = short_names([Path(each) for each in models] or videos)
    if len(names) < 2:
        raise RequestError("A survey compares models: name two of them at least.")
    wanted = None if prompts is None else read_prompts(prompts)
    if not models:
        return {name: read_videos(folder, wanted)[:count] for name, folder in zip(names, videos, strict=True)}
    sets = {}
    for name, model in zip(names, models, strict=True):
        generator = open_generator(model, device)
        with progress(f"Making, {name}") as tick:
            sets[name], _ = make_videos(generator, (wanted or [])[:count], out / "videos" / name, making, tick)
    return sets


def _say_codes(study: Study) -> None:
    say(f"{len(study.prompts)} prompts, {len(study.models)} models; {study.total} questions for each of these raters:")
    say("  ".join(study.raters))
