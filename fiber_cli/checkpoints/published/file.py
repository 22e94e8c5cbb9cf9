"""A published checkpoint file to a checkpoint directory."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fiber_cli.checkpoints import directory, saving
from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.digests import WEIGHTS_FILE
from fiber_cli.checkpoints.loading import new_task
from fiber_cli.checkpoints.positions import window_of
from fiber_cli.checkpoints.published.output import check_output, put_in_place, tokenizer_files
from fiber_cli.checkpoints.published.stage import STAGES, StageName
from fiber_cli.checkpoints.published.unread import differing, narrow_types, write_kept
from fiber_cli.checkpoints.published.wrapping import own_entries
from fiber_cli.checkpoints.unfilled import without_weights
from fiber_cli.checkpoints.weights import read_torch_file
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError, first_names
from fiber_cli.model.config import BASE, FiberConfig
from fiber_cli.outputs import Outputs, explained
from fiber_cli.printing import say
from fiber_cli.tasks import published_forms
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.vqa.vocabulary import read_vocabulary

#: Pixels along a side of an image for each cell along a side of the windows: of the base model at every image size.
PIXELS_PER_CELL = 32


def convert_file(
    source: Path, output: Path, *, task: str, tokenizer: str, answers: Path | None = None, force: bool = False
) -> Path:
    """Write a published FIBER-B checkpoint file as a checkpoint directory below `output`; returns that directory.

    task: a kind of published checkpoint, see `tasks.published_forms`. The image size follows from the position-bias
    tables (32 pixels a window cell). answers: VQA's vocabulary, in the order of the classifier. force: also beside
    files that no conversion wrote. What has no place in our weights is said with the reason, and what of it
    `back.convert_back` could not know is kept beside the checkpoint.

    Raises UserError for a file that is not such a checkpoint, listing what does not fit, and, before it is read, for an
    `output` that holds something else than an earlier conversion.
    """
    directory.check_name(output)
    read = [source, *tokenizer_files(tokenizer)]
    if answers:
        read.append(answers)
    outputs = Outputs(force=force, inputs=read)
    check_output(output, outputs)
    declaration, form = published_forms()[task]
    stage = STAGES[form.stage]
    entries = own_entries(read_torch_file(source), stage.landmark)
    state = entries.state
    context = TaskContext(
        settings=declaration.settings(name=declaration.name, **form.settings),
        model=_model_config(source, state, form.stage),
        tokenizer=load_tokenizer(tokenizer),
        text_length=form.text_length,
    )
    if form.labels is not None:
        labels = _vocabulary(source, state.get(form.labels), answers)
        context = dataclasses.replace(context, labels=labels)
    with without_weights():
        expected = dict(new_task(context).named_parameters())
    weights = stage.from_published(state, context.model, expected)
    _check_shapes(source, weights, expected)
    back = stage.to_published(weights, context.model)
    kept = differing(state, back, stage.unread(context.model, expected))
    types = narrow_types(state, back.keys() - kept.keys())
    config = CheckpointConfig(context.model, context.settings, context.text_length, context.labels, tokenizer)
    with outputs.staging(output) as staging:
        try:
            made = saving.save(staging, 0, config=config.to_json(), weights=weights, tokenizer=context.tokenizer)
        except saving.NotWritten as error:  # there is no run to continue
            raise UserError(f"{output}: cannot be written ({error.problem}); what was there is untouched") from error
        with explained(output):
            write_kept(staging, made / WEIGHTS_FILE, kept, types)
        final = put_in_place(made, output, outputs)
    _say_left_out({**entries.left_out, **stage.reasons(state, context.model, expected)})
    return final


def _say_left_out(reasons: Mapping[str, str]) -> None:
    """A line for every reason why entries of the file are not among the weights."""
    keys_of: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        keys_of.setdefault(reason, []).append(key)
    for reason, keys in keys_of.items():
        say(f"convert: not among the weights: {first_names(keys, limit=2)}: {reason}")


def _model_config(source: Path, state: Mapping[str, Tensor], stage: StageName) -> FiberConfig:
    """The sizes of the model in a published state dict of a stage."""
    table = state.get(STAGES[stage].landmark)
    if table is None:
        raise UserError(f"{source}: not a published {stage}-stage FIBER checkpoint: it has no {stage} image tower")
    side = PIXELS_PER_CELL * window_of(table)
    config = BASE.at_image_size((side, side))
    if stage == "coarse":
        return config
    image = dataclasses.replace(config.image, fixed_window=True)
    has_norm = any("norm_i2t_i" in key for key in state)
    return dataclasses.replace(config, image=image, norm_image_query=has_norm)


def _vocabulary(source: Path, classifier: Tensor | None, answers: Path | None) -> tuple[str, ...]:
    """The answers of a VQA classifier; UserError where their number is not that of its outputs."""
    if answers is None:
        raise UserError("a VQA checkpoint needs its vocabulary: make it with `fiber vqa-answers`, give it as --answers")
    labels = read_vocabulary(answers)
    outputs = 0 if classifier is None else len(classifier)
    if outputs != len(labels):
        raise UserError(f"{answers} has {len(labels)} answers, the classifier of {source} has {outputs}")
    return tuple(labels)


def _check_shapes(source: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    misfits = []
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            misfits.append(f"{name} {tuple(tensor.shape)} for {tuple(expected[name].shape)}")
    if misfits:
        raise UserError(f"{source}: not of the base model's sizes: {first_names(misfits)}")
