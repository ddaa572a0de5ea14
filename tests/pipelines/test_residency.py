"""Resident, offloaded and streamed give the same numbers, and hold no more than they say."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import openltx
from openltx import (
    CheckpointError,
    GenerationRequest,
    Generator,
    LTXModel,
    RequestError,
    TwoPass,
    TwoPassGenerator,
    Windows,
)
from openltx.checkpoints import save_single_file
from openltx.checkpoints.header import read_header, read_tensors
from openltx.checkpoints.single_file import header_config
from openltx.checkpoints.weights import Weights
from openltx.models.lora import is_mergeable, linear_shapes
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder
from openltx.pipelines import generate as module
from openltx.pipelines import residency, turns
from openltx.pipelines.long import LongVideo
from openltx.pipelines.turns import Guest, Turns

PROMPT = "a red ball"
STATUS = Path("/proc/self/status")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "start.png"
    ramp = np.linspace(0, 255, 64 * 32 * 3).reshape(32, 64, 3).astype(np.uint8)
    Image.fromarray(ramp).save(path)
    return path


@pytest.fixture(scope="module")
def half_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, stored in bfloat16."""
    model = openltx.load(tiny_checkpoint, device="cpu", precision="float32")
    path = tmp_path_factory.mktemp("half") / "half.safetensors"
    metadata = {"openltx.text_encoder": "all-MiniLM-L6-v2"}
    save_single_file(path, model.transformer, model.vae, metadata=metadata, dtype=torch.bfloat16)
    return path


