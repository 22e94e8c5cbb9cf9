"""Detection of 1,203 names in one image: a shared image stem and full prompts against a full pass per chunk.

    python -m benchmarks.detect                                   # base at 800 x 1333, CPU or GPU
    python -m benchmarks.detect --preset tiny --short 160 --longest 256

"full passes" is the published protocol: 40 names a prompt, every prompt from the pixels. "shared stem" runs the image
stem once for the same prompts and must find the same boxes. "packed" puts as many names as fit into each prompt
(`--chunk auto`). Timed are the first `--chunks` prompts of each way, the rest is scaled up from them: what is paid for
every prompt by their number, the image stem once or with them. Random weights; gates half open; prompts padded to 256
tokens; made-up names of as many tokens as names of LVIS have (about 2.6 and a separator). Post-processing has the most
to do that it can: threshold 0, so 1,000 candidates on every level, and 300 boxes a prompt.
"""

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import deform_conv2d

from benchmarks.coarse_step import count_operations, matmul_rate
from benchmarks.common import hardware, image_options, open_gates, pick_device, timed, write
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.model.detector.deform_conv import deform_conv_by_rows
from fiber_cli.model.detector.head import TokenHead
from fiber_cli.model.pixels import padded
from fiber_cli.tasks.regions import task as region_task
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, chunk_labels, label_prompts
from fiber_cli.tasks.regions.prompts import PromptName
from fiber_cli.tasks.regions.task import RegionTask

NAMES, CHUNK, LENGTH = 1203, 40, 256
KINDS = (
    "small large wooden plastic metal glass paper round square tall short red hard old new open closed dark bright "
    "striped wet dry blue light white black thin empty"
)
THINGS = (
    "lamp table chair bottle basket bucket ladder mirror drawer blanket pillow curtain cabinet hammer box umbrella "
    "helmet jacket wallet suitcase guitar violin drum kettle toaster oven fork spoon plate bowl candle clock camera "
    "keyboard printer radio tractor wagon scooter kayak lemon carrot cup waffle"
)
#: Boxes nearer than this many pixels, with scores nearer than that, are the same.
SAME_BOX, SAME_SCORE = 0.05, 1e-4


def made_up_names(count: int) -> list[PromptName]:
    """Distinct names of two words, in an order that mixes both."""
    pairs = list(itertools.product(KINDS.split(), THINGS.split()))
    order = np.random.default_rng(0).permutation(len(pairs))[:count]
    return [PromptName(" ".join(pairs[i])) for i in order]


def fine_config(preset: str, vocab: int, drop_path: float = 0.0, **changes) -> FiberConfig:
    """The preset as the fine stage runs it."""
    config = PRESETS[preset]
    image = dataclasses.replace(config.image, fixed_window=True, drop_path=drop_path)
    text = dataclasses.replace(config.text, vocab=vocab)
    return dataclasses.replace(config, image=image, text=text, norm_image_query=True, **changes)


def random_pixels(size: tuple[int, int], **like) -> torch.Tensor:
    """uint8 (1, 3, H, W) for an image of `size` (height, width), with the padding that the network needs."""
    return torch.randint(0, 256, (1, 3, *map(padded, size)), dtype=torch.uint8, **like)


class Meter:
    """Sums up what `measure`, call -> (amount, result), says of every call of a part of a task's detection."""

    def __init__(self, task: RegionTask, measure: Callable[[Callable], tuple[float, Any]]):
        self.sums: dict[str, float] = defaultdict(float)
        for part, (owner, method) in {
            "image stem": (task, "image_stem"),
            "text stem": (task.encoder, "text_stem"),
            "fused top": (task.encoder, "fuse"),
            "pyramid": (task.detector.fpn, "forward"),
            "head": (task.detector.head, "forward"),
            "boxes": (region_task, "postprocess_batch"),
        }.items():
            setattr(owner, method, self._measured(part, getattr(owner, method), measure))

    def _measured(self, part: str, method: Callable, measure: Callable) -> Callable:
        def call(*args, **kwargs):
            amount, result = measure(lambda: method(*args, **kwargs))
            self.sums[part] += amount
            return result

        return call

    def taken(self) -> dict[str, float]:
        """The sums since the last time."""
        sums, self.sums = dict(self.sums), defaultdict(float)
        return sums


