"""The two tasks in the real loop, tiny: they learn, resume exactly, and end in a file that generates."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import openltx
from openltx.checkpoints.load import load_vae
from openltx.data.datasets import ClipBatches, Draw, Stage, clips_of, read_clip
from openltx.data.latents import read_examples
from openltx.data.precompute import Precompute, precompute
from openltx.geometry import patchify
from openltx.media.transforms import to_tensor
from openltx.models.bundle import LTXModel
from openltx.models.critic import CriticConfig
from openltx.models.lpips import LPIPS
from openltx.models.presets import transformer_preset, vae_preset
from openltx.models.transformer import VideoTransformer, init_weights
from openltx.models.vae.autoencoder import recompute_blocks
from openltx.training.adversarial import AdversarialConfig, Critic
from openltx.training.conditions import ConditionMix
from openltx.training.config import OptimConfig, RunConfig
from openltx.training.export import export, trained_transformer, trained_vae
from openltx.training.flow import FlowConfig, FlowTask, inference_schedule
from openltx.training.loop import run
from openltx.training.optim import ExponentialAverage
from openltx.training.vae import VAELossConfig, VAETask, new_autoencoder, update_statistics

OPTIM = OptimConfig(kind="muon", lr=2e-3, muon_lr=0.02)
SAMPLING = {"frames": 9, "width": 64, "height": 32, "fps": 24.0, "steps": 2, "cfg": 2.0, "last_step": "decoder"}


def vae_task(folder: Path, frames: int = 9) -> VAETask:
    heldout = [to_tensor(read_clip(folder, clip)) for clip in clips_of(folder, "heldout")]
    return VAETask(
        model=new_autoencoder(vae_preset("tiny"), seed=0),
        data=ClipBatches(folder, (Stage(until=99, draws=(Draw(clips=2, frames=frames),)),), seed=0),
        heldout=heldout,
        losses=VAELossConfig(freeze_statistics_from=6),
        optim=OPTIM,
    )


def adversarial_task(folder: Path, **changes: object) -> VAETask:
    """A critic that learns from step 2 on and is listened to from step 3 on."""
    config = AdversarialConfig(critic=CriticConfig(channels=8, layers=2), critic_from=2, weight_from=3, lecam=0.01)
    base = replace(vae_task(folder), critic=Critic(config), critic_optim=OptimConfig(lr=1e-3))
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name, for brevity


def flow_task(folder: Path, model: LTXModel) -> FlowTask:
    transformer = VideoTransformer(transformer_preset("tiny"))
    init_weights(transformer, torch.Generator().manual_seed(0))
    model = replace(model, transformer=transformer, schedule=inference_schedule(FlowConfig()), sampling=SAMPLING)
    config = FlowConfig(tokens_per_batch=24, caption_dropout=0.2, mixing="none")
    return FlowTask(model, read_examples(folder), config, OPTIM, ["a red ball", "a blue cube"])


def settings(out: Path, steps: int, **changes: object) -> RunConfig:
    base = RunConfig(steps=steps, out=out, autocast="none", tensorboard=False, progress=False, ema_decay=0.5)
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name, for brevity


def losses(out: Path, key: str) -> list[float]:
    return [json.loads(line)[key] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def latent_folder(clip_folder: Path, tiny_model: LTXModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    assert tiny_model.text is not None
    settings = Precompute(phrasings=2, stills=2, ending=2)
    precompute(clip_folder, folder, tiny_model.vae, tiny_model.text, settings=settings)
    return folder


def test_the_vae_learns_freezes_its_statistics_and_resumes_exactly(clip_folder: Path, tmp_path: Path) -> None:
    whole = vae_task(clip_folder)
    run(whole, settings(tmp_path / "whole", 8))
    curve = losses(tmp_path / "whole", "reconstruction/loss")
    assert curve[-1] < 0.8 * curve[0]
    assert list((tmp_path / "whole" / "samples").glob("*.png"))

    run(vae_task(clip_folder), settings(tmp_path / "parts", 5))
    run(vae_task(clip_folder), settings(tmp_path / "parts", 8))
    assert losses(tmp_path / "parts", "reconstruction/loss") == curve

    std = losses(tmp_path / "whole", "reconstruction/latent_std")
    assert std[6] == std[7]  # of the statistics that a step found, frozen behind step 5
    assert std[5] != std[6]


def test_an_adversarial_run_has_two_phases_and_resumes_exactly(clip_folder: Path, tmp_path: Path) -> None:
    run(adversarial_task(clip_folder), settings(tmp_path / "whole", 6))
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert ["critic/loss" in line for line in lines] == [False, False, True, True, True, True]
    assert ["reconstruction/adversarial" in line for line in lines] == [False, False, False, True, True, True]
    assert lines[2]["critic/loss"] == pytest.approx(1.0, abs=1e-3)
    assert lines[-1]["critic/loss"] < 1.0

    for steps in (2, 4, 6):
        run(adversarial_task(clip_folder), settings(tmp_path / "parts", steps))
    for key in ("reconstruction/loss", "reconstruction/grad_norm"):
        assert losses(tmp_path / "parts", key) == [line[key] for line in lines]
    assert trained_vae(tmp_path / "whole").config == vae_preset("tiny")


def test_a_decoder_trained_alone_leaves_the_latents_as_they_were(clip_folder: Path, tmp_path: Path) -> None:
    task = adversarial_task(clip_folder, trained="decoder")
    before = {name: tensor.clone() for name, tensor in task.model.state_dict().items()}
    run(task, settings(tmp_path, 4))
    changed = {name.split(".")[0] for name, tensor in task.model.state_dict().items() if not tensor.equal(before[name])}
    assert changed == {"decoder"}


def test_recomputing_blocks_changes_no_gradient_and_keeps_fewer_values(clip_folder: Path) -> None:
    config = vae_preset("tiny")
    noisy = replace(
        config, decoder_blocks=tuple(replace(b, inject_noise=b.kind == "res_x") for b in config.decoder_blocks)
    )
    model = new_autoencoder(noisy, seed=0)
    for name, parameter in model.named_parameters():
        if "per_channel_scale" in name:
            torch.nn.init.ones_(parameter)
    task = replace(vae_task(clip_folder), model=model)
    video, kept, gradients = task.batch(0, 0), [], []
    for wanted in (False, True):
        recompute_blocks(model, wanted)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: (s.append(x.numel()), x)[1], lambda x: x):
            loss, _ = task.loss(video, 0, torch.Generator().manual_seed(0))
        model.zero_grad()
        loss.backward()
        kept.append(sum(sizes))
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert kept[1] < 0.6 * kept[0]
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-4, atol=1e-6)


def test_images_train_as_clips_of_one_frame(clip_folder: Path, tmp_path: Path) -> None:
    run(vae_task(clip_folder, frames=1), settings(tmp_path, 2))
    assert len(losses(tmp_path, "reconstruction/dwt")) == 2


def test_clips_go_on_from_the_averaged_weights_of_the_images(clip_folder: Path) -> None:
    stages = (Stage(until=3, draws=(Draw(clips=2, frames=1),)), Stage(until=99, draws=(Draw(clips=2, frames=9),)))
    task = replace(vae_task(clip_folder), data=ClipBatches(clip_folder, stages, seed=0))
    average = ExponentialAverage(task.module, 0.9)
    with torch.no_grad():
        for parameter in task.module.parameters():
            parameter.add_(1.0)
    image = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad(), average.applied():
        expected = task.model.decode(task.model.encode(image), 0.0)

    for step in (0, 2, 4):  # not at the boundary: nothing happens
        task.on_step(step, average)
    assert torch.equal(task.model.decoder.conv_in.conv.bias, average.average["decoder.conv_in.conv.bias"] + 1)
    task.on_step(3, average)

    still = image.expand(-1, -1, 9, -1, -1)
    with torch.no_grad():
        got = task.model.decode(task.model.encode(still), 0.0)
    assert (got - expected).abs().max() < 1e-4 * expected.abs().max()
    for name, parameter in task.module.named_parameters():
        assert torch.equal(parameter, average.average[name])


def test_lpips_joins_the_loss_from_its_step_on(clip_folder: Path) -> None:
    lpips = LPIPS("alex")
    for parameter in lpips.parameters():
        torch.nn.init.uniform_(parameter, 0, 0.05, generator=torch.Generator().manual_seed(0))
    task = replace(vae_task(clip_folder), perceptual=lpips, losses=VAELossConfig(lpips_from=1))
    batch = torch.rand(1, 3, 9, 64, 64) * 2 - 1
    _, early = task.loss(batch, 0, torch.Generator().manual_seed(0))
    total, late = task.loss(batch, 1, torch.Generator().manual_seed(0))
    assert "lpips" not in early
    assert late["lpips"] > 0
    total.backward()
    assert all(parameter.grad is None for parameter in lpips.parameters())


def test_running_statistics_settle_on_those_of_the_latents() -> None:
    model = new_autoencoder(vae_preset("tiny"), seed=0)
    latents = 3 + 2 * torch.randn(64, 16, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    for _ in range(400):
        update_statistics(model, latents.mean((0, 2, 3, 4)), latents.square().mean((0, 2, 3, 4)), 0.05)
    torch.testing.assert_close(model.per_channel_statistics.mean, latents.mean((0, 2, 3, 4)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.per_channel_statistics.std, latents.std((0, 2, 3, 4)), rtol=2e-2, atol=1e-3)


def test_the_transformer_learns_and_resumes_exactly(latent_folder: Path, tiny_model: LTXModel, tmp_path: Path) -> None:
    run(flow_task(latent_folder, tiny_model), settings(tmp_path / "whole", 30, sample_every=30))
    curve = losses(tmp_path / "whole", "flow/loss")
    assert sum(curve[-5:]) < 0.9 * sum(curve[:5])
    assert list((tmp_path / "whole" / "samples").glob("*.png"))

    run(flow_task(latent_folder, tiny_model), settings(tmp_path / "parts", 17))
    run(flow_task(latent_folder, tiny_model), settings(tmp_path / "parts", 30))
    assert losses(tmp_path / "parts", "flow/loss") == curve


def test_a_batch_has_clips_of_one_length_and_about_the_same_number_of_tokens(
    latent_folder: Path, tiny_model: LTXModel
) -> None:
    task = flow_task(latent_folder, tiny_model)
    groups = [task.batch(step, 0).groups for step in range(12)]
    assert all(len(clips) == 1 for clips in groups)
    assert {(len(clips.latents), clips.shape.num_tokens) for (clips,) in groups} == {(24 // 6, 6), (24 // 8, 8)}
    assert any((task.batch(step, 0).text_mask.sum(1) == 2).any() for step in range(12))  # an empty caption: two tokens


def test_conditioned_first_frames_are_nearly_clean_and_out_of_the_loss(
    latent_folder: Path, tiny_model: LTXModel
) -> None:
    task = flow_task(latent_folder, tiny_model)
    task.config = replace(task.config, conditions=ConditionMix(first_frame=1.0))
    seen = []
    task.model.transformer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    batch = task.batch(0, 0)
    task.loss(batch, 0, torch.Generator().manual_seed(0))
    (clips,) = batch.groups
    (tokens, times, *_), first = seen[0], clips.shape.height * clips.shape.width
    assert times[:, :first].max() <= task.config.conditions.max_t
    assert (tokens[:, :first] - patchify(clips.latents)[:, :first]).abs().mean() < 0.2
    assert (times[:, first:] == times[:, first : first + 1]).all()


def test_runs_become_a_file_that_generates(
    clip_folder: Path, latent_folder: Path, tiny_model: LTXModel, tmp_path: Path
) -> None:
    run(vae_task(clip_folder), settings(tmp_path / "vae", 1))
    run(flow_task(latent_folder, tiny_model), settings(tmp_path / "flow", 1))
    path = tmp_path / "model.safetensors"
    export(
        path,
        trained_transformer(tmp_path / "flow"),
        trained_vae(tmp_path / "vae"),
        schedule=inference_schedule(FlowConfig()),
        sampling=SAMPLING,
        text_encoder="all-MiniLM-L6-v2",
        world="playroom",
    )
    assert load_vae(path).config == vae_preset("tiny")
    video = openltx.generate(openltx.load(path, device="cpu"), prompt="a red ball", seed=1)
    assert video.frames.shape == (9, 32, 64, 3)
