"""Whether there are weights in a checkpoint directory, as far as that shows without them. Loads no torch."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from fiber_cli.errors import UserError
from fiber_cli.regular_files import check_regular


def check_weights(path: Path) -> None:
    """Raises UserError where model.safetensors of a checkpoint directory is missing, cut short or has no readable
    header; its tensors are not read."""
    file = Path(path) / "model.safetensors"
    try:
        check_regular(file)
        with safe_open(file, framework="numpy"):
            pass  # its header has been read, and its length is what the header says
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> UserError:
    """Of a file of weights."""
    return UserError(
        f"{file} cannot be read ({error}): it is missing, damaged or was copied only in part; "
        "copy the whole folder again or use another one"
    )
