"""`fiber eval` and `fiber rerank`."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NoReturn

import typer

from fiber_cli.characters import says_nothing
from fiber_cli.checkpoints.run_files import EVALUATIONS, run_of
from fiber_cli.cli.options import (
    DATASET_HELP,
    STEM_MEMORY,
    WORKERS,
    DeviceOption,
    EvaluationBatch,
    FittingCheckpoint,
    Force,
    ImagesOfData,
    ItmCheckpoint,
    Latest,
    Limit,
    MaxPixels,
    Nproc,
    PrecisionOption,
    Results,
    Root,
    Split,
    StemMemory,
    Tf32,
    Workers,
    chunk_size,
    whole_numbers,
)
from fiber_cli.cli.processes import hide_gpus, is_first_rank, launch_ranks
from fiber_cli.cli.runs import Models, checkpoint_for, named_for, retrieval_models
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.errors import UserError
from fiber_cli.placement import USUAL, Placement
from fiber_cli.tasks import tasks_with
from fiber_cli.tasks.abilities import Ability, Embedding, Matching

if TYPE_CHECKING:
    from fiber_cli.checkpoints.config import CheckpointConfig
    from fiber_cli.checkpoints.runs import Wanted
    from fiber_cli.evaluation.known import EvalData
    from fiber_cli.outputs import Outputs
    from fiber_cli.settings import SourceSettings
    from fiber_cli.tasks.evaluation import EvaluationOptions

#: Of a commit of the hub, in the names of folders.
_COMMIT_DIGITS = 10


def evaluate(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help=DATASET_HELP)],
    mode: Annotated[
        Literal["itc", "itm", "itc+itm"] | None,
        typer.Option(
            help="Retrieval by dual encoder, fusion, or both.  [default: what the checkpoint was trained for]"
        ),
    ] = None,
    checkpoint: FittingCheckpoint = None,
    itm_checkpoint: ItmCheckpoint = None,
    latest: Latest = False,
    split: Split = None,
    root: Root = None,
    images: ImagesOfData = None,
    published_prompts: Annotated[
        bool, typer.Option("--published-prompts", help="odinw13: the published prompts instead of the names alone.")
    ] = False,
    output: Results = None,
    force: Force = False,
    batch: EvaluationBatch = None,
    workers: Workers = WORKERS,
    limit: Limit = None,
    blind: Annotated[bool, typer.Option("--blind", help="Measure also with every image exchanged.")] = False,
    stem_memory: StemMemory = STEM_MEMORY,
    chunk: Annotated[str, typer.Option(help="Names in one prompt of detection, or auto: as many as fit.")] = "auto",
    ap_library: Annotated[
        str | None,
        typer.Option(help="What computes detection's AP: faster-coco-eval or pycocotools.  [default: the former]"),
    ] = None,
    nproc: Nproc = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    tf32: Tf32 = None,
) -> None:
    """Evaluate a checkpoint on a dataset of its task."""
    from fiber_cli.tasks.evaluation import EvaluationOptions

    evaluated = Evaluated(
        dataset, split, root, checkpoint, itm_checkpoint, latest, output, limit, images, published_prompts, force
    )
    options = EvaluationOptions(
        mode=mode, blind=blind, chunk=chunk_size(chunk), ap_library=ap_library, stem_memory=stem_memory
    )
    placement = Placement(device, precision, tf32)
    run_evaluation(
        context,
        evaluated,
        options,
        batch=batch,
        workers=workers,
        nproc=nproc,
        max_pixels=max_pixels,
        placement=placement,
    )


def rerank(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Argument(help=f"{DATASET_HELP} Or none, with --images.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Search in this folder of images instead; with DATASET, its images.")
    ] = None,
    query: Annotated[str | None, typer.Option(help="What to search for.")] = None,
    queries: Annotated[Path | None, typer.Option(help="A file with one query a line.")] = None,
    top_k: Annotated[
        str, typer.Option(help="How many of the dual encoder's best are scored by fusion; for a dataset several.")
    ] = "50",
    index: Annotated[Path | None, typer.Option(help="Index file.  [default: in the folder]")] = None,
    half_index: Annotated[
        bool, typer.Option("--half-index", help="Keep the index as float16, in half the room.")
    ] = False,
    shown: Annotated[int, typer.Option(min=1, help="Results of each query in the table and on the sheet.")] = 10,
    raw_sum: Annotated[
        bool, typer.Option("--raw-sum", help="Order pictures by cosine plus matched logit, not by both as logits.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Least score of a picture that shows what is searched for.  [default: what validation chose, if any]"
        ),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a picture of the results to this file.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all results as JSON instead of a table.")] = False,
    checkpoint: FittingCheckpoint = None,
    itm_checkpoint: ItmCheckpoint = None,
    latest: Latest = False,
    split: Split = None,
    root: Root = None,
    output: Results = None,
    force: Force = False,
    batch: EvaluationBatch = None,
    workers: Workers = WORKERS,
    limit: Limit = None,
    stem_memory: StemMemory = STEM_MEMORY,
    nproc: Nproc = 1,
    max_pixels: MaxPixels = MAX_PIXELS,
    precision: PrecisionOption = "auto",
    device: DeviceOption = None,
    tf32: Tf32 = None,
) -> None:
    """Retrieve with the dual encoder and re-rank the best by fusion: a dataset's Table 4, or a search in a folder."""
    if query is not None and says_nothing(query):
        raise UserError('--query is empty; say what to search for, such as "a dog on the beach"')
    if dataset:
        _refuse("for a dataset", {"--index": index, "--sheet": sheet, "--raw-sum": raw_sum, "--half-index": half_index})
        _refuse("for a dataset", {"--threshold": threshold is not None})
    else:
        of_dataset = {"--split": split, "--root": root, "--output": output, "--limit": limit}
        _refuse("with --images", of_dataset)
    if threshold is not None and not math.isfinite(threshold):
        raise typer.BadParameter(f"--threshold {threshold}: give a number")
    sizes = whole_numbers(top_k)
    placement = Placement(device, precision, tf32)
    if dataset and not (query or queries):
        from fiber_cli.tasks.evaluation import EvaluationOptions

        evaluated = Evaluated(
            dataset, split, root, checkpoint, itm_checkpoint, latest, output, limit, images, force=force
        )
        options = EvaluationOptions(mode="rerank", rerank=sizes, stem_memory=stem_memory)
        run_evaluation(
            context,
            evaluated,
            options,
            batch=batch,
            workers=workers,
            nproc=nproc,
            max_pixels=max_pixels,
            placement=placement,
            as_json=json,
        )
        return
    if dataset or images is None or (query is None) == (queries is None) or len(sizes) > 1:
        raise typer.BadParameter(
            'give a DATASET; or --images DIR with --query "…" or --queries FILE, and one number as --top-k'
        )
    from fiber_cli.checkpoints.loading import load
    from fiber_cli.checkpoints.runs import Wanted
    from fiber_cli.distributed.agreement import failing_together
    from fiber_cli.distributed.group import init_from_env
    from fiber_cli.distributed.peers import telling_ended_processes
    from fiber_cli.inference.search import outputs_of_search, run_search
    from fiber_cli.tasks.prediction import PredictOptions

    pairs_of = Wanted("ITM", tasks_with(Matching), Matching, option="--itm-checkpoint", latest=latest)
    searching = Wanted("ITC", tasks_with(Embedding), Embedding, latest=latest)
    models = retrieval_models(checkpoint, itm_checkpoint, searching, pairs_of)
    searched = queries or query or ""
    outputs = outputs_of_search(
        images, searched, index, sheet, force=force, inputs=_files_of_models(models, latest=latest)
    )
    hide_gpus(placement.device)
    if nproc > 1:
        _launch_models(context, nproc, models)
    init_from_env()
    with telling_ended_processes():
        with failing_together():
            loaded = load(models.checkpoint, latest=latest)
            itm = load(models.itm_checkpoint, latest=latest) if models.itm_checkpoint else None
        run_search(
            loaded,
            images,
            searched,
            itm=itm,
            top_k=sizes[0],
            index=index,
            shown=shown,
            sheet=sheet,
            as_json=json,
            options=PredictOptions(batch or loaded.declaration.evaluation_batch, workers, max_pixels=max_pixels),
            raw_sum=raw_sum,
            placement=placement,
            threshold=threshold,
            half=half_index,
            outputs=outputs,
        )


