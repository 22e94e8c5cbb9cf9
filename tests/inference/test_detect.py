"""`Fiber.detect` and `ground`, and the command `fiber detect`, with small random models."""

import dataclasses
import json
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from commands import command

from fiber_cli.checkpoints import directory as checkpoint
from fiber_cli.inference import detect as detecting
from fiber_cli.tasks.regions import prompts
from fiber_cli.data.sources.coco import CocoDetection
from fiber_cli.tasks.regions.evaluation import DetectionSet
from fiber_cli.data.scenes.drawing import draw, scene
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.inference.fiber import Detection, Fiber, to_supervision
from fiber_cli.model.config import TINY
from fiber_cli.tasks.prediction import predict_all
from fiber_cli.tasks.regions.task import GroundingTask

LABELS = ["red circle", "Star", "traffic_light_(big)", "dog"]
SHORT, LONGEST, LENGTH, MOST = 96, 160, 40, 20


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a random model that finds much, its gates open."""
    torch.manual_seed(3)
    config = dataclasses.replace(TINY, image=dataclasses.replace(TINY.image, embed_dim=32, fixed_window=True))
    settings = {"channels": 32, "blocks": 1, "score_threshold": 0.0, "max_detections": MOST}
    task = GroundingTask(config, **settings)
    with torch.no_grad():
        for name, value in task.named_parameters():
            if not name.startswith("detector.") or name.endswith(("text_proj.weight", "bias_lang")):
                value.add_(0.1 * torch.randn_like(value))
        task.detector.head.bias0.fill_(-1.0)
    folder = tmp_path_factory.mktemp("run")
    sizes = {
        "image_size": [64, 64],
        "text_length": LENGTH,
        "short_side": SHORT,
        "longest_side": LONGEST,
        "published_names": False,
    }
    about = {"model": config.to_dict(), "task": {"name": "detection", **settings}, "preprocessing": sizes}
    about |= {"labels": LABELS, "tokenizer": "builtin"}
    weights = checkpoint.named_weights(task)
    checkpoint.save(folder, 1, config=about, weights=weights, tokenizer=load_tokenizer("builtin"))
    return folder


@pytest.fixture(scope="module")
def model(run):
    return Fiber.from_pretrained(run)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Three pictures of different sizes in two folders, two of them of one name, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for n, (name, size) in enumerate((("a.png", (64, 64)), ("b.jpg", (150, 40)), ("more/a.png", (50, 130)))):
        draw(scene(0, "val", n, 64)).resize(size).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    return folder


@pytest.fixture(scope="module")
def good(pictures):
    return [pictures / "a.png", pictures / "b.jpg", pictures / "more" / "a.png"]


def same(found, wanted):
    """Same labels in the same order, scores and boxes within rounding."""
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    assert [each.score for each in found] == pytest.approx([each.score for each in wanted], abs=1e-5)
    np.testing.assert_allclose([each.box for each in found], [each.box for each in wanted], atol=2e-3)


def overlap(a, b):
    """IoU of boxes that name their first and last pixel by their edges."""
    width, height = (min(a[2 + i], b[2 + i]) - max(a[i], b[i]) for i in (0, 1))
    inter = max(0, width) * max(0, height)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def test_every_form_of_input_alone_and_in_a_batch(model, good):
    found = model.detect(good, LABELS, threshold=0)
    assert len(found) == 3 and all(len(each) == MOST for each in found)
    for path, each in zip(good, found):
        width, height = Image.open(path).size
        assert [one.score for one in each] == sorted((one.score for one in each), reverse=True)
        for label, index, score, (x1, y1, x2, y2) in each:
            assert label == LABELS[index] and 0 < score < 1
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert len({one.index for each in found for one in each}) == 4
    opened = Image.open(good[1])
    for one in (str(good[1]), good[1], opened, np.asarray(opened)):
        same(model.detect(one, LABELS, threshold=0), found[1])
    typed = model.detect(good[0], "red circle . Star . traffic_light_(big) . dog.", threshold=0)
    same(typed, found[0])


def test_threshold_nms_and_top_k_hold_for_one_call(model, good):
    before = dict(model.task.postprocessing)
    everything = model.detect(good[0], LABELS, threshold=0)
    middle = everything[12].score
    same(model.detect(good[0], LABELS, threshold=middle), [one for one in everything if one.score >= middle])
    same(model.detect(good[0], LABELS, threshold=0, top_k=5), everything[:5])
    lonely = model.detect(good[0], LABELS, threshold=0, nms_iou=0, top_k=1000)
    crowd = model.detect(good[0], LABELS, threshold=0, nms_iou=1, top_k=1000)
    assert len(lonely) < len(crowd)
    for n, one in enumerate(lonely):
        assert not any(one.label == two.label and overlap(one.box, two.box) > 0.02 for two in lonely[:n])
    assert model.task.postprocessing == before
    same(model.detect(good[0], LABELS, threshold=0), everything)


def test_chunks_are_prompts_of_their_own_over_one_image_stem(model, good, monkeypatch):
    stems, alone = [], []
    original = model.task.encoder.image_stem
    for index, label in enumerate(LABELS):
        found = model.detect(good[0], [label], threshold=0)
        alone += [each._replace(index=index) for each in found]
    monkeypatch.setattr(model.task.encoder, "image_stem", lambda pixels: stems.append(1) or original(pixels))
    alone.sort(key=lambda each: -each.score)
    chunked = model.detect(good[0], LABELS, threshold=0, chunk=1)
    same(chunked, alone[:MOST])
    assert len(stems) == 1
    together = model.detect(good[0], LABELS, threshold=0)
    assert max(abs(one.score - two.score) for one, two in zip(together, chunked)) > 1e-4
    same(model.detect(good[0], LABELS, threshold=0, chunk=4), together)


def test_a_thousand_labels(model, good):
    """They take many prompts, none of which is cut."""
    labels = [f"thing number {n}" for n in range(1000)]
    query = model.label_query(labels)
    assert len(query.prompts) > 100 and not any(prompt.truncated for prompt in query.prompts)
    assert all(prompt.positive_map.any(1).all() for prompt in query.prompts)
    found = model.detect(good[1], labels, threshold=0)
    assert len(found) == MOST and all(each.label == f"thing number {each.index}" for each in found)
    assert len({each.index for each in found}) > 10


def test_phrases_of_a_sentence(model, good):
    """A sentence that is a prompt of labels gives what the labels give."""
    labels = ["red circle", "dog"]
    wanted = model.detect(good, labels, threshold=0)
    for found, each in zip(model.ground(good, "red circle. dog", labels, threshold=0), wanted):
        same(found, each)
    same(model.ground(good[0], "red circle. dog", "red circle; dog;", threshold=0), wanted[0])
    found = model.ground(good[0], "the Dog sees a dog", ["dog", "dog"], threshold=0)
    assert {each.index for each in found} == {0, 1} and {each.label for each in found} == {"dog"}


def test_noun_phrases_are_found(model, good, shared, monkeypatch):
    import nltk

    prompts._tagger.cache_clear()
    monkeypatch.setattr(nltk.data, "path", [str(shared / "data" / "nltk_data")])
    found = model.ground(good[0], "a red circle beside two stars", threshold=0)
    prompts._tagger.cache_clear()
    assert {each[:2] for each in found} == {("a red circle", 0), ("two stars", 1)}


def test_upright_pictures_of_every_mode(model, tmp_path):
    upright = draw(scene(0, "val", 4, 64)).resize((90, 60))
    wanted = model.detect(upright, LABELS, threshold=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    same(model.detect(tmp_path / "turned.png", LABELS, threshold=0), wanted)
    grey = upright.convert("L")
    grey.save(tmp_path / "grey.png")
    same(model.detect(tmp_path / "grey.png", LABELS, threshold=0), model.detect(grey, LABELS, threshold=0))
    upright.convert("CMYK").save(tmp_path / "cmyk.jpg")
    seen = Image.open(tmp_path / "cmyk.jpg").convert("RGB")
    same(model.detect(tmp_path / "cmyk.jpg", LABELS, threshold=0), model.detect(seen, LABELS, threshold=0))
    clear = upright.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    white = Image.new("RGB", upright.size, "white")
    same(model.detect(tmp_path / "clear.png", LABELS, threshold=0), model.detect(white, LABELS, threshold=0))
    for size in ((1, 1), (1, 200)):
        for *_, (x1, y1, x2, y2) in model.detect(Image.new("RGB", size), LABELS, threshold=0):
            assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]


def test_bad_input(model, runs, good, tmp_path):
    one = good[0]
    for labels, said in (
        ("", "the prompt is empty"),
        ("cat . . dog", "label 2 is ''"),
        ("cat . Cat", "label 2, 'Cat', is label 1 again"),
        ([], "no labels"),
        (["cat", " "], "label 2 is ' '"),
        (["cat", "dog", "Cat "], "label 3, 'Cat ', is label 1 again"),
        (["cat", None], "label 2 is None"),
        (["(all)"], "nothing of the name is left"),
        (["very " * 60 + "long"], "tokens alone"),
    ):
        with pytest.raises(UserError, match=said):
            model.detect(one, labels)
    for options in ({"threshold": 1.5}, {"nms_iou": -1}, {"top_k": 0}, {"chunk": 0}, {"chunk": "all"}):
        with pytest.raises(UserError, match=next(iter(options))):
            model.detect(one, "cat", **options)
    with pytest.raises(UserError, match="phrase 'a cat' is not in"):
        model.ground(one, "a dog", ["a cat"])
    with pytest.raises(UserError, match="no phrase to look for"):
        model.ground(one, "a dog", [])
    with pytest.raises(UserError, match="longer than the model's 40 tokens"):
        model.ground(one, "a dog and " * 30 + "a cat", ["a cat"])
    with pytest.raises(UserError, match="no such file"):
        model.detect("nowhere.png", "cat")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match="huge.png: more than 89,478,485 pixels"):
        model.detect(tmp_path / "huge.png", "cat")
    with pytest.raises(UserError, match="a checkpoint of coarse, without a detector; .*`fiber pretrain fine`"):
        Fiber.from_pretrained(runs["coarse"]).detect(one, "cat")
    with pytest.raises(UserError, match="a checkpoint of detection, without dual-encoder features"):
        model.embed_images(one)


def test_supervision(monkeypatch):
    found = [Detection("dog", 3, 0.75, (1.0, 2.0, 30.5, 40.0)), Detection("cat", 0, 0.5, (0.0, 0.0, 5.0, 6.0))]
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        to_supervision(found)
    monkeypatch.undo()
    pytest.importorskip("supervision")
    given = to_supervision(found)
    assert given.xyxy.tolist() == [[1, 2, 30.5, 40], [0, 0, 5, 6]] and given.confidence.tolist() == [0.75, 0.5]
    assert given.class_id.tolist() == [3, 0] and given.data["class_name"].tolist() == ["dog", "cat"]
    assert len(to_supervision([])) == 0


# the command


def detect(capsys, run, *argv):
    return command(capsys, "detect", *argv, "--checkpoint", run, "--threshold", "0")


PROMPT = " . ".join(LABELS)


def test_json_and_table_of_a_folder(run, model, pictures, good, capsys):
    code, out, err = detect(capsys, run, pictures, PROMPT, "--json", "--batch", "2")
    rows = json.loads(out)
    assert code == 0 and "broken.jpg: not a readable image" in err and f"{3 * MOST} detections" in err
    assert [row["image"] for row in rows] == [str(path) for path in good]
    assert (rows[1]["width"], rows[1]["height"]) == (150, 40) and "frame" not in rows[0]
    for row, wanted in zip(rows, model.detect(good, LABELS, threshold=0)):
        same([Detection(**each) for each in row["detections"]], wanted)
    code, out, err = detect(capsys, run, *good[:2], PROMPT, "--top-k", "3")
    lines = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and [line[0] for line in lines] == [str(good[0])] * 3 + [str(good[1])] * 3
    assert lines[0][1] in LABELS and len(lines[0][3].split()) == 4 and 0 < float(lines[0][2]) < 1
    code, out, _ = command(capsys, "detect", good[0], PROMPT, "--checkpoint", run, "--threshold", "0.999")
    assert code == 0 and out == ""
    code, out, _ = command(capsys, "detect", good[0], PROMPT, "--checkpoint", run, "--threshold", "0.999", "--json")
    assert json.loads(out)[0]["detections"] == []


def test_labels_of_a_file_and_phrases(run, model, good, capsys, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join([*LABELS, ""]))
    wanted = model.detect(good[0], LABELS, threshold=0)
    out = detect(capsys, run, good[0], "--labels", labels, "--json")[1]
    same([Detection(**each) for each in json.loads(out)[0]["detections"]], wanted)
    sentence = "red circle. dog"
    wanted = model.ground(good[0], sentence, ["dog"], threshold=0)
    for argv in ([good[0], sentence, "--phrases", "dog"], ["--phrases=dog", good[0], sentence]):
        out = detect(capsys, run, *argv, "--json")[1]
        same([Detection(**each) for each in json.loads(out)[0]["detections"]], wanted)


def test_bare_phrases_wherever_they_stand(run, good, capsys, monkeypatch):
    """Noun phrases are found; what the parser takes for the value is given back."""
    sentence = "a red circle beside two stars"
    spans = [("a red circle", (0, 12)), ("two stars", (20, 29))]
    monkeypatch.setattr("fiber_cli.tasks.regions.prompts.noun_phrases", lambda text: spans if text == sentence else [])
    for argv in (
        [good[0], sentence, "--json", "--phrases"],
        [good[0], sentence, "--phrases", "--json"],
        [good[0], "--phrases", sentence, "--json"],
        ["--phrases", good[0], sentence, "--json"],
    ):
        code, out, err = detect(capsys, run, *argv)
        assert code == 0, err
        assert {each["label"] for each in json.loads(out)[0]["detections"]} == {"a red circle", "two stars"}


def test_coco_results_agree_with_the_evaluation(run, model, good, capsys, tmp_path):
    code, _, _ = detect(capsys, run, *good, PROMPT, "--coco", tmp_path / "found.json")
    truth = COCO(str(tmp_path / "found-images.json"))
    assert code == 0 and [each["name"] for each in truth.loadCats(truth.getCatIds())] == LABELS
    read = truth.loadRes(str(tmp_path / "found.json"))
    images = {image["id"]: image for image in truth.loadImgs(truth.getImgIds())}
    assert [image["file_name"] for image in images.values()] == [str(path) for path in good]
    content = {
        "images": list(images.values()),
        "categories": [{"id": n, "name": name} for n, name in enumerate(LABELS, 1)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    source = CocoDetection(tmp_path / "truth.json", "/")
    tokenizer = model.loaded.tokenizer
    evalset = DetectionSet(source, tokenizer, LENGTH, short=SHORT, longest=LONGEST)
    found = evalset.found(predict_all(model.task, evalset, batch_size=2, workers=0).rows, extent=1).to_json()
    assert len(found) == len(read.getAnnIds()) == 3 * MOST
    own_rows = json.loads((tmp_path / "found.json").read_text())
    for rows in (own_rows, found):
        rows.sort(key=lambda row: (row["image_id"], -row["score"]))
    for own, row in zip(own_rows, found):
        assert (own["image_id"], own["category_id"]) == (row["image_id"], row["category_id"])
        assert own["score"] == pytest.approx(row["score"], abs=1e-5)
        (x, y, width, height), size = row["bbox"], images[row["image_id"]]
        inside = [x, y, min(width, size["width"] - x), min(height, size["height"] - y)]
        np.testing.assert_allclose(own["bbox"], inside, atol=2e-3)


def test_annotated_pictures(run, model, pictures, good, capsys, tmp_path):
    out = tmp_path / "new" / "out"
    assert detect(capsys, run, pictures, PROMPT, "--out", out, "--top-k", "1")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.jpg", "more-a.png"]
    for path, name in zip(good, ("a.png", "b.jpg", "more-a.png")):
        drawn, before = np.asarray(Image.open(out / name).convert("RGB")), np.asarray(Image.open(path).convert("RGB"))
        assert drawn.shape == before.shape and (drawn != before).any()
    Image.new("RGB", (40, 20), "white").save(tmp_path / "odd", format="PNG")
    assert detect(capsys, run, tmp_path / "odd", PROMPT, "--out", out)[0] == 0
    assert Image.open(out / "odd.png").size == (40, 20)
    code, _, err = detect(capsys, run, pictures, PROMPT, "--out", pictures / "more")
    assert code == 1 and "is the folder of a.png, which would be overwritten" in err


def test_boxes_are_drawn_where_they_are():
    """A box's frame lies inside its edges."""
    blank = Image.new("RGB", (60, 50), "white")
    drawn = np.asarray(detecting.annotated(blank, [Detection("x", 0, 0.5, (10.0, 30.0, 40.0, 45.0))]))
    below = (drawn[30:] != 255).any(2)
    assert np.flatnonzero(below.any(0)).tolist() == list(range(10, 40))
    assert np.flatnonzero(below[:, 30]).tolist() == [0, 14]
    assert (np.asarray(blank) == 255).all()