def operations(config: FiberConfig, size: tuple[int, int]) -> dict[str, float]:
    """Floating-point operations of every part in one pass over one image and one prompt, from shapes alone."""

    def counted(call: Callable) -> tuple[int, Any]:
        results = []
        return count_operations(lambda: results.append(call())), results[0]

    with FakeTensorMode(allow_non_fake_inputs=True):
        task = RegionTask(config).eval()
        meter = Meter(task, counted)
        ids = torch.zeros(1, LENGTH, dtype=torch.long)
        text = task.encoder.text_stem(ids, ids == 0)
        task.detect(task.image_stem(random_pixels(size), torch.tensor([size])), text)
    return meter.taken()


def differences(a: np.ndarray, b: np.ndarray) -> tuple[int, float, float]:
    """Of two predictions (n, 6): rows without a counterpart in the other, the largest differences of boxes and scores
    between counterparts."""
    single, boxes, scores = 0, [0.0], [0.0]
    for label in np.union1d(a[:, 5], b[:, 5]):
        one, other = a[a[:, 5] == label], b[b[:, 5] == label]
        apart = np.abs(one[:, None, :5] - other[:, :5])
        pixels, score = apart[..., :4].max(-1), apart[..., 4]
        same = (pixels < SAME_BOX) & (score < SAME_SCORE)
        single += int((~same.any(0)).sum() + (~same.any(1)).sum())
        boxes.append(float(pixels[same].max(initial=0)))
        scores.append(float(score[same].max(initial=0)))
    return single, max(boxes), max(scores)


