"""``make bench``: openltx, diffusers and OpenVINO on the same random weights and inputs, side by side.

    python -m benchmarks.run [--rounds 5] [--only NAME ...] [--json FILE]

Each case runs in a process of its own, with the contenders interleaved; the table has medians and their ratios. Writes
``benchmarks/results/DATE.md`` and, with --json, a list of {work, against, dtype, ratio, ours_s, theirs_s, error, ...}.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.timing import Row

CASES = (
    "peak", "dit_bf16_1536", "dit_bf16_6144", "dit_fp32_1536", "dit_int8_6144", "dit_two_times", "playroom",
    "playroom_int8", "training", "vae_decode", "vae_encode", "vae_memory",
)  # fmt: skip
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        from benchmarks import cases

        rows = getattr(cases, options.case)(options.rounds, options.threads)
        print(json.dumps([asdict(row) for row in rows]))
        return

    started, rows = time.time(), []
    for name in options.only:
        command = [sys.executable, "-m", "benchmarks.run", "--case", name]
        command += ["--rounds", str(options.rounds), "--threads", str(options.threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment(options.threads))
        if done.returncode:
            print(f"{name} failed:\n{done.stderr[-3000:]}", file=sys.stderr)
            continue
        new = [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]
        rows += new
        for row in new:
            print(_line(row), flush=True)
    RESULTS.mkdir(exist_ok=True)
    report = RESULTS / f"{datetime.date.today()}.md"
    report.write_text(_markdown(rows, options.rounds, options.threads, time.time() - started))
    print(f"written: {report}")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _environment(threads: int) -> dict[str, str]:
    """Freed memory stays with the process: none of the contenders pays for the C library's trims."""
    kept = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
    return {**os.environ, **kept, "OMP_NUM_THREADS": str(threads)}


def _line(row: Row) -> str:
    unit = row.unit
    error = "" if row.error is None else f"  error {row.error:.1e}"
    error += "" if row.their_error is None else f" (theirs {row.their_error:.1e})"
    return (
        f"{row.work:48s} {row.dtype:5s} against {row.against:20s} {row.ratio:5.2f}x   ours {row.ours_s:.3f} {unit}, "
        f"theirs {row.theirs_s:.3f} {unit}{error}  {row.note}"
    )


def _markdown(rows: list[Row], rounds: int, threads: int, seconds: float) -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "diffusers", "openvino"))
    head = [
        f"# {datetime.date.today()}",
        "",
        f"{_processor()}, {threads} threads; Python {platform.python_version()}, {packages}.",
        f"{rounds} interleaved rounds after a warm-up, medians; ratio = theirs / ours. {seconds / 60:.0f} minutes.",
        "Errors are relative to the same network in float64 (VAE: float32).",
        "",
        "| work | against | dtype | ratio | ours | theirs | error | their error | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    body = [
        f"| {r.work} | {r.against} | {r.dtype} | {r.ratio:.2f} | {r.ours_s:.3f} {r.unit} | {r.theirs_s:.3f} {r.unit} | "
        f"{_scientific(r.error)} | {_scientific(r.their_error)} | {r.note} |"
        for r in rows
    ]
    return "\n".join([*head, *body, ""])


def _scientific(x: float | None) -> str:
    return "" if x is None else f"{x:.1e}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
