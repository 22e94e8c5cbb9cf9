"""From a recipe's sections, or from a checkpoint, to the objects that a run works on."""

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.distributed import collectives as dist
from fiber_cli.checkpoints import backbones as pretrained
from fiber_cli.data.sources import source_class
from fiber_cli.data.scenes import drawing as scenes
from fiber_cli.data.loader import CaptionReader, Mixture, StepSampler, caption_view, collate, train_loader
from fiber_cli.tasks.regions.transforms import RegionTransform
from fiber_cli.tasks.regions.data import RegionReader, collate_regions
from fiber_cli.data.source import Source, sample_id, usable
from fiber_cli.tasks.nlvr2.data import StatementReader
from fiber_cli.data.text import load_tokenizer, special_ids
from fiber_cli.tasks.vqa.data import VqaReader, answerable, read_vocabulary
from fiber_cli.errors import UserError
from fiber_cli.evaluation.evaluate import evaluation_set, measure
from fiber_cli.kinds import REGION_TASKS
from fiber_cli.checkpoints.loading import new_task
from fiber_cli.tasks.caption import cider
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.config.settings import CaptionSettings, FineSettings, ModelSettings, Nlvr2Settings, Recipe, VqaSettings
from fiber_cli.config.settings import Source as SourceSettings
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.caption.task import CaptionTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Task settings that are the arguments of `RegionReader`, and all that the data and the reward use, not the task's
#: constructor.
READER_FIELDS = ("prompt", "negatives", "control", "published_names", "draw_background", "swap_sides")
DATA_FIELDS = (
    *("name", "mlm_probability", "answers", "cider_df"),
    *(*READER_FIELDS, "short_sides", "longest_side", "flip"),
)


def model_config(settings: ModelSettings, tokenizer: "PreTrainedTokenizerBase", *, region: bool = False) -> FiberConfig:
    """The model's sizes: the preset, changed where the recipe says so, with the tokeniser's vocabulary. region: images
    are of any size, so that windows keep theirs."""

    def given(**fields: str) -> dict[str, Any]:
        return {ours: value for ours, name in fields.items() if (value := getattr(settings, name)) is not None}

    preset = PRESETS[settings.preset]
    image = given(embed_dim="embed_dim", depths="depths", heads="image_heads", drop_path="drop_path")
    text = given(layers="text_layers", hidden="text_hidden", heads="text_heads", intermediate="text_intermediate")
    text |= {"vocab": len(tokenizer), "pad_id": tokenizer.pad_token_id, **given(dropout="dropout")}
    config = dataclasses.replace(
        preset,
        image=dataclasses.replace(preset.image, fixed_window=region, **image),
        text=dataclasses.replace(preset.text, **text),
        **given(fusion_layers="fusion_layers", hidden="hidden", norm_image_query="norm_image_query"),
    )
    if settings.image_size is not None:
        config = config.at_image_size((settings.image_size, settings.image_size))
    # Position ids start behind the padding id.
    longest = config.text.positions - config.text.pad_id - 1
    if settings.text_length > longest:
        raise UserError(
            f"model.text_length={settings.text_length}: preset {settings.preset} has positions for {longest}"
        )
    return config


def describe(
    recipe: Recipe, config: FiberConfig, tokenizer: "PreTrainedTokenizerBase", labels: list[str] | None
) -> dict[str, Any]:
    """What config.json of the run's checkpoints says: enough to rebuild the task and its input."""
    arguments = {name: value for name, value in dataclasses.asdict(recipe.task).items() if name not in DATA_FIELDS}
    if recipe.task.name == "caption":
        arguments |= {"max_length": recipe.model.text_length, **special_ids(tokenizer)}
    preprocessing = {"image_size": list(config.image_size), "text_length": recipe.model.text_length}
    if isinstance(task := recipe.task, FineSettings):
        preprocessing |= {"short_side": task.short_sides[-1], "longest_side": task.longest_side}
        preprocessing["published_names"] = task.published_names
    return {
        "model": config.to_dict(),
        "task": {"name": recipe.task.name, **arguments},
        "preprocessing": preprocessing,
        "labels": labels,
        "tokenizer": recipe.model.tokenizer,
    }


def sources(specs: Sequence[SourceSettings], *, max_pixels: int) -> list[Source]:
    """The sources that a recipe names; raises UserError where their files cannot be used."""
    made = [source_class(spec.kind)(**spec.arguments()) for spec in specs]
    for source in made:
        source.max_pixels = max_pixels
    return made


@dataclass
class Work:
    """What a run trains.

    batches: from a first step to this rank's micro-batches, in order. validate: metrics of the task it is
    given, which stands for the run's weights; None = no validation. config and tokenizer go into the
    checkpoints.
    """

    task: nn.Module
    batches: Callable[[int], Iterable[dict]]
    steps: int
    steps_per_epoch: int
    validate: Callable[[nn.Module], dict[str, float]] | None
    config: dict[str, Any]
    tokenizer: "PreTrainedTokenizerBase | None"


