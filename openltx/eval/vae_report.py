"""What ``vae.evaluate`` measured, as JSON values and as a page of markdown: docs/evaluation.md defines each number."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from openltx.eval.baseline import Downsampling
from openltx.eval.comparison import Similarity
from openltx.eval.frechet import compare_features, num_components
from openltx.eval.intervals import mean_as_json
from openltx.eval.report import Cell, markdown_table
from openltx.eval.vae import Evaluation, Features, Level, Outcome, Settings

MEANS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "flicker", "motion_psnr")
FIRST_FRAME = ("psnr", "ssim", "lpips_alex", "lpips_vgg")
COLUMNS = {
    "PSNR dB": "psnr",
    "SSIM": "ssim",
    "LPIPS (alex)": "lpips_alex",
    "LPIPS (vgg)": "lpips_vgg",
    "flicker": "flicker",
    "motion PSNR dB": "motion_psnr",
    "Frechet MobileNetV2": "frechet_mobilenet_v2",
    "reduced": "frechet_mobilenet_v2_reduced",
}


def summarise(found: Evaluation, settings: Settings, model: str) -> dict[str, Any]:
    """The report: the first level's numbers at the top, every level's in ``levels``, the baseline's, and per clip.

    Means are over the clips; a number that no clip has is None.
    """
    levels = [_level_row(level, outcome, found.features) for level, outcome in found.levels]
    first = found.levels[0][1]
    frames, height, width = found.size
    return {
        "model": model,
        "clips": len(found.clips),
        "size": f"{width}x{height}",
        **asdict(settings),
        **levels[0],  # its t and noise_scale too
        "latent_numbers": found.latent_numbers,
        "compression": 3 * frames * height * width / found.latent_numbers,
        "motion_clips": sum(s.motion_psnr is not None for s in first.similarities),
        "originals": {
            "still_flicker": mean_of_known(found.still_flicker),
            "moving_share": mean(found.moving_share),
        },
        "frechet": None if found.features is None else _frechet_facts(found.features),
        "levels": levels,
        "baseline": None if found.baseline is None else _baseline_row(*found.baseline, found),
        "per_clip": [
            {"path": clip.path, "caption": clip.caption, **asdict(similarity)}
            for clip, similarity in zip(found.clips, first.similarities, strict=True)
        ],
    }


def to_markdown(report: dict[str, Any]) -> str:
    """The report's numbers as a table, what is needed to read them, and a line of per-frame PSNR."""
    rows = [_cells(_level_name(level), level) for level in report["levels"]]
    rows.insert(1, _cells("first frame", report["first_frame"]))
    if baseline := report["baseline"]:
        rows.append(_cells(f"bicubic {_kept_text(baseline)}", baseline))
    table = markdown_table([f"{report['clips']} clips, {report['size']}", *COLUMNS], rows)
    per_frame = " ".join(f"{value:.1f}" for value in report["psnr_per_frame"])
    notes = [f"PSNR per frame: {per_frame}", *_notes(report)]
    return f"VAE of {report['model']}\n\n{table}\n\n" + "\n\n".join(notes) + "\n"


def measures(outcome: Outcome, originals: Features | None) -> dict[str, Any]:
    """The numbers of one way of restoring: means over the clips, the first frame by itself, and per frame."""
    scores = outcome.similarities
    longest = max(len(score.frame_psnr) for score in scores)
    frechet = None
    if outcome.features is not None and originals is not None:
        frechet = compare_features(originals, outcome.features)
    return {
        **{name: _mean(scores, name) for name in MEANS},
        "intervals": {name: mean_as_json([getattr(score, name) for score in scores]) for name in MEANS},
        "frechet_mobilenet_v2": None if frechet is None else frechet.distance,
        "frechet_mobilenet_v2_reduced": None if frechet is None else frechet.reduced,
        "first_frame": {name: _mean(scores, f"first_{name}") for name in FIRST_FRAME},
        "worst_psnr": min(score.psnr for score in scores),
        "psnr_per_frame": [
            mean(score.frame_psnr[i] for score in scores if len(score.frame_psnr) > i) for i in range(longest)
        ],
    }


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of the values that were measured; None if none was."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _mean(scores: Sequence[Similarity], name: str) -> float | None:
    return mean_of_known([getattr(score, name) for score in scores])


def _level_row(level: Level, outcome: Outcome, originals: Features | None) -> dict[str, Any]:
    return {**asdict(level), **measures(outcome, originals)}


def _baseline_row(downsampling: Downsampling, outcome: Outcome, found: Evaluation) -> dict[str, Any]:
    """The baseline's measures, and what it keeps of a clip of the first one's size."""
    kept = downsampling.size(found.size, found.latent_numbers)
    factors = [whole / part for whole, part in zip(found.size, kept, strict=True)]
    return {
        "kept": list(kept),
        "factors": factors,
        "numbers": 3 * kept[0] * kept[1] * kept[2],
        **measures(outcome, found.features),
    }


def _frechet_facts(features: Features) -> dict[str, int]:
    samples, dimensions = features.shape
    return {
        "samples": samples,
        "dimensions": dimensions,
        "reduced_dimensions": num_components(samples, dimensions),
    }


def _cells(name: str, row: dict[str, Any]) -> list[Cell]:
    return [name, *(row.get(key) for key in COLUMNS.values())]


def _level_name(level: dict[str, Any]) -> str:
    if level["t"] is None:
        return "decoder without t"
    return f"t = {level['t']:g}, noise {level['noise_scale']:g}"


def _kept_text(baseline: dict[str, Any]) -> str:
    return "x".join(str(side) for side in baseline["kept"])


def _notes(report: dict[str, Any]) -> list[str]:
    originals, frechet, baseline = report["originals"], report["frechet"], report["baseline"]
    notes = []
    if originals["still_flicker"] is not None:
        notes.append(
            f"Motion: {100 * originals['moving_share']:.1f}% of the pixels, in {report['motion_clips']} of "
            f"{report['clips']} clips; a still copy would have a flicker of {originals['still_flicker']:.3g}."
        )
    if frechet is not None:
        notes.append(
            f"Frechet: {frechet['samples']} frames, {frechet['dimensions']} dimensions; reduced to "
            f"{frechet['reduced_dimensions']}."
        )
    if baseline is not None:
        notes.append(
            f"The latents of a clip hold {report['latent_numbers']:,} numbers, 1:{report['compression']:.0f}; the "
            f"bicubic copy {baseline['numbers']:,}: {_kept_text(baseline)} frames, rows and columns, factors of "
            f"{' x '.join(f'{factor:.2f}' for factor in baseline['factors'])}."
        )
    return notes
