"""What a recipe's training takes, estimated without its data, its first weights or a GPU: `fiber plan`.

The task of the recipe is made in its sizes and goes forward and backward over built-in scenes, counted and not computed
(`counting`), so that little is asked of the machine.
"""

import dataclasses
import os
from collections.abc import Iterator
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from fiber_cli.checkpoints.loading import new_task
from fiber_cli.config.recipe import Recipe
from fiber_cli.data.readers import Batch, Sample
from fiber_cli.data.source import BadSample
from fiber_cli.data.text import load_tokenizer
from fiber_cli.distributed.collectives import alone
from fiber_cli.model.pixels import padded
from fiber_cli.model.precision import precision_context
from fiber_cli.tasks import declared
from fiber_cli.tasks.base import Task
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.regions.settings import RegionSettings
from fiber_cli.tasks.training_data import ReadingOptions, TrainingData
from fiber_cli.tasks.vqa.settings import VqaSettings
from fiber_cli.tasks.vqa.vocabulary import read_vocabulary
from fiber_cli.training.allowed import check_trainable
from fiber_cli.training.computing import prepare
from fiber_cli.training.counting import Counting, Undrawn
from fiber_cli.training.gpus import BOXES_SHARE, SHARE
from fiber_cli.training.model_sizes import model_config
from fiber_cli.training.one_step import forward_backward, shown_step
from fiber_cli.training.work import count_parameters, open_sources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Answers of VQAv2 that the paper's classifier tells apart.
VQAV2_ANSWERS = 3129
#: The longer side of a photograph by the shorter.
PHOTOGRAPH = 4 / 3
#: The largest micro-batch that is counted; what larger ones take is reckoned from it and its half.
MOST_COUNTED = 64


class Passes(NamedTuple):
    """Forward and backward of a micro-batch: operations a sample, and the bytes of all that is computed, without
    weights and their gradients. meeting: of how many micro-batches something is kept meanwhile, as the pairs of all of
    them meet."""

    operations: float
    activations: float
    meeting: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """parameters: by their part, see `count_parameters`. passes: of the recipe's micro-batch. share: of a GPU's rate
    that such trainings are taken to reach. notes: what stands for what is not known, a line each."""

    parameters: dict[str, int]
    passes: Passes
    share: float
    notes: tuple[str, ...]


@alone()
def estimate(recipe: Recipe, world: int = 1, steps: int | None = None) -> Estimate:
    """Of a training on so many ranks, by which its batch divides; one of them may ask alone. steps: of the whole
    training, where they are known. Raises UserError for sizes that do not fit, where first weights tell the sizes and
    cannot be read, and as `check_trainable` does."""
    settings, notes = _task_settings(recipe)
    model = model_config(
        recipe.model, _own_tokenizer(recipe), free_image_size=declared(recipe.task.name).free_image_size
    )
    # The scenes have the words of the built-in tokeniser, whichever the recipe's is.
    context = TaskContext(settings, model, load_tokenizer("builtin"), recipe.model.text_length)
    data = _scenes(recipe, context)
    labels, more_notes = _labels(recipe, data)
    with torch.device("meta"):
        task = new_task(dataclasses.replace(context, labels=labels))
    check_trainable(recipe, task, steps, world)
    passes = _passes(recipe, world, dataclasses.replace(context, labels=data.labels), data)
    share = BOXES_SHARE if isinstance(recipe.task, RegionSettings) else SHARE
    return Estimate(count_parameters(task), passes, share, (*notes, *more_notes))


def _own_tokenizer(recipe: Recipe) -> "PreTrainedTokenizerBase | None":
    """Where it is at hand, for its vocabulary; the hub is not asked."""
    name = recipe.model.tokenizer
    if name == "builtin" or os.path.isdir(os.path.expanduser(name)):
        return load_tokenizer(name)
    return None


def _task_settings(recipe: Recipe) -> tuple[Any, tuple[str, ...]]:
    """The task's settings such that scenes are read as its data would be."""
    settings: Any = recipe.task
    if isinstance(settings, RegionSettings):
        sides = settings.short_sides
        note = f"pictures: photographs of 4:3, memory at a shorter side of {max(sides)}"
        if len(sides) > 1:
            note += f", operations a mean over {', '.join(map(str, sides))}"
        return dataclasses.replace(settings, short_sides=(max(sides),), prompt="sampled"), (note,)
    if isinstance(settings, CaptionSettings) and settings.objective != "mle":
        note = f"task.objective={settings.objective}: counted as mle, without the further passes that it makes"
        return dataclasses.replace(settings, objective="mle", cider_df=None), (note,)
    if isinstance(settings, VqaSettings):
        return dataclasses.replace(settings, answers=None), ()
    return settings, ()


