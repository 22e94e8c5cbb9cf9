"""Phrase grounding and detection: boxes for the words of a text (fine-grained pre-training, paper section 3.3).

Losses are normalised by the mean over ranks of their counts, so that the mean over ranks of what `forward` returns is
the loss of one process that holds the whole batch.
Shapes: B images on this rank, L text length, G true boxes of one image.
"""

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from fiber_cli.distributed import collectives as dist
from fiber_cli.data.images import normalize
from fiber_cli.tasks.regions.transforms import padded
from fiber_cli.errors import UserError
from fiber_cli.model.detector.atss import loss_sums
from fiber_cli.model.config import DetectorConfig, FiberConfig
from fiber_cli.model.detector.detector import POSTPROCESSING, Detector, HeadOutput, postprocess
from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem
from fiber_cli.tasks.base import Task

BOX_WEIGHT = 2.0


class GroundingTask(Task):
    """The detector and its losses.

    frozen_stages: the patch embedding and so many image stages keep their weights and run as in evaluation; 0 trains
    everything. unmatched_target: what an anchor without a box should name, "none" or, as published, the "last_token"
    slot. settings: those of `postprocess`; the rest is `DetectorConfig`'s.
    """

    NEW: ClassVar[tuple[str, ...]] = ("detector.",)
    DROPPED: ClassVar[tuple[str, ...]] = ("pool.", "itc_pool.", "mlm.", "itm.", "temperature", "encoder.image.norm.")

    def __init__(self, config: FiberConfig, *, frozen_stages: int = 0, unmatched_target: str = "none", **settings: Any):
        super().__init__()
        self.encoder = FusedEncoder(config)
        # The final norm of the image-only pass is for ITC; the detector norms every stage by itself.
        self.encoder.image.norm = nn.Identity()
        self.postprocessing = {name: settings.pop(name, default) for name, default in POSTPROCESSING.items()}
        self.detector = Detector(config, DetectorConfig(**settings))
        self.last_token_unmatched = unmatched_target == "last_token"
        image = self.encoder.image
        if frozen_stages > len(image.stages):
            raise UserError(f"task.frozen_stages={frozen_stages}: the image encoder has {len(image.stages)} stages")
        self._frozen = [image.patch_embed, *image.stages[:frozen_stages]] if frozen_stages else []
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def image_stem(self, pixels: Tensor, sizes: Tensor) -> ImageStem:
        """pixels: uint8 or float in 0 to 255, (B, 3, H, W), images in the top left corner; sizes: int64 (B, 2), their
        true (height, width). What lies beyond is zero after the normalisation, as published; the network has no mask
        for it."""
        pixels = normalize(pixels)
        height, width = (
            torch.arange(side, device=pixels.device) < true[:, None]
            for side, true in zip(pixels.shape[-2:], sizes.to(pixels.device).unbind(1))
        )
        return self.encoder.image_stem(pixels * (height[:, None, :, None] & width[:, None, None, :]))

    def detect(self, image: ImageStem, text: TextStem) -> HeadOutput:
        """What the head says about the images for one text each."""
        return self.detector(self.encoder.fuse(image, text, last_norm=True))

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step's losses: "loss" carries the graph; "token_loss", "reg_loss" and "centerness_loss", whose sum it
        is, are for the log.

        batch: pixels and sizes as in `image_stem`; ids int64 and mask bool (B, L); of all images one after another
        boxes (N, 4), xyxy with inclusive ends, and positive_map (N, L), non-zero where a token names the box;
        box_counts int64 (B,).
        """
        stem = self.image_stem(batch["pixels"], batch["sizes"])
        return self.losses(self.detect(stem, self.encoder.text_stem(batch["ids"], batch["mask"])), batch)

    def losses(self, out: HeadOutput, batch: dict) -> dict[str, Tensor]:
        """The losses of `forward` from the head's output."""
        boxes = batch["box_counts"].tolist()
        sums = loss_sums(
            *out,
            batch["mask"],
            batch["boxes"].split(boxes),
            batch["positive_map"].split(boxes),
            last_token_unmatched=self.last_token_unmatched,
        )
        counts = torch.stack([sums.positives.to(sums.centerness_target), sums.centerness_target])
        positives, centerness_target = dist.all_reduce_sum(counts) / dist.world_size()
        positives = positives.clamp(min=1)
        losses = {
            "token_loss": sums.token / positives,
            # Without any positive the sum is 0, and so is its quotient.
            "reg_loss": BOX_WEIGHT * sums.box / centerness_target.clamp(min=1e-6),
            "centerness_loss": sums.centerness / positives,
        }
        return {"loss": sum(losses.values())} | {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def predict(self, batch: dict) -> list[np.ndarray]:
        """Detections of every image: float32 (K, 6) rows of x1, y1, x2, y2 in pixels of the original image, score,
        label; best first within each prompt, K differs.

        batch: pixels and sizes as in `image_stem`; original_sizes int64 (B, 2), (height, width) of the images as
        they were; P prompts as ids and mask (P, L); pairs int64 (Q, 2), the (image, prompt) to look at; positive_map
        (N, L), the tokens of each label, with label_prompt and labels int64 (N,), the prompt that names it, ascending,
        and the number to report for it; optionally postprocessing, settings of `postprocess` to be put over the task's
        own. The stem of an image runs once for all prompts, and images that pad to one size go together, so that none
        is padded further for its company.
        """
        sizes, settings = padded(batch["sizes"]).tolist(), self.postprocessing | batch.get("postprocessing", {})
        text = self.encoder.text_stem(batch["ids"], batch["mask"])
        labels = batch["label_prompt"].bincount(minlength=len(batch["ids"])).tolist()  # of each prompt
        numbers = batch["labels"].to(text.tokens.device).split(labels)
        tokens = [[row.nonzero().flatten().tolist() for row in own] for own in batch["positive_map"].split(labels)]
        rows: list[list[Tensor]] = [[] for _ in sizes]
        for height, width in {tuple(size): None for size in sizes}:
            images = torch.tensor([i for i, size in enumerate(sizes) if size == [height, width]])
            stem = self.image_stem(batch["pixels"][images, :, :height, :width], batch["sizes"][images])
            place = {image: row for row, image in enumerate(images.tolist())}
            pairs = [pair for pair in batch["pairs"].tolist() if pair[0] in place]
            for first in range(0, len(pairs), len(images)):
                part = pairs[first : first + len(images)]
                which, prompts = [place[image] for image, _ in part], [prompt for _, prompt in part]
                out = self.detect(
                    ImageStem(stem.map[which], tuple(level[which] for level in stem.earlier)),
                    TextStem(text.tokens[prompts], text.mask[prompts]),
                )
                for row, (image, prompt) in enumerate(part):
                    found = postprocess(out, row, batch["sizes"][image].tolist(), tokens[prompt], **settings)
                    factor = batch["original_sizes"][image] / batch["sizes"][image]
                    boxes = found.boxes * factor.flip(0).repeat(2).to(found.boxes)
                    columns = boxes, found.scores[:, None], numbers[prompt][found.labels][:, None].to(boxes)
                    rows[image].append(torch.cat(columns, 1).float())
        return [torch.cat(row).cpu().numpy() if row else np.empty((0, 6), np.float32) for row in rows]
