"""Commands as the pages have them, after the runs that precede them, on real small checkpoints."""

import json
import os
import shutil

import pytest
from commands import command
from run_folders import COCO_CAPTIONS, FLICKR30K, OBJECTS365, SCENES, write_recipe
from small_runs import RECIPE

from fiber_cli.checkpoints import saving
from fiber_cli.checkpoints.weights import named_weights
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.training.work import work

DETECTOR = RECIPE.replace(
    "{name: coarse}", "{name: fine, channels: 32, blocks: 1, short_sides: [64], longest_side: 64}"
).replace("depths: [1, 2], image_heads: [2, 4]", "depths: [1, 1, 1], image_heads: [2, 4, 8]")


@pytest.fixture
def sequence(runs, tmp_path, monkeypatch):
    """Adds a run to those of the current folder, newer than they are."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def add(name, source, *data):
        age = len(list(tmp_path.glob("runs/*")))
        run = tmp_path / "runs" / name
        shutil.copytree(source, run)
        write_recipe(run, *data)
        os.utime(run / "checkpoints" / "latest", (1e9 + age, 1e9 + age))

    return add


@pytest.fixture
def flickr30k(tmp_path):
    """The data set's files with four drawn pictures."""
    folder = tmp_path / "data" / "flickr30k"
    (folder / "flickr30k-images").mkdir(parents=True)
    scenes = ScenesSource("val", 4, image_size=64)
    images = []
    for number in range(4):
        scenes.image(number).save(folder / "flickr30k-images" / f"{number}.jpg")
        sentences = [{"raw": caption} for caption in scenes.captions(number)[:2]]
        images.append({"filename": f"{number}.jpg", "split": "test", "imgid": number, "sentences": sentences})
    (folder / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    return folder


def trained(tmp_path, recipe: str, *overrides: str):
    """A run with random weights, kept outside runs/."""
    made = work(parse_recipe(recipe, "test", overrides))
    folder = tmp_path / "made" / str(len(list(tmp_path.glob("made/*"))))
    saving.save(folder, 1, config=made.config, weights=named_weights(made.task), tokenizer=made.tokenizer)
    return folder


def test_retrieval_by_both_after_the_papers_sequence(sequence, runs, flickr30k, tmp_path, capsys):
    itc = trained(tmp_path, RECIPE.replace("{name: coarse}", "{name: retrieval, itm: 0}"))
    sequence("4m", runs["coarse"], COCO_CAPTIONS)
    sequence("coco_itc", itc, COCO_CAPTIONS)
    sequence("coco_itm", runs["retrieval"], COCO_CAPTIONS)
    sequence("flickr30k_itc", itc, FLICKR30K)
    sequence("flickr30k_itm", runs["retrieval"], FLICKR30K)
    sequence("vqav2", runs["vqa"], SCENES)
    sequence("caption_mle", runs["caption"], COCO_CAPTIONS)
    words = ("--root", flickr30k, "--workers", "0")
    code, _, err = command(capsys, "eval", "flickr30k", "--mode", "itc+itm", *words)
    assert code == 0, err
    assert "checkpoint: runs/flickr30k_itc," in err
    assert "itm-checkpoint: runs/flickr30k_itm," in err
    (file,) = tmp_path.glob("runs/*/eval/*/results.json")
    assert file.parent.name == "flickr30k-test-itc+itm-step-000001-flickr30k_itm"
    results = json.loads(file.read_text())
    assert (results["checkpoint"], results["itm_checkpoint"]) == (
        "runs/flickr30k_itc/checkpoints/step-000001",
        "runs/flickr30k_itm/checkpoints/step-000001",
    )
    assert {name.split("/")[0] for name in results["metrics"]} >= {"itc", "itm", "itc+itm"}
    code, _, err = command(capsys, "rerank", "flickr30k", "--top-k", "2", *words)
    assert code == 0, err
    images = flickr30k / "flickr30k-images"
    code, out, err = command(capsys, "rerank", "--images", images, "--query", "a star", "--json", "--workers", "0")
    assert code == 0, err
    assert len(json.loads(out)) == 4
    words = ("--images", images, "--query", "a star", "--checkpoint", "runs/4m", "--workers", "0")
    assert command(capsys, "rerank", *words)[0] == 0  # the folder has the other checkpoint's index


def test_detection_by_names_after_all_detectors(sequence, tmp_path, capsys):
    kinds = {"fine": "scene_detection", "detection": "scene_detection", "refexp": "scene_referring"}
    made = {}
    for task, kind in kinds.items():
        recipe = DETECTOR.replace("name: fine", f"name: {task}")
        made[task] = trained(tmp_path, recipe, f"data.train=[{{kind: {kind}, count: 8, image_size: 64}}]")
    sequence("fine", made["fine"], OBJECTS365)
    sequence("coco_detection", made["detection"], SCENES)
    sequence("refcoco", made["refexp"], SCENES)
    ScenesSource("val", 1, image_size=64).image(0).save(tmp_path / "img.jpg")
    code, out, err = command(capsys, "detect", "img.jpg", "cat . dog", "--threshold", "0")
    assert code == 0, err
    assert "checkpoint: runs/fine, the newest pre-trained run for names" in err
    assert {line.split("\t")[1] for line in out.splitlines()} <= {"cat", "dog"}


def test_a_detector_of_other_things_is_evaluated_on_scenes(sequence, tmp_path, capsys):
    overrides = "data.train=[{kind: scene_detection, count: 8, image_size: 64}]"
    made = trained(tmp_path, DETECTOR.replace("name: fine", "name: detection"), overrides)
    cells = {"kind": "coco", "json": "cells/instances_train.json", "images": "cells/train"}
    sequence("tiny_detection", made, {"kind": "scene_detection"})
    sequence("detection", made, cells)
    code, _, err = command(capsys, "eval", "scenes", "--limit", "2", "--workers", "0")
    assert code == 0, err
    assert "checkpoint: runs/tiny_detection, the newest run for scenes that was trained on scenes" in err
    assert "newer, but less fit: runs/detection" in err