def work(recipe: Recipe, init_from: str | Path | None = None, *, fresh: bool = True) -> Work:
    """Task, data and validation of a recipe.

    init_from: a checkpoint to take the weights from, position-bias tables resized to the recipe's image size.
    fresh=False: the weights will be replaced by those of a run that goes on, so none are read.
    """
    torch.manual_seed(recipe.runtime.seed)
    run, data = recipe.runtime, recipe.data
    tokenizer = load_tokenizer(recipe.model.tokenizer)
    region = recipe.task.name in REGION_TASKS
    config = model_config(recipe.model, tokenizer, region=region)
    found = sources(data.train, max_pixels=data.max_pixels)
    views, reader, labels = training_data(recipe, found, tokenizer, config)
    mixture = Mixture(views, [spec.weight for spec in data.train], run.seed)
    per_epoch = mixture.steps(run.global_batch)
    steps = recipe.optim.steps or recipe.optim.epochs * per_epoch
    about = describe(recipe, config, tokenizer, labels)
    task = new_task(about)
    if fresh and init_from is not None:
        initialise(task, tokenizer, init_from)
    elif fresh:
        if recipe.model.swin:
            pretrained.load_swin(task.encoder, recipe.model.swin)
        if recipe.model.roberta:
            pretrained.load_roberta(task.encoder, recipe.model.roberta)
    if isinstance(task, CaptionTask) and recipe.task.cider_df:
        task.reward = cider.CiderReward(cider.CiderD(**cider.read_document_frequency(recipe.task.cider_df)), tokenizer)

    def batches(start: int) -> Iterable[dict]:
        sampler = StepSampler(mixture, run.global_batch, run.micro_batch, dist.rank(), dist.world_size(), start, steps)
        return train_loader(sampler, reader, data.workers, collate_regions if region else collate)

    validate = None
    if recipe.log.validate_every:
        evalset = evaluation_set(about, sources(data.val, max_pixels=data.max_pixels), tokenizer)

        def validate(task: nn.Module) -> dict[str, float]:
            options = {"batch_size": run.micro_batch, "workers": data.workers, "precision": run.precision}
            return measure(task, evalset, **options).metrics

    return Work(task, batches, steps, per_epoch, validate, about, tokenizer)


def training_data(
    recipe: Recipe, sources: list[Source], tokenizer: "PreTrainedTokenizerBase", config: FiberConfig
) -> tuple[list[Source], Callable, list[str] | None]:
    """The sources as what an epoch goes through (images, (image, caption) pairs, statements or answerable questions),
    what makes the task's samples of them, and its labels: the answers that VQA tells apart, the category names of
    detection data, None without either."""
    task, labels, dropped = recipe.task, None, ""
    common = (tokenizer, recipe.model.text_length, config.image_size[0], recipe.data.augment)
    match task:
        case VqaSettings():
            labels = read_vocabulary(task.answers) if task.answers else scenes.answers()
            sources = [answerable(source, labels) for source in sources]
            dropped = "questions without an answer in the vocabulary"
            reader = VqaReader(*common, labels)
        case FineSettings():
            labels = list(dict.fromkeys(name for source in sources for name in getattr(source, "names", ()))) or None
            dropped = "boxes without an area inside their image"
            transform = RegionTransform(task.short_sides, task.longest_side, task.flip)
            reader = RegionReader(*common[:2], transform, **{name: getattr(task, name) for name in READER_FIELDS})
        case Nlvr2Settings():
            if len({source.images_each for source in sources}) > 1:
                raise UserError(
                    "data.train: statements about one image and about two cannot be in one batch; take one kind"
                )
            reader = StatementReader(*common)
        case _:
            sources = caption_view(sources, recipe.data.captions)
            rewarded = isinstance(task, CaptionSettings) and task.objective == "cider"
            reader = CaptionReader(*common, getattr(task, "mlm_probability", None), references=rewarded)
    count = sum(getattr(source, "dropped", 0) for source in sources) if dropped else 0
    if count and dist.is_main():
        print(f"{count} {dropped} are not trained on", file=sys.stderr)
    return sources, reader, labels


def count_document_frequencies(recipe: Recipe, output: str | Path) -> str:
    """Write the table of CIDEr optimisation over a recipe's training captions; returns what was done, in words."""
    found = sources(recipe.data.train, max_pixels=recipe.data.max_pixels)
    every = [(source, i) for source in found for i in range(len(source))]
    _, captions, bad = usable(every, lambda each: each[0].captions(each[1]), lambda each: sample_id(*each))
    table = cider.document_frequency([[cider.wrap(text) for text in own] for own in captions])
    cider.write_document_frequency(output, table)
    return f"{output}: n-grams of the captions of {len(captions)} images" + (f", {len(bad)} left out" if bad else "")


def initialise(task: Task, tokenizer: "PreTrainedTokenizerBase", path: str | Path) -> None:
    """Weights of another run's checkpoint, and a word on what is new, what is left out and what was resized."""
    path = checkpoint.resolve(path)
    other = load_tokenizer(path / "tokenizer")
    if other.get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"{path}: its tokeniser is not the recipe's, so that its word embeddings would stand for other words; "
            f"set model.tokenizer to {path / 'tokenizer'}"
        )
    weights = checkpoint.load_weights(path)
    fitted = checkpoint.fit_position_biases(weights, task)
    fresh, dropped = checkpoint.load_into(task, fitted, expect_missing=task.NEW, expect_unexpected=task.DROPPED)
    if not dist.is_main():
        return
    resized = sum(fitted[name] is not weights[name] for name in weights)
    print(f"initialised from {path}: {len(weights) - len(dropped)} tensors, of which {resized} position-bias tables "
          "were resized", file=sys.stderr)  # fmt: skip
    for what, names in (("new", fresh), ("left out", dropped)):
        print(f"  {what}: {', '.join(names) or 'none'}", file=sys.stderr)


def count_parameters(task: nn.Module) -> dict[str, int]:
    """Parameters of the image tower, the text tower, the fusion inside each, the rest (poolers, heads), and
    all."""
    counts = dict.fromkeys(("image", "text", "fusion (image side)", "fusion (text side)", "heads"), 0)
    for name, parameter in task.named_parameters():
        tower = next((t for t in ("image", "text") if name.startswith(f"encoder.{t}.")), None)
        fused = "cross" in name.split(".")
        counts["heads" if tower is None else f"fusion ({tower} side)" if fused else tower] += parameter.numel()
    return counts | {"total": sum(counts.values())}
