"""Every task computes on a GPU what it computes on a CPU, and mixes no devices; by a stand-in for the GPU."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from stand_in_gpu import moved, on_host, stand_in_gpu
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from benchmarks.coarse_step import collated, random_batch
from benchmarks.launches import count_step
from fiber_cli.config.recipe import RuntimeSettings
from fiber_cli.distributed.device import to_device
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.precision import precision_context, prepared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.tasks.retrieval.pairs import match_scores
from fiber_cli.tasks.retrieval.task import RetrievalTask
from fiber_cli.tasks.token_losses import labelled_positions, next_tokens
from fiber_cli.tasks.vqa.task import VqaTask
from fiber_cli.tasks.vqa_generated.task import GeneratedVqaTask
from fiber_cli.training.computing import prepare

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


def assert_near(gradient: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    difference = (gradient - expected).abs().max()
    assert difference <= 1e-5 + 1e-3 * expected.abs().max(), name


@pytest.mark.parametrize("name", TRAINED)
def test_a_loss_or_a_gradient_is_another_on_a_gpu(name):
    make, batch = TRAINED[name]
    task = made(make).train()
    torch.manual_seed(5)
    batch_here = batch()
    on_gpu = moved(copy.deepcopy(task))
    torch.manual_seed(6)
    expected = task(batch_here)
    expected["loss"].backward()
    with stand_in_gpu() as device:
        torch.manual_seed(6)
        losses = on_gpu(to_device(batch_here, device))
        losses["loss"].backward()
    of_cpu = {key: value.detach() for key, value in expected.items()}
    torch.testing.assert_close(on_host(losses), of_cpu, atol=1e-5, rtol=1e-4)
    for (parameter, here), there in zip(task.named_parameters(), on_gpu.parameters(), strict=True):
        assert (here.grad is None) == (there.grad is None), parameter
        if here.grad is not None:
            assert_near(on_host(there.grad), here.grad, parameter)


#: What draws captions, and torchvision's heads where they choose regions.
WAITING = ("caption, cider", "regions, retinanet", "regions, faster_rcnn", "coarse, few pairs")


@pytest.mark.parametrize("name", [name for name in TRAINED if name not in WAITING])
def test_a_micro_step_waits_for_its_gpu(name):
    make, batch = TRAINED[name]
    count_step(make, batch(), refused=True)


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_not_found(name):
    make, batch = TRAINED[name]
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
        count_step(make, batch())


#: Settings of `runtime`.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recomputing": {"activation_checkpointing": True},
    "low": {"norms": "low", "deformable": "low", "channels_last": True, "activation_checkpointing": True},
}


@pytest.mark.parametrize(
    "name", ["coarse", "coarse, merged", "coarse, on top", "caption", "regions", "regions, retinanet"]
)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_or_a_way_of_computing_mixes_devices(name, way, precision):
    """And gives other losses than fp32 on a CPU, by more than rounding."""
    make, batch = TRAINED[name]
    task, batch_here = made(make).train(), batch()
    expected = task(batch_here)["loss"].item()
    prepare(task, RuntimeSettings(micro_batch=1, global_batch=1, **WAYS[way]), compiled=False, any_size=False)
    on_gpu = moved(task)
    with stand_in_gpu() as device:
        with precision_context(precision, device):
            loss = on_gpu(to_device(batch_here, device))["loss"]
        loss.backward()
    assert on_host(loss).item() == pytest.approx(expected, rel=0.2)
    gradients = [on_host(parameter.grad) for parameter in on_gpu.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def passed(task: CoarseTask, batches: list[dict[str, Any]], device: torch.device) -> dict[str, float]:
    """The sums of an optimiser step's losses, with its gradients in the task."""
    sums: dict[str, float] = {}
    moved_batches = (to_device(batch, device) for batch in batches)
    for each in task.passes(moved_batches, len(batches)):
        batch = each.batch | ({"compute": each.compute} if each.compute else {})
        with torch.set_grad_enabled(each.has_graph):
            outputs = task(batch)
        if each.has_graph:
            outputs["loss"].backward()
        for key, value in outputs.items():
            sums[key] = sums.get(key, 0.0) + value.item()
    return sums


