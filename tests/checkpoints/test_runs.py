"""Which of several runs is taken: one that can, has seen the data, and is the newest of those."""

import dataclasses
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from label_folders import FORMS, write_picture, write_voc, write_yolo
from run_folders import (
    CELLS,
    COCO_BOXES,
    COCO_CAPTIONS,
    FLICKR30K,
    OBJECTS365,
    SCENES,
    make_run,
    write_checkpoint,
)

from fiber_cli.checkpoints.config import read_config
from fiber_cli.checkpoints.loading import new_task
from fiber_cli.checkpoints.runs import Wanted, can, choose_run
from fiber_cli.data.sources import source_format
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.tasks import TASKS, declared, tasks_with
from fiber_cli.tasks.abilities import Ability, Captioning, Detecting, Embedding, Matching
from fiber_cli.tasks.context import TaskContext

ITC, ITM = {"itm": 0.0}, {"itc": 0.0, "itm_negatives": "random"}
DETECTORS = tasks_with(Detecting)


def wanted(ability, source=None, **more) -> Wanted:
    """A run with an ability, for the data of a source."""
    if source is not None:
        settings = source_format(source["kind"]).settings(**source)
        more |= {"dataset": "the data", "sources": lambda task: [settings]}
    return Wanted("the purpose", tasks_with(ability), ability, **more)


def chosen(folder, wanted) -> str:
    return choose_run(wanted, folder / "runs").run.folder.name


def test_heads_decide_whether_a_run_can(tmp_path):
    make_run(tmp_path, "retrieval", FLICKR30K, **ITC)
    make_run(tmp_path, "retrieval", FLICKR30K, **ITM)
    make_run(tmp_path, "caption", FLICKR30K)
    assert chosen(tmp_path, wanted(Embedding, FLICKR30K)) == "retrieval0"
    assert chosen(tmp_path, wanted(Matching, FLICKR30K)) == "retrieval1"
    assert chosen(tmp_path, wanted(Captioning, FLICKR30K)) == "caption2"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("switches", [{}, ITC, ITM])
def test_settings_and_module_disagree_on_what_is_switched_off(name, switches, tokenizer):
    declaration = declared(name)
    if switches and Embedding not in declaration.abilities:
        pytest.skip("has no such heads")
    settings = declaration.settings(name=name, **switches)
    task = new_task(TaskContext(settings, TINY, tokenizer, 30, labels=("yes", "no")))
    assert settings.switched_off == task.switched_off


def test_data_that_another_run_has_seen_comes_before_age(tmp_path):
    make_run(tmp_path, "retrieval", FLICKR30K)
    make_run(tmp_path, "retrieval", FLICKR30K, SCENES)
    make_run(tmp_path, "retrieval", COCO_CAPTIONS)
    run, reason = choose_run(wanted(Embedding, FLICKR30K), tmp_path / "runs")
    assert run.folder.name == "retrieval1"
    assert "the newest run for the purpose that was trained on data named flickr30k" in reason
    assert "newer, but less fit" in reason
    assert "retrieval2" in reason
    assert chosen(tmp_path, wanted(Embedding, SCENES)) == "retrieval1"
    assert chosen(tmp_path, wanted(Embedding)) == "retrieval2"


def test_data_that_none_has_seen_is_for_a_pretrained_run_before_one_for_other_things(tmp_path):
    make_run(tmp_path, "fine", OBJECTS365)
    make_run(tmp_path, "detection", CELLS)
    run, reason = choose_run(wanted(Detecting, COCO_BOXES), tmp_path / "runs")
    assert run.folder.name == "fine0"
    assert "none was trained on the data" in reason
    make_run(tmp_path, "detection", COCO_BOXES)
    make_run(tmp_path, "refexp", COCO_BOXES)  # it learned expressions
    make_run(tmp_path, "detection", CELLS)
    assert chosen(tmp_path, wanted(Detecting, COCO_BOXES)) == "detection2"


