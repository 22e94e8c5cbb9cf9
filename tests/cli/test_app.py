"""The command as a whole: its help and version, its errors and how it exits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fiber_cli
from fiber_cli.errors import UserError

ROOT = Path(__file__).parents[2]


def in_a_process(*argv: str, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own, which prints at last what it has loaded that is heavy."""
    code = (
        "import sys\n"
        "from fiber_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'numpy', 'rich', 'PIL'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True)


def test_help_imports_nothing_heavy():
    done = in_a_process("--help")
    assert done.stdout.splitlines()[-1] == "[]"
    assert "75 stopped by a" in done.stdout
    assert "--install-completion" in done.stdout
    assert "--version" in done.stdout


@pytest.mark.parametrize("command", ["pretrain", "eval", "rerank", "caption", "detect", "convert", "recipes"])
def test_the_help_of_a_command_imports_nothing_heavy(command):
    assert in_a_process(command, "--help").stdout.splitlines()[-1] == "[]"


def test_version(run):
    assert run("--version") == (0, f"fiber {fiber_cli.__version__}\n", "")


def test_module_entry_point():
    done = subprocess.run([sys.executable, "-m", "fiber_cli", "pretrain", "--help"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0
    assert b"--init-from" in done.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["fiber", "pre"], ["pretrain"]),
        (["fiber", "pretrain", ""], ["coarse", "fine"]),
        (["fiber", "caption", "--as"], ["--as-published"]),
    ],
)
def test_words_are_completed_without_loading_anything_heavy(words, completed):
    environment = {
        "_FIBER_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    *lines, heavy = in_a_process(**environment).stdout.splitlines()
    assert lines == completed
    assert heavy == "[]"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["pretrain", "medium", "--recipe", "tiny"], "'medium' is not"),
        (["pretrain", "coarse"], "--recipe"),
        (["pretrain", "coarse", "--recipe", "tiny", "--resume", "--init-from", "x"], "--init-from starts a new one"),
        (["pretrain", "coarse", "--recipe", "tiny", "--nproc", "0"], "--nproc"),
        (["eval", "scenes", "--mode", "rerank"], "'rerank' is not"),
        (["eval", "scenes", "--chunk", "some"], "give a whole number from 1, or auto"),
        (["rerank", "scenes", "--top-k", "10,0"], "give whole numbers from 1"),
        (["rerank", "--images", "x"], "with --query"),
        (["rerank", "--images", "x", "--query", "a", "--queries", "b"], "with --query"),
        (["rerank", "--images", "x", "--query", "a", "--top-k", "1,2"], "one number as --top-k"),
        (["rerank", "scenes", "--query", "a cat"], "give a DATASET; or --images"),
        (["rerank", "scenes", "--sheet", "x.png"], "--sheet: not for a dataset"),
        (["rerank", "--images", "x", "--query", "a", "--limit", "3"], "--limit: not with --images"),
        (["finetune", "vqa", "--recipe", "tiny"], "is a recipe for coarse, not for vqa"),
        (["train"], "No such command"),
    ],
)
def test_usage_errors_exit_with_2(run, calls, argv, message):
    code, _, err = run(*argv)
    assert code == 2
    assert message in " ".join(err.split())
    assert not calls.fit
    assert not calls.eval


def test_recipe_errors_exit_with_2_and_others_with_1(run, calls):
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny", "optim.lrr=1")
    assert code == 2
    assert "command line: optim.lrr: unknown key 'lrr' (did you mean 'lr'?)" in err
    assert run("pretrain", "coarse", "--recipe", "nothing.yaml")[0] == 2
    for error in (UserError("no such images"), OSError("no such images")):
        calls.error = error
        code, _, err = run("pretrain", "coarse", "--recipe", "tiny")
        assert code == 1
        assert err == "fiber: no such images\n"


def test_interrupt_exits_with_130_and_no_traceback(run, calls):
    calls.error = KeyboardInterrupt()
    code, _, err = run("pretrain", "coarse", "--recipe", "tiny")
    assert code == 130
    assert "Traceback" not in err
