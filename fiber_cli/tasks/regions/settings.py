"""Settings of the tasks that find boxes for words: fine-grained pre-training, detection, grounding and referring
expressions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fiber_cli.data.source import CategorySource, PhraseSource, Source
from fiber_cli.data.sources import source_format
from fiber_cli.model.config import DetectorConfig
from fiber_cli.settings import Owner, SourceSettings, TaskSettings, option
from fiber_cli.tasks.declaration import rule

if TYPE_CHECKING:
    from fiber_cli.config.recipe import Recipe

MODEL, READER = Owner.MODEL, Owner.READER
#: Beginning of a metric's name → what a source must be for it.
METRIC_SOURCES: Mapping[str, type[Source]] = {
    "detection": CategorySource,
    "odinw": CategorySource,
    "lvis": CategorySource,
    "grounding": PhraseSource,
    "refexp": PhraseSource,
}


@dataclass(frozen=True)
class RegionSettings(TaskSettings):
    """What the tasks that find boxes for words share."""

    channels: int = option("Width of the feature pyramid and the head, a multiple of 32.", 256, ge=32, owner=MODEL)
    head: Literal["atss", "retinanet", "faster_rcnn"] = option(
        "What finds boxes on the pyramid and aligns them with words: atss with DynamicHead, as published, or the "
        "retinanet or faster_rcnn of torchvision.",
        "atss",
        owner=MODEL,
    )
    blocks: int = option("DynamicHead blocks, of atss.", 6, ge=1, owner=MODEL)
    drop_block: float = option("Rate of DropBlock in the pyramid.", 0.3, ge=0, lt=1, owner=MODEL)
    log_scale: float = option("Of the first alignment of places and words; as_published: 0.", 0.0, owner=MODEL)
    head_fusion: Literal["none", "deep"] = option(
        "Deep fusion in the head, as in GLIP: places and words look at each other before each of its blocks, of atss; "
        "with model.fusion_layers=0 it is the only one.",
        "none",
        owner=MODEL,
    )
    sampled_regions: int = option(
        "Regions of an image that faster_rcnn learns from, of those that it proposes; fewer for small pictures.",
        512,
        ge=4,
        owner=MODEL,
    )
    frozen_stages: int = option(
        "First image stages that do not learn, the patch embedding with them.", 0, ge=0, owner=MODEL
    )
    unmatched_target: Literal["none", "last_token"] = option(
        "Of regions without a box; as_published: last_token.", "none", owner=MODEL
    )
    prompt: Literal["sampled", "all"] = option(
        "Category names: those in the picture and others, or all.", "sampled", owner=READER
    )
    positives: int | None = option(
        "Most names of a sampled prompt that are in the picture, null = as many as fit; boxes of the others are "
        "background.",
        None,
        ge=1,
        owner=READER,
    )
    negatives: int = option("Most names of a sampled prompt that are not in the picture.", 85, ge=0, owner=READER)
    control: tuple[float, float, float] = option(
        "Chances of one of them, none, the most; else any.", (0.05, 0.05, 0.5), ge=0, le=1, owner=READER
    )
    absent: tuple[float, float] = option(
        "Range of the chance, drawn for every prompt, with which a name in the picture is left out; its boxes are then "
        "background.",
        (0.0, 0.0),
        ge=0,
        le=1,
        owner=READER,
    )
    short: float = option(
        "Share of sampled prompts that keep one to three of their names; the boxes of the others are background.",
        0.0,
        ge=0,
        le=1,
        owner=READER,
    )
    names_as_published: bool = option(
        "Clean names greedily; as_published: true.", False, owner=READER, formerly="published_names"
    )
    draw_background: bool = option("Draw __background__ as a name too; as_published: true.", False, owner=READER)
    swap_sides: bool = option(
        "Exchange left and right in captions of mirrored pictures; as_published: false.", True, owner=READER
    )
    short_sides: tuple[int, ...] = option(
        "Shorter sides to train with; the last one evaluates.", (480, 560, 640, 720, 800), ge=32, owner=READER
    )
    longest_side: int = option("The longer side has at most so many pixels.", 1333, ge=32, owner=READER)
    flip: float = option("Chance of mirroring.", 0.5, ge=0, le=1, owner=READER)
    group_by_shape: bool = option(
        "Deal the pictures of an optimiser step out to its micro-batches by shape, which spares padding.",
        False,
        owner=Owner.RUN,
    )
    score_threshold: float = option("Least score of a detection before centerness.", 0.05, ge=0, lt=1, owner=MODEL)
    pre_nms_topk: int = option("Candidates before NMS, per level; of faster_rcnn in all.", 1000, ge=1, owner=MODEL)
    nms_iou: float = option("Overlap past which NMS drops a box.", 0.6, gt=0, le=1, owner=MODEL)
    max_detections: int = option("Detections per image and prompt.", 100, ge=1, owner=MODEL)
    threshold: float | None = option(
        "Least score of a detection that users are shown; null: what validation finds best (`detection/threshold`).",
        None,
        ge=0,
        le=1,
        owner=MODEL,
    )
    aggregation: Literal["mean", "max"] = option("A label's score from those of its tokens.", "mean", owner=MODEL)


@dataclass(frozen=True)
class FineSettings(RegionSettings):
    """Fine-grained pre-training: boxes for words; fine-tuning for detection and for phrase grounding (paper section
    3.3)."""

    name: Literal["fine", "detection", "grounding"]


@dataclass(frozen=True)
class RefexpSettings(RegionSettings):
    """Fine-tuning for referring expressions (paper section 3.3)."""

    name: Literal["refexp"]
    flip: float = option("Chance of mirroring.", 0.0, ge=0, le=1, owner=READER)


def region_metrics(settings: RegionSettings) -> tuple[str, ...]:
    """What `log.keep_best` can go by; which of them there are follows from the data."""
    return (
        "detection/ap",
        "detection/ap50",
        "odinw/ap",
        "lvis/fixed_ap",
        "grounding/any_box/r@1",
        "refexp/acc@iou50",
    )


def region_settings(recipe: "Recipe") -> RegionSettings:
    assert isinstance(recipe.task, RegionSettings)
    return recipe.task


@rule("data.augment", "task.short_sides")
def regions_have_their_own_transform(recipe: "Recipe") -> str | None:
    """RandAugment moves pixels without their boxes."""
    if recipe.data.augment != "none":
        return "region-level tasks have their own transform: leave it at none, see task.short_sides and task.flip"
    return None


@rule("data.captions", "task.short_sides")
def captions_come_one_by_one(recipe: "Recipe") -> str | None:
    """A caption with boxes is a sample of its own."""
    if recipe.data.captions != "random":
        return "captions with boxes come one by one: leave it at random"
    return None


@rule("task.short_sides")
def a_side_is_named(recipe: "Recipe") -> str | None:
    """The last side evaluates."""
    return None if region_settings(recipe).short_sides else "names no size"


@rule("task.head", "task.blocks", "task.head_fusion", "task.sampled_regions")
def the_head_has_what_is_set(recipe: "Recipe") -> str | None:
    """Some settings are for one head."""
    settings = region_settings(recipe)
    return DetectorConfig.problem_of_head(
        settings.head, settings.blocks, settings.head_fusion, settings.sampled_regions
    )


@rule("task.control")
def chances_are_a_share(recipe: "Recipe") -> str | None:
    """The rest of the chances is any number of names."""
    chances = region_settings(recipe).control
    return f"{chances} is more than 1 in all" if sum(chances) > 1 else None


@rule("task.absent")
def the_range_ascends(recipe: "Recipe") -> str | None:
    """A chance is drawn from it."""
    least, most = region_settings(recipe).absent
    return f"[{least}, {most}] is no range: give the lesser chance first" if least > most else None


@rule("log.keep_best", "data.val", "task.short_sides")
def one_number_decides_what_is_best(recipe: "Recipe") -> str | None:
    """Metrics that several sets have stand under the sets' names, beside the mean of detection."""
    metric = recipe.log.keep_best or ""
    # None stands for an entry that is wrong by itself.
    sources = [source for source in recipe.data.val if source is not None]
    detection_sets = sum(_always_has_names(source) for source in sources)
    if metric.startswith("detection/") and detection_sets > 1:
        return "several sets are detected in data.val: go by odinw/ap, their mean"
    if metric == "odinw/ap" and detection_sets < 2 and not any(map(_may_have_names, sources)):
        return "odinw/ap is the mean of several sets, data.val has one: go by detection/ap"
    kinds = [source.kind for source in sources]
    if metric.startswith(("grounding/", "refexp/", "lvis/")) and len(kinds) > len(set(kinds)):
        return f"{metric} of several sets is not one number: name one set in data.val"
    return None


