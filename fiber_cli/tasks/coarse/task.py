"""Coarse-grained pre-training: MLM, ITM with global hard negatives, ITC (paper section 3.2).

Stems run once per image and per text and are shared by the three objectives; only the tops run again, once alone for
ITC and once fused for MLM and ITM together. All losses are means over the global batch: the mean over ranks of what
`forward` returns, gradients included, equals the loss of one process that holds the whole batch.
Shapes: B rows on this rank, G rows on all ranks, Q filled queue columns, L text length, D joint width.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiber_cli.distributed.collectives import all_gather_grad, all_reduce_sum, rank, world_size
from fiber_cli.model.config import FiberConfig
from fiber_cli.model.fusion import Fused, FusedEncoder, FusedPass, ImageStem, TextStem
from fiber_cli.model.heads import ItmHead, MlmHead, PairPooler
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.abilities import Ability, Embedding, Matching
from fiber_cli.tasks.base import Comparison, Pass, Task
from fiber_cli.tasks.coarse.feature_queue import FeatureQueue
from fiber_cli.tasks.coarse.global_batch import Embedded, GlobalBatch
from fiber_cli.tasks.coarse.negatives import Negatives, Weights, draw_negatives, fetch, of_one_width, sampling_weights
from fiber_cli.tasks.thresholds import Threshold, Thresholds
from fiber_cli.tasks.token_losses import NO_LABEL, labelled_positions

TEMPERATURE_RANGE = (0.001, 1.0)
COMPARE_ALL = "task.compare_over=global_batch"


class Similarities(NamedTuple):
    """Cosines divided by the temperature, detached, (B, G + Q) each."""

    image_to_text: Tensor
    text_to_image: Tensor


class CoarseTask(Task, Embedding, Matching):
    """The pre-training model and its losses; `RetrievalTask` is the same without MLM.

    compare_over: "micro_step" contrasts, and draws negatives from, the pairs of a micro-step, those of all ranks;
    "global_batch" all pairs of an optimiser step, see `GlobalBatch`.

    mlm, itm, itc: loss weights, 0 switches an objective off and leaves out its head (of ITC the temperature).
    itm_negatives: "hard" draws one negative text and one negative image per pair from the ITC similarities over all
    ranks, "random" draws uniformly; see `draw_negatives`; itm_margin: see `sampling_weights`.
    mlm_pairs, itm_pairs: these dearer objectives look at the first so many pairs of each micro-batch, None = all, as in
    the paper. queue_size: features kept as further ITC negatives (0 = none; never pixels). itc_detach_keys and
    itc_queue_noise are the published code's behaviour: no gradient through the features compared against, and
    never-written queue columns in the denominator. match_threshold, search_threshold, fewest_words, most_words, and
    the same of queries: see `tasks.thresholds`.
    """

    def __init__(
        self,
        config: FiberConfig,
        *,
        compare_over: str = "micro_step",
        mlm: float = 1.0,
        itm: float = 1.0,
        itc: float = 1.0,
        itm_negatives: str = "hard",
        itm_margin: float | None = None,
        mlm_pairs: int | None = None,
        itm_pairs: int | None = None,
        queue_size: int = 0,
        itc_detach_keys: bool = False,
        itc_queue_noise: bool = False,
        temperature: float = 0.07,
        match_threshold: float | None = None,
        search_threshold: float | None = None,
        fewest_words: float | None = None,
        most_words: float | None = None,
        query_match_threshold: float | None = None,
        query_search_threshold: float | None = None,
        fewest_query_words: float | None = None,
        most_query_words: float | None = None,
    ):
        super().__init__()
        self.weights = {"mlm": mlm, "itc": itc, "itm": itm}
        self.compare_over = compare_over
        self.itm_negatives = itm_negatives
        self.itm_margin = itm_margin
        self.mlm_pairs = mlm_pairs
        self.itm_pairs = itm_pairs
        self.itc_detach_keys = itc_detach_keys
        self.itc_queue_noise = itc_queue_noise
        self.encoder = FusedEncoder(config)
        self.pool = PairPooler(config)
        self.itc_pool = PairPooler(config, pooler=config.itc_pooler, alone=True)
        self.mlm = MlmHead(config) if mlm else None
        self.itm = ItmHead(config) if itm else None
        self.temperature = nn.Parameter(torch.tensor([temperature])) if itc else None
        self.queue = FeatureQueue(queue_size, config.hidden)
        self.match_thresholds = Thresholds.of(
            Threshold.of(query_match_threshold, fewest_query_words, most_query_words),
            Threshold.of(match_threshold, fewest_words, most_words),
        )
        self.search_thresholds = Thresholds.of(
            Threshold.of(query_search_threshold, fewest_query_words, most_query_words),
            Threshold.of(search_threshold, fewest_words, most_words),
        )

    @property
    def switched_off(self) -> frozenset[type[Ability]]:
        abilities: set[type[Ability]] = set()
        if self.temperature is None:
            abilities.add(Embedding)
        if self.itm is None:
            abilities.add(Matching)
        return frozenset(abilities)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        made = []
        setting = None
        if self.temperature is not None:
            setting = None if self._compares_all else COMPARE_ALL
            queue = self.queue.size, "task.queue_size"
            made.append(Comparison("itc", "ITC contrasts", *queue, self._compares_all, setting))
        if self.itm is not None:
            what = f"ITM draws {self.itm_negatives} negatives from"
            is_global = self._compares_all
            made.append(
                Comparison("negatives", what, is_global=is_global, global_setting=setting, least=2, off="task.itm=0")
            )
        return tuple(made)

    @property
    def _compares_all(self) -> bool:
        """Whether the pairs of all micro-batches meet. Without ITC none are contrasted, and uniform negatives are the
        same of few pairs as of many."""
        return self.compare_over == "global_batch" and self.temperature is not None

    def passes(self, batches: Iterator[dict[str, Any]], count: int) -> Iterator[Pass]:
        if count == 1 or not self._compares_all:
            return super().passes(batches, count)
        return GlobalBatch(self, list(islice(batches, count))).passes()

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step's losses: "loss" carries the graph; "mlm_loss", "itc_loss", "itm_loss", "itm_accuracy" and
        "temperature" are for the log.

        batch: pixels uint8 (B, 3, H, W); ids, mlm_ids, mlm_labels int64 (B, L); mask bool (B, L); image_key int64
        (B,), equal for captions of one image; seed int, equal on all ranks; optionally mlm_positions, int64 (P,), see
        `labelled_positions`. A batch with "compute" goes to that in place of the losses: DeepSpeed knows no other way
        into a module than this one.
        """
        if "compute" in batch:
            computed: dict[str, Tensor] = batch["compute"](batch)
            return computed
        losses: dict[str, Tensor] = {}
        log: dict[str, Tensor] = {}
        similarities = None
        image = self.encoder.with_first_pair(self.encoder.image_stem(normalize(batch["pixels"])))
        text, masked_text = self._text_stems(batch)
        if self.temperature is not None:
            image_features, text_features = self.image_features(image), self.text_features(text)
            losses["itc"], similarities = self.itc_loss(image_features, text_features)
            log["temperature"] = self.temperature.detach().clone()
        passes = {}
        if self.mlm is not None:
            passes["mlm"] = self._masked_pass(image, masked_text)
        if self.itm is not None:
            weights = self.negative_weights(similarities)
            drawn = draw_negatives(batch["image_key"], batch["seed"], weights)
            passes["itm"] = self._drawn_pass(image, text, drawn)
        fused = dict(zip(passes, self.encoder.fuse_together(list(passes.values())), strict=True))
        if "mlm" in fused:
            losses["mlm"] = self._masked_loss(fused["mlm"], batch)
        if "itm" in fused:
            losses["itm"], log["itm_accuracy"] = self._matching_loss(fused["itm"])
        if self.training and self.queue.size and self.temperature is not None:
            self.queue.push(all_gather_grad(image_features.detach()), all_gather_grad(text_features.detach()))
        total = torch.zeros((), device=image.map.device)
        for name, loss in losses.items():
            total = total + self.weights[name] * loss
            log[f"{name}_loss"] = loss.detach()
        return {"loss": total, **log}

    def embed(self, batch: dict[str, Any]) -> Embedded:
        """Stems and features of a batch as in `forward`, drawing the same chance in the same order."""
        image = self.encoder.image_stem(normalize(batch["pixels"]))
        if self.mlm is not None and torch.is_grad_enabled():
            image = self.encoder.with_first_pair(image)
        text = self.encoder.text_stem(batch["ids"], batch["mask"])
        return Embedded(image, text, self.image_features(image), self.text_features(text))

    def predict(self, batch: dict[str, Any]) -> Tensor:
        """Dual-encoder features of a batch of images ("pixels") or texts ("ids", "mask"): float32 (B, D), L2 norm 1."""
        if "pixels" in batch:
            return self.image_features(self.encoder.image_stem(normalize(batch["pixels"])))
        return self.text_features(self.encoder.text_stem(batch["ids"], batch["mask"]))

    def image_features(self, stem: ImageStem) -> Tensor:
        """Float32 (B, D), L2 norm 1. The final Swin LayerNorm is applied here and in no fused pass."""
        normed = self.encoder.image.norm(self.encoder.image_top(stem))
        pooled = self.itc_pool.image(normed)
        return F.normalize(pooled.float(), dim=1, eps=0.0)

    def text_features(self, stem: TextStem) -> Tensor:
        """Float32 (B, D), L2 norm 1."""
        pooled = self.itc_pool.text(self.encoder.text_top(stem, pooled=True))
        return F.normalize(pooled.float(), dim=1, eps=0.0)

    @torch.no_grad()
    def logit_scale(self) -> float:
        return 1 / float(self._clamped_temperature())

    def itc_loss(self, image: Tensor, text: Tensor) -> tuple[Tensor, Similarities]:
        """Contrastive loss of features (B, D) against all ranks' features and the queue, and the similarities. Columns
        of never-written queue rows (`itc_queue_noise`) enter the loss only."""
        if self.itc_detach_keys:
            return self.contrast(image, text, all_gather_grad(image.detach()), all_gather_grad(text.detach()), rank())
        return self.contrast(image, text, all_gather_grad(image), all_gather_grad(text), rank())

    def contrast(
        self, image: Tensor, text: Tensor, images: Tensor, texts: Tensor, block: int
    ) -> tuple[Tensor, Similarities]:
        """The same of features (B, D) against given ones (G, D), of which they are the block of that number."""
        with torch.autocast(image.device.type, enabled=False):
            temperature = self._clamped_temperature()
            image_loss, image_to_text = self._contrast(image, texts, self.queue.text, temperature, block)
            text_loss, text_to_image = self._contrast(text, images, self.queue.image, temperature, block)
        return (image_loss + text_loss) / 2, Similarities(image_to_text, text_to_image)

    def _contrast(
        self, query: Tensor, keys: Tensor, queue: Tensor, temperature: Tensor, block: int
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of finding the keys (G, D) of queries (B, D), and the similarities (B, G + Q)."""
        columns = self.queue.size if self.itc_queue_noise else self.queue.filled
        candidates = torch.cat([keys, queue[:columns]])
        logits = query @ candidates.T / temperature
        first = block * len(query)
        target = torch.arange(first, first + len(query), device=query.device)
        similarities = logits.detach()[:, : len(keys) + self.queue.filled]
        return F.cross_entropy(logits, target), similarities

    def _clamped_temperature(self) -> Tensor:
        """Clamped in value; the gradient passes, as with the published clamp of the parameter itself."""
        assert self.temperature is not None, "ITC is switched off"
        temperature = self.temperature.float()
        return temperature + (temperature.clamp(*TEMPERATURE_RANGE) - temperature).detach()

    def _text_stems(self, batch: dict[str, Any]) -> tuple[TextStem, TextStem]:
        """Of the texts that ITC and ITM read and of those that MLM has masked, in one pass; none of what is off."""
        ids, mask = batch["ids"], batch["mask"]
        is_read = self.temperature is not None or self.itm is not None
        texts = len(ids) if is_read else 0
        masked_ids = ids[:0] if self.mlm is None else batch["mlm_ids"][: self.mlm_pairs]
        counts = [texts, len(masked_ids)]
        both_ids = torch.cat([ids[:texts], masked_ids])
        both_masks = torch.cat([mask[:texts], mask[: len(masked_ids)]])
        text, masked_text = self.encoder.text_stem(both_ids, both_masks).split(counts)
        return text, masked_text

    def mlm_loss(self, image: ImageStem, batch: dict[str, Any], mean_masked: Tensor | None = None) -> Tensor:
        """Of a batch as in `forward` whose images have been through the stem, by passes of its own; see
        `_masked_loss`."""
        first = slice(self.mlm_pairs)
        text = self.encoder.text_stem(batch["mlm_ids"][first], batch["mask"][first])
        [fused] = self.encoder.fuse_together([self._masked_pass(image, text)])
        return self._masked_loss(fused, batch, mean_masked)

    def _masked_pass(self, image: ImageStem, masked_text: TextStem) -> FusedPass:
        """Of the pairs that MLM looks at. The last image block would run for nobody and is left out."""
        return FusedPass(image.rows(slice(self.mlm_pairs)), masked_text, image_output=False)

    def masked(self, batch: dict[str, Any]) -> Tensor:
        """How many positions of a batch `mlm_loss` predicts, float32 ()."""
        return (batch["mlm_labels"][: self.mlm_pairs] != NO_LABEL).sum().float()

    def _masked_loss(self, fused: Fused, batch: dict[str, Any], mean_masked: Tensor | None = None) -> Tensor:
        """Cross-entropy at the masked positions of a `_masked_pass`, a mean over those of all ranks. The vocabulary is
        scored at those positions only. Where the batch has no mlm_positions they are found here, for which the host
        waits for the device. mean_masked: how many a micro-batch has, float32 (), None = a mean over the ranks."""
        assert self.mlm is not None, "MLM is switched off"
        labels = batch["mlm_labels"][: self.mlm_pairs]
        positions = batch.get("mlm_positions")
        if positions is None:
            positions = labelled_positions(labels)
        tokens = fused.text[:, : labels.shape[1]]  # without the padding that longer texts beside it have caused
        states = tokens.flatten(0, 1).index_select(0, positions)
        logits = self.mlm(self.pool.text_transform(states))
        loss = F.cross_entropy(logits.float(), labels.flatten().index_select(0, positions), reduction="sum")
        if mean_masked is not None:
            return loss / mean_masked
        count = all_reduce_sum((labels != NO_LABEL).sum().float()).clamp(min=1)
        return loss * world_size() / count

    def negative_weights(self, similarities: Similarities | None, block: int | None = None) -> Weights | None:
        """The weights of hard negatives; None where they are drawn uniformly. block: see `contrast`, None = this
        rank's."""
        if self.itm_negatives != "hard" or similarities is None:
            return None
        block = rank() if block is None else block
        image_to_text = sampling_weights(similarities.image_to_text, block, self.itm_margin)
        text_to_image = sampling_weights(similarities.text_to_image, block, self.itm_margin)
        return Weights(image_to_text, text_to_image)

    def itm_loss(
        self, image: ImageStem, text: TextStem, negative_image: ImageStem, negative_text: TextStem
    ) -> tuple[Tensor, Tensor]:
        """Matched or not over 3B pairs: (image, text), (image, negative text), (negative image, text). Also the
        accuracy, in [0, 1]."""
        [fused] = self.encoder.fuse_together([self._matching_pass(image, text, negative_image, negative_text)])
        return self._matching_loss(fused)

    def _drawn_pass(self, image: ImageStem, text: TextStem, drawn: Negatives) -> FusedPass:
        """Of the pairs that ITM looks at, with their negatives."""
        first = slice(self.itm_pairs)
        text = of_one_width(text)
        negative_image, negative_text = fetch(image, text, drawn.first(self.itm_pairs))
        matched_text = TextStem(text.tokens[first], text.mask[first])
        return self._matching_pass(image.rows(first), matched_text, negative_image, negative_text)

    def _matching_pass(
        self, image: ImageStem, text: TextStem, negative_image: ImageStem, negative_text: TextStem
    ) -> FusedPass:
        """The 3B pairs of `itm_loss`."""
        image, negative_image = self._with_first_pair(image), self._with_first_pair(negative_image)
        images = ImageStem.joined([image, image, negative_image])
        return FusedPass(images, TextStem.joined([text, negative_text, text]), pooled=True)

    def _with_first_pair(self, image: ImageStem) -> ImageStem:
        return self.encoder.with_first_pair(image) if image.first is None else image

    def _matching_loss(self, fused: Fused) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of a `_matching_pass`, whose first third is matched."""
        logits = self._matching_logits(fused).float()
        pairs = len(logits) // 3
        matched = torch.arange(len(logits), device=logits.device) < pairs
        labels = matched.long()
        correct = logits.detach().argmax(1) == labels
        return F.cross_entropy(logits, labels), correct.float().mean()

    def _matching_logits(self, fused: Fused) -> Tensor:
        assert self.itm is not None, "ITM is switched off"
        logits: Tensor = self.itm(self.pool(fused.pyramid[-1], fused.text))
        return logits

    def match(self, image: ImageStem, text: TextStem, *, pooled: bool = False) -> Tensor:
        """ITM logits (B, 2) of the pairs (image b, text b); index 1 is "matched". `pooled`, and K texts for each image:
        see `FusedEncoder.fuse`."""
        return self._matching_logits(self.encoder.fuse(image, text, pooled=pooled))

    def step_state(self) -> dict[str, Tensor]:
        return self.queue.state()

    def load_resume_state(self, state: dict[str, Tensor]) -> None:
        self.queue.load_state(state)
