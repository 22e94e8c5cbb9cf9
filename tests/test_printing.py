"""What is printed, and that nothing is printed past it."""

import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from fiber_cli.printing import shorten_warnings

PACKAGE = Path(__file__).parents[1] / "fiber_cli"
FILES = sorted(PACKAGE.rglob("*.py"))


def prints(node: ast.AST) -> bool:
    """Whether a syntax node writes to standard output or error itself."""
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    return called in ("print", "typer.echo", "sys.stdout.write", "sys.stderr.write")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_something_is_printed_past_the_escapes(path):
    if path.name == "printing.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not prints(node), f"{path}:{node.lineno}: print by fiber_cli.printing"


def run(code: str, redirections: str = "", **options) -> subprocess.CompletedProcess[str]:
    command = f'"$0" -c "$1" {redirections}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, code], cwd=PACKAGE.parent, capture_output=True, text=True, **options
    )


PRINT = (
    "from fiber_cli.printing import *; take_any_text(); show('a\\tb\\n\\x1b'); show_json('\\x9b'); say('c\\nd\\x1b')"
)


def test_lines_and_json_are_escaped():
    done = run(PRINT)
    assert done.stdout == 'a\tb\n\\x1b\n"\\u009b"\n'
    assert done.stderr == "c\\nd\\x1b\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_ends_in_a_traceback_or_lends_its_number(closed):
    done = run(PRINT + "; import os; assert os.open('/', os.O_RDONLY) > 2", closed)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_without_buffers_what_finds_no_room_is_lost_in_silence(tmp_path):
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); import signal;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from fiber_cli.printing import *; take_any_text();"
        "show('x' * 90); show('y' * 90)"
    )
    done = run(code, f"> {tmp_path / 'out'}", env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert done.returncode != 0
    assert "File too large" in done.stderr


def test_warnings_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    shorten_warnings()
    assert warnings.formatwarning("first\nsecond", UserWarning, "a.py", 3) == "warning: first\n"
    assert (
        warnings.formatwarning(DeprecationWarning(), DeprecationWarning, "a.py", 3) == "warning: DeprecationWarning\n"
    )
