"""A task in training: one optimiser step, validation, and what is saved.

Parameters are float32 at every precision; bf16 and fp16 compute under autocast. Everything random is a
function of (seed, step, micro-step, rank), so nothing random needs saving and a resumed run continues
exactly.
"""

import copy
import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from fiber_cli.checkpoints import directory
from fiber_cli.checkpoints.config import had_small_letters
from fiber_cli.checkpoints.digests import STATE_FOLDER, check_together
from fiber_cli.checkpoints.host_copies import HostCopies
from fiber_cli.checkpoints.run_files import BEST, CHECKPOINTS
from fiber_cli.checkpoints.saving import Saving, Write
from fiber_cli.checkpoints.weights import float32, load_into, named_weights
from fiber_cli.checkpoints.words import read_words
from fiber_cli.checkpoints.writing import prune, write_about, write_weights
from fiber_cli.config.recipe import Recipe, RuntimeSettings, warmup_steps
from fiber_cli.data.loader import BadCounter
from fiber_cli.data.readers import Batch
from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import failing_together
from fiber_cli.distributed.device import device, to_device
from fiber_cli.errors import SharedError, UserError
from fiber_cli.model.precision import settled
from fiber_cli.seeds import mix
from fiber_cli.tasks import declared
from fiber_cli.tasks.base import Pass
from fiber_cli.training.best_metric import measured_name
from fiber_cli.training.comparisons import pairs_compared
from fiber_cli.training.compilation import compilation
from fiber_cli.training.computing import prepare
from fiber_cli.training.deepspeed_config import deepspeed_config
from fiber_cli.training.deepspeed_engine import Engine, write_state_file
from fiber_cli.training.ema import Ema
from fiber_cli.training.environment import environment
from fiber_cli.training.log import RunLog
from fiber_cli.training.optim import lr_factor, param_groups, set_lr
from fiber_cli.training.outcome import MicroBatch, NonFiniteGuard, Outcome
from fiber_cli.training.progress import Progress
from fiber_cli.training.state import (
    STATE_FILE,
    TENSORS_FILE,
    AskedBatch,
    RankState,
    RunState,
    local_state,
    read_state,
    read_state_tensors,
    readable,
)
from fiber_cli.training.work import Work, count_parameters


