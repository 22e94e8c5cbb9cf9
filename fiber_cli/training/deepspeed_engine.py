"""DeepSpeed: the one file that imports it, and all that is done around its faults.

`PRIVATE_NAMES` lists every name that is read or replaced here without being documented. Where a version of DeepSpeed
moves one, `tests/training/test_deepspeed_engine.py` says which; pyproject.toml asks for the versions that were tried.
"""

import copy
import errno
import logging
import math
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fiber_cli.outputs import write_problem
from fiber_cli.settings import RecipeError
from fiber_cli.training.optim import Group

TAG = "deepspeed"
#: Where fp16's loss scale starts; halved when gradients overflow, doubled after 1,000 steps without.
LOSS_SCALE = 2.0**16
SCALE_WINDOW = 1000

#: Oldest and newest version with which all of `PRIVATE_NAMES` was tried and found right. 0.19.7 has the names, but
#: under ZeRO it applies fp16 steps whose gradients overflow; 0.19.0 wants an entry of `__compatible_ops__`.
TRIED_VERSIONS = ("0.19.8", "0.19.8")
#: Owners of names beside modules and classes: the first object that `deepspeed.initialize` returns, and its
#: optimiser at ZeRO stages 1 to 3.
ENGINE = "engine"
ZERO_OPTIMIZER = "engine.optimizer under ZeRO"


class PrivateName(NamedTuple):
    """A name of DeepSpeed that its documentation does not have.

    owner: a module, a class as `module:Class`, or `ENGINE` or `ZERO_OPTIMIZER`. form: the parameters of a function or
    class, "(self, path)", else the types that the value may have, "NoneType | GradScaler". reason: what is done with it
    and why. tried: the oldest and the newest version of DeepSpeed with which it was as it says.
    """

    owner: str
    name: str
    form: str
    reason: str
    tried: tuple[str, str] = TRIED_VERSIONS


_DEEPSPEED_ENGINE = "deepspeed.runtime.engine:DeepSpeedEngine"
_TORCH_FILES = "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine"
_SCALERS = "deepspeed.runtime.fp16.loss_scaler"
_SCALER_FORM = (
    "(init_scale, scale_window, min_scale, delayed_shift, consecutive_hysteresis, raise_error_at_min_scale, dtype)"
)
_STORED = "allowed in state files, which hold it"

PRIVATE_NAMES = (
    # Starting quietly, without a compiler.
    PrivateName("deepspeed.utils", "logger", "Logger", "silenced below errors"),
    PrivateName(
        "deepspeed.ops",
        "__compatible_ops__",
        "dict",
        "emptied: read only to build a shared-memory all-reduce for inference, which takes a compiler and half a "
        "minute",
    ),
    PrivateName(
        "deepspeed.runtime.config",
        "DeepSpeedConfig",
        "(config, mpu, mesh_device)",
        "called: refuses wrong values of the `deepspeed` section before data are read",
    ),
    # The engine.
    PrivateName(ENGINE, "device", "device", "read: where batches belong"),
    PrivateName(ENGINE, "optimizer", "AdamW | DeepSpeedZeroOptimizer | DeepSpeedZeroOptimizer_Stage3", "read"),
    PrivateName(_DEEPSPEED_ENGINE, "zero_optimization_stage", "(self)", "called: stages differ in what they check"),
    PrivateName(_DEEPSPEED_ENGINE, "gradient_accumulation_steps", "(self)", "called: micro-steps of a step"),
    PrivateName(
        _DEEPSPEED_ENGINE,
        "set_gradient_accumulation_boundary",
        "(self, is_boundary)",
        "called: DeepSpeed counts calls of step(), of which there is one for all micro-steps here",
    ),
    PrivateName(_DEEPSPEED_ENGINE, "zero_grad", "(self)", "called instead of step() for gradients that are not finite"),
    PrivateName(_DEEPSPEED_ENGINE, "get_global_grad_norm", "(self)", "called: under ZeRO no rank has all gradients"),
    PrivateName(_DEEPSPEED_ENGINE, "was_step_applied", "(self)", "called: whether ZeRO found the gradients finite"),
    PrivateName(ZERO_OPTIMIZER, "param_groups", "list", "read: where the learning rates are set"),
    # Loss scaling of fp16.
    PrivateName(
        ENGINE,
        "torch_autocast_z0_gradscaler",
        "NoneType | GradScaler",
        "read: without ZeRO it scales the loss, and DeepSpeed leaves it out of state files",
    ),
    PrivateName(
        ZERO_OPTIMIZER,
        "torch_autocast_gradscaler",
        "NoneType | GradScaler",
        "replaced by None: under ZeRO gradients are clipped while they are still scaled by it, and it is never lowered "
        "after an overflow",
    ),
    PrivateName(ZERO_OPTIMIZER, "loss_scaler", "LossScaler | DynamicLossScaler", "replaced by DynamicLossScaler"),
    PrivateName(ZERO_OPTIMIZER, "dynamic_loss_scale", "bool", "set with loss_scaler"),
    PrivateName(ZERO_OPTIMIZER, "loss_scale", "float", "read: an overflow is no fault of the data where it is above 1"),
    PrivateName(_SCALERS, "DynamicLossScaler", _SCALER_FORM, "takes the place of torch's; " + _STORED),
    # State files.
    PrivateName(
        ENGINE,
        "checkpoint_engine",
        "TorchCheckpointEngine",
        "replaced: what it would write is collected, so that a full disk keeps no rank from the next barrier and "
        "training goes on meanwhile, and files are read by a restricted unpickler",
    ),
    PrivateName(_TORCH_FILES, "TorchCheckpointEngine", "(config_params)", "derived from, for checkpoint_engine"),
    PrivateName(_TORCH_FILES + ":TorchCheckpointEngine", "save", "(self, state_dict, path)", "overridden"),
    PrivateName(_TORCH_FILES + ":TorchCheckpointEngine", "load", "(self, path, map_location)", "overridden"),
    PrivateName(
        _DEEPSPEED_ENGINE,
        "_copy_recovery_script",
        "(self, save_path)",
        "replaced by nothing: copies a conversion script beside the shards, of no use here and fatal on a full disk",
    ),
    PrivateName(
        _DEEPSPEED_ENGINE,
        "_get_ckpt_name",
        "(self, checkpoints_path, tag, mp_placeholder, pp_placeholder)",
        "called: which file of weights this rank reads, before a missing one keeps others waiting",
    ),
    PrivateName(
        _DEEPSPEED_ENGINE,
        "_get_zero_ckpt_name",
        "(self, checkpoints_path, tag)",
        "called: the same of its shard of the optimiser under ZeRO",
    ),
    PrivateName(_SCALERS, "LossScaler", "(scale)", _STORED),
    PrivateName("deepspeed.runtime.zero.config", "ZeroStageEnum", "EnumType", _STORED),
    PrivateName("deepspeed.utils.tensor_fragment", "fragment_address", "(numel, start)", _STORED),
)


