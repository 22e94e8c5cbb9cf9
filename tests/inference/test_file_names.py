"""Commands on files whose names are not UTF-8, and on pictures past `--max-pixels`: nothing ends in a traceback."""

import ast
import io
import json
import os
import re
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


def test_file_names_that_are_not_utf_8_are_not_printed(run_with_strict_output, runs, latin_names):
    folder = os.fsencode(latin_names)
    done = run_with_strict_output("caption", latin_names, "--checkpoint", runs["caption"], "--beam", "1")
    assert done.returncode == 0
    printed = [line.split(b"\t")[0] for line in done.stdout.splitlines()]
    assert printed == [folder + b"/caf\\udce9.png", folder + "/gar\u00e7on.png".encode()]


def test_a_terminal_without_an_encoding_for_a_name_gets_its_number(run_with_strict_output, runs, latin_names):
    argv = ("caption", latin_names, "--checkpoint", runs["caption"], "--beam", "1")
    done = run_with_strict_output(*argv, encoding="ascii")
    assert done.returncode == 0
    assert b"/caf\\udce9.png\t" in done.stdout
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
    assert run_with_strict_output(*argv).stdout.count(b"caf\\udce9.png\tred circle\t") == 1


def test_a_search_finds_file_names_that_are_not_utf_8(run_with_strict_output, runs, latin_names, tmp_path):
    argv = ("rerank", "--images", latin_names, "--query", "a red thing", "--checkpoint", runs["coarse"])
    sheet = tmp_path / "sheet.png"
    for _ in range(2):  # with a new index and with the one that is kept
        done = run_with_strict_output(*argv, "--json", "--sheet", sheet, "--workers", "0")
        assert done.returncode == 0
        names = {os.path.basename(os.fsencode(row["path"])) for row in json.loads(done.stdout)}
        assert names == {b"caf\xe9.png", "gar\u00e7on.png".encode()}
    assert b"/caf\\udce9.png\n" in run_with_strict_output(*argv, "--workers", "0").stdout + b"\n"


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


#: Names that split lines, move terminals, turn letters round, are no text, or look like an option or an escape.
ODD_NAMES = [
    b"new\nline.png",
    b"return\r.png",
    b"tab\tbed.png",
    b"\x1b[2Jclear.png",
    "control\u009b2J.png".encode(),
    "right\u202egnp.png".encode(),
    "separator\u2028.png".encode(),
    "mark\ufeff.png".encode(),
    b"latin\xe9\x9b.png",
    b"-option.png",
    b"back\\nslash.png",
    "gar\u00e7on \u732b.png".encode(),
]
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def base_names(paths) -> set[bytes]:
    return {os.path.basename(os.fsencode(path)) for path in paths}


def unescaped(cell: str) -> bytes:
    """What a cell of a table stands for."""
    return os.fsencode(ast.literal_eval('"' + cell.replace('"', '\\"') + '"'))


@pytest.fixture
def odd_names(tmp_path):
    """Pictures with odd names, and as many that cannot be read, in a folder of an odd name."""
    folder = tmp_path / "odd\x1b]0;\nfolder"
    (folder / "broken").mkdir(parents=True)
    for name in ODD_NAMES:
        Image.new("RGB", (64, 64), "red").save(folder / os.fsdecode(name))
        (folder / "broken" / os.fsdecode(name)).write_bytes(b"no picture")
    return folder


def argv_of(verb, odd_names, runs, detector_run):
    in_detail = ("--threshold", "0", "--top-k", "1", "--checkpoint", detector_run)
    of_all = ("--workers", "0", "--shown", "99", "--checkpoint", runs["coarse"])
    return {
        "caption": ("caption", odd_names, "--checkpoint", runs["caption"], "--beam", "1", "--batch", "4"),
        "answer": ("answer", odd_names, "how\tmany\x1b?", "--checkpoint", runs["vqa"]),
        "detect": ("detect", odd_names, "a\x1b[2J\tred\u202e\ncircle . moon", *in_detail),
        "rerank": ("rerank", "--images", odd_names, "--query", "a\nred\x1b thing", *of_all),
    }[verb]


COLUMNS = {"caption": 2, "answer": 2, "detect": 4}


@pytest.mark.parametrize(
    ("verb", "encoding"), [("caption", "cp1252"), ("answer", "utf-8"), ("detect", "utf-8"), ("rerank", "ascii")]
)
def test_a_name_splits_a_line_or_moves_the_terminal(
    verb, encoding, run_with_strict_output, odd_names, runs, detector_run, capfd
):
    done = run_with_strict_output(*argv_of(verb, odd_names, runs, detector_run), encoding=encoding)
    assert done.returncode == 0
    printed = done.stdout.decode(encoding)
    errors = capfd.readouterr().err.replace("\rpairs", "pairs")  # a bar's
    for text in (printed, errors):
        assert not CONTROLS.search(text)
    assert errors.count("left out: ") == len(ODD_NAMES) == len(re.findall("^left out: ", errors, re.MULTILINE))
    lines = printed.splitlines()
    if verb == "rerank":
        assert lines[0] == "a\\nred\\x1b thing"
        assert len(lines) == 2 + len(ODD_NAMES)
        shown = [line[line.index("/") :] for line in lines[2:]]
    else:
        assert {line.count("\t") + 1 for line in lines} == {COLUMNS[verb]}
        shown = [line.split("\t")[0] for line in lines]
    assert sorted(map(os.path.basename, map(unescaped, shown))) == sorted(ODD_NAMES)