def convolutions(head: TokenHead, size: tuple[int, int], device: torch.device) -> dict[str, float]:
    """Seconds of one 3x3 convolution at the finest level: plain, and deformable in both forms; the best of three."""
    block = head.tower[0]
    weight, bias = block.same.weight, block.same.bias
    x = torch.randn(1, weight.shape[1], size[0] // 8, size[1] // 8, device=device)
    x = x.to(memory_format=torch.channels_last)
    offset, mask = block.offset(x).split((18, 9), 1)
    mask = mask.sigmoid()
    ways = {
        "plain": lambda: F.conv2d(x, weight, bias, padding=1),
        "deformable by rows": lambda: deform_conv_by_rows(x, offset, weight, bias, 1, 1, mask),
        "torchvision's operator": lambda: deform_conv2d(x, offset, weight, bias, 1, 1, mask=mask),
    }
    return {name: min(timed(call, device)[0] for _ in range(4)) for name, call in ways.items()}


@torch.no_grad()
def main() -> None:
    parser = image_options(__doc__)
    parser.add_argument(
        "--chunks", type=int, help="prompts timed of each way, at least 2, default 3 on a CPU, all on a GPU"
    )
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device()
    torch.backends.cudnn.allow_tf32 = False  # the boxes of two ways are compared
    size = args.short, args.longest
    tokenizer = load_tokenizer("builtin")
    names = made_up_names(NAMES)
    config = fine_config(args.preset, len(tokenizer))
    torch.manual_seed(0)
    task = RegionTask(config, score_threshold=0.0, max_detections=300).to(device).eval()
    open_gates(task)
    # As drawn, boxes of neighbouring anchors differ so little that rounding decides between them.
    for conv in (task.detector.head.box, task.detector.head.centerness):
        conv.weight.mul_(30)
    pixels = random_pixels(size)[0, :, : size[0], : size[1]]
    groups = {chunk: chunk_labels(names, tokenizer, LENGTH, chunk) for chunk in (CHUNK, "auto")}
    prompts = {chunk: label_prompts(names, tokenizer, LENGTH, chunk) for chunk in groups}
    if args.chunks == 1:
        parser.error("--chunks 1: what is paid once and for every prompt cannot be told apart; give at least 2")
    timed_prompts = min(args.chunks or (3 if device.type == "cpu" else NAMES), *(map(len, groups.values())))
    layout = {}

    def look(module: nn.Module, inputs: tuple) -> None:
        layout["channels_last"] = all(x.is_contiguous(memory_format=torch.channels_last) for x in inputs[0][:3])

    task.detector.head.register_forward_pre_hook(look)
    meter = Meter(task, lambda call: timed(call, device))

    def detection_batch(chunk: int | str, first: int, end: int) -> dict:
        labels = torch.tensor([label for group in groups[chunk][first:end] for label in group])
        prompt_batch = PromptBatch.all_pairs(prompts[chunk][first:end], 1)._replace(labels=labels)
        return to_device(prompt_batch.with_images([pixels], [torch.tensor(size)]), device)

    def predict(chunk: int | str, first: int, end: int) -> tuple[float, np.ndarray]:
        batch = detection_batch(chunk, first, end)
        seconds, (rows,) = timed(lambda: task.predict(batch), device)
        return seconds, rows

    def full_passes(first: int, end: int) -> list[tuple[float, np.ndarray]]:
        return [predict(CHUNK, i, i + 1) for i in range(first, end)]

    task.predict(detection_batch(CHUNK, 0, 1))  # warms up
    meter.taken()
    # Half before and half after, so that a machine that grows slower in between favours neither.
    passes = full_passes(0, (timed_prompts + 1) // 2)
    parts_full = meter.taken()
    shared_seconds, shared_rows = predict(CHUNK, 0, timed_prompts)
    parts_shared = meter.taken()
    packed_seconds, _ = predict("auto", 0, timed_prompts)
    parts_packed = meter.taken()
    passes += full_passes((timed_prompts + 1) // 2, timed_prompts)
    parts_full = {part: parts_full[part] + seconds for part, seconds in meter.taken().items()}
    full_rows = np.concatenate([rows for _, rows in passes])
    single, box_difference, score_difference = differences(shared_rows, full_rows)
    flop = operations(config, size)
    rate = matmul_rate(device, torch.float32)
    stem_flop, rest_flop = flop["image stem"], sum(flop.values()) - flop["image stem"]
    ways = {}
    for name, chunk, seconds, parts in (
        ("full passes", CHUNK, sum(seconds for seconds, _ in passes), parts_full),
        ("shared stem", CHUNK, shared_seconds, parts_shared),
        ("packed", "auto", packed_seconds, parts_packed),
    ):
        count = len(groups[chunk])
        stems = count if name == "full passes" else 1
        stem = parts["image stem"] / (timed_prompts if name == "full passes" else 1)
        rest = (seconds - parts["image stem"]) / timed_prompts
        parts["norms and all else"] = seconds - sum(parts.values())
        ways[name] = {
            "prompts": count,
            "seconds": stems * stem + count * rest,
            "tflop": (stems * stem_flop + count * rest_flop) / 1e12,
            "timed_seconds": seconds,
            "timed_parts": parts,
        }
    full = ways["full passes"]
    for way in ways.values():
        way |= {"times_faster": full["seconds"] / way["seconds"], "times_fewer_flop": full["tflop"] / way["tflop"]}
    tokens = sum(len(tokenizer(" " + name.name)["input_ids"]) - 2 for name in names) / NAMES
    report = {
        "preset": args.preset,
        "image": size,
        "names": NAMES,
        "tokens_a_name": tokens,
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "matmul_tflop_per_second": rate / 1e12,
        "prompts_timed": timed_prompts,
        "ways": ways,
        "boxes": len(shared_rows),
        "boxes_without_counterpart": single,
        "largest_box_difference": box_difference,
        "largest_score_difference": score_difference,
        "gflop_a_pass": {part: value / 1e9 for part, value in flop.items()},
        "convolution_seconds": convolutions(task.detector.head, size, device),
        **layout,
    }
    where = f"{report['hardware']}, {report['threads']} threads, float32, matmul {rate / 1e12:.2f} TFLOP/s"
    print(f"{args.preset}, one image of {size[0]} x {size[1]}, {NAMES} names of {tokens:.2f} tokens, {where}")
    for name, way in ways.items():
        scaled = f"from {timed_prompts} of {way['prompts']} prompts"
        print(
            f"{name:12} {way['tflop']:9.3f} TFLOP {way['seconds']:9.2f} s, {scaled}: "
            f"{way['times_fewer_flop']:.2f} times fewer operations, {way['times_faster']:.2f} times faster"
        )
    print(
        f"boxes of shared stem and full passes: {len(shared_rows)}, {single} without a counterpart, largest difference "
        f"{box_difference:.1e} pixels, score {score_difference:.1e}"
    )
    print(f"where the time goes, {timed_prompts} prompts: {'GFLOP each':>12}" + "".join(f"{name:>14}" for name in ways))
    for part in full["timed_parts"]:
        cells = "".join(f"{way['timed_parts'][part]:12.3f} s" for way in ways.values())
        print(f"  {part:32} {report['gflop_a_pass'].get(part, 0):8.1f} {cells}")
    speed = timed_prompts * flop["head"] / parts_full["head"]
    print(f"head: {speed / rate:.2f} of the matmul rate; maps come channels last: {report['channels_last']}")
    print(
        "one 3x3 convolution at the finest level: "
        + ", ".join(f"{name} {seconds:.4f} s" for name, seconds in report["convolution_seconds"].items())
    )
    write(report, args.json)
    assert single <= 0.005 * len(shared_rows), "the shared stem found other boxes"


if __name__ == "__main__":
    main()
