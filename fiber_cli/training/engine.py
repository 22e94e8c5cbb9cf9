"""Training: fit → step → forward and backward, on DeepSpeed.

Parameters are float32 at every precision; bf16 and fp16 compute under autocast. Everything random is a
function of (seed, step, micro-step, rank), so nothing random needs saving and a resumed run continues
exactly.
"""

import copy
import dataclasses
import json
import logging
import math
import os
import pickle
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fiber_cli.training import work as build
from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.distributed import collectives as dist
from fiber_cli.training import optim
from fiber_cli.data.loader import BadCounter
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError, first_names
from fiber_cli.tasks.prediction import to_device
from fiber_cli.config.resolve import deepspeed_config
from fiber_cli.training.log import RunLog, check_same_recipe, environment
from fiber_cli.seeds import mix
from fiber_cli.config.settings import Recipe, warmup_steps
from fiber_cli.training.signals import StopRequest

#: How many sample ids an error names.
NAMED_SAMPLES = 20
DEEPSPEED_TAG = "deepspeed"
#: Where fp16's loss scale starts; halved when gradients overflow, doubled after 1,000 steps without.
LOSS_SCALE = 2.0**16


def fit(recipe: Recipe, output: str | Path, *, resume: bool = False, init_from: str | Path | None = None) -> int:
    """Run a recipe in the folder `output`; returns EXIT_OK, or EXIT_STOPPED after a signal, when all is
    saved.

    resume: continue exactly from the folder's newest checkpoint, or from the start where there is none yet.
    init_from: start from a checkpoint's weights. Raises UserError for what cannot be used: data, weights,
    folder.
    """
    dist.init_from_env(always=True)
    if recipe.runtime.threads:
        torch.set_num_threads(recipe.runtime.threads)
    recipe.runtime.micro_steps(dist.world_size())  # checked before anything is read
    output = Path(output)
    note = output / "init_from"
    if init_from is not None and dist.is_main():
        output.mkdir(parents=True, exist_ok=True)
        note.write_text(f"{Path(init_from).resolve()}\n", encoding="utf-8")
    elif resume and note.is_file():
        # Where the run was killed before its first checkpoint it starts again from the same weights.
        init_from = note.read_text(encoding="utf-8").strip()
    work = build.work(recipe, init_from, fresh=not _begun(output))
    return train(recipe, work, output, resume=resume)


def train(recipe: Recipe, work: build.Work, output: Path, *, resume: bool = False) -> int:
    """The loop of `fit`, on given work."""
    settings, images, begun = recipe.log, recipe.runtime.global_batch, _begun(output)
    if begun and not resume:
        raise UserError(f"{output} already holds a run; continue it with --resume or choose another --output")
    if begun:
        check_same_recipe(recipe, output / "recipe.yaml")
    run = Run(recipe, work, output)
    if begun:
        run.load(checkpoint.resolve(output) / "state")
    at = run.progress
    log = RunLog(output, recipe, start=at.step, total=work.steps)
    # Closed here, because a frame that an error report keeps would keep the loader and its workers.
    with StopRequest() as stop, log, closing(iter(work.batches(at.step))) as batches:
        if resume:
            log.say(f"resumed at step {at.step}" if begun else f"{output} holds no checkpoint yet: starting afresh")
        line = dataclasses.replace(at)
        while not run.done:
            began = time.monotonic()
            outcome = run.step(batches)
            at.step, at.seconds = at.step + 1, at.seconds + time.monotonic() - began
            log.advance()
            run.guard(outcome)
            if at.step % settings.every == 0 or run.done:
                rate = (at.step - line.step) * images / (at.seconds - line.seconds)
                log.write(run.record(outcome) | {"images_per_second": rate})
                line = dataclasses.replace(at)
            due = work.validate and (at.step % settings.validate_every == 0 or run.done)
            improved = due and run.validate(log)
            stopping = dist.any_rank(stop.asked)
            if at.step % settings.save_every == 0 or run.done or improved or stopping:
                run.save()
            if stopping and not run.done:
                log.say(f"stopped at step {at.step}; everything is saved, --resume continues")
                return EXIT_STOPPED
        if at.step < work.steps:
            log.say(f"ended at step {at.step}: {at.stale} validations without a better {settings.keep_best}")
        log.finish(run.summary())
    return EXIT_OK


def _begun(output: Path) -> bool:
    return (output / "checkpoints" / "latest").is_file()


@dataclass
class Progress:
    """Where a run stands; saved with every checkpoint. `truncated` counts this rank's cut captions, `stale` the
    validations since the best, and `drops` how often the learning rate has fallen for that."""

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    truncated: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    drops: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Outcome:
    """One optimiser step on this rank: the task's outputs, summed over micro-steps; each micro-batch's
    sample ids and whether its loss was finite; the gradient norm before clipping, and whether the update was
    applied."""

    sums: dict[str, Tensor]
    micro_batches: list[tuple[list[str], Tensor]]
    grad_norm: float
    applied: bool


