"""`fiber detect` and `fiber rerank --images` over files that are there: inputs, a user's, links to them, their own."""

import json
import os
import shutil
import sys

import pytest
from commands import command
from PIL import Image
from small_detector import PROMPT, detect

from fiber_cli.inference.index import INDEX
from fiber_cli.outputs import LEDGER

resource = pytest.importorskip("resource", reason="limits of file sizes are of Unix")
CONTENT = b"a user's file"
#: Bytes that a file may have, from none of the outputs to all of them.
SIZES = (0, 1, 10, 100, 500, 1000, 2000, 3000, 4000, 1_000_000)


@pytest.fixture
def work(tmp_path, pictures, monkeypatch):
    """The current folder: two pictures, one of them also by links, a file of labels, and a user's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "more").mkdir(parents=True)
    for name in ("a.png", "b.jpg"):
        shutil.copy(pictures / name, tmp_path / "in" / name)
    (tmp_path / "symbolic.json").symlink_to("in/a.png")
    os.link(tmp_path / "in" / "a.png", tmp_path / "hard.json")
    (tmp_path / "labels.txt").write_text("red circle\nblue square\n")
    (tmp_path / "user.json").write_bytes(CONTENT)
    return tmp_path


def contents(folder):
    """Every file below a folder with its content, links to where they lead, but for the ledgers."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file() and path.name != LEDGER:
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def forget_models(monkeypatch):
    """No model is read."""

    def refuse(*arguments, **options):
        raise AssertionError("a model was read before the outputs were looked at")

    monkeypatch.setattr("fiber_cli.inference.fiber.load", refuse)
    monkeypatch.setattr("fiber_cli.checkpoints.loading.load", refuse)


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize(
    "argv",
    [
        ("in", PROMPT, "--coco", "in/a.png"),
        ("in/a.png", PROMPT, "--coco", "in/more/../a.png"),
        ("in", PROMPT, "--coco", "symbolic.json"),
        ("symbolic.json", PROMPT, "--coco", "in/a.png"),
        ("in", PROMPT, "--coco", "hard.json"),
        ("in", "--labels", "labels.txt", "--coco", "labels.txt"),
        ("in/b.jpg", "hard.json", PROMPT, "--out", "in"),
        ("in", "hard.json", PROMPT, "--coco", "more/new.json", "--out", "."),
        ("in/a.png", PROMPT, "--coco", "RUN/checkpoints/latest"),
        ("in/a.png", PROMPT, "--coco", "RUN/checkpoints/step-000001/tokenizer/tokenizer.json"),
    ],
)
def test_detect_replaces_what_it_reads(detector_run, work, capsys, monkeypatch, argv, force):
    run = work / "run"
    shutil.copytree(detector_run, run)
    forget_models(monkeypatch)
    before = contents(work)
    words = [word.replace("RUN", str(run)) for word in argv]
    code, out, err = detect(capsys, run, *words, *force)
    assert code == 1
    assert err.count("\n") == 1
    assert "would be overwritten" in err or "lies in the checkpoint" in err
    assert out == ""
    assert contents(work) == before


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--coco", "user.json"), "user.json: is there already"),
        (("--coco", "user"), "user-images.json: is there already"),
        (("--out", "drawn"), "drawn/b.jpg: is there already"),
        (("--out", "user.json"), "user.json is not a folder"),
        (("--coco", "in"), "in: is a folder"),
        (("--coco", "drawn/a.png", "--out", "drawn"), "two outputs of this command"),
        (("--coco", "drawn/A.PNG", "--out", "drawn"), "two outputs of this command"),
    ],
)
def test_detect_replaces_a_users_file(detector_run, work, capsys, monkeypatch, argv, told):
    if "images" in told:
        (work / "user-images.json").write_bytes(CONTENT)
    (work / "drawn").mkdir()
    if "two outputs" not in told:
        (work / "drawn" / "b.jpg").write_bytes(CONTENT)
    before = contents(work)
    with monkeypatch.context() as patched:
        forget_models(patched)
        code, _, err = detect(capsys, detector_run, "in", PROMPT, *argv)
    assert code == 1
    assert told in err
    assert err.count("\n") == 1
    assert contents(work) == before
    if "already" in told:
        assert detect(capsys, detector_run, "in", PROMPT, *argv, "--force")[0] == 0
        assert CONTENT not in [content for name, content in contents(work).items() if name in told]


def test_detect_refuses_its_own_earlier_output(detector_run, work, capsys):
    words = ("in", PROMPT, "--out", "drawn", "--coco", "found/results.json")
    for threshold in ("0.9", "0"):
        code, _, err = detect(capsys, detector_run, *words, "--threshold", threshold)
        assert code == 0, err
    assert len(json.loads((work / "found" / "results.json").read_bytes())) > 0
    (work / "drawn" / "b.jpg").write_bytes(CONTENT)
    code, _, err = detect(capsys, detector_run, *words)
    assert code == 1
    assert "drawn/b.jpg: is there already, and was not written by fiber or has been changed since" in err


def test_a_link_is_written_through(detector_run, work, capsys):
    (work / "link.json").symlink_to("user.json")
    code, _, err = detect(capsys, detector_run, "in", PROMPT, "--coco", "link.json")
    assert (code, "is there already" in err) == (1, True)
    assert detect(capsys, detector_run, "in", PROMPT, "--coco", "link.json", "--force")[0] == 0
    assert (work / "user.json").read_bytes() == CONTENT
    assert not (work / "link.json").is_symlink()


