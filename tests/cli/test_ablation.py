"""`fiber ablate`: what is run, in which order, what is not run again, and what is drawn."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fiber_cli.config.resolve import resolve_recipe

SETTINGS = {
    "steps": 2,
    "seconds": 1.0,
    "metrics": {"itc/ir@1": 50.0},
    "parameters": {"fusion (image side)": 4, "total": 9},
}
GRID = """
metrics: [itc/ir@1, itm/ir@1]
seeds: [0, 1]
evaluate: ["scenes --mode itm --limit 4"]
variants:
  - {name: in the backbone}
  - {name: on top, settings: [model.fusion=top], group: where}
  - {name: without ITM, settings: [task.itm=0], evaluate: []}
"""


@pytest.fixture
def launched(run, calls, monkeypatch):
    """Commands in place of which their results are written; `fail_at` ends the command of that number."""
    Path("grid.yaml").write_text(GRID)
    state = SimpleNamespace(commands=[], fail_at=None, code=75, signal_at=None)

    def launch(nproc, argv, *, name="", asked):
        state.commands.append(argv)
        if len(state.commands) == state.signal_at:
            asked.add(15)
        if len(state.commands) == state.fail_at:
            return state.code
        output = Path(argv[argv.index("--output") + 1])
        output.mkdir(parents=True, exist_ok=True)
        if argv[0] == "eval":
            (output / "results.json").write_text('{"metrics": {"itm/ir@1": 25.0}}')
            return 0
        overrides = [word for word in argv if "=" in word]
        (output / "recipe.yaml").write_text(resolve_recipe("tiny", overrides).to_yaml())
        (output / "summary.json").write_text(json.dumps(SETTINGS))
        return 0

    monkeypatch.setitem(sys.modules, "fiber_cli.distributed.launch", SimpleNamespace(launch=launch))
    return state


ABLATE = ("ablate", "tiny", "optim.steps=2", "optim.warmup=0", "--grid", "grid.yaml", "--output", "out")


def outputs(commands: list[list[str]]) -> list[str]:
    return [f"{argv[0]} {argv[argv.index('--output') + 1]}" for argv in commands]


def test_a_variant_is_left_out(run, launched):
    code, out, err = run(*ABLATE)
    assert code == 0, err
    wanted = []
    for seed in (0, 1):
        for name in ("in-the-backbone", "on-top", "without-ITM"):
            folder = f"out/{name}/seed-{seed}"
            wanted.append(f"pretrain {folder}")
            if name != "without-ITM":
                wanted.append(f"eval {folder}/eval-scenes-mode-itm-limit-4")
    assert outputs(launched.commands) == wanted
    assert launched.commands[2][1] == "coarse"
    assert launched.commands[2][-4:] == ["optim.steps=2", "optim.warmup=0", "model.fusion=top", "runtime.seed=0"]
    assert launched.commands[1][1:5] == ["scenes", "--mode", "itm", "--limit"]
    assert "without ITM      50.0 ± 0.0 (+0.0)  –" in out
    compared = json.loads(Path("out/comparison.json").read_text())
    assert [each["name"] for each in compared["variants"]] == ["in the backbone", "on top", "without ITM"]
    assert compared["variants"][1]["mean"]["itm/ir@1"] == {"mean": 25.0, "std": 0.0, "seeds": 2}
    assert "| **where** |" in Path("out/comparison.md").read_text()
    assert Path("out/comparison.png").read_bytes().startswith(b"\x89PNG")


def test_precision_and_device_reach_trainings_and_evaluations(run, launched, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert run(*ABLATE, "--only", "on top", "--seeds", "0", "--precision", "bf16", "--device", "cpu")[0] == 0
    training, evaluation = launched.commands
    assert "runtime.precision=bf16" in training
    assert training[-2:] == ["--device", "cpu"]
    assert evaluation[:5] == ["eval", "--precision", "bf16", "--device", "cpu"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_what_is_finished_is_run_again(run, launched):
    launched.fail_at = 4
    code, _, err = run(*ABLATE)
    assert code == 75
    assert "the same command again goes on from here" in err
    assert "–" in Path("out/comparison.txt").read_text()
    done = len(launched.commands)
    Path("out/without-ITM/seed-0").mkdir(parents=True)
    Path("out/without-ITM/seed-0/metrics.jsonl").write_text('{"step": 1}\n')
    launched.fail_at = None
    assert run(*ABLATE)[0] == 0
    again = launched.commands[done:]
    assert outputs(again)[:2] == [
        "eval out/on-top/seed-0/eval-scenes-mode-itm-limit-4",
        "pretrain out/without-ITM/seed-0",
    ]
    assert "--resume" in again[1]
    done = len(launched.commands)
    assert run(*ABLATE)[0] == 0
    assert len(launched.commands) == done
    # More seeds, and other measurements, are added to what is there.
    assert run(*ABLATE, "--seeds", "0,1,2")[0] == 0
    assert len(launched.commands) == done + 5


def test_a_signal_at_the_end_of_a_run_is_forgotten(run, launched):
    launched.signal_at = 3
    assert run(*ABLATE)[0] == 75
    assert len(launched.commands) == 3
    assert run(*ABLATE)[0] == 0
    assert outputs(launched.commands)[3] == "eval out/on-top/seed-0/eval-scenes-mode-itm-limit-4"


def test_runs_of_other_settings_are_compared(run, launched):
    assert run(*ABLATE)[0] == 0
    done = len(launched.commands)
    code, _, err = run(*ABLATE, "optim.lr=1e-5")
    assert code == 1
    assert "optim.lr: 0.0008 in the run, 1e-05 now" in err
    assert "give another --output" in err
    code, _, err = run(*ABLATE, "--init-from", "fine")
    assert code == 1
    assert "began with other weights than --init-from" in err
    assert len(launched.commands) == done


def test_what_is_wrong_with_a_variant_is_found_out_after_hours(run, launched):
    code, _, err = run(*ABLATE, "--variant", "x: model.fusion=side", "--variant", "y: task.itc=0")
    assert code == 2
    assert "x: command line: model.fusion: unknown value 'side'" in err
    assert "y: " in err
    assert "hard negatives are drawn by ITC similarity" in err
    code, _, err = run(*ABLATE, "runtime.seed=3")
    assert code == 2
    assert "in the backbone: runtime.seed=…: the grid's seeds give it" in err
    code, _, err = run(*ABLATE, "log.validate_every=null", "log.keep_best=null")
    assert code == 2
    assert "without ITM: log.validate_every is null and evaluate is empty" in err
    assert "on top" not in err
    assert not launched.commands


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["ablate", "tiny_vqa"], "has no grid of its name: give --grid, or variants with --variant"),
        (["ablate", "tiny", "--variant", "x:"], "say by --metric what is compared"),
        (["ablate", "tiny", "--variant", "x:", "--metric", "a"], "nothing to be compared with"),
        (["ablate", "tiny", "--grid", "grid.yaml", "--seeds", "a"], "--seeds a: give whole numbers from 0"),
        (["ablate", "tiny", "--grid", "no.yaml"], "no such file, and unknown grid 'no.yaml'"),
        (["ablate", "none", "--grid", "grid.yaml"], "no such file, and unknown recipe 'none'"),
    ],
)
def test_a_wrong_command_line_is_run(run, launched, argv, told):
    code, _, err = run(*argv)
    assert code == 2
    assert told in err
    assert not launched.commands


def test_a_metric_that_nobody_has_is_drawn(run, launched):
    code, _, err = run(*ABLATE, "--metric", "itm/ir@1", "--metric", "itm/ri@1")
    assert code == 1
    assert "metrics itm/ri@1: no run has them; there are itc/ir@1, itm/ir@1" in err
    assert run(*ABLATE, "--metric", "itm/ir@1")[0] == 0


def test_a_plan_trains(run, launched):
    code, out, err = run(*ABLATE, "--dry-run", "--seeds", "0")
    assert code == 0, err
    assert [line.split("\t")[0] for line in out.splitlines()] == ["new"] * 3
    assert out.splitlines()[1].split("\t")[1:] == ["2 steps", "out/on-top/seed-0", "model.fusion=top"]
    assert not launched.commands
    assert not Path("out").exists()
    assert run(*ABLATE, "--seeds", "0")[0] == 0
    assert [line.split("\t")[0] for line in run(*ABLATE, "--dry-run")[1].splitlines()] == ["finished"] * 3 + ["new"] * 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("scens --mode itm", "unknown dataset 'scens'"),
        ("scenes --mode ITM", "'ITM' is not one of 'itc', 'itm', 'itc+itm'"),
        ("scenes 'a", "No closing quotation; quote a value with spaces as a whole"),
        ("scenes --limt 3", "No such option: --limt"),
        ("scenes --limit 0", "greater than or equal to 1"),
        ("--limit 3", "Missing argument"),
        ("nocaps", "nocaps is for checkpoints of caption, not of coarse"),
        ("flickr8k --root no/such", "no/such"),
        ("scenes --help", "--help measures nothing"),
        ("scenes --checkpoint x", "without --checkpoint: each run is measured by itself"),
        ("scenes --itm-checkpoint x", "without --itm-checkpoint"),
        ("scenes --output x", "without --output"),
        ("scenes --nproc 2", "without --nproc"),
    ],
)
def test_a_wrong_evaluation_is_found_out_after_the_first_training(run, launched, line, told):
    Path("grid.yaml").write_text(GRID.replace("scenes --mode itm --limit 4", line))
    code, _, err = run(*ABLATE)
    assert code == 2
    assert f"in the backbone: evaluate {line!r}: " in err
    assert told in err
    assert "without ITM" not in err
    assert not launched.commands


def test_a_variant_is_measured_by_the_head_of_another(run, launched):
    """`fiber eval` takes what a checkpoint lacks from another run."""
    Path("grid.yaml").write_text(GRID.replace(", evaluate: []", ""))
    code, _, err = run(*ABLATE)
    assert code == 2
    assert "without ITM: evaluate 'scenes --mode itm --limit 4': --mode itm of a model without ITM" in err
    assert "on top" not in err


def test_more_than_the_variants_that_are_asked_for_is_trained(run, launched):
    only = ("--only", "without ITM", "--only", "in the backbone", "--seeds", "1")
    assert run(*ABLATE, *only)[0] == 0
    assert outputs(launched.commands) == [
        "pretrain out/in-the-backbone/seed-1",
        "eval out/in-the-backbone/seed-1/eval-scenes-mode-itm-limit-4",
        "pretrain out/without-ITM/seed-1",
    ]
    assert "on top" in Path("out/comparison.txt").read_text()
    code, _, err = run(*ABLATE, "--only", "without ITC")
    assert code == 2
    assert "--only: unknown variant 'without ITC'" in err
    # What is only compared must have been trained with the same settings.
    code, _, err = run(*ABLATE, "optim.lr=1e-5", "--only", "on top")
    assert code == 1
    assert "out/in-the-backbone/seed-1 holds a run with other settings" in err
    assert len(launched.commands) == 3


def test_a_misspelt_metric_is_told_after_all_runs(run, launched):
    launched.fail_at = 3
    code, _, err = run(*ABLATE, "--metric", "itm/ir@1", "--metric", "itm/ri@1")
    assert code == 75
    assert "in the backbone, which the others are compared with, has no itm/ri@1; it has itc/ir@1, itm/ir@1" in err
