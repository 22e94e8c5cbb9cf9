"""The installation page, the Dockerfile and the example for SLURM, without Docker and SLURM."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from fiber_cli.training.deepspeed_engine import TRIED_VERSIONS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/install.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def versions() -> dict[str, tuple[str, str]]:
    """Name → what is asked for and what was tried."""
    rows = re.findall(r"^\| ([\w-]+) \| `([^`]+)` \| ([\d.]+) \|", PAGE, re.MULTILINE)
    return {name.lower(): (asked, tried) for name, asked, tried in rows}


def test_the_page_asks_for_other_versions_than_the_project():
    asked = {"python": PROJECT["requires-python"]}
    for requirement in PROJECT["dependencies"]:
        name, version = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        asked[name] = version
    told = versions()
    assert {"python", "torch", "deepspeed"} <= told.keys()
    assert {name: asked[name] for name in told} == {name: version for name, (version, _) in told.items()}


def test_the_page_tells_another_deepspeed_than_the_one_that_was_tried():
    assert versions()["deepspeed"][1] in TRIED_VERSIONS


def test_the_dockerfile_copies_what_is_not_there_or_lacks_what_the_package_is_built_from():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()}
    assert all((ROOT / name).exists() for name in copied)
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "fiber_cli", "recipes"} <= copied
    base = re.search(r"^FROM python:([\d.]+)-", text, re.MULTILINE)[1]
    assert versions()["python"][1].startswith(f"{base}.")


@pytest.fixture
def slurm(tmp_path):
    """Runs the example with stand-ins: srun, which notes its words and ends with a code, and scontrol."""
    for name, last in (("srun", 'exit "$CODE"'), ("scontrol", "")):
        command = tmp_path / name
        command.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/calls"\n{last}\n')
        command.chmod(0o755)

    def submit(code: int) -> tuple[int, list[str]]:
        env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code), "SLURM_JOB_ID": "42"}
        words = ["bash", str(ROOT / "examples/train.sbatch"), "pretrain", "coarse", "--recipe", "4m"]
        ended = subprocess.run(words, env=env, check=False)
        return ended.returncode, (tmp_path / "calls").read_text().splitlines()

    return submit


@pytest.mark.parametrize(("code", "again"), [(75, True), (0, False), (1, False), (143, False)])
def test_a_job_that_was_stopped_and_saved_is_not_put_back_alone(slurm, code, again):
    ended, calls = slurm(code)
    assert ended == code
    assert calls[0] == "srun --kill-on-bad-exit=0 fiber pretrain coarse --recipe 4m --resume"
    assert calls[1:] == (["scontrol requeue 42"] if again else [])


def test_the_example_gives_the_ranks_no_signal_or_lets_slurm_drop_the_job():
    options = re.findall(r"^#SBATCH (--[\w-]+)(?:=(\S+))?$", (ROOT / "examples/train.sbatch").read_text(), re.MULTILINE)
    given = dict(options)
    # Without "B:" the signal goes to the ranks and not to the script.
    assert given["--signal"].startswith("USR1@")
    assert "--requeue" in given
    assert given["--open-mode"] == "append"
