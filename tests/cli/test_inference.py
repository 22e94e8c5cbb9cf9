"""`fiber caption`, `answer` and `detect`: which checkpoint they take and what they hand over."""

import pytest
from commands import command
from PIL import Image

from fiber_cli.inference.fiber import Fiber


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (40, 30), "red").save(file)
    return file


def test_the_newest_run_of_the_task_is_taken(runs, picture, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "answer", picture, "is there a star?")
    assert code == 1
    assert "no runs/*/checkpoints/latest of task vqa" in err
    (tmp_path / "runs").mkdir()
    for name in ("vqa", "caption"):
        (tmp_path / "runs" / name).symlink_to(runs[name])
    assert command(capsys, "answer", picture, "is there a star?")[0] == 0
    assert command(capsys, "caption", picture, "--beam", "1")[0] == 0


@pytest.mark.parametrize(("option", "as_published"), [([], False), (["--as-published"], True), (["--published"], True)])
def test_the_published_search_has_two_names(runs, picture, capsys, monkeypatch, option, as_published):
    calls = []

    def caption(self, pictures, beam, as_published):
        calls.append((beam, as_published))
        return ["a red thing"] * len(pictures)

    monkeypatch.setattr(Fiber, "caption", caption)
    code, out, _ = command(capsys, "caption", picture, "--checkpoint", runs["caption"], "--beam", "3", *option)
    assert code == 0
    assert out == f"{picture}\ta red thing\n"
    assert calls == [(3, as_published)]


def test_the_former_name_is_not_shown(capsys):
    _, out, _ = command(capsys, "caption", "--help")
    assert "--as-published" in out
    assert "--published" not in out