class Run:
    """A task in training: the engine, the moving average, and where the run stands."""

    def __init__(self, recipe: Recipe, work: Work, output: Path, asked: RuntimeSettings | None = None):
        """asked: what the recipe said of the batch, where it is another one; of a run that goes on what it began
        with stays."""
        self.recipe = recipe
        self.asked: AskedBatch | None = None
        if asked is not None and asked.global_batch != recipe.runtime.global_batch:
            self.asked = AskedBatch(asked.global_batch, asked.micro_batch)
        self.work = work
        self.output = output
        self.task = work.task
        self.progress = Progress()
        self.bad = BadCounter(recipe.data.max_bad_rate)
        self.parameter_counts = count_parameters(self.task)
        self.nonfinite = NonFiniteGuard(recipe.runtime.max_nonfinite)
        self.lr = 0.0
        self.words = work.words
        self.config = dict(work.config)
        #: What the sources hold, on the first rank; what they held where the run goes on from, where that is known.
        self.data = work.data_facts if collectives.is_main() else {}
        self.data_before: dict[str, str] | None = None
        #: Whether a checkpoint of this run is on the disk.
        self.has_saved = False
        #: Seconds for which this rank has waited for data since the last line of the log.
        self.waited = 0.0
        #: The checkpoint that is being written, and the best so far when it was begun.
        self.saving: Saving | None = None
        self.best_then: dict[str, Any] | None = None
        self.task.to(device()).train()
        self.scalars = _with_dimensions(self.task)
        self.ema = Ema(self.task, recipe.runtime.ema) if recipe.runtime.ema else None
        # Under ZeRO 3 every forward pass of the task is a collective, and validation gives ranks unequal
        # shares.
        self.whole: nn.Module | None = None
        if recipe.runtime.zero_stage == 3:
            self.whole = copy.deepcopy(self.task).requires_grad_(False).cpu()
        self.compilation = compilation(recipe.runtime, device(), work.steps)
        any_size = declared(recipe.task.name).free_image_size
        prepare(self.task, recipe.runtime, compiled=self.compilation.used, any_size=any_size)
        self.warmup = warmup_steps(recipe.optim.warmup, work.steps)
        self.engine = Engine(self.task, self._optimizer(), deepspeed_config(recipe, collectives.world_size()))

    def _optimizer(self) -> torch.optim.AdamW:
        section = self.recipe.optim
        groups = param_groups(
            self.task.named_parameters(),
            self.work.parameters,
            weight_decay=section.weight_decay,
            cross_modal_mult=section.cross_modal_mult,
            head_mult=section.head_mult,
            text_mult=section.text_mult,
            as_published=section.as_published,
        )
        fused = torch.cuda.is_available()
        return torch.optim.AdamW(groups, lr=section.lr, betas=section.betas, eps=section.eps, fused=fused)

    @property
    def done(self) -> bool:
        """Whether all steps are made, or validation has been worse for as long as the recipe allows."""
        limit = self.recipe.log.stop_after
        is_stale = limit is not None and self.progress.stale >= limit
        return self.progress.step >= self.work.steps or is_stale

    def task_to_keep(self) -> nn.Module:
        """The task with the weights that are validated and saved, whole on every rank: those of the moving average
        where there is one."""
        if self.whole is not None:
            self.engine.gather_into(self.whole)
            return self.whole
        return self.task if self.ema is None else self.ema.task

    def step(self, batches: Iterator[Batch]) -> Outcome:
        """One optimiser step: the passes of every micro-batch, forward and backward, then the update."""
        number = self.progress.step
        self._set_learning_rate(number)
        state_before = {name: value.clone() for name, value in self.task.step_state().items()}
        sums: dict[str, Tensor] = {}
        micro_batches = []
        for each in self.task.passes(self._counted(batches), self.engine.micro_steps):
            outputs = self.forward_backward(each, number)
            for name, value in outputs.items():
                sums[name] = sums.get(name, 0.0) + value
            if each.has_graph:
                micro_batches.append(MicroBatch(each.batch["sample_ids"], outputs["loss"].isfinite()))
        update = self.engine.update()
        if not update.applied:
            # What the task keeps between steps may hold the same non-finite numbers.
            self.task.load_resume_state(state_before)
        elif self.ema is not None:
            self.ema.update(self.task, number)
        return Outcome(sums, micro_batches, update.grad_norm, update.applied)

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, whose samples are counted when they are used."""
        began = time.monotonic()
        for batch in batches:
            self.waited += time.monotonic() - began
            self.bad.update(batch)
            self.progress.truncated += batch["truncated"]
            yield batch
            began = time.monotonic()

    def _set_learning_rate(self, number: int) -> None:
        section = self.recipe.optim
        factor = lr_factor(
            number,
            steps=self.work.steps,
            warmup=self.warmup,
            schedule=section.schedule,
            drops=self.progress.drops,
        )
        self.lr = section.lr * factor
        set_lr(self.engine.param_groups, self.lr)

    def forward_backward(self, each: Pass, step: int) -> dict[str, Tensor]:
        """The task's outputs of a pass, detached; gradients, of one with a graph, are accumulated in the engine."""
        seed, micro_step = self.recipe.runtime.seed, each.micro_step
        streams = (each.stream,) if each.stream else ()
        torch.manual_seed(mix(seed, step, micro_step, collectives.rank() + 1, *streams))
        batch = to_device(each.batch, self.engine.device) | {"seed": mix(seed, step, micro_step), "step": step}
        if each.compute is not None:
            batch["compute"] = each.compute
        with torch.set_grad_enabled(each.has_graph):
            outputs = self.engine.forward(batch, last=each.is_last)
        if each.has_graph:
            loss = outputs["loss"]
            # A loss that is not finite on one rank must stop the update on all: the factor turns all its
            # gradients into NaN, and summing them over the ranks spreads the news.
            factor = torch.where(loss.isfinite(), 1.0, torch.nan)
            self.engine.backward(loss * factor)
        return {name: value.detach() for name, value in outputs.items()}

    def guard(self, outcome: Outcome) -> None:
        """Count a step that was not applied; raises UserError after `runtime.max_nonfinite` in a row."""
        if outcome.applied:
            self.nonfinite.reset()
        else:
            self.progress.skipped += 1
            self.nonfinite.count(outcome, self.progress.step, self.engine.loss_scale())

    def record(self, outcome: Outcome) -> dict[str, Any]:
        """The line of metrics.jsonl for a step; losses are means over its micro-steps and the ranks."""
        names = sorted(outcome.sums)
        sums = torch.stack([outcome.sums[name].float().reshape(()) for name in names])
        count = self.engine.micro_steps * collectives.world_size()
        means = collectives.all_reduce_sum(sums) / count
        progress = self.progress
        local = torch.tensor([self.bad.bad, progress.truncated], device=means.device)
        bad, truncated = collectives.all_reduce_sum(local).tolist()
        where = {"step": progress.step, "epoch": progress.step / self.work.steps_per_epoch, "lr": self.lr}
        losses = dict(zip(names, means.tolist(), strict=True))
        counts = {"skipped": progress.skipped, "bad": bad, "truncated": truncated}
        return where | losses | {"grad_norm": outcome.grad_norm} | counts

    def seconds_waited(self) -> float:
        """For which the slowest rank has waited for data since this was asked last. A collective."""
        waited, self.waited = self.waited, 0.0
        return float(collectives.all_reduce_max(torch.tensor(waited, device=self.engine.device)))

    def validate(self, log: RunLog) -> bool:
        """Whether the weights are the best so far by the recipe's metric. Raises UserError where it is not measured."""
        assert self.work.validate is not None
        task = self.task_to_keep()
        # As `fiber eval` computes, without graphs for the batches of evaluation.
        with torch.compiler.set_stance("force_eager"):
            metrics = self.work.validate(task.to(device()))
        if self.whole is not None:
            self.whole.cpu()
        self.progress.metrics = metrics
        log.write({"step": self.progress.step, **metrics}, show=False)
        values = "  ".join(f"{name} {value:.2f}" for name, value in metrics.items())
        log.say(f"step {self.progress.step} validation  {values}")
        metric = self.recipe.log.keep_best
        if metric is None:
            return False
        name = measured_name(metric, metrics)
        return self.progress.is_best(name, metrics[name], patience=self.recipe.optim.patience)

    def save(self) -> None:
        """Begin a checkpoint of this step, and finish it at once where the recipe says so. One that is still being
        written is finished first."""
        self.finish_saving()
        with failing_together():
            self.check_checkpoints()
        beside = self.recipe.log.save_in_background
        kept = HostCopies().of if beside else _as_it_is
        saving = Saving(self.output, self.progress.step)
        with saving.failing_together():
            if collectives.is_main():
                # Not beside training, which uses the tokenizer.
                write_about(saving.temporary, self._config(), self.work.tokenizer, self.words)
        saving.start(self._files(saving.temporary, kept), beside=beside)
        self.saving, self.best_then = saving, copy.copy(self.progress.best)
        if not beside:
            self.finish_saving()

    def advance_saving(self) -> None:
        """Do what can be done without waiting for a checkpoint that is being written. A collective."""
        if self.saving is not None and self._advanced(self.saving.advance):
            self._saved()

    def finish_saving(self) -> None:
        """Wait for a checkpoint that is being written. A collective."""
        if self.saving is not None and self._advanced(self.saving.finish):
            self._saved()

    def _advanced(self, way: Callable[[], Any]) -> bool:
        try:
            return bool(way())
        except BaseException:
            self.saving = None
            raise

    def _saved(self) -> None:
        """The checkpoint is on the disk: delete those that the recipe does not keep."""
        self.saving = None
        self.has_saved = True
        with failing_together():
            if collectives.is_main():
                self._prune()

    @contextmanager
    def saving_to_the_end(self) -> Iterator[None]:
        """Where the block ends with an error, a checkpoint that is being written is finished first if all ranks have
        the error, and removed if they may not meet again."""
        try:
            yield
        except BaseException as error:
            saving, self.saving = self.saving, None
            if saving is not None and (collectives.world_size() == 1 or isinstance(error, SharedError)):
                with suppress(UserError):  # the error that ends the run comes first
                    saving.finish()
            elif saving is not None:
                saving.abandon()
            raise

    def check_checkpoints(self) -> None:
        """Raises UserError where the checkpoints of this run are gone."""
        folder = self.output / CHECKPOINTS
        if collectives.is_main() and self.has_saved and not folder.is_dir():
            raise UserError(
                f"{folder} was removed or moved while the run was writing into it; what has been learned since its "
                "last checkpoint is lost. Put it back and continue with --resume"
            )

    def _prune(self) -> None:
        """Move `best`, and delete the checkpoints that the recipe does not keep."""
        best = None
        pointer = self.output / CHECKPOINTS / BEST
        if self.best_then is not None and self.recipe.log.keep_best:
            best = directory.step_name(self.best_then["step"])
            directory.replace(pointer, best + "\n")
        else:
            # A run that goes on without keeping the best has none that stands for it.
            pointer.unlink(missing_ok=True)
        prune(self.output, self.recipe.log.keep_last, best)

    def _config(self) -> dict[str, Any]:
        """The content of config.json, with what the last validation has chosen."""
        settings = self.recipe.task
        chosen = declared(settings.name).calibrated_values(settings, self.progress.metrics)
        return self.config | {"task": self.config["task"] | chosen}

    def _files(self, folder: Path, kept: Callable[[Any], Any]) -> Write:
        """What writes this rank's files of a checkpoint of now: the weights, and what resuming needs besides them,
        DeepSpeed's shards, progress, moving average and the task's memory. kept: makes of what training changes what
        can be written later. A collective; what it returns is none."""
        task = self.task_to_keep()
        weights = kept(named_weights(task)) if collectives.is_main() else {}
        ranks = collectives.gather_objects(RankState(self.bad.state_dict(), self.progress.truncated))
        shards = self.engine.state_files(folder / STATE_FOLDER, kept)
        scaler = self.engine.scaler
        of_loss = None if scaler is None else scaler.state_dict()
        state = RunState(self.progress, ranks, of_loss, self.asked, self.data).to_json()
        tensors = {f"task.{name}": value for name, value in self.task.resume_state().items()}
        if self.ema is not None:
            for name, value in named_weights(self.ema.task).items():
                tensors[f"ema.{name}"] = value
        tensors = kept(tensors) if collectives.is_main() else {}

        def write(folder: Path) -> None:
            for path, content in shards.items():
                write_state_file(path, content)
            if collectives.is_main():
                for name in self.scalars:
                    weights[name] = weights[name].view(())
                write_weights(folder, float32(weights))
                (folder / STATE_FOLDER / STATE_FILE).write_text(state, encoding="utf-8")
                (folder / STATE_FOLDER / TENSORS_FILE).write_bytes(to_bytes(float32(tensors)))

        return write

    def load(self, checkpoint: Path) -> None:
        """Inverse of `save`, by what lies in state/. Under ZeRO the state of another number of ranks leaves the weights
        as the task has them, and the optimiser without its averages. Raises UserError on all ranks where the state does
        not fit or is damaged."""
        check_together(checkpoint)
        self.has_saved = True
        folder = checkpoint / STATE_FOLDER
        with failing_together():
            self.words = read_words(checkpoint)
            self.config["small_letters"] = had_small_letters(checkpoint)
            state = read_state(folder)
            tensors = read_state_tensors(folder)
        # Shards of other ranks than these fit none of them.
        is_whole = len(state.ranks) == collectives.world_size() or self.recipe.runtime.zero_stage == 0
        if is_whole:
            with failing_together(), readable(folder):
                self.engine.read_state(folder)
            with failing_together(), readable(folder):
                self.engine.load_state(folder)
        with failing_together(), readable(folder):
            local = local_state(state.ranks)
            self.progress = dataclasses.replace(state.progress, truncated=local.truncated)
            self.bad.load_state_dict(local.bad)
            self.asked = self.asked or state.asked
            self.data_before = state.data
            if self.engine.scaler is not None:
                self.engine.scaler.load_state_dict(state.scaler or {})
            self.task.load_resume_state(_below("task.", tensors))
            if self.ema is not None:
                load_into(self.ema.task, _below("ema.", tensors))

    def changed_data(self) -> list[str]:
        """What the sources hold otherwise than where the run goes on from, with both values. What only one of the two
        has is left out, such as the data of a validation that was switched on."""
        changed = []
        for name, before in (self.data_before or {}).items():
            now = self.data.get(name, before)
            if now != before:
                changed.append(f"{name} {before}, now {now}")
        return changed

    def summary(self) -> dict[str, Any]:
        """What summary.json says."""
        progress = self.progress
        images = progress.step * self.recipe.runtime.global_batch
        bad = [counts["bad"] for counts in collectives.gather_objects(self.bad.state_dict())]
        compared = pairs_compared(self.task, self.recipe.runtime, collectives.world_size())
        rate = None
        if progress.seconds:
            rate = round(images / progress.seconds, 2)
        facts: dict[str, Any] = {
            "steps": progress.step,
            "images": images,
            "global_batch": self.recipe.runtime.global_batch,
            "seconds": round(progress.seconds, 2),
            "images_per_second": rate,
            "metrics": progress.metrics,
            "best": progress.best,
            "skipped": progress.skipped,
            "bad": sum(bad),
            "precision": settled(self.recipe.runtime.precision, self.engine.device),
            "compiled": self.compilation.used,
            "truncated": sum(collectives.gather_objects(progress.truncated)),
        }
        if self.recipe.runtime.tf32 is not None:
            facts["tf32"] = self.recipe.runtime.tf32
        if compared:
            facts["pairs_compared"] = compared
        return facts | {"parameters": self.parameter_counts, **environment()}


def _as_it_is(content: Any) -> Any:
    return content


def _with_dimensions(task: nn.Module) -> list[str]:
    """Gives parameters without dimensions one, and returns their names: DeepSpeed reads parameters as rows of bytes,
    which such a tensor has none of."""
    names = [name for name, parameter in task.named_parameters() if parameter.ndim == 0]
    for name in names:
        parameter = task.get_parameter(name)
        parameter.data = parameter.data.view(1)
    return names


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
