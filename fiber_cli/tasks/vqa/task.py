"""Visual question answering as classification over a closed list of answers (paper section 3.3)."""

from typing import Any, Self

import torch.nn.functional as F
from torch import Tensor

from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem
from fiber_cli.model.heads import Classifier, PairPooler
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.abilities import Answering, BestTexts
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext


class VqaTask(Task, Answering):
    """One fused pass and a classifier on the pooled pair. labels: number of answers."""

    def __init__(self, config: FiberConfig, labels: int):
        super().__init__()
        self.encoder = FusedEncoder(config)
        self.pool = PairPooler(config)
        self.vqa = Classifier(config, 2 * config.hidden, labels)

    @classmethod
    def from_context(cls, context: TaskContext[Any]) -> Self:
        if context.labels is None:
            raise TypeError("a VQA task needs its answers as labels")
        return cls(context.model, labels=len(context.labels))

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """ "loss" carries the graph: binary cross-entropy, summed over the labels, a mean over the batch. "vqa_loss"
        and "vqa_score", the mean target of the best label, are for the log.

        batch: as for `predict`, and targets float (B, labels) in [0, 1].
        """
        logits, targets = self.batch_logits(batch), batch["targets"]
        loss = F.binary_cross_entropy_with_logits(logits, targets) * targets.shape[1]
        best = logits.detach().argmax(1, keepdim=True)
        return {"loss": loss, "vqa_loss": loss.detach(), "vqa_score": targets.gather(1, best).mean()}

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Best label, int64 (B,). batch: pixels uint8 (B, 3, H, W); ids int64 (B, L); mask bool (B, L)."""
        return self.batch_logits(batch).argmax(1)

    def answer(self, image: ImageStem, ids: Tensor, mask: Tensor) -> Tensor:
        return self.logits(image, self.encoder.text_stem(ids, mask)).argmax(1)

    def best_answers(self, image: ImageStem, ids: Tensor, mask: Tensor, count: int) -> BestTexts:
        logits = self.logits(image, self.encoder.text_stem(ids, mask)).float()
        best = logits.sort(dim=1, descending=True, stable=True)
        return BestTexts(best.indices[:, :count], best.values[:, :count].sigmoid())

    def batch_logits(self, batch: dict[str, Any]) -> Tensor:
        """Float32 (B, labels) of a batch as for `predict`."""
        image = self.encoder.image_stem(normalize(batch["pixels"]))
        return self.logits(image, self.encoder.text_stem(batch["ids"], batch["mask"])).float()

    def logits(self, image: ImageStem, text: TextStem) -> Tensor:
        """(B, labels) of the pairs (image b, question b); their sigmoids are the scores."""
        fused = self.encoder.fuse(image, text, pooled=True)
        return self.vqa(self.pool(fused.pyramid[-1], fused.text))
