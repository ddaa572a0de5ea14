"""Configuration files of the official code (``configs/*.yaml``), as our recipes.

Each key of such a file is either one of our settings under another name, or has no meaning here and is noted, or is
unknown and refused by name. The official rule that rescaling happens only where STG does, and is off at 1, is written
out: ``rescale`` is 0 there. Explicit timesteps make the number of steps and the skipped ones meaningless, as they do
in the official code.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openltx.checkpoints.settings import BASE
from openltx.checkpoints.zoo import release_of
from openltx.errors import RequestError
from openltx.flow.schedule import Schedule
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.two_pass import TwoPass
from openltx.recipes.generate import PASS, Recipe, pass_settings

Json = Mapping[str, Any]


def read_official(path: Path) -> Recipe:
    """The recipe in an official YAML file; raises ``RequestError`` naming the file and what it cannot mean."""
    config = _read(path)
    try:
        return _recipe(config, path)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def _recipe(config: Json, path: Path) -> Recipe:
    kind = config.get("pipeline_type", "base")
    if kind not in ("base", "multi-scale"):
        raise RequestError(f'pipeline_type="{kind}" is not possible: choose base or multi-scale.')
    _require_known(config, "", (*_NAMES, *_PLACES, *_UNUSED))
    own = {key: value for key, value in config.items() if key in _NAMES}
    model, upscaler = (_place(config.get(key), path) for key in ("checkpoint_path", "spatial_upscaler_model_path"))
    if model is None:
        raise RequestError("checkpoint_path, which says which model it is for, is missing.")
    two_pass = None if kind == "base" else _two_pass(config, own)
    if kind == "base" and (passes := [name for name in ("first_pass", "second_pass") if name in config]):
        raise RequestError(f"{', '.join(passes)}: only a multi-scale pipeline has passes.")
    sampling = _settings(own if two_pass is None else {**own, **config["first_pass"]})
    return Recipe(
        model=model,
        sampling={**_COMMAND, **sampling},
        two_pass=two_pass,
        upscaler=upscaler,
        schedule=_schedule(config.get("sampler")),
        notes=_notes(config),
    )


def _two_pass(config: Json, own: Json) -> TwoPass:
    """Both passes, each with the settings of the file's top where it has none of its own."""
    settings = {}
    for name in ("first_pass", "second_pass"):
        given = config.get(name)
        if not isinstance(given, dict):
            raise RequestError(f"pipeline_type is multi-scale, and {name} is missing or no list of settings.")
        _require_known(given, f"{name}.", tuple(key for key, ours in _NAMES.items() if ours in PASS))
        settings[name] = pass_settings(_settings({**own, **given}))
    downscale = config.get("downscale_factor", 2 / 3)
    if isinstance(downscale, bool) or not isinstance(downscale, int | float) or not 0 < downscale <= 1:
        raise RequestError(f"downscale_factor={downscale!r} is not possible: it must be above 0 and at most 1.")
    return TwoPass(downscale=downscale, first=settings["first_pass"], second=settings["second_pass"])


def _require_known(config: Json, where: str, known: tuple[str, ...]) -> None:
    for key in config:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = _GONE.get(str(key)) or (f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}.")
            raise RequestError(f'"{where}{key}" is no setting that openltx knows. {hint}')


def _settings(config: Json) -> dict[str, Any]:
    """Settings under our names; raises ``RequestError`` for values out of range."""
    given = {key: value for key, value in {**_DEFAULTS, **config}.items() if value is not None}
    settings = {_NAMES[key]: _value(value, key) for key, value in given.items()}
    if "times" in settings:
        aside = ("steps", "skip_initial", "skip_final")
        settings = {name: value for name, value in settings.items() if name not in aside}
    settings = _rescaled(_unlisted(settings))
    GenerationRequest("only to see whether they are in range", **settings)
    return settings


def _notes(config: Json) -> tuple[str, ...]:
    """What the official code would do and openltx does not."""
    notes = []
    words = config.get("prompt_enhancement_words_threshold", 0)
    if words:
        notes.append(f"prompts are taken as they are; the official code rewrites those of fewer than {words} words")
    if config.get("precision", "bfloat16") != "bfloat16":
        notes.append(f"precision: {config['precision']} is not taken over; --precision says how to compute")
    if config.get("text_encoder_model_name_or_path", _T5) != _T5:
        notes.append(f"the text encoder {config['text_encoder_model_name_or_path']} is not taken over")
    return tuple(notes)


