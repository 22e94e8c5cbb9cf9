"""What tells a checkpoint from others without reading all of it."""

from pathlib import Path

from fiber_cli.data.identity import file_identity


def checkpoint_identity(checkpoint: Path) -> str:
    """The name of a checkpoint directory with the sizes and digests of its configuration and weights, the same for
    copies of one. Raises OSError."""
    of_files = [file_identity(checkpoint / name) for name in ("config.json", "model.safetensors")]
    return f"{checkpoint.name} ({'; '.join(of_files)})"
