"""Every setting of a recipe as frozen dataclasses, and the rules between them.

The meanings, limits and defaults in the fields are what `fiber recipes schema` prints and `strict` checks.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from fiber_cli.config import strict
from fiber_cli.errors import EXIT_USAGE, UserError
from fiber_cli.kinds import KINDS, REGION_TASKS


class RecipeError(UserError):
    """A recipe that cannot be used."""

    exit_code = EXIT_USAGE


def option(doc: str, default: Any = dataclasses.MISSING, *, factory: Any = dataclasses.MISSING, **metadata: Any) -> Any:
    """A field with its one-line meaning, limits (see `strict`) and `path=True` where it names files."""
    return field(default=default, default_factory=factory, metadata={"doc": doc, **metadata})


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of images and captions; `kind` names its class, see `data.source_class`."""

    kind: str
    weight: float = option("Times that an epoch holds this source; 0.5 = a random half of it.", 1.0, gt=0)

    def arguments(self) -> dict[str, Any]:
        """The settings of the source's class: without `kind`, the mixture's weight and what is null."""
        given = dataclasses.asdict(self)
        return {name: given[name] for name in given if name not in ("kind", "weight") and given[name] is not None}


@dataclass(frozen=True)
class KarpathySource(Source):
    """Karpathy JSON with an image folder."""

    kind: Literal["karpathy"]
    json: str = option("The JSON file, such as dataset_coco.json.", path=True)
    images: str = option("Folder that the file names in the JSON are relative to.", path=True)
    split: str | tuple[str, ...] = option("One split or several; train includes COCO's restval.", "train")


@dataclass(frozen=True)
class WebDatasetSource(Source):
    """WebDataset tar shards as img2dataset writes them."""

    kind: Literal["webdataset"]
    shards: str | tuple[str, ...] = option("Folder, glob or {0000..0331} pattern, or a list.", path=True)


@dataclass(frozen=True)
class VisualGenomeSource(Source):
    """Visual Genome region descriptions."""

    kind: Literal["visual_genome"]
    regions: str = option("region_descriptions.json.", path=True)
    images: str = option("Folder with the images.", path=True)
    image_data: str | None = option("image_data.json, which names each image's COCO id.", None, path=True)
    exclude: str | None = option("Karpathy JSON whose val and test images are left out.", None, path=True)


@dataclass(frozen=True)
class ScenesSource(Source):
    """Built-in drawn scenes: with captions, questions and statements (`scenes`), with the boxes of their objects and 64
    category names (`scene_detection`), each with a caption whose phrases have boxes (`scene_grounding`), or each with
    an expression that fits one object (`scene_referring`)."""

    kind: Literal["scenes", "scene_detection", "scene_grounding", "scene_referring"]
    split: Literal["train", "val", "test"] = option("Scenes of different splits never agree.", "train")
    count: int = option("Number of scenes.", 10_000, ge=1)
    seed: int = option("Another seed draws other scenes.", 0, ge=0)
    image_size: int = option("Side of the drawn image in pixels.", 96, ge=32)
    pairs: bool = option("Statements are about two scenes, or about one.", True)


@dataclass(frozen=True)
class CocoSource(Source):
    """Boxes with categories in COCO's JSON form: COCO, LVIS, Objects365, any labelling tool's export."""

    kind: Literal["coco"]
    json: str = option("The JSON file; its category names become the prompt.", path=True)
    images: str = option("Folder that the file names in the JSON are relative to.", path=True)
    prompts: dict = option("Category name: {name, prefix, suffix} that prompts show instead.", factory=dict)
    shots: int | None = option("Only images that give each category so many; null = all.", None, ge=1)
    seed: int = option("Draws the images of the shots.", 0, ge=0)
    copies: int | None = option("Times each image of the shots comes; null = 8, 4, 2, 1 for 1, 3, 5, 10.", None, ge=1)


@dataclass(frozen=True)
class MdetrSource(Source):
    """Captions with boxes for phrases in MDETR's JSON form, the RefCOCO family too."""

    kind: Literal["mdetr"]
    json: str = option("The JSON file.", path=True)
    images: str | dict = option("Image folder, or a folder for each `data_source`.", path=True)


@dataclass(frozen=True)
class OdvgSource(Source):
    """ODVG's JSONL, detection and grounding records."""

    kind: Literal["odvg"]
    jsonl: str = option("The JSONL file.", path=True)
    images: str = option("Folder with the images.", path=True)
    label_map: str | None = option("JSON {label: name} of the detection records.", None, path=True)


