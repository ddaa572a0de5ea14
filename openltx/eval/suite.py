"""Every measure of a generated video behind one interface, and sets of videos measured with it.

A ``Measure`` gives one number for one video; a ``Score`` is its mean over a set with an interval and the number of
videos. A Frechet distance is a number of a whole set, and becomes a ``Score`` too. A measure's name says which network
looked: with another it would be another number.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from openltx.eval import temporal
from openltx.eval.frechet import frechet_distance, num_components, principal_axes
from openltx.eval.image_text import FRAMES, ImageEncoder, ImageText, adherence
from openltx.eval.intervals import Estimate, jackknife, mean_of
from openltx.eval.judge import Verdict
from openltx.eval.playroom import verdict_of
from openltx.eval.probe import Probe
from openltx.eval.report import Cell, markdown_table
from openltx.eval.videos import Entry, Progress
from openltx.media.contact_sheet import evenly_spaced
from openltx.media.io import read_video
from openltx.media.transforms import to_tensor

Better = Literal["higher", "lower", "either"]
FRECHET_EVERY = 4  # frames, which are nearly alike
_BATCH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One video in memory; equal to itself alone."""

    entry: Entry
    frames: UInt8[np.ndarray, "F H W 3"] = field(repr=False)
    fps: float

    def pixels(self, indices: Sequence[int]) -> Float[Tensor, "n 3 H W"]:
        """Some of the frames in [-1, 1]."""
        return to_tensor(self.frames[list(indices)]).transpose(0, 1)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number of one video; None where it cannot have one. ``is_share``: it is 0 or 1, and the mean a share."""

    name: str
    better: Better
    of: Callable[[Sample], float | None]
    is_share: bool = False


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measure of a set of videos; ``values`` has one number a video, in order, or none if it is of the whole set."""

    name: str
    better: Better
    estimate: Estimate
    values: tuple[float | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Lookers:
    """The networks that look at videos; None leaves their measures out.

    subject, background   for consistency (VBench takes DINO and CLIP)
    image_text            for prompt adherence
    frechet               for the distance to reference videos
    probe                 for Playroom's solids, where the scene behind a prompt is known
    """

    subject: ImageEncoder | None = None
    background: ImageEncoder | None = None
    image_text: ImageText | None = None
    frechet: ImageEncoder | None = None
    probe: Probe | None = None


def measures(lookers: Lookers) -> list[Measure]:
    """All that can be measured with these networks."""
    found = [
        Measure(name="temporal_flickering", better="higher", of=lambda s: temporal.temporal_flickering(s.frames)),
        Measure(name="motion_smoothness_dis", better="higher", of=lambda s: temporal.motion_smoothness(s.frames)),
        Measure(
            name="dynamic_degree_dis",
            better="either",
            of=lambda s: temporal.dynamic_degree(s.frames, s.fps),
            is_share=True,
        ),
    ]
    found += [
        Measure(name=f"{what}_consistency_{encoder.name}", better="higher", of=_consistency(encoder))
        for what, encoder in (("subject", lookers.subject), ("background", lookers.background))
        if encoder is not None
    ]
    if (model := lookers.image_text) is not None:
        found.append(Measure(name=f"prompt_adherence_{model.name}", better="higher", of=_adherence(model)))
    if lookers.probe is not None:
        found += _playroom(lookers.probe)
    return [*found, Measure(name="seconds", better="lower", of=lambda s: s.entry.seconds)]


def read_samples(entries: Sequence[Entry]) -> Iterator[Sample]:
    """The videos one after the other."""
    for entry in entries:
        frames, fps = read_video(entry.path)
        yield Sample(entry=entry, frames=frames, fps=fps)


def score(
    entries: Sequence[Entry],
    lookers: Lookers,
    reference: Sequence[Float[np.ndarray, "_ d"]] | None,
    progress: Progress,
    seed: int = 0,
) -> list[Score]:
    """All scores of a set of videos. ``reference`` is ``set_features`` of the videos that it should resemble."""
    wanted = measures(lookers)
    values: list[list[float | None]] = [[] for _ in wanted]
    features = []
    for done, sample in enumerate(read_samples(entries), start=1):
        for measure, row in zip(wanted, values, strict=True):
            row.append(measure.of(sample))
        if reference is not None and lookers.frechet is not None:
            features.append(sample_features(lookers.frechet, sample))
        progress(done, len(entries))
    scores = [
        Score(name=measure.name, better=measure.better, estimate=estimate, values=tuple(row))
        for measure, row in zip(wanted, values, strict=True)
        if (estimate := mean_of(row, seed, is_share=measure.is_share)) is not None
    ]
    if reference is not None and lookers.frechet is not None:
        scores += frechet_scores(lookers.frechet.name, reference, features)
    return scores


def set_features(encoder: ImageEncoder, entries: Sequence[Entry], progress: Progress) -> list[np.ndarray]:
    """What a Frechet distance compares: for each video the features of every fourth frame."""
    found = []
    for done, sample in enumerate(read_samples(entries), start=1):
        found.append(sample_features(encoder, sample))
        progress(done, len(entries))
    return found


def sample_features(encoder: ImageEncoder, sample: Sample) -> Float[np.ndarray, "_ d"]:
    """The features of every fourth frame of a video."""
    return features_of(encoder, sample, range(0, len(sample.frames), FRECHET_EVERY))


def frechet_scores(
    name: str, reference: Sequence[Float[np.ndarray, "_ d"]], features: Sequence[Float[np.ndarray, "_ d"]]
) -> list[Score]:
    """The distance in all dimensions, and in the reference's leading components if there are enough frames for any."""
    real = np.concatenate(list(reference))

    def distance(of: Sequence[np.ndarray]) -> float:
        return frechet_distance(real, np.concatenate(list(of)))

    found = [Score(name=f"frechet_{name}", better="lower", estimate=jackknife(features, distance))]
    components = num_components(min(len(real), sum(map(len, features))), real.shape[1])
    if components:
        axes = principal_axes(real, components)
        leading = real @ axes

        def reduced(of: Sequence[np.ndarray]) -> float:
            return frechet_distance(leading, np.concatenate(list(of)) @ axes)

        found.append(Score(name=f"frechet_{name}_reduced", better="lower", estimate=jackknife(features, reduced)))
    return found


def features_of(encoder: ImageEncoder, sample: Sample, indices: Sequence[int]) -> Float[np.ndarray, "n d"]:
    """The features of some frames, in float64."""
    batches = [indices[i : i + _BATCH] for i in range(0, len(indices), _BATCH)]
    return torch.cat([encoder.images(sample.pixels(batch)) for batch in batches]).double().numpy()


def _consistency(encoder: ImageEncoder) -> Callable[[Sample], float | None]:
    return lambda sample: temporal.consistency(features_of(encoder, sample, range(len(sample.frames))))


def _adherence(model: ImageText) -> Callable[[Sample], float | None]:
    def of(sample: Sample) -> float | None:
        if sample.entry.prompt is None:
            return None
        return adherence(model, sample.pixels(evenly_spaced(len(sample.frames), FRAMES)), sample.entry.prompt)

    return of


def _playroom(probe: Probe) -> list[Measure]:
    """Whether colour, motion and shape are as the prompt says, for prompts whose scene is known."""

    @lru_cache(maxsize=1)  # the measures ask for the same video one after the other
    def verdict(sample: Sample) -> Verdict | None:
        clip = sample.entry.clip
        return None if clip is None else verdict_of(probe, sample.frames, clip)

    def measure(attribute: str) -> Measure:
        def of(sample: Sample) -> float | None:
            found = verdict(sample)
            return None if found is None else float(getattr(found, attribute))

        return Measure(name=f"playroom_{attribute}", better="higher", of=of, is_share=True)

    return [measure(attribute) for attribute in ("colour", "motion", "shape", "all_correct")]


def to_json(scores: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Name -> value, interval, n, and which way is better."""
    return {score.name: {**asdict(score.estimate), "better": score.better} for score in scores}


def to_markdown(title: str, scores: Sequence[Score]) -> str:
    """A row for each score."""
    rows: list[list[Cell]] = [[*cells(score.name, score.estimate), score.better] for score in scores]
    return f"{title}\n\n{markdown_table(['measure', 'value', '95% interval', 'n', 'better'], rows)}\n"


def cells(name: str, estimate: Estimate) -> list[Cell]:
    """Name, value, interval and n as a table's cells."""
    return [name, estimate.value, interval_text(estimate), estimate.n]


def interval_text(estimate: Estimate) -> str | None:
    """ "0.1 to 0.3"; None if it is not known."""
    return None if estimate.low is None or estimate.high is None else f"{estimate.low:.4g} to {estimate.high:.4g}"
