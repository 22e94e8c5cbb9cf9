"""torchvision's Faster R-CNN, whose second stage aligns its regions with tokens in place of classes.

The first stage proposes regions whatever they show; it sees the text only as far as the pyramid does.
Shapes: B batch, R regions of all images one after another, N of one image, C channels, L text length.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from fiber_cli.model.detector.detection_head import DetectionHead, LossSum, Regions, Truth, token_focal, widened
from fiber_cli.model.detector.torchvision_boxes import PyramidAnchors, from_edges, image_list, to_edges
from fiber_cli.model.init import zero_bias
from fiber_cli.model.linear import Linear

#: Sides of the anchors of each level in pixels, and their heights over their widths, as torchvision's.
ANCHOR_SIDES = ((32,), (64,), (128,), (256,), (512,))
ASPECT_RATIOS = (0.5, 1.0, 2.0)
#: Levels that regions are pooled from, and the side of what is pooled.
POOLED_LEVELS = 3
POOLED_SIDE = 7
#: Width of the second stage for each channel of the pyramid: 1,024 at 256, as torchvision's.
WIDTH_PER_CHANNEL = 4
#: Where smooth L1 of the second stage's boxes ends to be a square.
SMOOTH = 1 / 9


class ProposalHead(RPNHead):
    """torchvision's, at least float32 whatever autocast makes of it: boxes are computed from it."""

    def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness (B, A, H_l, W_l) and deltas (B, 4 A, H_l, W_l) of each level, A anchors a position."""
        objectness, deltas = super().forward(levels)
        return [widened(level) for level in objectness], [widened(level) for level in deltas]


class Sampled(NamedTuple):
    """What training learns the chosen regions from: per image `matched` int64 (N,), the number of the box of each, -1
    for none; the deltas (N, 4) that lead to those boxes; and the losses of the first stage, means over its own sample
    of anchors, by name."""

    matched: Sequence[Tensor]
    deltas: Sequence[Tensor]
    of_proposals: Mapping[str, Tensor]


class FasterRcnnOutput(NamedTuple):
    """Float32. Per image: `boxes` (N, 4), edges, `logits` (N, L) before the sigmoid; `deltas` (R, 4), which led from
    the proposals to the boxes. sampled: in training, None otherwise."""

    boxes: Sequence[Tensor]
    logits: Sequence[Tensor]
    deltas: Tensor
    sampled: Sampled | None

    def regions(self, image: int) -> Regions:
        """See `DetectionOutput`."""
        boxes = from_edges(self.boxes[image])
        return Regions(boxes, self.logits[image], None, (len(boxes),))

    def loss_sums(self, truth: Truth) -> Mapping[str, LossSum]:
        """See `DetectionOutput`: the two losses of torchvision's first stage, focal loss over all tokens of the sampled
        regions, smooth L1 of the boxes of those that are matched."""
        assert self.sampled is not None, "the regions were not chosen from the truth"
        tokens = []
        for image, matched_N in enumerate(self.sampled.matched):
            loss_NL = token_focal(self.logits[image], truth.tokens(image, matched_N)) * truth.mask[image]
            tokens.append(loss_NL.sum())
        is_matched = torch.cat(list(self.sampled.matched)) >= 0
        targets = torch.cat(list(self.sampled.deltas))[is_matched]
        box = F.smooth_l1_loss(self.deltas[is_matched], targets, beta=SMOOTH, reduction="sum")
        sums = {
            "token_loss": LossSum(torch.stack(tokens).sum(), is_matched.sum().to(box)),
            "reg_loss": LossSum(box, box.new_tensor(len(is_matched))),
        }
        images = box.new_tensor(len(truth.boxes))
        for name, mean in self.sampled.of_proposals.items():
            sums[name] = LossSum(mean * images, images)
        return sums


class TokenPredictor(nn.Module):
    """What torchvision calls the box predictor: of each region's features a vector to be aligned, and deltas."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.embedding = Linear(width, channels)
        self.box = Linear(width, 4)
        nn.init.normal_(self.box.weight, std=0.001)
        zero_bias(self.box)

    def forward(self, features_RW: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C) and float32 (R, 4)."""
        return self.embedding(features_RW), widened(self.box(features_RW))


class FasterRcnnHead(DetectionHead):
    """torchvision's region proposal network on all levels and its second stage on the first three, with its samplers,
    matchers and box coders; all numbers are torchvision's. sampled_regions: of an image, that training learns from, a
    quarter of them with a box at most; 512 in torchvision."""

    OWN: ClassVar[tuple[str, ...]] = ("rpn.", "roi.")

    def __init__(self, channels: int, text_dim: int, log_scale: float = 0.0, sampled_regions: int = 512):
        super().__init__()
        self.rpn = RegionProposalNetwork(
            PyramidAnchors(ANCHOR_SIDES, (ASPECT_RATIOS,) * len(ANCHOR_SIDES)),
            ProposalHead(channels, len(ASPECT_RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )
        width = WIDTH_PER_CHANNEL * channels
        pool = MultiScaleRoIAlign([str(level) for level in range(POOLED_LEVELS)], POOLED_SIDE, sampling_ratio=2)
        self.roi = RoIHeads(
            pool,
            TwoMLPHead(channels * POOLED_SIDE**2, width),
            TokenPredictor(width, channels),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=sampled_regions,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            # Of torchvision's own postprocessing, which is not used.
            score_thresh=0.0,
            nms_thresh=1.0,
            detections_per_img=0,
        )
        self.add_alignment(channels, text_dim, log_scale)

    def forward(
        self, levels: list[Tensor], text_BLC: Tensor, mask_BL: Tensor | None = None, truth: Truth | None = None
    ) -> FasterRcnnOutput:
        """See `DetectionHead`. With a truth the regions are those that training samples, the true boxes among them;
        the module must be training then."""
        images = image_list(levels)
        named = {str(number): level for number, level in enumerate(levels)}
        sampled = None
        if truth is None:
            proposals, _ = self.rpn(images, named)
        else:
            proposals, sampled = self._sample(images, named, truth)
        pooled = self.roi.box_roi_pool(named, proposals, images.image_sizes)
        vectors_RC, deltas_R4 = self.roi.box_predictor(self.roi.box_head(pooled))
        boxes = self.roi.box_coder.decode(deltas_R4, proposals).view(-1, 4)
        counts = [len(of_image) for of_image in proposals]
        logits_BNL = self.align(pad_sequence(vectors_RC.split(counts), batch_first=True), text_BLC)
        logits = [of_image[:count] for of_image, count in zip(logits_BNL, counts, strict=True)]
        return FasterRcnnOutput(boxes.split(counts), logits, deltas_R4, sampled)

    def _sample(self, images: ImageList, levels: Mapping[str, Tensor], truth: Truth) -> tuple[list[Tensor], Sampled]:
        """Of each image those of its proposals and true boxes that training learns from, edges (N, 4)."""
        assert self.training, "torchvision's first stage has losses in training alone"
        targets = _targets(truth, levels["0"].device)
        proposals, of_proposals = self.rpn(images, levels, targets)
        edges, numbers, labels, deltas = self.roi.select_training_samples(proposals, targets)
        matched = []
        for number_N, label_N in zip(numbers, labels, strict=True):
            matched.append(number_N.masked_fill(label_N == 0, -1))
        return edges, Sampled(matched, deltas, _named(of_proposals))


def _targets(truth: Truth, device: torch.device) -> list[dict[str, Tensor]]:
    """The true boxes in torchvision's form: edges of one class, whose number is 1; background is 0."""
    targets = []
    for boxes in truth.boxes:
        edges = to_edges(widened(boxes.to(device)))
        labels = torch.ones(len(edges), dtype=torch.int64, device=device)
        targets.append({"boxes": edges, "labels": labels})
    return targets


def _named(of_proposals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first stage's losses by the names that the log has for them."""
    return {
        "objectness_loss": of_proposals["loss_objectness"],
        "proposal_loss": of_proposals["loss_rpn_box_reg"],
    }