def _labels(recipe: Recipe, data: TrainingData) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """What the task tells apart: of VQA as many answers as its vocabulary has."""
    settings = recipe.task
    if not isinstance(settings, VqaSettings) or settings.answers is None:
        return data.labels, ()
    if os.path.isfile(settings.answers):
        return tuple(read_vocabulary(settings.answers)), ()
    note = f"answers: {VQAV2_ANSWERS:,}, VQAv2's, as {settings.answers} is not there"
    return tuple(map(str, range(VQAV2_ANSWERS))), (note,)


def _scenes(recipe: Recipe, context: TaskContext[Any]) -> TrainingData:
    """Built-in scenes in place of the recipe's data."""
    declaration = declared(recipe.task.name)
    sources = open_sources(declaration.scene_settings("train", 4 * MOST_COUNTED), recipe.data)
    return declaration.training_data.load()(sources, context, ReadingOptions("none", "random"))


def _passes(recipe: Recipe, world: int, context: TaskContext[Any], data: TrainingData) -> Passes:
    with Undrawn():
        task = new_task(context)
    task.train()
    prepare(task, recipe.runtime, compiled=False, any_size=False)
    for parameter in task.parameters():
        # Gradients are counted apart.
        parameter.register_post_accumulate_grad_hook(_drop_gradient)
    micro_batch, all_micro_steps = recipe.runtime.micro_batch, recipe.runtime.micro_steps(world)
    shown = shown_step(task, recipe.runtime, world)
    micro_steps = shown.micro_steps
    # A micro-batch that only makes sense beside those of other ranks is reckoned from larger ones too.
    most = min(micro_batch, MOST_COUNTED) if shown.micro_batch == micro_batch else 2 * shown.micro_batch
    samples = list(_samples(data, most))
    whole = _counted(recipe, task, data, samples, micro_steps)
    operations, activations = whole.operations / (most * micro_steps), float(whole.peak)
    if micro_batch != most:
        half = _counted(recipe, task, data, samples[: most // 2], micro_steps)
        activations += (whole.peak - half.peak) / (most - most // 2) * (micro_batch - most)
    if 1 < micro_steps < all_micro_steps:
        more = _counted(recipe, task, data, samples, micro_steps + 1)
        activations += (more.peak - whole.peak) * micro_batch / most * (all_micro_steps - micro_steps)
    if isinstance(recipe.task, RegionSettings):
        operations *= _mean_area(recipe.task.short_sides)
    return Passes(operations, activations, all_micro_steps if micro_steps > 1 else 1)


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _samples(data: TrainingData, count: int) -> Iterator[Sample]:
    """Samples of all sources in turn."""
    rng = np.random.default_rng(0)
    given = 0
    for number in range(len(data.sources[0])):
        for source in data.sources:
            try:
                sample = data.reader(source, number, rng)
            except BadSample:
                continue
            yield sample | {"bad": []}
            given += 1
            if given == count:
                return


def _photographs(settings: RegionSettings, count: int) -> Batch:
    """Pixels and sizes of photographs at the largest size that the recipe trains with."""
    short = max(settings.short_sides)
    long = min(settings.longest_side, round(short * PHOTOGRAPH))
    pixels = torch.zeros(count, 3, padded(short), padded(long), dtype=torch.uint8)
    return {"pixels": pixels, "sizes": torch.tensor([[short, long]] * count)}


def _mean_area(short_sides: tuple[int, ...]) -> float:
    """The mean area of pictures by that of the largest."""
    return sum(side**2 for side in short_sides) / len(short_sides) / max(short_sides) ** 2


def _counted(recipe: Recipe, task: Task, data: TrainingData, samples: list[Sample], micro_steps: int) -> Counting:
    """What so many micro-batches of these samples take."""
    # A micro-batch may have a text of the full length, as scenes do not.
    filled = samples[0] | {"mask": torch.ones_like(samples[0]["mask"])}
    batch = data.collate([filled, *samples[1:]])
    if isinstance(recipe.task, RegionSettings):
        batch |= _photographs(recipe.task, len(samples))
    counting = Counting(_large_tensors(task))
    context = precision_context(planned_precision(recipe), torch.device("cpu"))
    with counting:
        forward_backward(task, repeat(batch, micro_steps), micro_steps, 0, context)
    return counting


def planned_precision(recipe: Recipe) -> str:
    """Of the GPUs that are planned for, which have bf16."""
    precision = recipe.runtime.precision
    return "bf16" if precision == "auto" else precision


def _large_tensors(task: nn.Module) -> Iterator[torch.Tensor]:
    """What `Undrawn` has left without values, and all other parameters."""
    yield from task.parameters()
    for buffer in task.buffers():
        if buffer.is_floating_point() and buffer.numel() > Undrawn.LARGE:
            yield buffer
