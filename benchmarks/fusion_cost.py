"""A training step with fusion in the backbone against no fusion, and against deep fusion in the head as in GLIP.

    python -m benchmarks.fusion_cost                              # base at 800 x 1333, CPU or GPU
    python -m benchmarks.fusion_cost --preset tiny --short 160 --longest 256

Counted from shapes, deep fusion needs about 25 GiB at 800 x 1333, and 17 GiB at 640 x 1066.

Same image, prompt of 256 tokens and boxes for all: forward, backward and AdamW, float32, nothing recomputed, dropout
and drop path as in training. The towers are the same modules in all three, so that memory holds them once.
"deep fusion" is `task.head_fusion=deep`: attention in both directions between all places of the pyramid and the tokens,
with 8 heads in a width of 2,048, and one more text layer before each block of the head. The steps take turns: seconds
are medians, on a CPU of the process's own time, of all its threads; ratios are medians of the ratios in each turn.
The paper (Table 2, seconds a step on V100s): no fusion 1.31, FIBER 1.38, GLIP 2.14.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.coarse_step import count_operations
from benchmarks.common import hardware, image_options, open_gates, pick_device, timed, write
from benchmarks.detect import LENGTH, NAMES, fine_config, made_up_names, random_pixels
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import DetectorConfig
from fiber_cli.model.detector.detector import Detector
from fiber_cli.tasks.regions.prompt_batch import chunk_labels
from fiber_cli.tasks.regions.prompts import build_prompt, encode_prompt
from fiber_cli.tasks.regions.task import RegionTask

BOXES = 8


def three_ways(preset: str, vocab: int) -> dict[str, RegionTask]:
    """Tasks over the same towers; without fusion in the backbone their cross-attention lies idle."""
    config, alone = (fine_config(preset, vocab, drop_path=0.4, **changes) for changes in ({}, {"fusion_layers": 0}))
    fused = RegionTask(config)
    open_gates(fused)
    with torch.device("meta"):
        plain, deep = RegionTask(alone), RegionTask(alone)
    plain.detector = fused.detector
    deep.detector = Detector(alone, DetectorConfig(fusion="deep"))
    for task in (plain, deep):
        task.encoder.image, task.encoder.text = fused.encoder.image, fused.encoder.text
    tasks = {"no fusion": plain, "fusion in backbone": fused, "deep fusion in head": deep}
    return {name: task.train() for name, task in tasks.items()}


def training_batch(tokenizer, size: tuple[int, int], images: int) -> dict:
    """Random pixels, one prompt of as many names as fit, and some boxes of its names on each image."""
    names = made_up_names(NAMES)
    labels = chunk_labels(names, tokenizer, LENGTH, "auto")[0]
    prompt = encode_prompt(tokenizer, build_prompt([names[i] for i in labels]), LENGTH)
    count = BOXES * images
    corner = torch.rand(count, 2) * torch.tensor([size[1], size[0]]) / 2
    side = (0.1 + 0.4 * torch.rand(count, 2)) * torch.tensor([size[1], size[0]])
    return {
        "pixels": torch.cat([random_pixels(size) for _ in range(images)]),
        "sizes": torch.tensor([size] * images),
        "ids": prompt.ids.expand(images, -1),
        "mask": prompt.mask.expand(images, -1),
        "boxes": torch.cat([corner, corner + side], 1),
        "positive_map": prompt.positive_map[torch.randint(len(labels), (count,))],
        "box_counts": [BOXES] * images,
    }


def operations(preset: str, vocab: int, size: tuple[int, int], images: int) -> dict[str, int]:
    """Floating-point operations of every way's forward and backward pass, from shapes alone."""
    counts = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, task in three_ways(preset, vocab).items():
            ids = torch.zeros(images, LENGTH, dtype=torch.long)

            def passes(task: RegionTask = task, ids: Tensor = ids) -> None:
                pixels = torch.cat([random_pixels(size) for _ in range(images)])
                stem = task.image_stem(pixels, torch.tensor([size] * images))
                out = task.detect(stem, task.encoder.text_stem(ids, ids == 0))
                # The losses themselves multiply no matrices.
                (out.deltas.sum() + out.centerness.sum() + out.logits.sum()).backward()

            counts[name] = count_operations(passes)
    return counts


def main() -> None:
    parser = image_options(__doc__)
    parser.add_argument("--batch", type=int, default=1, help="images a step")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each, after one that does not count")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device()
    size = args.short, args.longest
    tokenizer = load_tokenizer("builtin")
    counts = operations(args.preset, len(tokenizer), size, args.batch)
    torch.manual_seed(0)
    tasks = {name: task.to(device) for name, task in three_ways(args.preset, len(tokenizer)).items()}
    batch = to_device(training_batch(tokenizer, size, args.batch), device)
    own = nn.ModuleList(tasks.values())
    # Parameters without a gradient, those of the other ways, are left alone.
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-5)

    def step(task: RegionTask) -> float:
        loss = task(batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    losses, memory = {}, {}
    for _ in range(args.repeats + 1):
        for name, task in tasks.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken, losses[name] = timed(lambda task=task: step(task), device, of_process=device.type == "cpu")
            seconds[name].append(taken)
            if device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated() / 2**30
    turns = np.array([seconds[name][1:] for name in tasks])
    median = dict(zip(tasks, np.median(turns, axis=1).tolist(), strict=True))
    ratio = dict(zip(tasks, np.median(turns / turns[0], axis=1).tolist(), strict=True))
    ways = {
        name: {
            "tflop": counts[name] / 1e12,
            "operations_ratio": counts[name] / counts["no fusion"],
            "seconds": median[name],
            "time_ratio": ratio[name],
            "all_seconds": seconds[name][1:],
            "peak_gib": memory.get(name),
            "loss": losses[name],
        }
        for name in tasks
    }
    report = {
        "preset": args.preset,
        "image": size,
        "batch": args.batch,
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "clock": "process" if device.type == "cpu" else "wall",
        "ways": ways,
    }
    where = f"{report['hardware']}, {report['threads']} threads, float32"
    print(f"{args.preset}, {args.batch} images of {size[0]} x {size[1]}, {where}, median of {args.repeats} steps")
    for name, way in ways.items():
        peak = "" if way["peak_gib"] is None else f", {way['peak_gib']:.1f} GiB"
        print(
            f"{name:20} {way['tflop']:8.3f} TFLOP ({way['operations_ratio']:.3f} of no fusion) "
            f"{way['seconds']:9.3f} s ({way['time_ratio']:.3f}){peak}"
        )
    write(report, args.json)


if __name__ == "__main__":
    main()