class Update(NamedTuple):
    """An optimiser step: the gradient norm before clipping, and whether the gradients were applied."""

    grad_norm: float
    applied: bool


class Engine:
    """A task and its optimiser in DeepSpeed, quietly and without compiling anything.

    Parameters stay float32. scaler: torch's for fp16 without ZeRO, whose state is the caller's to keep.
    """

    def __init__(self, task: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]):
        if not torch.cuda.is_available():
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed

        deepspeed.utils.logger.setLevel(logging.ERROR)
        # Of collectives that DeepSpeed calls by names that torch is about to drop; no user can mend that.
        warnings.filterwarnings("ignore", r"`torch\.distributed\..* is deprecated", FutureWarning)
        deepspeed.ops.__compatible_ops__ = {}
        self.task = task
        self._engine, *_ = deepspeed.initialize(model=task, optimizer=optimizer, config=config)
        assert all(p.dtype == torch.float32 for p in task.parameters()), "DeepSpeed has changed the parameters' type"
        self._sharded = self._engine.zero_optimization_stage() > 0
        if self._sharded and self._engine.optimizer.torch_autocast_gradscaler is not None:
            self._replace_loss_scaler()
        self._files = _state_files()
        self._engine.checkpoint_engine = self._files
        self._engine._copy_recovery_script = _do_nothing
        self.scaler: torch.amp.GradScaler | None = self._engine.torch_autocast_z0_gradscaler

    def _replace_loss_scaler(self) -> None:
        """DeepSpeed's own scaler does right what its use of torch's does not, see `PRIVATE_NAMES`."""
        from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler

        optimizer = self._engine.optimizer
        optimizer.torch_autocast_gradscaler = None
        optimizer.loss_scaler = DynamicLossScaler(
            LOSS_SCALE,
            SCALE_WINDOW,
            min_scale=1.0,
            delayed_shift=1,
            consecutive_hysteresis=False,
            raise_error_at_min_scale=False,
        )
        optimizer.dynamic_loss_scale = True

    @property
    def device(self) -> torch.device:
        device: torch.device = self._engine.device
        return device

    @property
    def micro_steps(self) -> int:
        """Micro-steps of an optimiser step."""
        return int(self._engine.gradient_accumulation_steps())

    @property
    def param_groups(self) -> list[Group]:
        """The optimiser's."""
        groups: list[Group] = self._engine.optimizer.param_groups
        return groups

    def forward(self, batch: dict[str, Any], *, last: bool) -> dict[str, Tensor]:
        """The task's outputs; `last`: for the last micro-step of the optimiser step."""
        self._engine.set_gradient_accumulation_boundary(last)
        outputs: dict[str, Tensor] = self._engine(batch)
        return outputs

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of a micro-step."""
        self._engine.backward(loss)

    def update(self) -> Update:
        """Apply the accumulated gradients unless they are not finite, and drop them; the same on all ranks."""
        if self._sharded:
            self._engine.step()
            return Update(float(self._engine.get_global_grad_norm()), bool(self._engine.was_step_applied()))
        # Without ZeRO DeepSpeed applies whatever there is, unless a loss scaler looks.
        gradients = [parameter.grad for parameter in self.task.parameters() if parameter.grad is not None]
        scaled_norm = float(torch.nn.utils.get_total_norm(gradients))
        norm = scaled_norm / self.loss_scale()
        is_finite = math.isfinite(norm)
        if is_finite or self.scaler is not None:
            self._engine.step()
        else:
            self._engine.zero_grad()
        return Update(norm, is_finite)

    def loss_scale(self) -> float:
        """fp16's factor on the loss; 1 at other precisions."""
        if self.scaler is not None:
            return self.scaler.get_scale()
        return float(self._engine.optimizer.loss_scale) if self._sharded else 1.0

    def gather_into(self, target: nn.Module) -> None:
        """Copy the whole parameters, of which each rank holds a share under ZeRO 3, into a copy of the task."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.task.parameters())), torch.no_grad():
            for whole, sharded in zip(target.parameters(), self.task.parameters(), strict=True):
                whole.copy_(sharded)

    def state_files(self, folder: Path, kept: Callable[[Any], Any]) -> dict[Path, Any]:
        """What this rank's files below `folder`, which is there, are to hold, by their paths: for `write_state_file`.
        kept: makes of what DeepSpeed would write what is returned, such as a copy. A collective."""
        self._files.begin(kept)
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
        return self._files.collected()

    def read_state(self, folder: Path) -> None:
        """Read this rank's files below `folder` for `load_state`, which would keep the other ranks waiting where one is
        missing or damaged. Raises what `load_state` does."""
        names = [self._engine._get_ckpt_name(str(folder), TAG)]
        if self._sharded:
            names.append(self._engine._get_zero_ckpt_name(str(folder), TAG))
        self._files.read({name: self._files.load(name, "cpu") for name in names})

    def load_state(self, folder: Path) -> None:
        """Inverse of `save_state`. Raises OSError, RuntimeError, ValueError, KeyError, EOFError or
        pickle.UnpicklingError for files that are missing, damaged or of another run."""
        loaded, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        if loaded is None:
            raise FileNotFoundError(f"{folder / TAG} has no weights of this rank")


def check_config(config: dict[str, Any]) -> None:
    """RecipeError where DeepSpeed refuses its configuration, in its own words."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.runtime.config import DeepSpeedConfig

    deepspeed.utils.logger.setLevel(logging.ERROR)
    try:
        DeepSpeedConfig(copy.deepcopy(config))
    except Exception as error:  # of pydantic, assertions, and errors of its own
        raise RecipeError(f"deepspeed: DeepSpeed refuses these settings: {' '.join(str(error).split())}") from error