def test_wrong_usage_and_missing_files(run, runs, good, capsys, tmp_path, monkeypatch):
    (tmp_path / "none.txt").write_text("\n")
    for argv, wanted, said in (
        ([good[0]], 2, "give files, and behind them what to find"),
        (["cat"], 2, "give files, and behind them what to find"),
        ([good[0], tmp_path], 2, "is a file or folder here"),
        ([good[0], "cat", "--chunk", "0"], 2, "--chunk 0"),
        ([good[0], "a cat", "--labels", tmp_path / "none.txt", "--phrases"], 2, "give one of them"),
        ([good[0], ""], 1, "the prompt is empty"),
        ([good[0], "cat . " * 100 + "dog"], 1, "label 2, 'cat', is label 1 again"),
        ([good[0], "--labels", tmp_path / "none.txt"], 1, "none.txt has no label"),
        ([tmp_path / "nothing.png", "cat"], 1, "nothing.png: no such file or folder"),
    ):
        code, out, err = detect(capsys, run, *argv)
        assert code == wanted and said in " ".join(err.split()) and not out, (argv, err)
    code, _, err = detect(capsys, runs["coarse"], good[0], "cat")
    assert code == 1 and "without a detector" in err
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "detect", good[0], "cat")
    assert code == 1 and "no runs/*/checkpoints/latest of task fine or detection" in err


