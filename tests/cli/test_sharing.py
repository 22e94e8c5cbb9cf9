"""`fiber push`, and the names of the hub wherever a command takes a checkpoint."""

import hashlib
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import typer
from commands import command
from files_server import serving
from PIL import Image

from fiber_cli import Fiber
from fiber_cli.cli.app import app
from fiber_cli.cli.options import checkpoint_name

#: Options that are a checkpoint, by their names.
CHECKPOINTS = {"checkpoint", "itm_checkpoint", "init_from"}
TEXTS = ["a red star", "two blue rings"]
#: In a process of its own, with a cache of its own.
ELSEWHERE = """
import sys
import numpy as np
from fiber_cli import Fiber
model = Fiber.from_pretrained("me/model")
match = model.match("picture.png", ["a red star", "two blue rings"])
np.savez("there.npz", image=model.embed_images("picture.png"), match=match)
"""


@pytest.fixture
def picture(tmp_path, monkeypatch):
    """A picture in a folder that is the current one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save("picture.png")
    return Path("picture.png")


def test_a_checkpoint_is_another_one_after_the_hub(hub, saved, picture, tmp_path, capsys, monkeypatch):
    code, out, err = command(capsys, "push", saved, "me/model", "--license", "mit")
    assert code == 0, err
    assert out.endswith("use it anywhere with --checkpoint me/model\n")
    here = Fiber.from_pretrained(saved)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "another cache"))
    monkeypatch.delenv("HF_TOKEN")
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "checkpoint: me/model@" in done.stderr
    there = np.load("there.npz")
    assert np.array_equal(there["image"], here.embed_images(picture))
    assert np.array_equal(there["match"], here.match(picture, TEXTS))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not hub.asked


def test_results_lie_in_the_cache_or_are_of_another_name(hub, runs, picture, capsys):
    assert command(capsys, "push", runs["vqa"], "me/answers")[0] == 0
    line = ["eval", "scenes", "--checkpoint", "me/answers", "--limit", "2", "--workers", "0"]
    code, _, err = command(capsys, *line)
    assert code == 0, err
    (results,) = Path("eval").iterdir()
    assert results.name == f"scenes-val-vqa-me-answers-{hub.repositories['me/answers'].sha('main')[:10]}-first2"


def test_another_ability_is_asked_of_a_path(hub, runs, picture, capsys):
    assert command(capsys, "push", runs["vqa"], "me/answers")[0] == 0
    code, _, err = command(capsys, "caption", picture, "--checkpoint", "me/answers")
    assert code == 1
    assert f"fiber: me/answers@{hub.repositories['me/answers'].sha('main')} is a checkpoint of vqa, without" in err


def test_an_address_is_no_checkpoint_of_a_verb(runs, picture, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(runs["vqa"] / "checkpoints" / "step-000001", "step-000001")
    content = packed.getvalue()
    lines = []
    with serving({"model.tar": content}) as server:
        address = f"{server.folder}/model.tar#sha256={hashlib.sha256(content).hexdigest()}"
        for checkpoint in (runs["vqa"], address):
            code, out, err = command(capsys, "answer", picture, "what is it?", "--json", "--checkpoint", checkpoint)
            assert code == 0, err
            lines.append(out)
        assert lines[0] == lines[1]
        assert server.asked == [None]
    assert Fiber.from_pretrained(address).answer(picture, "what is it?") in lines[0]
    code, _, err = command(capsys, "answer", picture, "what is it?", "--checkpoint", address.partition("#")[0])
    assert code == 1
    assert "put #sha256=DIGEST behind it" in err


def test_an_option_for_checkpoints_takes_paths_alone():
    commands = typer.main.get_command(app).commands
    taking = set()
    for name, each in commands.items():
        for parameter in each.params:
            if parameter.name in CHECKPOINTS:
                taking.add(name)
                parser = parameter.type_descriptor.parameter_info.parser
                assert parser is checkpoint_name, f"fiber {name} {parameter.opts}"
    expected = {"pretrain", "finetune", "eval", "odinw", "ablate", "few-shot", "rerank", "table", "caption", "answer"}
    assert taking == expected | {"detect"}


@pytest.mark.parametrize(
    "line",
    [
        "caption picture.png --checkpoint me/none",
        "answer picture.png what? --checkpoint me/none",
        "detect picture.png cat --checkpoint me/none",
        "rerank --images . --query cat --checkpoint me/none",
        "rerank --images . --query cat --checkpoint builtin/retrieval --itm-checkpoint me/none",
        "eval scenes --checkpoint me/none",
        "eval scenes --itm-checkpoint me/none --mode itm",
        "pretrain coarse --recipe tiny --init-from me/none",
        "finetune vqa --recipe tiny_vqa --init-from me/none",
        "ablate ablation --init-from me/none",
        "convert me/none out.ckpt --to-published",
        "push me/none me/other",
    ],
)
def test_a_verb_does_not_look_on_the_hub(hub, picture, capsys, line):
    code, _, err = command(capsys, *line.split())
    assert code == 1
    assert "has no model me/none, or a private one: log in" in err
    assert "Traceback" not in err


def test_the_plan_of_a_push_pushes(hub, runs, picture, capsys):
    code, out, _ = command(capsys, "push", runs["caption"], "me/captions", "--dry-run", "--branch", "v1")
    assert code == 0
    assert "model.safetensors\t" in out
    assert "--checkpoint me/captions@v1\n" in out
    assert not hub.asked


@pytest.mark.parametrize("name", ["me", "me/a/b", "./me/model", "me/model@", "me/model@v1"])
def test_a_name_that_is_none_is_pushed_to(hub, runs, picture, capsys, name):
    code, _, err = command(capsys, "push", runs["vqa"], name, "--revision", "v2")
    assert code == 2
    assert "give ORG/NAME" in " ".join(err.split())
    assert not hub.asked


def test_options_are_not_handed_on(hub, runs, picture, capsys):
    line = ["push", runs["vqa"], "me/vqa", "--private", "-m", "why", "--license", "cc-by-4.0", "--revision", "main"]
    code, out, err = command(capsys, *line)
    assert code == 0, err
    pushed = hub.repositories["me/vqa"]
    assert pushed.private
    assert pushed.messages[-1] == "why"
    assert b"license: cc-by-4.0" in pushed.files()["README.md"]
    assert out.startswith(f"me/vqa: pushed, {hub.address}/me/vqa/commit/")
    code, out, err = command(capsys, *line)
    assert out.startswith("me/vqa: nothing has changed since the last push, ")
    pushed.commit(pushed.files() | {"README.md": b"# Mine\n"})
    code, out, err = command(capsys, *line)
    assert code == 1
    assert "which fiber did not write or which was changed since" in err
    assert command(capsys, *line, "--keep-card")[0] == 0
    assert command(capsys, *line, "--force")[0] == 0


def test_other_servers_get_what_only_the_hub_takes(tmp_path, monkeypatch):
    code = "import os; from fiber_cli.cli import sharing; sharing._without_storage_elsewhere(); "
    code += "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_XET)"
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    for endpoint, disabled in (("http://127.0.0.1:9", "True"), ("https://huggingface.co", "False")):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == disabled