def write_state_file(path: Path, content: Any) -> None:
    """A file of `Engine.state_files`. Raises OSError."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:  # torch's writer hides what stopped it
        if write_problem(error) is None:
            raise
        raise OSError(errno.ENOSPC, str(error), str(path)) from error


def _as_it_is(content: Any) -> Any:
    return content


def _do_nothing(folder: str) -> None:
    """In place of `_copy_recovery_script`."""


def _state_files() -> Any:
    """DeepSpeed's writer and reader of state files, as it should be."""
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

    allowed = _allowed_classes()

    class StateFiles(TorchCheckpointEngine):
        """What DeepSpeed would write is collected, so that files are written when nothing waits for them and a full
        disk keeps no rank from DeepSpeed's next barrier; what is read goes through a restricted unpickler."""

        def __init__(self) -> None:
            super().__init__()
            self._read: dict[str, Any] = {}
            self._contents: dict[Path, Any] = {}
            self._kept: Callable[[Any], Any] = _as_it_is

        def begin(self, kept: Callable[[Any], Any]) -> None:
            """See `Engine.state_files`."""
            self._contents, self._kept = {}, kept

        def collected(self) -> dict[Path, Any]:
            """What was to be written since `begin`; it is not held any longer."""
            contents = self._contents
            self.begin(_as_it_is)
            return contents

        def read(self, contents: dict[str, Any]) -> None:
            """Files that have been read; each is given out once."""
            self._read = contents

        def save(self, state_dict: dict[str, Any], path: str) -> None:
            self._contents[Path(path)] = self._kept(state_dict)

        def load(self, path: str, map_location: Any = None) -> Any:
            if path in self._read:
                return self._read.pop(path)
            try:
                with torch.serialization.safe_globals(allowed):
                    return torch.load(path, map_location=map_location, weights_only=True)
            except pickle.UnpicklingError:  # whose words are how to run what the file holds
                raise pickle.UnpicklingError(f"{path} holds other objects than tensors and plain values") from None

    return StateFiles()


def _allowed_classes() -> list[Any]:
    """What state files hold beside tensors and plain values."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]