class Run:
    """A task in training: the DeepSpeed engine, the moving average, and where the run stands."""

    def __init__(self, recipe: Recipe, work: build.Work, output: Path):
        self.recipe, self.work, self.output, self.task = recipe, work, output, work.task
        self.progress, self.bad = Progress(), BadCounter(recipe.data.max_bad_rate)
        self.counts = build.count_parameters(self.task)
        self.streak, self.streak_steps = [], 0
        settings = recipe.runtime
        self.task.to(dist.device()).train()
        # DeepSpeed reads parameters as rows of bytes, which a tensor without dimensions has none of.
        self.scalars = [name for name, p in self.task.named_parameters() if p.ndim == 0]
        for name in self.scalars:
            parameter = self.task.get_parameter(name)
            parameter.data = parameter.data.view(1)
        self.ema = optim.Ema(self.task, settings.ema) if settings.ema else None
        # Under ZeRO 3 every forward pass of the task is a collective, and validation gives ranks unequal
        # shares.
        self.whole = copy.deepcopy(self.task).requires_grad_(False).cpu() if settings.zero_stage == 3 else None
        if settings.activation_checkpointing:
            self.task.encoder.checkpoint_activations = True
        if settings.compile:
            # All blocks of all stages are specialisations of the same few functions; torch gives up after 8.
            torch.compiler.config.recompile_limit = 128
            self.task.encoder.compile_blocks()
        section = recipe.optim
        groups = optim.param_groups(
            self.task.named_parameters(),
            weight_decay=section.weight_decay,
            cross_modal_mult=section.cross_modal_mult,
            head_mult=section.head_mult,
            text_mult=section.text_mult,
            published=section.published,
        )
        adamw = torch.optim.AdamW(
            groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=torch.cuda.is_available()
        )
        self.warmup = warmup_steps(section.warmup, work.steps)
        self.engine = _deepspeed_engine(self.task, adamw, deepspeed_config(recipe, dist.world_size()))
        self.scaler = self.engine.torch_autocast_z0_gradscaler

    @property
    def done(self) -> bool:
        """Whether all steps are made, or validation has been worse for as long as the recipe allows."""
        limit = self.recipe.log.stop_after
        return self.progress.step >= self.work.steps or (limit is not None and self.progress.stale >= limit)

    def published(self) -> nn.Module:
        """The task with the weights that are validated and saved, whole on every rank."""
        if self.whole is None:
            return self.task if self.ema is None else self.ema.task
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.task.parameters())), torch.no_grad():
            for ours, sharded in zip(self.whole.parameters(), self.task.parameters()):
                ours.copy_(sharded)
        return self.whole

    def step(self, batches: Iterator[dict]) -> Outcome:
        """One optimiser step: forward and backward of every micro-batch, then the update."""
        number, section = self.progress.step, self.recipe.optim
        plan = {"steps": self.work.steps, "warmup": self.warmup, "schedule": section.schedule}
        factor = optim.lr_factor(number, **plan, drops=self.progress.drops)
        self.lr = section.lr * factor
        optim.set_lr(self.engine.optimizer.param_groups, self.lr)
        before = {name: value.clone() for name, value in self.task.step_state().items()}
        sums, micro_batches = {}, []
        micros = self.engine.gradient_accumulation_steps()
        for micro in range(micros):
            batch = next(batches)
            self.bad.update(batch)
            self.progress.truncated += batch["truncated"]
            self.engine.set_gradient_accumulation_boundary(micro == micros - 1)
            losses = self.forward_backward(batch, number, micro)
            micro_batches.append((batch["sample_ids"], losses["loss"].isfinite()))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
        norm, applied = self.update()
        if not applied:
            # What the task keeps between steps may hold the same non-finite numbers.
            self.task.load_resume_state(before)
        elif self.ema is not None:
            self.ema.update(self.task, number)
        return Outcome(sums, micro_batches, norm, applied)

    def forward_backward(self, batch: dict, step: int, micro: int) -> dict[str, Tensor]:
        """The task's outputs for a micro-batch, detached; gradients are accumulated in the engine."""
        seed = self.recipe.runtime.seed
        torch.manual_seed(mix(seed, step, micro, dist.rank() + 1))
        losses = self.engine(to_device(batch, self.engine.device) | {"seed": mix(seed, step, micro), "step": step})
        loss = losses["loss"]
        # A loss that is not finite on one rank must stop the update on all: the factor turns all its
        # gradients into NaN, and summing them over the ranks spreads the news.
        self.engine.backward(loss * torch.where(loss.isfinite(), 1.0, torch.nan))
        return {name: value.detach() for name, value in losses.items()}

    def update(self) -> tuple[float, bool]:
        """Apply the accumulated gradients unless they are not finite, and drop them; the same on all ranks.

        Returns their norm before clipping and whether they were applied.
        """
        if self.engine.zero_optimization_stage() > 0:
            self.engine.step()
            return float(self.engine.get_global_grad_norm()), self.engine.was_step_applied()
        # Without ZeRO DeepSpeed applies whatever there is, unless a loss scaler looks.
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.task.parameters() if p.grad is not None])
        norm = float(norm) / self.loss_scale()
        if self.scaler or math.isfinite(norm):
            self.engine.step()
        else:
            self.engine.zero_grad()
        return norm, math.isfinite(norm)

    def loss_scale(self) -> float:
        """fp16's factor on the loss; 1 at other precisions."""
        return self.scaler.get_scale() if self.scaler else getattr(self.engine.optimizer, "loss_scale", 1.0)

    def guard(self, outcome: Outcome) -> None:
        """Count a step that was not applied; raises UserError after `runtime.max_nonfinite` in a row."""
        if outcome.applied:
            self.streak, self.streak_steps = [], 0
            return
        self.progress.skipped += 1
        mine = [(ids, bool(finite)) for ids, finite in outcome.micro_batches]
        batches = [batch for rank in dist.gather_objects(mine) for batch in rank]
        guilty = [ids for ids, finite in batches if not finite]
        if not guilty and self.loss_scale() > 1:
            return  # fp16 gradients overflowed; the scale has been lowered
        self.streak += guilty or [ids for ids, _ in batches]
        self.streak_steps += 1
        if self.streak_steps < self.recipe.runtime.max_nonfinite:
            return
        named = list(dict.fromkeys(name for ids in self.streak for name in ids))
        raise UserError(
            f"step {self.progress.step}: the {'loss' if guilty else 'gradient'} was not finite "
            f"{self.streak_steps} steps in a row (none of them changed the weights); lower optim.lr, set "
            "runtime.clip or runtime.precision=fp32, or look at these samples: "
            f"{first_names(named, NAMED_SAMPLES)}"
        )

    def record(self, outcome: Outcome) -> dict[str, Any]:
        """The line of metrics.jsonl for a step; losses are means over its micro-steps and the ranks."""
        at = self.progress
        names = sorted(outcome.sums)
        sums = torch.stack([outcome.sums[name].float().reshape(()) for name in names])
        means = dist.all_reduce_sum(sums) / (len(outcome.micro_batches) * dist.world_size())
        counts = dist.all_reduce_sum(torch.tensor([self.bad.bad, at.truncated], device=means.device)).tolist()
        return {
            "step": at.step,
            "epoch": at.step / self.work.steps_per_epoch,
            "lr": self.lr,
            **dict(zip(names, means.tolist())),
            "grad_norm": outcome.grad_norm,
            "skipped": at.skipped,
            "bad": counts[0],
            "truncated": counts[1],
        }

    def validate(self, log: RunLog) -> bool:
        """Whether the weights are the best so far by the recipe's metric."""
        at, name = self.progress, self.recipe.log.keep_best
        published = self.published()
        at.metrics = self.work.validate(published.to(dist.device()))
        if self.whole is not None:
            self.whole.cpu()
        log.write({"step": at.step, **at.metrics}, show=False)
        log.say(f"step {at.step} validation  " + "  ".join(f"{k} {v:.2f}" for k, v in at.metrics.items()))
        if name is None:
            return False
        if name not in at.metrics:
            name = f"{name} (plain tokens)"  # what is measured without Java
        if name not in at.metrics:
            log.say(
                f"log.keep_best: there is no {self.recipe.log.keep_best} among {', '.join(at.metrics) or 'nothing'}"
            )
            return False
        if at.best and at.best["metric"] == name and at.metrics[name] <= at.best["value"]:
            at.stale += 1
            at.drops += at.stale % self.recipe.optim.patience == 0
            return False
        at.stale = 0
        at.best = {"metric": name, "value": at.metrics[name], "step": at.step}
        return True

    def save(self) -> None:
        """Write a checkpoint of this step and delete those that the recipe does not keep."""
        weights = checkpoint.named_weights(self.published())
        for name in self.scalars:
            weights[name] = weights[name].view(())
        checkpoint.save(
            self.output,
            self.progress.step,
            config=self.work.config,
            weights=weights,
            tokenizer=self.work.tokenizer,
            write_state=self.save_state,
        )
        if dist.is_main():
            best = self.progress.best and checkpoint.step_name(self.progress.best["step"])
            if best:
                checkpoint.replace(self.output / "checkpoints" / "best", best + "\n")
            checkpoint.prune(self.output, self.recipe.log.keep_last, best)

    def save_state(self, folder: Path) -> None:
        """What resuming needs besides the weights: DeepSpeed's shards, progress, moving average, the task's
        memory."""
        ranks = dist.gather_objects({"bad": self.bad.state_dict(), "truncated": self.progress.truncated})
        self.engine.save_checkpoint(str(folder), tag=DEEPSPEED_TAG, save_latest=False)
        if self.engine.checkpoint_engine.problem is not None:
            raise self.engine.checkpoint_engine.problem
        if dist.is_main():
            state = {"progress": dataclasses.asdict(self.progress), "ranks": ranks}
            state["scaler"] = self.scaler.state_dict() if self.scaler else None
            (folder / "run.json").write_text(json.dumps(state), encoding="utf-8")
            tensors = {f"task.{name}": value for name, value in self.task.resume_state().items()}
            if self.ema is not None:
                tensors |= {f"ema.{name}": value for name, value in checkpoint.named_weights(self.ema.task).items()}
            (folder / "run.safetensors").write_bytes(checkpoint.to_bytes(checkpoint.float32(tensors)))

    def load(self, folder: Path) -> None:
        """Inverse of `save_state`; raises UserError where it does not fit or is damaged."""
        try:
            state = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            ranks = state["ranks"]
            if len(ranks) != dist.world_size():
                raise UserError(
                    f"{folder} is of a run on {len(ranks)} ranks, this one has {dist.world_size()}; start as "
                    f"many, or begin a new run from its weights with --init-from {folder.parent}"
                )
            tensors = load_file(folder / "run.safetensors")
            self.engine.load_checkpoint(str(folder), tag=DEEPSPEED_TAG)
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"{folder} cannot be read ({error}); write the name of an earlier checkpoint into "
                f"{folder.parents[1] / 'latest'} to continue from that one"
            ) from error
        mine = ranks[dist.rank()]
        self.progress = Progress(**state["progress"] | {"truncated": mine["truncated"]})
        self.bad.load_state_dict(mine["bad"])
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])

        def below(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        self.task.load_resume_state(below("task."))
        if self.ema is not None:
            checkpoint.load_into(self.ema.task, below("ema."))

    def summary(self) -> dict[str, Any]:
        """What summary.json says."""
        at, images = self.progress, self.progress.step * self.recipe.runtime.global_batch
        return {
            "steps": at.step,
            "images": images,
            "seconds": round(at.seconds, 2),
            "images_per_second": round(images / at.seconds, 2) if at.seconds else None,
            "metrics": at.metrics,
            "best": at.best,
            "skipped": at.skipped,
            "bad": sum(rank["bad"] for rank in dist.gather_objects(self.bad.state_dict())),
            "truncated": sum(dist.gather_objects(at.truncated)),
            "parameters": self.counts,
            **environment(),
        }


def _deepspeed_engine(task: nn.Module, optimizer: torch.optim.Optimizer, config: dict) -> Any:
    """The task and its optimiser in DeepSpeed, quietly and without compiling anything."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Read only to build a shared-memory all-reduce for inference, which takes a compiler and half a minute.
    deepspeed.ops.__compatible_ops__ = {}
    engine, *_ = deepspeed.initialize(model=task, optimizer=optimizer, config=config)
    assert all(p.dtype == torch.float32 for p in task.parameters()), "DeepSpeed has changed the parameters' type"
    if engine.zero_optimization_stage() > 0 and engine.optimizer.torch_autocast_gradscaler is not None:
        # DeepSpeed 0.19 clips float16 autocast gradients while they are still scaled, and never lowers this
        # scaler after an overflow; its own scaler does both right.
        engine.optimizer.torch_autocast_gradscaler = None
        engine.optimizer.loss_scaler = DynamicLossScaler(
            LOSS_SCALE,
            1000,
            min_scale=1.0,
            delayed_shift=1,
            consecutive_hysteresis=False,
            raise_error_at_min_scale=False,
        )
        engine.optimizer.dynamic_loss_scale = True

    allowed = [LossScaler, DynamicLossScaler, ZeroStageEnum, fragment_address]

    class StateFiles(TorchCheckpointEngine):
        """A full disk must not keep one rank from DeepSpeed's next barrier, so the error waits in `problem`;
        what is read goes through a restricted unpickler."""

        problem: OSError | None = None

        def save(self, state_dict: dict, path: str) -> None:
            self.problem = None
            try:
                with open(path, "wb") as file:
                    torch.save(state_dict, file)
            except OSError as error:
                Path(path).unlink(missing_ok=True)
                self.problem = error

        def load(self, path: str, map_location: Any = None) -> dict:
            with torch.serialization.safe_globals(allowed):
                return torch.load(path, map_location=map_location, weights_only=True)

    engine.checkpoint_engine = StateFiles()
    # DeepSpeed copies a conversion script beside its shards: of no use here, and fatal on a full disk.
    engine._copy_recovery_script = lambda folder: None
    return engine
