"""`fiber eval` and `fiber rerank`: checkpoint, data and results folder, and what is handed over."""

import os
from pathlib import Path

import pytest

from fiber_cli.tasks.evaluation import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions


def test_eval_of_scenes_with_the_newest_checkpoint(run, calls, tmp_path):
    assert run("eval", "scenes")[0] == 1
    for age, name in enumerate(("new", "old")):
        latest = tmp_path / "runs" / name / "checkpoints" / "latest"
        latest.parent.mkdir(parents=True)
        latest.write_text("step-000001")
        os.utime(latest, (1e9 - age, 1e9 - age))
    code, _, err = run("eval", "scenes")
    assert code == 0
    assert err == "checkpoint: runs/new, the newest run\n"
    ((sources, options),) = calls.eval
    assert [(source.split, len(source)) for source in sources] == [("val", 200)]
    assert options["loaded"].path == Path("runs/new/checkpoints/latest")
    assert (options["dataset"], options["split"], options["options"].mode) == ("scenes", "val", None)


EVAL = ["eval", "scenes", "--split", "test", "--checkpoint", "r/checkpoints/step-000005"]


def test_eval_options_and_output(run, calls):
    assert run(*EVAL, "--batch", "8", "--workers", "0", "--limit", "10")[0] == 0
    options = calls.eval[0][1]
    assert options.pop("loaded").path == Path("r/checkpoints/step-000005")
    assert options == {
        "dataset": "scenes",
        "split": "test",
        "itm": None,
        "output": Path("r/eval/scenes-test-itc-step-000005-first10"),
        "limit": 10,
        "options": EvaluationOptions(mode=None, blind=False, chunk="auto", stem_memory=4.0),
        "predict": PredictOptions(batch_size=8, workers=0),
        "as_json": False,
        "details": {},
        "notes": (),
    }
    assert run(*EVAL, "--output", "o", "--blind", "--chunk", "40")[0] == 0
    options = calls.eval[1][1]
    assert options["output"] == Path("o")
    assert (options["options"].blind, options["options"].chunk, options["predict"].batch_size) == (True, 40, 64)


@pytest.mark.parametrize("mode", [[], ["--mode", "itc+itm"]])
def test_another_checkpoint_may_score_the_pairs(run, calls, mode):
    assert run(*EVAL, *mode, "--itm-checkpoint", "m")[0] == 0
    options = calls.eval[0][1]
    assert options["itm"].path == Path("m")
    assert options["options"].mode == (mode[1] if mode else None)
    assert options["output"] == Path("r/eval/scenes-test-itc+itm-step-000005-m")


def test_eval_in_several_processes(run, calls):
    assert run(*EVAL, "--nproc", "2")[0] == 0
    assert calls.launch == [(2, [*EVAL, "--nproc", "2", "--checkpoint", "r/checkpoints/step-000005", "--nproc", "1"])]
    assert not calls.eval


def test_rerank_of_a_dataset(run, calls):
    assert run("rerank", "scenes", "--top-k", "10,20", "--checkpoint", "r/c", "--json")[0] == 0
    options = calls.eval[0][1]
    assert (options["options"].mode, options["options"].rerank, options["as_json"]) == ("rerank", (10, 20), True)
    assert options["output"] == Path("r/c/eval/scenes-val-rerank-c")


def test_images_and_prompts_do_not_reach_the_data(run, calls, tmp_path, monkeypatch):
    (tmp_path / "flickr30k").mkdir()
    (tmp_path / "flickr30k/dataset_flickr30k.json").touch()
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr("fiber_cli.data.sources.open_source", lambda settings: settings)
    for command in (["eval"], ["rerank", "--top-k", "5"]):
        code, _, err = run(command[0], "flickr30k", "--checkpoint", "r/c", "--images", "pictures", *command[1:])
        assert code == 0, err
        (source,) = calls.eval[-1][0]
        assert (source.json, source.images) == ("flickr30k/dataset_flickr30k.json", "pictures")
    code, _, err = run("eval", "flickr30k", "--checkpoint", "r/c", "--published-prompts")
    assert code == 1
    assert "--published-prompts are those of odinw13" in err


def test_results_with_other_prompts_are_written_over(run, calls, tmp_path, monkeypatch):
    from fiber_cli.evaluation.known import EvalData

    data = EvalData("odinw13", "test", [], "published-prompts", {"prompts": "published"}, ("a note",))
    monkeypatch.setattr("fiber_cli.evaluation.datasets.eval_data", lambda *arguments, **options: data)
    assert run("eval", "scenes", "--checkpoint", "r/c")[0] == 0
    options = calls.eval[0][1]
    assert options["output"] == Path("r/c/eval/odinw13-test-published-prompts-itc-c")
    assert (options["details"], options["notes"]) == ({"prompts": "published"}, ("a note",))


def test_data_of_another_task_is_refused(run, calls, tmp_path):
    lines = tmp_path / "some.jsonl"
    lines.write_text("{}")
    code, _, err = run("eval", str(lines), "--checkpoint", "c")
    assert code == 1
    assert "some.jsonl is for checkpoints of fine, nlvr2, detection, grounding, refexp, not of coarse" in err
    assert not calls.eval
