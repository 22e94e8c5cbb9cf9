"""The command line: what it resolves, hands over, refuses, and how it exits."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import fiber_cli
from fiber_cli.cli import app as cli
from fiber_cli.evaluation.datasets import eval_data
from fiber_cli.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command line in an empty folder → (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main(list(argv))
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for the heavy modules that record what they are asked; `calls.code` is what `fit` returns."""
    calls = SimpleNamespace(fit=[], dry_run=[], eval=[], launch=[], convert=[], code=0, error=None)

    def fit(recipe, output, *, resume, init_from):
        calls.fit.append((recipe, output, resume, init_from))
        if calls.error:
            raise calls.error
        return calls.code

    def launch(nproc, argv):
        calls.launch.append((nproc, argv))
        return calls.code

    def run_eval(sources, **options):
        calls.eval.append((sources, options))

    def convert_file(source, output, **options):
        calls.convert.append((source, output, options))

    fakes = {
        "engine": SimpleNamespace(fit=fit),
        "plan": SimpleNamespace(dry_run=lambda recipe, init_from: calls.dry_run.append(recipe)),
        "dist": SimpleNamespace(launch=launch, init_from_env=lambda: None),
        "evaluate": SimpleNamespace(run_eval=run_eval, own_mode=lambda loaded: "itc"),
        "loading": SimpleNamespace(load=lambda path: SimpleNamespace(name="coarse", path=Path(path))),
        "convert": SimpleNamespace(convert_file=convert_file),
        "checkpoint": SimpleNamespace(resolve=lambda path: path, load_config=lambda path: {"task": {"name": "coarse"}}),
    }
    for name, fake in fakes.items():
        monkeypatch.setitem(sys.modules, f"fiber_cli.{name}", fake)
        monkeypatch.setattr(fiber_cli, name, fake, raising=False)
    return calls


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from fiber_cli.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'numpy', 'rich'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - start)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "75 stopped by a" in done.stdout
    assert min(seconds) < 1.0  # 0.15 on an idle machine


