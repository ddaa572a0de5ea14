"""How every released model is sampled, by name: one pass, two passes, and what they need.

Source     the official configuration files; the settings themselves are in ``checkpoints.settings``, so that loading a
           release by name can give them to the model
Command    openltx generate "a fox in the snow" --model ltxv-13b-0.9.8-distilled
           openltx generate "a fox in the snow" --model my.safetensors --recipe ltxv-13b-0.9.8-distilled

What stands in the file (architecture, schedule, causal positions, allowed times) is not repeated here. The official
configuration files themselves are read by ``recipes.official``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from openltx.checkpoints.releases import RELEASES, Release
from openltx.checkpoints.zoo import find_release, release_of
from openltx.flow.schedule import Schedule
from openltx.models.bundle import LTXModel
from openltx.pipelines.request import Sampling
from openltx.pipelines.two_pass import TwoPass

# The settings that each pass of two has for itself; the others (size, pictures, decoding) are the same for both.
PASS = (
    "steps", "times", "skip_initial", "skip_final", "stochastic", "guidance_times", "cfg", "cfg_star", "stg", "rescale",
    "skip_blocks", "tone_map",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is sampled.

    model     a release's name, or the path of a weight file
    sampling  one pass: fields of ``Sampling``
    two_pass  both passes, if it is made for two; each of the two names every field that the other names
    upscaler  the release's name, or the path, of the latent upscaler between them
    schedule  instead of the file's own
    notes     what was asked for and is not done, a sentence each
    """

    model: str | Path
    sampling: Mapping[str, Any]
    two_pass: TwoPass | None = None
    upscaler: str | Path | None = None
    schedule: Schedule | None = None
    notes: tuple[str, ...] = field(default=())

    def apply(self, model: LTXModel) -> LTXModel:
        """The model with these settings in place of its own."""
        return replace(model, sampling=dict(self.sampling), schedule=self.schedule or model.schedule)


def recipe(name: str) -> Recipe:
    """The recipe of a released model; raises ``CheckpointError`` with the names that there are."""
    return _recipe(find_release(name, "model"))


def recipe_of(model: str | Path) -> Recipe | None:
    """The recipe of a model by its name or by the name of its file; None if that is of no release."""
    release = release_of(model)
    return _recipe(release) if release is not None and release.kind == "model" else None


def pass_settings(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """All that one of two passes settles, from its own settings: what it leaves open is as ``Sampling`` has it."""
    defaults = {one.name: one.default for one in fields(Sampling)}
    return {name: sampling.get(name, defaults[name]) for name in PASS}


def _recipe(release: Release) -> Recipe:
    second = _SECOND.get(release.name)
    upscaler = next((name for name in release.needs if RELEASES[name].kind == "upscaler"), None)
    two_pass = (
        None
        if second is None
        else TwoPass(downscale=DOWNSCALE, first=pass_settings(release.sampling), second=pass_settings(second))
    )
    return Recipe(model=release.name, sampling=release.sampling, two_pass=two_pass, upscaler=upscaler)


DOWNSCALE = 0.6666666  # as the official files say it: 1152 becomes 736 by it, and would become 768 by two thirds

_DEV_SECOND = {"steps": 30, "skip_initial": 17, "cfg": 1.0, "cfg_star": True, "stg": 1.0, "skip_blocks": (27,)}
_DISTILLED_SECOND = {"times": (0.9094, 0.725, 0.4219), "cfg": 1.0, "skip_blocks": (42,)}

_SECOND: dict[str, dict[str, Any]] = {
    "ltxv-13b-0.9.7-dev": _DEV_SECOND,
    "ltxv-13b-0.9.7-dev-fp8": _DEV_SECOND,
    "ltxv-13b-0.9.7-distilled": _DISTILLED_SECOND,
    "ltxv-13b-0.9.7-distilled-fp8": _DISTILLED_SECOND,
    "ltxv-13b-0.9.8-dev": _DEV_SECOND,
    "ltxv-13b-0.9.8-dev-fp8": _DEV_SECOND,
    "ltxv-13b-0.9.8-distilled": {**_DISTILLED_SECOND, "tone_map": 0.6},
    "ltxv-13b-0.9.8-distilled-fp8": {**_DISTILLED_SECOND, "tone_map": 0.6},
    "ltxv-2b-0.9.8-distilled": {**_DISTILLED_SECOND, "skip_blocks": ()},
    "ltxv-2b-0.9.8-distilled-fp8": {**_DISTILLED_SECOND, "skip_blocks": ()},
}