@pytest.mark.parametrize(
    ("verb", "encoding"), [("caption", "ascii"), ("answer", "utf-8"), ("detect", "cp1252"), ("rerank", "ascii")]
)
def test_json_of_odd_names_is_none_or_moves_the_terminal(
    verb, encoding, run_with_strict_output, odd_names, runs, detector_run
):
    done = run_with_strict_output(*argv_of(verb, odd_names, runs, detector_run), "--json", encoding=encoding)
    assert done.returncode == 0
    assert not CONTROLS.search(done.stdout.decode(encoding))
    rows = json.loads(done.stdout.decode(encoding))
    key = "path" if verb == "rerank" else "image"
    assert base_names(row[key] for row in rows) == set(ODD_NAMES)
    if verb == "detect":
        assert rows[0]["detections"][0]["label"] in ("a\x1b[2J\tred\u202e\ncircle", "moon")


def test_files_that_are_written_lose_an_odd_name(run_with_strict_output, odd_names, runs, detector_run, tmp_path):
    found = tmp_path / "found\n.json"
    argv = argv_of("detect", odd_names, runs, detector_run)
    assert run_with_strict_output(*argv, "--coco", found, "--out", tmp_path / "drawn\x1b").returncode == 0
    truth = json.loads((tmp_path / "found\n-images.json").read_text(encoding="utf-8"))
    assert base_names(image["file_name"] for image in truth["images"]) == set(ODD_NAMES)
    assert len(json.loads(found.read_text(encoding="utf-8"))) == len(ODD_NAMES)
    drawn = set(os.listdir(os.fsencode(tmp_path / "drawn\x1b"))) - {os.fsencode(LEDGER)}
    assert {name.removeprefix(os.fsencode(f"{odd_names.name}-")) for name in drawn} == set(ODD_NAMES)
    sheet = tmp_path / "sheet\n.png"
    argv = argv_of("rerank", odd_names, runs, detector_run)
    assert run_with_strict_output(*argv, "--sheet", sheet).returncode == 0
    assert sheet.is_file()


def test_files_of_odd_names_that_are_not_there_are_told_in_two_lines(capsys, tmp_path, runs):
    for name in map(os.fsdecode, ODD_NAMES[:3] + ODD_NAMES[4:9]):
        for argv in (
            ("caption", tmp_path / name, "--checkpoint", runs["caption"]),
            ("caption", tmp_path, "--checkpoint", tmp_path / name),
            ("detect", runs["caption"] / "config.json", "--labels", tmp_path / name, "--checkpoint", runs["caption"]),
            ("eval", tmp_path / f"{name}.json", "--checkpoint", runs["caption"]),
            ("convert", tmp_path / name, tmp_path / "out"),
            ("vqa-answers", tmp_path / name, "--output", tmp_path / "answers.json"),
            ("recipes", "show", f"./{name}"),
        ):
            code, _, err = command(capsys, *argv)
            assert code in (1, 2), argv
            assert len([line for line in err.splitlines() if not line.startswith("checkpoint: ")]) == 1, err
            assert not CONTROLS.search(err)


def test_a_text_that_is_no_text_ends_in_a_traceback(capsys, picture, runs, detector_run):
    for argv in (
        ("answer", picture, "caf\udce9?", "--checkpoint", runs["vqa"]),
        ("detect", picture, "caf\udce9", "--checkpoint", detector_run),
        ("detect", picture, "a caf\udce9", "--phrases=a caf\udce9", "--checkpoint", detector_run),
        ("rerank", "--images", picture.parent, "--query", "caf\udce9", "--checkpoint", runs["coarse"]),
    ):
        code, _, err = command(capsys, *argv)
        assert code == 1, argv
        assert "holds a byte that is no text at character" in err.splitlines()[-1]


def test_data_with_odd_texts_split_a_line_of_the_results(
    run_with_strict_output, detector_run, latin_names, tmp_path, capfd
):
    names = ["red\x1b[2J\ncircle", "moon\u202e"]
    images = [{"id": 1, "file_name": "caf\udce9.png"}, {"id": 2, "file_name": "not\nthere\x1b.png"}]
    content = {
        "images": [*images, {"id": 3, "file_name": "gar\u00e7on.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40]}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    data = tmp_path / "odd\n\x1b.json"
    data.write_text(json.dumps(content))
    argv = ("eval", data, "--images", latin_names, "--checkpoint", detector_run, "--workers", "0")
    done = run_with_strict_output(*argv, "--output", tmp_path / "results")
    assert done.returncode == 0
    printed = done.stdout.decode()
    assert printed.startswith("odd\\n\\x1b all, detection: ")
    assert "left out: 1, such as odd\\n\\x1b/not\\nthere\\x1b.png: no such file" in printed
    assert not CONTROLS.search(printed + capfd.readouterr().err)
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["bad"][0][0] == "odd\n\x1b/not\nthere\x1b.png"
