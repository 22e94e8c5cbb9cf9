"""Runs and results as files alone, and data sets whose files are empty."""

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from official_files import write_official_files

from fiber_cli.distributed import launch as launching
from fiber_cli.tables import make, retrieval


@pytest.fixture
def data(tmp_path) -> Path:
    """The folder of all data sets."""
    return write_official_files(tmp_path / "data")


@pytest.fixture
def runs(tmp_path) -> Path:
    """The folder of all runs, empty."""
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def finish(run: Path, *, step: int = 2, **summary: Any) -> None:
    """A finished run with a checkpoint of a step."""
    checkpoint = run / "checkpoints" / f"step-{step:06d}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "config.json").write_text("{}")
    (run / "checkpoints" / "latest").write_text(f"{checkpoint.name}\n")
    (run / "summary.json").write_text(json.dumps({"seconds": 7200.0, "steps": 100, "ranks": 8, **summary}))


def write_results(
    run: Path,
    dataset: str,
    split: str,
    mode: str,
    metrics: dict[str, float],
    *,
    step: int = 2,
    itm: Path | None = None,
    name: str = "",
    **more: Any,
) -> Path:
    """A results.json of a run's checkpoint in the run; itm: the run that scores the pairs."""
    folder = run / "eval" / (name or f"{dataset}-{split}-{mode}")
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"dataset": dataset, "split": split, "mode": mode, "metrics": metrics, **more}
    content["checkpoint"] = str(run / "checkpoints" / f"step-{step:06d}")
    if itm is not None:
        content["itm_checkpoint"] = str(itm / "checkpoints" / f"step-{step:06d}")
    (folder / "results.json").write_text(json.dumps(content))
    return folder / "results.json"


def measured(command: list[str]) -> tuple[str, dict[str, float]]:
    """Mode and metrics that a stand-in for an evaluation writes."""
    recalls = [f"{direction}@{k}" for direction in ("ir", "tr") for k in (1, 5, 10)]
    if command[0] == "rerank":
        ways = [f"rerank-{k}" for k in command[command.index("--top-k") + 1].split(",")]
        return "rerank", {f"{way}/{recall}": 50.0 for way in ways for recall in recalls}
    if "--itm-checkpoint" in command or "itc+itm" in command:
        return "itc+itm", {f"{way}/{recall}": 50.0 for way in ("itc", "itm", "itc+itm") for recall in recalls}
    names = ("itc/ir@1", "nlvr2/accuracy", "detection/ap", "refexp/acc@iou50", "refexp/acc@giou50")
    metrics = {**dict.fromkeys(names, 50.0), **{f"itc/{recall}": 50.0 for recall in recalls}}
    metrics |= {f"caption/{name}": 50.0 for name in ("bleu4", "meteor", "cider", "spice")}
    metrics |= {f"lvis/fixed_{name}": 50.0 for name in ("apr", "apc", "apf", "ap")}
    metrics |= {f"grounding/any_box/r@{k}": 50.0 for k in (1, 5, 10)}
    return "itc" if "_itc" in " ".join(command) else "other", metrics


@pytest.fixture
def launched(monkeypatch):
    """Stands for commands and writes what they would; `fail` names words of a command that ends with `code`, `stop_at`
    the number of the one that is stopped, `asked_at` that of one which comes to its end before."""
    state = SimpleNamespace(commands=[], fail=None, code=1, stop_at=None, asked_at=None)

    def launch(nproc: int, command: list[str], *, name: str, aside: bool, asked: set[int] | None = None) -> int:
        state.commands.append(command)
        if len(state.commands) == state.stop_at:
            return 75
        if len(state.commands) == state.asked_at and asked is not None:
            asked.add(15)
        if state.fail is not None and state.fail in command:
            return state.code
        option = dict(pairwise(command))
        if command[0] in ("pretrain", "finetune"):
            finish(Path(option["--output"]))
        elif command[0] in ("vqa-answers", "cider-df"):
            Path(option["--output"]).parent.mkdir(parents=True, exist_ok=True)
            Path(option["--output"]).write_text("[]")
        elif command[0] == "odinw":
            write_tunings(Path(option["--output"]), option["--shots"], option.get("--seeds"))
        else:
            mode, metrics = measured(command)
            itm = option.get("--itm-checkpoint")
            run = Path(option["--checkpoint"])
            kept = write_results(
                run, command[1], option["--split"], mode, metrics, itm=None if itm is None else Path(itm)
            )
            (kept.parent / "predictions.json").write_text("[]")
        return 0

    for module in (make, retrieval, launching):
        monkeypatch.setattr(module, "launch", launch)
    return state


def write_tunings(folder: Path, shots: str, seeds: str | None, *, sets: int = 13, ap: float = 40.0) -> None:
    """What `fiber odinw` leaves of the first `sets` sets."""
    from fiber_cli.evaluation.odinw13 import SETS

    for number in map(int, shots.split(",")):
        names = ["full"] if number == 0 else [f"shot{number}-seed{seed}" for seed in (seeds or "3,30,300").split(",")]
        for each in SETS[:sets]:
            for name in names:
                test = folder / each.name / name / "test"
                test.mkdir(parents=True, exist_ok=True)
                (test / "results.json").write_text(json.dumps({"metrics": {"detection/ap": ap}}))
