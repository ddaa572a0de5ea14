"""``LTXModel``: everything that turns a prompt into a video, loaded and named."""

from dataclasses import dataclass, field
from typing import Any

from openltx.flow.schedule import Schedule
from openltx.models.lora import UsedLoRA
from openltx.models.text import TextEncoder
from openltx.models.transformer import VideoTransformer
from openltx.models.vae.autoencoder import VideoAutoencoder


@dataclass(frozen=True, kw_only=True)
class LTXModel:
    """The networks of one checkpoint, and how it wants to be sampled.

    text         None if the checkpoint does not name a text encoder that openltx has
    schedule     its inference schedule
    sampling     its default settings (steps, cfg, decode_timestep, frames, ...), empty if it states none
    allowed_times  the only times, to four digits, at which its transformer may be called; None: any
    fingerprint  the first 16 hexadecimal digits of the SHA-256 of its weight files
    loras        the LoRAs that the transformer carries
    """

    name: str
    transformer: VideoTransformer
    vae: VideoAutoencoder
    text: TextEncoder | None
    schedule: Schedule
    allowed_times: tuple[float, ...] | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    loras: tuple[UsedLoRA, ...] = ()