@dataclass(frozen=True)
class RegionShardsSource(WebDatasetSource):
    """WebDataset shards whose .json members are ODVG records."""

    kind: Literal["region_shards"]
    label_map: str | None = option("JSON {label: name} of the detection records.", None, path=True)


@dataclass(frozen=True)
class FlickrEntitiesSource(Source):
    """Flickr30k Entities."""

    kind: Literal["flickr_entities"]
    folder: str = option("Holds Sentences/, Annotations/ and the lists of the splits.", path=True)
    images: str = option("Folder with the images.", path=True)
    split: Literal["train", "val", "test"] = option("Its list of pictures.", "train")


@dataclass(frozen=True)
class VqaSource(Source):
    """VQAv2 questions with an image folder."""

    kind: Literal["vqa"]
    questions: str = option("The official questions JSON.", path=True)
    images: str = option("Folder that the pattern is relative to.", path=True)
    annotations: str | None = option("The official annotations JSON.", None, path=True)
    pattern: str = option("File name of an image by its id.", "{image_id:012d}.jpg")


@dataclass(frozen=True)
class StatementsSource(Source):
    """NLVR2's or NLVR's JSONL with an image folder."""

    kind: Literal["statements"]
    jsonl: str = option("The JSONL file.", path=True)
    images: str = option("Folder with the images.", path=True)


AnySource = (
    KarpathySource | WebDatasetSource | VisualGenomeSource | ScenesSource | VqaSource | StatementsSource
    | CocoSource | MdetrSource | OdvgSource | RegionShardsSource | FlickrEntitiesSource
)  # fmt: skip


@dataclass(frozen=True)
class ModelSettings:
    """The encoder; an omitted size is the preset's."""

    preset: Literal["tiny", "base"] = option("The sizes to start from.")
    image_size: int | None = option("Side of the square input in pixels, a multiple of 32.", None, ge=32)
    text_length: int = option("Tokens per caption; longer ones are cut and counted.", 40, ge=3)
    fusion_layers: int | None = option("Last blocks of both towers that see each other.", None, ge=0)
    hidden: int | None = option("Joint width.", None, ge=1)
    drop_path: float | None = option("Stochastic depth of the last image block.", None, ge=0, lt=1)
    dropout: float | None = option("Dropout in the text encoder.", None, ge=0, lt=1)
    embed_dim: int | None = option("Channels of the first image stage.", None, ge=1)
    depths: tuple[int, ...] | None = option("Blocks of each image stage.", None, ge=1)
    image_heads: tuple[int, ...] | None = option("Attention heads of each image stage.", None, ge=1)
    text_layers: int | None = option("Layers of the text encoder.", None, ge=1)
    text_hidden: int | None = option("Width of the text encoder.", None, ge=1)
    text_heads: int | None = option("Attention heads of the text encoder.", None, ge=1)
    text_intermediate: int | None = option("Width of the text encoder's feed-forward layers.", None, ge=1)
    swin: str | None = option("Initial image weights: timm name, file or folder; null = random.", None)
    norm_image_query: bool | None = option("LayerNorm on the image's queries of the text; null = yes.", None)
    roberta: str | None = option("Initial text weights: hub name or local folder; null = random.", None)
    tokenizer: str = option("builtin, a hub name, or a local folder.", "builtin")


@dataclass(frozen=True)
class RetrievalSettings:
    """Fine-tuning for retrieval with ITC, ITM or both (paper section 3.3)."""

    name: Literal["retrieval"]
    itm: float = option("Weight of image-text matching; 0 = off.", 1.0, ge=0)
    itc: float = option("Weight of image-text contrast; 0 = off.", 1.0, ge=0)
    itm_negatives: Literal["hard", "random"] = option("Drawn by ITC similarity, or uniformly.", "hard")
    itm_pairs: int | None = option("Pairs of a micro-batch that ITM looks at; null = all.", None, ge=1)
    queue_size: int = option("Earlier features kept as further ITC negatives.", 0, ge=0)
    itc_detach_keys: bool = option("No gradient through the keys, as the published code.", False)
    itc_queue_noise: bool = option("Unwritten queue columns count, as in the published code.", False)
    temperature: float = option("Initial ITC temperature (learnt).", 0.07, ge=0.001, le=1)


