"""The checkpoints that ship with the package, `builtin` wherever a checkpoint is asked for.

fiber_cli/builtin/
  <name>/         a checkpoint directory without state/, its weights in float16
  MODEL_CARD.md   what they were trained on and what they are measured to do

`builtin/<name>` names one; `builtin` alone is the one that can do what a command asks (`runs.choose_shipped`). They are
known by what lies in the folder, and no list of their names is kept elsewhere. Loads no torch.
"""

import math
import os
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from fiber_cli.checkpoints.config import CONFIG_FILE, CheckpointConfig, read_config
from fiber_cli.checkpoints.hub_names import snapshot
from fiber_cli.errors import UserError, first_names
from fiber_cli.regular_files import check_regular
from fiber_cli.text_files import read_text

#: The word for all of them, with which the name of one begins.
BUILTIN = "builtin"
#: Where they lie.
FOLDER = Path(__file__).parents[1] / BUILTIN
CARD = "MODEL_CARD.md"
#: What is said of each that is used, and of what it was trained on.
KNOWS = "shipped with fiber, trained on drawn scenes only"


class Described(NamedTuple):
    """A shipped checkpoint without its weights. parameters: numbers in them; size: bytes of all its files."""

    name: str
    config: CheckpointConfig
    parameters: int
    size: int


def folder() -> Path:
    """The folder of the shipped checkpoints."""
    return FOLDER


def names() -> list[str]:
    """Those that are there, as they are written where a checkpoint is asked for; none where nothing ships."""
    if not folder().is_dir():
        return []
    checkpoints = [path for path in sorted(folder().iterdir()) if (path / CONFIG_FILE).is_file()]
    return [f"{BUILTIN}/{path.name}" for path in checkpoints]


def name_in(path: str | Path) -> str | None:
    """What follows `builtin/` in a name of shipped checkpoints, "" for `builtin` itself; None for any other path, such
    as ./builtin.

    UserError where something of that name lies in the current folder too: neither is taken for the other.
    """
    text = path if isinstance(path, str) else path.as_posix()
    parts = Path(text).parts
    if text.startswith(".") or len(parts) > 2 or not parts or parts[0] != BUILTIN:
        return None
    local = Path(*parts)
    if os.path.lexists(local) and local.resolve() != folder().joinpath(*parts[1:]).resolve():
        others = [name for name in names() if not os.path.lexists(name)]
        mend = f", or one of fiber's own ({first_names(others)})" if others else ""
        raise UserError(
            f"{local}: fiber's own checkpoints are called so, and something of that name is here; name "
            f"{local.absolute()} for what is here{mend}"
        )
    return parts[1] if len(parts) == 2 else ""


def directory_of(name: str | Path) -> Path:
    """The checkpoint directory of a name, there or not."""
    return folder() / Path(name).name


def find(name: str) -> Path:
    """The checkpoint directory of what `name_in` gives. UserError that lists what there is for a name of none, and for
    "", where nothing says which of them is asked for."""
    refuse_none()
    if not name:
        raise UserError(f"{BUILTIN} alone does not say which of the shipped checkpoints; name one:", *in_words())
    if f"{BUILTIN}/{name}" not in names():
        raise UserError(f"no checkpoint {BUILTIN}/{name} is shipped; name one of:", *in_words())
    return directory_of(name)


def refuse_none() -> None:
    """UserError where nothing ships."""
    if not names():
        raise UserError(f"{none_ships()}; name a checkpoint or a run of yours")


def none_ships() -> str:
    """That nothing does, in words."""
    return f"this fiber ships no checkpoints: {folder()} has none"


def in_words() -> list[str]:
    """Their names and tasks, a line each."""
    lines = []
    for name in names():
        try:
            task = read_config(directory_of(name)).task.name
            lines.append(f"{name} is a checkpoint of {task}")
        except UserError as error:
            lines.append(error.message)
    return lines


def is_shipped(checkpoint: Path) -> bool:
    """Whether a checkpoint directory is one of them."""
    return checkpoint.resolve().parent == folder().resolve()


def label(checkpoint: Path) -> str:
    """How a checkpoint directory, or a run, is called in words: one of these by its name, one of the hub by its name
    there and its commit, any other by its path."""
    if is_shipped(checkpoint):
        return f"{BUILTIN}/{checkpoint.resolve().name}"
    return str(snapshot(checkpoint) or checkpoint)


def describe(name: str) -> Described:
    """One of `names`. Raises UserError where it is damaged."""
    checkpoint = directory_of(name)
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    size = sum(file.stat().st_size for file in files)
    return Described(name, read_config(checkpoint), parameters(checkpoint / "model.safetensors"), size)


def parameters(file: Path) -> int:
    """Numbers in a safetensors file, of which its header alone is read."""
    try:
        check_regular(file)
        with safe_open(file, framework="numpy") as stored:
            return sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}); install fiber again") from error


def card() -> str:
    """The model card; "" where there is none."""
    file = folder() / CARD
    return read_text(file) if file.is_file() else ""