def _unlisted(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists for a single guidance time say the same as single values."""
    if len(settings.get("guidance_times") or ()) > 1:
        return settings
    numbers = ("cfg", "stg", "rescale", "decode_timestep", "decode_noise_scale")
    single = {
        name: value[0]
        for name, value in settings.items()
        if name in numbers and isinstance(value, tuple) and len(value) == 1
    }
    blocks = settings.get("skip_blocks") or ()
    if len(blocks) == 1 and isinstance(blocks[0], tuple):
        single["skip_blocks"] = blocks[0]
    left = {name: value for name, value in settings.items() if name != "guidance_times"}
    return {**left, **single}


def _rescaled(settings: dict[str, Any]) -> dict[str, Any]:
    """Rescaling our way round: 0 where the official code does none, which is at 1 and wherever there is no STG."""
    cfg, stg, rescale = (settings.get(name) for name in ("cfg", "stg", "rescale"))
    if cfg is not None:  # 1 and less turn it off in the official code; here 1 does
        settings = settings | {"cfg": _each(lambda scale: max(1.0, scale), cfg)}
    if rescale is None:
        return settings
    if isinstance(stg, tuple) and not isinstance(rescale, tuple):
        rescale = (rescale,) * len(stg)
    if isinstance(rescale, tuple):
        scales = stg if isinstance(stg, tuple) and len(stg) == len(rescale) else (stg,) * len(rescale)
        return settings | {"rescale": tuple(map(_rescale, rescale, scales))}
    return settings | {"rescale": _rescale(rescale, stg)}


def _rescale(official: float, stg: Any) -> float:
    return 0.0 if official == 1 or stg == 0 else official


def _each(change: Any, value: Any) -> Any:
    return tuple(map(change, value)) if isinstance(value, tuple) else change(value)


def _value(value: Any, key: str) -> Any:
    """A value of the kind that its setting has: floats, whole numbers or switches, in tuples where there is a list."""
    ours = _NAMES[key]
    if isinstance(value, list) != (ours in _ALWAYS_LISTS) and ours not in _MAYBE_LISTS:
        raise RequestError(f"{key}={value!r} is not possible: it is {'' if ours in _ALWAYS_LISTS else 'not '}a list.")
    if isinstance(value, list):
        return tuple(_element(item, ours, key) for item in value)
    return _element(value, ours, key)


def _element(value: Any, ours: str, key: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if ours == "stg_mode" and isinstance(value, str) and value in _MODES:
        return _MODES[value]
    if ours in _SWITCHES and isinstance(value, bool):
        return value
    if ours == "skip_blocks" and isinstance(value, list):
        return tuple(_element(item, ours, key) for item in value)
    if ours in _WHOLE and isinstance(value, int) and is_number:
        return value
    if is_number and ours not in (*_WHOLE, *_SWITCHES, "stg_mode"):
        return float(value)
    kind = (
        f"one of {', '.join(_MODES)}" if ours == "stg_mode" else "true or false" if ours in _SWITCHES
        else "whole" if ours in _WHOLE else "a number"
    )  # fmt: skip
    raise RequestError(f"{key}={value!r} is not possible: it must be {kind}.")


def _schedule(sampler: Any) -> Schedule | None:
    """The official command takes every word but these two for the linear-quadratic one; here it must be said."""
    if sampler in (None, "from_checkpoint"):
        return None
    if sampler not in ("uniform", "linear-quadratic"):
        raise RequestError(f'sampler="{sampler}" is not possible: choose uniform, linear-quadratic or from_checkpoint.')
    return Schedule(kind="uniform" if sampler == "uniform" else "linear_quadratic")


def _place(file: Any, config: Path) -> str | Path | None:
    """A file that the configuration names: beside it, in the current folder, or else the release that has this name."""
    if file is None:
        return None
    for path in (config.parent / str(file), Path(str(file))):
        if path.exists():
            return path
    release = release_of(str(file))
    return release.name if release is not None else Path(str(file))


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text())
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(config, dict):
        raise RequestError(f"{path} is no configuration file: it holds no settings.")
    return config


# what the official command adds to every configuration
_COMMAND = {name: BASE[name] for name in
            ("negative", "frames", "width", "height", "fps", "image_crf", "image_noise")}  # fmt: skip

_NAMES = {
    "guidance_scale": "cfg",
    "cfg_star_rescale": "cfg_star",
    "stg_scale": "stg",
    "stg_mode": "stg_mode",
    "skip_block_list": "skip_blocks",
    "rescaling_scale": "rescale",
    "guidance_timesteps": "guidance_times",
    "timesteps": "times",
    "num_inference_steps": "steps",
    "skip_initial_inference_steps": "skip_initial",
    "skip_final_inference_steps": "skip_final",
    "stochastic_sampling": "stochastic",
    "decode_timestep": "decode_timestep",
    "decode_noise_scale": "decode_noise_scale",
    "tone_map_compression_ratio": "tone_map",
    "image_cond_noise_scale": "image_noise",
}
# what the official code does where a configuration says nothing
_DEFAULTS = {"num_inference_steps": 20, "guidance_scale": 4.5, "stg_scale": 1.0, "rescaling_scale": 0.7}
_SWITCHES = ("cfg_star", "stochastic")
_WHOLE = ("steps", "skip_initial", "skip_final", "skip_blocks")
_ALWAYS_LISTS = ("times", "guidance_times", "skip_blocks")
_MAYBE_LISTS = ("cfg", "stg", "rescale", "decode_timestep", "decode_noise_scale")
_PLACES = (
    "pipeline_type", "checkpoint_path", "spatial_upscaler_model_path", "downscale_factor", "sampler", "first_pass",
    "second_pass",
)  # fmt: skip
_UNUSED = (
    "text_encoder_model_name_or_path", "text_encoder_max_tokens", "precision", "prompt_enhancement_words_threshold",
    "prompt_enhancer_image_caption_model_name_or_path", "prompt_enhancer_llm_model_name_or_path",
)  # fmt: skip
_T5 = "PixArt-alpha/PixArt-XL-2-1024-MS"  # that of every release
_GONE = {"strength": "It belongs to the first version of the official code: write skip_initial_inference_steps."}
_MODES = {
    "attention_values": "attention_values", "stg_av": "attention_values",
    "attention_skip": "attention_skip", "stg_as": "attention_skip",
    "residual": "residual", "stg_r": "residual",
    "transformer_block": "transformer_block", "stg_t": "transformer_block",
}  # fmt: skip
