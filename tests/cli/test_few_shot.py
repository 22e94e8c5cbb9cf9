"""`fiber few-shot`: any list of sets in COCO's form, and what `fiber odinw` does not have."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from region_files import coco_box, coco_file

TASK = ("--init-from", "fine", "--output", "out")


@pytest.fixture
def sets(tmp_path):
    """A list of two sets, one with draws of its own."""
    entries = []
    for name in ("birds", "signs"):
        entry = {"name": name}
        for split in ("train", "valid", "test"):
            folder = tmp_path / name / split
            folder.mkdir(parents=True)
            coco_file(folder, [coco_box(7, 3, [1, 2, 20, 15]), coco_box(5, 9, [5, 5, 8, 8])])
            files = {"json": f"{name}/{split}/instances.json", "images": f"{name}/{split}"}
            entry |= files if split == "test" else {split: files}
        entries.append(entry)
    entries[0]["prompts"] = {"cat": {"prefix": "a "}}
    entries[1]["draws"] = "signs/train/{shots}of{seed}.json"
    for shots, seed in ((1, 3), (1, 4)):
        (tmp_path / f"signs/train/{shots}of{seed}.json").write_text("{}")
    path = tmp_path / "sets.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


@pytest.fixture
def launched(calls, monkeypatch):
    """Commands in place of which their results are written."""
    commands = []

    def launch(nproc, argv, *, name="", asked):
        commands.append(argv)
        output = Path(argv[argv.index("--output") + 1])
        output.mkdir(parents=True, exist_ok=True)
        if argv[0] == "finetune":
            (output / "summary.json").write_text("{}")
        else:
            ap = {"birds": 60.0, "signs": 20.0}[output.parent.parent.name]
            (output / "results.json").write_text(json.dumps({"metrics": {"detection/ap": ap}}))
        return 0

    monkeypatch.setitem(sys.modules, "fiber_cli.distributed.launch", SimpleNamespace(launch=launch))
    return commands


def settings_of(argv):
    return dict(argument.split("=", 1) for argument in argv if argument.startswith("data."))


def test_sets_shots_or_seeds_are_left_out(run, sets, launched):
    words = ("few-shot", str(sets), *TASK, "--shots", "0,1", "--seeds", "3,4", "--recipe", "mine", "optim.lr=1")
    code, out, err = run(*words)
    assert code == 0, err
    trained = [argv[argv.index("--output") + 1] for argv in launched if argv[0] == "finetune"]
    runs = [
        "birds/full",
        "signs/full",
        "birds/shot1-seed3",
        "signs/shot1-seed3",
        "birds/shot1-seed4",
        "signs/shot1-seed4",
    ]
    assert trained == [f"out/{name}" for name in runs]
    recipes = [argv[argv.index("--recipe") + 1] for argv in launched if argv[0] == "finetune"]
    assert recipes == ["odinw"] * 2 + ["mine"] * 4
    assert out.splitlines()[3].split() == ["mean", "of", "2", "40.0", "40.0", "±", "0.0"]
    summary = json.loads(Path("out/few_shot.json").read_text())
    assert summary["mean"]["1"] == {"ap": 40.0, "std": 0.0, "seeds": 2}
    assert summary["prompts"] == {"birds": {"cat": {"prefix": "a "}}}
    assert Path("out/curve.png").read_bytes().startswith(b"\x89PNG")
    done = len(launched)
    assert run(*words)[0] == 0
    assert len(launched) == done


def test_precision_and_device_reach_trainings_and_tests(run, sets, launched, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    words = ("few-shot", str(sets), *TASK, "--shots", "0", "--precision", "bf16", "--device", "cpu")
    code, _, err = run(*words)
    assert code == 0, err
    for argv in launched:
        assert argv[-4:] == ["--precision", "bf16", "--device", "cpu"]


def test_draws_are_not_those_of_the_list(run, sets, launched):
    assert run("few-shot", str(sets), *TASK, "--shots", "1", "--seeds", "4")[0] == 0
    birds, test, signs, _ = launched
    (source,) = yaml.safe_load(settings_of(birds)["data.train"])
    folder = sets.parent
    assert (source["json"], source["shots"], source["seed"]) == (f"{folder}/birds/train/instances.json", 1, 4)
    assert source["prompts"] == {"cat": {"prefix": "a "}}
    (source,) = yaml.safe_load(settings_of(birds)["data.val"])
    assert (source["json"], source.get("shots")) == (f"{folder}/birds/valid/instances.json", None)
    (entry,) = json.loads(Path(test[1]).read_text())
    assert entry["json"] == f"{folder}/birds/test/instances.json"
    (source,) = yaml.safe_load(settings_of(signs)["data.train"])
    assert (source["json"], source["copies"]) == (f"{folder}/signs/train/1of4.json", 8)
    assert "shots" not in source


def test_a_missing_file_or_a_scarce_category_is_found_out_after_days(run, sets, launched):
    code, _, err = run("few-shot", str(sets), *TASK, "--shots", "2", "--seeds", "3")
    assert code == 1
    assert "not there: " in err
    assert "signs/train/2of3.json" in err
    assert not launched
    (sets.parent / "signs/train/2of3.json").write_text("{}")
    code, _, err = run("few-shot", str(sets), *TASK, "--shots", "2", "--seeds", "3")
    assert code == 0
    assert "few-shot: birds has fewer than 2 images of " in err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": None}, "has no train, which fine-tuning needs"),
        ({"valid": {"json": "a.json"}}, r"valid must be {json, images}"),
        ({"train": {"json": 3, "images": "a"}}, "train: json must be text"),
        ({"draws": "shot{shots}.json"}, "draws must be a pattern with {shots} and {seed}"),
        ({"draws": "{shots}{seed}{seed.__class__}"}, "draws must be a pattern with {shots} and {seed}"),
        ({"draws": "{shots}{seed:1000000000}"}, "draws must be a pattern with {shots} and {seed}"),
        ({"name": "../birds"}, "cannot be the name of a folder"),
    ],
)
def test_wrong_lists_are_trained_on(run, sets, launched, change, told):
    entries = yaml.safe_load(sets.read_text())
    entries[0] |= change
    entries[0] = {key: value for key, value in entries[0].items() if value is not None}
    sets.write_text(yaml.safe_dump(entries))
    code, _, err = run("few-shot", str(sets), *TASK, "--shots", "1")
    assert code == 1
    assert "sets.yaml: entry 1" in err
    assert told in err
    assert not launched


def test_wrong_shots_are_taken(run, sets, launched):
    code, _, err = run("few-shot", str(sets), *TASK, "--shots", "one")
    assert code == 2
    assert "--shots one: give whole numbers" in " ".join(err.split())