@pytest.mark.parametrize("size", SIZES)
def test_without_room_something_is_left_or_lost(detector_run, work, capsys, size):
    """Of outputs that were there, as of those that were not; the limit of a file's size stands for that of a disk."""
    words = ("in", PROMPT, "--threshold", "0", "--out", "drawn", "--coco", "results.json")
    assert detect(capsys, detector_run, *words, "--top-k", "1")[0] == 0
    before = contents(work)
    new = ("in", PROMPT, "--threshold", "0", "--out", "new/drawn", "--coco", "new/results.json")
    code, err = {}, {}
    for name, argv in {"over": words, "new": new}.items():
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            code[name], _, err[name] = detect(capsys, detector_run, *argv)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code["over"] == code["new"] == (0 if size == SIZES[-1] else 1)
    after = contents(work)
    assert not [name for name in after if ".tmp" in name]
    if size < SIZES[-1]:
        assert err["over"].count("cannot be written") == 1
        assert "File too large" in err["over"]
        assert after["results.json"] == before["results.json"]
        assert "new/results.json" not in after
        assert not {"Traceback", "Exception"} & set(err["new"].split())
    for name, content in after.items():
        if name.endswith((".png", ".jpg")):
            Image.open(work / name).load()
        assert content or "labels" in name


def test_a_video_without_room_leaves_half_of_it(detector_run, work, capsys):
    av = pytest.importorskip("av")
    with av.open("clip.mp4", "w") as container:
        stream = container.add_stream(container.default_video_codec, 10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for number in range(8):
            image = Image.effect_noise((64, 64), 10 * number).convert("RGB")
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))
    for size in (0, 10, 40, 1000, 3000, 5000):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            code, _, err = detect(capsys, detector_run, "clip.mp4", PROMPT, "--out", "drawn")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert code == 1, size
        assert "drawn/clip.mp4: cannot be written (File too large" in err
        assert not (work / "drawn").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
def test_a_full_device_ends_in_a_traceback(detector_run, work, capsys):
    code, _, err = detect(capsys, detector_run, "in", PROMPT, "--coco", "/dev/full")
    assert code == 1
    assert "/dev/full: cannot be written (No space left on device" in err
    assert detect(capsys, detector_run, "in", PROMPT, "--coco", "/dev/null")[0] == 0


def search(capsys, run, *argv):
    words = ["rerank", "--images", "in", "--query", "a red circle", "--top-k", "2", "--workers", "0"]
    return command(capsys, *words, "--checkpoint", run, *argv)


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize(
    "argv",
    [
        ("--sheet", "in/a.png"),
        ("--sheet", "link.png"),
        ("--index", "in/b.jpg"),
        ("--index", "hard.json"),
        ("--sheet", "sheet.png", "--index", "./sheet.png"),
        ("--sheet", "RUN/checkpoints/step-000003/shown.png"),
        ("--index", "RUN/checkpoints/step-000003/model.safetensors"),
    ],
)
def test_rerank_replaces_what_it_reads(runs, work, capsys, monkeypatch, argv, force):
    run = work / "run"
    shutil.copytree(runs["coarse"], run)
    (work / "link.png").symlink_to("in/a.png")
    Image.new("RGB", (4, 4)).save(run / "checkpoints" / "step-000003" / "shown.png")
    before = contents(work)
    forget_models(monkeypatch)
    code, _, err = search(capsys, run, *[word.replace("RUN", str(run)) for word in argv], *force)
    assert code == 1
    assert err.count("\n") == 1
    assert "would be overwritten" in err or "two outputs" in err
    assert contents(work) == before


def test_rerank_replaces_a_users_file_and_refuses_its_own(runs, work, capsys):
    (work / "sheet.png").write_bytes(CONTENT)
    for argv in (("--index", "user.json"), ("--sheet", "sheet.png"), ("--sheet", "sheet.unknown")):
        before = contents(work)
        assert search(capsys, runs["coarse"], *argv)[0] == 1, argv
        assert contents(work) == before
    (work / "in" / INDEX).write_bytes(CONTENT)
    code, _, err = search(capsys, runs["coarse"])
    assert (code, "not an index of `fiber rerank`" in err) == (1, True)
    (work / "in" / INDEX).unlink()
    both = ("--index", "user.json", "--sheet", "sheet.png")
    assert search(capsys, runs["coarse"], *both, "--force")[0] == 0
    assert Image.open("sheet.png").size[0] > 100
    (work / "in" / "b.jpg").unlink()  # the index has to be written again
    assert search(capsys, runs["coarse"], *both)[0] == 0
    assert search(capsys, runs["coarse"])[0] == 0
    assert {path.name for path in (work / "in").iterdir()} == {"a.png", "more", INDEX}


@pytest.mark.parametrize("length", [0, 9, 30, 200, -1])
def test_an_index_cut_short_ends_the_search(runs, work, capsys, length):
    assert search(capsys, runs["coarse"])[0] == 0
    index = work / "in" / INDEX
    whole = index.read_bytes()
    index.write_bytes(whole[:length])
    code, _, err = search(capsys, runs["coarse"])
    assert code == 0
    assert f"in/{INDEX}: a damaged index; it is made anew" in err
    assert index.read_bytes() == whole


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_standard_output_is_a_file_like_others(detector_run, work, capfd):
    """`--coco /dev/stdout > file`: the file is the user's own wish."""
    with open("redirected.json", "w") as redirected:
        kept = os.dup(1)
        os.dup2(redirected.fileno(), 1)
        try:
            code, _, err = detect(capfd, detector_run, "in", PROMPT, "--coco", "/proc/self/fd/1", "--top-k", "1")
        finally:
            os.dup2(kept, 1)
            os.close(kept)
    assert code == 0, err
    assert "is left out" in err
