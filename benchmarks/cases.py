"""What is measured. Every case gives its rows; ``benchmarks.run`` calls each in a process of its own."""

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contenders import BLOCKS, autoencoders, openvino, transformers
from benchmarks.timing import Row, race, relative_error
from openltx.geometry import LatentShape, token_positions
from openltx.kernels.volume import lay_out_kernels

T = 0.7
SMALL, LARGE = LatentShape(frames=6, height=16, width=16), LatentShape(frames=16, height=16, width=24)  # 1536, 6144
TEXT_TOKENS = 128


def peak(rounds: int, threads: int) -> list[Row]:
    """The machine's own rate: one large matrix product in each type."""
    torch.set_num_threads(threads)
    rows = []
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
        a, b = torch.randn(4096, 2048).to(dtype), torch.randn(8192, 2048).to(dtype)
        with torch.inference_mode():
            seconds = race(
                {"ours": lambda a=a, b=b: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")}, 2 * rounds
            )["ours"]
        rate = 2 * 4096 * 2048 * 8192 / seconds / 1e9
        rows.append(
            Row("matrix product 4096 x 2048 x 8192", "-", name, 1.0, seconds, seconds, note=f"{rate:.0f} GFLOP/s")
        )
    return rows


def dit_bf16_1536(rounds: int, threads: int) -> list[Row]:
    return _dit(SMALL, torch.bfloat16, rounds, threads)


def dit_bf16_6144(rounds: int, threads: int) -> list[Row]:
    return _dit(LARGE, torch.bfloat16, rounds, threads)


def dit_fp32_1536(rounds: int, threads: int) -> list[Row]:
    return _dit(SMALL, torch.float32, rounds, threads)


def dit_two_times(rounds: int, threads: int) -> list[Row]:
    """A first-frame-conditioned video: diffusers takes a time per token, we the two times and an index."""
    return _dit(SMALL, torch.bfloat16, rounds, threads, conditioned=True)


def dit_int8_6144(rounds: int, threads: int) -> list[Row]:
    """Our eight-bit blocks against our bfloat16 ones."""
    from openltx.models.int8 import quantize

    torch.set_num_threads(threads)
    ours, theirs = transformers(BLOCKS, torch.bfloat16)
    del theirs
    exact_model, _ = transformers(BLOCKS, torch.float32)
    inputs = _inputs(LARGE)
    with torch.inference_mode():
        exact = _step(exact_model, inputs, torch.float32)()
        del exact_model
        small, _ = transformers(BLOCKS, torch.bfloat16)
        quantize(small)
        contenders = {"int8": _step(small, inputs, torch.bfloat16), "bf16": _step(ours, inputs, torch.bfloat16)}
        errors = {name: relative_error(run(), exact) for name, run in contenders.items()}
        seconds = race(contenders, rounds)
    ratio = seconds["bf16"] / seconds["int8"]
    return [
        Row("4 blocks of the 2B, 6144 tokens", "ours bf16", "int8", ratio, seconds["int8"], seconds["bf16"],
            errors["int8"], errors["bf16"], note="errors against float32"),
    ]  # fmt: skip


def vae_decode(rounds: int, threads: int) -> list[Row]:
    """The 0.9.5 decoder in full width, 25 frames of 512x320."""
    return _vae("decode", rounds, threads)


def vae_encode(rounds: int, threads: int) -> list[Row]:
    return _vae("encode", rounds, threads)


def vae_memory(rounds: int, threads: int) -> list[Row]:  # noqa: ARG001 (the cases' signature)
    """Peak memory of decoding 121 frames of 768x512, above that of the loaded weights; one process each."""
    ours, theirs = (_measured("benchmarks.memory", who, str(threads)) for who in ("ours", "diffusers"))
    note = f"ours {ours['seconds']:.0f} s, theirs {theirs['seconds']:.0f} s"
    gib = [x["peak_gib"] for x in (ours, theirs)]
    work = "decode 121 frames of 768x512, peak memory"
    return [Row(work, "diffusers, tiled", "bf16", gib[1] / gib[0], *gib, unit="GiB", note=note)]


def playroom(rounds: int, threads: int) -> list[Row]:
    """The bundled model, 49 frames with default settings: model loaded, and the whole process."""
    import openltx

    torch.set_num_threads(threads)
    model = openltx.load("playroom")
    prompt = "a red ball bounces on a checkered floor"
    seconds = race({"ours": lambda: openltx.generate(model, prompt=prompt, seed=7)}, rounds)["ours"]
    command = [sys.executable, "-m", "openltx", "generate", prompt, "--seed", "7", "-o", "/tmp/openltx-bench.mp4"]
    process = race({"ours": lambda: subprocess.run(command, check=True, capture_output=True)}, rounds)["ours"]
    Path("/tmp/openltx-bench.mp4").unlink()
    clock = 49 / 24
    return [
        Row("bundled model, 49 frames, loaded", "the clock", "auto", clock / seconds, seconds, clock),
        Row("bundled model, 49 frames, whole process", "6 s", "auto", 6 / process, process, 6.0),
    ]


def playroom_int8(rounds: int, threads: int) -> list[Row]:  # noqa: ARG001 (the cases' signature)
    """What eight bits do to the bundled model's velocity."""
    import openltx
    from openltx.pipelines.generate import Generator
    from openltx.pipelines.request import GenerationRequest

    torch.set_num_threads(threads)
    request = GenerationRequest("a red ball bounces on a checkered floor", seed=7)
    velocities: dict[str, Tensor] = {}
    for precision in ("float32", "bfloat16", "int8"):
        generator = Generator(openltx.load("playroom", precision=precision))  # type: ignore[arg-type]
        prepared = generator.prepare(request)
        with torch.inference_mode():
            found = [
                generator.model.transformer.step(
                    prepared.state.tokens.expand(2, -1, -1), torch.tensor([[t], [t]]), None, prepared.prompts.both
                )
                for t in (1.0, 0.7, 0.4, 0.1)
            ]
        velocities[precision] = torch.cat(found)
    exact = velocities["float32"]
    errors = {name: relative_error(velocities[name], exact) for name in ("int8", "bfloat16")}
    return [
        Row("bundled model, velocity at four times", "ours bf16", "int8", 1.0, 0.0, 0.0, errors["int8"],
            errors["bfloat16"], note="errors against float32; not timed"),
    ]  # fmt: skip


def training(rounds: int, threads: int) -> list[Row]:
    """Forward and backward pass of both training tasks, beside the same network in plain torch."""
    from benchmarks.training import CLIPS

    rows = []
    for task, clips in CLIPS.items():
        seconds: dict[str, list[float]] = {"auto": [], "off": []}
        for _ in range(2):
            for kernels, found in seconds.items():
                arguments = ("benchmarks.training", task, str(threads), str(rounds))
                found.append(_measured(*arguments, kernels=kernels)["seconds"])
        ours, plain = (min(found) for found in seconds.values())
        note = f"{clips / ours:.1f} clips/s, plain {clips / plain:.1f}; autocast"
        rows.append(
            Row(f"{task} training, forward and backward", "plain torch", "bf16", plain / ours, ours, plain, note=note)
        )
    return rows


def _inputs(shape: LatentShape) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "tokens": torch.randn(1, shape.num_tokens, 128, generator=generator),
        "text": torch.randn(1, TEXT_TOKENS, BLOCKS.caption_channels, generator=generator),
        "positions": token_positions(shape, 24.0).reshape(1, 3, -1),
    }


