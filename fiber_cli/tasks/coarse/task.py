"""Coarse-grained pre-training: MLM, ITM with global hard negatives, ITC (paper section 3.2).

Stems run once per image and per text and are shared by the three objectives; only the tops run again. All losses are
means over the global batch: the mean over ranks of what `forward` returns, gradients included, equals the loss of one
process that holds the whole batch.
Shapes: B rows on this rank, G rows on all ranks, Q filled queue columns, L text length, D joint width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.distributed import collectives as dist
from fiber_cli.data.images import normalize
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem
from fiber_cli.model.heads import ItmHead, MlmHead, PairPooler
from fiber_cli.tasks.base import Task

TEMPERATURE_RANGE = (0.001, 1.0)


class CoarseTask(Task):
    """The pre-training model and its losses; `RetrievalTask` is the same without MLM.

    mlm, itm, itc: loss weights, 0 switches an objective off and leaves out its head (of ITC the temperature).
    itm_negatives: "hard" draws one negative text and one negative image per pair from the ITC similarities over all
    ranks, "random" draws uniformly; a pair is never its own negative, nor is another caption of the same image.
    mlm_pairs, itm_pairs: these dearer objectives look at the first so many pairs of each micro-batch, None = all, as in
    the paper. queue_size: features kept as further ITC negatives (0 = none; never pixels). itc_detach_keys and
    itc_queue_noise are the published code's behaviour: no gradient through the features compared against, and
    never-written queue columns in the denominator.
    """

    def __init__(
        self,
        config: FiberConfig,
        *,
        mlm: float = 1.0,
        itm: float = 1.0,
        itc: float = 1.0,
        itm_negatives: str = "hard",
        mlm_pairs: int | None = None,
        itm_pairs: int | None = None,
        queue_size: int = 0,
        itc_detach_keys: bool = False,
        itc_queue_noise: bool = False,
        temperature: float = 0.07,
    ):
        super().__init__()
        self.weights = {"mlm": mlm, "itc": itc, "itm": itm}
        self.itm_negatives, self.mlm_pairs, self.itm_pairs = itm_negatives, mlm_pairs, itm_pairs
        self.itc_detach_keys, self.itc_queue_noise = itc_detach_keys, itc_queue_noise
        self.encoder = FusedEncoder(config)
        self.pool = PairPooler(config)
        self.itc_pool = PairPooler(config, pooler=config.itc_pooler)
        self.mlm = MlmHead(config) if mlm else None
        self.itm = ItmHead(config) if itm else None
        self.temperature = nn.Parameter(torch.tensor([temperature])) if itc else None
        self.queue_size, self.queue_start, self.queue_filled = queue_size, 0, 0
        noise = torch.Generator().manual_seed(0)
        for name in ("image_queue", "text_queue"):
            columns = torch.randn(queue_size, config.hidden, generator=noise)
            self.register_buffer(name, columns, persistent=False)

    def forward(self, batch: dict) -> dict[str, Tensor]:
        """One step's losses: "loss" carries the graph; "mlm_loss", "itc_loss", "itm_loss", "itm_accuracy" and
        "temperature" are for the log.

        batch: pixels uint8 (B, 3, H, W); ids, mlm_ids, mlm_labels int64 (B, L); mask bool (B, L); image_key int64
        (B,), equal for captions of one image; seed int, equal on all ranks.
        """
        image = self.encoder.image_stem(normalize(batch["pixels"]))
        losses, log = {}, {}
        text = None
        if self.weights["itc"] or self.weights["itm"]:
            text = self.encoder.text_stem(batch["ids"], batch["mask"])
        if self.weights["itc"]:
            features = self.image_features(image), self.text_features(text)
            losses["itc"], similarities = self.itc_loss(*features)
            log["temperature"] = self.temperature.detach().clone()
        if self.weights["mlm"]:
            first = slice(self.mlm_pairs)
            masked = (batch[name][first] for name in ("mlm_ids", "mask", "mlm_labels"))
            losses["mlm"] = self.mlm_loss(ImageStem(image.map[first]), *masked)
        if self.weights["itm"]:
            hard = self.itm_negatives == "hard" and self.weights["itc"]
            chances = tuple(sampling_weights(s, dist.rank()) for s in similarities) if hard else None
            first = slice(self.itm_pairs)
            drawn = self.draw_negatives(batch["image_key"], batch["seed"], chances)
            pairs = ImageStem(image.map[first]), TextStem(text.tokens[first], text.mask[first])
            negatives = self.fetch(image, text, *(rows[first] for rows in drawn))
            losses["itm"], log["itm_accuracy"] = self.itm_loss(*pairs, *negatives)
        if self.training and self.queue_size and self.weights["itc"]:
            self.push_queue(*(dist.all_gather_grad(f.detach()) for f in features))
        log |= {f"{name}_loss": loss.detach() for name, loss in losses.items()}
        return {"loss": sum(self.weights[name] * loss for name, loss in losses.items()), **log}

    def predict(self, batch: dict) -> Tensor:
        """Dual-encoder features of a batch of images ("pixels") or texts ("ids", "mask"): float32 (B, D), L2 norm 1."""
        if "pixels" in batch:
            return self.image_features(self.encoder.image_stem(normalize(batch["pixels"])))
        return self.text_features(self.encoder.text_stem(batch["ids"], batch["mask"]))

    def image_features(self, stem: ImageStem) -> Tensor:
        """Float32 (B, D), L2 norm 1. The final Swin LayerNorm is applied here and in no fused pass."""
        pooled = self.itc_pool.image(self.encoder.image.norm(self.encoder.image_top(stem)))
        return F.normalize(pooled.float(), dim=1, eps=0.0)

    def text_features(self, stem: TextStem) -> Tensor:
        """Float32 (B, D), L2 norm 1."""
        return F.normalize(self.itc_pool.text(self.encoder.text_top(stem)).float(), dim=1, eps=0.0)

    def itc_loss(self, image: Tensor, text: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Contrastive loss of features (B, D) against all ranks' features and the queue.

        Also returns the similarities divided by the temperature, image to text and text to image, detached, each
        (B, G + Q). Columns of never-written queue slots (`itc_queue_noise`) enter the loss only.
        """
        with torch.autocast(image.device.type, enabled=False):
            temperature = self.temperature.float()
            # Clamped in value; the gradient passes, as with the published clamp of the parameter itself.
            temperature = temperature + (temperature.clamp(*TEMPERATURE_RANGE) - temperature).detach()
            columns = self.queue_size if self.itc_queue_noise else self.queue_filled
            target = dist.rank() * len(image) + torch.arange(len(image), device=image.device)
            losses, similarities = [], []
            for query, key, queue in ((image, text, self.text_queue), (text, image, self.image_queue)):
                keys = dist.all_gather_grad(key.detach() if self.itc_detach_keys else key)
                logits = query @ torch.cat([keys, queue[:columns]]).T / temperature
                losses.append(F.cross_entropy(logits, target))
                similarities.append(logits.detach()[:, : len(keys) + self.queue_filled])
        return (losses[0] + losses[1]) / 2, tuple(similarities)

    def mlm_loss(self, image: ImageStem, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy at the masked positions, a mean over those of all ranks. The vocabulary is scored at those
        positions only; the last image block runs for nobody and is left out."""
        fused = self.encoder.fuse(image, self.encoder.text_stem(ids, mask), image_output=False)
        masked = labels != -100
        logits = self.mlm(self.pool.text_transform(fused.text[masked]))
        count = dist.all_reduce_sum(masked.sum().float()).clamp(min=1)
        loss = F.cross_entropy(logits.float(), labels[masked], reduction="sum")
        return loss * dist.world_size() / count

    def draw_negatives(
        self, image_key: Tensor, seed: int, weights: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        """Global row numbers, int64 (B,) each, of one negative image for each text and one negative text for each
        image. `weights` are those of `sampling_weights`, image to text first; None draws uniformly. The draw of a
        row depends on `seed` and its global number alone, not on the number of ranks."""
        keys = dist.all_gather_grad(image_key)
        rows = len(image_key)
        first = dist.rank() * rows
        if len(keys) < 2:
            raise UserError(
                "image-text matching needs a negative: runtime.micro_batch times the number of ranks is 1; "
                "raise runtime.micro_batch or set task.itm=0"
            )
        itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)[first : first + rows]
        same_image = keys[None, :] == image_key[:, None]
        excluded = torch.where(same_image.all(1, keepdim=True), itself, same_image)
        uniform = torch.rand(2, len(keys), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        drawn = []
        for side in (0, 1):
            if weights is None:
                chances = torch.ones_like(itself, dtype=torch.float64)
            else:
                chances = weights[1 - side][:, : len(keys)].double() + 1e-9
            cumulative = chances.masked_fill(excluded, 0.0).cumsum(1)
            point = uniform[side, first : first + rows, None].to(keys.device) * cumulative[:, -1:]
            # right=True passes over excluded rows, whose cumulative weight does not grow.
            drawn.append(torch.searchsorted(cumulative, point, right=True).squeeze(1).clamp(max=len(keys) - 1))
        return drawn[0], drawn[1]

    def fetch(
        self, image: ImageStem, text: TextStem, image_rows: Tensor, text_rows: Tensor
    ) -> tuple[ImageStem, TextStem]:
        """Stems of the given global rows, fetched from the ranks that computed them; gradients flow back there."""
        mask = dist.all_gather_grad(text.mask.to(torch.uint8))[text_rows].bool()
        negative_image = ImageStem(dist.exchange_rows(image.map, image_rows))
        return negative_image, TextStem(dist.exchange_rows(text.tokens, text_rows), mask)

    def itm_loss(
        self, image: ImageStem, text: TextStem, negative_image: ImageStem, negative_text: TextStem
    ) -> tuple[Tensor, Tensor]:
        """Matched or not over 3B pairs: (image, text), (image, negative text), (negative image, text). Also the
        accuracy, in [0, 1]."""
        images = ImageStem(torch.cat([image.map, image.map, negative_image.map]))
        texts = TextStem(
            torch.cat([text.tokens, negative_text.tokens, text.tokens]),
            torch.cat([text.mask, negative_text.mask, text.mask]),
        )
        logits = self.match(images, texts).float()
        labels = (torch.arange(len(logits), device=logits.device) < len(image.map)).long()
        return F.cross_entropy(logits, labels), (logits.detach().argmax(1) == labels).float().mean()

    def match(self, image: ImageStem, text: TextStem, *, pooled: bool = False) -> Tensor:
        """ITM logits (B, 2) of the pairs (image b, text b); index 1 is "matched". `pooled`, and K texts for each image:
        see `FusedEncoder.fuse`."""
        fused = self.encoder.fuse(image, text, pooled=pooled)
        return self.itm(self.pool(fused.pyramid[-1], fused.text))

    @torch.no_grad()
    def push_queue(self, image: Tensor, text: Tensor) -> None:
        """Write features (G, D) of all ranks into the queue, oldest first out."""
        image, text = image[-self.queue_size :], text[-self.queue_size :]
        slots = (self.queue_start + torch.arange(len(image), device=image.device)) % self.queue_size
        self.image_queue[slots], self.text_queue[slots] = image, text
        self.queue_start = (self.queue_start + len(image)) % self.queue_size
        self.queue_filled = min(self.queue_size, self.queue_filled + len(image))

    def step_state(self) -> dict[str, Tensor]:
        if not self.queue_size:
            return {}
        position = torch.tensor([self.queue_start, self.queue_filled])
        return {"image_queue": self.image_queue, "text_queue": self.text_queue, "queue_position": position}

    def load_resume_state(self, state: dict[str, Tensor]) -> None:
        if self.queue_size:
            self.image_queue.copy_(state["image_queue"])
            self.text_queue.copy_(state["text_queue"])
            self.queue_start, self.queue_filled = state["queue_position"].tolist()


class RetrievalTask(CoarseTask):
    """Fine-tuning for retrieval with ITC, ITM or both (paper section 3.3). ITM alone draws random negatives."""

    NEW = ("itm.", "temperature")
    DROPPED = ("mlm.", "itm.", "temperature")

    def __init__(self, config: FiberConfig, **settings):
        super().__init__(config, mlm=0.0, **settings)


def sampling_weights(similarities: Tensor, rank: int) -> Tensor:
    """Chances (B, G + Q) with which each candidate is a hard negative: a softmax over batch and filled queue, the
    own column set to 0. Negatives are drawn among the G columns of the batch."""
    weights = similarities.softmax(1)
    weights[:, rank * len(weights) :].fill_diagonal_(0.0)
    return weights