@dataclass(frozen=True)
class CoarseSettings(RetrievalSettings):
    """Coarse-grained pre-training (paper section 3.2)."""

    name: Literal["coarse"]
    mlm: float = option("Weight of masked language modelling; 0 = off.", 1.0, ge=0)
    mlm_pairs: int | None = option("Pairs of a micro-batch that MLM looks at; null = all.", None, ge=1)
    mlm_probability: float = option("Share of tokens to predict.", 0.15, gt=0, lt=1)


@dataclass(frozen=True)
class VqaSettings:
    """Visual question answering (paper section 3.3)."""

    name: Literal["vqa"]
    answers: str | None = option(
        "Vocabulary made by `fiber vqa-answers`; null = the built-in scenes'.", None, path=True
    )


@dataclass(frozen=True)
class Nlvr2Settings:
    """Visual reasoning: is a statement true of two images, or of one (paper section 3.3)."""

    name: Literal["nlvr2"]


@dataclass(frozen=True)
class CaptionSettings:
    """Captioning (paper section 3.3)."""

    name: Literal["caption"]
    objective: Literal["mle", "gold", "cider"] = option("Likelihood, off-policy GOLD, or CIDEr reward.", "mle")
    gold_refresh: int = option("Steps after which GOLD's frozen copy is renewed.", 1000, ge=1)
    gold_floor: float = option("GOLD's least token weight.", 0.1, gt=0, le=1)
    gold_published: bool = option("GOLD divides by the number of padding labels, as the published code.", False)
    cider_df: str | None = option("Document frequencies made by `fiber cider-df`.", None, path=True)
    cider_samples: int = option("Captions drawn per image for the reward.", 5, ge=1)
    cider_weight: float = option("Share of the reward in the loss; the rest is likelihood.", 0.7, ge=0, le=1)
    beam: int = option("Beam width.", 5, ge=1)
    published_search: bool = option("Beam search as the published code does it.", False)


@dataclass(frozen=True)
class FineSettings:
    """Fine-grained pre-training: boxes for words; fine-tuning for detection and for phrase grounding (paper section
    3.3)."""

    name: Literal["fine", "detection", "grounding"]
    channels: int = option("Width of the feature pyramid and the head, a multiple of 32.", 256, ge=32)
    blocks: int = option("DynamicHead blocks.", 6, ge=1)
    drop_block: float = option("Rate of DropBlock in the pyramid.", 0.3, ge=0, lt=1)
    log_scale: float = option("Of the first alignment of places and words; 0 = published.", 0.0)
    frozen_stages: int = option("First image stages that do not learn, the patch embedding with them.", 0, ge=0)
    unmatched_target: Literal["none", "last_token"] = option(
        "Of anchors without a box; last_token = published.", "none"
    )
    prompt: Literal["sampled", "all"] = option("Category names: those in the picture and others, or all.", "sampled")
    negatives: int = option("Most names of a sampled prompt that are not in the picture.", 85, ge=0)
    control: tuple[float, float, float] = option(
        "Chances of one of them, none, the most; else any.", (0.05, 0.05, 0.5), ge=0, le=1
    )
    published_names: bool = option("Clean names greedily, as the published code.", False)
    draw_background: bool = option("Draw __background__ as a name too, as the published code.", False)
    swap_sides: bool = option("Exchange left and right in captions of mirrored pictures.", True)
    short_sides: tuple[int, ...] = option(
        "Shorter sides to train with; the last one evaluates.", (480, 560, 640, 720, 800), ge=32
    )
    longest_side: int = option("The longer side has at most so many pixels.", 1333, ge=32)
    flip: float = option("Chance of mirroring.", 0.5, ge=0, le=1)
    score_threshold: float = option("Least score of a detection before centerness.", 0.05, ge=0, lt=1)
    pre_nms_topk: int = option("Candidates per level before NMS.", 1000, ge=1)
    nms_iou: float = option("Overlap past which NMS drops a box.", 0.6, gt=0, le=1)
    max_detections: int = option("Detections per image and prompt.", 100, ge=1)
    aggregation: Literal["mean", "max"] = option("A label's score from those of its tokens.", "mean")


@dataclass(frozen=True)
class RefexpSettings(FineSettings):
    """Fine-tuning for referring expressions (paper section 3.3)."""

    name: Literal["refexp"]
    flip: float = option("Chance of mirroring.", 0.0, ge=0, le=1)


#: Retrieval is measured by the objective that is trained: ITC where it is on, else ITM.
RECALLS = tuple(f"{mode}/{d}@{k}" for mode in ("itc", "itm") for d in ("ir", "tr") for k in (1, 5, 10))
AnyTask = (
    CoarseSettings | VqaSettings | Nlvr2Settings | RetrievalSettings | CaptionSettings | FineSettings | RefexpSettings
)  # fmt: skip


