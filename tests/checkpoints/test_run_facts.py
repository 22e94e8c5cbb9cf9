"""What a card says of a run is the run's, of this checkpoint, and tells nobody where its files lie."""

import json
from pathlib import Path

import pytest
import yaml
from run_folders import CELLS, make_run

from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.checkpoints.run_facts import Measured, reduced, run_facts
from fiber_cli.checkpoints.shipped import directory_of


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, "detection", CELLS, root=Path("/home/somebody/data"))


def checkpoint_of(run):
    return run / "checkpoints" / "step-000001"


def write_results(run, name, **results):
    folder = run / "eval" / name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(results))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("/home/me/data/train.json", "train.json"),
        ("/home/me/data/", "data"),
        ("~/data/x", "x"),
        ("C:\\data\\x.json", "x.json"),
        ("roberta-base", "roberta-base"),
        ({"a": ["/x/y", {"b": "/z"}], "c": 1.5, "d": None}, {"a": ["y", {"b": "z"}], "c": 1.5, "d": None}),
    ],
)
def test_a_path_is_told_whole(value, wanted):
    assert reduced(value) == wanted


def test_a_recipe_tells_where_files_lie(run):
    facts = run_facts(checkpoint_of(run))
    assert facts.step == 1
    assert facts.recipe["data"]["train"] == [{"kind": "coco", "json": "instances_train.json", "images": "train"}]
    assert "somebody" not in str(facts)


def test_figures_of_other_steps_and_checkpoints_are_taken(run):
    records = [
        {"step": 1, "loss": 2.0, "images_per_second": 3.0},
        {"step": 1, "detection/ap": 40.0, "detection/threshold": None},
        {"step": 2, "detection/ap": 50.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 1, "x')
    checkpoint = str(checkpoint_of(run))
    write_results(
        run, "own", dataset="/me/cells.json", split="test", checkpoint=checkpoint, metrics={"ap": 30, "x": None}
    )
    write_results(run, "other", dataset="cells", split="val", checkpoint="step-000002", metrics={"ap": 1})
    write_results(run, "first", dataset="cells", split="val", checkpoint=checkpoint, metrics={"ap": 1}, limit=10)
    write_results(
        run, "two", dataset="cells", split="val", checkpoint=checkpoint, metrics={"ap": 1}, itm_checkpoint="x"
    )
    (run / "eval" / "none").mkdir()
    assert run_facts(checkpoint_of(run)).measured == [
        Measured("the run's validation data", "", {"detection/ap": 40.0}),
        Measured("cells.json", "test", {"ap": 30}),
    ]


@pytest.mark.parametrize(
    ("start", "told"),
    [
        ("/home/me/runs/tiny/checkpoints/step-000400", "tiny, step-000400"),
        ("/usr/lib/fiber_cli/builtin/vqa", "vqa"),
        (directory_of("vqa"), "builtin/vqa, shipped with fiber"),
        (f"/cache/models--org--name/snapshots/{'a' * 40}", HubName("org/name", "a" * 40)),
    ],
)
def test_what_it_began_with_is_not_said_or_with_its_place(run, start, told):
    (run / "init_from").write_text(f"{start}\n")
    assert run_facts(checkpoint_of(run)).start == told


@pytest.mark.parametrize("damage", [b"", b"[", b"\xff\xfe", b"[]", yaml.safe_dump({"data": 1}).encode()])
def test_damaged_files_keep_a_checkpoint_from_being_shared(run, damage):
    for name in ("recipe.yaml", "summary.json", "metrics.jsonl", "init_from"):
        (run / name).write_bytes(damage)
    facts = run_facts(checkpoint_of(run))
    assert (facts.summary, facts.measured) == ({}, [])


def test_a_checkpoint_that_stands_alone_takes_another_folder_for_its_run(run):
    alone = run / "model"
    checkpoint_of(run).rename(alone)
    assert run_facts(alone) == ({}, {}, None, None, [])
