"""Commands on files whose names are not UTF-8, and on pictures past `--max-pixels`: nothing ends in a traceback."""

import io
import json
import os
import sys
from typing import NamedTuple

import pytest
from commands import command
from PIL import Image

from fiber_cli.cli.app import main
from fiber_cli.outputs import LEDGER


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "alone" / "a.png"
    file.parent.mkdir()
    Image.new("RGB", (40, 30), "red").save(file)
    return file


@pytest.fixture
def latin_names(tmp_path):
    """A folder with a picture whose name is not UTF-8, and another."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in (b"caf\xe9.png", "gar\u00e7on.png".encode()):
        Image.new("RGB", (64, 64), "red").save(os.path.join(os.fsencode(folder), name).decode(errors="surrogateescape"))
    return folder


class Ended(NamedTuple):
    returncode: int
    stdout: bytes


@pytest.fixture
def run_with_strict_output(monkeypatch):
    """Runs a command whose standard output refuses what it cannot encode, as in a UTF-8 locale."""

    def run(*argv, encoding="utf-8") -> Ended:
        printed = io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding=encoding, errors="strict"))
            with pytest.raises(SystemExit) as ended:
                main(list(map(str, argv)))
            sys.stdout.flush()
            return Ended(int(ended.value.code or 0), printed.getvalue())

    return run


def test_file_names_that_are_not_utf_8_are_printed_as_they_are(run_with_strict_output, runs, latin_names):
    folder = os.fsencode(latin_names)
    done = run_with_strict_output("caption", latin_names, "--checkpoint", runs["caption"], "--beam", "1")
    assert done.returncode == 0
    printed = [line.split(b"\t")[0] for line in done.stdout.splitlines()]
    assert printed == [folder + b"/caf\xe9.png", folder + "/gar\u00e7on.png".encode()]


def test_a_terminal_without_an_encoding_for_a_name_gets_its_number(run_with_strict_output, runs, latin_names):
    argv = ("caption", latin_names, "--checkpoint", runs["caption"], "--beam", "1")
    done = run_with_strict_output(*argv, encoding="ascii")
    assert done.returncode == 0
    assert b"/caf\xe9.png\t" in done.stdout
    assert b"/gar\\xe7on.png\t" in done.stdout


def test_json_of_file_names_that_are_not_utf_8_is_json(run_with_strict_output, runs, latin_names):
    done = run_with_strict_output("caption", latin_names, "--checkpoint", runs["caption"], "--beam", "1", "--json")
    assert done.returncode == 0
    names = [os.fsencode(row["image"]) for row in json.loads(done.stdout)]
    assert [os.path.basename(name) for name in names] == [b"caf\xe9.png", "gar\u00e7on.png".encode()]


def test_detections_of_file_names_that_are_not_utf_8_are_written(
    run_with_strict_output, detector_run, latin_names, tmp_path
):
    found = tmp_path / "found.json"
    argv = ("detect", latin_names, "red circle", "--threshold", "0", "--top-k", "1", "--checkpoint", detector_run)
    done = run_with_strict_output(*argv, "--json", "--coco", found, "--out", tmp_path / "drawn")
    assert done.returncode == 0
    images = json.loads((tmp_path / "found-images.json").read_bytes())["images"]
    expected = [b"caf\xe9.png", "gar\u00e7on.png".encode()]
    for names in ([row["image"] for row in json.loads(done.stdout)], [image["file_name"] for image in images]):
        assert [os.path.basename(os.fsencode(name)) for name in names] == expected
    assert sorted(os.listdir(os.fsencode(tmp_path / "drawn"))) == sorted([os.fsencode(LEDGER), *expected])
    assert run_with_strict_output(*argv).stdout.count(b"caf\xe9.png\tred circle\t") == 1


def test_a_search_finds_file_names_that_are_not_utf_8(run_with_strict_output, runs, latin_names, tmp_path):
    argv = ("rerank", "--images", latin_names, "--query", "a red thing", "--checkpoint", runs["coarse"])
    sheet = tmp_path / "sheet.png"
    for _ in range(2):  # with a new index and with the one that is kept
        done = run_with_strict_output(*argv, "--json", "--sheet", sheet, "--workers", "0")
        assert done.returncode == 0
        names = {os.path.basename(os.fsencode(row["path"])) for row in json.loads(done.stdout)}
        assert names == {b"caf\xe9.png", "gar\u00e7on.png".encode()}
    assert b"/caf\xe9.png\n" in run_with_strict_output(*argv, "--workers", "0").stdout + b"\n"


def test_max_pixels_is_an_option_wherever_pictures_are_read(runs, detector_run, picture, capsys):
    for argv in (
        ("caption", picture, "--checkpoint", runs["caption"], "--beam", "1"),
        ("answer", picture, "how many?", "--checkpoint", runs["vqa"]),
        ("detect", picture, "cat", "--checkpoint", detector_run),
        ("rerank", "--images", picture.parent, "--query", "cat", "--checkpoint", runs["coarse"], "--workers", "0"),
    ):
        code, _, err = command(capsys, *argv, "--max-pixels", "1199")
        assert code == 1, argv
        assert "more than 1,199 pixels" in err or "none of 1" in err
        code, _, err = command(capsys, *argv, "--max-pixels", "1200")
        assert code == 0, err
