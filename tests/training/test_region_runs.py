"""Region-level runs from beginning to end: fine from coarse, detection from a user's own JSON, and their evaluation."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.weights import load_weights
from fiber_cli.cli.app import main
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.scenes.categories import category_boxes
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene
from fiber_cli.evaluation.odinw13 import SETS
from fiber_cli.training.fit import fit

MODEL = """
model: {preset: tiny, image_size: 64, text_length: 60, depths: [1, 1, 1], text_layers: 2, fusion_layers: 1}
optim: {lr: 1e-3, cross_modal_mult: 1, steps: 2}
runtime: {micro_batch: 2, global_batch: 4}
"""
SIZES = "channels: 32, blocks: 1, drop_block: 0, short_sides: [64], longest_side: 96, score_threshold: 0.0"
COARSE = MODEL + "task: {name: coarse}\ndata: {train: [{kind: scenes, count: 8}], workers: 0}\n"
VAL = "{kind: scene_detection, split: val, count: 3}, {kind: scene_referring, split: val, count: 3}"
FINE = f"""{MODEL}
task: {{name: fine, negatives: 4, {SIZES}}}
data:
  train: [{{kind: scene_detection, count: 8}}, {{kind: scene_grounding, count: 8}}, {{kind: scene_referring, count: 8}}]
  val: [{VAL}]
  workers: 0
