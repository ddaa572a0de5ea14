"""The tables of docs/scaling.md: training the released sizes on many H100s, computed and not measured.

python -m benchmarks.training_scale
"""

from dataclasses import replace

from openltx.distributed.cost import H100, Setup, training_cost
from openltx.eval.report import markdown_table
from openltx.geometry import VideoShape
from openltx.models.presets import transformer_preset

SHORT = VideoShape(width=768, height=512, frames=97, fps=24.0)
LONG = VideoShape(width=1216, height=704, frames=257, fps=30.0)


def tokens(video: VideoShape) -> int:
    return video.latent().num_tokens


SETUPS = (
    ("2b", SHORT, Setup(devices=8, videos=64, tokens=tokens(SHORT), recompute=True)),
    ("2b", SHORT, Setup(devices=8, videos=16, tokens=tokens(SHORT))),
    ("2b", LONG, Setup(devices=8, videos=8, tokens=tokens(LONG))),
    ("2b", LONG, Setup(devices=8, videos=8, tokens=tokens(LONG), recompute=True)),
    ("2b", LONG, Setup(devices=8, videos=8, tokens=tokens(LONG), sequence=4, accumulate=4)),
    ("2b", SHORT, Setup(devices=64, videos=512, tokens=tokens(SHORT), recompute=True)),
    ("2b", SHORT, Setup(devices=64, videos=128, tokens=tokens(SHORT))),
    ("2b", LONG, Setup(devices=64, videos=64, tokens=tokens(LONG), recompute=True)),
    ("2b", LONG, Setup(devices=64, videos=16, tokens=tokens(LONG), sequence=4)),
    ("13b", SHORT, Setup(devices=64, videos=128, tokens=tokens(SHORT), recompute=True)),
)


def rows() -> list[list[str]]:
    """One for each setup."""
    found = []
    for name, video, setup in SETUPS:
        cost = training_cost(transformer_preset(name), setup)
        fits = cost.memory < setup.accelerator.memory
        found.append(
            [
                f"{setup.devices} x {setup.accelerator.name}",
                name.upper(),
                f"{video.width}x{video.height}, {video.frames} frames ({setup.tokens:,} tokens)",
                str(setup.videos),
                f"{setup.sequence} / {setup.accumulate}",
                "yes" if setup.recompute else "no",
                f"{cost.memory / 1e9:.0f} GB{'' if fits else ' (too much)'}",
                f"{cost.compute_seconds:.2f} s",
                f"{cost.traffic_seconds:.2f} s",
                f"{cost.tokens_per_second / 1e3:,.0f} k",
                f"{86400 * setup.videos / cost.seconds / 1e6:.2f} M",
            ]
        )
    return found


def table() -> str:
    """Markdown."""
    header = [
        "devices", "model", "videos of", "a step", "sequence / turns", "recompute", "memory each", "operations",
        "traffic", "tokens a second", "videos a day",
    ]  # fmt: skip
    return markdown_table(header, rows())


def sharding_table() -> str:
    """What each device holds of the 2B and the 13B, without activations."""
    found = []
    for name in ("2b", "13b"):
        for devices in (1, 8, 64):
            setup = Setup(devices=devices, videos=devices, tokens=1)
            cost = training_cost(transformer_preset(name), replace(setup, accelerator=H100))
            found.append([name.upper(), str(devices), f"{cost.state_bytes / 1e9:.1f} GB"])
    return markdown_table(["model", "devices", "weights, gradients, AdamW, average"], found)


if __name__ == "__main__":
    print(table())
    print()
    print(sharding_table())