@dataclass(frozen=True)
class DataSettings:
    """What is read and how."""

    train: tuple[AnySource, ...] = option("Sources to train on.")
    val: tuple[AnySource, ...] = option("Sources of the periodic validation.", ())
    root: str | None = option("Folder that relative paths start from; null = the current one.", None)
    augment: Literal["none", "randaugment"] = option("none = resize only.", "none")
    captions: Literal["random", "each"] = option("An epoch shows one caption per image, or each.", "random")
    workers: int = option("Worker processes that read data, per rank.", 4, ge=0)
    max_bad_rate: float = option("Share of unreadable images past which the run stops.", 0.01, ge=0, le=1)
    max_pixels: int = option("Images with more pixels are not decoded.", 89_478_485, ge=1)


@dataclass(frozen=True)
class OptimSettings:
    """AdamW and its schedule; exactly one of steps and epochs is given."""

    lr: float = option("Peak learning rate of both backbones.", gt=0)
    cross_modal_mult: float = option("Cross-modal parameters learn this many times faster.", 5.0, gt=0)
    head_mult: float = option("Heads learn this many times faster.", 5.0, gt=0)
    text_mult: float = option("On top of it, the text encoder with its fusion.", 1.0, gt=0)
    betas: tuple[float, float] = option("AdamW's betas.", (0.9, 0.98), ge=0, lt=1)
    eps: float = option("AdamW's epsilon.", 1e-8, gt=0)
    weight_decay: float = option("None on biases and norms.", 0.01, ge=0)
    published: Literal["none", "coarse", "fine"] = option(
        "Decay (fine: and double rates of biases) as published.", "none"
    )
    warmup: float = option("Linear warm-up: a share of the run if below 1, else steps.", 0.1, ge=0)
    schedule: Literal["linear", "cosine", "constant", "steps", "plateau"] = option(
        "After the warm-up; steps = a tenth from 67%, a hundredth from 89%; plateau = by validation.", "linear"
    )
    patience: int = option("plateau: validations in a row without a better log.keep_best per tenth.", 3, ge=1)
    steps: int | None = option("Optimiser steps.", None, ge=1)
    epochs: int | None = option("Passes over the data, instead of steps.", None, ge=1)


@dataclass(frozen=True)
class RuntimeSettings:
    """How the run uses its machines."""

    micro_batch: int = option("Pairs per rank and forward pass.", ge=1)
    global_batch: int = option("Pairs per optimiser step: a multiple of micro_batch x ranks.", ge=1)
    seed: int = option("Of everything random.", 0, ge=0)
    precision: Literal["fp32", "bf16", "fp16"] = option("Of the computation; parameters stay fp32.", "fp32")
    zero_stage: Literal[0, 1, 2, 3] = option("Sharded: 1 optimiser, 2 also gradients, 3 also parameters.", 0)
    clip: float | None = option("Largest gradient norm; null = no clipping.", None, gt=0)
    offload: Literal["none", "cpu"] = option("Where the optimiser's state lies.", "none")
    compile: bool = option("torch.compile.", False)
    activation_checkpointing: bool = option("Recompute activations to save memory.", False)
    ema: float | None = option("Decay of the weights' moving average; null = none.", None, gt=0, lt=1)
    max_nonfinite: int = option("Non-finite losses in a row that end the run.", 10, ge=1)
    threads: int | None = option("CPU threads per rank; null = torch's choice.", None, ge=1)

    def micro_steps(self, world: int) -> int:
        """Micro-steps per optimiser step on `world` ranks; RecipeError where the global batch does not divide."""
        total, unit = self.global_batch, self.micro_batch * world
        if total % unit == 0:
            return total // unit
        low = total // unit * unit
        mend = f"set global_batch to {low} or {low + unit}" if low else f"set global_batch to {unit}"
        if total % world == 0:
            share = total // world
            fitting = max(m for m in range(1, min(self.micro_batch, share) + 1) if share % m == 0)
            mend += f", or micro_batch to {fitting}"
        product = f"{self.micro_batch} x {world} = {unit}"
        raise RecipeError(f"runtime.global_batch: {total} is no multiple of micro_batch x ranks = {product}: {mend}")


