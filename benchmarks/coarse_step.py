"""One coarse pre-training step with shared stems against the same step with every pass computed from the pixels.

    python -m benchmarks.coarse_step                              # base at 384, CPU or GPU
    python -m benchmarks.coarse_step --preset tiny --batch 16

On a processor where oneDNN computes products (`fiber_cli.model.linear`) the latter is also measured by PyTorch's own,
as the published code would run. Prints, from one run: floating-point operations (2 per multiply-add, forward and
backward), seconds, peak memory, and the share of this device's measured matmul rate that each reaches. The losses must
agree.
"""

import contextlib
import dataclasses
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import hardware, options, pick_device, timed, write
from fiber_cli.model import linear
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.coarse.negatives import draw_negatives
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.token_losses import labelled_positions

#: Of `ways`: the published one by PyTorch's own products.
BY_MKL = "from pixels, by MKL"


def random_batch(config: FiberConfig, batch: int, length: int = 40, seed: int = 0) -> dict:
    """A coarse batch of random pixels and tokens, 15% of the real tokens masked."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, config.text.vocab - 1, (batch, length), generator=g)
    mask = torch.arange(length)[None] < torch.randint(length // 2, length + 1, (batch, 1), generator=g)
    ids = ids.masked_fill(~mask, config.text.pad_id)
    masked = mask & (torch.rand(batch, length, generator=g) < 0.15)
    masked[:, 1] = True
    labels = ids.masked_fill(~masked, -100)
    return {
        "pixels": torch.randint(0, 256, (batch, 3, *config.image_size), dtype=torch.uint8, generator=g),
        "ids": ids,
        "mask": mask,
        "mlm_ids": ids.masked_fill(masked, config.text.vocab - 1),
        "mlm_labels": labels,
        "image_key": torch.arange(batch),
        "seed": seed,
    }


def collated(batch: dict) -> dict:
    """The batch with what the collator of pre-training adds."""
    return batch | {"mlm_positions": labelled_positions(batch["mlm_labels"])}


def losses_from_pixels(task: CoarseTask, batch: dict) -> Iterator[tuple[str, Tensor]]:
    """The losses of `CoarseTask.forward` the published way, one after another: five image passes and five text passes
    from the start, negatives fetched as pixels and tokens, the vocabulary scored at every position. One process."""
    encoder, pixels = task.encoder, normalize(batch["pixels"])
    ids, mask = batch["ids"], batch["mask"]
    itc, similarities = task.itc_loss(
        task.image_features(encoder.image_stem(pixels)), task.text_features(encoder.text_stem(ids, mask))
    )
    yield "itc_loss", itc
    fused = encoder.fuse(encoder.image_stem(pixels), encoder.text_stem(batch["mlm_ids"], mask))
    logits = task.mlm(task.pool.text_transform(fused.text)).float()
    yield "mlm_loss", torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["mlm_labels"].flatten())
    weights = task.negative_weights(similarities)
    image_rows, text_rows = draw_negatives(batch["image_key"], batch["seed"], weights)
    triple = encoder.image_stem(torch.cat([pixels, pixels, pixels[image_rows]]))
    texts = encoder.text_stem(torch.cat([ids, ids[text_rows], ids]), torch.cat([mask, mask[text_rows], mask]))
    labels = (torch.arange(len(triple.map), device=ids.device) < len(ids)).long()
    yield "itm_loss", torch.nn.functional.cross_entropy(task.match(triple, texts).float(), labels)


def at_once(outputs: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The whole loss, which carries the graph, and its parts."""
    yield "loss", outputs["loss"]
    for name, value in outputs.items():
        if name.endswith("_loss"):
            yield name, value.detach()


def step_from_pixels(task: CoarseTask, batch: dict) -> dict[str, Tensor]:
    """All of `losses_from_pixels`, and their sum."""
    losses = dict(losses_from_pixels(task, batch))
    return {"loss": losses["mlm_loss"] + losses["itc_loss"] + losses["itm_loss"], **losses}


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large square matmul, the best of five."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    with torch.no_grad():
        return 2 * side**3 / min(timed(lambda: linear.linear(a, b, None), device)[0] for _ in range(5))


def operations_of_ways(config: FiberConfig, batch_size: int) -> dict[str, int]:
    """Of both ways, forward and backward, from shapes alone."""
    with torch.device("meta"):
        task = CoarseTask(config).to("meta").train()
    batch = collated(random_batch(config, batch_size))
    batch = {k: v.to("meta") if isinstance(v, Tensor) else v for k, v in batch.items()}
    counts = {}
    # Autocast, which is switched off in places, does not know this device.
    with mock.patch("torch.autocast", return_value=contextlib.nullcontext()):
        counts["shared stems"] = count_operations(lambda: task(batch)["loss"].backward())
        counts["from pixels"] = count_operations(lambda: step_from_pixels(task, batch)["loss"].backward())
    return counts


