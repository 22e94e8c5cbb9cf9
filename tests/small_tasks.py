"""Every task with a small network, beside a batch for it, as CPU and GPU, ZeRO and precision are tried on them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.coarse_step import collated, random_batch
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.tasks.retrieval.task import RetrievalTask
from fiber_cli.tasks.token_losses import labelled_positions, next_tokens
from fiber_cli.tasks.vqa.task import VqaTask
from fiber_cli.tasks.vqa_generated.task import GeneratedVqaTask

IMAGES, LENGTH, VOCAB = 3, 16, 60
IDS = {"cls_id": 0, "sep_id": 2, "pad_id": 1, "mask_id": 3}
SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 1, 2, 2), heads=(1, 2, 4, 8), window=2, drop_path=0.0),
    text=TextConfig(layers=4, hidden=32, heads=4, intermediate=64, vocab=VOCAB, positions=60, dropout=0.0),
    fusion_layers=3,
    hidden=32,
    image_size=(64, 64),
)
#: With maps that windows of 2 x 2 do not cover, and shifts in all of them.
FIXED = dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, fixed_window=True), norm_image_query=True)
MERGED = {"fusion_attention": "merged"}
TOP = {"fusion": "top", "fusion_layers": 2}
POSITIONS = {"image": dataclasses.replace(SMALL.image, position_embedding=True)}


def config(**changes: Any) -> FiberConfig:
    return dataclasses.replace(SMALL, **changes)


def texts() -> dict[str, torch.Tensor]:
    """Of different lengths, each with its end, behind the beginning."""
    generator = torch.Generator().manual_seed(2)
    mask = torch.arange(LENGTH) < torch.tensor([[16], [9], [12]])
    ids = torch.randint(4, VOCAB, (IMAGES, LENGTH), generator=generator)
    ids[:, 0] = IDS["cls_id"]
    ids[torch.arange(IMAGES), mask.sum(1) - 1] = IDS["sep_id"]
    return {"ids": ids.masked_fill(~mask, IDS["pad_id"]), "mask": mask}


def pictures(*several: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (IMAGES, *several, 3, 64, 64), dtype=torch.uint8, generator=generator)


def captioned() -> dict[str, Any]:
    batch = {"pixels": pictures(), **texts(), "step": 0, "references": [("a b",), ("c",), ("d e f",)]}
    return batch | {"label_positions": labelled_positions(next_tokens(batch["ids"], IDS["pad_id"]))}


def answered() -> dict[str, Any]:
    batch = {"pixels": pictures(), **texts()}
    labels = next_tokens(batch["ids"], IDS["pad_id"])
    labels[:, :4] = -100
    return batch | {"labels": labels, "label_positions": labelled_positions(labels)}


def boxed() -> dict[str, Any]:
    """One of the images has no box, and one needs less padding than the others."""
    named = torch.zeros(3, LENGTH)
    named[0, 2] = named[1, 4:6] = named[2, 3] = 1
    return {
        "pixels": torch.cat([pictures(), pictures()], 3)[:, :, :96],
        "sizes": torch.tensor([[90, 64], [64, 50], [96, 64]]),
        **texts(),
        "boxes": torch.tensor([[4.0, 6, 60, 50], [10, 10, 50, 40], [8, 8, 40, 60]]),
        "positive_map": named,
        "box_counts": [2, 0, 1],
    }


def prompts() -> dict[str, Any]:
    """Two prompts of two names, each image asked one, the first both."""
    batch = boxed()
    named = torch.zeros(4, LENGTH, dtype=torch.bool)
    named[0, 1] = named[1, 2:4] = named[2, 1:3] = named[3, 4] = True
    return {
        "pixels": batch["pixels"],
        "sizes": batch["sizes"],
        "original_sizes": 2 * batch["sizes"],
        "ids": batch["ids"][:2],
        "mask": batch["mask"][:2],
        "pairs": torch.tensor([[0, 0], [0, 1], [1, 1], [2, 0]]),
        "positive_map": named,
        "label_prompt": torch.tensor([0, 0, 1, 1]),
        "labels": torch.arange(4),
    }


def caption_task(**settings: Any) -> CaptionTask:
    changes = settings.pop("config", {})
    task = CaptionTask(config(**changes), **IDS, **{"max_length": 8, "beam": 3} | settings)
    task.reward = lambda drawn, references: torch.linspace(0, 1, len(drawn))
    return task


def generated(**settings: Any) -> GeneratedVqaTask:
    return GeneratedVqaTask(SMALL, **IDS, answer_length=4, beam=2, **settings)


def region_task(**settings: Any) -> RegionTask:
    changes = settings.pop("config", {})
    of_head = {"atss": {"blocks": 2}, "retinanet": {}, "faster_rcnn": {"sampled_regions": 16}}
    sizes = {"channels": 32, "drop_block": 0.0, "score_threshold": 0.0, **of_head[settings.get("head", "atss")]}
    return RegionTask(dataclasses.replace(FIXED, **changes), **sizes | settings)


def coarse(**settings: Any) -> CoarseTask:
    return CoarseTask(config(**settings.pop("config", {})), **settings)


def made(make: Callable[[], Task]) -> Task:
    """Far from its start, the gates open."""
    torch.manual_seed(0)
    task = make()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return task


Case = tuple[Callable[[], Task], Callable[[], dict[str, Any]]]


def pairs() -> dict[str, Any]:
    return collated(random_batch(SMALL, 4, length=LENGTH))


TRAINED: dict[str, Case] = {
    "coarse": (lambda: coarse(queue_size=6, itm_margin=0.5), pairs),
    "coarse, few pairs": (
        lambda: coarse(itm_pairs=2, mlm_pairs=3, itm_negatives="random"),
        lambda: random_batch(SMALL, 4),
    ),
    "coarse, as published": (lambda: coarse(itc_detach_keys=True, itc_queue_noise=True, queue_size=6), pairs),
    "coarse, merged": (lambda: coarse(config=MERGED), pairs),
    "coarse, on top": (lambda: coarse(config=TOP), pairs),
    "coarse, not fused": (lambda: coarse(config={"fusion_layers": 0}), pairs),
    "coarse, with positions": (lambda: coarse(config=POSITIONS), pairs),
    "retrieval": (lambda: RetrievalTask(SMALL), pairs),
    "retrieval, itm alone": (lambda: RetrievalTask(SMALL, itc=0.0), pairs),
    "vqa": (lambda: VqaTask(SMALL, 7), lambda: {"pixels": pictures(), **texts(), "targets": torch.rand(IMAGES, 7)}),
    "nlvr2": (lambda: Nlvr2Task(SMALL), lambda: {"pixels": pictures(2), **texts(), "labels": torch.tensor([1, 0, 1])}),
    "vqa_generated": (generated, answered),
    "caption": (caption_task, captioned),
    "caption, fused": (lambda: caption_task(form="fused"), captioned),
    "caption, on top": (lambda: caption_task(config=TOP), captioned),
    "caption, gold": (lambda: caption_task(objective="gold"), captioned),
    "caption, cider": (lambda: caption_task(objective="cider"), captioned),
    "regions": (region_task, boxed),
    "regions, last token": (lambda: region_task(unmatched_target="last_token", frozen_stages=1), boxed),
    "regions, merged": (lambda: region_task(config=MERGED), boxed),
    "regions, deep fusion": (lambda: region_task(config={"fusion_layers": 0}, head_fusion="deep"), boxed),
    "regions, retinanet": (lambda: region_task(head="retinanet"), boxed),
    "regions, faster_rcnn": (lambda: region_task(head="faster_rcnn"), boxed),
}


#: Settings of `runtime`.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recomputing": {"activation_checkpointing": True},
    "low": {"norms": "low", "deformable": "low", "channels_last": True, "activation_checkpointing": True},
}
