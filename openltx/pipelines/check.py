"""Whether a request can be served, before a model is loaded: from its file's header, and those of what is given."""

from pathlib import Path

from openltx.checkpoints.load import stated_sampling
from openltx.pipelines.given import check_given
from openltx.pipelines.request import GenerationRequest, Sampling, as_tuples
from openltx.pipelines.windows import Windows, plan_windows


def check_request(model: str | Path, request: GenerationRequest, windows: Windows | None = None) -> None:
    """Raise for a size off the grid, pictures or clips that do not fit where they are wanted, missing files, ...

    What depends on the networks themselves (which blocks there are, how long a prompt may be) is checked once they are
    loaded, before any of them runs.
    """
    resolved = request.resolve(Sampling(**as_tuples(stated_sampling(model))))
    if windows is None:
        check_given(resolved, resolved.settings(Sampling()))
    else:
        plan_windows(resolved, windows)
