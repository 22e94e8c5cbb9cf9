"""Detection, ITC and captions in every precision, texts as wide as their longest against the former padding.

    python -m benchmarks.precision                                  # base, speeds, CPU or GPU
    python -m benchmarks.precision --preset tiny --rounds 3
    python -m benchmarks.precision --metrics builtin/detection builtin/retrieval     # no speeds: of trained checkpoints

"before" is float32 with texts padded to the longest that the model takes; "autocast" is bf16 with weights that stay
float32, as it was before. Speeds are of random weights with open gates: one picture of 480 x 640 asked for "cat . dog";
16 captions as long as COCO's through the dual encoder; a caption of 20 tokens by beam search. Every way has its turn in
every round, and the best of the rounds counts, since what else the machine does only adds to it; on a CPU it is the
process's own time, of all its threads. The same numbers are shown by the largest differences in float32; int8 is for
CPUs.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import hardware, open_gates, options, pick_device, timed, write
from benchmarks.detect import differences, fine_config, random_pixels
from fiber_cli import Fiber
from fiber_cli.data import padding
from fiber_cli.data.padding import without_padding
from fiber_cli.data.sources import open_source
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import PRESETS
from fiber_cli.model.precision import precision_context, prepared, settled
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.evaluation import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, label_prompts
from fiber_cli.tasks.regions.prompts import PromptName
from fiber_cli.tasks.regions.task import RegionTask

#: Tokens of 16 captions in COCO's manner by RoBERTa's tokeniser, and the width that they were padded to.
CAPTION_TOKENS = (14, 12, 15, 14, 15, 13, 10, 13, 15, 14, 14, 15, 16, 13, 14, 16)
CAPTION_WIDTH = 40
PROMPT_WIDTH = 256
SIZE = 480, 640
GENERATED, BEAM = 20, 5
#: Trained checkpoints, and how many unseen scenes they are measured on.
CHECKPOINTS = tuple(f"builtin/{name}" for name in ("retrieval", "detection", "caption", "vqa", "nlvr2"))
SCENES = 200
#: Of the dual encoder's best, by fusion.
RERANKED = 10

#: Name → the pass that is timed; in the order in which they are shown.
Ways = dict[str, Callable[[], Any]]


@contextmanager
def padded_as_before():
    """Texts as wide as the longest that a model takes."""
    kept = padding.MULTIPLE
    padding.MULTIPLE = PROMPT_WIDTH
    try:
        yield
    finally:
        padding.MULTIPLE = kept


def precisions(device: torch.device) -> list[str]:
    return ["fp32", "bf16", "int8"] if device.type == "cpu" else ["fp32", "bf16", "fp16"]


def ways_of(
    task: nn.Module, compute: Callable[[nn.Module, Any], Any], whole: Any, cut: Any, device: torch.device
) -> Ways:
    """The task's passes over a batch, whole as it was before or cut as it is now, in every precision."""
    task = task.eval().to(device)

    def in_precision(network: nn.Module, precision: str, batch: Any) -> Callable[[], Any]:
        def call() -> Any:
            with torch.inference_mode(), precision_context(precision, device):
                return compute(network, batch)

        return call

    ways = {"before": in_precision(task, "fp32", whole), "autocast": in_precision(task, "bf16", cut)}
    for precision in precisions(device):
        ways[precision] = in_precision(prepared(task, precision, device), precision, cut)
    return ways


def detection(preset: str, device: torch.device) -> Ways:
    tokenizer = load_tokenizer("builtin")
    torch.manual_seed(0)
    # A threshold of 0 gives boxes to compare, of which random weights are sure of none.
    task = RegionTask(fine_config(preset, len(tokenizer)), score_threshold=0.0)
    open_gates(task)
    # As drawn, boxes of neighbouring anchors differ so little that rounding decides between them.
    with torch.no_grad():
        for conv in (task.detector.head.box, task.detector.head.centerness):
            conv.weight.mul_(30)
    prompts = label_prompts([PromptName("cat"), PromptName("dog")], tokenizer, PROMPT_WIDTH, "auto")
    pixels = random_pixels(SIZE)[0]

    def batch() -> dict[str, Any]:
        of_one = PromptBatch.all_pairs(prompts, 1).with_images([pixels], [torch.tensor(SIZE)])
        return to_device(of_one, device)

    with padded_as_before():
        whole = batch()
    return ways_of(task, lambda network, batch: network.predict(batch)[0], whole, batch(), device)


def itc(preset: str, device: torch.device) -> Ways:
    config = PRESETS[preset]
    torch.manual_seed(0)
    task = CoarseTask(config)
    mask = torch.arange(CAPTION_WIDTH) < torch.tensor(CAPTION_TOKENS)[:, None]
    drawn = torch.randint(5, config.text.vocab - 1, mask.shape)
    whole = to_device({"ids": drawn.masked_fill(~mask, config.text.pad_id), "mask": mask}, device)
    return ways_of(task, lambda network, batch: network.predict(batch), whole, without_padding(whole), device)


