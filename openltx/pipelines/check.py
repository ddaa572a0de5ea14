"""Whether a request can be served, before a model is loaded: from its file's header, and those of what is given."""

from collections.abc import Mapping
from typing import Any

from openltx.pipelines.given import check_given
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples
from openltx.pipelines.windows import Windows, plan_windows


def check_request(
    sampling: Mapping[str, Any], request: GenerationRequest, windows: Windows | None = None
) -> GenerationRequest:
    """The resolved request, in windows that of the longest: what will be in memory at a time.

    Raises for a size off the grid, pictures or clips that do not fit where they are wanted, missing files, ...
    ``sampling`` are the model's own settings (``checkpoints.load.describe``). What depends on the networks
    themselves (which blocks there are, how long a prompt may be) is checked once these are loaded, before one runs.
    """
    resolved = request.resolve(Sampling(**as_tuples(sampling)))
    if windows is None:
        check_given(resolved, resolved.settings(Sampling()))
        return resolved
    return max(plan_windows(resolved, windows).windows, key=lambda window: window.frames).request
