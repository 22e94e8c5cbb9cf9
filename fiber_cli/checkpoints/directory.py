"""Checkpoint directories: written whole or not at all, read strictly and without an unpickler.

run/checkpoints/step-000400/
  config.json        format version, model, task, preprocessing, labels, tokenizer name
  model.safetensors  consolidated float32 weights, no tied duplicates
  tokenizer/         the tokenizer's own files
  state/             only for resuming; written by the engine
run/checkpoints/latest   names the newest complete one
run/checkpoints/best     names the best one by the run's metric, where the recipe keeps it
"""

import json
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from fiber_cli.distributed import collectives as dist
from fiber_cli.errors import UserError

FORMAT = 1
POSITION_BIAS = "relative_position_bias_table"


def save(
    run_dir: Path,
    step: int,
    *,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    tokenizer: Any,
    write_state: Callable[[Path], None] | None = None,
) -> Path:
    """Write `run_dir`/checkpoints/step-NNNNNN and move `latest` to it. Every rank calls this.

    Rank 0 writes `config` (plus the format version), `weights` and `tokenizer` (anything with
    `save_pretrained`, or None); `write_state` runs on every rank with the state/ folder. A failed write on
    any rank removes what was written and raises UserError on all; earlier checkpoints stay as they are.
    """
    folder = Path(run_dir) / "checkpoints"
    final = folder / step_name(step)
    temporary = folder / f".{final.name}.tmp"

    def write_model() -> None:
        shutil.rmtree(temporary, ignore_errors=True)
        (temporary / "state").mkdir(parents=True)
        text = json.dumps({"format": FORMAT, **config}, indent=2, ensure_ascii=False)
        (temporary / "config.json").write_text(text + "\n", encoding="utf-8")
        (temporary / "model.safetensors").write_bytes(to_bytes(float32(weights), {"format": "pt"}))
        if tokenizer is not None:
            tokenizer.save_pretrained(str(temporary / "tokenizer"))

    def publish() -> None:
        for path in temporary.rglob("*"):
            _sync(path)
        # A directory of this name is left over from a run that was resumed from an earlier step.
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _sync(folder)
        replace(folder / "latest", final.name + "\n")

    def together(action: Callable[[], Any], *, ranks: str = "first") -> None:
        """Run `action` on the first rank or on all; an OSError on any of them ends the save on every rank."""
        problem = None
        try:
            if ranks == "all" or dist.is_main():
                action()
        except OSError as error:
            problem = f"{error.strerror or error} ({error.filename or temporary})"
        problems = [p for p in dist.gather_objects(problem) if p]
        if problems:
            if dist.is_main():
                shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(
                f"checkpoint of step {step} could not be written: {problems[0]}; free some space, then "
                f"continue with --resume. Earlier checkpoints in {folder} are untouched"
            )

    together(write_model)
    if write_state is not None:
        together(lambda: write_state(temporary / "state"), ranks="all")
    together(publish)
    return final


def step_name(step: int) -> str:
    return f"step-{step:06d}"