def test_names_are_for_the_detector_that_learned_them(tmp_path):
    make_run(tmp_path, "fine", OBJECTS365, labels=("Cat", "Dog", "traffic_light_(big)"))
    make_run(tmp_path, "detection", CELLS, labels=("red blood cell", "platelet"))
    make_run(tmp_path, "refexp", COCO_BOXES)
    for labels, name in (({"cat", "dog"}, "fine0"), ({"platelet"}, "detection1"), ({"zebra"}, "fine0")):
        assert chosen(tmp_path, Wanted("names", DETECTORS, Detecting, labels=frozenset(labels))) == name
    make_run(tmp_path, "detection", COCO_BOXES, labels=("cat", "dog", "traffic light"))
    lights = Wanted("names", DETECTORS, Detecting, labels=frozenset({"traffic light"}))
    assert chosen(tmp_path, lights) == "detection3"


def test_phrases_are_for_a_task_that_learns_phrases(tmp_path):
    phrases = Wanted("phrases", DETECTORS, Detecting, texts=frozenset({"phrases"}))
    make_run(tmp_path, "detection", CELLS)
    assert chosen(tmp_path, phrases) == "detection0"
    make_run(tmp_path, "grounding", SCENES)
    make_run(tmp_path, "refexp", SCENES)
    make_run(tmp_path, "detection", CELLS)
    assert chosen(tmp_path, phrases) == "grounding1"


def test_a_run_without_a_recipe_has_seen_nothing_and_still_counts(tmp_path):
    make_run(tmp_path, "caption")
    assert chosen(tmp_path, wanted(Captioning, COCO_CAPTIONS)) == "caption0"
    make_run(tmp_path, "caption", COCO_CAPTIONS)
    make_run(tmp_path, "caption")
    assert chosen(tmp_path, wanted(Captioning, COCO_CAPTIONS)) == "caption1"


def test_all_runs_that_were_looked_at_are_told_with_the_reason(tmp_path):
    with pytest.raises(UserError, match=r"no run of task coarse or retrieval lies below .*runs/: name one with"):
        choose_run(wanted(Embedding), tmp_path / "runs")
    make_run(tmp_path, "retrieval", FLICKR30K, **ITM)
    make_run(tmp_path, "vqa", SCENES)
    broken = make_run(tmp_path, "nlvr2", SCENES)
    (broken / "checkpoints" / "step-000001" / "config.json").write_text("{")
    with pytest.raises(UserError) as caught:
        choose_run(wanted(Embedding, FLICKR30K), tmp_path / "runs")
    text = str(caught.value)
    assert "no run below" in text
    assert "is for the purpose; name a checkpoint with --checkpoint" in text
    assert "retrieval0 is a run of retrieval without dual-encoder features (task.itc > 0)" in text
    assert "vqa1 is a run of vqa" in text
    assert "nlvr22" in text
    assert "is damaged" in text


def test_a_damaged_run_is_named_and_does_not_stand_in_the_way(tmp_path):
    make_run(tmp_path, "vqa", SCENES)
    make_run(tmp_path, "caption", SCENES)
    broken = make_run(tmp_path, "caption", SCENES)
    (broken / "checkpoints" / "latest").write_text("step-000009")
    run, reason = choose_run(wanted(Captioning), tmp_path / "runs")
    assert run.folder.name == "caption1"
    assert "caption2" in reason
    assert "names step-000009" in reason


def boxes(folder, file, names=()):
    """The entry of a file in COCO's form below a folder, which is written where it has categories."""
    path = folder / file
    if names:
        path.parent.mkdir(parents=True, exist_ok=True)
        categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    return {"kind": "coco", "json": str(path), "images": str(folder)}


EXPORTS = ["annotations/instances_default.json", "result.json", "output.json", "coco/result.json", "coco/train.json"]


@pytest.mark.parametrize("export", EXPORTS)
def test_exports_of_one_name_are_taken_for_one_data_set(tmp_path, export):
    cars, blood, trees = (boxes(tmp_path / "d" / name, export) for name in ("cars", "blood", "trees"))
    make_run(tmp_path, "detection", cars, labels=("car",))
    make_run(tmp_path, "detection", blood, labels=("platelet",))
    run, reason = choose_run(wanted(Detecting, cars), tmp_path / "runs")
    assert run.folder.name == "detection0"
    assert reason.startswith("the newest run for the purpose that was trained on the data; newer, but less fit: ")
    run, reason = choose_run(wanted(Detecting, blood), tmp_path / "runs")
    assert (run.folder.name, reason) == ("detection1", "the newest run for the purpose that was trained on the data")
    run, reason = choose_run(wanted(Detecting, trees), tmp_path / "runs")
    assert (run.folder.name, reason) == ("detection1", "the newest run for the purpose; none was trained on the data")