@rule("log.keep_best", "data.val", "task.short_sides")
def what_is_best_is_measured(recipe: "Recipe") -> str | None:
    """Detection needs names, grounding and referring need phrases. What a format may have, such as records of both
    kinds, is known when it is read, and that a validation lacks the metric when it is made."""
    metric = recipe.log.keep_best or ""
    family = metric.partition("/")[0]
    wanted = METRIC_SOURCES.get(family)
    sources = [source for source in recipe.data.val if source is not None]
    if wanted is None or not sources:
        return None
    if any(source_format(source.kind).can_be_read_as(wanted) for source in sources):
        return None
    kinds = ", ".join(sorted({source.kind for source in sources}))
    return f"{metric} is measured on {wanted.yields}, and no source in data.val ({kinds}) has any"


def _always_has_names(source: SourceSettings) -> bool:
    data_format = source_format(source.kind)
    return data_format.can_be_read_as(CategorySource) and not data_format.can_be_read_as(PhraseSource)


def _may_have_names(source: SourceSettings) -> bool:
    data_format = source_format(source.kind)
    return data_format.can_be_read_as(CategorySource) and data_format.can_be_read_as(PhraseSource)


REGION_RULES = (
    regions_have_their_own_transform,
    captions_come_one_by_one,
    a_side_is_named,
    the_head_has_what_is_set,
    chances_are_a_share,
    the_range_ascends,
    one_number_decides_what_is_best,
    what_is_best_is_measured,
)
