"""Phrase grounding and detection: boxes for the words of a text (fine-grained pre-training, paper section 3.3).

Losses are normalised by the mean over ranks of their counts, so that the mean over ranks of what `forward` returns is
the loss of one process that holds the whole batch.
Shapes: B images on this rank, L text length, G true boxes of one image.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from fiber_cli.distributed import collectives
from fiber_cli.errors import UserError
from fiber_cli.model.config import DetectorConfig, FiberConfig, HeadFusion, HeadKind
from fiber_cli.model.detector.detection_head import DetectionOutput, LossSum, Truth
from fiber_cli.model.detector.detector import Detector
from fiber_cli.model.detector.postprocess import POSTPROCESSING, ImageDetections, postprocess_batch
from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem
from fiber_cli.model.pixels import normalize, padded
from fiber_cli.tasks.abilities import Detecting
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext


class _Prompts(NamedTuple):
    """P texts, and for the labels of each prompt the positions of their tokens and the numbers to report."""

    stem: TextStem
    tokens: list[list[list[int]]]
    numbers: Sequence[Tensor]


class RegionTask(Task, Detecting):
    """The detector and its losses; the module of all four region-level tasks.

    channels, head, blocks, drop_block, log_scale, head_fusion, sampled_regions: see `DetectorConfig`. frozen_stages:
    the patch embedding and so many image stages keep their weights and run as in evaluation; 0 trains everything.
    unmatched_target: what a region without a box should name, "none" or, as published, the "last_token" slot.
    score_threshold, pre_nms_topk, nms_iou, max_detections, aggregation: see `postprocess`.
    """

    def __init__(
        self,
        config: FiberConfig,
        *,
        channels: int = DetectorConfig.channels,
        head: HeadKind = DetectorConfig.head,
        blocks: int = DetectorConfig.blocks,
        drop_block: float = DetectorConfig.drop_block,
        log_scale: float = DetectorConfig.log_scale,
        head_fusion: HeadFusion = DetectorConfig.fusion,
        sampled_regions: int = DetectorConfig.sampled_regions,
        frozen_stages: int = 0,
        unmatched_target: Literal["none", "last_token"] = "none",
        score_threshold: float = POSTPROCESSING["score_threshold"],
        pre_nms_topk: int = POSTPROCESSING["pre_nms_topk"],
        nms_iou: float = POSTPROCESSING["nms_iou"],
        max_detections: int = POSTPROCESSING["max_detections"],
        aggregation: Literal["mean", "max"] = POSTPROCESSING["aggregation"],
        threshold: float | None = None,
    ):
        super().__init__()
        self.encoder = FusedEncoder(config)
        # The final norm of the image-only pass is for ITC; the detector norms every stage by itself.
        self.encoder.image.norm = nn.Identity()
        self.postprocessing: Mapping[str, Any] = {
            "score_threshold": score_threshold,
            "pre_nms_topk": pre_nms_topk,
            "nms_iou": nms_iou,
            "max_detections": max_detections,
            "aggregation": aggregation,
        }
        self.threshold = threshold
        sizes = DetectorConfig(channels, blocks, drop_block, log_scale, head_fusion, head, sampled_regions)
        self.detector = Detector(config, sizes)
        self.last_token_unmatched = unmatched_target == "last_token"
        #: Tokens of the longest text that there may be, None where every batch is so wide.
        self.text_length: int | None = None
        self._frozen = self._first_modules(frozen_stages)
        for module in self._frozen:
            module.requires_grad_(False)

    @classmethod
    def from_context(cls, context: TaskContext[Any]) -> Self:
        task = super().from_context(context)
        task.text_length = context.text_length
        return task

    def _first_modules(self, frozen_stages: int) -> list[nn.Module]:
        image = self.encoder.image
        if frozen_stages > len(image.stages):
            raise UserError(f"task.frozen_stages={frozen_stages}: the image encoder has {len(image.stages)} stages")
        if not frozen_stages:
            return []
        return [image.patch_embed, *image.stages[:frozen_stages]]

    @property
    def without_place(self) -> tuple[str, ...]:
        """A checkpoint with another head gives the encoder, the pyramid and the alignment."""
        return tuple(f"detector.{prefix}" for prefix in self.detector.of_other_heads)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def image_stem(self, pixels: Tensor, sizes: Tensor) -> ImageStem:
        """pixels: uint8 or float in 0 to 255, (B, 3, H, W), images in the top left corner; sizes: int64 (B, 2), their
        true (height, width). What lies beyond is zero after the normalisation, as published; the network has no mask
        for it."""
        heights, widths = sizes.to(pixels.device, non_blocking=True).unbind(1)
        rows_BH = torch.arange(pixels.shape[-2], device=pixels.device) < heights[:, None]
        columns_BW = torch.arange(pixels.shape[-1], device=pixels.device) < widths[:, None]
        inside_B1HW = rows_BH[:, None, :, None] & columns_BW[:, None, None, :]
        return self.encoder.image_stem(normalize(pixels) * inside_B1HW)

    def detect(self, image: ImageStem, text: TextStem, truth: Truth | None = None) -> DetectionOutput:
        """What the head says about the images for one text each; truth: in training, see `DetectionHead`."""
        output: DetectionOutput = self.detector(self.encoder.fuse(image, text, last_norm=True), truth)
        return output

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step's losses: "loss" carries the graph; those whose sum it is are for the log: "token_loss" of the
        alignment, "reg_loss" of the boxes, and what the head has besides, such as "centerness_loss".

        batch: pixels and sizes as in `image_stem`; ids int64 and mask bool (B, L); of all images one after another
        boxes (N, 4), xyxy with inclusive ends, and positive_map (N, L), non-zero where a token names the box;
        box_counts: how many each image has, (B,), whole numbers that stay on the host.
        """
        image = self.image_stem(batch["pixels"], batch["sizes"])
        text = self.encoder.text_stem(batch["ids"], batch["mask"])
        return self.losses(self.detect(image, text, self._truth(batch)), batch)

    def losses(self, out: DetectionOutput, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of `forward` from the head's output."""
        losses = _over_ranks(out.loss_sums(self._truth(batch)))
        logged = {name: loss.detach() for name, loss in losses.items()}
        return {"loss": torch.stack(list(losses.values())).sum(), **logged}

    def _truth(self, batch: dict[str, Any]) -> Truth:
        box_counts = [int(count) for count in batch["box_counts"]]
        boxes, names = batch["boxes"].split(box_counts), batch["positive_map"].split(box_counts)
        # The published target is the last column of the longest text that there may be, not of this batch.
        has_last_column = self.text_length in (None, batch["mask"].shape[1])
        return Truth(batch["mask"], boxes, names, self.last_token_unmatched and has_last_column)

    @torch.no_grad()
    def predict(self, batch: dict[str, Any]) -> list[np.ndarray]:
        """Detections of every image: float32 (K, 6) rows of x1, y1, x2, y2 in pixels of the original image, score,
        label; best first within each prompt, K differs.

        batch: pixels and sizes as in `image_stem`; original_sizes int64 (B, 2), (height, width) of the images as
        they were; P prompts as ids and mask (P, L); pairs int64 (Q, 2), the (image, prompt) to look at; positive_map
        (N, L), the tokens of each label, with label_prompt and labels int64 (N,), the prompt that names it, ascending,
        and the number to report for it; optionally postprocessing, settings of `postprocess` to be put over the task's
        own, and labels_apart, whether each label of a prompt is found as if it were alone, see `postprocess_batch`. The
        stem of an image runs once for all prompts, and images that pad to one size go together, so that none is padded
        further for its company.
        """
        settings = {**self.postprocessing, **batch.get("postprocessing", {})}
        settings["apart"] = batch.get("labels_apart", False)
        # Before anything is computed, for which the host would wait.
        sizes_B2 = batch["sizes"].cpu()
        all_pairs, sizes = batch["pairs"].tolist(), sizes_B2.tolist()
        factors = batch["original_sizes"] / batch["sizes"]
        prompts = self._encode_prompts(batch)
        detections: list[list[Tensor]] = [[] for _ in sizes]
        for images, (height, width) in _same_padded_size(sizes_B2):
            pixels = _chosen(batch["pixels"], images)[:, :, :height, :width]
            stem = self.image_stem(pixels, sizes_B2[images])
            row_of = {image: row for row, image in enumerate(images)}
            pairs = [pair for pair in all_pairs if pair[0] in row_of]
            for first in range(0, len(pairs), len(images)):
                chunk = pairs[first : first + len(images)]
                out = self._detect_pairs(stem, prompts.stem, [(row_of[image], prompt) for image, prompt in chunk])
                tokens = [prompts.tokens[prompt] for _, prompt in chunk]
                of_pairs = postprocess_batch(out, [sizes[image] for image, _ in chunk], tokens, **settings)
                for (image, prompt), of_pair in zip(chunk, of_pairs, strict=True):
                    detections[image].append(_as_rows(of_pair, prompts.numbers[prompt], factors[image]))
        return [_concatenated(of_image) for of_image in detections]

    def _encode_prompts(self, batch: dict[str, Any]) -> _Prompts:
        label_prompt = batch["label_prompt"].cpu()
        label_counts = label_prompt.bincount(minlength=len(batch["ids"])).tolist()
        tokens = []
        # On the host: of labels on the device each would be waited for.
        for positive_map in batch["positive_map"].cpu().split(label_counts):
            tokens.append([label.nonzero().flatten().tolist() for label in positive_map])
        stem = self.encoder.text_stem(batch["ids"], batch["mask"])
        numbers = batch["labels"].to(stem.tokens.device).split(label_counts)
        return _Prompts(stem, tokens, numbers)

    def _detect_pairs(self, images: ImageStem, texts: TextStem, pairs: Sequence[tuple[int, int]]) -> DetectionOutput:
        """The head's output for each pair of an image and a text, by their rows."""
        image_rows, text_rows = map(list, zip(*pairs, strict=True))
        earlier = tuple(_chosen(stage, image_rows) for stage in images.earlier)
        paired_images = ImageStem(_chosen(images.map, image_rows), earlier)
        paired_texts = TextStem(_chosen(texts.tokens, text_rows), _chosen(texts.mask, text_rows))
        return self.detect(paired_images, paired_texts)


def _over_ranks(sums: Mapping[str, LossSum]) -> dict[str, Tensor]:
    """Each loss, divided by the mean of its counts over the ranks."""
    of_this_rank = torch.stack([each.divisor for each in sums.values()])
    divisors = collectives.all_reduce_sum(of_this_rank) / collectives.world_size()
    losses = {}
    for (name, each), divisor in zip(sums.items(), divisors, strict=True):
        losses[name] = each.weight * each.total / divisor.clamp(min=each.least)
    return losses


def _chosen(x: Tensor, rows: Sequence[int]) -> Tensor:
    """The rows of x with these numbers; x itself where these are all in their order."""
    if list(rows) == list(range(len(x))):
        return x
    return x.index_select(0, torch.tensor(rows).to(x.device, non_blocking=True))


def _same_padded_size(sizes: Tensor) -> Iterator[tuple[list[int], tuple[int, int]]]:
    """Numbers of the images that pad to one (height, width), and that size; sizes: int64 (B, 2)."""
    images_of: dict[tuple[int, int], list[int]] = {}
    for image, (height, width) in enumerate(padded(sizes).tolist()):
        images_of.setdefault((height, width), []).append(image)
    for size, images in images_of.items():
        yield images, size


def _as_rows(detections: ImageDetections, numbers: Tensor, factor: Tensor) -> Tensor:
    """Rows of `predict`. numbers: to report for the labels; factor: (2,), of the height and the width."""
    boxes = detections.boxes * factor.flip(0).repeat(2).to(detections.boxes)
    labels = numbers[detections.labels]
    columns = (boxes, detections.scores[:, None], labels[:, None].to(boxes))
    return torch.cat(columns, 1).float()


def _concatenated(detections: Sequence[Tensor]) -> np.ndarray:
    if not detections:
        return np.empty((0, 6), np.float32)
    return torch.cat(list(detections)).cpu().numpy()