@pytest.mark.parametrize(("trained", "evaluated"), [("result.json", "result.json"), ("train.json", "val.json")])
def test_data_at_that_place_come_before_data_of_that_name(tmp_path, trained, evaluated):
    here, there = tmp_path / "here" / "cars", tmp_path / "there" / "cars"
    make_run(tmp_path, "detection", boxes(here, trained))
    make_run(tmp_path, "detection", boxes(there, trained))
    make_run(tmp_path, "detection", boxes(tmp_path / "else", trained))
    run, reason = choose_run(wanted(Detecting, boxes(here, evaluated)), tmp_path / "runs")
    assert run.folder.name == "detection0"
    what = "the data" if trained == evaluated else f"files in {here}"
    assert f"the newest run for the purpose that was trained on {what}; newer, but less fit" in reason
    run, reason = choose_run(wanted(Detecting, boxes(tmp_path / "new" / "cars", evaluated)), tmp_path / "runs")
    assert run.folder.name == "detection1"
    assert "the newest run for the purpose that was trained on data named cars; newer, but less fit" in reason


def test_a_relative_path_in_a_recipe_is_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cars", "blood"):
        make_run(tmp_path, "detection", boxes(Path("d") / name, "result.json"), root=Path())
    assert chosen(tmp_path, wanted(Detecting, boxes(Path("d/../d/cars"), "result.json"))) == "detection0"
    assert chosen(tmp_path, wanted(Detecting, boxes(tmp_path / "d" / "blood", "result.json"))) == "detection1"


@pytest.mark.parametrize(
    ("names", "expected", "why"),
    [
        (("car", "bus"), "detection1", "that was trained on files in"),
        (("Car_(old)", "tram"), "detection1", "that was trained on files in"),  # one is enough
        (("tram", "tree"), "detection2", "none was trained on the data"),
        ((), "detection1", "that was trained on files in"),  # not known
    ],
)
def test_a_run_of_other_categories_has_not_seen_the_data(tmp_path, names, expected, why):
    data = tmp_path / "street"
    make_run(tmp_path, "detection", boxes(data, "train.json"), labels=("platelet",))
    make_run(tmp_path, "detection", boxes(data, "train.json"), labels=("car", "bus"))
    make_run(tmp_path, "detection", CELLS, labels=("red blood cell",))
    run, reason = choose_run(wanted(Detecting, boxes(data, "val.json", names)), tmp_path / "runs")
    assert run.folder.name == expected
    assert why in reason


@pytest.mark.parametrize("form", [*FORMS, "yolo as such", "voc as such", "shards", "odvg"])
def test_categories_of_other_forms_than_cocos_are_not_looked_at(tmp_path, form):
    street = tmp_path / "street"
    place = {"kind": "folder", "folder": "street"}
    data = {"kind": "folder", "folder": str(street), "split": "val"}
    if form in FORMS:
        FORMS[form](street)
    elif form == "yolo as such":
        write_yolo(street)
        place = {"kind": "yolo", "data": "street/data.yaml"}
        data = {"kind": "yolo", "data": str(street / "data.yaml"), "split": "val"}
    elif form == "voc as such":
        write_voc(street)
        place = {"kind": "voc", "folder": "street"}
        data = {"kind": "voc", "folder": str(street), "split": "val"}
    else:
        place, data = write_labelled_records(street, form)
    make_run(tmp_path, "detection", place, root=tmp_path, labels=("Red cell", "tram"))
    make_run(tmp_path, "detection", place, root=tmp_path, labels=("tram", "tree"))
    assert chosen(tmp_path, wanted(Detecting, data)) == "detection0"