def _step(model: Any, inputs: dict[str, Tensor], dtype: torch.dtype, first_frame: int = 0) -> Any:
    """One denoising step of ours; what does not change over the steps is prepared outside, as in sampling."""
    mask = torch.ones(1, TEXT_TOKENS, dtype=torch.bool)
    context = model.prepare(inputs["positions"], inputs["text"].to(dtype), mask)
    tokens = inputs["tokens"].to(dtype)
    if first_frame:
        index = (torch.arange(tokens.shape[1]) >= first_frame).long()[None]
        return lambda: model.step(tokens, torch.tensor([[0.0, T]]), index, context)
    return lambda: model.step(tokens, torch.tensor([[T]]), None, context)


def _dit(shape: LatentShape, dtype: torch.dtype, rounds: int, threads: int, conditioned: bool = False) -> list[Row]:
    torch.set_num_threads(threads)
    ours, theirs = transformers(BLOCKS, dtype)
    inputs, n = _inputs(shape), shape.num_tokens
    first_frame = shape.height * shape.width if conditioned else 0
    t = torch.where(torch.arange(n) < first_frame, 0.0, T)[None] if conditioned else torch.tensor([[T]])
    theirs_inputs = (inputs["tokens"], inputs["text"], 1000 * t, torch.ones(1, TEXT_TOKENS), inputs["positions"])
    wrapped = _Positional(theirs)
    with torch.inference_mode():
        contenders: dict[str, Any] = {
            "ours": _step(ours, inputs, dtype, first_frame),
            "diffusers": lambda: wrapped(*(x.to(dtype) for x in theirs_inputs[:2]), *theirs_inputs[2:]),
        }
    if not conditioned:
        hint = "bf16" if dtype == torch.bfloat16 else "f32"
        compiled = openvino(f"blocks-{n}-{hint}", wrapped, theirs_inputs, hint, threads)
        contenders["openvino"] = lambda: torch.from_numpy(compiled(*theirs_inputs))
    with torch.inference_mode():
        exact = wrapped.double()(*(x.double() for x in theirs_inputs)).clone()
        theirs.to(dtype)
        errors = {name: relative_error(run(), exact) for name, run in contenders.items()}
        seconds = race(contenders, rounds)
    d = BLOCKS.width
    work = BLOCKS.num_layers * (2 * n * 14 * d * d + 4 * n * n * d + 4 * n * TEXT_TOKENS * d)
    label = f"4 blocks of the 2B, {n} tokens" + (", first frame given" if conditioned else "")
    name = "bf16" if dtype == torch.bfloat16 else "f32"
    return [
        Row(label, other, name, seconds[other] / seconds["ours"], seconds["ours"], seconds[other], errors["ours"],
            errors[other], note=f"{work / seconds['ours'] / 1e9:.0f} GFLOP/s")
        for other in seconds if other != "ours"
    ]  # fmt: skip


