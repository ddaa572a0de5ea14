#!/usr/bin/env bash
# From nothing to the bundled model: render the Playroom world, train the Video-VAE, encode, train the transformer, export.
#
#   runs/playroom.sh WORK          WORK is a folder with about 10 GB of room; everything in it can be resumed
#
# Run the same command again after any interruption: each step goes on where it was, and finished steps are skipped.
# What it costs on two cores, and what comes out, is in openltx/recipes/playroom.py and docs/training.md.
set -euo pipefail
work=${1:?give a folder for the data and the runs}
openltx=${OPENLTX:-openltx}

# Large tensors come and go at every step; without this the C library returns their memory each time.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=17179869184

$openltx assets pull lpips
$openltx data world playroom --clips 8000 --seed 0 --workers "$(nproc)" --out "$work/playroom"

$openltx train vae playroom --data "$work/playroom" --out "$work/vae"
$openltx train export playroom --vae-run "$work/vae" -o "$work/vae.safetensors"

$openltx data precompute "$work/playroom" --vae "$work/vae.safetensors" --out "$work/latents"
$openltx train flow playroom --latents "$work/latents" --vae "$work/vae.safetensors" --out "$work/flow"
$openltx train export playroom --vae "$work/vae.safetensors" --flow-run "$work/flow" -o "$work/playroom.safetensors"

$openltx eval vae --model "$work/playroom.safetensors" --split heldout
$openltx eval playroom --model "$work/playroom.safetensors" --prompts 200
