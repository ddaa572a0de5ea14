#!/usr/bin/env bash
# Teach the bundled model an event that its world does not have, a solid that fades away, from 40 clips, by a LoRA; then
# measure the event and everything else with and without it.
#
#   runs/lora_demo.sh WORK          about 200 MB; run it again after an interruption
#
# What it needs: openltx with the extra "world" (rendering). The LoRA's training resumes; so do encoding and rendering.
# The report, WORK/report.json: "ceiling" is how often the judges see the event in real clips of it; under "base" and
# "lora", "event" is how often they see it in generated ones, and colour, motion, shape are those of ordinary prompts.
set -euo pipefail
work=${1:?give a folder for the data and the run}
openltx=${OPENLTX:-openltx}
python=${PYTHON:-python}
here=$(cd "$(dirname "$0")" && pwd)

$python "$here/lora_demo.py" clips "$work/clips" --clips "${CLIPS:-40}"
$openltx train lora playroom --base "${BASE:-playroom}" --data "$work/clips" --out "$work/run" ${STEPS:+--steps "$STEPS"}
$python "$here/lora_demo.py" measure --base "${BASE:-playroom}" --lora "$work/run/lora.safetensors" \
    --prompts "${PROMPTS:-40}" --others "${OTHERS:-200}" --out "$work/report.json"
