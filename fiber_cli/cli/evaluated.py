"""What an evaluation is of: which checkpoints, which data, and where its results go."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fiber_cli.checkpoints.run_files import EVALUATIONS, run_of
from fiber_cli.cli.runs import Models, checkpoint_for, named_for, retrieval_models
from fiber_cli.tasks.abilities import Ability, Embedding, Matching

if TYPE_CHECKING:
    from fiber_cli.checkpoints.config import CheckpointConfig
    from fiber_cli.checkpoints.runs import Wanted
    from fiber_cli.settings import SourceSettings

#: Of a commit of the hub, in the names of folders.
_COMMIT_DIGITS = 10


class Evaluated(NamedTuple):
    """What is evaluated on what, and where the results go. checkpoint: None for the newest run that fits;
    itm_checkpoint: scores pairs, if not the same; latest: of runs the latest checkpoint, not the best; limit: of the
    samples of each source; images: where the data set's lie, if not where `root` has them; published_prompts: ODinW's;
    force: whether the results may replace files that fiber did not write; runs: the folder of the runs.
    """

    dataset: str
    split: str | None
    root: Path | None
    checkpoint: str | None
    itm_checkpoint: str | None
    latest: bool
    output: Path | None
    limit: int | None
    images: Path | None = None
    published_prompts: bool = False
    force: bool = False
    runs: Path = Path("runs")


#: What a mode of one half needs; without a mode a checkpoint is evaluated by what it was trained for.
_ABILITIES: dict[str | None, type[Ability] | None] = {"itc": Embedding, "itm": Matching, None: None}


def models_of(evaluated: Evaluated, mode: str | None) -> Models:
    """The checkpoints that are named, and runs for what is missing, as the mode needs them. UserError for a data set
    that is none, before any is looked for."""
    from fiber_cli.evaluation.dataset_forms import check_dataset

    check_dataset(evaluated.dataset)
    checkpoint, itm_checkpoint = evaluated.checkpoint, evaluated.itm_checkpoint
    if mode is None and itm_checkpoint is not None:
        mode = "itc+itm"
    if mode in ("itc+itm", "rerank"):
        itc = _wanted(evaluated, Embedding)
        itm = _wanted(evaluated, Matching)
        return retrieval_models(checkpoint, itm_checkpoint, itc, replace(itm, option="--itm-checkpoint"))
    named_itm = None
    if itm_checkpoint is not None:
        named_itm = named_for(replace(_wanted(evaluated, Matching), option="--itm-checkpoint"), itm_checkpoint)
        if mode == "itm" and checkpoint is None:
            return Models(named_itm)
    return Models(checkpoint_for(_wanted(evaluated, _ABILITIES[mode]), checkpoint), named_itm)


def _wanted(evaluated: Evaluated, ability: type[Ability] | None) -> "Wanted":
    """A run for the data set, by its task or by one half of retrieval."""
    from fiber_cli.checkpoints.runs import Wanted
    from fiber_cli.evaluation.datasets import eval_data, tasks_for

    @cache
    def sources(task: str) -> "Sequence[SourceSettings]":
        return eval_data(evaluated.dataset, task, evaluated.split, evaluated.root, images=evaluated.images).sources

    what = evaluated.dataset
    if ability is not None:
        what = f"{'ITC' if ability is Embedding else 'ITM'} on {evaluated.dataset}"
    return Wanted(
        what,
        tasks_for(evaluated.dataset),
        ability,
        evaluated.dataset,
        sources,
        latest=evaluated.latest,
        runs=evaluated.runs,
    )


def results_folder(measured: str, path: Path, itm_path: Path | None, limit: int | None) -> Path:
    """Where results go by default, under a name that tells what was measured and how: in the checkpoint's run; of one
    that stands alone, whose folder holds its own files only, below the current folder."""
    name = f"{measured}-{_name_of(path)}"
    if itm_path is not None:
        name += f"-{_name_of(run_of(itm_path) or itm_path)}"
    if limit:
        name += f"-first{limit}"
    return (run_of(path) or Path()) / EVALUATIONS / name


def _name_of(checkpoint: Path) -> str:
    """A checkpoint's or run's name as part of a folder's."""
    from fiber_cli.checkpoints.hub_names import snapshot
    from fiber_cli.checkpoints.shipped import BUILTIN, is_shipped

    if is_shipped(checkpoint):
        return f"{BUILTIN}-{checkpoint.name}"
    of_hub = snapshot(checkpoint)
    if of_hub is not None:
        return f"{of_hub.repository.replace('/', '-')}-{(of_hub.revision or '')[:_COMMIT_DIGITS]}"
    return checkpoint.name


def default_mode(config: "CheckpointConfig", itm_path: Path | None) -> str:
    """How a checkpoint is evaluated where no mode is named, as the results folder has it: retrieval by what it was
    trained for, else its task. itm_path: of what scores pairs, if another checkpoint."""
    from fiber_cli.checkpoints.runs import can

    if itm_path is not None:
        return "itc+itm"
    if can(config, Embedding):
        return "itc"
    return "itm" if can(config, Matching) else config.task.name
