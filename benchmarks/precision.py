"""Detection, ITC and captions in every precision, texts as wide as their longest against the former padding.

    python -m benchmarks.precision                                  # base, speeds, CPU or GPU
    python -m benchmarks.precision --before 72a87ff                 # beside an earlier commit, CPU
    python -m benchmarks.precision --preset tiny --rounds 3
    python -m benchmarks.precision --metrics builtin/detection builtin/retrieval     # no speeds: of trained checkpoints

"before" is float32 by the code of an earlier commit, checked out into a temporary folder, on the same weights, with
texts padded to the longest that the model takes; "padded" the same by the code as it is; "autocast" is bf16 with
weights that stay float32; "fp32 by MKL" is there on processors where oneDNN computes products. Speeds are of random
weights with open gates: one picture of 480 x 640 asked for "cat . dog"; 16 captions as long as COCO's through the dual
encoder; a caption of 20 tokens by beam search. Every way has its turn in every round, and the best of the rounds
counts, since what else the machine does only adds to it; on a CPU it is the process's own time, of all its threads. The
same numbers are shown by the largest differences in float32; int8 is for CPUs.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import nn

from benchmarks.common import hardware, open_gates, options, pick_device, timed, write
from benchmarks.detect import differences, random_pixels
from benchmarks.inference_passes import CAPTION, COMPUTE, DETECTION, ITC, Earlier, as_array, new_task
from benchmarks.startup import checked_out
from fiber_cli import Fiber
from fiber_cli.data import padding
from fiber_cli.data.padding import without_padding
from fiber_cli.data.sources import open_source
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.device import to_device
from fiber_cli.model import linear
from fiber_cli.model.config import PRESETS
from fiber_cli.model.linear import onednn_is_faster
from fiber_cli.model.precision import precision_context, prepared, settled
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, label_prompts
from fiber_cli.tasks.regions.prompts import PromptName
from fiber_cli.tasks.regions.task import RegionTask

#: Tokens of 16 captions in COCO's manner by RoBERTa's tokeniser, and the width that they were padded to.
CAPTION_TOKENS = (14, 12, 15, 14, 15, 13, 10, 13, 15, 14, 14, 15, 16, 13, 14, 16)
CAPTION_WIDTH = 40
PROMPT_WIDTH = 256
SIZE = 480, 640
#: Trained checkpoints, and how many unseen scenes they are measured on.
CHECKPOINTS = tuple(f"builtin/{name}" for name in ("retrieval", "detection", "caption", "vqa", "nlvr2"))
SCENES = 200
#: Of the dual encoder's best, by fusion.
RERANKED = 10

#: Name → what does a pass and tells its seconds and what it gives; in the order in which they are shown.
Ways = dict[str, Callable[[], tuple[float, Any]]]


class Pass(NamedTuple):
    """A task with its batch, as it was padded before and as it is now; words: of the vocabulary."""

    task: nn.Module
    padded: Any
    batch: Any
    words: int


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


def ways_of(name: str, timed_pass: Pass, device: torch.device) -> Ways:
    """The task's passes, padded as before or not, in every precision."""
    task = timed_pass.task.eval().to(device)

    def in_precision(network: nn.Module, precision: str, batch: Any) -> Callable[[], tuple[float, Any]]:
        def call() -> Any:
            with torch.inference_mode(), precision_context(precision, device):
                return COMPUTE[name](network, batch)

        return lambda: timed(call, device, of_process=device.type == "cpu")

    ways = {
        "padded": in_precision(task, "fp32", timed_pass.padded),
        "autocast": in_precision(task, "bf16", timed_pass.batch),
    }
    for precision in precisions(device):
        ways[precision] = in_precision(prepared(task, precision, device), precision, timed_pass.batch)
    if device.type == "cpu" and onednn_is_faster():
        ways["fp32 by MKL"] = by_mkl(ways["fp32"])
    return ways


def by_mkl(call: Callable[[], tuple[float, Any]]) -> Callable[[], tuple[float, Any]]:
    """The same as on processors that MKL uses whole."""

    def call_by_mkl() -> tuple[float, Any]:
        with mock.patch.object(linear, "onednn_is_faster", return_value=False):
            return call()

    return call_by_mkl