# videos


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


@pytest.mark.parametrize("suffix", sorted(detecting.VIDEOS))
def test_video(run, model, capsys, tmp_path, suffix):
    file, out = tmp_path / f"clip{suffix}", tmp_path / "out"
    write_video(file, size=(320, 240))
    code, text, err = detect(capsys, run, file, PROMPT, "--json", "--batch", "2", "--out", out, "--top-k", "3")
    rows = json.loads(text)
    assert code == 0 and [row["frame"] for row in rows] == [0, 1, 2, 3, 4], err
    shots = list(detecting.frames(file))
    for row, shot in zip(rows, shots):
        assert row["image"] == str(file) and (row["width"], row["height"]) == (320, 240)
        found = model.detect(shot.picture, LABELS, threshold=0, top_k=3)
        same([Detection(**each) for each in row["detections"]], found)
    written = list(detecting.frames(out / file.name))
    assert [shot.picture.size for shot in written] == [(320, 240)] * 5
    assert written[0].rate == shots[0].rate == 10
    last = shots[4].picture, detecting.annotated(shots[4].picture, found), written[4].picture
    plain, wanted, drawn = (np.asarray(picture, float) for picture in last)
    changed = np.abs(wanted - plain) > 60
    assert changed.any() and np.abs(drawn - wanted)[changed].mean() < 0.5 * np.abs(drawn - plain)[changed].mean()


