"""A model from one layout into the other, weights bit for bit: the official single file, and the folder of diffusers.

    single file                          folder
    model.diffusion_model.*              transformer/diffusion_pytorch_model.safetensors, config.json
    vae.*                                vae/diffusion_pytorch_model.safetensors, config.json
    metadata, unused statistics          official.safetensors (not part of the layout; diffusers ignores it)
    metadata "config", "scheduler"       scheduler/scheduler_config.json, model_index.json

With ``official.safetensors`` beside it, a folder becomes the file that it was made of again. A text encoder is in
neither. Files are written under another name and renamed at the end.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from openltx.checkpoints import diffusers, single_file
from openltx.checkpoints.completeness import described_module
from openltx.checkpoints.config import Json, official_schedule, official_transformer, official_vae
from openltx.checkpoints.copying import StoredDtype, write_tensors
from openltx.checkpoints.diffusers_folder import index_json, scheduler_json, transformer_json, vae_json
from openltx.checkpoints.header import Header, StoredTensor, naming, read_header
from openltx.checkpoints.keys import TRANSFORMER_TABLE, UNUSED_VAE_TENSORS, VAE_PREFIXES, vae_table
from openltx.checkpoints.load import schedule_of
from openltx.checkpoints.single_file import replacing
from openltx.errors import CheckpointError
from openltx.flow.schedule import Schedule
from openltx.models.transformer import TransformerConfig, VideoTransformer
from openltx.models.vae.autoencoder import VAEConfig, VideoAutoencoder

Layout = Literal["single-file", "diffusers"]
Tensors = dict[str, StoredTensor]
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checked model, not yet loaded: configurations and tensors (official names without prefix), and what is beside.

    metadata  the official header's, with a "config" in any case
    unused    the statistics that no model uses
    """

    transformer: tuple[TransformerConfig, Tensors] | None
    vae: tuple[VAEConfig, Tensors] | None
    schedule: Schedule | None
    metadata: dict[str, str]
    unused: Tensors = field(default_factory=dict)


def convert(
    source: Path,
    target: Path,
    to: Layout,
    *,
    dtype: StoredDtype | None = None,
    force: bool = False,
    report: Report = lambda _: None,
) -> None:
    """Write the model of ``source`` (a file or a folder) as ``target``, in the other layout or the same one.

    ``dtype`` converts the weights; None leaves every bit. ``report`` gets a line for everything that the layout cannot
    hold. Raises ``CheckpointError``; ``target`` is then as it was.
    """
    if target.exists() and not force:
        raise CheckpointError(f"{target} exists already. Choose another name, or allow replacing it with --force.")
    if target.is_dir() and not (target / "model_index.json").is_file():
        raise CheckpointError(f"{target} is a folder of something else; --force replaces a model only. Choose another.")
    if target.exists() and target.resolve() == source.resolve():
        raise CheckpointError(f"{source} cannot be converted onto itself. Choose another name.")
    if to == "single-file" and target.is_dir():
        raise CheckpointError(f"{target} is a folder. Choose a name for the file.")
    if to == "single-file" and target.suffix != ".safetensors":
        raise CheckpointError(f'"{target}" is no name for a single file: it ends in .safetensors.')
    model = read_source(source)
    if to == "single-file":
        _write_single_file(model, target, dtype, report)
    else:
        _write_folder(model, target, dtype, report)


def read_source(path: Path) -> Source:
    """A model's description, from a single file or a folder; its tensors are complete, and none is loaded."""
    with naming(path):
        model = _from_folder(path) if path.is_dir() else _from_file(read_header(path))
    if model.transformer is not None:
        described_module(VideoTransformer, model.transformer[0], path, model.transformer[1])
    if model.vae is not None:
        described_module(VideoAutoencoder, model.vae[0], path, model.vae[1])
    return model


def _from_file(header: Header) -> Source:
    transformer, vae = (part is not None for part in single_file.split(header))
    if not transformer and not vae:
        single_file.transformer_source(header)  # says what is missing
    source = Source(
        transformer=single_file.transformer_source(header) if transformer else None,
        vae=single_file.vae_source(header) if vae else None,
        schedule=None,
        metadata=header.metadata,
        unused=_unused(header),
    )
    return _completed(header.path, source, header)


