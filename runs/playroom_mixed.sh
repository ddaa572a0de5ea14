#!/usr/bin/env bash
# The transformer of many sizes and lengths, and its variant of eight steps, on the latents of a trained Video-VAE.
#
#   runs/playroom_mixed.sh WORK VAE      WORK: a folder with about 10 GB of room; VAE: a model file (train export)
#
# Run the same command again after any interruption: each step goes on where it was, and finished steps are skipped.
set -euo pipefail
work=${1:?give a folder for the data and the runs}
vae=${2:?give a model file with the Video-VAE}
openltx=${OPENLTX:-openltx}
recipe=playroom-mixed

# Large tensors come and go at every step; without this the C library returns their memory each time.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184

$openltx data world playroom --formats mixed --clips 12000 --seed 0 --workers "$(nproc)" --out "$work/clips"
$openltx data precompute "$work/clips" --vae "$vae" --recipe $recipe --out "$work/latents"
$openltx train flow $recipe --latents "$work/latents" --vae "$vae" --out "$work/flow"
$openltx train export $recipe --vae "$vae" --flow-run "$work/flow" -o "$work/base.safetensors"

$openltx train distill $recipe --base "$work/base.safetensors" --latents "$work/latents" --out "$work/fast"
$openltx train export $recipe --vae "$vae" --flow-run "$work/fast" -o "$work/fast.safetensors"
