"""One fused pass and a classifier of three answers."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import FusedEncoder
from fiber_cli.model.heads import Classifier, PairPooler
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.base import Task


class EntailmentTask(Task):
    """label_smoothing: share of the target that all answers get."""

    def __init__(self, config: FiberConfig, *, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.encoder = FusedEncoder(config)
        self.pool = PairPooler(config)
        self.entailment = Classifier(config, 2 * config.hidden, 3)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """batch: as for `predict`, and labels int64 (B,)."""
        loss = F.cross_entropy(self.logits(batch), batch["labels"], label_smoothing=self.label_smoothing)
        return {"loss": loss, "entailment_loss": loss.detach()}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """The answer, int64 (B,). batch: pixels uint8 (B, 3, H, W); ids int64 and mask bool (B, L)."""
        return self.logits(batch).argmax(1)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        """Float32 (B, 3)."""
        image = self.encoder.image_stem(normalize(batch["pixels"]))
        text = self.encoder.text_stem(batch["ids"], batch["mask"])
        fused = self.encoder.fuse(image, text)
        return self.entailment(self.pool(fused.pyramid[-1], fused.text)).float()
