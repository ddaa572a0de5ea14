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
    from openltx.pipelines.request import GenerationRequest
    from openltx.pipelines.residency import load

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
    "Video",
    "__version__",
    "generate",
    "load",
]

_HOMES = {
    "GenerationRequest": "openltx.pipelines.request",
    "Generator": "openltx.pipelines.generate",
    "LTXModel": "openltx.models.bundle",
    "Video": "openltx.pipelines.generate",
    "generate": "openltx.pipelines.generate",
    "load": "openltx.pipelines.residency",
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
