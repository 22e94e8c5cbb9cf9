"""`builtin` wherever a command takes a checkpoint: offered, never taken unasked, and the one that can."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import command
from PIL import Image
from run_folders import SCENES, make_run
from shipped_checkpoints import LIKELY, ship_likely

from fiber_cli import Fiber
from fiber_cli.checkpoints.export import export
from fiber_cli.cli.options import checkpoint_name
from fiber_cli.cli.runs import named_to_start
from fiber_cli.errors import UserError
from fiber_cli.inference import detect

OFFER = "or try --checkpoint builtin, trained on drawn scenes only (`fiber scenes` writes some)\n"
SAID = "shipped with fiber, trained on drawn scenes only"


@pytest.fixture
def picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "pictures" / "a.png")
    return "pictures/a.png"


#: Command lines of all verbs that look for a run, and the shipped checkpoint that each is for.
LOOKING = {
    "caption": (["caption", "pictures"], "caption"),
    "answer": (["answer", "pictures", "is there a star?"], "vqa"),
    "detect": (["detect", "pictures", "red star . moon"], "detection"),
    "detect --labels": (["detect", "pictures", "--labels", "names.txt"], "detection"),
    "detect --phrases": (["detect", "pictures", "a red star", "--phrases"], "detection"),
    "rerank --images": (["rerank", "--images", "pictures", "--query", "a star"], "retrieval"),
    "rerank": (["rerank", "scenes", "--top-k", "2"], "retrieval"),
    "eval --mode itc": (["eval", "scenes", "--mode", "itc"], "retrieval"),
    "eval --mode itm": (["eval", "scenes", "--mode", "itm"], "retrieval"),
    "eval --mode itc+itm": (["eval", "scenes", "--mode", "itc+itm"], "retrieval"),
}


@pytest.mark.parametrize("what", LOOKING)
def test_a_command_without_a_run_offers_what_ships_and_does_not_take_it(ships, picture, capsys, what):
    Path("names.txt").write_text("red star\nmoon\n")
    words, name = LOOKING[what]
    code, out, err = command(capsys, *words)
    assert (code, out) == (1, "")
    assert "builtin" not in err
    ship_likely(ships)
    code, out, err = command(capsys, *words)
    assert (code, out) == (1, "")
    assert err.endswith(OFFER)
    shutil.rmtree(ships / name)
    assert "builtin" not in command(capsys, *words)[2]


def test_a_command_whose_runs_cannot_offers_it_too(ships, picture, capsys, tmp_path):
    ship_likely(ships)
    make_run(tmp_path, "vqa", SCENES)
    code, _, err = command(capsys, "caption", "pictures")
    assert code == 1
    assert err.endswith(f"runs/vqa0 is a run of vqa\n  {OFFER}")


def test_statements_are_offered_what_reads_them(ships, picture, capsys):
    ship_likely(ships)
    statement = {"identifier": "a", "label": "True", "sentence": "a star", "images": ["a.png", "a.png"]}
    Path("some.jsonl").write_text(json.dumps(statement) + "\n")
    code, _, err = command(capsys, "eval", "some.jsonl", "--root", "pictures")
    assert code == 1
    assert err.endswith(OFFER)


def test_data_of_many_tasks_needs_a_name(ships, picture, capsys):
    ship_likely(ships)
    names = ", ".join(f"builtin/{name}" for name in LIKELY)
    code, _, err = command(capsys, "eval", "scenes", "--checkpoint", "builtin")
    assert code == 1
    assert err == f"fiber: builtin: for scenes there are {names}; name one of them with --checkpoint\n"
    assert "try --checkpoint builtin/caption or builtin/detection or" in command(capsys, "eval", "scenes")[2]


@pytest.fixture
def taken(monkeypatch, ships, picture) -> list[Path]:
    """Stand-ins of all that ships, and the checkpoints that commands hand over."""
    ship_likely(ships)
    taken = []

    def hand_over(checkpoint, *more, **options):
        taken.append(checkpoint)
        raise UserError("that is enough")

    monkeypatch.setattr(Fiber, "from_pretrained", hand_over)
    monkeypatch.setattr(detect, "run_detect", hand_over)
    monkeypatch.setattr("fiber_cli.checkpoints.loading.load", hand_over)
    return taken


@pytest.mark.parametrize("what", LOOKING)
def test_builtin_is_the_one_that_can(taken, ships, capsys, what, tmp_path):
    words, name = LOOKING[what]
    for task in LIKELY.values():
        make_run(tmp_path, task, SCENES)
    Path("names.txt").write_text("red star\nmoon\n")
    command(capsys, *words, "--checkpoint", "builtin")
    command(capsys, *words, "--checkpoint", f"builtin/{name}")
    assert list(map(Path, taken)) == [ships / name, Path("builtin", name)]


@pytest.mark.parametrize("what", ["rerank", "rerank --images", "eval --mode itc+itm", "eval --mode itm"])
def test_pairs_are_scored_by_what_ships(taken, ships, capsys, what, tmp_path):
    encoder = make_run(tmp_path, "coarse", SCENES)
    taken_of = []
    for options in (["--itm-checkpoint", "builtin"], ["--checkpoint", "builtin", "--itm-checkpoint", "builtin"]):
        command(capsys, *LOOKING[what][0], *options)
        taken_of.append(taken[-1])
    assert taken_of[1] == ships / "retrieval"
    assert taken_of[0] == (ships / "retrieval" if what == "eval --mode itm" else encoder.relative_to(tmp_path))


def test_the_wrong_task_lists_what_there_is(ships, picture, capsys):
    ship_likely(ships)
    shutil.rmtree(ships / "vqa")
    code, _, err = command(capsys, "answer", "pictures", "is there a star?", "--checkpoint", "builtin")
    assert code == 1
    assert err.splitlines() == [
        "fiber: no shipped checkpoint is for answers; name another one with --checkpoint. There are:",
        *(f"  builtin/{name} is a checkpoint of {task}" for name, task in LIKELY.items() if name != "vqa"),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["caption", "pictures", "--checkpoint"],
        ["eval", "scenes", "--checkpoint"],
        ["rerank", "scenes", "--itm-checkpoint"],
        ["finetune", "vqa", "--recipe", "tiny_vqa", "--init-from"],
    ],
)
def test_a_folder_of_that_name_stops_every_command(ships, picture, capsys, words):
    ship_likely(ships)
    Path("builtin").mkdir()
    code, _, err = command(capsys, *words, "builtin")
    assert code == 1
    assert f"something of that name is here; name {Path('builtin').absolute()} for what is here" in err


def test_all_sets_of_odinw_start_from_the_detector(ships, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ship_likely(ships)
    assert named_to_start("detection", "builtin") == ships / "detection"
    Path("runs/fine").mkdir(parents=True)
    assert named_to_start("detection", "runs/fine") == Path("runs/fine")


def test_a_path_with_a_dot_is_never_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checkpoint_name("./builtin") == str(tmp_path / "builtin")
    assert checkpoint_name("builtin") == "builtin"
    assert checkpoint_name("runs/tiny") == "runs/tiny"


@pytest.fixture
def real(ships, runs) -> Path:
    """Small checkpoints of several tasks in float16."""
    for name, task in LIKELY.items():
        if task in runs:
            export(runs[task], ships / name, half=True)
    return ships


def test_one_line_says_which_is_used_and_what_it_knows(real, picture, capsys):
    for words, name in (
        (["caption", picture, "--checkpoint", "builtin"], "caption"),
        (["answer", picture, "is there a star?", "--checkpoint", "builtin/vqa"], "vqa"),
        (["answer", picture, "is there a star?", "--checkpoint", str(real / "vqa")], "vqa"),
    ):
        code, out, err = command(capsys, *words)
        assert code == 0, err
        assert out.startswith(f"{picture}\t")
        assert err == f"checkpoint: builtin/{name}, {SAID}\n"


def test_another_task_by_name_is_told_the_right_one(real, picture, capsys):
    code, _, err = command(capsys, "answer", picture, "is there a star?", "--checkpoint", "builtin/caption")
    assert code == 1
    others = "`fiber finetune vqa` or `fiber finetune vqa_generated`, or builtin/vqa"
    assert err.endswith(f"without answers to questions; use one of {others}\n")


def test_from_python_one_is_named(real, picture, capsys):
    assert isinstance(Fiber.from_pretrained("builtin/caption").caption(picture), str)
    assert SAID in capsys.readouterr().err
    for path in ("builtin", "builtin/nothing"):
        with pytest.raises(UserError, match=r"(?s)name one.*builtin/vqa is a checkpoint of vqa"):
            Fiber.from_pretrained(path)
    with pytest.raises(UserError, match="does not exist"):
        Fiber.from_pretrained("./builtin")


def test_results_lie_outside_the_package(real, picture, capsys):
    before = sorted(real.rglob("*"))
    code, _, err = command(capsys, "eval", "scenes", "--checkpoint", "builtin/vqa", "--limit", "2", "--workers", "0")
    assert code == 0, err
    results = json.loads(Path("eval/scenes-val-vqa-builtin-vqa-first2/results.json").read_text())
    assert results["checkpoint"] == str(real / "vqa")
    assert sorted(real.rglob("*")) == before


def test_results_of_a_checkpoint_that_stands_alone_lie_beside_it_no_more(runs, picture, capsys, tmp_path):
    export(runs["nlvr2"], tmp_path / "mine")
    code, _, err = command(capsys, "eval", "scenes", "--checkpoint", "mine", "--limit", "2", "--workers", "0")
    assert code == 0, err
    assert Path("eval/scenes-val-nlvr2-mine-first2/results.json").is_file()


@pytest.fixture
def begun(monkeypatch, ships, picture) -> list[Path]:
    """Stand-ins of all that ships, and what training starts from."""
    ship_likely(ships)
    begun: list[Path] = []

    def fit(recipe, output, *, resume, init_from):
        begun.append(init_from)
        return 0

    monkeypatch.setitem(sys.modules, "fiber_cli.training.fit", SimpleNamespace(fit=fit))
    return begun


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["pretrain", "coarse", "--recipe", "tiny"], "retrieval"),
        (["pretrain", "fine", "--recipe", "tiny_fine"], "detection"),
        (["finetune", "vqa", "--recipe", "tiny_vqa"], "retrieval"),
        (["finetune", "caption", "--recipe", "tiny_caption"], "retrieval"),
        (["finetune", "refexp", "--recipe", "tiny_refexp"], "detection"),
    ],
)
def test_training_starts_from_what_ships(begun, ships, capsys, words, name):
    command(capsys, *words)
    command(capsys, *words, "--init-from", "builtin")
    command(capsys, *words, "--init-from", f"builtin/{name}")
    assert begun == [None, ships / name, Path("builtin", name)]


def test_a_run_that_starts_from_one_notes_which(real, picture, capsys, tmp_path):
    from small_runs import RECIPE

    Path("small.yaml").write_text(RECIPE.replace("steps: 4", "steps: 1"))
    words = ["pretrain", "coarse", "--recipe", "small.yaml", "--output", "run", "--init-from", "builtin"]
    code, _, err = command(capsys, *words)
    assert code == 0, err
    assert f"initialised from builtin/retrieval, {SAID}: " in err
    assert (tmp_path / "run" / "init_from").read_text() == f"{(real / 'retrieval').resolve()}\n"
