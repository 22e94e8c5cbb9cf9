"""NLVR2: whether a statement is true of two images, or of one (paper section 3.3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import FusedEncoder, TextStem
from fiber_cli.model.heads import Classifier, PairPooler
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.base import Task


class Nlvr2Task(Task):
    """The statement is fused with each image; one classifier looks at both pooled pairs."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        self.encoder = FusedEncoder(config)
        self.pool = PairPooler(config)
        self.nlvr2 = Classifier(config, 4 * config.hidden, 2)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "loss" carries the graph: cross-entropy, a mean over the batch. "nlvr2_loss" and "accuracy", in [0, 1], are
        for the log.

        batch: as for `predict`, and labels int64 (B,), 1 for a true statement.
        """
        logits, labels = self.logits(batch), batch["labels"]
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.detach().argmax(1) == labels).float().mean()
        return {"loss": loss, "nlvr2_loss": loss.detach(), "accuracy": accuracy}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """1 for true and 0 for false, int64 (B,). batch: pixels uint8 (B, 1 or 2, 3, H, W); ids int64 (B, L); mask
        bool (B, L)."""
        return self.logits(batch).argmax(1)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """Float32 (B, 2), index 1 means true, of a batch as for `predict`. Where there is one image, its fused pass
        stands on both sides."""
        count = batch["pixels"].shape[1]
        # All left images, then all right ones.
        images = self.encoder.image_stem(normalize(batch["pixels"]).transpose(0, 1).flatten(0, 1))
        text = self.encoder.text_stem(batch["ids"], batch["mask"])
        texts = TextStem(text.tokens.repeat(count, 1, 1), text.mask.repeat(count, 1))
        fused = self.encoder.fuse(images, texts, pooled=True)
        pooled = self.pool(fused.pyramid[-1], fused.text).chunk(count)
        return self.nlvr2(torch.cat([pooled[0], pooled[-1]], 1)).float()