@pytest.fixture(scope="module")
def eight_bit_checkpoint(half_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the blocks' matrices stored in float8, as the releases named fp8 are."""
    path = tmp_path_factory.mktemp("eight") / "eight.safetensors"
    with safe_open(half_checkpoint, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    matrices = [name for name, x in tensors.items() if "transformer_blocks" in name and x.ndim == 2]
    assert matrices
    save_file(tensors | {name: tensors[name].to(torch.float8_e4m3fn) for name in matrices}, path, metadata)
    return path


def in_memory(model: LTXModel) -> dict[str, int]:
    """How many tensors of each part have numbers."""
    parts = {"blocks": model.transformer.transformer_blocks, "encoder": model.vae.encoder, "decoder": model.vae.decoder}
    return {name: sum(not tensor.is_meta for tensor in part.parameters()) for name, part in parts.items()}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["tiny_checkpoint", "half_checkpoint", "eight_bit_checkpoint"])
def test_every_residency_gives_the_same_numbers(
    request: pytest.FixtureRequest, picture: Path, stored: str, precision: str
) -> None:
    path = request.getfixturevalue(stored)
    order = GenerationRequest(
        PROMPT, image=picture, seed=1, frames=17, size="64x32", steps=3, cfg=2.0, stg=1.0, skip_blocks=(1,)
    )
    latents, frames = [], []
    for where in ("resident", "offloaded", "streamed"):
        generator = Generator(openltx.load(path, device="cpu", precision=precision, residency=where))
        prepared = generator.prepare(order)
        *_, last = generator.sample(prepared)
        latents.append(last.state.tokens)
        frames.append(generator.decode(prepared, last.state))
    assert torch.equal(latents[0], latents[1])
    assert torch.equal(latents[0], latents[2])
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_only_the_part_whose_turn_it_is_has_weights(tiny_checkpoint: Path, picture: Path) -> None:
    model = openltx.load(tiny_checkpoint, device="cpu", residency="offloaded")
    assert in_memory(model) == {"blocks": 0, "encoder": 0, "decoder": 0}
    generator = Generator(model)
    prepared = generator.prepare(GenerationRequest(PROMPT, image=picture, seed=1))
    *_, last = generator.sample(prepared)
    present = in_memory(model)
    assert present == {
        "blocks": len(list(model.transformer.transformer_blocks.parameters())),
        "encoder": 0,
        "decoder": 0,
    }
    generator.decode(prepared, last.state)
    assert in_memory(model) == {"blocks": 0, "encoder": 0, "decoder": len(list(model.vae.decoder.parameters()))}


def test_a_stream_of_blocks_has_one_block_at_a_time(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = openltx.load(tiny_checkpoint, device="cpu", residency="streamed")
    blocks = model.transformer.transformer_blocks
    whole = len(list(blocks[0].parameters()))
    seen: list[list[int]] = []
    forward = type(blocks[0]).forward

    def watched(block: torch.nn.Module, *arguments: object) -> torch.Tensor:
        seen.append([sum(not p.is_meta for p in each.parameters()) for each in blocks])
        return forward(block, *arguments)

    monkeypatch.setattr(type(blocks[0]), "forward", watched)
    Generator(model)(GenerationRequest(PROMPT, seed=1, steps=2, cfg=1.0))
    assert seen == [[whole, 0], [0, whole]] * 2
    assert in_memory(model)["blocks"] == 0


def test_the_next_block_is_read_while_one_computes(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And ``prepare`` reads no more of a block than it needs."""
    transformer = openltx.load(tiny_checkpoint, device="cpu", residency="streamed").transformer
    read: list[tuple[str, set[str]]] = []
    elsewhere: list[bool] = []
    original = Weights.read

    def watched(weights: Weights) -> dict[str, torch.Tensor]:
        (number,) = {stored.name.split("transformer_blocks.")[1].split(".")[0] for stored in weights.stored.values()}
        read.append((number, {name.split(".")[0] for name in weights.stored}))
        elsewhere.append(threading.current_thread().name.startswith("openltx-blocks"))
        return original(weights)

    monkeypatch.setattr(Weights, "read", watched)
    with torch.inference_mode():
        text, mask = torch.zeros(1, 2, 384), torch.ones(1, 2, dtype=torch.bool)
        context = transformer.prepare(torch.zeros(1, 3, 4), text, mask)
        transformer.step(torch.zeros(1, 4, 16), torch.ones(1, 1), None, context)
    everything = {"attn1", "attn2", "ff", "scale_shift_table"}
    assert read[:4] == [("0", {"attn2"}), ("1", {"attn2"}), ("0", everything), ("1", everything)]
    assert elsewhere[:4] == [False, True, True, True]


def test_a_preview_between_two_steps_and_frames_asked_for_late_are_right(
    tiny_model: LTXModel, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WHOLE_DECODE_TOKENS", 0)
    request = GenerationRequest(PROMPT, seed=1, frames=33, steps=2)
    expected = Generator(tiny_model)(request).frames
    generator = Generator(openltx.load(tiny_checkpoint, device="cpu", precision="float32", residency="streamed"))
    prepared = generator.prepare(request)
    for step in generator.sample(prepared):
        generator.decode(prepared, step.state)
    pieces = []
    for frames in generator.decode_stream(prepared, step.state):
        pieces.append(frames)
        generator.prepare(request)  # another network's turn
    assert len(pieces) > 2
    assert np.array_equal(np.concatenate(pieces), expected)


def test_who_cannot_arrive_leaves_nobody_behind() -> None:
    class Full(Guest):
        def arrive(self) -> None:
            raise MemoryError

    turns = Turns()
    first, second = Guest(torch.nn.Identity(), Weights(stored={})), Full(torch.nn.Identity(), Weights(stored={}))
    turns.give(first)
    with pytest.raises(MemoryError):
        turns.give(second)
    assert turns._present is None


@pytest.mark.parametrize("wish", [{"precision": "int8"}, {"compile": True}, {"lora_mode": "merged"}])
def test_changed_weights_stay_in_memory(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, wish: dict[str, object]
) -> None:
    if "compile" in wish:
        monkeypatch.setattr(residency, "choose_device", lambda _: torch.device("cuda"))
    with pytest.raises(RequestError, match='residency="resident", not "streamed"'):
        openltx.load(tiny_checkpoint, residency="streamed", **wish)


@pytest.mark.skipif(not STATUS.exists(), reason="RssAnon is Linux's")
def test_weights_that_are_wanted_as_they_are_stored_are_not_copied(tmp_path: Path) -> None:
    def own_memory() -> int:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    tensors = {"a": torch.ones(4096, 4096), "b": torch.ones(4096, 1024)}
    save_file(tensors, tmp_path / "large.safetensors")
    del tensors
    before = own_memory()
    read = Weights(stored=read_header(tmp_path / "large.safetensors").tensors).read()
    total = sum(float(tensor.sum()) for tensor in read.values())
    assert total == 4096 * 5120
    assert own_memory() - before < 16 * 2**20  # of 80 MiB


def test_the_text_encoder_is_loaded_when_a_prompt_comes(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = openltx.load(tiny_checkpoint, device="cpu", residency="offloaded")
    loaded: list[str] = []
    load = turns.load_text_encoder
    monkeypatch.setattr(turns, "load_text_encoder", lambda name, device: loaded.append(name) or load(name, device))
    Generator(model)(GenerationRequest(PROMPT, steps=1, cfg=1.0))
    assert loaded == ["all-MiniLM-L6-v2"]


def test_official_sizes_of_the_presets_are_what_the_stream_expects() -> None:
    """The names that are split off: blocks of the transformer, both halves of the VAE."""
    with torch.device("meta"):
        transformer, vae = VideoTransformer(transformer_preset("tiny")), VideoAutoencoder(vae_preset("tiny"))
    outside = [name for name in transformer.state_dict() if not name.startswith(turns.BLOCKS)]
    assert {name.split(".")[0] for name in outside} == {
        "scale_shift_table", "patchify_proj", "adaln_single", "caption_projection", "proj_out",
    }  # fmt: skip
    assert {name.split(".")[0] for name in vae.state_dict()} == {"encoder", "decoder", "per_channel_statistics"}


@pytest.mark.parametrize("where", ["offloaded", "streamed"])
def test_loras_are_applied_beside_weights_that_take_turns(tiny_checkpoint: Path, tmp_path: Path, where: str) -> None:
    transformer = openltx.load(tiny_checkpoint, device="cpu").transformer
    draw, tensors = torch.Generator().manual_seed(0), {}
    for name, (d, c) in linear_shapes(transformer).items():
        tensors[f"{name}.lora_A.weight"] = torch.randn(2, c, generator=draw) * c**-0.5
        tensors[f"{name}.lora_B.weight"] = torch.randn(d, 2, generator=draw)
    save_file(tensors, tmp_path / "style.safetensors")

    def sampled(**how: object) -> torch.Tensor:
        model = openltx.load(tiny_checkpoint, device="cpu", precision="float32", **how)
        assert [lora.name for lora in model.loras] == ["style.safetensors"] * ("loras" in how)
        generator = Generator(model)
        for _ in range(2):  # the second time, the blocks have been there already
            *_, last = generator.sample(generator.prepare(GenerationRequest(PROMPT, seed=1, steps=2)))
        assert is_mergeable(model.transformer) == ("residency" not in how)
        return last.state.tokens

    loras = [tmp_path / "style.safetensors"]
    turning = sampled(loras=loras, residency=where)
    assert torch.equal(turning, sampled(loras=loras, residency=where, lora_mode="applied"))
    assert not torch.equal(turning, sampled(residency=where))
    resident = openltx.load(tiny_checkpoint, device="cpu", precision="float32", loras=loras, lora_mode="applied")
    generator = Generator(resident)
    *_, last = generator.sample(generator.prepare(GenerationRequest(PROMPT, seed=1, steps=2)))
    assert torch.equal(turning, last.state.tokens)


@pytest.mark.parametrize("where", ["offloaded", "streamed"])
def test_weights_that_are_not_finite_are_named_when_they_are_read(
    tiny_checkpoint: Path, tmp_path: Path, where: str
) -> None:
    header, name = read_header(tiny_checkpoint), "model.diffusion_model.transformer_blocks.1.ff.net.2.bias"
    tensors = read_tensors(header.tensors)
    tensors[name][3] = torch.nan
    save_file(tensors, tmp_path / "bad.safetensors", metadata=_metadata(tiny_checkpoint))
    with pytest.raises(CheckpointError, match=rf"1 of the .* values of {name}"):
        openltx.load(tmp_path / "bad.safetensors", device="cpu")
    generator = Generator(openltx.load(tmp_path / "bad.safetensors", device="cpu", residency=where))
    with pytest.raises(CheckpointError, match=rf"1 of the .* values of {name}"):
        generator(GenerationRequest(PROMPT, seed=1))


@pytest.mark.parametrize("where", ["offloaded", "streamed"])
def test_windows_take_turns_with_the_decoder_of_the_frames_before(tiny_checkpoint: Path, where: str) -> None:
    request, windows = GenerationRequest(PROMPT, seed=1, frames=41, steps=2), Windows(window=17, overlap=9)
    frames = []
    for one in ("resident", where):
        model = openltx.load(tiny_checkpoint, device="cpu", precision="float32", residency=one)
        video = LongVideo(model, windows)
        frames.append(np.concatenate(list(video.stream(video.plan(request)))))
    assert frames[0].shape == (41, 32, 64, 3)
    assert np.array_equal(*frames)


@pytest.mark.parametrize("where", ["offloaded", "streamed"])
def test_two_passes_take_turns_too(tiny_checkpoint: Path, upscaler_files: dict[str, Path], where: str) -> None:
    passes = TwoPass(first={"steps": 2}, second={"times": (0.9, 0.5)})
    frames = []
    for one in ("resident", where):
        model = openltx.load(tiny_checkpoint, device="cpu", precision="float32", residency=one)
        make = TwoPassGenerator(model, openltx.load_upscaler(upscaler_files["space"], model.vae), passes)
        frames.append(make(GenerationRequest(PROMPT, seed=1, size="96x96")).frames)
    assert np.array_equal(*frames)


def _metadata(checkpoint: Path) -> dict[str, str]:
    header = read_header(checkpoint)
    return header.metadata | {"config": json.dumps(header_config(header))}