def test_module_entry_point():
    done = subprocess.run([sys.executable, "-m", "fiber_cli", "pretrain", "--help"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0 and b"--init-from" in done.stdout


def test_pretrain_hands_the_resolved_recipe_over(run, calls):
    assert run("pretrain", "coarse", "--recipe", "tiny", "optim.steps=7", "log.every=2")[0] == 0
    ((recipe, output, resume, init_from),) = calls.fit
    assert (recipe.name, recipe.optim.steps, recipe.log.every) == ("tiny", 7, 2)
    assert (output, resume, init_from) == (Path("runs/tiny"), False, None)
    assert run("pretrain", "coarse", "optim.steps=7", "--recipe=tiny", "--output", "x", "--init-from", "c")[0] == 0
    assert calls.fit[1][1:] == (Path("x"), False, Path("c"))


def test_pretrain_passes_the_exit_code_on(run, calls):
    calls.code = 75
    assert run("pretrain", "coarse", "--recipe", "tiny")[0] == 75


def test_dry_run_needs_no_output(run, calls, tmp_path):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/x").touch()
    assert run("pretrain", "coarse", "--recipe", "tiny", "--dry-run")[0] == 0
    assert calls.dry_run[0].name == "tiny" and not calls.fit


def test_output_that_is_not_empty_needs_resume(run, calls, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    arguments = ("pretrain", "coarse", "--recipe", "tiny", "--output", "out")
    assert run(*arguments)[0] == 0
    (tmp_path / "out/metrics.jsonl").touch()
    code, _, err = run(*arguments)
    assert code == 1 and "--resume" in err and "--output" in err and "Traceback" not in err
    assert len(calls.fit) == 1
    assert run(*arguments, "--resume")[0] == 0
    assert calls.fit[1][2] is True
    # The first rank may have begun to write before the others look.
    monkeypatch.setenv("RANK", "1")
    assert run(*arguments)[0] == 0
    monkeypatch.setenv("RANK", "0")
    assert run(*arguments)[0] == 1


def test_usage_errors_exit_with_2(run, calls):
    for argv, message in {
        ("pretrain", "medium", "--recipe", "tiny"): "'medium' is not",
        ("pretrain", "coarse"): "--recipe",
        (
            "pretrain",
            "coarse",
            "--recipe",
            "tiny",
            "--resume",
            "--init-from",
            "x",
        ): "--init-from starts a new one",
        ("pretrain", "coarse", "--recipe", "tiny", "--nproc", "0"): "--nproc",
        ("eval", "scenes", "--mode", "rerank"): "'rerank' is not",
        ("rerank", "scenes", "--top-k", "10,0"): "give whole numbers from 1",
        ("rerank", "--images", "x"): "with --query",
        ("rerank", "scenes", "--query", "a cat"): "give a DATASET; or --images",
        ("rerank", "scenes", "--sheet", "x.png"): "--sheet: not for a dataset",
        ("rerank", "--images", "x", "--query", "a", "--limit", "3"): "--limit: not with --images",
        ("finetune", "vqa", "--recipe", "tiny"): "is a recipe for coarse, not for vqa",
        ("train",): "No such command",
    }.items():
        code, _, err = run(*argv)
        assert code == 2 and message in " ".join(err.split()), (argv, err)
    assert not calls.fit


def test_recipe_errors_exit_with_2_and_others_with_1(run, calls):
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny", "optim.lrr=1")
    assert code == 2 and "command line: optim.lrr: unknown key 'lrr' (did you mean 'lr'?)" in err
    assert run("pretrain", "coarse", "--recipe", "nothing.yaml")[0] == 2
    calls.error = UserError("no such images")
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny")
    assert code == 1 and err == "fiber: no such images\n"


def test_interrupt_exits_with_130_and_no_traceback(run, calls):
    calls.error = KeyboardInterrupt()
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny")
    assert code == 130 and "Traceback" not in err


def test_programming_errors_keep_their_traceback(calls, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        cli.main(["pretrain", "coarse", "--recipe", "tiny"])


@pytest.mark.parametrize("option", [["--nproc", "2"], ["--nproc=2"]])
def test_nproc_launches_the_same_command_as_single_processes(run, calls, option):
    calls.code = 75
    given = ["--recipe", "recipes/tiny.yaml", "runtime.micro_batch=8", "runtime.global_batch=16"]
    argv = ["pretrain", "coarse", *option, *given]
    code, _, err = run(*argv)
    assert code == 75 and not calls.fit
    ((nproc, passed),) = calls.launch
    assert nproc == 2 and passed[: len(argv)] == argv
    # What the parent has looked up, and said, the ranks find at once.
    assert err.count("does not exist") == 1
    calls.code = 0
    code, _, err = run(*passed)
    assert code == 0 and err == "" and calls.fit[0][0].name == "tiny"


def test_global_batch_is_checked_before_launching(run, calls):
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny", "--nproc", "3")
    assert code == 2 and "x 3 = " in err and not calls.launch


def test_eval_of_scenes_with_the_newest_checkpoint(run, calls, tmp_path):
    assert run("eval", "scenes")[0] == 1
    for age, name in enumerate(("new", "old")):
        latest = tmp_path / "runs" / name / "checkpoints" / "latest"
        latest.parent.mkdir(parents=True)
        latest.write_text("step-000001")
        os.utime(latest, (1e9 - age, 1e9 - age))
    code, _, err = run("eval", "scenes")
    assert code == 0 and err == "checkpoint: runs/new, the newest run\n"
    ((sources, options),) = calls.eval
    assert [(s.split, len(s)) for s in sources] == [("val", 200)]
    assert options["loaded"].path == Path("runs/new/checkpoints/latest")
    assert (options["dataset"], options["split"], options["mode"]) == ("scenes", "val", None)


def test_eval_options_and_output(run, calls):
    argv = ["eval", "scenes", "--split", "test", "--checkpoint", "r/checkpoints/step-000005"]
    assert run(*argv, "--batch", "8", "--workers", "0", "--limit", "10")[0] == 0
    assert calls.eval[0][1].pop("loaded").path == Path("r/checkpoints/step-000005")
    assert calls.eval[0][1] == {
        "dataset": "scenes",
        "split": "test",
        "mode": None,
        "itm": None,
        "output": Path("r/eval/scenes-test-itc-step-000005-first10"),
        "batch": 8,
        "workers": 0,
        "limit": 10,
        "blind": False,
        "chunk": "auto",
        "stem_memory": 4.0,
    }
    assert run(*argv, "--output", "o")[0] == 0
    assert calls.eval[1][1]["output"] == Path("o")
    assert run(*argv, "--mode", "itc+itm", "--itm-checkpoint", "m")[0] == 0
    assert (calls.eval[2][1]["mode"], calls.eval[2][1]["itm"].path) == ("itc+itm", Path("m"))
    assert calls.eval[2][1]["output"] == Path("r/eval/scenes-test-itc+itm-step-000005-m")
    assert run(*argv, "--nproc", "2")[0] == 0
    assert calls.launch == [(2, [*argv, "--nproc", "2", "--checkpoint", "r/checkpoints/step-000005", "--nproc", "1"])]


def test_rerank_of_a_dataset(run, calls):
    assert run("rerank", "scenes", "--top-k", "10,20", "--checkpoint", "r/c")[0] == 0
    options = calls.eval[0][1]
    assert (options["mode"], options["rerank"]) == ("rerank", [10, 20])
    assert options["output"] == Path("r/c/eval/scenes-val-rerank-c")


def test_data_of_another_task_is_refused(run, calls, tmp_path):
    lines = tmp_path / "some.jsonl"
    lines.write_text("{}")
    code, _, err = run("eval", str(lines), "--checkpoint", "c")
    assert (
        code == 1 and "some.jsonl is for checkpoints of nlvr2, fine, detection, grounding, refexp, not of coarse" in err
    )


def test_convert(run, calls):
    assert run("convert", "a.ckpt", "out", "--tokenizer", "here")[0] == 0
    assert calls.convert == [(Path("a.ckpt"), Path("out"), {"task": "coarse", "tokenizer": "here", "answers": None})]


def test_recipes(run):
    code, out, _ = run("recipes")
    names = [line for line in out.splitlines() if not line.startswith(" ")]
    assert code == 0 and names == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
    assert "reproduces: " in out and "fiber pretrain coarse --recipe tiny" in out
    assert run("recipes", "show", "tiny")[1] == (ROOT / "recipes/tiny.yaml").read_text()
    assert run("recipes", "show", "tinny")[0] == 2
    assert "## `runtime`" in run("recipes", "schema")[1]


def test_known_datasets(tmp_path):
    (tmp_path / "dataset_coco.json").touch()
    with pytest.raises(UserError, match="no images of coco there; wanted is val2014/ or images/val2014/"):
        eval_data("coco", "coarse", root=tmp_path)
    (tmp_path / "images/val2014").mkdir(parents=True)
    data = eval_data("coco", "coarse", root=tmp_path)
    json_file = str(tmp_path / "dataset_coco.json")
    wanted = {"kind": "karpathy", "json": json_file, "images": str(tmp_path / "images"), "split": "test"}
    assert data == ("coco", "test", [wanted])
    (tmp_path / "val2014").mkdir()
    assert eval_data("coco", "coarse", "val", tmp_path).sources[0] == wanted | {"images": str(tmp_path), "split": "val"}
    with pytest.raises(UserError, match="dataset_flickr30k.json: no such file; --root names the folder"):
        eval_data("flickr30k", "coarse", root=tmp_path)


def test_known_region_datasets(tmp_path):
    (tmp_path / "annotations").mkdir()
    for name in (
        "annotations/instances_val2017.json",
        "lvis_v1_minival_inserted_image_name.json",
        "final_refcoco+_testA.json",
    ):
        (tmp_path / name).touch()
    coco = str(tmp_path / "annotations/instances_val2017.json")
    wanted = {"kind": "coco", "json": coco, "images": str(tmp_path / "val2017")}
    assert eval_data("coco", "detection", root=tmp_path) == ("coco", "val", [wanted])
    assert eval_data("lvis", "fine", "minival", tmp_path).sources[0]["kind"] == "coco"
    assert eval_data("refcoco+", "refexp", "testA", tmp_path).sources[0]["kind"] == "mdetr"
    with pytest.raises(UserError, match="refcocog has val, test"):
        eval_data("refcocog", "refexp", "testA", tmp_path)
    entities = {"kind": "flickr_entities", "folder": str(tmp_path), "images": str(tmp_path / "flickr30k-images")}
    assert eval_data("flickr30k_entities", "grounding", None, tmp_path).sources == [entities | {"split": "test"}]
    (tmp_path / "odinw13.yaml").write_text("[{name: a, json: a.json, images: a}, {name: b, json: b.json, images: b}]")
    assert [each["name"] for each in eval_data("odinw13", "detection", None, tmp_path).sources] == ["a", "b"]
    assert [each["kind"] for each in eval_data("scenes", "fine").sources] == ["scene_detection", "scene_referring"]
    boxes, phrases = tmp_path / "boxes.json", tmp_path / "phrases.json"
    boxes.write_text('{"annotations": [{"bbox": [1, 2, 3, 4]}]}')
    phrases.write_text('{"annotations": [{"bbox": [1, 2, 3, 4], "tokens_positive": []}]}')
    assert [eval_data(str(f), "detection").sources[0]["kind"] for f in (boxes, phrases)] == ["coco", "mdetr"]
    with pytest.raises(UserError, match="vqav2 is for checkpoints of vqa, not of detection"):
        eval_data("vqav2", "detection")


def test_karpathy_json_and_shards(tmp_path):
    file = tmp_path / "dataset_mine.json"
    name, split, (source,) = eval_data(str(file), "coarse")
    assert (name, split, source["images"]) == ("mine", "test", str(tmp_path / "images"))
    assert eval_data(str(file), "coarse", "val", Path("elsewhere")).sources[0]["images"] == "elsewhere"
    (tmp_path / "shards").mkdir()
    for given in (tmp_path / "shards", tmp_path / "shards/*.tar", tmp_path / "shards/{00..03}.tar"):
        wanted = {"kind": "webdataset", "shards": str(given)}
        assert eval_data(str(given), "coarse") == ("shards", "all", [wanted])
    with pytest.raises(UserError, match="no --split"):
        eval_data(str(tmp_path / "shards"), "coarse", "val")
    with pytest.raises(UserError, match="unknown dataset 'flickr': give one of scenes, coco, flickr30k"):
        eval_data("flickr", "coarse")


def test_known_dataset_is_read(shared):
    from fiber_cli.data.sources import source_class

    folder = shared / "data/flickr8k-1k"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    (spec,) = eval_data("flickr8k", "coarse", "val", folder).sources
    source = source_class(spec.pop("kind"))(**spec)
    images = json.loads((folder / "dataset_flickr8k.json").read_text())["images"]
    assert len(source) == sum(image["split"] == "val" for image in images)
    assert source.image(0).mode == "RGB"