@pytest.mark.parametrize("changes", [{}, MERGED, TOP])
def test_contrast_of_the_global_batch_is_another_on_a_gpu(changes):
    task = made(lambda: coarse(config=changes, compare_over="global_batch", queue_size=9)).train()
    batches = [collated(random_batch(SMALL, 4, length=LENGTH + 4 * number, seed=number)) for number in range(3)]
    on_gpu = moved(copy.deepcopy(task))
    expected = passed(task, batches, torch.device("cpu"))
    with stand_in_gpu() as device:
        sums = passed(on_gpu, batches, device)
    assert sums == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for here, there in zip(task.parameters(), on_gpu.parameters(), strict=True):
        assert_near(on_host(there.grad), here.grad)


def searched(task: CoarseTask, batch: dict[str, Any]) -> Any:
    """Features of images and texts, and scores of all pairs."""
    image = task.encoder.image_stem(batch["pixels"].float() / 255)
    text = task.encoder.text_stem(batch["ids"], batch["mask"])
    every_text = type(text)(text.tokens.repeat(len(image.map), 1, 1), text.mask.repeat(len(image.map), 1))
    scores = match_scores(task, task.encoder.with_first_pair(image), every_text)
    return task.predict({"pixels": batch["pixels"]}), task.predict({"ids": batch["ids"], "mask": batch["mask"]}), scores


def asked(task: GeneratedVqaTask | VqaTask, batch: dict[str, Any]) -> Any:
    image = task.encoder.image_stem(batch["pixels"].float() / 255)
    return task.best_answers(image, batch["ids"], batch["mask"], 2)


Prediction = Callable[[Any, dict[str, Any]], Any]
PREDICTED: dict[str, tuple[Callable[[], Task], Callable[[], dict[str, Any]], Prediction]] = {
    "search": (coarse, captioned, searched),
    "search, merged": (lambda: coarse(config=MERGED), captioned, searched),
    "search, on top": (lambda: coarse(config=TOP), captioned, searched),
    "answer": (lambda: VqaTask(SMALL, 7), captioned, asked),
    "answer, generated": (generated, captioned, asked),
    "statement": (
        lambda: Nlvr2Task(SMALL),
        lambda: {"pixels": pictures(2), **texts()},
        lambda task, batch: task.logits(batch),
    ),
    "caption": (caption_task, captioned, lambda task, batch: task.predict(batch)),
    "captions": (caption_task, captioned, lambda task, batch: task.best_captions(batch["pixels"], 2)),
    "caption, as published": (
        caption_task,
        captioned,
        lambda task, batch: task.caption_pixels(batch["pixels"], as_published=True),
    ),
    "caption, on top": (lambda: caption_task(config=TOP), captioned, lambda task, batch: task.predict(batch)),
    "caption, fused": (lambda: caption_task(form="fused"), captioned, lambda task, batch: task.predict(batch)),
    "detect": (region_task, prompts, lambda task, batch: task.predict(batch)),
    "detect, each label apart": (
        lambda: region_task(nms_iou=0.3, max_detections=5),
        lambda: prompts() | {"labels_apart": True},
        lambda task, batch: task.predict(batch),
    ),
    "detect, deep fusion": (
        lambda: region_task(config={"fusion_layers": 0}, head_fusion="deep", pre_nms_topk=20, aggregation="max"),
        prompts,
        lambda task, batch: task.predict(batch),
    ),
    "detect, retinanet": (lambda: region_task(head="retinanet"), prompts, lambda task, batch: task.predict(batch)),
    "detect, faster_rcnn": (lambda: region_task(head="faster_rcnn"), prompts, lambda task, batch: task.predict(batch)),
}


@torch.no_grad()
@pytest.mark.parametrize("name", PREDICTED)
def test_a_prediction_is_another_on_a_gpu(name):
    make, batch, predict = PREDICTED[name]
    task, batch_here = made(make).eval(), batch()
    expected = predict(task, batch_here)
    on_gpu = moved(copy.deepcopy(task))
    with stand_in_gpu() as device:
        predicted = predict(on_gpu, to_device(batch_here, device))
    torch.testing.assert_close(on_host(predicted), expected, atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", PREDICTED)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_prediction_in_low_precision_mixes_devices(name, precision):
    make, batch, predict = PREDICTED[name]
    task = prepared(made(make).eval(), precision, torch.device("cpu"))
    with stand_in_gpu() as device, precision_context(precision, device):
        predict(moved(task), to_device(batch(), device))
