"""``openltx inspect``: the request inside a picture or video, or the config, tensors and hash of a weight file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from openltx.checkpoints.header import Header, read_header
from openltx.checkpoints.lora import describe_lora, is_lora
from openltx.checkpoints.single_file import FileReport, inspect_file
from openltx.checkpoints.upsampler import upsampler_in
from openltx.errors import CheckpointError, MediaError
from openltx.media.io import read_metadata


def inspect(file: Path, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Show how a video was made, or what a weight file holds.

    Parameters
    ----------
    file
        A video or picture made by openltx, or a .safetensors file.
    as_json
        Print one JSON object instead of tables.
    """
    report = _weights(inspect_file(file)) if file.suffix == ".safetensors" else _media(file)
    if as_json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report)


_JSON_ENTRIES = ("request", "loras", "two_pass")


def _media(file: Path) -> dict[str, Any]:
    """What ``Video.save`` put into the file."""
    metadata = read_metadata(file)
    if "request" not in metadata and "upscaled" not in metadata:
        raise MediaError(f"{file} carries no request: it was not made by openltx, or another program rewrote it.")
    return {name: _parsed(value) if name in _JSON_ENTRIES else value for name, value in metadata.items()}


def _weights(report: FileReport) -> dict[str, Any]:
    header, upsampler = read_header(report.path), upsampler_in(report)
    holds = {} if upsampler is None else {"holds": f"a latent upsampler for {upsampler.enlarges}"}
    return {
        **holds,
        **({"lora": _lora(header)} if is_lora(header) else {}),
        "sha256": report.sha256,
        "parameters": report.num_parameters,
        "metadata": {name: _parsed(value) for name, value in report.metadata.items()},
        "config": report.config,
        "tensors": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in report.tensors
        ],
    }


def _lora(header: Header) -> dict[str, Any]:
    """What the LoRA changes, or why openltx cannot use it."""
    try:
        return asdict(describe_lora(header))
    except CheckpointError as error:
        return {"problem": str(error)}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _show(report: dict[str, Any]) -> None:
    """Print plain values as a list, objects as indented JSON, a list of tensors as a table."""
    console = Console(highlight=False)
    for name, value in report.items():
        if name == "tensors":
            console.print(_tensor_table(value))
        elif name == "loras":
            for lora in value:
                line = f"{'lora':20} {lora['name']}, strength {lora['strength']:g}, {lora['fingerprint']}"
                console.print(line, markup=False, soft_wrap=True)
        elif isinstance(value, dict) and name == "request":
            for field, wish in value.items():
                console.print(f"{field:20} {wish}", markup=False, soft_wrap=True)
        elif isinstance(value, dict):
            console.print(f"{name}\n{json.dumps(value, indent=2)}", markup=False, soft_wrap=True)
        else:
            console.print(f"{name:20} {value}", markup=False, soft_wrap=True)


def _tensor_table(tensors: list[dict[str, Any]]) -> Table:
    table = Table("tensor", "dtype", "shape", box=None, pad_edge=False)
    for tensor in tensors:
        table.add_row(tensor["name"], tensor["dtype"], " x ".join(map(str, tensor["shape"])) or "scalar")
    return table
