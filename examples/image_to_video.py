"""A picture and a prompt become a video; every step of the solver can be watched.

python examples/image_to_video.py start.png                     the bundled model
python examples/image_to_video.py start.png model.safetensors   another one
"""

import sys

import openltx

picture = sys.argv[1]
model = openltx.load(sys.argv[2] if len(sys.argv) > 2 else "playroom")
request = openltx.GenerationRequest("a red ball rolls to the left", image=picture, seed=7)

generator = openltx.Generator(model)
prepared = generator.prepare(request)
for step in generator.sample(prepared):
    print(f"step {step.index + 1} of {step.total}: t = {step.t:.3f} -> {step.t_next:.3f}")
frames = generator.decode(prepared, step.state)  # uint8, F H W 3
print(f"{len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}")

video = generator(request)  # the same in one call, ready to be saved
video.save("rolls.mp4")