def _vae(what: str, rounds: int, threads: int) -> list[Row]:
    torch.set_num_threads(threads)
    dtype = torch.bfloat16
    ours, theirs = autoencoders(dtype)
    lay_out_kernels(ours)
    generator = torch.Generator().manual_seed(1)
    t = torch.tensor([0.05])
    x = torch.randn(1, 128, 4, 10, 16, generator=generator)
    wrapped: nn.Module = _Decoder(theirs)
    contenders: dict[str, Any] = {
        "ours": lambda: ours.decode(x.to(dtype), t=0.05, noise_scale=0.0),
        "diffusers": lambda: wrapped(x.to(dtype), t.to(dtype)),
    }
    inputs: tuple[Tensor, ...] = (x, t)
    if what == "encode":
        video = torch.rand(1, 3, 25, 320, 512, generator=generator) * 2 - 1
        wrapped, inputs = _Encoder(theirs), (video,)
        contenders = {"ours": lambda: ours.encode(video.to(dtype)), "diffusers": lambda: wrapped(video.to(dtype))}
    if what == "decode":  # to trace and convert the encoder takes OpenVINO longer than all else together
        compiled = openvino(f"vae-{what}", wrapped, inputs, "bf16", threads)
        contenders["openvino"] = lambda: torch.from_numpy(compiled(*inputs))
    with torch.inference_mode():
        exact = wrapped.float()(*inputs).clone()
        theirs.to(dtype)
        errors = {name: relative_error(run(), exact) for name, run in contenders.items()}
        seconds = race(contenders, rounds)
    label = f"VAE 0.9.5 {what}, 25 frames of 512x320"
    return [
        Row(label, other, "bf16", seconds[other] / seconds["ours"], seconds["ours"], seconds[other], errors["ours"],
            errors[other])
        for other in seconds if other != "ours"
    ]  # fmt: skip


class _Positional(nn.Module):
    """diffusers' transformer with positional arguments."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, text: Tensor, t: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        return self.model(
            hidden_states=tokens, encoder_hidden_states=text, timestep=t, encoder_attention_mask=mask,
            video_coords=positions, return_dict=False,
        )[0]  # fmt: skip


class _Decoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.vae.decode(z, temb=t, return_dict=False)[0]


class _Encoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, video: Tensor) -> Tensor:
        return self.vae.encode(video, return_dict=False)[0].mean


def _measured(module: str, *arguments: str, kernels: str = "auto") -> dict[str, float]:
    command, settings = [sys.executable, "-m", module, *arguments], {**os.environ, "OPENLTX_KERNELS": kernels}
    if module == "benchmarks.memory":  # here the C library gives back what is freed, as it does for a user
        settings = {name: value for name, value in settings.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
    return json.loads(done.stdout.splitlines()[-1])


def measure_peak(work: Any) -> dict[str, float]:
    """Seconds of ``work`` and by how much the resident memory rose above what it was before, at its highest."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the highest value so far is forgotten
    before = _status("VmRSS")
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_gib": (_status("VmHWM") - before) / 2**20}


def _status(field: str) -> int:
    """A field of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
