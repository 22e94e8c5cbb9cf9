"""From the head's output to detections, against loops."""

from typing import NamedTuple

import pytest
import torch

from fiber_cli.model.detector import postprocess as postprocessing
from fiber_cli.model.detector.anchors import decode_boxes, make_anchors
from fiber_cli.model.detector.detection_head import Regions
from fiber_cli.model.detector.head import HeadOutput
from fiber_cli.model.detector.postprocess import (
    POSTPROCESSING,
    label_scores,
    postprocess,
    postprocess_apart,
    postprocess_batch,
)


def head_output(logits: torch.Tensor, sizes, centerness=None, deltas=None) -> HeadOutput:
    B, N, _ = logits.shape
    deltas = torch.zeros(B, N, 4) if deltas is None else deltas
    centerness = torch.zeros(B, N) if centerness is None else centerness
    return HeadOutput(deltas, centerness, logits, sizes)


def inclusive_iou(a: list[float], b: list[float]) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0]) + 1
    h = min(a[3], b[3]) - max(a[1], b[1]) + 1
    intersection = max(w, 0) * max(h, 0)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return intersection / (sum(areas) - intersection)


def naive_postprocess(out, i, size, tokens, *, score_threshold, pre_nms_topk, nms_iou, max_detections, aggregation):
    """Pair by pair, in Python floats."""
    anchors = make_anchors(out.sizes, torch.zeros(()))
    candidates, first = [], 0
    for height, width in out.sizes:
        pairs = []
        for n in range(first, first + height * width):
            p = out.logits[i, n].double().sigmoid().tolist()
            for label, positions in enumerate(tokens):
                values = [p[t] for t in positions]
                score = (max(values) if aggregation == "max" else sum(values) / len(values)) if values else -1
                if score > score_threshold:
                    pairs.append((score * float(out.centerness[i, n].double().sigmoid()), label, n))
        candidates += sorted(pairs, reverse=True)[:pre_nms_topk]
        first += height * width
    detections = []
    for value, label, n in sorted(candidates, reverse=True):
        x1, y1, x2, y2 = decode_boxes(out.deltas[i, n], anchors[n]).tolist()
        box = [min(max(x1, 0), size[1] - 1), min(max(y1, 0), size[0] - 1)]
        box += [min(max(x2, 0), size[1] - 1), min(max(y2, 0), size[0] - 1)]

        if all(label != other or inclusive_iou(box, where) <= nms_iou for _, other, where in detections):
            detections.append((value**0.5, label, box))
    return detections[:max_detections]


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
        detections = postprocess(out, i, (45, 60), tokens, **settings)
        expected = naive_postprocess(out, i, (45, 60), tokens, **settings)
        assert detections.labels.tolist() == [label for _, label, _ in expected]
        assert 1 not in detections.labels
        torch.testing.assert_close(detections.scores, torch.tensor([score for score, _, _ in expected]))
        torch.testing.assert_close(
            detections.boxes, torch.tensor([box for _, _, box in expected]), atol=1e-3, rtol=1e-4
        )


def test_nothing_above_the_threshold_gives_no_detections():
    sizes = ((2, 2), (1, 1), (1, 1), (1, 1), (1, 1))
    detections = postprocess(head_output(torch.full((1, 8, 3), -9.0), sizes), 0, (16, 16), [[1], [2]])
    assert detections.boxes.shape == (0, 4)
    assert len(detections.scores) == len(detections.labels) == 0


def test_ties_may_exceed_the_limit():
    sizes = ((1, 40), (1, 1), (1, 1), (1, 1), (1, 1))
    out = head_output(torch.full((1, 44, 2), 3.0), sizes)
    detections = postprocess(out, 0, (8, 320), [[0]], nms_iou=0.95, max_detections=5)
    assert len(detections.scores) > 5


def test_settings_are_those_of_the_function():
    assert set(POSTPROCESSING) == {"score_threshold", "pre_nms_topk", "nms_iou", "max_detections", "aggregation"}
    assert POSTPROCESSING["nms_iou"] == 0.6


