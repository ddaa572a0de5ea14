"""A long video, written frame by frame as it is decoded: it never lies in memory as a whole.

python examples/long_video.py                     the bundled model
python examples/long_video.py model.safetensors   another one
"""

import sys

import openltx
from openltx.media.writers import VideoWriter

generator = openltx.Generator(openltx.load(sys.argv[1] if len(sys.argv) > 1 else "playroom"))
prepared = generator.prepare(openltx.GenerationRequest("a red ball rolls to the right", frames=97, steps=20, seed=7))
for step in generator.sample(prepared):
    print(f"step {step.index + 1} of {step.total}")

with VideoWriter("long.mp4", prepared.settings.fps, {"request": prepared.request.to_json()}) as writer:
    for frames in generator.decode_stream(prepared, step.state):  # uint8, F H W 3
        writer.write(frames)
        print(f"{len(frames)} more frames")
