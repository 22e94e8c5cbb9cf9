"""Runs with each head of the detector: trained, resumed, started from another head's, evaluated and used."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.published.back import convert_back
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.cli.app import main
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene
from fiber_cli.errors import UserError
from fiber_cli.inference.fiber import Fiber
from fiber_cli.training.fit import fit

HEADS = ("retinanet", "faster_rcnn")
MODEL = """
model: {preset: tiny, image_size: 64, text_length: 60, depths: [1, 1, 1], text_layers: 2, fusion_layers: 1}
optim: {lr: 1e-3, cross_modal_mult: 1, steps: 2}
runtime: {micro_batch: 2, global_batch: 4}
"""
SIZES = "channels: 32, drop_block: 0, short_sides: [64], longest_side: 96, score_threshold: 0.0, max_detections: 20"
FINE = f"""{MODEL}
task: {{name: fine, negatives: 4, {SIZES}}}
data:
  train: [{{kind: scene_detection, count: 8}}, {{kind: scene_grounding, count: 8}}, {{kind: scene_referring, count: 8}}]
  val: [{{kind: scene_detection, split: val, count: 3}}]
  workers: 0
log: {{validate_every: 2, keep_best: detection/ap50}}
"""
NOT_VALIDATED = ("log.validate_every=null", "log.keep_best=null", "log.save_every=2")


def train(text: str, output: Path, *overrides: str, **options) -> Path:
    assert fit(parse_recipe(text, "test", overrides), output, **options) == 0
    return output


@pytest.fixture(scope="module", params=HEADS)
def head(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def fine(head, tmp_path_factory) -> Path:
    return train(FINE, tmp_path_factory.mktemp(head), f"task.head={head}")


def test_a_run_has_no_losses_of_its_head(fine, head):
    first = json.loads((fine / "metrics.jsonl").read_text().splitlines()[0])
    assert {"token_loss", "reg_loss"} <= first.keys()
    assert ("proposal_loss" in first) == (head == "faster_rcnn")
    assert "centerness_loss" not in first
    assert json.loads((resolve(fine) / "config.json").read_text())["task"]["head"] == head
    assert "detection/ap50" in json.loads((fine / "summary.json").read_text())["metrics"]


def test_a_run_goes_on_otherwise(head, tmp_path):
    """Bit for bit, the random choice of regions with it."""
    settings = (f"task.head={head}", "optim.steps=4", *NOT_VALIDATED)
    whole = train(FINE, tmp_path / "whole", *settings)
    part = tmp_path / "part"
    shutil.copytree(whole, part)
    (part / "checkpoints/latest").write_text("step-000002")
    shutil.rmtree(part / "checkpoints/step-000004")
    train(FINE, part, *settings, resume=True)
    first, second = (load_weights(resolve(run)) for run in (whole, part))
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.parametrize("task", ["detection", "grounding", "refexp"])
def test_a_task_is_not_tuned_from_a_fine_checkpoint(fine, head, task, tmp_path, capsys):
    kind = {"detection": "scene_detection", "grounding": "scene_grounding", "refexp": "scene_referring"}[task]
    recipe = f"{MODEL}\ntask: {{name: {task}, {SIZES}}}\ndata: {{train: [{{kind: {kind}, count: 8}}], workers: 0}}\n"
    run = train(recipe, tmp_path / "run", f"task.head={head}", init_from=fine)
    assert "left out: none" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "eval",
                "scenes",
                "--checkpoint",
                str(run),
                "--output",
                str(tmp_path / "eval"),
                "--limit",
                "3",
                "--workers",
                "0",
            ]
        )
    assert not stop.value.code, capsys.readouterr().err
    results = json.loads((tmp_path / "eval/results.json").read_text())
    metric = {"detection": "detection/ap", "grounding": "grounding/any_box/r@1", "refexp": "refexp/acc@iou50"}[task]
    assert metric in results["metrics"]


def test_pictures_are_searched_with_other_limits(fine, tmp_path):
    """One prompt or one a name, all boxes inside their picture, each score at least what is asked for."""
    draw(scene(0, "val", 0, 64)).resize((90, 60)).save(tmp_path / "a.png")
    fiber = Fiber.from_pretrained(fine)
    names = ["red star", "blue ring", "green heart"]
    found = fiber.detect(tmp_path / "a.png", names, threshold=0)
    assert found
    assert {each.label for each in found} <= set(names)
    boxes = np.array([each.box for each in found])
    assert (boxes >= 0).all()
    assert (boxes <= [90, 60, 90, 60]).all()
    middle = found[len(found) // 2].score
    assert fiber.detect(tmp_path / "a.png", names, threshold=middle) == [each for each in found if each.score >= middle]
    assert fiber.detect(tmp_path / "a.png", names, threshold=0, chunk=1)
    assert fiber.ground(tmp_path / "a.png", "a red star and a blue ring", ["red star", "blue ring"], threshold=0)


def test_another_heads_checkpoint_starts_nothing_or_too_much(fine, head, tmp_path, capsys):
    """What all heads have is taken, the other head's own is left out, and both are told."""
    recipe = FINE.replace("optim: {lr: 1e-3", "optim: {lr: 1e-12")
    run = train(recipe, tmp_path / "atss", "task.head=atss", "task.blocks=1", *NOT_VALIDATED, init_from=fine)
    new, usual, left_out = capsys.readouterr().err.partition("  new: ")[2].split("  left out")
    assert usual == ": none\n"
    assert left_out.startswith(", because task has other settings than the checkpoint's: ")
    own = {"retinanet": "detector.head.features.", "faster_rcnn": "detector.head.rpn."}[head]
    assert own in left_out
    assert "detector.head.tower.0." in new
    assert "text_proj" not in new + left_out
    before, after = load_weights(resolve(fine)), load_weights(resolve(run))
    for name in ("detector.fpn.p6.weight", "detector.head.text_proj.weight"):
        torch.testing.assert_close(after[name], before[name])


def test_a_head_that_the_published_code_has_not_goes_back(fine, head, tmp_path):
    with pytest.raises(UserError, match=f"trained with task.head={head}, which the published code does not have"):
        convert_back(fine, tmp_path / "x.pth")