def count_operations(call) -> int:
    """Operations of `call`, attention included (its plain form is counted; fused kernels do the same sums)."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


class Clock(NamedTuple):
    """Seconds of a call: by the wall, and of this process on CPUs, which other processes do not lengthen."""

    wall: float
    cpu: float


def clocked(call: Callable[[], object], device: torch.device) -> Clock:
    before = time.process_time()
    wall, _ = timed(call, device)
    return Clock(wall, time.process_time() - before)


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU, or of the process so far, so that the lighter way is to run first."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, help="default 2 on a CPU, 32 on a GPU")
    parser.add_argument("--repeats", type=int, help="timed steps of each, default 2 on a CPU, 10 on a GPU")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile the blocks")
    args = parser.parse_args()
    device = pick_device()
    batch_size = args.batch or (32 if device.type == "cuda" else 2)
    repeats = args.repeats or (10 if device.type == "cuda" else 2)
    preset = PRESETS[args.preset]
    config = dataclasses.replace(
        preset,
        image=dataclasses.replace(preset.image, drop_path=0.0),
        text=dataclasses.replace(preset.text, dropout=0.0),
    )
    torch.manual_seed(0)
    task = CoarseTask(config).to(device).train()
    batch = {
        k: v.to(device) if isinstance(v, Tensor) else v for k, v in collated(random_batch(config, batch_size)).items()
    }
    rate = matmul_rate(device, torch.bfloat16 if args.bf16 else torch.float32)
    ways = {
        "shared stems": lambda: at_once(task(batch)),
        # On CPUs loss by loss: the same work, and two thirds of the memory.
        "from pixels": lambda: (
            losses_from_pixels(task, batch) if device.type == "cpu" else at_once(step_from_pixels(task, batch))
        ),
    }
    rows = {}
    autocast = torch.autocast(device.type, torch.bfloat16) if args.bf16 else contextlib.nullcontext()

    def step(losses_of) -> dict[str, float]:
        task.zero_grad(set_to_none=True)
        losses = {}
        with autocast:
            remaining = iter(losses_of())
            following = next(remaining, None)
        while following is not None:
            name, loss = following
            if loss.requires_grad:
                loss.backward()
            losses[name] = float(loss.detach())
            del loss
            with autocast:
                following = next(remaining, None)
        return losses

    def step_by_mkl(losses_of) -> dict[str, float]:
        with mock.patch.object(linear, "onednn_is_faster", return_value=False):
            return step(losses_of)

    for name, operations in operations_of_ways(config, batch_size).items():
        rows[name] = {"tflop": operations / 1e12}
    steps = dict.fromkeys(ways, step)
    if device.type == "cpu" and linear.onednn_is_faster():
        ways[BY_MKL], steps[BY_MKL] = ways["from pixels"], step_by_mkl
        rows[BY_MKL] = rows["from pixels"].copy()
    if args.compile:
        compile_blocks(task, any_size=False)
    for name, losses_of in ways.items():
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        losses = steps[name](losses_of)
        rows[name] |= {"peak_gib": peak_memory(device) / 2**30, **losses}
    seconds: dict[str, list[Clock]] = {name: [] for name in ways}
    for _ in range(repeats):
        # In turn, so that what else the machine does falls on all.
        for name, losses_of in ways.items():
            seconds[name].append(clocked(partial(steps[name], losses_of), device))
    for name, row in rows.items():
        clock = sorted(seconds[name])[repeats // 2]
        row |= {
            "seconds": clock.wall,
            "cpu_seconds": clock.cpu,
            "images_per_second": batch_size / clock.wall,
            "of_matmul_rate": row["tflop"] * 1e12 / clock.wall / rate,
        }
    shared, pixels = rows["shared stems"], rows["from pixels"]
    report = {
        "preset": args.preset,
        "batch": batch_size,
        "precision": "bf16" if args.bf16 else "fp32",
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matmul_tflop_per_second": rate / 1e12,
        "ways": rows,
        "operations_ratio": shared["tflop"] / pixels["tflop"],
        "time_ratio": shared["seconds"] / pixels["seconds"],
        "cpu_time_ratio": shared["cpu_seconds"] / pixels["cpu_seconds"],
    }
    if BY_MKL in rows:
        report["cpu_time_ratio_to_mkl"] = shared["cpu_seconds"] / rows[BY_MKL]["cpu_seconds"]
    print(
        f"{args.preset}, batch {batch_size}, {report['precision']}, {report['hardware']}, "
        f"matmul {rate / 1e12:.2f} TFLOP/s"
    )
    columns = (
        "tflop",
        "seconds",
        "cpu_seconds",
        "images_per_second",
        "peak_gib",
        "of_matmul_rate",
        "mlm_loss",
        "itc_loss",
        "itm_loss",
    )
    print(f"{'':20}" + "".join(f"{column:>18}" for column in columns))
    for name, row in rows.items():
        print(f"{name:20}" + "".join(f"{row[column]:18.5f}" for column in columns))
    print(
        f"operations: {report['operations_ratio']:.3f} of the other, time: {report['time_ratio']:.3f}, "
        f"CPU time: {report['cpu_time_ratio']:.3f}"
    )
    if BY_MKL in rows:
        print(f"CPU time beside {BY_MKL}: {report['cpu_time_ratio_to_mkl']:.3f}")
    write(report, args.json)


if __name__ == "__main__":
    main()
