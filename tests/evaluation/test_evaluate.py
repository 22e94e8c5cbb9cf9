"""From a checkpoint and a data set to results.json."""

import json

import numpy as np
import pytest
import torch
from hole_scenes import BrokenScenes, HoleScenes
from small_runs import TASKS

import fiber_cli
from fiber_cli.checkpoints.loading import load
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.evaluation.evaluate import run_eval
from fiber_cli.tasks.caption import metrics as caption_metrics
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions


def evaluate(sources, run, output, batch=4, limit=None, itm=None, as_json=False, **options):
    """The results of `run_eval` on scenes."""
    return run_eval(
        sources,
        dataset="scenes",
        split="val",
        loaded=load(run),
        output=output,
        options=EvaluationOptions(**options),
        predict=PredictOptions(batch, workers=0),
        itm=itm,
        limit=limit,
        as_json=as_json,
    )


def brute_force(task, tokenizer, source, images):
    """recall@1 both ways, by one forward pass per image and text and a sort per query."""
    with torch.no_grad():
        pixels = [EvalTransform(64)(source.image(i)) for i in images]
        rows = [task.predict({"pixels": p[None]})[0] for p in pixels]
        texts, owner = [], []
        for number, i in enumerate(images):
            for caption in source.captions(i):
                tokens = tokenizer(caption)["input_ids"]
                ids = torch.tensor([tokens if len(tokens) <= 30 else tokens[:29] + tokens[-1:]])
                texts.append(task.predict({"ids": ids, "mask": torch.ones_like(ids, dtype=bool)})[0])
                owner.append(number)
    scores = (torch.stack(rows) @ torch.stack(texts).T).double().numpy()
    owner = np.array(owner)
    ir = np.mean(scores.argmax(0) == owner)
    tr = np.mean(owner[scores.argmax(1)] == np.arange(len(images)))
    return 100 * ir, 100 * tr


def test_results_are_those_of_brute_force_and_bad_images_are_told(saved, tmp_path, capsys):
    source, loaded = HoleScenes("val", 7, image_size=64), load(saved)
    results = evaluate([source], saved, tmp_path / "out", batch=3, mode="itc")
    ir, tr = brute_force(loaded.task, loaded.context.tokenizer, source, [0, 1, 3, 4, 5, 6])
    assert results["metrics"]["itc/ir@1"] == pytest.approx(ir)
    assert results["metrics"]["itc/tr@1"] == pytest.approx(tr)
    assert set(results["metrics"]) == {f"itc/{d}@{k}" for d in ("ir", "tr") for k in (1, 5, 10)}
    assert results["samples"] == results["images"] == 6
    assert [reason for _, reason in results["bad"]] == ["damaged"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == json.loads(json.dumps(results))
    assert {"dataset", "split", "mode", "checkpoint", "seconds", "version"} <= set(results)
    assert (results["precision"], results["device"]) == ("fp32", "cpu")
    assert "tf32" not in results
    assert "left out: 1" in capsys.readouterr().out


def test_the_first_samples_alone_are_evaluated(saved, tmp_path):
    source = HoleScenes("val", 7, image_size=64)
    assert evaluate([source], saved, tmp_path, mode="itc", limit=2)["samples"] == 2
    assert evaluate([source, source], saved, tmp_path, mode="itc", limit=1)["samples"] == 2
    assert len(source) == 7


def test_json_on_screen_is_what_is_on_disk(saved, tmp_path, capsys):
    results = evaluate([ScenesSource("val", 2, image_size=64)], saved, tmp_path, as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "results.json").read_text())
    assert (results["dataset"], results["split"], results["mode"]) == ("scenes", "val", "itc")
    assert results["checkpoint"] == str(load(saved).path)
    assert results["version"] == fiber_cli.__version__
    assert "itm_checkpoint" not in results


def test_data_that_is_empty_and_options_that_do_not_fit_are_refused(saved, runs, tmp_path):
    with pytest.raises(UserError, match="no image with a text"):
        evaluate([], saved, tmp_path, mode="itc")
    with pytest.raises(UserError, match=r"--mode itc is for retrieval; .*step-000001 is a checkpoint of vqa"):
        evaluate([ScenesSource("val", 2)], runs["vqa"], tmp_path, mode="itc")
    with pytest.raises(UserError, match="nothing to evaluate"):
        evaluate([BrokenScenes("val", 2)], runs["vqa"], tmp_path)
    with pytest.raises(UserError, match=r"--chunk is for detection; .*step-000003 is a checkpoint of coarse"):
        evaluate([ScenesSource("val", 2)], saved, tmp_path, chunk=40)
    with pytest.raises(UserError, match="--blind: in retrieval chance is known"):
        evaluate([ScenesSource("val", 2)], saved, tmp_path, blind=True)


@pytest.mark.parametrize("name", TASKS)
def test_results_of_every_task(runs, name, tmp_path, capsys, monkeypatch):
    # Which takes ten seconds to start.
    monkeypatch.setattr(caption_metrics, "_meteors", lambda groups: [0.5] * len(groups))
    loaded = load(runs[name])
    results = evaluate([HoleScenes("val", 6, image_size=64)], runs[name], tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == json.loads(json.dumps(results))
    assert written["mode"] == {"retrieval": "itm"}.get(name, name)
    assert {reason for _, reason in written["bad"]} == {"damaged"}
    assert written["samples"] > 0
    metrics = set(loaded.declaration.metrics(loaded.context.settings))
    assert metrics & written["metrics"].keys()
    # What a caption is worth is told in full only where Java runs.
    assert name == "caption" or metrics <= written["metrics"].keys()
    files = {
        "vqa": "predictions.json",
        "vqa_generated": "predictions.json",
        "nlvr2": "predictions.csv",
        "retrieval": "rankings.json",
    }
    assert (tmp_path / files.get(name, "captions.json")).stat().st_size > 10
    assert "left out" in capsys.readouterr().out


def test_blind_is_measured_beside(runs, tmp_path):
    source = ScenesSource("val", 6, image_size=64)
    metrics = evaluate([source], runs["vqa"], tmp_path, batch=8, blind=True)["metrics"]
    assert {"vqa/accuracy", "blind/vqa/accuracy"} <= metrics.keys()


def test_another_checkpoint_scores_the_pairs_and_is_named(saved, runs, tmp_path):
    source = ScenesSource("val", 4, image_size=64)
    scorer = load(runs["retrieval"])
    results = evaluate([source], saved, tmp_path, itm=scorer, rerank=(2, 3), mode="rerank")
    assert results["itm_checkpoint"] == str(scorer.path)
    assert {"itc/ir@1", "rerank-2/tr@5", "rerank-3/ir@10"} <= results["metrics"].keys()
    assert not (tmp_path / ".pairs").exists()
    with pytest.raises(UserError, match="--itm-checkpoint scores pairs: it is for retrieval with fusion"):
        evaluate([source], saved, tmp_path, itm=load(runs["vqa"]))
    with pytest.raises(UserError, match="--itm-checkpoint scores pairs"):
        evaluate([source], runs["vqa"], tmp_path, itm=scorer)