def detection(preset: str, device: torch.device) -> Pass:
    tokenizer = load_tokenizer("builtin")
    torch.manual_seed(0)
    task = new_task(DETECTION, preset, len(tokenizer))
    assert isinstance(task, RegionTask)
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
    return Pass(task, whole, batch(), len(tokenizer))


def itc(preset: str, device: torch.device) -> Pass:
    text = PRESETS[preset].text
    torch.manual_seed(0)
    task = new_task(ITC, preset, text.vocab)
    mask = torch.arange(CAPTION_WIDTH) < torch.tensor(CAPTION_TOKENS)[:, None]
    drawn = torch.randint(5, text.vocab - 1, mask.shape)
    whole = to_device({"ids": drawn.masked_fill(~mask, text.pad_id), "mask": mask}, device)
    return Pass(task, whole, without_padding(whole), text.vocab)


def captions(preset: str, device: torch.device) -> Pass:
    config = PRESETS[preset]
    torch.manual_seed(0)
    task = new_task(CAPTION, preset, config.text.vocab)
    open_gates(task)
    pixels = torch.randint(0, 256, (1, 3, *config.image_size), dtype=torch.uint8, device=device)
    return Pass(task, pixels, pixels, config.text.vocab)


def best_times(ways: Ways, rounds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each, and what each gives; the first round warms up and does not count."""
    seconds = dict.fromkeys(ways, float("inf"))
    results = {}
    for number in range(rounds + 1):
        for name, call in ways.items():
            taken, results[name] = call()
            if number:
                seconds[name] = min(seconds[name], taken)
    return seconds, results


def largest_difference(name: str, before: np.ndarray, now: np.ndarray) -> float:
    """Between what a pass gave before and gives now; AssertionError for boxes that only one of them has."""
    if name != DETECTION:
        return float(np.abs(before - now).max())
    single, boxes, scores = differences(before, now)
    assert single <= 0.02 * len(before), f"{single} of {len(before)} boxes are others"
    return max(boxes, scores)


def speeds(preset: str, rounds: int, device: torch.device, earlier_code: Path | None) -> dict[str, Any]:
    """Of every task; what was made for one is dropped before the next."""
    report = {}
    for name, make in {DETECTION: detection, ITC: itc, CAPTION: captions}.items():
        with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
            timed_pass = make(preset, device)
            ways = ways_of(name, timed_pass, device)
            reference = "padded"
            if earlier_code is not None:
                file = Path(folder) / "pass.pt"
                earlier = Earlier(
                    earlier_code, file, name, preset, timed_pass.words, timed_pass.task, timed_pass.padded
                )
                started.enter_context(earlier)
                ways = {"before": partial(seconds_alone, earlier), **ways}
                reference = "before"
            seconds, results = best_times(ways, rounds)
            if earlier_code is not None:
                results["before"] = earlier.result()
        difference = largest_difference(name, as_array(results[reference]), as_array(results["fp32"]))
        report[name] = {
            "seconds": seconds,
            "times_faster": {way: seconds[reference] / taken for way, taken in seconds.items()},
            "largest_difference_in_fp32": difference,
        }
        cells = "  ".join(f"{way} {taken:.3f} s ({seconds[reference] / taken:.2f})" for way, taken in seconds.items())
        print(f"{name:20} {cells}  largest difference in fp32 {difference:.1e}", flush=True)
        del ways, timed_pass
    return report


def seconds_alone(earlier: Earlier) -> tuple[float, None]:
    """Of a pass whose result comes at the end."""
    return earlier.seconds(), None


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
    asked = PredictOptions(declaration.evaluation_batch, 0, model.precision)
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
    parser.add_argument("--before", metavar="COMMIT", help="an earlier commit to compare with, since 72a87ff; on CPUs")
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
        print(f"{args.preset}: seconds, in brackets times faster than {'before' if args.before else 'padded'}")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the earlier commit's folder goes
        report |= {"preset": args.preset, "rounds": args.rounds, "before": args.before}
        with checked_out(args.before) as earlier_code:
            report["speeds"] = speeds(args.preset, args.rounds, device, earlier_code)
    else:
        chosen = args.metrics or list(CHECKPOINTS)
        report |= {"scenes": args.count, "metrics": losses(chosen, args.count, device)}
    write(report, args.json)


if __name__ == "__main__":
    main()
