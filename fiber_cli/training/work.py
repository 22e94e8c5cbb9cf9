"""From a recipe to the objects that a run works on."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from fiber_cli.checkpoints.config import CheckpointConfig, read_config
from fiber_cli.checkpoints.digests import check
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.loading import new_task
from fiber_cli.config.recipe import DataSettings, ModelSettings, Recipe
from fiber_cli.data.identity import source_facts
from fiber_cli.data.loader import train_loader
from fiber_cli.data.mixing import Mixture, StepSampler
from fiber_cli.data.readers import Batch
from fiber_cli.data.source import Source
from fiber_cli.data.sources import open_source
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed import collectives
from fiber_cli.distributed.device import device
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.model.precision import settled
from fiber_cli.printing import say, say_lines
from fiber_cli.settings import SourceSettings
from fiber_cli.tasks import declared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.declaration import ParameterKinds
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData
from fiber_cli.training.best_metric import check_measurable
from fiber_cli.training.initialise import chosen_towers, initialise, initialise_towers, load_backbones
from fiber_cli.training.model_sizes import model_config
from fiber_cli.training.optim import check_parameters
from fiber_cli.training.words import small_letters_alone, words_of_training

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Settings of the model that are as in the checkpoint that a run begins with, where its recipe gives none.
LEFT_TO_INIT_FROM = ("norm_image_query", "fusion", "fusion_attention", "fusion_gate")


class MakeBatches(Protocol):
    """From a first step to this rank's micro-batches, in order. micro_batch: of another size than the recipe's, to look
    at a few of the first step; None = the recipe's."""

    def __call__(self, start: int, micro_batch: int | None = None) -> Generator[Batch, None, None]: ...


Validate = Callable[[Any], dict[str, float]]


@dataclass
class Work:
    """What a run trains.

    batches: see `MakeBatches`. validate: metrics of the task it is
    given, which stands for the run's weights; None = no validation. parameters: which of the task's learn how fast.
    config, the content of config.json, tokenizer and words, those of all texts that the weights were trained on, None
    where they are not known, go into the checkpoints. sources: by their name in the recipe.
    """

    task: Task
    batches: MakeBatches
    steps: int
    steps_per_epoch: int
    validate: Validate | None
    parameters: ParameterKinds
    config: dict[str, Any]
    tokenizer: "PreTrainedTokenizerBase | None"
    sources: Mapping[str, Source] = field(default_factory=dict)
    words: frozenset[str] | None = None

    @cached_property
    def data_facts(self) -> dict[str, str]:
        """What the sources hold, see `data.identity`; the same on ranks that train on the same."""
        facts: dict[str, str] = {}
        for name, source in self.sources.items():
            facts |= source_facts(name, source)
        return facts


def work(recipe: Recipe, init_from: str | Path | None = None, *, fresh: bool = True) -> Work:
    """Task, data and validation of a recipe.

    init_from: a checkpoint to take the weights from, position-bias tables resized to the recipe's image size.
    fresh=False: the weights will be replaced by those of a run that goes on, so none are read. Raises UserError for
    what cannot be used: data, weights, sizes; DeclarationError where the task's declaration is not true of its module.
    """
    if fresh and init_from is not None:
        check(resolve(init_from))
    torch.manual_seed(recipe.runtime.seed)
    declaration = declared(recipe.task.name)
    context = _context(recipe, init_from, fresh=fresh)
    sources = open_sources(recipe.data.train, recipe.data)
    data = training_data(recipe, context, sources)
    context = replace(context, labels=data.labels)
    entries = recipe.data.train
    weights = [entry.weight for entry in entries]
    intervals = [entry.during for entry in entries]
    mixture = Mixture(data.sources, weights, recipe.runtime.seed, intervals)
    steps_per_epoch = mixture.steps(recipe.runtime.global_batch)
    steps = recipe.optim.steps or (recipe.optim.epochs or 0) * steps_per_epoch
    task = new_task(context)
    check_parameters([name for name, _ in task.named_parameters()], declaration)
    declaration.scene_settings("val", 1)
    if fresh and init_from is not None:
        initialise(task, context, init_from)
    elif fresh:
        load_backbones(task, recipe.model)
        if recipe.model.towers:
            initialise_towers(task, context, recipe.model.towers)
    task.prepare_training(context)
    validated = open_sources(recipe.data.val, recipe.data) if recipe.log.validate_every else []
    reads_texts = fresh and collectives.is_main()
    config = CheckpointConfig(
        context.model,
        recipe.task,
        context.text_length,
        context.labels,
        recipe.model.tokenizer,
        small_letters=reads_texts and small_letters_alone(data, declaration, init_from),
    )
    return Work(
        task=task,
        batches=_batches(recipe, data, mixture, steps),
        steps=steps,
        steps_per_epoch=steps_per_epoch,
        validate=_validation(recipe, context, validated),
        parameters=declaration.parameters,
        config=config.to_json(),
        tokenizer=context.tokenizer,
        sources=_named("data.train", sources) | _named("data.val", validated),
        words=words_of_training(data, declaration, init_from) if reads_texts else None,
    )


