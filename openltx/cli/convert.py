"""``openltx convert``: a model from one layout into the other."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openltx.checkpoints.convert import Layout
from openltx.checkpoints.convert import convert as convert_model
from openltx.checkpoints.copying import StoredDtype
from openltx.cli.output import say


def convert(
    source: Path,
    target: Path,
    *,
    to: Layout,
    dtype: StoredDtype | None = None,
    force: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a model in another layout, weights bit for bit.

    What the layout cannot hold is kept beside it or named. A folder made here becomes the same single file again.

    Parameters
    ----------
    source
        A .safetensors file, or a diffusers folder with transformer/ and vae/ in it.
    target
        The file or folder to write.
    to
        The layout: the official single file (which ComfyUI reads too), or the folder of diffusers.
    dtype
        Convert the weights to this format; they stay as they are stored if it is left out.
    force
        Replace what is there under the target's name.
    """
    convert_model(source, target, to, dtype=dtype, force=force, report=say)
    say(f"{target}  {_bytes(target) / 1e9:.2f} GB")


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
