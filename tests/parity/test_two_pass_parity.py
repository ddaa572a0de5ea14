"""Two passes with an upsampler between them against the official ``LTXMultiScalePipeline``.

The official code goes on drawing from one generator in the second pass, openltx draws from a seed derived for it. So
the second pass is given the official noise here.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from openltx.checkpoints import save_upsampler
from openltx.geometry import unpatchify
from openltx.models.upsampler import LatentUpsampler, UpsamplerConfig
from openltx.pipelines.two_pass import TwoPass, TwoPassGenerator
from openltx.pipelines.upscale import enlarge, load_upscaler

pytestmark = [
    pytest.mark.filterwarnings("ignore:Accessing config attribute:FutureWarning"),  # all of the official code
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]

DOWNSCALE = 0.6666666  # 96 x 64 pixels become 32 x 32 in the first pass (63.99 is below 64), and 64 x 64 in the second
TIMES = {"a part of the schedule": None, "explicit times": (0.9, 0.7, 0.4)}


@pytest.fixture(scope="module")
def upsampler_file(official: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upsampler") / "spatial.safetensors"
    config = UpsamplerConfig(in_channels=official.CHANNELS, mid_channels=32, num_blocks_per_stage=1)
    network = LatentUpsampler(config)
    with torch.no_grad():
        for parameter in network.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 4
            parameter.copy_(torch.randn(parameter.shape) * fan_in**-0.5)
    save_upsampler(path, network, dtype=torch.float32)
    return path


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES)
@torch.no_grad()
def test_two_passes(
    official: ModuleType, pairs: Callable, upsampler_file: Path, times: tuple[float, ...] | None
) -> None:
    from ltx_video.models.autoencoders.latent_upsampler import LatentUpsampler as OfficialUpsampler
    from ltx_video.pipelines.pipeline_ltx_video import LTXMultiScalePipeline

    pair = pairs("0.9.5")
    start = {"skip_initial": 2} if times is None else {"times": times}
    official_start = {"skip_initial_inference_steps": 2} if times is None else {"timesteps": list(times)}

    torch.manual_seed(official.SEED)
    theirs = LTXMultiScalePipeline(pair.theirs, OfficialUpsampler.from_pretrained(upsampler_file).eval())(
        DOWNSCALE,
        {"guidance_scale": 3.0},
        {"guidance_scale": 1.0, **official_start},
        **pair.their_arguments(return_dict=True),
    ).images

    passes = TwoPass(downscale=DOWNSCALE, first={"cfg": 3.0}, second={"cfg": 1.0, **start})
    generator = TwoPassGenerator(pair.ours, load_upscaler(upsampler_file, pair.ours.vae), passes)
    plan = generator.plan(official.a_request(cfg=None))
    first = generator.first_latents(plan)
    larger = enlarge(generator.upscaler, pair.ours.vae, first)
    draws = torch.Generator().manual_seed(official.SEED)
    torch.randn(1, first[0, 0].numel(), official.CHANNELS, generator=draws)  # those of the first pass
    noise = torch.randn(1, larger[0, 0].numel(), official.CHANNELS, generator=draws)
    prepared = generator.second.prepare(plan.second, latents=larger, noise=noise)
    *_, last = generator.second.sample(prepared)
    ours = unpatchify(last.state.targets, prepared.grid)
    assert ours.shape[-2:] == (2, 2)
    official.require_same(ours, theirs, unlike=larger)