@pytest.mark.parametrize(("aggregation", "expected"), [("mean", [0.5, 0.25]), ("max", [0.8, 0.25])])
def test_label_scores_by_hand(aggregation, expected):
    probabilities = torch.tensor([[0.2, 0.8, 0.25]])
    scores = label_scores(probabilities.logit(), [[0, 1], [2]], aggregation)
    torch.testing.assert_close(scores[:, 0], torch.tensor(expected))


def test_labels_apart_are_found_as_if_asked_alone():
    """Where together they would take candidates and places from each other."""
    torch.manual_seed(3)
    sizes = [(4, 4), (2, 2), (1, 1), (1, 1), (1, 1)]
    out = head_output(torch.randn(1, 23, 6), sizes, torch.randn(1, 23), torch.randn(1, 23, 4))
    tokens = [[0, 1], [2], [1, 3, 4]]
    limits = {"score_threshold": 0.3, "pre_nms_topk": 5, "nms_iou": 0.6, "max_detections": 2}
    apart = postprocess_apart(out, 0, (30, 40), tokens, **limits)
    for label, of_label in enumerate(tokens):
        alone = postprocess(out, 0, (30, 40), [of_label], **limits)
        mine = apart.labels == label
        assert torch.equal(apart.boxes[mine], alone.boxes)
        assert torch.equal(apart.scores[mine], alone.scores)
        assert len(alone.scores)
    assert len(postprocess(out, 0, (30, 40), tokens, **limits).labels) < len(apart.labels)


class WithoutQuality(NamedTuple):
    """Of a head that does not judge how well its boxes lie."""

    found: Regions

    def regions(self, image: int) -> Regions:
        return self.found


@pytest.mark.parametrize("search", [postprocess, postprocess_apart])
def test_a_head_without_centerness_has_other_scores_than_probabilities(search):
    logits = torch.tensor([[2.0, -1.0], [-3.0, 1.0], [-9.0, -9.0]])
    boxes = torch.tensor([[0.0, 0, 9, 9], [20, 20, 50, 60], [1, 1, 2, 2]])
    out = WithoutQuality(Regions(boxes, logits, None, (2, 1)))
    detections = search(out, 0, (40, 40), [[0], [1]], score_threshold=0.3)
    torch.testing.assert_close(detections.scores, torch.tensor([2.0, 1.0]).sigmoid())
    assert detections.labels.tolist() == [0, 1]
    assert detections.boxes.tolist() == [[0, 0, 9, 9], [20, 20, 39, 39]]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.95])
def test_a_batch_has_other_detections_than_its_images(apart, at_once, threshold, monkeypatch):
    """Of different sizes and numbers of labels, one with nothing to find. at_once: suppressed as on a GPU."""
    torch.manual_seed(0)
    sizes = ((6, 8), (3, 4), (2, 2), (1, 1), (1, 1))
    N = sum(h * w for h, w in sizes)
    logits = torch.randn(3, N, 8)
    logits[2] = -9
    out = head_output(logits, sizes, torch.randn(3, N), torch.randn(3, N, 4))
    tokens = [[[1, 2], [3], [4, 5, 6]], [[7, 0]], [[2], [1]]]
    of_images = ((45, 60), (48, 64), (30, 40))
    settings = {"score_threshold": threshold, "pre_nms_topk": 20, "nms_iou": 0.4, "max_detections": 15}
    search = postprocess_apart if apart else postprocess
    alone = [search(out, i, of_images[i], tokens[i], **settings) for i in range(3)]
    if at_once:
        suppressed = postprocessing._suppressed_at_once
        monkeypatch.setattr(
            postprocessing, "_suppressed", lambda candidates, queries, nms_iou: suppressed(candidates, nms_iou)
        )
    together = postprocess_batch(out, of_images, tokens, apart=apart, **settings)
    for mine, expected in zip(together, alone, strict=True):
        for part, value in zip(mine, expected, strict=True):
            assert torch.equal(part, value)
    assert len(alone[2].scores) == 0 or threshold == 0