def steps(run_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = (Path(run_dir) / "checkpoints").glob("step-*")
    return sorted((p for p in found if (p / "config.json").is_file()), key=lambda p: int(p.name.removeprefix("step-")))


def float32(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, floating point as float32."""
    return {
        name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in weights.items()
    }


def replace(file: Path, content: str | bytes) -> None:
    """Write a file so that a kill or a crash leaves the old or the new one."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    _sync(temporary)
    temporary.replace(file)
    _sync(file.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def resolve(path: str | Path) -> Path:
    """The checkpoint directory meant by `path`: itself, or the one that a checkpoints folder's or a run's
    `latest` names, or that the file `latest` or `best` itself names. UserError where there is none."""
    path = Path(path)
    if (path / "config.json").is_file():
        return path
    for pointer in (path, path / "latest", path / "checkpoints" / "latest"):
        if pointer.is_file() and pointer.name in ("latest", "best"):
            target = pointer.parent / pointer.read_text(encoding="utf-8").strip()
            if (target / "config.json").is_file():
                return target
            have = ", ".join(p.name for p in steps(pointer.parent.parent)) or "none"
            raise UserError(f"{pointer} names {target.name}, which is not there; complete checkpoints: {have}")
    what = "holds no checkpoint" if path.exists() else "does not exist"
    raise UserError(
        f"{path} {what}; give a step directory (with config.json), a checkpoints folder or a run's --output"
    )


def load_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint directory."""
    file = Path(path) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}; is {path} a checkpoint directory?") from error
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}); use another checkpoint of the run") from error
    version = config.get("format") if isinstance(config, dict) else None
    if version != FORMAT:
        raise UserError(f"{file} has format version {version!r}, not {FORMAT}; use the program version that wrote it")
    return config


def load_weights(path: Path) -> dict[str, Tensor]:
    """model.safetensors of a checkpoint directory: parameter name → tensor on the CPU."""
    return read_tensors(Path(path) / "model.safetensors")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{file} cannot be read ({error}): it is missing, damaged or was copied only in part; "
            "copy the whole folder again or use another one"
        ) from error


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, a tied one once; what `save` writes and `load_into`
    fills."""
    found: dict[int, str] = {}
    state = module.state_dict(keep_vars=True)
    for name, value in state.items():
        found.setdefault(id(value), name)
    return {name: state[name] for name in found.values()}


def load_into(
    module: nn.Module,
    weights: dict[str, Tensor],
    *,
    expect_missing: Collection[str] = (),
    expect_unexpected: Collection[str] = (),
) -> tuple[list[str], list[str]]:
    """Copy `weights` into `module`, strictly.

    Every key must be on both sides with the same shape, except names that start with one of the given
    prefixes: `expect_missing` keep the module's values, `expect_unexpected` are left out; returned are the names of
    these two kinds. UserError lists all that differs beyond them, and then nothing has been copied.
    """
    own = named_weights(module)
    fresh, dropped = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    missing = [name for name in fresh if not name.startswith(tuple(expect_missing))]
    unexpected = [name for name in dropped if not name.startswith(tuple(expect_unexpected))]
    common = sorted(own.keys() & weights.keys())
    mismatched = [k for k in common if own[k].shape != weights[k].shape]
    if missing or unexpected or mismatched:
        lines = [f"missing: {key} {tuple(own[key].shape)}" for key in missing]
        lines += [f"unexpected: {key} {tuple(weights[key].shape)}" for key in unexpected]
        lines += [
            f"shape: {key} {tuple(weights[key].shape)} in the weights, {tuple(own[key].shape)} in the model"
            for key in mismatched
        ]
        raise UserError(
            f"the weights do not fit the model: {len(missing)} missing, {len(unexpected)} unexpected, "
            f"{len(mismatched)} of another shape; set the model section as it was when they were trained\n  "
            + "\n  ".join(lines)
        )
    with torch.no_grad():
        for key in common:
            own[key].copy_(weights[key])
    return fresh, dropped


def resize_position_bias(table: Tensor, window: int) -> Tensor:
    """A Swin relative-position-bias table ((2a-1)², heads) for windows of `window` × `window` tokens.

    Bicubic over the (2a-1) × (2a-1) offsets, as the published code does when the image size changes.
    """
    before = round(table.shape[0] ** 0.5)
    assert before * before == table.shape[0], table.shape
    grid = table.T.reshape(1, -1, before, before).float()
    after = 2 * window - 1
    resized = F.interpolate(grid, size=(after, after), mode="bicubic", align_corners=False)
    return resized.reshape(-1, after * after).T.to(table.dtype).contiguous()


def fit_position_biases(weights: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """`weights` with the position-bias tables resized to the module's windows; the rest as it is."""
    own = named_weights(module)

    def fit(name: str, value: Tensor) -> Tensor:
        if not name.endswith(POSITION_BIAS) or name not in own or own[name].shape[0] == value.shape[0]:
            return value
        return resize_position_bias(value, (round(own[name].shape[0] ** 0.5) + 1) // 2)

    return {name: fit(name, value) for name, value in weights.items()}


def prune(run_dir: Path, keep_last: int, best: str | None) -> None:
    """Delete all but the newest `keep_last` checkpoints, the one that `latest` names and `best` (a name or
    None)."""
    folder = Path(run_dir) / "checkpoints"
    kept = {path.name for path in steps(run_dir)[-max(1, keep_last) :]} | {best, resolve(folder).name}
    for path in steps(run_dir):
        if path.name not in kept:
            # Without its config.json a half-deleted directory no longer passes for a checkpoint.
            (path / "config.json").unlink()
            shutil.rmtree(path)
    for leftover in folder.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
