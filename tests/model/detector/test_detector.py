"""The detector on tiny random weights: properties, hand-computed cases and references written here."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import deform_conv2d

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.checkpoints import published as convert
from fiber_cli.distributed import collectives as dist
from fiber_cli.boxes import class_nms, giou, iou
from fiber_cli.data.images import normalize
from fiber_cli.errors import UserError
from fiber_cli.model.detector.atss import assign, decode, make_anchors, token_focal
from fiber_cli.model.config import BASE, TINY, DetectorConfig, FiberConfig
from fiber_cli.model.detector.detector import Detector, HeadOutput, postprocess
from fiber_cli.model.detector.dyhead import DyBlock, deform_conv_by_rows, first_elements
from fiber_cli.model.detector.fpn import drop_block
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import GroundingTask

SMALL = dataclasses.replace(
    TINY,
    image=dataclasses.replace(TINY.image, embed_dim=16, fixed_window=True),
    text=dataclasses.replace(TINY.text, hidden=32, intermediate=64, vocab=100, positions=40),
    hidden=32,
)
LENGTH = 10


def small_task(config: FiberConfig = SMALL, **settings) -> GroundingTask:
    torch.manual_seed(0)
    task = GroundingTask(config, **{"channels": 32, "blocks": 2, "score_threshold": 0.0, **settings})
    for name, parameter in task.named_parameters():
        if name.endswith("alpha"):
            parameter.data.fill_(0.5)
    # Clear differences between anchors: 0.01 of the fresh head leaves near ties.
    for conv in (task.detector.head.box, task.detector.head.centerness):
        conv.weight.data.mul_(30)
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
        "box_counts": torch.tensor([2, 1]),
    }


def asked(tokens: list[list[list[int]]], pairs: list[tuple[int, int]]) -> dict:
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
    return small_batch() | asked(TOKENS, [(0, 0), (1, 1)])


def only(batch: dict, i: int) -> dict:
    """Image i alone, padded no further than itself needs."""
    rows = slice(i, i + 1)
    height, width = (-(-side // 32) * 32 for side in batch["sizes"][i].tolist())
    alone = {name: batch[name][rows] for name in ("sizes", "original_sizes", "ids", "mask")}
    return alone | {"pixels": batch["pixels"][rows, :, :height, :width]} | asked(TOKENS[rows], [(0, 0)])


@pytest.mark.parametrize("narrow", [70, 50])
def test_batch_equals_its_images(narrow):
    """Also where one image needs less padding than the other gives it."""
    task, batch = small_task().eval(), each_its_own()
    batch["sizes"][1, 1] = batch["original_sizes"][1, 1] = narrow
    together = task.predict(batch)
    for i, rows in enumerate(together):
        (alone,) = task.predict(only(batch, i))
        assert rows.shape == alone.shape and len(rows) > 10
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


def test_prompts_in_chunks_equal_full_passes():
    """A shared image stem and a prompt given once for all images change nothing; labels get the numbers they have."""
    task, batch = small_task().eval(), small_batch()
    ids = torch.randint(3, 100, (2, LENGTH))
    mask = torch.ones_like(ids, dtype=torch.bool)
    images = {name: batch[name] for name in ("pixels", "sizes", "original_sizes")}
    both = asked([[[1], [5, 6]], [[2], [5, 6]]], [(0, 0), (0, 1), (1, 0), (1, 1)])
    chunked = task.predict(images | both | {"ids": ids, "mask": mask, "labels": torch.tensor([4, 5, 6, 7])})
    full = []
    for c in (0, 1):
        prompt = {"ids": ids[c : c + 1], "mask": mask[c : c + 1]} | asked([[[1 + c], [5, 6]]], [(0, 0), (1, 0)])
        full.append(task.predict(images | prompt))
    for i, rows in enumerate(chunked):
        first, second = full[0][i] + np.array([0, 0, 0, 0, 0, 4]), full[1][i] + np.array([0, 0, 0, 0, 0, 6])
        np.testing.assert_allclose(rows, np.concatenate([first, second]), atol=2e-3, rtol=1e-4)
    assert set(chunked[0][:, 5]) == {4, 5, 6, 7}


def test_boxes_come_in_original_pixels():
    task, batch = small_task().eval(), each_its_own()
    scaled = task.predict(batch)
    plain = task.predict(batch | {"original_sizes": batch["sizes"]})
    np.testing.assert_allclose(scaled[0][:, :4], plain[0][:, :4] * 2, rtol=1e-6)
    np.testing.assert_array_equal(scaled[1], plain[1])
    for rows, (height, width) in zip(plain, batch["sizes"].tolist()):
        assert (
            (rows[:, :4] >= 0).all() and (rows[:, [0, 2]] <= width - 1).all() and (rows[:, [1, 3]] <= height - 1).all()
        )


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


def test_batch_without_boxes():
    batch = small_batch()
    batch |= {"boxes": torch.zeros(0, 4), "positive_map": torch.zeros(0, LENGTH), "box_counts": torch.tensor([0, 0])}
    task = small_task().train()
    losses = task(batch)
    assert losses["reg_loss"] == 0 and losses["centerness_loss"] == 0 and losses["token_loss"] > 0
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.parameters())


@torch.no_grad()
def test_losses_of_two_ranks_average_to_one(monkeypatch):
    """The ranks' counts differ (two boxes against one), their mean loss is the whole batch's."""
    task, batch = small_task().eval(), small_batch()
    whole, counts = task(batch), []
    monkeypatch.setattr(dist, "all_reduce_sum", lambda x: counts.append(x) or x)
    images = ("pixels", "sizes", "ids", "mask", "box_counts")
    halves = [{name: batch[name][i : i + 1] for name in images} for i in (0, 1)]
    for half, boxes in zip(halves, (slice(2), slice(2, 3))):
        half |= {name: batch[name][boxes] for name in ("boxes", "positive_map")}
    for half in halves:
        task(half)
    assert counts[0][0] != counts[1][0]
    monkeypatch.setattr(dist, "all_reduce_sum", lambda x: counts[0] + counts[1])
    monkeypatch.setattr(dist, "world_size", lambda: 2)
    ranks = [task(half) for half in halves]
    for name in whole:
        torch.testing.assert_close((ranks[0][name] + ranks[1][name]) / 2, whole[name], atol=1e-5, rtol=1e-5)


def test_unmatched_anchors_name_no_token():
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
    assert not task.encoder.image.stages[0].training and task.encoder.image.stages[1].training
    task(small_batch())["loss"].backward()
    assert all(p.grad is None for n, p in task.named_parameters() if n in frozen)


def test_strides_that_do_not_fit():
    patch_4 = dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, patch=4))
    with pytest.raises(UserError, match=r"strides \(4, 8, 16\)"):
        Detector(patch_4, DetectorConfig(channels=32))
    with pytest.raises(UserError, match="channels=16"):
        DetectorConfig(channels=16)


def naive_deform_conv(x, offset, mask, weight, bias, stride):
    """Tap by tap over flat memory: offsets and masks of each sample are read as if they had the output's size."""
    B, C, H, W = x.shape
    h, w = (H - 1) // stride + 1, (W - 1) // stride + 1
    out = bias.view(1, -1, 1, 1).repeat(B, 1, h, w)

    def pixel(b, y, c):
        return x[b, :, y, c] if 0 <= y < H and 0 <= c < W else torch.zeros(C, dtype=x.dtype)

    for b in range(B):
        off, mod = offset[b].flatten(), mask[b].flatten()
        for place in range(h * w):
            for tap in range(9):
                y = stride * (place // w) - 1 + tap // 3 + float(off[2 * tap * h * w + place])
                c = stride * (place % w) - 1 + tap % 3 + float(off[(2 * tap + 1) * h * w + place])
                y0, c0 = int(np.floor(y)), int(np.floor(c))
                value = sum(
                    (1 - abs(y - yy)) * (1 - abs(c - cc)) * pixel(b, yy, cc)
                    for yy in (y0, y0 + 1)
                    for cc in (c0, c0 + 1)
                )
                out[b, :, place // w, place % w] += weight[:, :, tap // 3, tap % 3] @ (value * mod[tap * h * w + place])
    return out


@pytest.mark.parametrize("convolve", [deform_conv_by_rows, deform_conv2d])
@pytest.mark.parametrize(("level", "stride"), [((5, 6), 1), ((10, 11), 2), ((3, 3), 1)])
def test_deformable_convolution(convolve, level, stride):
    """Stride 2 reads a finer level, a smaller level than the offsets' reads their first elements."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, *level, dtype=torch.float64)
    offset, mask = 2 * torch.randn(2, 18, 5, 6).double(), torch.rand(2, 9, 5, 6).double()
    weight, bias = torch.randn(3, 4, 3, 3).double(), torch.randn(3).double()
    expected = naive_deform_conv(x, offset, mask, weight, bias, stride)
    if level == (3, 3):
        offset, mask = first_elements(offset, level), first_elements(mask, level)
    torch.testing.assert_close(convolve(x, offset, weight, bias, stride, padding=1, mask=mask), expected)


def test_deformable_convolution_gradients():
    torch.manual_seed(0)
    leaves = [torch.randn(2, 4, 9, 7), torch.randn(2, 18, 5, 4), torch.randn(3, 4, 3, 3), torch.randn(3)]
    leaves = [t.double().requires_grad_() for t in (*leaves, torch.rand(2, 9, 5, 4))]
    gradients = []
    for convolve in (deform_conv_by_rows, deform_conv2d):
        out = convolve(*leaves[:4], 2, padding=1, mask=leaves[4])
        gradients.append(torch.autograd.grad(out.square().sum(), leaves))
    torch.testing.assert_close(*gradients)


def test_block_has_the_published_rereading(shared):
    """The published operator's stored output where offsets belong to a finer level."""
    case = json.loads((shared / "golden" / "fine_data_cases.json").read_text())["units"]
    case = {k: torch.tensor(v) for k, v in case["deform_conv_mismatched_upsample_case"].items()}
    x, raw, expected = case["input_1x2x3x4"], case["offset_mask_raw_1x27x6x8"], case["output_1x2x3x4"]
    size = expected.shape[-2:]
    offset, mask = first_elements(raw[:, :18], size), first_elements(raw[:, 18:].sigmoid(), size)
    for convolve in (deform_conv_by_rows, deform_conv2d):
        out = convolve(
            x, offset, case["weight"], case["bias"], int(case["stride"]), padding=int(case["pad"]), mask=mask
        )
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gradient", [True, False])
def test_deformable_convolution_of_many_places(gradient):
    """More places than go through at once, the last of them a part of that many."""
    x, weight, bias = torch.randn(2, 4, 41, 43), torch.randn(5, 4, 3, 3), torch.randn(5)
    offset, mask = 3 * torch.randn(2, 18, 41, 43), torch.rand(2, 9, 41, 43)
    with torch.set_grad_enabled(gradient):
        ours = deform_conv_by_rows(x, offset, weight, bias, stride=1, padding=1, mask=mask)
    torch.testing.assert_close(ours, deform_conv2d(x, offset, weight, bias, 1, 1, mask=mask), atol=1e-4, rtol=1e-4)


def test_block_under_autocast():
    block = DyBlock(16)
    levels = [torch.randn(1, 16, side, side) for side in (8, 4, 2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = block([x.bfloat16() for x in levels])
    for a, b in zip(half, block(levels), strict=True):
        assert (a.float() - b).abs().max() < 0.1 * b.abs().max()


def test_drop_block():
    torch.manual_seed(0)
    x = torch.rand(8, 5, 60, 70) + 1
    out = drop_block(x, 0.3)
    gone = out == 0
    assert torch.equal(gone.any(1), gone.all(1)), "channels share the squares"
    kept = ~gone[:, 0]
    ratio = (out / x)[:, 0][kept]
    torch.testing.assert_close(ratio, torch.full_like(ratio, kept.numel() / int(kept.sum())))
    # A place survives if none of the nine squares around it starts.
    assert kept.float().mean().item() == pytest.approx((1 - 0.3 / 9) ** 9, abs=0.02)
    # Every hole is a union of 3x3 squares: eroding and dilating again leaves it as it is.
    inner = gone[:, :1, 1:-1, 1:-1].float()
    opened = F.max_pool2d(-F.max_pool2d(-gone[:, :1].float(), 3, 1, 1), 3, 1, 1)[:, :, 1:-1, 1:-1]
    assert torch.equal(opened, inner)


def test_drop_block_is_for_training_only():
    task = small_task(drop_block=0.9)
    maps = [torch.randn(1, dim, side, side) for dim, side in zip(SMALL.image.dims, (16, 8, 4))]
    fpn = task.detector.fpn
    first, again = fpn.eval()(maps), fpn(maps)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    trained = fpn.train()(maps)
    different = [not torch.allclose(a, b) for a, b in zip(first, trained)]
    assert different == [True, True, False, False, False], "the coarsest path keeps everything"


def head_output(logits: torch.Tensor, sizes, centerness=None, deltas=None) -> HeadOutput:
    B, N, _ = logits.shape
    zeros = torch.zeros(B, N, 4)
    return HeadOutput(
        zeros if deltas is None else deltas, torch.zeros(B, N) if centerness is None else centerness, logits, sizes
    )


def naive_postprocess(out, i, size, tokens, *, score_threshold, pre_nms_topk, nms_iou, max_detections, aggregation):
    """Pair by pair, in Python floats."""
    anchors = make_anchors(out.sizes, torch.zeros(()))
    found, first = [], 0
    for height, width in out.sizes:
        pairs = []
        for n in range(first, first + height * width):
            p = out.logits[i, n].double().sigmoid().tolist()
            for label, positions in enumerate(tokens):
                values = [p[t] for t in positions]
                score = (max(values) if aggregation == "max" else sum(values) / len(values)) if values else -1
                if score > score_threshold:
                    pairs.append((score * float(out.centerness[i, n].double().sigmoid()), label, n))
        found += sorted(pairs, reverse=True)[:pre_nms_topk]
        first += height * width
    kept = []
    for value, label, n in sorted(found, reverse=True):
        x1, y1, x2, y2 = decode(out.deltas[i, n], anchors[n]).tolist()
        box = [min(max(x1, 0), size[1] - 1), min(max(y1, 0), size[0] - 1)]
        box += [min(max(x2, 0), size[1] - 1), min(max(y2, 0), size[0] - 1)]

        def overlap(other, box=box):
            w = min(box[2], other[2]) - max(box[0], other[0]) + 1
            h = min(box[3], other[3]) - max(box[1], other[1]) + 1
            area = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
            inter = max(w, 0) * max(h, 0)
            return inter / (sum(area) - inter)

        if all(label != other or overlap(where) <= nms_iou for _, other, where in kept):
            kept.append((value**0.5, label, box))
    return kept[:max_detections]


@pytest.mark.parametrize("aggregation", ["mean", "max"])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_postprocess_against_loops(aggregation, threshold):
    torch.manual_seed(0)
    sizes = ((6, 8), (3, 4), (2, 2), (1, 1), (1, 1))
    N = sum(h * w for h, w in sizes)
    out = head_output(torch.randn(2, N, 8), sizes, torch.randn(2, N), torch.randn(2, N, 4))
    tokens = [[1, 2], [], [3], [4, 5, 6], [7, 0]]
    settings = {
        "score_threshold": threshold,
        "pre_nms_topk": 40,
        "nms_iou": 0.5,
        "max_detections": 60,
        "aggregation": aggregation,
    }
    for i in (0, 1):
        found = postprocess(out, i, (45, 60), tokens, **settings)
        expected = naive_postprocess(out, i, (45, 60), tokens, **settings)
        assert found.labels.tolist() == [label for _, label, _ in expected] and 1 not in found.labels
        torch.testing.assert_close(found.scores, torch.tensor([score for score, _, _ in expected]))
        torch.testing.assert_close(found.boxes, torch.tensor([box for _, _, box in expected]), atol=1e-3, rtol=1e-4)


def test_nothing_found():
    sizes = ((2, 2), (1, 1), (1, 1), (1, 1), (1, 1))
    found = postprocess(head_output(torch.full((1, 8, 3), -9.0), sizes), 0, (16, 16), [[1], [2]])
    assert found.boxes.shape == (0, 4) and not len(found.scores) and not len(found.labels)


def test_ties_may_exceed_the_limit():
    sizes = ((1, 40), (1, 1), (1, 1), (1, 1), (1, 1))
    out = head_output(torch.full((1, 44, 2), 3.0), sizes)
    assert len(postprocess(out, 0, (8, 320), [[0]], nms_iou=0.95, max_detections=5)) == 3
    assert len(postprocess(out, 0, (8, 320), [[0]], nms_iou=0.95, max_detections=5).scores) > 5


def test_units_of_the_published_code(shared):
    units = json.loads((shared / "golden" / "fine_data_cases.json").read_text())["units"]
    anchors, targets = torch.tensor(units["anchors"]), torch.tensor(units["gt"])
    torch.testing.assert_close(decode(torch.tensor(units["encode"]), anchors), targets, atol=1e-3, rtol=1e-5)
    decoded = decode(torch.tensor([[float(v) for v in row] for row in units["decode_of"]]), anchors)
    torch.testing.assert_close(decoded, torch.tensor(units["decode"]), atol=1e-3, rtol=1e-5)
    focal = {name: torch.tensor(value) for name, value in units["token_focal"].items()}
    loss = (token_focal(focal["logits"], focal["targets"].bool()) * focal["text_mask"][:, None]).sum()
    torch.testing.assert_close(loss, focal["sum"])
    nms = {name: torch.tensor(value) for name, value in units["ml_nms"].items()}
    kept = class_nms(nms["boxes"], nms["scores"], nms["labels"].long(), float(nms["thr"]))
    assert sorted(kept.tolist()) == nms["keep_indices"].tolist()
    sides = [[1, 1]] * 5
    for cell, expected in zip(make_anchors(sides, torch.zeros(())).split(1), units["cell_anchors"], strict=True):
        assert cell.tolist() == expected


def test_boxes():
    a, b = torch.tensor([0.0, 0, 9, 9]), torch.tensor([5.0, 0, 14, 9])
    assert iou(a, b).item() == pytest.approx(36 / (81 + 81 - 36))
    assert iou(a, b, inclusive=True).item() == pytest.approx(50 / 150)
    # Apart by 11 in a hull of 30 x 9; touching nothing.
    assert giou(a, torch.tensor([20.0, 0, 30, 9])).item() == pytest.approx(-(30 * 9 - 81 - 90) / (30 * 9), rel=1e-5)
    assert giou(torch.tensor([5.0, 5, 1, 1]), a).item() == pytest.approx(0, abs=1e-6)


def test_labels_far_apart_do_not_suppress_each_other():
    """With 1,203 labels and a wide image the same box of neighbouring labels survives, its near twin does not."""
    box = torch.tensor([[1290.0, 780, 1292, 782]]).repeat(4, 1)
    boxes = torch.cat([box, box + torch.tensor([0.0, 0, 0, 0.2])])
    labels = torch.tensor([1199, 1200, 1201, 1202] * 2)
    kept = class_nms(boxes, torch.linspace(0.9, 0.2, 8), labels, 0.6)
    assert kept.tolist() == [0, 1, 2, 3]


def test_assignment_by_hand():
    """One box that is exactly an anchor of the second level: it alone stands out, with its like around it."""
    sizes = ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
    places = [h * w for h, w in sizes]
    anchors = make_anchors(sizes, torch.zeros(()))
    chosen = 256 + 3 * 8 + 4
    matched = assign(anchors, places, anchors[chosen : chosen + 1])
    assert matched[chosen] == 0
    positive = (matched >= 0).nonzero()[:, 0]
    assert set(positive.tolist()) <= set(range(256, 256 + 64))
    # Twice the same box: the first wins every tie.
    twice = assign(anchors, places, anchors[chosen].repeat(2, 1))
    assert torch.equal(twice, matched)
    assert (assign(anchors, places, torch.zeros(0, 4)) == -1).all()


def reference_assign(anchors, places, boxes):
    """ATSS in loops."""
    best = {}
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    for g, box in enumerate(boxes):
        candidates, first = [], 0
        for count in places:
            distance = (centre[first : first + count] - (box[:2] + box[2:]) / 2).square().sum(1)
            candidates += [first + int(n) for n in distance.argsort()[:9]]
            first += count
        overlaps = [float(iou(anchors[n], box, inclusive=True)) for n in candidates]
        threshold = np.mean(overlaps) + np.std(overlaps, ddof=1)
        for n, overlap in zip(candidates, overlaps):
            x, y = centre[n].tolist()
            inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > 0.01
            if overlap >= threshold and inside and overlap > best.get(n, (-1.0, -1))[0]:
                best[n] = (overlap, g)
    return torch.tensor([best.get(n, (0, -1))[1] for n in range(len(anchors))])


def test_assignment_against_loops():
    torch.manual_seed(0)
    sizes = ((24, 28), (12, 14), (6, 7), (3, 4), (2, 2))
    places = [h * w for h, w in sizes]
    anchors = make_anchors(sizes, torch.zeros(()))
    corner = torch.rand(12, 2) * 120
    boxes = torch.cat([corner, corner + 10 + torch.rand(12, 2) * 90], 1)
    matched = assign(anchors, places, boxes)
    assert torch.equal(matched, reference_assign(anchors, places, boxes))
    assert len(set(matched.tolist())) > 8


@pytest.fixture(scope="module")
def published(shared):
    return json.loads((shared / "golden" / "fine_base_keys.json").read_text())


@pytest.fixture(scope="module")
def base() -> tuple[FiberConfig, dict[str, torch.Tensor]]:
    config = dataclasses.replace(BASE, norm_image_query=False)
    with torch.device("meta"):
        return config, dict(GroundingTask(config).named_parameters())


def test_sizes_of_the_base_model(published, base):
    _, ours = base
    counts = {name: p.numel() for name, p in ours.items()}

    def total(*prefixes: str) -> int:
        return sum(n for name, n in counts.items() if name.startswith(prefixes))

    parts = published["parameters_by_part"]
    unused = 80 * 256 + 80
    assert total("encoder.image.", "detector.norms.") == parts["swin body (fusion_backbone.backbone.body)"]
    assert total("encoder.text.") == parts["text (fusion_backbone.language_backbone)"]
    assert total("detector.fpn.") == parts["fpn"]
    assert total("detector.head.") == parts["rpn.head"] - unused
    assert sum(counts.values()) == published["n_parameters"] - unused
    cross = sum(n for name, n in counts.items() if ".cross." in name)
    assert cross == published["cross_modal_parameters(i2t+t2i)"]


@pytest.mark.slow
def test_a_published_file_becomes_a_checkpoint(published, tmp_path):
    """Of the base model's size, in the published form: the weights come back, and the folder says how to use them."""
    from fiber_cli.checkpoints.loading import load

    dtypes = published["dtypes"]
    state = {
        key: torch.zeros(shape, dtype=torch.int64 if "int64" in dtypes.get(key, "") else torch.float16)
        for key, shape in published["keys"].items()
    }
    torch.save({"model": {f"module.{key}": tensor for key, tensor in state.items()}}, tmp_path / "fine.pth")
    with pytest.raises(UserError, match="not a published coarse-stage"):
        convert.convert_file(tmp_path / "fine.pth", tmp_path / "out", task="coarse", tokenizer="builtin")
    loaded = load(convert.convert_file(tmp_path / "fine.pth", tmp_path / "out", task="refexp", tokenizer="builtin"))
    sides = tuple(loaded.config["preprocessing"][name] for name in ("short_side", "longest_side"))
    assert (loaded.name, sides, loaded.text_length) == ("refexp", (800, 1333), 256)
    assert not loaded.task.encoder.config.norm_image_query and loaded.task.encoder.config.image.fixed_window


def test_every_published_key_has_its_place(published, base):
    config, ours = base
    dtypes = published["dtypes"]
    state = {
        key: torch.empty(shape, device="meta", dtype=torch.int64 if "int64" in dtypes.get(key, "") else torch.float32)
        for key, shape in published["keys"].items()
    }
    weights = convert.from_official_fine(state, config, ours)
    assert {name: t.shape for name, t in weights.items()} == {name: p.shape for name, p in ours.items()}
    official = convert.to_official_fine(ours, config)
    assert {key: list(t.shape) for key, t in official.items()} == published["keys"]
    del state["rpn.head.bias0"]
    state["rpn.head.new"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"rpn\.head\.new; .*detector\.head\.bias0"):
        convert.from_official_fine(state, config, ours)
    with pytest.raises(UserError, match="mlm.bias"):
        convert.to_official_fine({"mlm.bias": torch.zeros(1)}, config)


def test_conversion_turns_colours_round():
    """A picture in the published form, blue first, and in ours give the same patches."""
    name = "encoder.image.patch_embed.proj.weight"
    weight = torch.randn(8, 3, 4, 4)
    official = convert.to_official_fine({name: weight}, SMALL)
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395]))
    theirs = (pixels.flip(1).float() - mean) / std
    expected = F.conv2d(theirs, official["fusion_backbone.backbone.body.patch_embed.proj.weight"], stride=4)
    torch.testing.assert_close(F.conv2d(normalize(pixels), weight, stride=4), expected, atol=1e-4, rtol=1e-4)
    back = convert.from_official_fine(official, SMALL, [name])
    assert torch.equal(back[name], weight)


def test_start_from_coarse_weights(shared, base):
    """All of the encoder comes over and nothing else: what the published loader takes, and v3's norms besides."""
    golden = shared / "golden"
    expected = json.loads((golden / "coarse_to_fine_init.json").read_text())["pretrain_384"]
    fresh = set()
    for pattern in expected["model_keys_left_at_init"]:
        head, _, choices = pattern.partition("{")
        fresh |= {head + choice.strip() for choice in choices.rstrip("}").split(",")}
    with torch.device("meta"):
        coarse, task = dict(CoarseTask(BASE).named_parameters()), GroundingTask(BASE)
    # Meta tensors take part in the checks of names and shapes; copying them does nothing.
    checkpoint.load_into(task, coarse, expect_missing=task.NEW, expect_unexpected=task.DROPPED)
    names = dict(task.named_parameters())
    new = {name: p for name, p in names.items() if name.startswith(task.NEW)}
    v3 = {name for name in names if ".cross.norm." in name}
    buffers = set(convert.fine_buffers(BASE))
    official_new = set(convert.to_official_fine(new, BASE)) - buffers
    assert official_new == {key for key in fresh if "cell_anchors" not in key}
    kept = {name: p for name, p in names.items() if name not in new and name not in v3}
    official_kept = (set(convert.to_official_fine(kept, BASE)) | buffers) - fresh
    assert len(official_kept) == expected["n_loaded"]


def test_start_from_coarse_weights_of_another_window():
    coarse = CoarseTask(dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, window=2)))
    task = small_task()
    weights = checkpoint.fit_position_biases(checkpoint.named_weights(coarse), task)
    checkpoint.load_into(task, weights, expect_missing=task.NEW, expect_unexpected=task.DROPPED)
    for name, value in checkpoint.named_weights(task).items():
        if name.startswith("encoder."):
            expected = dict(coarse.named_parameters())[name]
            same = value.shape == expected.shape
            assert same != name.endswith("relative_position_bias_table")
            assert not same or torch.equal(value, expected)


def test_text_padding_does_not_matter():
    """Longer padding of the text leaves the real tokens' logits as they are."""
    task, batch = small_task().eval(), small_batch()
    stem = task.image_stem(batch["pixels"], batch["sizes"])
    text = task.encoder.text_stem(batch["ids"], batch["mask"])
    short = task.detect(stem, text)
    longer = task.encoder.text_stem(F.pad(batch["ids"], (0, 6), value=1), F.pad(batch["mask"], (0, 6)))
    long = task.detect(stem, longer)
    torch.testing.assert_close(long.logits[:, :, :LENGTH], short.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(long.deltas, short.deltas, atol=1e-4, rtol=1e-4)
