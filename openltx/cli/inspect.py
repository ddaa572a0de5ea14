"""``openltx inspect``: the request inside a picture or video, or what a weight file or a model's folder holds."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from openltx.checkpoints.convert import read_source
from openltx.checkpoints.header import Header, StoredTensor, read_header
from openltx.checkpoints.lora import describe_lora, is_lora
from openltx.checkpoints.single_file import FileReport, inspect_file
from openltx.checkpoints.upsampler import upsampler_in
from openltx.checkpoints.zoo import WEIGHT_SUFFIXES, release_of
from openltx.errors import CheckpointError, MediaError
from openltx.media.io import read_metadata


def inspect(file: Path, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> None:
    """Show how a video was made, or what a weight file holds.

    Parameters
    ----------
    file
        A video or picture made by openltx, a .safetensors file (model, LoRA, upscaler, ...), or a diffusers folder.
    as_json
        Print one JSON object instead of tables.
    """
    if file.is_dir():
        report = _folder(file)
    else:
        report = _weights(inspect_file(file)) if file.suffix in WEIGHT_SUFFIXES else _media(file)
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


def _folder(folder: Path) -> dict[str, Any]:
    """What a diffusers folder holds, whole or in shards, under official names; refused if it is not complete."""
    source = read_source(folder)
    tensors = [
        replace(stored, name=prefix + name)
        for prefix, part in (("model.diffusion_model.", source.transformer), ("vae.", source.vae))
        if part is not None
        for name, stored in part[1].items()
    ]
    return {
        "kind": "diffusers folder",
        **_sizes(tensors),
        "config": _parsed(source.metadata["config"]),
        "tensors": _listed(tensors),
    }


def _weights(report: FileReport) -> dict[str, Any]:
    header, upsampler, release = read_header(report.path), upsampler_in(report), release_of(report.path)
    return {
        "kind": report.kind if upsampler is None else f"a latent upsampler for {upsampler.enlarges}",
        "release": None if release is None else release.name,
        **({"lora": _lora(header)} if is_lora(header) else {}),
        "sha256": report.sha256,
        **_sizes(report.tensors),
        "metadata": {name: _parsed(value) for name, value in report.metadata.items()},
        "config": report.config,
        "tensors": _listed(report.tensors),
    }


def _lora(header: Header) -> dict[str, Any]:
    """What the LoRA changes, or why openltx cannot use it."""
    try:
        return asdict(describe_lora(header))
    except CheckpointError as error:
        return {"problem": str(error)}


def _sizes(tensors: Sequence[StoredTensor]) -> dict[str, Any]:
    formats = Counter(tensor.dtype for tensor in tensors)
    return {
        "parameters": sum(prod(tensor.shape) for tensor in tensors),
        "formats": ", ".join(f"{count} tensors {dtype}" for dtype, count in formats.most_common()),
    }


def _listed(tensors: Sequence[StoredTensor]) -> list[dict[str, Any]]:
    return [{"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)} for tensor in tensors]


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
