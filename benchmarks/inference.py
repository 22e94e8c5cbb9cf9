"""Inference of every task with random weights, in several precisions."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from benchmarks.coarse_step import random_batch
from benchmarks.common import open_gates
from benchmarks.detect import fine_config
from benchmarks.measured import Report, Scale, autocast, free_memory, median_seconds, peak_gib, products
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.device import to_device
from fiber_cli.model.beam_search import beam_search
from fiber_cli.model.config import PRESETS
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.prompt_batch import PromptBatch, chunk_labels, label_prompts
from fiber_cli.tasks.regions.prompts import PromptName
from fiber_cli.tasks.regions.task import RegionTask

#: Ids of a caption's tokens, and the beam.
CAPTION, BEAM = 20, 5


class Call(NamedTuple):
    """What is timed: of how many things, and what they are."""

    run: Callable[[], Any]
    count: int
    unit: str


@torch.no_grad()
def inference_row(make: Callable[[], Call], precision: str, device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds of a call, how many of its things a second, and memory."""
    torch.manual_seed(0)
    call = make()
    free_memory()
    with products(precision), autocast(precision, device):
        seconds = median_seconds(call.run, device, repeats, warm=1)
    return {"seconds": seconds, f"{call.unit}_per_second": call.count / seconds, "peak_gib": peak_gib(device)}


def _coarse(scale: Scale, device: torch.device) -> tuple[CoarseTask, dict[str, Any]]:
    config = PRESETS[scale.preset]
    with device:
        task = CoarseTask(config).to(device).eval()
    open_gates(task)
    return task, to_device(random_batch(config, scale.images), device)


def image_features(scale: Scale, device: torch.device) -> Call:
    """The dual encoder's side of images."""
    task, batch = _coarse(scale, device)
    pixels = normalize(batch["pixels"])
    return Call(lambda: task.image_features(task.encoder.image_stem(pixels)), scale.images, "images")


def text_features(scale: Scale, device: torch.device) -> Call:
    """The dual encoder's side of texts."""
    task, batch = _coarse(scale, device)
    return Call(lambda: task.text_features(task.encoder.text_stem(batch["ids"], batch["mask"])), scale.images, "texts")


def fused_pairs(scale: Scale, device: torch.device) -> Call:
    """Scores of pairs whose stems are there, as in re-ranking."""
    task, batch = _coarse(scale, device)
    image = task.encoder.image_stem(normalize(batch["pixels"][:2]))
    text = task.encoder.text_stem(batch["ids"][:2], batch["mask"][:2])
    rows = torch.arange(scale.pairs, device=device) % 2
    images = ImageStem(image.map[rows], tuple(stage[rows] for stage in image.earlier))
    texts = TextStem(text.tokens[rows], text.mask[rows])
    return Call(lambda: task.match(images, texts), scale.pairs, "pairs")


def captions(scale: Scale, device: torch.device) -> Call:
    """Captions from pixels by beam search."""
    config = PRESETS[scale.preset]
    with device:
        task = CaptionTask(config, mask_id=config.text.vocab - 1).to(device).eval()
    open_gates(task)
    pixels = torch.randn(scale.captions, 3, *config.image_size, device=device)

    def run() -> Any:
        memory = task.captioner.memory(pixels)
        return beam_search(task.captioner, memory, beam=BEAM, max_length=CAPTION + 1, special=task.special)

    return Call(run, scale.captions, "captions")


def detection(names: tuple[str, ...], scale: Scale, device: torch.device) -> Call:
    """One image and all names, from pixels to boxes."""
    tokenizer = load_tokenizer("builtin")
    with device:
        task = RegionTask(fine_config(scale.preset, len(tokenizer))).to(device).eval()
    open_gates(task)
    prompt_names = [PromptName(name) for name in names]
    groups = chunk_labels(prompt_names, tokenizer, 256, "auto")
    prompts = label_prompts(prompt_names, tokenizer, 256, "auto")
    labels: list[int] = []
    for group in groups:
        labels.extend(group)
    pixels = torch.randint(0, 256, (3, *scale.image), dtype=torch.uint8)
    pairs = PromptBatch.all_pairs(prompts, 1)._replace(labels=torch.tensor(labels))
    batch = to_device(pairs.with_images([pixels], [torch.tensor(scale.image)]), device)
    return Call(lambda: task.predict(batch), 1, "images")


EIGHTY = tuple(f"thing {number}" for number in range(80))
CALLS: dict[str, Callable[[Scale, torch.device], Call]] = {
    "images to features": image_features,
    "texts to features": text_features,
    "fused pairs (re-ranking)": fused_pairs,
    f"captions of {CAPTION} tokens, beam {BEAM}": captions,
    "detection of 2 names": partial(detection, ("cat", "dog")),
    "detection of 80 names": partial(detection, EIGHTY),
}


def inference_rows(
    report: Report,
    scale: Scale,
    device: torch.device,
    precisions: Sequence[str],
    calls: dict[str, Callable[[Scale, torch.device], Call]] = CALLS,
) -> None:
    """Every call in every precision."""
    for name, make in calls.items():
        for precision in precisions:
            measure = partial(inference_row, partial(make, scale, device), precision, device, scale.repeats)
            report.row(f"{name}, {precision}", measure)
