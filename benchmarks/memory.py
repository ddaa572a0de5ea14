"""One contender's peak memory for decoding 121 frames of 768x512, as a line of JSON.

python -m benchmarks.memory ours|diffusers THREADS
"""

import json
import sys

import torch

from benchmarks.cases import measure_peak
from benchmarks.contenders import autoencoders
from openltx.kernels.volume import lay_out_kernels
from openltx.media.transforms import to_frames
from openltx.models.vae.streaming import decode_stream


def main(who: str, threads: int) -> None:
    torch.set_num_threads(threads)
    ours, theirs = autoencoders(torch.bfloat16)
    lay_out_kernels(ours)
    latents = torch.randn(1, 128, 16, 16, 24, generator=torch.Generator().manual_seed(1)).bfloat16()
    theirs.enable_tiling()

    def decode() -> None:
        if who == "ours":
            for piece in decode_stream(ours, latents, 0.05, 0.0):
                to_frames(piece[0])
        else:
            theirs.decode(latents, temb=torch.tensor([0.05]).bfloat16(), return_dict=False)

    with torch.inference_mode():
        print(json.dumps(measure_peak(decode)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
