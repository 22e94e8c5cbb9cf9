"""`fiber eval` and `fiber rerank`: checkpoint, data and results folder, and what is handed over."""

import json
from pathlib import Path

import pytest
from run_folders import COCO_CAPTIONS, FLICKR30K, SCENES, make_run

from fiber_cli.distributed.folder_lock import locked
from fiber_cli.placement import Placement
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions


def test_eval_of_scenes_with_the_newest_run_that_can(run, calls, tmp_path):
    assert run("eval", "scenes")[0] == 1
    make_run(tmp_path, "coarse", SCENES)
    make_run(tmp_path, "coarse", SCENES)
    make_run(tmp_path, "coarse", FLICKR30K)
    code, _, err = run("eval", "scenes")
    assert code == 0
    assert err == (
        "checkpoint: runs/coarse1, the newest run for scenes that was trained on scenes; "
        "newer, but less fit: runs/coarse2\n"
    )
    ((sources, options),) = calls.eval
    assert [(source.split, len(source)) for source in sources] == [("val", 200)]
    assert options["loaded"].path == Path("runs/coarse1")
    assert (options["dataset"], options["split"], options["options"].mode) == ("scenes", "val", None)
    assert calls.latest == [False]
    assert run("eval", "scenes", "--latest")[0] == 0
    assert calls.latest == [False, True]


@pytest.fixture
def flickr30k(tmp_path):
    """A folder with the data set's files, and runs in the paper's own order."""
    folder = tmp_path / "data" / "flickr30k"
    (folder / "flickr30k-images").mkdir(parents=True)
    (folder / "flickr30k-images" / "1.jpg").touch()
    image = {"filename": "1.jpg", "split": "test", "imgid": 0, "sentences": [{"raw": "a dog"}]}
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": [image]}))
    make_run(tmp_path, "coarse", COCO_CAPTIONS)
    for data in (COCO_CAPTIONS, FLICKR30K):
        make_run(tmp_path, "retrieval", data, itm=0.0)
        make_run(tmp_path, "retrieval", data, itc=0.0, itm_negatives="random")
    make_run(tmp_path, "vqa", {"kind": "vqa", "questions": "vqa/v2_OpenEnded_mscoco_train2014_questions.json"})
    make_run(tmp_path, "caption", COCO_CAPTIONS)
    return folder


def models(calls) -> tuple[str, str | None]:
    """The runs of the last evaluation: the checkpoint, and what scores pairs."""
    options = calls.eval[-1][1]
    return options["loaded"].path.name, options["itm"] and options["itm"].path.name


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--mode", "itc+itm"], ("retrieval3", "retrieval4")),
        (["--mode", "itc"], ("retrieval3", None)),
        (["--mode", "itm"], ("retrieval4", None)),
        ([], ("retrieval4", None)),
        (["--checkpoint", "runs/coarse0", "--mode", "itc+itm"], ("coarse0", None)),
        (["--itm-checkpoint", "runs/retrieval2"], ("retrieval3", "retrieval2")),
        (["--itm-checkpoint", "runs/retrieval2", "--mode", "itm"], ("retrieval2", None)),
    ],
)
def test_after_the_papers_sequence_a_mode_finds_its_models(run, calls, flickr30k, options, expected):
    code, _, err = run("eval", "flickr30k", "--root", str(flickr30k), *options)
    assert code == 0, err
    assert models(calls) == expected


def test_both_models_are_told(run, calls, flickr30k):
    _, _, err = run("eval", "flickr30k", "--root", str(flickr30k), "--mode", "itc+itm")
    assert (
        "checkpoint: runs/retrieval3, the newest run for ITC on flickr30k that was trained on data named flickr30k"
        in err
    )
    assert (
        "itm-checkpoint: runs/retrieval4, the newest run for ITM on flickr30k that was trained on data named flickr30k"
        in err
    )


def test_reranking_finds_both_models_too(run, calls, flickr30k):
    assert run("rerank", "flickr30k", "--root", str(flickr30k), "--top-k", "10")[0] == 0
    assert models(calls) == ("retrieval3", "retrieval4")