def _launch_models(context: typer.Context, nproc: int, models: "Models") -> NoReturn:
    """The same command in that many processes, with the checkpoints that were found."""
    settled = ["--checkpoint", str(models.checkpoint)]
    if models.itm_checkpoint is not None:
        settled += ["--itm-checkpoint", str(models.itm_checkpoint)]
    launch_ranks(context, nproc, *settled)


def _files_of_models(models: Models, *, latest: bool) -> "list[Path]":
    from fiber_cli.checkpoints.files import checkpoint_files

    files = []
    for checkpoint in filter(None, models):
        files += checkpoint_files(checkpoint, latest=latest)
    return files


def _refuse(where: str, options: dict[str, Any]) -> None:
    """Refuses options that mean nothing there."""
    unused = [name for name, value in options.items() if value]
    if unused:
        raise typer.BadParameter(f"{', '.join(unused)}: not {where}")


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


def run_evaluation(
    context: typer.Context,
    evaluated: Evaluated,
    options: "EvaluationOptions",
    *,
    batch: int | None,
    workers: int,
    nproc: int,
    max_pixels: int = MAX_PIXELS,
    placement: Placement = USUAL,
    as_json: bool = False,
) -> None:
    """Find checkpoint and data, start further processes where they are asked for, and hand over."""
    from fiber_cli.checkpoints.config import read_config
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.evaluation.datasets import eval_data
    from fiber_cli.evaluation.report import check_results

    hide_gpus(placement.device)
    models = models_of(evaluated, options.mode)
    path = resolve(models.checkpoint, latest=evaluated.latest)
    itm_path = resolve(models.itm_checkpoint, latest=evaluated.latest) if models.itm_checkpoint else None
    config = read_config(path)
    data = eval_data(
        evaluated.dataset,
        config.task.name,
        evaluated.split,
        evaluated.root,
        images=evaluated.images,
        published_prompts=evaluated.published_prompts,
    )
    mode = options.mode or default_mode(config, itm_path)
    measured = "-".join(filter(None, (data.name, data.split, data.variant, mode)))
    output = evaluated.output or results_folder(measured, path, itm_path, evaluated.limit)
    outputs = _outputs(evaluated, models, data)
    if is_first_rank():
        check_results(output, (), outputs)
    if nproc > 1:
        _launch_models(context, nproc, models)
    from fiber_cli.checkpoints.loading import load
    from fiber_cli.data.sources import open_source
    from fiber_cli.distributed.agreement import failing_together
    from fiber_cli.distributed.group import init_from_env
    from fiber_cli.distributed.peers import telling_ended_processes
    from fiber_cli.distributed.together import locked_by_all
    from fiber_cli.evaluation.evaluate import run_eval
    from fiber_cli.tasks.prediction import PredictOptions

    init_from_env()
    with telling_ended_processes():
        with failing_together():
            loaded = load(models.checkpoint, latest=evaluated.latest)
            itm = load(models.itm_checkpoint, latest=evaluated.latest) if models.itm_checkpoint else None
            sources = [open_source(source, max_pixels=max_pixels) for source in data.sources]
        with locked_by_all(output):
            run_eval(
                sources,
                dataset=data.name,
                split=data.split,
                loaded=loaded,
                itm=itm,
                output=output,
                limit=evaluated.limit,
                options=options,
                predict=PredictOptions(batch or loaded.declaration.evaluation_batch, workers),
                placement=placement,
                as_json=as_json,
                details=data.details,
                notes=data.notes,
                outputs=outputs,
            )


def _outputs(evaluated: Evaluated, models: Models, data: "EvalData") -> "Outputs":
    """What may be replaced: nothing that is read."""
    from fiber_cli.data.source_files import source_files
    from fiber_cli.outputs import Outputs

    files = _files_of_models(models, latest=evaluated.latest)
    return Outputs(force=evaluated.force, inputs=chain(files, [Path(evaluated.dataset)], source_files(data.sources)))


#: What a mode of one half needs; without a mode a checkpoint is evaluated by what it was trained for.
_ABILITIES: dict[str | None, type[Ability] | None] = {"itc": Embedding, "itm": Matching, None: None}


def models_of(evaluated: Evaluated, mode: str | None) -> Models:
    """The checkpoints that are named, and runs for what is missing, as the mode needs them."""
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
