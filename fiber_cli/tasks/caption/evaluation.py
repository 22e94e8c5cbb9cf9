"""Caption evaluation: images whose generated captions are held against references."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from fiber_cli.data.source import CaptionSource, Source, readable_captions, require
from fiber_cli.tasks.caption.metrics import Captions, grouped_caption_metrics
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evalset import EvalSet, Score, by_index
from fiber_cli.tasks.evaluation import ItemEvaluation
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.items import ImageSet

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ScoredCaption(NamedTuple):
    """A generated caption and what it is held against. domain: the part of the data set that is scored also alone."""

    caption: str
    references: tuple[str, ...]
    domain: str | None


class CaptionSet(ImageSet, EvalSet):
    """All images of the sources: `pixels` uint8 (3, H, W)."""

    FILES: ClassVar[tuple[str, ...]] = ("captions.json",)

    def __init__(
        self,
        sources: Sequence[CaptionSource],
        tokenizer: "PreTrainedTokenizerBase",
        image_size: int | tuple[int, int],
    ):
        self.samples: list[tuple[CaptionSource, int]] = []
        for source in sources:
            self.samples.extend((source, i) for i in range(len(source)))
        super().__init__(self.samples, image_size)
        self.tokenizer = tokenizer

    def has_truth(self) -> bool:
        return any(readable_captions(source, i) for source, i in self.samples)

    def score(self, predictions: dict[int, Any]) -> Score:
        """`caption_metrics` of rows of token ids, for images with references; `caption/<domain>/…` of a domain's alone,
        CIDEr's word frequencies included; `captions.json` in the form that COCO takes."""
        submitted = []
        scored = []
        for index, caption in self._captions(predictions):
            source, i = self.samples[index]
            submitted.append({"image_id": source.image_id(i), "caption": caption})
            references = readable_captions(source, i)
            if references:
                scored.append(ScoredCaption(caption, references, source.domain(i)))
        notes = []
        without = len(submitted) - len(scored)
        if without:
            notes.append(f"{without} of {len(submitted)} images have no reference captions and count in no metric")
        metrics, remarks = _metrics(scored)
        return Score(metrics, {"captions.json": submitted}, notes + remarks)

    def _captions(self, predictions: dict[int, Any]) -> Iterator[tuple[int, str]]:
        """(item number, caption) in the order of the items."""
        ordered = by_index(predictions)
        rows = [ids.tolist() for _, ids in ordered]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        for (index, _), text in zip(ordered, texts, strict=True):
            yield index, text.strip()


def _metrics(scored: Sequence[ScoredCaption]) -> tuple[dict[str, float], list[str]]:
    """Of all captions and of each domain's, with notes."""
    groups: dict[str, list[ScoredCaption]] = {}
    for item in scored:
        groups.setdefault("caption/", []).append(item)
        if item.domain is not None:
            groups.setdefault(f"caption/{item.domain}/", []).append(item)
    metrics = {}
    notes: list[str] = []
    captions = []
    for items in groups.values():
        captions.append(Captions([item.caption for item in items], [item.references for item in items]))
    for prefix, (values, remarks) in zip(groups, grouped_caption_metrics(captions), strict=True):
        for name, value in values.items():
            metrics[prefix + name.removeprefix("caption/")] = value
        for remark in remarks:
            if prefix == "caption/":
                notes.append(remark)
            elif remark not in notes:
                notes.append(f"{prefix}…: {remark}")
    return metrics, notes


def evaluation(
    sources: Sequence[Source], context: TaskContext[CaptionSettings], options: EvaluationOptions
) -> ItemEvaluation:
    """All images of the sources."""
    images = require(sources, CaptionSource, "evaluation")
    return ItemEvaluation("caption", CaptionSet(images, context.tokenizer, context.model.image_size), options)
