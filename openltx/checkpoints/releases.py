"""Every release of LTX-Video by name: its file, where it is published, its licence, size and company.

What is not said here but read from the file itself: the architecture, the schedule, whether positions are causal, and
the times at which a distilled model may be called.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from openltx.checkpoints.settings import BASE, DEV_13B, DISTILLED_096, DISTILLED_2B, DISTILLED_13B, EARLY

ReleaseKind = Literal["model", "upscaler", "lora", "text encoder"]

RESEARCH = "RAIL-M, for research"
OPEN = "OpenRAIL-M, commercial use under conditions"
T5 = "t5-xxl"
SPATIAL_097, SPATIAL_098 = "ltxv-spatial-upscaler-0.9.7", "ltxv-spatial-upscaler-0.9.8"


@dataclass(frozen=True, kw_only=True)
class Release:
    """One published file (or, for the text encoder, two folders).

    file       its name in ``repo``; None: ``folders`` there
    gigabytes  about how large it is, in 10^9 bytes
    needs      the names of releases that it is used with
    trigger    a word that the prompt must have in it
    sampling   the settings of a model (``checkpoints.settings``)
    """

    name: str
    kind: ReleaseKind
    about: str
    date: str | None = None
    gigabytes: float
    repo: str = "Lightricks/LTX-Video"
    file: str | None = None
    folders: tuple[str, ...] = ()
    licence: str = OPEN
    needs: tuple[str, ...] = ()
    trigger: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)


_ROWS: tuple[Release, ...] = (
    Release(
        name="ltxv-2b-0.9",
        kind="model",
        about="2B, the first",
        date="2024-11-21",
        file="ltx-video-2b-v0.9.safetensors",
        gigabytes=9.4,
        licence=RESEARCH,
        needs=(T5,),
        sampling=EARLY,
    ),
    Release(
        name="ltxv-2b-0.9.1",
        kind="model",
        about="2B, the decoder denoises",
        date="2024-12-20",
        file="ltx-video-2b-v0.9.1.safetensors",
        gigabytes=5.7,
        licence=RESEARCH,
        needs=(T5,),
        sampling=EARLY,
    ),
    Release(
        name="ltxv-2b-0.9.5",
        kind="model",
        about="2B, keyframes and extension",
        date="2025-03-05",
        file="ltx-video-2b-v0.9.5.safetensors",
        gigabytes=6.3,
        needs=(T5,),
        sampling=EARLY,
    ),
    Release(
        name="ltxv-2b-0.9.6-dev",
        kind="model",
        about="2B",
        date="2025-04-17",
        file="ltxv-2b-0.9.6-dev-04-25.safetensors",
        gigabytes=6.3,
        needs=(T5,),
        sampling=BASE,
    ),
    Release(
        name="ltxv-2b-0.9.6-distilled",
        kind="model",
        about="2B, 8 steps",
        date="2025-04-17",
        file="ltxv-2b-0.9.6-distilled-04-25.safetensors",
        gigabytes=6.3,
        needs=(T5,),
        sampling=DISTILLED_096,
    ),
    Release(
        name="ltxv-13b-0.9.7-dev",
        kind="model",
        about="13B, two passes",
        date="2025-05-05",
        file="ltxv-13b-0.9.7-dev.safetensors",
        gigabytes=28.6,
        needs=(T5, SPATIAL_097),
        sampling=DEV_13B,
    ),
    Release(
        name="ltxv-13b-0.9.7-dev-fp8",
        kind="model",
        about="13B in 8-bit floats, two passes",
        date="2025-05-05",
        file="ltxv-13b-0.9.7-dev-fp8.safetensors",
        gigabytes=15.7,
        needs=(T5, SPATIAL_097),
        sampling=DEV_13B,
    ),
    Release(
        name="ltxv-13b-0.9.7-distilled",
        kind="model",
        about="13B, 7 + 3 steps",
        date="2025-05-14",
        file="ltxv-13b-0.9.7-distilled.safetensors",
        gigabytes=28.6,
        needs=(T5, SPATIAL_097),
        sampling=DISTILLED_13B,
    ),
    Release(
        name="ltxv-13b-0.9.7-distilled-fp8",
        kind="model",
        about="13B in 8-bit floats, 7 + 3 steps",
        date="2025-05-14",
        file="ltxv-13b-0.9.7-distilled-fp8.safetensors",
        gigabytes=15.7,
        needs=(T5, SPATIAL_097),
        sampling=DISTILLED_13B,
    ),
    Release(
        name="ltxv-13b-0.9.8-dev",
        kind="model",
        about="13B, two passes",
        date="2025-07-16",
        file="ltxv-13b-0.9.8-dev.safetensors",
        gigabytes=28.6,
        needs=(T5, SPATIAL_098),
        sampling=DEV_13B,
    ),
    Release(
        name="ltxv-13b-0.9.8-dev-fp8",
        kind="model",
        about="13B in 8-bit floats, two passes",
        date="2025-07-16",
        file="ltxv-13b-0.9.8-dev-fp8.safetensors",
        gigabytes=15.7,
        needs=(T5, SPATIAL_098),
        sampling=DEV_13B,
    ),
    Release(
        name="ltxv-13b-0.9.8-distilled",
        kind="model",
        about="13B, 7 + 3 steps",
        date="2025-07-16",
        file="ltxv-13b-0.9.8-distilled.safetensors",
        gigabytes=28.6,
        needs=(T5, SPATIAL_098),
        sampling=DISTILLED_13B,
    ),
    Release(
        name="ltxv-13b-0.9.8-distilled-fp8",
        kind="model",
        about="13B in 8-bit floats, 7 + 3 steps",
        date="2025-07-16",
        file="ltxv-13b-0.9.8-distilled-fp8.safetensors",
        gigabytes=15.7,
        needs=(T5, SPATIAL_098),
        sampling=DISTILLED_13B,
    ),
    Release(
        name="ltxv-2b-0.9.8-distilled",
        kind="model",
        about="2B, 7 + 3 steps",
        date="2025-07-16",
        file="ltxv-2b-0.9.8-distilled.safetensors",
        gigabytes=6.3,
        needs=(T5, SPATIAL_098),
        sampling=DISTILLED_2B,
    ),
    Release(
        name="ltxv-2b-0.9.8-distilled-fp8",
        kind="model",
        about="2B in 8-bit floats, 7 + 3 steps",
        date="2025-07-16",
        file="ltxv-2b-0.9.8-distilled-fp8.safetensors",
        gigabytes=4.5,
        needs=(T5, SPATIAL_098),
        sampling=DISTILLED_2B,
    ),
    Release(
        name=SPATIAL_097,
        kind="upscaler",
        about="latents twice as wide and high",
        date="2025-05-05",
        file="ltxv-spatial-upscaler-0.9.7.safetensors",
        gigabytes=0.5,
    ),
    Release(
        name=SPATIAL_098,
        kind="upscaler",
        about="latents twice as wide and high",
        date="2025-07-16",
        file="ltxv-spatial-upscaler-0.9.8.safetensors",
        gigabytes=0.5,
    ),
    Release(
        name="ltxv-temporal-upscaler-0.9.7",
        kind="upscaler",
        about="twice as many latent frames",
        date="2025-05-05",
        file="ltxv-temporal-upscaler-0.9.7.safetensors",
        gigabytes=0.5,
    ),
    Release(
        name="ltxv-temporal-upscaler-0.9.8",
        kind="upscaler",
        about="twice as many latent frames",
        date="2025-07-16",
        file="ltxv-temporal-upscaler-0.9.8.safetensors",
        gigabytes=0.5,
    ),
    Release(
        name="ltxv-13b-0.9.7-distilled-lora128",
        kind="lora",
        about="makes 13B dev a distilled model",
        date="2025-05-14",
        file="ltxv-13b-0.9.7-distilled-lora128.safetensors",
        gigabytes=1.3,
        needs=("ltxv-13b-0.9.7-dev",),
    ),
    *(
        Release(
            name=f"ltxv-097-ic-lora-{control}-control",
            kind="lora",
            about=f"IC-LoRA: follows {what}",
            date="2025-07-08",
            repo=f"Lightricks/LTX-Video-ICLoRA-{control}-13b-0.9.7",
            file=f"ltxv-097-ic-lora-{control}-control-diffusers.safetensors",
            gigabytes=gigabytes,
            needs=("ltxv-13b-0.9.7-dev",),
        )
        for control, what, gigabytes in (
            ("depth", "a depth map", 0.08),
            ("pose", "poses", 0.15),
            ("canny", "edges", 0.08),
        )
    ),
    Release(
        name="ltxv-098-ic-lora-detailer",
        kind="lora",
        about="IC-LoRA: adds detail to a video",
        date="2025-07-16",
        repo="Lightricks/LTX-Video-ICLoRA-detailer-13b-0.9.8",
        file="ltxv-098-ic-lora-detailer-diffusers.safetensors",
        gigabytes=1.3,
        needs=("ltxv-13b-0.9.8-dev",),
    ),
    *(
        Release(
            name=f"ltxv-095-{effect}-lora",
            kind="lora",
            about=f"style LoRA: {what}",
            repo=f"Lightricks/LTX-Video-{effect.capitalize()}-LoRA",
            file=f"ltxv_095_{effect}_lora.safetensors",
            gigabytes=0.5,
            needs=("ltxv-2b-0.9.5",),
            trigger=effect.upper(),
        )
        for effect, what in (("cakeify", "everything is cake"), ("squish", "everything is squeezed"))
    ),
    Release(
        name=T5,
        kind="text encoder",
        about="T5 v1.1 XXL with its tokenizer, for every model",
        repo="PixArt-alpha/PixArt-XL-2-1024-MS",
        folders=("text_encoder", "tokenizer"),
        gigabytes=19.1,
        licence="Apache-2.0",
    ),
)

RELEASES: dict[str, Release] = {release.name: release for release in _ROWS}
