"""`python -m benchmarks.builtin`: the stages by their recipes, trained once each, and the card."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import builtin
from fiber_cli.checkpoints.loading import load
from fiber_cli.errors import EXIT_STOPPED, UserError
from fiber_cli.outputs import sha256_of
from fiber_cli.tasks.retrieval import presence

MODEL = """
model:
  {preset: tiny, image_size: 64, text_length: 30, depths: [1, 2], image_heads: [2, 4], text_layers: 2,
   fusion_layers: 1}
"""
REST = """
data: {train: [{kind: scenes, count: 16}], workers: 0}
optim: {lr: 1e-3, steps: 4}
runtime: {micro_batch: 8, global_batch: 8}
"""
STAGES = {
    "builtin": "fiber pretrain coarse --recipe builtin --nproc 2",
    "builtin_a_vqa": "fiber finetune vqa --recipe builtin_a_vqa --init-from runs/builtin optim.steps=2",
    "builtin_caption": "fiber finetune caption --recipe builtin_caption --init-from runs/builtin_a_vqa",
}


def write_recipe(folder: Path, name: str, command: str, header: str = "") -> Path:
    task = command.split()[2]
    file = folder / f"{name}.yaml"
    file.write_text(f"# about: one\n# command: {command}\n{header}{MODEL}\ntask: {{name: {task}}}\n{REST}")
    return file


@pytest.fixture
def recipes(tmp_path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, command in STAGES.items():
        write_recipe(folder, name, command)
    write_recipe(folder, "other", "fiber pretrain coarse --recipe other")
    return folder


def test_stages_are_the_recipes_each_behind_what_it_starts_from(recipes):
    write_recipe(recipes, "builtin_0", "fiber pretrain fine --recipe builtin_0 --init-from runs/builtin_caption")
    made = builtin.stages(recipes)
    assert [stage.name for stage in made] == ["builtin", "builtin_a_vqa", "builtin_caption", "builtin_0"]
    assert [stage.ships for stage in made] == ["retrieval", "vqa", "caption", "detection"]
    assert made[0] == builtin.Stage("builtin", recipes / "builtin.yaml", "pretrain", "coarse", None, 2, (), "retrieval")
    assert (made[1].parent, made[1].nproc, made[1].settings) == ("builtin", 1, ("optim.steps=2",))


def test_headers_call_a_checkpoint_otherwise_or_keep_it_here(recipes):
    write_recipe(recipes, "builtin", STAGES["builtin"], "# ships: none\n")
    command = "fiber finetune retrieval --recipe builtin_r --init-from runs/builtin"
    write_recipe(recipes, "builtin_r", command, "# ships: search\n")
    assert {stage.name: stage.ships for stage in builtin.stages(recipes)} == {
        "builtin": None,
        "builtin_a_vqa": "vqa",
        "builtin_r": "search",
        "builtin_caption": "caption",
    }


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("fiber finetune vqa --recipe builtin_x --init-from runs/builtin", "two recipes make vqa"),
        ("fiber finetune nlvr2 --recipe builtin_x --init-from runs/none", "no recipe is there that builtin_x could"),
        ("fiber finetune nlvr2 --recipe builtin_x --output o", "has --output, which this command does not pass on"),
    ],
)
def test_recipes_that_cannot_be_ordered_are_refused(recipes, command, problem):
    write_recipe(recipes, "builtin_x", command)
    with pytest.raises(UserError, match=problem):
        builtin.stages(recipes)


@pytest.fixture
def launched(monkeypatch, runs) -> list[list[str]]:
    """Stands in for training: a command leaves the run of a small model, or stops halfway where `stopping` says so."""
    launched: list[list[str]] = []

    def launch(nproc, arguments, *, name):
        launched.append([str(nproc), *arguments])
        output = Path(arguments[arguments.index("--output") + 1])
        task = arguments[1]
        if "--resume" not in arguments:
            shutil.copytree(runs[task] / "checkpoints", output / "checkpoints")
            from fiber_cli.config.resolve import resolve_recipe

            settings = [word for word in arguments if "=" in word]
            recipe = resolve_recipe(arguments[arguments.index("--recipe") + 1], settings)
            (output / "recipe.yaml").write_text(recipe.to_yaml())
        if launched[-1][2] == "caption" and "--resume" not in arguments:
            return EXIT_STOPPED
        environment = {"ranks": 2, "device": "a CPU", "threads_per_rank": 1, "fiber": "1", "torch": "2", "python": "3"}
        summary = {"steps": 4, "images": 32, "seconds": 90.0, "metrics": {"x/y": 51.26}, "best": None}
        summary |= {"parameters": {"total": 1234567}, **environment}
        (output / "summary.json").write_text(json.dumps(summary))
        return 0

    monkeypatch.setattr(builtin, "launch", launch)
    return launched


def run(what: str, tmp_path: Path, *options: str) -> None:
    folders = ["--work", tmp_path / "work", "--recipes", tmp_path / "recipes", "--into", tmp_path / "ships"]
    builtin.main([what, *map(str, folders), *options])


def test_stages_are_trained_once_and_go_on_where_they_stopped(recipes, launched, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run("train", tmp_path)
    assert end.value.code == EXIT_STOPPED
    assert "the same command again goes on from here" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "ships").iterdir()) == ["retrieval", "vqa"]
    run("train", tmp_path)
    work = tmp_path / "work"
    vqa = ["--recipe", f"{recipes}/builtin_a_vqa.yaml", "--output", f"{work}/builtin_a_vqa", "optim.steps=2"]
    caption = ["--recipe", f"{recipes}/builtin_caption.yaml", "--output", f"{work}/builtin_caption"]
    assert launched == [
        ["2", "pretrain", "coarse", "--recipe", f"{recipes}/builtin.yaml", "--output", f"{work}/builtin"],
        ["1", "finetune", "vqa", *vqa, "--init-from", f"{work}/builtin"],
        ["1", "finetune", "caption", *caption, "--init-from", f"{work}/builtin_a_vqa"],
        ["1", "finetune", "caption", *caption, "--resume"],
    ]
    assert load(tmp_path / "ships" / "caption").name == "caption"
    before = {file: sha256_of(file) for file in (tmp_path / "ships").rglob("model.safetensors")}
    run("train", tmp_path, "--nproc", "1")
    assert len(launched) == 4
    assert before == {file: sha256_of(file) for file in (tmp_path / "ships").rglob("model.safetensors")}


def test_some_stages_alone(recipes, launched, tmp_path):
    run("train", tmp_path, "--only", "builtin", "--nproc", "1")
    assert [arguments[:3] for arguments in launched] == [["1", "pretrain", "coarse"]]
    with pytest.raises(SystemExit, match="--only nothing: give of builtin, builtin_a_vqa, builtin_caption"):
        run("train", tmp_path, "--only", "nothing")


def test_a_run_of_another_recipe_or_of_other_weights_is_not_taken(recipes, launched, tmp_path):
    run("train", tmp_path, "--only", "builtin,builtin_a_vqa")
    weights = tmp_path / "work/builtin/checkpoints/step-000003/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content + b"?")
    with pytest.raises(SystemExit, match=r"(?s)was made otherwise; .*the weights of builtin, which it started from"):
        run("train", tmp_path, "--only", "builtin_a_vqa")
    weights.write_bytes(content)
    file = recipes / "builtin.yaml"
    file.write_text(file.read_text().replace("lr: 1e-3", "lr: 2e-3"))
    with pytest.raises(SystemExit, match=r"(?s)was made otherwise; .*optim.lr: 0.001 in the run, 0.002 now"):
        run("train", tmp_path)


def test_thresholds_chosen_again_change_weights_or_are_lost(recipes, launched, tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "TOLD_APART", -100.0)
    file = recipes / "builtin.yaml"
    file.write_text(file.read_text().replace("data: {", "data: {val: [{kind: scenes, split: val, count: 12}], "))
    run("train", tmp_path, "--only", "builtin")
    checkpoint = tmp_path / "ships" / "retrieval"
    weights = sha256_of(checkpoint / "model.safetensors")
    run("calibrate", tmp_path, "--only", "builtin")
    chosen = load(checkpoint).config.task
    assert None not in (chosen.match_threshold, chosen.search_threshold, chosen.query_search_threshold)
    assert chosen.most_query_words < chosen.most_words
    assert sha256_of(checkpoint / "model.safetensors") == weights
    run("train", tmp_path, "--only", "builtin")
    assert load(checkpoint).config.task == chosen
    run("card", tmp_path, "--results", str(tmp_path / "none.json"))
    card = (tmp_path / "ships" / "MODEL_CARD.md").read_text()
    assert f"| validation: search/queries/threshold | {chosen.query_search_threshold:.1f} |" in card
    assert "| thresholds | chosen again by `python -m benchmarks.builtin calibrate`, commit " in card
    assert "x/y" not in card
    # Of other weights they are no thresholds.
    record = tmp_path / "work" / "builtin.json"
    record.write_text(record.read_text().replace(weights, "0" * 64))
    run("train", tmp_path, "--only", "builtin")
    assert load(checkpoint).config.task != chosen


def test_the_card_leaves_out_one_that_lies_there_or_has_one_that_does_not(recipes, launched, tmp_path, monkeypatch):
    monkeypatch.setattr(builtin, "commit", lambda: "0123abc")
    run("train", tmp_path, "--only", "builtin,builtin_a_vqa")
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"vqa": {"accuracy, 200 | unseen": 51.0}, "limits": ["It counts to four."]}))
    run("card", tmp_path, "--results", str(results))
    file = tmp_path / "ships" / "MODEL_CARD.md"
    card = file.read_text()
    digest = sha256_of(tmp_path / "ships" / "vqa" / "model.safetensors")
    for line in (
        "## builtin/retrieval",
        "## builtin/vqa",
        "| starts from | the run of `builtin` |",
        "| parameters | 1,234,567 |",
        f"| recipe | `builtin_a_vqa.yaml`, SHA-256 {sha256_of(recipes / 'builtin_a_vqa.yaml')} |",
        f"| command | `{STAGES['builtin_a_vqa']}` |",
        "| seed | 0 |",
        "| trained | 4 steps, 32 samples, 2 minutes |",
        "| hardware | 2 x a CPU, 1 threads each |",
        "| commit | 0123abc |",
        f"| SHA-256 of model.safetensors | {digest} |",
        "| validation: x/y | 51.3 |",
        "| accuracy, 200 \\| unseen | 51.0 |",
        "- It counts to four.",
    ):
        assert f"\n{line}\n" in card, line
    assert "| data | scenes (split=train, count=16, seed=0," in card
    run("card", tmp_path, "--results", str(results))
    assert sorted(path.name for path in file.parent.iterdir()) == ["MODEL_CARD.md", "retrieval", "vqa"]
    file.write_text("# Mine\n")
    with pytest.raises(SystemExit, match="is there already"):
        run("card", tmp_path, "--results", str(results))
    results.write_text(json.dumps({"vqaa": {}}))
    with pytest.raises(SystemExit, match="figures of vqaa, which does not lie in "):
        run("card", tmp_path, "--results", str(results))


def test_the_best_checkpoint_is_described_and_not_the_last():
    summary = {"steps": 4, "metrics": {"a": 1.0, "b": 2.0}, "best": {"metric": "a", "value": 3.0, "step": 2}}
    assert builtin._validated(summary, {}) == {"validation, at step 2 of 4: a": 3.0}
    summary["best"] = {"metric": "a", "value": 1.0, "step": 4}
    assert builtin._validated(summary, {}) == {"validation: a": 1.0, "validation: b": 2.0}
