"""Starting weights of the two towers: ImageNet Swin in timm's form, RoBERTa in transformers' form, or the towers of a
checkpoint of fiber's."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from fiber_cli.checkpoints.positions import POSITION_EMBEDDING, fit_positions
from fiber_cli.checkpoints.published.names import rename
from fiber_cli.checkpoints.published.towers import ROBERTA
from fiber_cli.checkpoints.weights import load_into, read_tensors, read_torch_file
from fiber_cli.data.files import expecting, read_json
from fiber_cli.data.values import some_text
from fiber_cli.errors import UserError
from fiber_cli.model.fusion import FusedEncoder

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pt")
#: What is fetched from the hub, the second where there is nothing of the first.
HUB_FILES = (("model.safetensors*", "model-*.safetensors"), ("pytorch_model.bin*", "pytorch_model-*.bin"))
#: The name of a repository with its owner's.
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")
#: The norm behind a Swin's last stage.
LAST_NORM = "image.norm"
#: In the names of what a tower looks at the other one with.
CROSS = ".cross."


def swin_shapes(source: str) -> Mapping[str, Tensor]:
    """The tensors of a Swin by name, or others of their shapes: a timm model's need not be fetched. Raises UserError as
    `load_swin` does."""
    local = _local_weights(source)
    if local is not None:
        return local
    name = _timm_name(source)
    if name is None:
        return _hub_weights("model.swin", source)
    import timm

    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, num_classes=0).state_dict()


def local_roberta(source: str) -> dict[str, Tensor]:
    """The tensors of a file, or of a folder. Raises UserError where there are none."""
    weights = _local_weights(source)
    assert weights is not None, source
    return weights


def load_swin(encoder: FusedEncoder, source: str) -> None:
    """Fill the image tower from a timm Swin: a timm or hub name (downloaded from the hub), a weights file, or a folder
    with one. Position-bias tables of another window are resized; cross-attention keeps its own start, and the last norm
    is left out where the encoder has none, as under a detector, which norms every stage by itself.

    Raises UserError where nothing can be read or the sizes differ.
    """
    state = _local_weights(source)
    if state is None:
        state = _fetched_swin(source)
    # Microsoft's own files hold a merging at the end of its stage, as we do, timm's at the start of the next.
    merges_at_end = any(key.startswith("layers.0.downsample.") for key in state)
    weights = {}
    for key, tensor in state.items():
        derived = key.endswith(("relative_position_index", "attn_mask"))
        if not derived and not key.startswith("head."):
            weights[f"image.{_swin_name(key, merges_at_end)}"] = tensor.float()
    fitted = fit_positions(weights, encoder)
    _fill(
        encoder,
        fitted,
        tower="image.",
        title=f"Swin weights {source}",
        setting="model.swin",
        without_place=(f"{LAST_NORM}.",),
    )


def _timm_name(source: str) -> str | None:
    """The timm model that is meant, by its name or by that of its repository; None for a repository of another owner.
    Raises UserError for what names neither."""
    import timm

    name = source.removeprefix("hf-hub:").removeprefix("timm/")
    if REPOSITORY.fullmatch(name):
        return None
    if "/" in name or not timm.is_model(name):
        raise UserError(
            f"model.swin={source}: neither a file, a folder, a timm model name nor a repository of the hub "
            "(the paper's is swin_base_patch4_window12_384.ms_in22k; null starts at random)"
        )
    return name


def _fetched_swin(source: str) -> dict[str, Tensor]:
    name = _timm_name(source)
    if name is None:
        return _hub_weights("model.swin", source)
    import timm

    with _download("model.swin", f"timm/{name}"), torch.device("cpu"):
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()


def _swin_name(key: str, merges_at_end: bool) -> str:
    """Our name of a Swin's parameter. merges_at_end: a merging stands in the stage that it ends, as ours does, not in
    the next one."""
    merging = re.match(r"layers\.(\d+)\.downsample", key)
    if merging is not None:
        stage = int(merging[1]) - (0 if merges_at_end else 1)
        return f"stages.{stage}.merge{key[merging.end() :]}"
    return re.sub(r"^layers\.", "stages.", key)


def load_roberta(encoder: FusedEncoder, source: str) -> None:
    """Fill the text tower from a RoBERTa: a hub name, a weights file, or a folder in transformers' form.

    Raises UserError where nothing can be read or the sizes differ.
    """
    state = _local_weights(source)
    if state is None:
        state = _hub_weights("model.roberta", source)
    weights = {}
    for key, tensor in state.items():
        name = rename(key.removeprefix("roberta."), ROBERTA)
        if name is not None:
            weights[f"text.{name}"] = tensor.float()
    _fill(encoder, weights, tower="text.", title=f"RoBERTa weights {source}", setting="model.roberta")


def fetched_file(name: str, file: str) -> Path:
    """A file of a text model on the hub, downloaded or from its cache. Raises UserError."""
    from huggingface_hub import hf_hub_download

    with _download("model.roberta", name):
        return Path(hf_hub_download(name, file))


def _hub_weights(setting: str, source: str) -> dict[str, Tensor]:
    """The weights alone: what else lies beside them on the hub, such as settings that name code, is not fetched."""
    from huggingface_hub import snapshot_download

    name = source.removeprefix("hf-hub:")
    for patterns in HUB_FILES:
        with _download(setting, name):
            folder = Path(snapshot_download(name, allow_patterns=list(patterns)))
        if _has_weights(folder):
            break
    return _weights_below(folder)


def load_towers(encoder: FusedEncoder, weights: Mapping[str, Tensor], source: str) -> None:
    """Fill both towers from the weights of a task, by name, of which fusion is left out: how the towers look at each
    other keeps its own start, whatever they were trained with. Position-bias tables of another window are resized.
    Raises UserError where the sizes differ."""
    for tower in ("image.", "text."):
        prefix = f"encoder.{tower}"
        own = {}
        for name, tensor in weights.items():
            if name.startswith(prefix) and CROSS not in name:
                own[name.removeprefix("encoder.")] = tensor
        fitted = fit_positions(own, encoder)
        title = f"the {tower[:-1]} tower of {source}"
        _fill(encoder, fitted, tower=tower, title=title, setting="model.towers", without_place=(f"{LAST_NORM}.",))


def _fill(
    encoder: FusedEncoder,
    weights: Mapping[str, Tensor],
    *,
    tower: str,
    title: str,
    setting: str,
    without_place: tuple[str, ...] = (),
) -> None:
    """Copy the weights of one tower, all of it but its cross-attention and the embedding of positions. without_place:
    beginnings of names that not every encoder has."""
    names = [name for name, _ in encoder.named_parameters()]
    if weights.keys().isdisjoint(names):
        raise UserError(f"{title}: no tensor of a known name in it; {setting} wants a model of that family")
    fresh = [name for name in names if not name.startswith(tower) or CROSS in name or name == POSITION_EMBEDDING]
    try:
        load_into(encoder, weights, expect_missing=fresh, expect_unexpected=without_place)
    except UserError as error:
        raise UserError(f"{title} ({setting}): {error}") from error


def _local_weights(source: str) -> dict[str, Tensor] | None:
    """Tensors of a local file or folder; None when `source` names neither."""
    path = Path(source)
    if not path.is_dir():
        return _tensors(path) if path.is_file() else None
    return _weights_below(path)


def _weights_below(folder: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        weights |= _tensors(file)
    return weights


def _has_weights(folder: Path) -> bool:
    return any((folder / f"{name}{ending}").is_file() for name in WEIGHT_FILES for ending in ("", ".index.json"))


def _tensors(file: Path) -> dict[str, Tensor]:
    return read_tensors(file) if file.suffix == ".safetensors" else read_torch_file(file)


def _weight_files(folder: Path) -> list[Path]:
    """The file with a folder's weights, or all that its index names."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            content = read_json(index, "an index of weights")
            with expecting(index, "an index of weights"):
                parts = {Path(some_text(part, "a part")).name for part in content["weight_map"].values()}
            return [folder / part for part in sorted(parts)]
    raise UserError(f"{folder}: holds none of {', '.join(WEIGHT_FILES)}")


@contextmanager
def _download(setting: str, repository: str) -> Iterator[None]:
    """Inside, weights come from the hub; UserError that says how to do without where they do not."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{setting}: {repository} could not be fetched from the Hugging Face hub "
            f"({reason}); without a connection, run `hf download {repository}` on a machine "
            f"that has one and set {setting} to that folder, or set {setting}=null to start from random weights"
        ) from error
