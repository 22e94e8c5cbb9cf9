"""`fiber eval` and `fiber rerank`."""

import math
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NoReturn

import typer

from fiber_cli.characters import says_nothing
from fiber_cli.cli.evaluated import Evaluated, default_mode, models_of, results_folder
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
from fiber_cli.cli.runs import Models, retrieval_models
from fiber_cli.data.source import MAX_PIXELS
from fiber_cli.errors import UserError
from fiber_cli.placement import Placement
from fiber_cli.tasks import tasks_with
from fiber_cli.tasks.abilities import Embedding, Matching

if TYPE_CHECKING:
    from fiber_cli.evaluation.known import EvalData
    from fiber_cli.outputs import Outputs
    from fiber_cli.tasks.evaluation_options import EvaluationOptions


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
    from fiber_cli.tasks.evaluation_options import EvaluationOptions

    evaluated = Evaluated(
        dataset, split, root, checkpoint, itm_checkpoint, latest, output, limit, images, published_prompts, force
    )
    options = EvaluationOptions(
        mode=mode, blind=blind, chunk=chunk_size(chunk), ap_library=ap_library, stem_memory=stem_memory
    )
    computed = Computed(batch, workers, nproc, max_pixels, Placement(device, precision, tf32))
    run_evaluation(context, evaluated, options, computed)


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
        bool | None,
        typer.Option(
            "--half-index/--no-half-index",
            help="Keep the index as float16, in half the room.  [default: as it is, float32 a new one]",
        ),
    ] = None,
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
        _refuse("for a dataset", {"--index": index, "--sheet": sheet, "--raw-sum": raw_sum})
        given = {"--threshold": threshold is not None, "--half-index": half_index is not None}
        _refuse("for a dataset", given)
    else:
        of_dataset = {"--split": split, "--root": root, "--output": output, "--limit": limit}
        _refuse("with --images", of_dataset)
    if threshold is not None and not math.isfinite(threshold):
        raise typer.BadParameter(f"--threshold {threshold}: give a number")
    sizes = whole_numbers(top_k)
    computed = Computed(batch, workers, nproc, max_pixels, Placement(device, precision, tf32))
    if dataset and not (query or queries):
        from fiber_cli.tasks.evaluation_options import EvaluationOptions

        evaluated = Evaluated(
            dataset, split, root, checkpoint, itm_checkpoint, latest, output, limit, images, force=force
        )
        options = EvaluationOptions(mode="rerank", rerank=sizes, stem_memory=stem_memory)
        run_evaluation(context, evaluated, options, computed, as_json=json)
        return
    if dataset or images is None or (query is None) == (queries is None) or len(sizes) > 1:
        raise typer.BadParameter(
            'give a DATASET; or --images DIR with --query "…" or --queries FILE, and one number as --top-k'
        )
    from fiber_cli.inference.picture_files import check_folder

    check_folder(images)
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
    hide_gpus(computed.placement.device)
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
            placement=computed.placement,
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


class Computed(NamedTuple):
    """How it is computed. batch: None for the task's own; workers: readers of each process; nproc: processes;
    max_pixels: of a picture that is read."""

    batch: int | None
    workers: int
    nproc: int
    max_pixels: int
    placement: Placement


def run_evaluation(
    context: typer.Context,
    evaluated: Evaluated,
    options: "EvaluationOptions",
    computed: Computed,
    *,
    as_json: bool = False,
) -> None:
    """Find checkpoint and data, start further processes where they are asked for, and hand over."""
    from fiber_cli.checkpoints.config import read_config
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.evaluation.datasets import eval_data
    from fiber_cli.evaluation.report import check_results

    hide_gpus(computed.placement.device)
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
    if computed.nproc > 1:
        _launch_models(context, computed.nproc, models)
    from fiber_cli.checkpoints.loading import load
    from fiber_cli.data.sources import open_source
    from fiber_cli.data.workers import prepare_workers
    from fiber_cli.distributed.agreement import failing_together
    from fiber_cli.distributed.group import init_from_env
    from fiber_cli.distributed.peers import telling_ended_processes
    from fiber_cli.distributed.together import locked_by_all
    from fiber_cli.evaluation.evaluate import run_eval
    from fiber_cli.tasks import declared
    from fiber_cli.tasks.prediction import PredictOptions

    init_from_env()
    with telling_ended_processes():
        declared(config.task.name).evaluation.load()  # what workers need, too
        prepare_workers(computed.workers)
        with failing_together():
            loaded = load(models.checkpoint, latest=evaluated.latest)
            itm = load(models.itm_checkpoint, latest=evaluated.latest) if models.itm_checkpoint else None
            sources = [open_source(source, max_pixels=computed.max_pixels) for source in data.sources]
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
                predict=PredictOptions(computed.batch or loaded.declaration.evaluation_batch, computed.workers),
                placement=computed.placement,
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