def captions(preset: str, device: torch.device) -> Ways:
    config = PRESETS[preset]
    torch.manual_seed(0)
    task = CaptionTask(config, mask_id=config.text.vocab - 1, beam=BEAM, max_length=GENERATED + 1)
    open_gates(task)
    pixels = torch.randint(0, 256, (1, 3, *config.image_size), dtype=torch.uint8, device=device)
    return ways_of(task, lambda network, pixels: network.caption_pixels(pixels), pixels, pixels, device)


def best_times(ways: Ways, rounds: int, device: torch.device) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each, and what each gives; the first round warms up and does not count."""
    seconds = dict.fromkeys(ways, float("inf"))
    results = {}
    for number in range(rounds + 1):
        for name, call in ways.items():
            taken, results[name] = timed(call, device, of_process=device.type == "cpu")
            if number:
                seconds[name] = min(seconds[name], taken)
    return seconds, results


def as_array(result: Any) -> np.ndarray:
    return result.float().cpu().numpy() if isinstance(result, Tensor) else result


def speeds(preset: str, rounds: int, device: torch.device) -> dict[str, Any]:
    """Of every task; what was made for one is dropped before the next."""
    report = {}
    for name, make in {"detection": detection, "16 captions by ITC": itc, "a caption": captions}.items():
        ways = make(preset, device)
        seconds, results = best_times(ways, rounds, device)
        before, now = as_array(results["before"]), as_array(results["fp32"])
        if name == "detection":
            single, boxes, scores = differences(before, now)
            assert single <= 0.02 * len(before), f"{single} of {len(before)} boxes are others"
            difference = max(boxes, scores)
        else:
            difference = float(np.abs(before - now).max())
        report[name] = {
            "seconds": seconds,
            "times_faster": {way: seconds["before"] / taken for way, taken in seconds.items()},
            "largest_difference_in_fp32": difference,
        }
        cells = "  ".join(f"{way} {taken:.3f} s ({seconds['before'] / taken:.2f})" for way, taken in seconds.items())
        print(f"{name:20} {cells}  largest difference in fp32 {difference:.1e}", flush=True)
        del ways
    return report


def measured(checkpoint: str, precision: str, count: int) -> dict[str, float]:
    """The metrics of a checkpoint on unseen scenes that its task is chosen by, of retrieval by the dual encoder and by
    fusion over its best."""
    model = Fiber.from_pretrained(checkpoint, precision=precision)
    declaration = model.loaded.declaration
    sources = [open_source(settings) for settings in declaration.scene_settings("test", count)]
    settings = model.context.settings
    options = EvaluationOptions()
    if declaration.name in ("coarse", "retrieval"):
        options = EvaluationOptions(mode="rerank", rerank=(RERANKED,))
    evaluation = declaration.evaluation.load()(sources, model.context, options)
    asked = PredictOptions(model.batch_size, 0, model.precision)
    metrics = evaluation.measure(model.task, asked).metrics
    kept = {*declaration.metrics(settings), f"rerank-{RERANKED}/ir@1", f"rerank-{RERANKED}/tr@1"}
    return {name: value for name, value in metrics.items() if name in kept and not name.endswith(("@5", "@10"))}


def losses(checkpoints: Sequence[str], count: int, device: torch.device) -> dict[str, Any]:
    """What each precision costs in the metrics of trained checkpoints."""
    report: dict[str, Any] = {}
    for checkpoint in checkpoints:
        of_each: dict[str, Mapping[str, float]] = {}
        for precision in precisions(device):
            of_each[precision] = measured(checkpoint, precision, count)
        report[checkpoint] = of_each
        for name, value in of_each["fp32"].items():
            cells = "  ".join(f"{precision} {metrics[name]:6.2f}" for precision, metrics in of_each.items())
            others = [metrics[name] - value for metrics in of_each.values()]
            print(f"{checkpoint:20} {name:24} {cells}   lowest {min(others):+.2f}", flush=True)
    return report


def parsed() -> argparse.Namespace:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every way, after one that does not count")
    parser.add_argument("--threads", type=int, help="CPU threads, default as PyTorch decides")
    parser.add_argument(
        "--metrics", nargs="*", metavar="CHECKPOINT", help=f"measure checkpoints, default {', '.join(CHECKPOINTS)}"
    )
    parser.add_argument("--count", type=int, default=SCENES, help="scenes that they are measured on")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = pick_device()
    where = {"hardware": hardware(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    report: dict[str, Any] = where | {"auto": settled("auto", device)}
    print("  ".join(f"{name}: {value}" for name, value in report.items()))
    if args.metrics is None:
        print(f"{args.preset}: seconds, in brackets times faster than before")
        report |= {"preset": args.preset, "rounds": args.rounds, "speeds": speeds(args.preset, args.rounds, device)}
    else:
        chosen = args.metrics or list(CHECKPOINTS)
        report |= {"scenes": args.count, "metrics": losses(chosen, args.count, device)}
    write(report, args.json)


if __name__ == "__main__":
    main()