#: Task → what `log.keep_best` can go by.
METRICS = {
    "coarse": RECALLS,
    "retrieval": RECALLS,
    "vqa": ("vqa/accuracy",),
    "nlvr2": ("nlvr2/accuracy", "nlvr2/consistency"),
    **dict.fromkeys(
        REGION_TASKS,
        ("detection/ap", "detection/ap50", "odinw/ap", "lvis/fixed_ap", "grounding/any_box/r@1", "refexp/acc@iou50"),
    ),
    "caption": ("caption/cider", "caption/bleu4", "caption/meteor", "caption/rouge_l", "caption/spice"),
}


@dataclass(frozen=True)
class LogSettings:
    """What a run writes, counted in steps."""

    every: int = option("Steps between log lines.", 10, ge=1)
    validate_every: int | None = option("Steps between validations; null = none.", None, ge=1)
    save_every: int = option("Steps between checkpoints.", 1000, ge=1)
    keep_last: int = option("Newest checkpoints to keep.", 2, ge=1)
    keep_best: str | None = option("Also keep the best checkpoint by this metric of the task.", None)
    stop_after: int | None = option(
        "Validations in a row without a better keep_best that end the run; null = none.", None, ge=1
    )
    tensorboard: bool = option("Write TensorBoard events.", False)
    wandb: str | None = option("Weights & Biases project; null = none.", None)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    name: str = option("Names the run's folder; the file's name if not given.", "recipe")
    model: ModelSettings
    task: AnyTask
    data: DataSettings
    optim: OptimSettings
    runtime: RuntimeSettings
    log: LogSettings = field(default_factory=LogSettings)
    deepspeed: dict = option("Passed to DeepSpeed as it is, over what `runtime` sets.", factory=dict)

    def to_yaml(self) -> str:
        """Every setting, in a form that `resolve_recipe` reads back as an equal recipe."""
        return yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, width=110)


#: Section → name in the tag (none where there is one form only) → dataclass.
SECTIONS = {f.name: forms for f in dataclasses.fields(Recipe) if (forms := strict.forms(f.type))}
#: DeepSpeed's keys that are not for the passthrough: they follow from the other sections.
OWNED = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "optimizer",
    "scheduler",
)


def warmup_steps(warmup: float, steps: int) -> int:
    """`optim.warmup` in steps; RecipeError where it would not end before the run does."""
    count = round(warmup * steps) if warmup < 1 else int(warmup)
    if count >= steps:
        raise RecipeError(f"optim.warmup: {warmup:g} must end before the run's {steps} steps do")
    return count


def _wrong_kind(task: str, *sources: tuple[Source, ...]) -> None:
    wrong = sorted({spec.kind for each in sources for spec in each if spec} - set(KINDS[task]))
    if wrong:
        raise RecipeError(
            f"task.name: {task} cannot use sources of kind {', '.join(wrong)}; it uses {', '.join(KINDS[task])}"
        )


def _no_metric(metric: str | None, task: Any) -> None:
    own = METRICS[task.name]
    if own is RECALLS:
        own = [name for name in own if name.startswith("itc/" if task.itc else "itm/")]
    if metric is not None and metric not in own:
        raise RecipeError(f"log.keep_best: {metric!r} is no metric of this {task.name} task; it has {', '.join(own)}")


def _several(metric: str | None, sources: tuple[Source, ...], _: Any) -> None:
    """Metrics that several sets have stand under the sets' names, beside the mean of detection."""
    kinds = [spec.kind for spec in sources]
    detected = sum(kind in ("coco", "scene_detection") for kind in kinds)
    if (metric or "").startswith("detection/") and detected > 1:
        raise RecipeError("log.keep_best: several sets are detected in data.val: go by odinw/ap, their mean")
    if metric == "odinw/ap" and detected < 2 and not {"odvg", "region_shards"}.intersection(kinds):
        raise RecipeError("log.keep_best: odinw/ap is the mean of several sets, data.val has one: go by detection/ap")
    if (metric or "").startswith(("grounding/", "refexp/", "lvis/")) and len(kinds) > len(set(kinds)):
        raise RecipeError(f"log.keep_best: {metric} of several sets is not one number: name one set in data.val")


