"""Starting weights of the two towers: ImageNet Swin in timm's form, RoBERTa in transformers' form."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from fiber_cli.checkpoints.directory import fit_position_biases, load_into, read_tensors
from fiber_cli.checkpoints.published import COARSE, read_official, rename
from fiber_cli.errors import UserError
from fiber_cli.model.fusion import FusedEncoder

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pt")

_TEXT = {
    theirs.removeprefix("text_transformer."): ours.removeprefix("encoder.")
    for theirs, ours in COARSE.items()
    if theirs.startswith("text_transformer.") and "t2i" not in theirs
}


def load_swin(encoder: FusedEncoder, source: str) -> None:
    """Fill the image tower from a timm Swin: a timm model name (downloaded from the hub), a weights file, or a folder
    with one. Position-bias tables of another window are resized; cross-attention keeps its own start.

    Raises UserError where nothing can be read or the sizes differ.
    """
    state = _local_weights(source)
    if state is None:
        import timm

        if not timm.is_model(source):
            raise UserError(
                f"model.swin={source}: neither a file, a folder, nor a timm model name "
                "(the paper's is swin_base_patch4_window12_384.ms_in22k; null starts at random)"
            )
        with _download("model.swin", f"timm/{source}"), torch.device("cpu"):
            state = timm.create_model(source, pretrained=True, num_classes=0).state_dict()
    weights = {}
    for key, tensor in state.items():
        if key.endswith(("relative_position_index", "attn_mask")) or key.startswith("head."):
            continue
        # timm holds the merging at the start of the next stage, we at the end of this one.
        key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"stages.{int(m[1]) - 1}.merge", key)
        key = re.sub(r"^layers\.", "stages.", key)
        weights[f"image.{key}"] = tensor.float()
    _fill(encoder, fit_position_biases(weights, encoder), "image.", f"Swin weights {source}", "model.swin")


def load_roberta(encoder: FusedEncoder, source: str) -> None:
    """Fill the text tower from a RoBERTa: a hub name, a weights file, or a folder in transformers' form.

    Raises UserError where nothing can be read or the sizes differ.
    """
    state = _local_weights(source)
    if state is None:
        from transformers import RobertaModel

        with _download("model.roberta", source):
            state = RobertaModel.from_pretrained(source, add_pooling_layer=False).state_dict()
    weights = {}
    for key, tensor in state.items():
        key = key.removeprefix("roberta.")
        if (name := rename(key, _TEXT)) is not None:
            weights[name] = tensor.float()
    _fill(encoder, weights, "text.", f"RoBERTa weights {source}", "model.roberta")


def _fill(encoder: FusedEncoder, weights: dict[str, Tensor], tower: str, what: str, setting: str) -> None:
    if not weights:
        raise UserError(f"{what}: no tensor of a known name in it; {setting} wants a model of that family")
    names = [name for name, _ in encoder.named_parameters()]
    fresh = [name for name in names if not name.startswith(tower) or ".cross." in name]
    try:
        load_into(encoder, weights, expect_missing=fresh)
    except UserError as error:
        raise UserError(f"{what} ({setting}): {error}") from error


def _local_weights(source: str) -> dict[str, Tensor] | None:
    """Tensors of a local file or folder; None when `source` names neither."""
    path = Path(source)
    if path.is_dir():
        files = [path / name for name in WEIGHT_FILES if (path / name).is_file()]
        if not files:
            raise UserError(f"{path}: holds none of {', '.join(WEIGHT_FILES)}")
        path = files[0]
    elif not path.is_file():
        return None
    if path.suffix == ".safetensors":
        return read_tensors(path)
    return read_official(path)


@contextmanager
def _download(setting: str, repository: str) -> Iterator[None]:
    """Inside, weights come from the hub; UserError that says how to do without where they do not."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{setting}: {repository} could not be fetched from the Hugging Face hub "
            f"({str(error).splitlines()[0][:200]}); without a connection, run `hf download {repository}` on a machine "
            f"that has one and set {setting} to that folder, or set {setting}=null to start from random weights"
        ) from error
