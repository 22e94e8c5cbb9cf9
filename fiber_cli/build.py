"""From a recipe's sections, or from a checkpoint, to the objects that a run works on."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fiber_cli import checkpoint, dist, pretrained
from fiber_cli.data import SOURCES
from fiber_cli.data.evalset import RetrievalSet
from fiber_cli.data.loader import Mixture, caption_view, steps_per_epoch, train_loader
from fiber_cli.data.source import Source
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.retrieval import retrieval
from fiber_cli.settings import ModelSettings, Recipe
from fiber_cli.settings import Source as SourceSettings
from fiber_cli.tasks import TASKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Where each optional size of the `model` section goes; what it leaves out is the preset's.
IMAGE_FIELDS = {
    "embed_dim": "embed_dim",
    "depths": "depths",
    "image_heads": "heads",
    "drop_path": "drop_path",
}
TEXT_FIELDS = {
    "text_layers": "layers",
    "text_hidden": "hidden",
    "text_heads": "heads",
    "text_intermediate": "intermediate",
    "dropout": "dropout",
}
TOP_FIELDS = {"fusion_layers": "fusion_layers", "hidden": "hidden"}
#: Task settings that the data uses, not the task.
DATA_FIELDS = ("name", "mlm_probability")


def model_config(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> FiberConfig:
    """The model's sizes: the preset, changed where the recipe says so, with the tokeniser's vocabulary."""

    def given(fields: dict[str, str]) -> dict[str, Any]:
        return {
            ours: value for name, ours in fields.items() if (value := getattr(settings, name)) is not None
        }

    preset = PRESETS[settings.preset]
    text = {"vocab": len(tokenizer), "pad_id": tokenizer.pad_token_id, **given(TEXT_FIELDS)}
    config = dataclasses.replace(
        preset,
        image=dataclasses.replace(preset.image, **given(IMAGE_FIELDS)),
        text=dataclasses.replace(preset.text, **text),
        **given(TOP_FIELDS),
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


def new_task(recipe: Recipe, config: FiberConfig, *, weights: bool = True) -> nn.Module:
    """The recipe's task on the CPU, its towers filled from `model.swin` and `model.roberta` unless
    `weights=False` says that all of it will be replaced."""
    task = TASKS[recipe.task.name](config, **task_arguments(recipe))
    if weights and recipe.model.swin:
        pretrained.load_swin(task.encoder, recipe.model.swin)
    if weights and recipe.model.roberta:
        pretrained.load_roberta(task.encoder, recipe.model.roberta)
    return task


def task_arguments(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(recipe.task).items() if name not in DATA_FIELDS}


def describe(recipe: Recipe, config: FiberConfig) -> dict[str, Any]:
    """What config.json of the run's checkpoints says: enough to rebuild the task and its input."""
    return {
        "model": config.to_dict(),
        "task": {"name": recipe.task.name, **task_arguments(recipe)},
        "preprocessing": {"image_size": list(config.image_size), "text_length": recipe.model.text_length},
        "labels": None,
        "tokenizer": recipe.model.tokenizer,
    }


def sources(specs: Sequence[SourceSettings], *, max_pixels: int) -> list[Source]:
    """The sources that a recipe names; raises UserError where their files cannot be used."""
    made = []
    for spec in specs:
        arguments = spec.arguments()
        kind = SOURCES[arguments.pop("kind")]
        if "max_pixels" in inspect.signature(kind).parameters:
            arguments["max_pixels"] = max_pixels
        made.append(kind(**arguments))
    return made


def load_task(path: str | Path) -> tuple[nn.Module, PreTrainedTokenizerBase, dict[str, Any]]:
    """The task in evaluation mode, its tokeniser and config.json, of a checkpoint directory (or what
    `checkpoint.resolve` finds for `path`)."""
    path = checkpoint.resolve(path)
    config = checkpoint.load_config(path)
    settings = dict(config["task"])
    name = settings.pop("name")
    if name not in TASKS:
        raise UserError(f"{path}: task {name!r} is unknown to this version; it knows {', '.join(TASKS)}")
    try:
        task = TASKS[name](FiberConfig.from_dict(config["model"]), **settings)
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{path / 'config.json'} does not describe a model of this version: {error}"
        ) from error
    checkpoint.load_into(task, checkpoint.load_weights(path))
    return task.eval(), load_tokenizer(path / "tokenizer"), config


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
    tokenizer: PreTrainedTokenizerBase | None


def work(recipe: Recipe, init_from: str | Path | None = None, *, fresh: bool = True) -> Work:
    """Task, data and validation of a recipe.

    init_from: a checkpoint to take the weights from, position-bias tables resized to the recipe's image size.
    fresh=False: the weights will be replaced by those of a run that goes on, so none are read.
    """
    torch.manual_seed(recipe.runtime.seed)
    run, data, length = recipe.runtime, recipe.data, recipe.model.text_length
    tokenizer = load_tokenizer(recipe.model.tokenizer)
    config = model_config(recipe.model, tokenizer)
    views = caption_view(sources(data.train, max_pixels=data.max_pixels), data.captions)
    mixture = Mixture(views, [spec.weight for spec in data.train], run.seed)
    per_epoch = steps_per_epoch(mixture, run.global_batch)
    steps = recipe.optim.steps or recipe.optim.epochs * per_epoch
    task = new_task(recipe, config, weights=fresh and init_from is None)
    if fresh and init_from is not None:
        weights = checkpoint.load_weights(checkpoint.resolve(init_from))
        checkpoint.load_into(task, checkpoint.fit_position_biases(weights, task))

    def batches(start: int) -> Iterable[dict]:
        return train_loader(
            mixture,
            tokenizer=tokenizer,
            text_length=length,
            image_size=config.image_size[0],
            augment=data.augment,
            mlm_probability=recipe.task.mlm_probability,
            global_batch=run.global_batch,
            micro_batch=run.micro_batch,
            rank=dist.rank(),
            world=dist.world_size(),
            start_step=start,
            total_steps=steps,
            workers=data.workers,
        )

    validate = None
    if recipe.log.validate_every:
        evalset = RetrievalSet(
            sources(data.val, max_pixels=data.max_pixels), tokenizer, length, config.image_size
        )

        def validate(task: nn.Module) -> dict[str, float]:
            return retrieval(
                task, evalset, batch_size=run.micro_batch, workers=data.workers, precision=run.precision
            )[0]

    return Work(task, batches, steps, per_epoch, validate, describe(recipe, config), tokenizer)


def count_parameters(task: nn.Module) -> dict[str, int]:
    """Parameters of the image tower, the text tower, the fusion inside each, the rest (poolers, heads), and
    all."""
    counts = dict.fromkeys(("image", "text", "fusion (image side)", "fusion (text side)", "heads"), 0)
    for name, parameter in task.named_parameters():
        tower = next((t for t in ("image", "text") if name.startswith(f"encoder.{t}.")), None)
        fused = "cross" in name.split(".")
        counts["heads" if tower is None else f"fusion ({tower} side)" if fused else tower] += (
            parameter.numel()
        )
    return counts | {"total": sum(counts.values())}
