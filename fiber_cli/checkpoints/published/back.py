"""A checkpoint directory to a file of the published form."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fiber_cli.checkpoints import shipped
from fiber_cli.checkpoints.config import CheckpointConfig, read_config
from fiber_cli.checkpoints.digests import WEIGHTS_FILE, check
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.published.stage import STAGES
from fiber_cli.checkpoints.published.unread import restore_kept
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.errors import UserError, first_names
from fiber_cli.outputs import Outputs
from fiber_cli.printing import say
from fiber_cli.tasks import declared, published_forms
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.declaration import PublishedForm
from fiber_cli.tasks.regions.settings import RegionSettings
from fiber_cli.tasks.vqa.vocabulary import write_vocabulary


def convert_back(source: str | Path, output: Path, *, force: bool = False) -> Path:
    """Write a checkpoint as a file that the published code reads; returns that file.

    source: as for `directory.choose`. output: a `.ckpt`, `.pt` or `.pth` file, in which the state dict stands where the
    published loader of its stage looks for it, or a `.safetensors` file with the state dict alone. The answers of a VQA
    checkpoint go into a JSON file beside it, in the order of the classifier.

    What the published code expects and no pass reads is as it was in the file that `source` was converted from, where
    that is known, else at its first values, which is said. Raises UserError for a checkpoint of a task or with weights
    that the published code does not have.
    """
    checkpoint = resolve(source)
    check(checkpoint)
    config = read_config(checkpoint)
    form = _form_of(config.task.name, checkpoint)
    _refuse_other_passes(config, checkpoint)
    stage = STAGES[form.stage]
    outputs = Outputs(force=force, inputs=checkpoint.rglob("*"))
    answers = output.with_name(f"{output.stem}.answers.json")
    outputs.check(output)
    has_answers = form.labels is not None and config.labels is not None
    if has_answers:
        outputs.check(answers)
    weights = load_weights(checkpoint)
    state = stage.to_published(weights, config.model)
    if not restore_kept(checkpoint.parent.parent, checkpoint / WEIGHTS_FILE, state):
        unread = [key for key in stage.unread(config.model, weights) if key in state]
        say(f"convert: at first values, because no pass reads them: {first_names(unread)}")
    with outputs.writing(output) as temporary:
        _write(temporary, state, stage.wrapper)
    if has_answers:
        write_vocabulary(answers, config.labels or (), outputs)
        say(f"convert: the answers in the order of the classifier: {answers}")
    return output


def _form_of(task: str, checkpoint: Path) -> PublishedForm:
    """A published form of a task's checkpoints. UserError for a task that the published code does not have."""
    for form in declared(task).published_checkpoints.values():
        return form
    others = sorted({declaration.name for declaration, _ in published_forms().values()})
    raise UserError(
        f"{shipped.label(checkpoint)} is a checkpoint of {task}, which the published code does not have; it has "
        f"{', '.join(others)}"
    )


def _refuse_other_passes(config: CheckpointConfig, checkpoint: Path) -> None:
    """UserError for weights of the published names that the published code would compute otherwise with."""
    other = []
    if not config.model.fusion_gate:
        other.append("model.fusion_gate=false")
    if config.model.image.position_embedding:
        other.append("model.position_embedding=true")
    if isinstance(config.task, CaptionSettings) and config.task.form != "seq2seq":
        other.append(f"task.form={config.task.form}")
    if isinstance(config.task, RegionSettings):
        if config.task.head != "atss":
            other.append(f"task.head={config.task.head}")
        if config.task.head_fusion != "none":
            other.append(f"task.head_fusion={config.task.head_fusion}")
    if other:
        raise UserError(
            f"{shipped.label(checkpoint)} was trained with {first_names(other)}, which the published code does not have"
        )


def _write(file: Path, state: dict[str, Tensor], wrapper: str) -> None:
    if file.suffix == ".safetensors":
        save_file(_unshared(state), file)
    else:
        torch.save({wrapper: state}, file)


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """With memory of their own for tensors that share it, such as the equal positions of all blocks."""
    seen: set[int] = set()
    unshared = {}
    for key, value in state.items():
        whole = value.contiguous()
        unshared[key] = whole.clone() if whole.data_ptr() in seen else whole
        seen.add(whole.data_ptr())
    return unshared