def write_labelled_records(folder, form):
    """Where records of a picture with one name are, below their root and as data; form: "shards" or "odvg"."""
    folder.mkdir()
    (folder / "label_map.json").write_text(json.dumps({"0": "red cell"}))
    label_map = str(folder / "label_map.json")
    box = {"bbox": [1, 1, 9, 9], "label": 0, "category": "red cell"}
    record = {"filename": "a.png", "height": 40, "width": 60, "detection": {"instances": [box]}}
    write_picture(folder / "a.png", 9)
    if form == "odvg":
        (folder / "val.jsonl").write_text(json.dumps(record) + "\n")
        data = {"kind": "odvg", "jsonl": str(folder / "val.jsonl"), "images": str(folder), "label_map": label_map}
        return {"kind": "odvg", "jsonl": "street/val.jsonl"}, data
    with tarfile.open(folder / "val.tar", "w") as tar:
        tar.add(folder / "a.png", "a.png")
        (folder / "a.json").write_text(json.dumps(record))
        tar.add(folder / "a.json", "a.json")
    data = {"kind": "region_shards", "shards": str(folder / "val.tar"), "label_map": label_map}
    return {"kind": "region_shards", "shards": "street/val.tar"}, data


def weights_of(step):
    return step / "model.safetensors"


def cut(file, keep):
    """Leaves the first bytes of a file."""
    file.write_bytes(file.read_bytes()[:keep])


#: What is broken of a run by its only step → what is said of it.
DAMAGES = {
    "pointer of other bytes": (
        lambda step: (step.parent / "latest").write_bytes(b"\xff"),
        r"checkpoints/latest is damaged \(not UTF-8\).*step-000001",
    ),
    "empty pointer": (lambda step: (step.parent / "latest").write_text("\n"), "latest is damaged"),
    "pointer with a zero": (lambda step: (step.parent / "latest").write_bytes(b"step\0"), "latest is damaged"),
    "best of other bytes": (lambda step: (step.parent / "best").write_bytes(b"\xfe\xff"), "best is damaged"),
    "best that is gone": (
        lambda step: (step.parent / "best").write_text("step-000009"),
        "best names step-000009, which is not there; complete checkpoints: step-000001",
    ),
    "no weights": (lambda step: weights_of(step).unlink(), "model.safetensors cannot be read"),
    "empty weights": (lambda step: cut(weights_of(step), 0), "model.safetensors cannot be read"),
    "half a header": (lambda step: cut(weights_of(step), 20), "model.safetensors cannot be read"),
    "the last byte lost": (lambda step: cut(weights_of(step), -1), "model.safetensors cannot be read"),
    "a byte too many": (lambda step: cut_and_add(weights_of(step), b"x"), "model.safetensors cannot be read"),
    "no tokenizer": (lambda step: shutil.rmtree(step / "tokenizer"), "tokenizer has no tokenizer.json"),
    "half a tokenizer": (
        lambda step: (step / "tokenizer" / "tokenizer.json").rename(step / "tokenizer" / "vocab.json"),
        "tokenizer has no tokenizer.json, nor vocab.json and merges.txt",
    ),
    "half a configuration": (lambda step: cut(step / "config.json", 40), "config.json is damaged"),
}


def cut_and_add(file, more):
    file.write_bytes(file.read_bytes() + more)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_run_is_damaged_and_an_older_one_is_taken(tmp_path, damage):
    breaks, said = DAMAGES[damage]
    make_run(tmp_path, "caption", SCENES)
    broken = make_run(tmp_path, "caption", SCENES)
    breaks(broken / "checkpoints" / "step-000001")
    run, reason = choose_run(wanted(Captioning), tmp_path / "runs")
    assert run.folder.name == "caption0"
    left_out = reason.partition("left out: ")[2]
    assert str(broken) in left_out
    assert re.search(said, left_out)
    shutil.rmtree(tmp_path / "runs" / "caption0")
    with pytest.raises(UserError, match=said):
        choose_run(wanted(Captioning), tmp_path / "runs")


def with_best(run, best=1, latest=2):
    """A second step of a run, whose `best` and `latest` name one each."""
    folder = run / "checkpoints"
    write_checkpoint(run, 2, read_config(folder / "step-000001"))
    written = (folder / "latest").stat().st_mtime
    (folder / "best").write_text(f"step-{best:06d}\n")
    (folder / "latest").write_text(f"step-{latest:06d}\n")
    os.utime(folder / "latest", (written, written))
    return folder


def test_only_the_step_that_is_loaded_must_be_whole(tmp_path):
    make_run(tmp_path, "caption", SCENES)
    folder = with_best(make_run(tmp_path, "caption", SCENES))
    latest = wanted(Captioning, latest=True)
    cut(weights_of(folder / "step-000002"), -1)
    assert chosen(tmp_path, wanted(Captioning)) == "caption1"
    assert chosen(tmp_path, latest) == "caption0"
    write_checkpoint(folder.parent, 3, read_config(folder / "step-000001"))
    (folder / "latest").write_text("step-000003")
    (folder / "step-000001" / "config.json").write_text("{")
    assert chosen(tmp_path, wanted(Captioning)) == "caption0"
    assert chosen(tmp_path, latest) == "caption1"