#: Settings that are right alone and wrong together: keys (the first is blamed), a test of their values, the
#: message; a test may raise RecipeError instead. A rule rests where one of its keys is wrong by itself.
RULES: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("model.image_size", lambda size: (size or 0) % 32, "{} is not a multiple of 32"),
    ("model.tokenizer model.roberta", lambda tokenizer, weights: weights and tokenizer == "builtin",
     "the weights {1!r} need their own tokenizer, not the built-in one"),
    ("task task.itm task.itc", lambda task, *weights: not any((*weights, getattr(task, "mlm", 0))),
     "all its weights are 0: nothing to train"),
    ("task.itm_negatives task.itm task.itc", lambda kind, itm, itc: kind == "hard" and itm and not itc,
     "hard negatives are drawn by ITC similarity: set task.itc above 0, or itm_negatives to random"),
    ("task.queue_size task.itc", lambda size, itc: size and not itc,
     "only ITC uses the queue: set task.itc above 0, or queue_size to 0"),
    ("data.train", lambda sources: not sources, "names no source"),
    ("data.augment task.short_sides", lambda augment, _: augment != "none",
     "region-level tasks have their own transform: leave it at none, see task.short_sides and task.flip"),
    ("data.captions task.short_sides", lambda captions, _: captions != "random",
     "captions with boxes come one by one: leave it at random"),
    ("task.short_sides", lambda sides: not sides, "names no size"),
    ("task.control", lambda chances: sum(chances) > 1, "{} is more than 1 in all"),
    ("task.name data.train data.val", _wrong_kind, ""),
    ("optim optim.steps optim.epochs", lambda optim, steps, epochs: (steps is None) == (epochs is None),
     "steps={1} and epochs={2}: give exactly one of them"),
    ("optim.warmup", lambda warmup: warmup > 1 and warmup % 1, "{}: from 1 on it counts whole steps"),
    ("optim.warmup optim.steps", lambda warmup, steps: steps and warmup_steps(warmup, steps) < 0, ""),
    ("runtime.global_batch runtime.micro_batch runtime", lambda batch, micro, run: run.micro_steps(1) < 1, ""),
    ("runtime.ema runtime.zero_stage", lambda ema, stage: ema and stage == 3,
     "needs whole parameters on every rank: set runtime.zero_stage to at most 2, or ema to null"),
    ("runtime.offload runtime.zero_stage", lambda offload, stage: offload == "cpu" and stage == 0,
     "DeepSpeed offloads sharded state only: set runtime.zero_stage to 1, 2 or 3"),
    ("log.validate_every data.val", lambda every, sources: every and not sources,
     "there is nothing to validate on: name sources in data.val"),
    ("log.keep_best log.validate_every", lambda metric, every: metric and not every,
     "needs validation: set log.validate_every"),
    ("log.keep_best log.stop_after", lambda metric, after: after and not metric,
     "log.stop_after goes by it: name a metric of the validation"),
    ("log.keep_best optim.schedule", lambda metric, schedule: schedule == "plateau" and not metric,
     "optim.schedule=plateau goes by it: name a metric of the validation"),
    ("log.keep_best task", _no_metric, ""),
    ("log.keep_best data.val task.short_sides", _several, ""),
    ("log.stop_after optim.patience optim.schedule", lambda after, patience, schedule: schedule == "plateau"
     and after and after <= patience, "ends the run before optim.patience={1} lowers the rate: set it higher"),
    ("log.validate_every task.itm task.itc", lambda every, *weights: every and not any(weights),
     "validation measures retrieval, which needs task.itc or task.itm above 0: set it to null"),
    ("task.objective data.captions", lambda objective, captions: objective == "cider" and captions == "each",
     "the reward compares with all captions of an image: set data.captions to random"),
    ("task.cider_df task.objective", lambda df, objective: objective == "cider" and df is None,
     "the reward needs document frequencies: make them with `fiber cider-df` and name the file here"),
    ("task.objective runtime.zero_stage", lambda objective, stage: objective != "mle" and stage == 3,
     "{0} needs whole parameters on every rank: set runtime.zero_stage to at most 2"),
    ("deepspeed", lambda given: [key for key in OWNED if key in given],
     f"leave out what follows from the other sections: {', '.join(OWNED)}"),
)  # fmt: skip


def broken_rules(recipe: Recipe, bad: set[str]) -> Iterator[tuple[str, str]]:
    """(key to blame, `key: what is wrong`); `bad` holds the keys that are wrong by themselves."""
    for keys, test, message in RULES:
        keys = keys.split()
        if any(f"{key}.".startswith(f"{b}.") for key in keys for b in bad):
            continue
        try:
            values = [operator.attrgetter(key)(recipe) for key in keys]
        except AttributeError:
            continue  # a rule about settings of another task
        try:
            if test(*values):
                yield keys[0], f"{keys[0]}: {message.format(*values)}"
        except RecipeError as error:
            yield keys[0], str(error)