def test_ranks_are_given_both_models(run, calls, flickr30k):
    argv = ["eval", "flickr30k", "--root", str(flickr30k), "--mode", "itc+itm", "--nproc", "2"]
    assert run(*argv)[0] == 0
    settled = ["--checkpoint", "runs/retrieval3", "--itm-checkpoint", "runs/retrieval4"]
    assert calls.launch == [(2, [*argv, *settled, "--nproc", "1"])]


def test_data_of_no_run_is_evaluated_by_one_that_can(run, calls, flickr30k, tmp_path):
    other = json.loads((flickr30k / "dataset_flickr30k.json").read_text())
    (tmp_path / "dataset_other.json").write_text(json.dumps(other))
    images = str(flickr30k / "flickr30k-images")
    _, _, err = run("eval", "dataset_other.json", "--root", images, "--mode", "itc+itm")
    assert models(calls) == ("coarse0", None)
    assert "none was trained on dataset_other.json" in err
    code, _, err = run("eval", "nlvr2")
    assert code == 1
    assert "no run below runs/ is for nlvr2; name a checkpoint with --checkpoint. Looked at:" in err
    assert "\n  runs/caption6 is a run of caption\n" in err


EVAL = ["eval", "scenes", "--split", "test", "--checkpoint", "r/checkpoints/step-000005"]


def test_eval_options_and_output(run, calls):
    assert run(*EVAL, "--batch", "8", "--workers", "0", "--limit", "10")[0] == 0
    options = calls.eval[0][1]
    assert options.pop("loaded").path == Path("r/checkpoints/step-000005")
    assert not options.pop("outputs").force
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
        "placement": Placement(device=None, precision="auto", tf32=None),
    }
    assert run(*EVAL, "--output", "o", "--blind", "--chunk", "40")[0] == 0
    options = calls.eval[1][1]
    assert options["output"] == Path("o")
    assert (options["options"].blind, options["options"].chunk, options["predict"].batch_size) == (True, 40, 64)


@pytest.mark.parametrize("command", ["eval", "rerank"])
def test_precision_and_device_do_not_reach_an_evaluation(run, calls, command):
    assert run(command, *EVAL[1:], "--precision", "bf16", "--device", "cuda:1", "--tf32")[0] == 0
    assert calls.eval[0][1]["placement"] == Placement("cuda:1", "bf16", True)
    code, _, err = run(*EVAL, "--precision", "int4")
    assert code == 2
    assert "'--precision': 'int4' is not one of 'auto', 'fp32', 'bf16', 'fp16', 'int8'" in " ".join(err.split())


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
    assert options["output"] == Path("eval/scenes-val-rerank-c")  # not in a checkpoint that stands alone


def test_images_and_prompts_do_not_reach_the_data(run, calls, tmp_path, monkeypatch):
    (tmp_path / "flickr30k").mkdir()
    (tmp_path / "flickr30k/dataset_flickr30k.json").touch()
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr("fiber_cli.data.sources.open_source", lambda settings, max_pixels=None: settings)
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
    assert options["output"] == Path("eval/odinw13-test-published-prompts-itc-c")
    assert (options["details"], options["notes"]) == ({"prompts": "published"}, ("a note",))


def test_data_of_another_task_is_refused(run, calls, tmp_path):
    lines = tmp_path / "some.jsonl"
    lines.write_text("{}")
    code, _, err = run("eval", str(lines), "--checkpoint", "c")
    assert code == 1
    assert "some.jsonl is for checkpoints of fine, nlvr2, detection, grounding, refexp, not of coarse" in err
    assert not calls.eval


@pytest.mark.parametrize("verb", ["eval", "rerank"])
def test_two_evaluations_write_into_one_folder(run, calls, monkeypatch, verb):
    monkeypatch.setattr("fiber_cli.distributed.folder_lock.PATIENCE_SECONDS", 0.2)
    with locked(Path("out")):
        code, _, err = run(verb, "scenes", "--checkpoint", "c", "--output", "out")
    assert code == 1
    assert "fiber: out is in use by process " in err
    assert not calls.eval
    assert run(verb, "scenes", "--checkpoint", "c", "--output", "out")[0] == 0
    assert len(calls.eval) == 1