log: {{validate_every: 2, keep_best: detection/ap50}}
"""


def train(text: str, output: Path, *overrides: str, **options) -> Path:
    assert fit(parse_recipe(text, "test", overrides), output, **options) == 0
    return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train(COARSE, folder / "coarse")
    train(FINE, folder / "fine", init_from=folder / "coarse")
    return folder


@pytest.fixture(scope="module")
def users_data(tmp_path_factory) -> Path:
    """A user's data set: holes in the ids, a crowd, a box of no area, an image without boxes, grey and broken ones."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "images").mkdir()
    names = {"red star": 3, "blue ring": 7}
    images, annotations = [], []
    for i in range(8):
        drawn = scene(0, "train", i)
        picture = draw(drawn)
        (picture.convert("L") if i == 1 else picture).save(folder / f"images/{i}.png")
        images.append({"id": 10 + i, "file_name": f"{i}.png", "width": picture.width, "height": picture.height})
        for n, (_, (x1, y1, x2, y2)) in enumerate(category_boxes(drawn) if i else ()):
            box = {"image_id": 10 + i, "category_id": (3, 7)[n % 2], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            annotations.append(box | {"id": len(annotations), "area": (x2 - x1) * (y2 - y1)})
    annotations.append({**annotations[0], "iscrowd": 1, "id": 900})
    annotations.append({**annotations[0], "bbox": [5, 5, 0, 10], "area": 0, "id": 901})
    (folder / "images/7.png").write_bytes(b"no picture")
    categories = [{"id": number, "name": name} for name, number in names.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "own.json").write_text(json.dumps(content))
    return folder


def evaluate(capsys, dataset: str, checkpoint: Path, output: Path, *more: str) -> dict:
    with pytest.raises(SystemExit) as stop:
        main(["eval", dataset, "--checkpoint", str(checkpoint), "--output", str(output), "--workers", "0", *more])
    assert not stop.value.code, capsys.readouterr().err
    return json.loads((output / "results.json").read_text())


def test_fine_takes_the_encoder_of_coarse(runs, capsys):
    coarse, fine = (load_weights(resolve(runs / name)) for name in ("coarse", "fine"))
    assert {name for name in coarse if name.startswith("encoder.")} - fine.keys() == {
        "encoder.image.norm.weight",
        "encoder.image.norm.bias",
    }
    assert fine.keys() - coarse.keys() == {name for name in fine if name.startswith("detector.")}
    recorded = [json.loads(line) for line in (runs / "fine/metrics.jsonl").read_text().splitlines()]
    assert {"token_loss", "reg_loss", "centerness_loss"} <= recorded[0].keys()
    validated = json.loads((runs / "fine/summary.json").read_text())["metrics"]
    assert {"detection/ap50", "refexp/acc@iou50"} <= validated.keys()


def test_evaluation_on_scenes(runs, tmp_path, capsys):
    results = evaluate(capsys, "scenes", runs / "fine", tmp_path, "--limit", "4", "--chunk", "20")
    assert results["mode"] == "fine"
    assert results["samples"] == 8
    assert {"detection/ap", "refexp/acc@giou50"} <= results["metrics"].keys()
    found = json.loads((tmp_path / "scene-detection-val-0/detections.json").read_text())
    assert found
    assert found[0].keys() == {"image_id", "category_id", "bbox", "score"}


@pytest.mark.parametrize("overrides", [(), ("model.fusion_layers=0",)], ids=["fused", "no fuse"])
def test_detection_from_a_users_json(runs, users_data, tmp_path, capsys, overrides):
    """Nothing is given but a JSON and a folder; from the fine checkpoint, or from nothing and without fusion."""
    source = f"{{kind: coco, json: {users_data}/own.json, images: {users_data}/images}}"
    recipe = f"{MODEL}\ntask: {{name: detection, prompt: all, {SIZES}}}\n"
    recipe += f"data: {{train: [{source}], val: [{source}], workers: 0, max_bad_rate: 1}}\nlog: {{validate_every: 2}}\n"
    run = train(recipe, tmp_path / "run", *overrides, init_from=None if overrides else runs / "fine")
    err = capsys.readouterr().err
    assert "1 boxes without an area inside their image are not trained on" in err
    assert load(run).context.labels == ("red star", "blue ring")
    results = evaluate(capsys, str(users_data / "own.json"), run, tmp_path / "eval")
    assert results["samples"] == 7
    assert len(results["bad"]) == 1
    assert "7.png" in results["bad"][0][0]
    assert "detection/ap50" in results["metrics"]
    found = json.loads((tmp_path / "eval/detections.json").read_text())
    assert {row["category_id"] for row in found} == {3, 7}
    assert {row["image_id"] for row in found} == set(range(10, 17))


def test_grounding_and_referring(runs, tmp_path, capsys):
    for task, metric in (("grounding", "grounding/any_box/r@1"), ("refexp", "refexp/acc@iou50")):
        kind = {"grounding": "scene_grounding", "refexp": "scene_referring"}[task]
        recipe = (
            f"{MODEL}\ntask: {{name: {task}, {SIZES}}}\ndata: {{train: [{{kind: {kind}, count: 8}}], workers: 0}}\n"
        )
        run = train(recipe, tmp_path / task, init_from=runs / "fine")
        results = evaluate(capsys, "scenes", run, tmp_path / f"{task}-eval", "--limit", "3")
        assert metric in results["metrics"]
        assert results["mode"] == task


def test_runs_go_on_exactly(runs, tmp_path):
    whole = train(FINE, tmp_path / "whole", "optim.steps=4", "log.validate_every=null", "log.keep_best=null")
    plain = ("log.validate_every=null", "log.keep_best=null", "log.save_every=2")
    part = train(FINE, tmp_path / "part", "optim.steps=4", *plain)
    (part / "checkpoints/latest").write_text("step-000002")
    shutil.rmtree(part / "checkpoints/step-000004")
    train(FINE, part, "optim.steps=4", *plain, resume=True)
    first, second = (load_weights(resolve(run)) for run in (whole, part))
    assert all(first[name].equal(second[name]) for name in first)


def test_several_sets_are_averaged(runs, users_data, tmp_path, capsys):
    """As ODinW counts: the plain mean of the sets' AP."""
    entries = [{"name": name, "json": "own.json", "images": "images"} for name in ("one", "two")]
    (users_data / "sets.yaml").write_text(json.dumps(entries))
    results = evaluate(capsys, str(users_data / "sets.yaml"), runs / "fine", tmp_path)
    metrics = results["metrics"]
    assert metrics["odinw/ap"] == pytest.approx((metrics["odinw/ap/one"] + metrics["odinw/ap/two"]) / 2)
    assert "detection/ap" not in metrics
    assert (tmp_path / "one/detections.json").is_file()


@pytest.fixture
def archive(users_data, tmp_path) -> Path:
    """Two sets of ODinW in the archive's layout, with a draw of one shot each: the picture of the user's first box."""
    content = json.loads((users_data / "own.json").read_text())
    content["images"] = content["images"][:6]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] < 16]
    few = {**content, "images": content["images"][1:3]}
    few["annotations"] = [each for each in content["annotations"] if each["image_id"] in (11, 12)]
    for each in SETS:
        if each.name in ("Raccoon", "pistols"):
            for split in ("train", "valid", "test"):
                folder = tmp_path / "odinw" / each.pictures(split)
                shutil.copytree(users_data / "images", folder, dirs_exist_ok=True)
                (tmp_path / "odinw" / each.annotations(split)).write_text(json.dumps(content))
            (tmp_path / "odinw" / each.few_shot_annotations(1, 3)).write_text(json.dumps(few))
    return tmp_path