def _named(section: str, sources: Sequence[Source]) -> dict[str, Source]:
    return {f"{section}[{number}]": source for number, source in enumerate(sources)}


def open_sources(settings: Sequence[SourceSettings], data: DataSettings) -> list[Source]:
    """The sources that a recipe names; raises UserError where their files cannot be used."""
    return [open_source(each, max_pixels=data.max_pixels) for each in settings]


def training_data(recipe: Recipe, context: TaskContext[Any], sources: Sequence[Source]) -> TrainingData:
    """What the task makes of the recipe's sources, and a word on what is left out."""
    options = ReadingOptions(recipe.data.augment, recipe.data.captions)
    data = declared(recipe.task.name).training_data.load()(sources, context, options)
    for lines in (data.notice, data.remark):
        if lines and collectives.is_main():
            say_lines(lines)
    return data


def _context(recipe: Recipe, init_from: str | Path | None, *, fresh: bool) -> TaskContext[Any]:
    """What the task knows of its run, but for the labels, which its data have. fresh=False: `init_from` is the run
    itself, whose model is as it was."""
    tokenizer = load_tokenizer(recipe.model.tokenizer)
    free_image_size = declared(recipe.task.name).free_image_size
    settings, trained = recipe.model, None
    if init_from is not None:
        first = read_config(resolve(init_from)).model
        settings = _completed_by(settings, first)
        if not fresh:
            trained = first
    elif settings.towers:
        towers = read_config(chosen_towers(settings.towers).path).model
        settings = _with_positions_of(settings, towers)
    model = model_config(settings, tokenizer, free_image_size=free_image_size, trained=trained)
    if (
        model.fusion_layers < PRESETS[settings.preset].fusion_layers
        and settings.fusion_layers is None
        and settings.fusion != "none"
        and collectives.is_main()
    ):
        say(f"model.fusion_layers: {model.fusion_layers}, half of the layers of the smaller tower")
    return TaskContext(recipe.task, model, tokenizer, recipe.model.text_length)


def _completed_by(settings: ModelSettings, model: FiberConfig) -> ModelSettings:
    """The settings, with what they leave to the checkpoint that a run begins with."""
    changes: dict[str, Any] = {}
    for name in LEFT_TO_INIT_FROM:
        if getattr(settings, name) is None:
            changes[name] = getattr(model, name)
    return _with_positions_of(replace(settings, **changes), model)


def _with_positions_of(settings: ModelSettings, model: FiberConfig) -> ModelSettings:
    """With an embedding of positions or without, as the towers that a run begins with, where the settings leave it
    open."""
    if settings.position_embedding is not None:
        return settings
    return replace(settings, position_embedding=model.image.position_embedding)


def _batches(recipe: Recipe, data: TrainingData, mixture: Mixture, steps: int) -> MakeBatches:
    runtime = recipe.runtime

    def batches(start: int, micro_batch: int | None = None) -> Generator[Batch, None, None]:
        of_step = runtime.global_batch
        if micro_batch is not None:
            of_step -= of_step % micro_batch
        sampler = StepSampler(
            mixture,
            of_step,
            micro_batch or runtime.micro_batch,
            collectives.rank(),
            collectives.world_size(),
            start,
            steps,
            data.picture_size,
        )
        return train_loader(sampler, data.reader, recipe.data.workers, data.collate)

    return batches


def _validation(recipe: Recipe, context: TaskContext[Any], sources: Sequence[Source]) -> Validate | None:
    if not recipe.log.validate_every:
        return None
    evaluation = declared(recipe.task.name).evaluation.load()(sources, context, EvaluationOptions(calibrate=True))
    precision = settled(recipe.runtime.precision, device())
    options = PredictOptions(recipe.runtime.micro_batch, recipe.data.workers, precision)
    # What is wrong with the data is known here and not when the first validation ends hours of training.
    checked = evaluation.check()
    for remark in checked.remarks:
        if collectives.is_main():
            say(f"data.val: {remark}")
    if recipe.log.keep_best and checked.metrics is not None:
        check_measurable(recipe.log.keep_best, checked.metrics)

    told: set[str] = set()

    def validate(task: Task) -> dict[str, float]:
        result = evaluation.measure(task, options)
        for note in result.notes:
            if note not in told and collectives.is_main():
                say(f"validation: {note}")
            told.add(note)
        return result.metrics

    return validate


def count_parameters(task: nn.Module) -> dict[str, int]:
    """Parameters of the image tower, the text tower, the fusion inside each, the rest (poolers, heads), and
    all."""
    counts = dict.fromkeys(("image", "text", "fusion (image side)", "fusion (text side)", "heads"), 0)
    for name, parameter in task.named_parameters():
        counts[_part_of(name)] += parameter.numel()
    return counts | {"total": sum(counts.values())}


def _part_of(name: str) -> str:
    for tower in ("image", "text"):
        if name.startswith(f"encoder.top.{tower}_"):
            return f"fusion ({tower} side)"
        if name.startswith(f"encoder.{tower}."):
            return f"fusion ({tower} side)" if "cross" in name.split(".") else tower
    return "heads"