@pytest.mark.parametrize(("best", "labels"), [(1, ("cat",)), (2, ("dog",))])
def test_a_run_is_known_by_the_step_that_is_loaded(tmp_path, best, labels):
    run = make_run(tmp_path, "detection", CELLS, labels=("cat",))
    folder = with_best(run, best=best)
    config = dataclasses.replace(read_config(folder / "step-000001"), labels=("dog",))
    shutil.rmtree(folder / "step-000002")
    write_checkpoint(run, 2, config)
    assert choose_run(wanted(Detecting), tmp_path / "runs").run.config.labels == labels
    assert choose_run(wanted(Detecting, latest=True), tmp_path / "runs").run.config.labels == ("dog",)


def test_a_run_without_latest_is_seen(tmp_path):
    """By its best, and by its steps."""
    folder = with_best(make_run(tmp_path, "caption", SCENES))
    (folder / "latest").unlink()
    assert chosen(tmp_path, wanted(Captioning)) == "caption0"
    (folder / "best").unlink()
    assert chosen(tmp_path, wanted(Captioning)) == "caption0"
    make_run(tmp_path, "caption", SCENES)
    newer, older = folder / "step-000002" / "config.json", folder / "step-000001" / "config.json"
    os.utime(older, (2e9, 2e9))
    os.utime(newer, (5e8, 5e8))
    assert chosen(tmp_path, wanted(Captioning)) == "caption1"  # by the age of the step that is loaded
    os.utime(newer, (2e9, 2e9))
    assert chosen(tmp_path, wanted(Captioning)) == "caption0"


def test_data_that_is_not_there_is_told_instead_of_the_runs(tmp_path):
    def missing(task):
        raise UserError("dataset_flickr30k.json: no such file")

    make_run(tmp_path, "retrieval", FLICKR30K)
    with pytest.raises(UserError, match=r"^dataset_flickr30k.json: no such file$"):
        choose_run(wanted(Embedding, sources=missing), tmp_path / "runs")


def test_a_run_whose_data_is_not_there_is_told_where_another_is_taken(tmp_path):
    def sources(task):
        if task == "retrieval":
            raise UserError("dataset_coco.json: no such file")
        return []

    make_run(tmp_path, "coarse", COCO_CAPTIONS)
    make_run(tmp_path, "retrieval", COCO_CAPTIONS)
    run, reason = choose_run(wanted(Embedding, sources=sources, dataset="coco"), tmp_path / "runs")
    assert run.folder.name == "coarse0"
    assert "retrieval1 (dataset_coco.json: no such file)" in reason


def test_photographs_of_no_run_are_for_one_that_has_seen_only_drawings(tmp_path):
    nocaps = {"kind": "nocaps", "json": "/data/nocaps/nocaps_val_4500_captions.json", "images": "images"}
    make_run(tmp_path, "caption", COCO_CAPTIONS)
    make_run(tmp_path, "caption", SCENES)
    assert chosen(tmp_path, wanted(Captioning, nocaps)) == "caption0"
    assert chosen(tmp_path, wanted(Captioning, SCENES)) == "caption1"
    assert chosen(tmp_path, wanted(Captioning)) == "caption1"


def test_what_a_checkpoint_can_follows_from_its_settings(tmp_path):
    abilities: list[type[Ability]] = [Embedding, Matching, Captioning]
    folders = [make_run(tmp_path, "coarse", **settings) for settings in ({}, ITC, ITM)]
    assert len(folders) == 3
    able = []
    for number in range(3):
        only = Wanted("x", ("coarse",))
        run = choose_run(only, _alone(tmp_path, number)).run
        able.append([can(run.config, ability) for ability in abilities])
    assert able == [[True, True, False], [True, False, False], [False, True, False]]


def _alone(folder, number):
    """A folder of runs with that one alone."""
    alone = folder / f"alone{number}"
    alone.mkdir()
    (alone / "run").symlink_to(folder / "runs" / f"coarse{number}")
    return alone