def test_odinw_is_not_tuned_and_measured_on_all_sets(runs, archive, tmp_path, monkeypatch, capsys):
    """The command's own commands, in this process; what is measured is what `fiber eval` measures."""

    def launch(nproc: int, argv: list[str], name: str = "", asked: object = None) -> int:
        with pytest.raises(SystemExit) as stop:
            main(argv)
        return int(stop.value.code or 0)

    monkeypatch.setattr("fiber_cli.distributed.launch.launch", launch)
    sizes = ["model.preset=tiny", "model.image_size=64", "model.text_length=60", "model.depths=[1, 1, 1]"]
    sizes += ["model.text_layers=2", "model.fusion_layers=1", "model.drop_path=0", "model.tokenizer=builtin"]
    sizes += [f"task.{setting.replace(': ', '=')}" for setting in SIZES.split(", ")]
    short = ["optim.epochs=2", "optim.warmup=0", "runtime.global_batch=2", "runtime.micro_batch=2", "data.workers=0"]
    start = ["odinw", "--root", str(archive), "--init-from", str(runs / "fine"), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main([*start, "--shots", "0,1", "--seeds", "3", *sizes, *short])
    captured = capsys.readouterr()
    assert not stop.value.code, captured.err
    summary = json.loads((tmp_path / "out/odinw.json").read_text())
    assert [(run["set_name"], run["shots"]) for run in summary["runs"]] == [
        ("pistols", 0),
        ("Raccoon", 0),
        ("pistols", 1),
        ("Raccoon", 1),
    ]
    for run in summary["runs"]:
        name = "full" if run["seed"] is None else "shot1-seed3"
        results = json.loads((tmp_path / "out" / run["set_name"] / name / "test/results.json").read_text())
        assert run["ap"] == results["metrics"]["detection/ap"]
    assert "mean of 2" in captured.out
    lines = (tmp_path / "out/Raccoon/shot1-seed3/metrics.jsonl").read_text().splitlines()
    trained = [json.loads(line) for line in lines]
    # Two pictures, each eight times, in batches of two: validated after 8 and 16 steps.
    assert [record["step"] for record in trained if "detection/ap" in record] == [8, 16]
    frozen = load_weights(resolve(tmp_path / "out/Raccoon/full"))
    before = load_weights(resolve(runs / "fine"))
    stem = [name for name in before if name.startswith(("encoder.image.patch_embed.", "encoder.image.stages.0."))]
    assert stem
    assert all(frozen[name].equal(before[name]) for name in stem)
    assert not frozen["detector.head.bias0"].equal(before["detector.head.bias0"])


def test_what_is_left_out_and_what_is_predicted_only_is_not_told(runs, users_data, tmp_path, capsys):
    content = json.loads((users_data / "own.json").read_text())
    content["annotations"][0] = {"image_id": 99, "category_id": 3, "bbox": [1, 1, 9, 9]}
    for annotation in content["annotations"][1:]:
        annotation.update(area=None, iscrowd=str(annotation["iscrowd"]))
    root = ("--root", str(users_data / "images"))
    (tmp_path / "text.json").write_text(json.dumps(content))
    results = evaluate(capsys, str(tmp_path / "text.json"), runs / "fine", tmp_path / "text", *root)
    assert "detection/ap50" in results["metrics"]
    assert "annotations[0] (there is no image 99, named by 1 of the annotations)" in results["notes"][0]
    assert results["notes"][1] == "1 boxes of text without an area inside their image are not scored"
    del content["annotations"]
    (tmp_path / "test.json").write_text(json.dumps(content))
    results = evaluate(capsys, str(tmp_path / "test.json"), runs / "fine", tmp_path / "test", *root)
    assert results["metrics"] == {}
    assert results["notes"] == ["test has no annotations: predicted only"]
    assert json.loads((tmp_path / "test/detections.json").read_text())


def test_wrong_sizes_are_told(users_data, runs, tmp_path, capsys):
    """Boxes of another picture's size are told from the picture."""
    content = json.loads((users_data / "own.json").read_text())
    content["images"][2]["width"] += 1
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    results = evaluate(
        capsys, str(tmp_path / "wrong.json"), runs / "fine", tmp_path / "e", "--root", str(users_data / "images")
    )
    assert any("the boxes are of" in reason for _, reason in results["bad"])
    assert Image.open(users_data / "images/2.png").width == content["images"][2]["width"] - 1
