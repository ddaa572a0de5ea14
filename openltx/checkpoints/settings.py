"""How each released model is sampled: the settings of its official configuration, under the names of a request.

What the official configurations leave to the command line (size, frames, how given pictures are compressed and noised,
the negative prompt) are the defaults of the official command; size and rate before 0.9.6 are those that the releases
were announced with. ``rescale`` is written our way round: official 1 is 0 here (off), anything else is the same.

Models of 0.9.7 and later are made for two passes. Here stand the settings of the first, with which one pass alone works
too; ``recipes.generate`` adds the second. For 0.9.7-dev the official code no longer has a configuration; it is sampled
as 0.9.8-dev, which replaced it. The official file of the distilled 2B model names a block 42 to weaken, which it does
not have and does not use; it is left out.
"""

from typing import Any

NEGATIVE = "worst quality, inconsistent motion, blurry, jittery, distorted"

_COMMAND: dict[str, Any] = {
    "negative": NEGATIVE,
    "frames": 121,
    "width": 1216,
    "height": 704,
    "fps": 30.0,
    "image_crf": 29,
    "image_noise": 0.15,
    "last_step": "renoise",
    "decode_timestep": 0.05,
    "decode_noise_scale": 0.025,
}
_ONE_FORWARD: dict[str, Any] = {"cfg": 1.0, "stg": 0.0, "rescale": 0.0}  # distilled: neither CFG nor STG

BASE = {**_COMMAND, "steps": 40, "cfg": 3.0, "stg": 1.0, "rescale": 0.7, "skip_blocks": (19,)}
EARLY = {**BASE, "width": 768, "height": 512, "fps": 25.0}
DISTILLED_096 = {**_COMMAND, **_ONE_FORWARD, "steps": 8, "stochastic": True}
DEV_13B = {
    **_COMMAND,
    "steps": 30,
    "skip_final": 3,
    "guidance_times": (1.0, 0.996, 0.9933, 0.985, 0.9767, 0.9008, 0.618),
    "cfg": (1.0, 1.0, 6.0, 8.0, 6.0, 1.0, 1.0),
    "cfg_star": True,
    "stg": (0.0, 0.0, 4.0, 4.0, 4.0, 2.0, 1.0),
    "rescale": (0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0),
    "skip_blocks": ((), (11, 25, 35, 39), (22, 35, 39), (28,), (28,), (28,), (28,)),
}
DISTILLED_2B = {**_COMMAND, **_ONE_FORWARD, "times": (1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725)}
DISTILLED_13B = {**DISTILLED_2B, "skip_blocks": (42,)}
