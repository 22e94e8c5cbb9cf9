"""Videos read and written frame by frame."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from image_files import encoded
from PIL import Image
from small_detector import LABELS, PROMPT, assert_same, detect

from fiber_cli.data.image_formats import VIDEO_SUFFIXES
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene
from fiber_cli.errors import UserError
from fiber_cli.inference import detect as detecting
from fiber_cli.inference.annotate import SAME_OBJECT_IOU, annotated
from fiber_cli.inference.detections import Detection, best_of_objects
from fiber_cli.inference.fiber import Fiber
from fiber_cli.inference.video import VideoWriter, frames, rate_of


def write_video(file, count=5, size=(64, 48), turn=0):
    av = pytest.importorskip("av")
    with av.open(str(file), "w") as container:
        stream = container.add_stream(container.default_video_codec, Fraction(10))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 2_000_000
        if turn:
            stream.set_display_rotation(turn)
        for n in range(count):
            picture = draw(scene(0, "val", n, 64)).resize(size)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_every_frame_of_a_video_is_searched_and_drawn(detector_run, detector, capsys, tmp_path, suffix):
    file, out = tmp_path / f"clip{suffix}", tmp_path / "out"
    write_video(file, size=(320, 240))
    code, text, err = detect(capsys, detector_run, file, PROMPT, "--json", "--batch", "2", "--out", out, "--top-k", "3")
    rows = json.loads(text)
    assert code == 0, err
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    shots = list(frames(file))
    for row, shot in zip(rows, shots, strict=True):
        assert row["image"] == str(file)
        assert (row["width"], row["height"]) == (320, 240)
        detections = detector.detect(shot.picture, LABELS, threshold=0, top_k=3)
        assert_same([Detection(**one) for one in row["detections"]], detections)
    written = list(frames(out / file.name))
    assert [shot.picture.size for shot in written] == [(640, 480)] * 5
    assert written[0].rate == shots[0].rate == 10
    drawn_once = best_of_objects(detections, SAME_OBJECT_IOU)
    last = annotated(shots[4].picture, [], 2), annotated(shots[4].picture, drawn_once, 2), written[4].picture
    plain, wanted, drawn = (np.asarray(picture, float) for picture in last)
    changed = np.abs(wanted - plain) > 60
    assert changed.any()
    assert np.abs(drawn - wanted)[changed].mean() < 0.5 * np.abs(drawn - plain)[changed].mean()


def test_video_of_a_turned_camera_and_odd_sides(tmp_path):
    av = pytest.importorskip("av")
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write the orientation of a video")
    write_video(tmp_path / "clip.mp4", turn=-90)
    plain, (turned, *_) = draw(scene(0, "val", 0, 64)).resize((64, 48)), frames(tmp_path / "clip.mp4")
    wanted = plain.transpose(Image.Transpose.ROTATE_270)
    assert turned.picture.size == (48, 64)
    assert np.abs(np.asarray(turned.picture, float) - np.asarray(wanted, float)).mean() < 8
    writer = VideoWriter(tmp_path / "odd.mp4", Fraction(30000, 1001), (35, 21))
    writer.add(Image.new("RGB", (35, 21)))
    writer.close()
    (shot,) = frames(tmp_path / "odd.mp4")
    assert shot.picture.size == (36, 22)


def test_videos_are_streamed(detector_run, capsys, tmp_path, monkeypatch):
    """No more frames than a batch are waiting, of a video that other files follow."""
    write_video(tmp_path / "clip.mp4", count=9)
    Image.new("RGB", (40, 40)).save(tmp_path / "last.png")
    read, seen, original = [], [], detecting.shots
    monkeypatch.setattr(detecting, "shots", lambda *given: (read.append(shot) or shot for shot in original(*given)))
    monkeypatch.setattr(Fiber, "find", lambda self, images, *_, **__: seen.append(len(read)) or [[] for _ in images])
    argv = (tmp_path / "clip.mp4", tmp_path / "last.png", "dog", "--batch", "3", "--json")
    code, out, _ = detect(capsys, detector_run, *argv)
    assert code == 0
    assert seen == [3, 6, 9, 10]
    assert [row.get("frame") for row in json.loads(out)] == [*range(9), None]


def test_bad_videos_are_told_and_the_rest_is_done(detector_run, readable, capsys, tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mkv", count=30)
    whole = (tmp_path / "clip.mkv").read_bytes()
    cut, broken = tmp_path / "cut.mkv", tmp_path / "broken.mp4"
    cut.write_bytes(whole[: len(whole) // 2])
    broken.write_bytes(b"no video")
    argv = (broken, cut, readable[0], "dog", "--json", "--out", tmp_path / "out")
    code, out, err = detect(capsys, detector_run, *argv)
    rows = json.loads(out)
    assert code == 0
    assert rows[-1]["image"] == str(readable[0])
    assert "broken.mp4: not a readable video" in err
    assert 0 < len(rows) - 1 < 30
    assert len(list(frames(tmp_path / "out" / "cut.mkv"))) == len(rows) - 1
    code, out, err = detect(capsys, detector_run, broken, "dog")
    assert code == 1
    assert out == ""
    assert "none of 1 files could be read" in err
    monkeypatch.setitem(sys.modules, "av", None)
    code, out, err = detect(capsys, detector_run, readable[0], tmp_path / "clip.mkv", "dog")
    assert code == 1
    assert out == ""
    assert "pip install 'fiber-vl[video]'" in err


def write_jpegs(file, sizes, rate=10, codec="mjpeg"):
    """A video whose frames are JPEGs of these sizes, whatever its header says: that of the first."""
    av = pytest.importorskip("av")
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, Fraction(rate))
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuvj420p"
        for number, size in enumerate(sizes):
            packet = av.Packet(encoded(Image.new("RGB", size, "red"), "JPEG", subsampling="4:2:0"))
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, rate), True
            container.mux(packet)


def test_frames_past_the_limit_are_told_before_they_are_decoded(detector_run, readable, capsys, tmp_path, monkeypatch):
    file = tmp_path / "large.mp4"
    write_video(file, size=(320, 240))
    assert len(list(frames(file, 320 * 240))) == 5
    av = pytest.importorskip("av")
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", opened := Opened(av.open))
        with pytest.raises(UserError, match=r"large.mp4: frames of 320 x 240, more than 76,799 pixels"):
            list(frames(file, 320 * 240 - 1))
    assert opened.options == {"max_pixels": str(320 * 240 - 1 + 2**20)}
    code, out, err = detect(capsys, detector_run, file, readable[0], "dog", "--json", "--max-pixels", "50000")
    assert code == 0
    assert "left out: " in err
    assert "more than 50,000 pixels" in err
    assert [row["image"] for row in json.loads(out)] == [str(readable[0])]


class Opened:
    """A function that keeps what it is told."""

    def __init__(self, function):
        self.function = function

    def __call__(self, file, options):
        self.options = options
        return self.function(file, options=options)


@pytest.mark.parametrize("large", [(400, 300), (4000, 3000)])
def test_frames_that_grow_past_the_limit_end_their_video(tmp_path, large):
    file = tmp_path / "grows.avi"
    write_jpegs(file, [(64, 48)] * 3 + [large] + [(64, 48)])
    seen = []
    with pytest.raises(UserError, match=r"grows.avi: .*(more than 10,000 pixels|max_pixels)"):
        seen.extend(shot.picture.size for shot in frames(file, 10_000))
    assert set(seen) <= {(64, 48)}


@pytest.mark.parametrize("rate", [0, Fraction(1, 5000), 10**6, Fraction(-25), None])
def test_rates_of_no_video_are_the_usual_one(tmp_path, capsys, rate):
    assert rate_of(tmp_path / "a.mp4", rate) == 25
    told = capsys.readouterr().err
    assert len(told.splitlines()) == bool(rate)


def test_rates_of_videos_are_kept(tmp_path, capsys):
    for rate in (Fraction(30000, 1001), Fraction(1), Fraction(240)):
        assert rate_of(tmp_path / "a.mp4", rate) == rate
    assert capsys.readouterr().err == ""
