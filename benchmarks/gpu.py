"""One GPU in under ten minutes: training steps of both stages, inference of every task, and what else one would use.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json       # base, on the GPU at hand
    python -m benchmarks.gpu --preset tiny --small                    # does it run: seconds, on a CPU too

Steps are forward, backward and AdamW with random weights, at several micro-batches, with and without computing
activations again, compiled or not; the share is that of the machine's rate for square products of that precision.
Inference is of every task in float32, with TF32 products and in bfloat16. Peers are models of transformers with random
weights on inputs of the same size: what they cost, not what they find. A measurement that fails, such as one that does
not fit into memory, is a line that says why; what the time no longer allows is named too.
"""

import argparse
import dataclasses
import os
from collections.abc import Iterable

import torch

from benchmarks import peers
from benchmarks.builtin import commit
from benchmarks.coarse_step import matmul_rate
from benchmarks.common import hardware, options, pick_device
from benchmarks.inference import inference_rows
from benchmarks.measured import FULL, SMALL, Report, products
from benchmarks.steps import WAYS, step_rows

PARTS = ("coarse", "fine", "inference", "peers")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--small", action="store_true", help="the smallest sizes: whether it runs")
    parser.add_argument("--minutes", type=float, default=9, help="nothing is begun after so long")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--ways", default=",".join(WAYS), help=f"of the steps, of {', '.join(WAYS)}")
    parser.add_argument("--precisions", help="of inference, all by default: fp32, tf32, bf16")
    args = parser.parse_args()
    device = pick_device()
    if device.type == "cpu" and not args.small:
        parser.error("there is no GPU here, and a CPU would take hours: --preset tiny --small tries it on one")
    offered = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")
    precisions = some_of(parser, "--precisions", args.precisions or ",".join(offered), offered)
    wanted = some_of(parser, "--parts", args.parts, PARTS)
    ways = some_of(parser, "--ways", args.ways, WAYS)
    scale = dataclasses.replace(SMALL if args.small else FULL, preset=args.preset)
    rates = {"bf16": matmul_rate(device, torch.bfloat16)}
    for precision in ("fp32", "tf32"):
        with products(precision):
            rates[precision] = matmul_rate(device, torch.float32)
    named = ", ".join(f"{name} {rate / 1e12:.1f}" for name, rate in rates.items())
    print(f"{hardware(device)}, torch {torch.__version__}, {args.preset}; products in TFLOP/s: {named}", flush=True)
    machine = {
        "hardware": hardware(device),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "commit": commit(),
        "preset": args.preset,
        "matmul_tflop_per_second": {name: rate / 1e12 for name, rate in rates.items()},
    }
    report = Report(args.minutes, machine, args.json)
    for part in wanted:
        if part in ("coarse", "fine"):
            step_rows(report, scale, device, rates["bf16"], part, ways)
        elif part == "inference":
            inference_rows(report, scale, device, precisions)
        else:
            inference_rows(report, scale, device, precisions, peers.CALLS)


def some_of(parser: argparse.ArgumentParser, option: str, given: str, known: Iterable[str]) -> list[str]:
    """The names that an option gives, with commas."""
    names = given.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"{option} {unknown[0]}: give of {', '.join(known)}")
    return names


if __name__ == "__main__":
    main()
