"""A prompt becomes a video.

python examples/text_to_video.py                     the bundled model
python examples/text_to_video.py model.safetensors   another one
"""

import sys

import openltx

model = openltx.load(sys.argv[1] if len(sys.argv) > 1 else "playroom")
video = openltx.generate(model, prompt="a red ball bounces on a checkered floor", seed=7)
video.save("ball.mp4")
print(f"ball.mp4: {len(video.frames)} frames in {video.seconds_taken:.1f} s")
