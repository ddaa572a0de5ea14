"""openltx: text or an image becomes a video, by an LTX-Video model that is open from training to sampling.

    import openltx

    model = openltx.load("playroom")                  # the bundled model, or the path of a weight file
    video = openltx.generate(model, prompt="a red ball bounces on a checkered floor", seed=7)
    video.save("ball.mp4")                            # the request is embedded in the file

Importing this package is light: everything below is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from openltx.errors import (
    AssetError,
    CheckpointError,
    DataError,
    MediaError,
    OpenLTXError,
    RequestError,
    RunError,
    ServeError,
)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from openltx.models.bundle import LTXModel
    from openltx.pipelines.generate import Generator, Video, generate
    from openltx.pipelines.long import generate_long
    from openltx.pipelines.request import GenerationRequest
    from openltx.pipelines.residency import load
    from openltx.pipelines.two_pass import TwoPass, TwoPassGenerator
    from openltx.pipelines.upscale import load_upscaler, upscale
    from openltx.pipelines.windows import Windows

__all__ = [
    "AssetError",
    "CheckpointError",
    "DataError",
    "GenerationRequest",
    "Generator",
    "LTXModel",
    "MediaError",
    "OpenLTXError",
    "RequestError",
    "RunError",
    "ServeError",
    "TwoPass",
    "TwoPassGenerator",
    "Video",
    "Windows",
    "__version__",
    "generate",
    "generate_long",
    "load",
    "load_upscaler",
    "upscale",
]

_HOMES = {
    "GenerationRequest": "openltx.pipelines.request",
    "Generator": "openltx.pipelines.generate",
    "LTXModel": "openltx.models.bundle",
    "TwoPass": "openltx.pipelines.two_pass",
    "TwoPassGenerator": "openltx.pipelines.two_pass",
    "Video": "openltx.pipelines.generate",
    "Windows": "openltx.pipelines.windows",
    "generate": "openltx.pipelines.generate",
    "generate_long": "openltx.pipelines.long",
    "load": "openltx.pipelines.residency",
    "load_upscaler": "openltx.pipelines.upscale",
    "upscale": "openltx.pipelines.upscale",
}
_SUBPACKAGES = {
    "checkpoints",
    "conditioning",
    "data",
    "eval",
    "flow",
    "geometry",
    "media",
    "models",
    "pipelines",
    "serve",
    "training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"openltx.{name}")
    raise AttributeError(f"module 'openltx' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBPACKAGES})