def test_video_of_a_turned_camera_and_odd_sides(run, capsys, tmp_path):
    av = pytest.importorskip("av")
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write the orientation of a video")
    write_video(tmp_path / "clip.mp4", turn=-90)
    plain, (turned, *_) = draw(scene(0, "val", 0, 64)).resize((64, 48)), detecting.frames(tmp_path / "clip.mp4")
    wanted = plain.transpose(Image.Transpose.ROTATE_270)
    assert turned.picture.size == (48, 64)
    assert np.abs(np.asarray(turned.picture, float) - np.asarray(wanted, float)).mean() < 8
    writer = detecting.VideoWriter(tmp_path / "odd.mp4", Fraction(30000, 1001), (35, 21))
    writer.add(Image.new("RGB", (35, 21)))
    writer.close()
    (shot,) = detecting.frames(tmp_path / "odd.mp4")
    assert shot.picture.size == (36, 22)


def test_videos_are_streamed(run, model, capsys, tmp_path, monkeypatch):
    """No more frames than a batch are waiting, of a video that other files follow."""
    write_video(tmp_path / "clip.mp4", count=9)
    Image.new("RGB", (40, 40)).save(tmp_path / "last.png")
    read, seen, original = [], [], detecting.shots
    monkeypatch.setattr(detecting, "shots", lambda files: (read.append(shot) or shot for shot in original(files)))
    monkeypatch.setattr(Fiber, "find", lambda self, images, *_, **__: seen.append(len(read)) or [[] for _ in images])
    code, out, _ = detect(capsys, run, tmp_path / "clip.mp4", tmp_path / "last.png", "dog", "--batch", "3", "--json")
    assert code == 0 and seen == [3, 6, 9, 10]
    assert [row.get("frame") for row in json.loads(out)] == [*range(9), None]


def test_bad_videos(run, good, capsys, tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mkv", count=30)
    whole = (tmp_path / "clip.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, out, err = detect(
        capsys, run, tmp_path / "broken.mp4", tmp_path / "cut.mkv", good[0], "dog", "--json", "--out", tmp_path / "out"
    )
    rows = json.loads(out)
    assert code == 0 and rows[-1]["image"] == str(good[0]) and "broken.mp4: not a readable video" in err
    assert 0 < len(rows) - 1 < 30
    assert len(list(detecting.frames(tmp_path / "out" / "cut.mkv"))) == len(rows) - 1
    code, out, err = detect(capsys, run, tmp_path / "broken.mp4", "dog")
    assert code == 1 and out == "" and "none of 1 files could be read" in err
    monkeypatch.setitem(sys.modules, "av", None)
    code, out, err = detect(capsys, run, good[0], tmp_path / "clip.mkv", "dog")
    assert code == 1 and out == "" and "pip install 'fiber-vl[video]'" in err
