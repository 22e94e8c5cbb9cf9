"""The module of the region-level tasks on tiny random weights: prediction in batches and chunks, and its losses."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.launches import count_step
from fiber_cli.checkpoints.positions import fit_positions
from fiber_cli.checkpoints.weights import load_into, named_weights
from fiber_cli.distributed import collectives
from fiber_cli.model.config import TINY, FiberConfig
from fiber_cli.model.detector.detector import HEADS
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks import declared
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask

SMALL = dataclasses.replace(
    TINY,
    image=dataclasses.replace(TINY.image, embed_dim=16, fixed_window=True),
    text=dataclasses.replace(TINY.text, hidden=32, intermediate=64, vocab=100, positions=40),
    hidden=32,
)
LENGTH = 10
#: Layers of a fresh head that are drawn so small that regions are nearly alike.
NEARLY_ALIKE = (".box.weight", ".centerness.weight", "bbox_reg.weight", "cls_logits.weight", "bbox_pred.weight")


def small_task(config: FiberConfig = SMALL, **settings) -> RegionTask:
    torch.manual_seed(0)
    blocks = 2 if settings.get("head", "atss") == "atss" else 6
    task = RegionTask(config, **{"channels": 32, "blocks": blocks, "score_threshold": 0.0, **settings})
    for name, parameter in task.named_parameters():
        if name.endswith("alpha"):
            parameter.data.fill_(0.5)
        # Clear differences between regions: 0.01 of the fresh head leaves near ties.
        if name.endswith(NEARLY_ALIKE):
            parameter.data.mul_(30)
    return task


def small_batch() -> dict:
    torch.manual_seed(1)
    mask = torch.arange(LENGTH) < torch.tensor([[8], [6]])
    return {
        "pixels": torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8),
        "sizes": torch.tensor([[60, 96], [64, 70]]),
        "original_sizes": torch.tensor([[120, 192], [64, 70]]),
        "ids": torch.randint(3, 100, (2, LENGTH)).masked_fill(~mask, 1),
        "mask": mask,
        "boxes": torch.tensor([[4.0, 6, 60, 50], [30, 10, 90, 40], [8, 8, 40, 60]]),
        "positive_map": F.one_hot(torch.tensor([2, 4, 3]), LENGTH),
        "box_counts": [2, 1],
    }


def prompts_batch(tokens: list[list[list[int]]], pairs: list[tuple[int, int]]) -> dict:
    """What `predict` wants to know of prompts, from the token positions of the labels of each."""
    labels = [label for prompt in tokens for label in prompt]
    counts = torch.tensor([len(prompt) for prompt in tokens])
    return {
        "pairs": torch.tensor(pairs),
        "positive_map": torch.stack([F.one_hot(torch.tensor(label), LENGTH).sum(0).bool() for label in labels]),
        "label_prompt": torch.repeat_interleave(torch.arange(len(tokens)), counts),
        "labels": torch.cat([torch.arange(count) for count in counts]),
    }


TOKENS = [[[1, 2], [3]], [[1], [2, 3, 4]]]


def each_its_own() -> dict:
    return small_batch() | prompts_batch(TOKENS, [(0, 0), (1, 1)])


def only(batch: dict, i: int) -> dict:
    """Image i alone, padded no further than itself needs."""
    rows = slice(i, i + 1)
    height, width = (-(-side // 32) * 32 for side in batch["sizes"][i].tolist())
    alone = {name: batch[name][rows] for name in ("sizes", "original_sizes", "ids", "mask")}
    return alone | {"pixels": batch["pixels"][rows, :, :height, :width]} | prompts_batch(TOKENS[rows], [(0, 0)])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("narrow", [70, 50])
def test_batch_equals_its_images(narrow, head):
    """Also where one image needs less padding than the other gives it."""
    task, batch = small_task(head=head).eval(), each_its_own()
    batch["sizes"][1, 1] = batch["original_sizes"][1, 1] = narrow
    together = task.predict(batch)
    for i, rows in enumerate(together):
        (alone,) = task.predict(only(batch, i))
        assert rows.shape == alone.shape
        assert len(rows) > 10
        np.testing.assert_allclose(rows, alone, atol=2e-3, rtol=1e-4)


def test_padding_is_zero_after_normalisation():
    """What lies in the padding of the pixels changes nothing, and padding is not black but zero."""
    task, batch = small_task().eval(), small_batch()
    image = normalize(batch["pixels"])
    image[0, :, 60:], image[1, :, :, 70:] = 0, 0
    expected = task.encoder.image_stem(image).map
    torch.testing.assert_close(task.image_stem(batch["pixels"], batch["sizes"]).map, expected)
    batch["pixels"][0, :, 60:] = 7
    torch.testing.assert_close(task.image_stem(batch["pixels"], batch["sizes"]).map, expected)


@pytest.mark.parametrize("head", HEADS)
def test_prompts_in_chunks_equal_full_passes(head):
    """A shared image stem and a prompt given once for all images change nothing; labels get the numbers they have."""
    task, batch = small_task(head=head).eval(), small_batch()
    ids = torch.randint(3, 100, (2, LENGTH))
    mask = torch.ones_like(ids, dtype=torch.bool)
    images = {name: batch[name] for name in ("pixels", "sizes", "original_sizes")}
    both = prompts_batch([[[1], [5, 6]], [[2], [5, 6]]], [(0, 0), (0, 1), (1, 0), (1, 1)])
    chunked = task.predict(images | both | {"ids": ids, "mask": mask, "labels": torch.tensor([4, 5, 6, 7])})
    full = []
    for c in (0, 1):
        prompt = {"ids": ids[c : c + 1], "mask": mask[c : c + 1]} | prompts_batch([[[1 + c], [5, 6]]], [(0, 0), (1, 0)])
        full.append(task.predict(images | prompt))
    for i, rows in enumerate(chunked):
        first, second = full[0][i] + np.array([0, 0, 0, 0, 0, 4]), full[1][i] + np.array([0, 0, 0, 0, 0, 6])
        np.testing.assert_allclose(rows, np.concatenate([first, second]), atol=2e-3, rtol=1e-4)
    assert set(chunked[0][:, 5]) == {4, 5, 6, 7}


@pytest.mark.parametrize("head", HEADS)
def test_boxes_come_in_original_pixels(head):
    task, batch = small_task(head=head).eval(), each_its_own()
    scaled = task.predict(batch)
    plain = task.predict(batch | {"original_sizes": batch["sizes"]})
    np.testing.assert_allclose(scaled[0][:, :4], plain[0][:, :4] * 2, rtol=1e-6)
    np.testing.assert_array_equal(scaled[1], plain[1])
    for rows, (height, width) in zip(plain, batch["sizes"].tolist(), strict=True):
        assert (rows[:, :4] >= 0).all()
        assert (rows[:, [0, 2]] <= width - 1).all()
        assert (rows[:, [1, 3]] <= height - 1).all()


@pytest.mark.parametrize("norm_image_query", [True, False])
@pytest.mark.parametrize("fusion_layers", [0, 2])
def test_training_step(norm_image_query, fusion_layers):
    """v2, v3 and the model without fusion: every parameter that should learn gets a gradient."""
    config = dataclasses.replace(SMALL, norm_image_query=norm_image_query, fusion_layers=fusion_layers)
    task = small_task(config).train()
    losses = task(small_batch())
    assert losses["loss"].item() == pytest.approx(
        float(losses["token_loss"] + losses["reg_loss"] + losses["centerness_loss"]), rel=1e-6
    )
    losses["loss"].backward()
    without = {name for name, p in task.named_parameters() if p.grad is None}
    assert not without
    assert any("cross.norm" in name for name, _ in task.named_parameters()) == (norm_image_query and fusion_layers > 0)


@pytest.mark.parametrize("fusion_layers", [0, 2])
@pytest.mark.parametrize("head", ["retinanet", "faster_rcnn"])
def test_a_part_under_another_head_does_not_learn(head, fusion_layers):
    task = small_task(dataclasses.replace(SMALL, fusion_layers=fusion_layers), head=head).train()
    losses = task(small_batch())
    parts = [value for name, value in losses.items() if name != "loss"]
    assert losses["loss"].item() == pytest.approx(float(sum(parts)), rel=1e-6)
    losses["loss"].backward()
    assert not [name for name, p in task.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize(
    "changes",
    [{"fusion_attention": "merged"}, {"fusion_gate": False}, {"fusion_layers": 0, "head_fusion": "deep"}],
    ids=["merged", "no gates", "deep in the head"],
)
def test_a_way_of_fusing_trains_a_part_alone(changes):
    settings = dict(changes)
    head_fusion = settings.pop("head_fusion", "none")
    torch.manual_seed(0)
    config = dataclasses.replace(SMALL, **settings)
    task = RegionTask(config, channels=32, blocks=1, drop_block=0.0, head_fusion=head_fusion).train()
    losses = task(small_batch())
    assert losses["loss"].isfinite()
    losses["loss"].backward()
    assert not [name for name, parameter in task.named_parameters() if parameter.grad is None]
    assert task.eval().predict(each_its_own())


@pytest.mark.parametrize("head", HEADS)
def test_batch_without_boxes(head):
    batch = small_batch()
    batch |= {"boxes": torch.zeros(0, 4), "positive_map": torch.zeros(0, LENGTH), "box_counts": [0, 0]}
    task = small_task(head=head).train()
    losses = task(batch)
    assert losses["reg_loss"] == 0
    assert losses.get("centerness_loss", 0) == 0
    assert losses["token_loss"] > 0
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


@torch.no_grad()
@pytest.mark.parametrize("head", ["atss", "retinanet"])
def test_losses_of_two_ranks_average_to_one(monkeypatch, head):
    """The ranks' counts differ (two boxes against one), their mean loss is the whole batch's. Of Faster R-CNN, whose
    regions are drawn at random, the sums alone could be compared."""
    task, batch = small_task(head=head).eval(), small_batch()
    whole, counts = task(batch), []
    monkeypatch.setattr(collectives, "all_reduce_sum", lambda x: counts.append(x) or x)
    images = ("pixels", "sizes", "ids", "mask", "box_counts")
    halves = [{name: batch[name][i : i + 1] for name in images} for i in (0, 1)]
    for half, boxes in zip(halves, (slice(2), slice(2, 3)), strict=True):
        half |= {name: batch[name][boxes] for name in ("boxes", "positive_map")}
    for half in halves:
        task(half)
    assert counts[0][0] != counts[1][0]
    monkeypatch.setattr(collectives, "all_reduce_sum", lambda x: counts[0] + counts[1])
    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    ranks = [task(half) for half in halves]
    for name in whole:
        torch.testing.assert_close((ranks[0][name] + ranks[1][name]) / 2, whole[name], atol=1e-5, rtol=1e-5)


def test_unmatched_regions_name_no_token():
    """The published target differs where a caption fills all slots, and only there."""
    batch, tasks = small_batch(), {kind: small_task(unmatched_target=kind).eval() for kind in ("none", "last_token")}
    stem = tasks["none"].image_stem(batch["pixels"], batch["sizes"])
    out = tasks["none"].detect(stem, tasks["none"].encoder.text_stem(batch["ids"], batch["mask"]))
    loss = {kind: float(task.losses(out, batch)["token_loss"]) for kind, task in tasks.items()}
    assert loss["none"] == loss["last_token"]
    full = batch | {"mask": torch.ones_like(batch["mask"])}
    loss = {kind: float(task.losses(out, full)["token_loss"]) for kind, task in tasks.items()}
    assert loss["last_token"] > 2 * loss["none"]


def test_frozen_stages_stay():
    config = dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, drop_path=0.5))
    task = small_task(config, frozen_stages=1).train()
    frozen = {n for n, p in task.named_parameters() if not p.requires_grad}
    assert frozen == {
        n for n, _ in task.named_parameters() if n.startswith(("encoder.image.patch_embed.", "encoder.image.stages.0."))
    }
    assert not task.encoder.image.stages[0].training
    assert task.encoder.image.stages[1].training
    task(small_batch())["loss"].backward()
    assert all(p.grad is None for n, p in task.named_parameters() if n in frozen)


@pytest.mark.parametrize("head", HEADS)
def test_text_padding_does_not_matter(head):
    """Longer padding of the text leaves the real tokens' logits as they are."""
    task, batch = small_task(head=head).eval(), small_batch()
    stem = task.image_stem(batch["pixels"], batch["sizes"])
    text = task.encoder.text_stem(batch["ids"], batch["mask"])
    short = task.detect(stem, text)
    longer = task.encoder.text_stem(F.pad(batch["ids"], (0, 6), value=1), F.pad(batch["mask"], (0, 6)))
    long = task.detect(stem, longer)
    for image in (0, 1):
        of_long, of_short = long.regions(image), short.regions(image)
        torch.testing.assert_close(of_long.logits[:, :LENGTH], of_short.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(of_long.boxes, of_short.boxes, atol=2e-2, rtol=1e-3)


def test_coarse_weights_of_another_window_start_the_encoder():
    coarse = CoarseTask(dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, window=2)))
    task = small_task()
    changes = declared("fine").init_from
    weights = fit_positions(named_weights(coarse), task)
    load_into(task, weights, expect_missing=changes.fresh, expect_unexpected=changes.dropped)
    for name, value in named_weights(task).items():
        if name.startswith("encoder."):
            expected = dict(coarse.named_parameters())[name]
            same = value.shape == expected.shape
            assert same != name.endswith("relative_position_bias_table")
            assert not same or torch.equal(value, expected)


def test_a_micro_step_waits_for_its_gpu():
    for settings in ({}, {"unmatched_target": "last_token", "head_fusion": "deep"}):
        for precision in ("bf16", "fp32"):
            count_step(partial(small_task, **settings), small_batch(), precision=precision, refused=True)