def _from_folder(folder: Path) -> Source:
    header = diffusers.kept_header(folder)
    transformer, vae = (diffusers.find_part(folder, name) is not None for name in ("transformer", "vae"))
    if not transformer and not vae:
        diffusers.transformer_source(folder)  # says what is missing
    source = Source(
        transformer=diffusers.transformer_source(folder) if transformer else None,
        vae=diffusers.vae_source(folder) if vae else None,
        schedule=None,
        metadata=header.metadata if header is not None else {"format": "pt"},
        unused=_unused(header) if header is not None else {},
    )
    return _completed(folder, source, header)


def _completed(path: Path, source: Source, header: Header | None) -> Source:
    """With its schedule, and with a "config" if the header has none (which nobody stated: made of the tensors)."""
    schedule = schedule_of(path, header, source.vae[0]) if source.vae is not None else None
    metadata = dict(source.metadata)
    if "config" not in metadata:
        config: Json = {}
        if source.transformer is not None:
            config["transformer"] = official_transformer(source.transformer[0])
        if source.vae is not None:
            config["vae"] = official_vae(source.vae[0])
        if path.is_dir() and diffusers.schedule(path) is not None and schedule is not None:
            config["scheduler"] = official_schedule(schedule)
        metadata["config"] = json.dumps(config)
    return replace(source, schedule=schedule, metadata=metadata)


def _unused(header: Header) -> Tensors:
    """The statistics that no model uses, under their names without prefix."""
    return {
        name: header.tensors[prefix + name]
        for prefix in VAE_PREFIXES
        for name in sorted(UNUSED_VAE_TENSORS)
        if prefix + name in header.tensors
    }


def _write_single_file(model: Source, target: Path, dtype: StoredDtype | None, report: Report) -> None:
    tensors: Tensors = {}
    if model.transformer is not None:
        tensors |= {f"model.diffusion_model.{name}": stored for name, stored in model.transformer[1].items()}
    if model.vae is not None:
        tensors |= {f"vae.{name}": stored for name, stored in (model.vae[1] | model.unused).items()}
        if not model.unused:
            report("the official file's three unused statistics are not in this folder, and so not in the file")
    with replacing(target) as temporary:
        write_tensors(temporary, tensors, model.metadata, dtype)
    report("no text encoder is in the file: a single file has none")


def _write_folder(model: Source, target: Path, dtype: StoredDtype | None, report: Report) -> None:
    parts: dict[str, tuple[Json, Tensors]] = {}
    if model.transformer is not None:
        config, tensors = model.transformer
        parts["transformer"] = transformer_json(config), TRANSFORMER_TABLE.apply(tensors)
    if model.vae is not None:
        config, tensors = model.vae
        renamed = vae_table(config).apply(tensors)
        parts["vae"] = vae_json(config), renamed
    scheduler = None if model.schedule is None else scheduler_json(model.schedule)
    if model.schedule is not None and scheduler is None:
        report(f"diffusers has no such schedule as this model's; it is kept in {diffusers.KEPT} only")
    present = {*parts, *(["scheduler"] if scheduler is not None else [])}
    causal = model.transformer is not None and model.transformer[0].causal_positions
    with replacing_folder(target) as temporary:
        for name, (config, tensors) in parts.items():
            (temporary / name).mkdir()
            _write_json(temporary / name / "config.json", config)
            write_tensors(temporary / name / diffusers.WEIGHTS, tensors, {"format": "pt"}, dtype)
        if scheduler is not None:
            (temporary / "scheduler").mkdir()
            _write_json(temporary / "scheduler" / "scheduler_config.json", scheduler)
        _write_json(temporary / "model_index.json", index_json(causal, present))
        unused = {f"vae.{name}": stored for name, stored in model.unused.items()}
        write_tensors(temporary / diffusers.KEPT, unused, model.metadata)
    kept = f"{len(unused)} unused statistics and the official header" if unused else "the official header"
    report(f"{kept}, for which diffusers has no place, are kept in {diffusers.KEPT}")
    report("no text encoder is in the folder: hand diffusers one (text_encoder=, tokenizer=)")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``path`` at the end, and leaves no trace if anything fails."""
    temporary, old = (path.with_name(f".{path.name}.{word}.tmp") for word in ("new", "old"))
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _remove(old)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise CheckpointError(f"{path} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_json(path: Path, values: Json) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
