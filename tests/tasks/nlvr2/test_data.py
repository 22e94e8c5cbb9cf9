"""Statements about one image or two: NLVR2's files and NLVR's, samples, scores and the task."""

import io
import json
import pickle
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fiber_cli.data.images import normalize
from fiber_cli.data.loader import Mixture, TrainSet, collate
from fiber_cli.data.scenes.drawing import ScenesSource, draw
from fiber_cli.data.source import BadSample, sample_id
from fiber_cli.tasks.nlvr2.data import Statement, StatementReader, StatementSet, StatementSource
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.tasks.nlvr2.metrics import accuracies
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.nlvr2.task import Nlvr2Task

TOKENIZER = load_tokenizer("builtin")


def picture(red: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 32), (red, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def write(folder, files: dict[str, int], rows: list[dict], name: str = "some.jsonl"):
    """The pictures, by their level of red, below images/, and the lines. Every other .png is a JPEG, as in NLVR2."""
    for number, (file, red) in enumerate(files.items()):
        path = folder / "images" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(red, "JPEG" if number % 2 else "PNG"))
    (folder / name).write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return folder / name, folder / "images"


def reds(images) -> list[int]:
    return [round(image.getpixel((5, 5))[0], -1) for image in images]


# Files


@pytest.mark.parametrize("where", ["{split}/{directory}", "{directory}", ""])
@pytest.mark.parametrize("directory", [37, "a", None])
@pytest.mark.parametrize("split", ["train", "test1"])
def test_the_naming_of_nlvr2(tmp_path, where, directory, split):
    """In the folder of the split, of the line's directory, of both or of neither; `directory` is a number in train and
    missing elsewhere."""
    base = where.format(split=split, directory="" if directory is None else directory).strip("/")
    files = {
        str(Path(base, f"{split}-{pair}-img{side}.png")): red
        for pair, reds in (("10-0", (50, 100)), ("10-1", (150, 200)))
        for side, red in enumerate(reds)
    }
    rows = [
        {"sentence": f"text {name}", "identifier": f"{split}-{name}", "label": "True", "writer": 3}
        | ({} if directory is None else {"directory": directory})
        for name in ("10-1-0", "10-0-0", "10-0-1")
    ]
    source = pickle.loads(pickle.dumps(StatementSource(*write(tmp_path, files, rows))))
    assert len(source) == 3 and source.name == "some"
    assert [reds(source.images(i)) for i in range(3)] == [[150, 200], [50, 100], [50, 100]]
    assert source.key(1) == f"{split}-10-0-0" and sample_id(source, 1) == f"some/{split}-10-0-0"
    assert source.statements(2) == (Statement("text 10-0-1", True, f"{split}-10-0-1", f"{split}-10-1"),)
    # What counts together is one sentence with all the pairs of its set.
    groups = [source.statements(i)[0].group for i in range(3)]
    assert groups[0] == groups[1] != groups[2]
    assert sorted(source.order(np.random.default_rng(0))) == [0, 1, 2]


def test_left_and_right(tmp_path):
    rows = [
        {"sentence": "one", "identifier": "x", "left": "a/1.png", "right": "2.png", "label": "false"},
        {"sentence": "two", "identifier": 7, "left": "2.png", "right": "a/1.png", "label": None},
    ]
    source = StatementSource(*write(tmp_path, {"a/1.png": 50, "2.png": 100}, rows))
    assert [reds(source.images(i)) for i in range(2)] == [[50, 100], [100, 50]]
    assert source.statements(0)[0].label is False and source.statements(1) == (Statement("two", None, "7", "7"),)
    assert reds([source.image(1)]) == [100]


def test_one_image_of_nlvr(tmp_path):
    """Identifiers are sentence-image-order; a sentence counts as a whole."""
    rows = [
        {"image": f"{n}.png", "sentence": "t", "identifier": f"{n}-0", "label": n == "12-1"} for n in ("12-0", "12-1")
    ] + [{"image": "12-0.png", "sentence": "other", "identifier": "13-0-0"}]
    source = StatementSource(*write(tmp_path, {"12-0.png": 50, "12-1.png": 100}, rows))
    assert [reds(source.images(i)) for i in range(3)] == [[50], [100], [50]]
    assert [source.statements(i)[0][1:] for i in range(3)] == [
        (False, "12-0-0", "12"),
        (True, "12-1-0", "12"),
        (None, "13-0-0", "13"),
    ]


def test_labels_are_texts_or_booleans(tmp_path):
    given = ["True", "False", "true", "FALSE", True, False, None]
    rows = [{"sentence": "t", "identifier": str(n), "image": "a.png", "label": v} for n, v in enumerate(given)]
    source = StatementSource(*write(tmp_path, {"a.png": 50}, [*rows, {k: rows[0][k] for k in list(rows[0])[:3]}]))
    labels = [source.statements(i)[0].label for i in range(8)]
    assert labels == [True, False, True, False, True, False, None, None]


def test_lines_end_at_line_breaks_alone(tmp_path):
    """JSON texts may hold other characters that Python's splitlines breaks at; empty lines are no statements."""
    rows = [{"sentence": "a\u2028b\x85c", "identifier": "1-0", "image": "a.png", "label": True}] * 2
    jsonl, images = write(tmp_path, {"a.png": 50}, rows)
    jsonl.write_bytes(b"\r\n\n" + jsonl.read_bytes().replace(b"\n", b"\r\n\r\n") + b"\r\n")
    source = StatementSource(jsonl, images)
    assert len(source) == 2 and source.statements(1)[0].text == "a\u2028b\x85c"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"sentence": "t", ', "JSONDecodeError: Expecting property name"),
        ("3", "AttributeError: 'int' object"),
        ('["sentence"]', "AttributeError: 'list' object"),
        ('{"identifier": "dev-1-0-0"}', "KeyError: 'sentence'"),
        ('{"sentence": "t"}', "KeyError: 'identifier'"),
        ('{"sentence": "t", "identifier": "dev-1-0-0", "label": "maybe"}', "KeyError: 'maybe'"),
        ('{"sentence": "t", "identifier": "dev-1-0-0", "label": 1}', "KeyError: '1'"),
        ('{"sentence": "t", "identifier": "dev-1-0"}', "ValueError: not enough values to unpack"),
        ('{"sentence": "t", "identifier": 7}', "AttributeError: 'int' object"),
        ('{"sentence": "t", "identifier": "x", "left": "a.png"}', "KeyError: 'right'"),
        ('{"sentence": 5, "identifier": "x", "image": "a.png"}', "TypeError: the sentence and the image files must"),
        ('{"sentence": "t", "identifier": "x", "image": null}', "TypeError: the sentence and the image files must"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    rows = [{"sentence": "t", "identifier": "dev-1-0-0", "label": True}]
    jsonl, images = write(tmp_path, {"dev-1-0-img0.png": 1, "dev-1-0-img1.png": 2}, rows)
    jsonl.write_text(jsonl.read_text() + "\n\n" + line)
    with pytest.raises(UserError, match=r"some.jsonl, line 3: not a statement \(" + re.escape(said)) as raised:
        StatementSource(jsonl, images)
    assert 'wanted is {"sentence": …, "identifier": "split-set-pair-sentence", "label": "True"}' in str(raised.value)


def test_a_bad_file_is_named(tmp_path):
    jsonl, images = write(tmp_path, {"a.png": 1}, [{"sentence": "t", "identifier": "x", "image": "a.png"}])
    with pytest.raises(UserError, match="absent.jsonl: No such file.*give the path of a JSONL file"):
        StatementSource(tmp_path / "absent.jsonl", images)
    with pytest.raises(UserError, match="absent: no such folder of images"):
        StatementSource(jsonl, tmp_path / "absent")
    with pytest.raises(UserError, match="holds none of 1 images looked for, such as a.png"):
        StatementSource(jsonl, tmp_path)
    jsonl.write_text(jsonl.read_text() + '\n{"sentence": "t", "identifier": "x", "left": "a.png", "right": "a.png"}')
    with pytest.raises(UserError, match="some lines have one image and some have two; make a file of each"):
        StatementSource(jsonl, images)
    jsonl.write_text("\n \n")
    with pytest.raises(UserError, match="some.jsonl: holds no statement"):
        StatementSource(jsonl, images)
    jsonl.write_bytes(b'{"sentence": "\xe9"}')
    with pytest.raises(UserError, match="some.jsonl, line 1: .*utf-8"):
        StatementSource(jsonl, images)
    rows = [{"sentence": "t", "identifier": "dev-1-0-0", "label": "True"}]
    with pytest.raises(UserError, match="holds none of 1 images looked for, such as dev/dev-1-0-img0.png"):
        StatementSource(*write(tmp_path, {}, rows, "nlvr2.jsonl"))


def pairs(folder, broken: bool = False) -> StatementSource:
    """Three statements about two pairs; with `broken` the right picture of the second pair is none."""
    files = {f"dev-1-{pair}-img{side}.png": 60 + 40 * (2 * pair + side) for pair in (0, 1) for side in (0, 1)}
    rows = [
        {"sentence": "there is a dog", "identifier": "dev-1-0-0", "label": "True"},
        {"sentence": "there is a dog", "identifier": "dev-1-1-0", "label": "False"},
        {"sentence": "a cat is in the left image", "identifier": "dev-1-0-1", "label": "False"},
    ]
    paths = write(folder, files, rows, "pairs.jsonl")
    if broken:
        (folder / "images" / "dev-1-1-img1.png").write_bytes(picture(9)[:60])
    return StatementSource(*paths)


def test_broken_and_oversized_images(tmp_path):
    source = pairs(tmp_path, broken=True)
    assert reds(source.images(0)) == [60, 100]
    with pytest.raises(BadSample, match="not a readable image"):
        source.images(1)
    (tmp_path / "images" / "dev-1-0-img1.png").unlink()
    with pytest.raises(BadSample, match="no such file.*dev-1-0-img1.png"):
        source.images(2)
    source.max_pixels = 700
    with pytest.raises(BadSample, match="more than 700 pixels"):
        source.images(0)


def test_real_statements(shared):
    folder = shared / "data" / "nlvr"
    train, val = (StatementSource(folder / f"statements_{s}.jsonl", folder / s) for s in ("train", "val"))
    assert (len(train), len(val)) == (5934, 1980) and val.name == "statements_val"
    for source in (train, val):
        for i in range(0, len(source), 150):
            (image,) = source.images(i)
            assert image.size == (400, 100) and image.mode == "RGB"
    by_group = defaultdict(set)
    for i in range(len(val)):
        (statement,) = val.statements(i)
        by_group[statement.group].add(statement.text)
    assert all(len(texts) == 1 for texts in by_group.values())
    evalset = StatementSet([val], TOKENIZER, 40, (64, 64))
    rows = [json.loads(line) for line in (folder / "statements_val.jsonl").read_text().splitlines()]
    right = evalset.score({i: np.int64(row["label"]) for i, row in enumerate(rows)}).metrics
    assert right["nlvr2/accuracy"] == right["nlvr2/consistency"] == 100
    always = evalset.score({i: np.int64(1) for i in range(len(rows))}).metrics
    assert 50 < always["nlvr2/majority"] < 60
    assert always["nlvr2/majority"] == pytest.approx(max(always["nlvr2/accuracy"], 100 - always["nlvr2/accuracy"]))
    sentences = {row["identifier"].split("-")[0] for row in rows}
    bad = {row["identifier"].split("-")[0] for row in rows if not row["label"]}
    assert always["nlvr2/consistency"] == pytest.approx(100 * (1 - len(bad) / len(sentences)))


# Scenes


def test_scenes_are_stated_in_pairs_or_one_by_one():
    double, single = ScenesSource("val", 40), ScenesSource("val", 40, pairs=False)
    labels = []
    for source, count in ((double, 2), (single, 1)):
        for i in range(40):
            images, said = source.images(i, 20), source.statements(i)
            shown = [draw(source[(i + n) % 40]) for n in range(count)]
            assert [image.tobytes() for image in images] == [image.tobytes() for image in shown]
            assert len(said) > 1 and len({s.group for s in said}) == 1
            labels += [s.label for s in said]
        every = [s for i in range(40) for s in source.statements(i)]
        assert len({s.identifier for s in every}) == len(every) and len({s.group for s in every}) == 40
    assert 0.4 < np.mean(labels) < 0.6
    assert any("left" in s.text for i in range(40) for s in double.statements(i))
    assert not any("image" in s.text for i in range(40) for s in single.statements(i))


# Samples


@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_reader_stacks_one_image_or_two(tmp_path, augment):
    rows = [{"image": "a.png", "sentence": "there is a dog", "identifier": "x", "label": True}]
    one = StatementSource(*write(tmp_path, {"a.png": 50}, rows))
    reader, rng = StatementReader(TOKENIZER, 12, 32, augment), np.random.default_rng(0)
    for source, images in ((one, 1), (pairs(tmp_path), 2), (ScenesSource("val", 2, pairs=False), 1)):
        sample = reader(source, 0, rng)
        assert sample["pixels"].shape == (images, 3, 32, 32) and sample["pixels"].dtype == torch.uint8
        assert sample["ids"].shape == sample["mask"].shape == (12,) and sample["mask"].dtype == torch.bool
        assert sample["labels"].dtype == torch.int64 and sample["labels"].shape == ()
        assert sample["sample_ids"] == sample_id(source, 0)
    batch = collate([TrainSet(Mixture([pairs(tmp_path)], [1.0], 0), reader)[0, i] for i in range(3)])
    assert batch["pixels"].shape == (3, 2, 3, 32, 32) and batch["labels"].tolist() == [1, 0, 0]
    assert batch["truncated"] == 0 and batch["sample_ids"] == [f"pairs/dev-1-{s}" for s in ("0-0", "1-0", "0-1")]


def test_reader_keeps_left_before_right_and_cuts_long_texts(tmp_path):
    reader = StatementReader(TOKENIZER, 4, 32, "none")
    sample = reader(pairs(tmp_path), 1, np.random.default_rng(0))
    assert [round(int(image[0, 9, 9]), -1) for image in sample["pixels"]] == [140, 180]
    assert sample["truncated"] == 1


def test_reader_mirrors_only_where_no_side_is_spoken_of(tmp_path):
    reader, flips = StatementReader(TOKENIZER, 12, 32, "randaugment"), []

    def transform(image, rng, flip):
        flips.append(flip)
        return torch.zeros(3, 32, 32, dtype=torch.uint8)

    reader.transform = transform
    for i in (0, 2):
        reader(pairs(tmp_path), i, np.random.default_rng(0))
    assert flips == [True, True, False, False]


def test_reader_needs_a_label_and_whole_images(tmp_path):
    source = pairs(tmp_path, broken=True)
    reader, rng = StatementReader(TOKENIZER, 12, 32, "none"), np.random.default_rng(0)
    with pytest.raises(BadSample, match="not a readable image"):
        reader(source, 1, rng)
    sample = TrainSet(Mixture([source], [1.0], 0), reader)[0, 1]
    assert sample["bad"][0][0] == "pairs/dev-1-1-0" and sample["sample_ids"] != "pairs/dev-1-1-0"
    rows = [{"image": "a.png", "sentence": "t", "identifier": "x"}]
    with pytest.raises(BadSample, match="no statement with a label"):
        reader(StatementSource(*write(tmp_path, {"a.png": 50}, rows)), 0, rng)


def test_reader_draws_among_the_statements_of_a_scene():
    source, reader = ScenesSource("val", 3), StatementReader(TOKENIZER, 40, 32, "none")
    by_text = {s.text.replace(" ", ""): s.label for s in source.statements(0)}
    drawn = set()
    for seed in range(40):
        sample = reader(source, 0, np.random.default_rng(seed))
        text = "".join(TOKENIZER.decode(sample["ids"][sample["mask"]], skip_special_tokens=True).split())
        assert by_text[text] == bool(sample["labels"])
        drawn.add(text)
    assert drawn == by_text.keys()


# Evaluation


def test_accuracy_and_consistency_by_hand():
    """Groups a: both right; b: one of two wrong; c: its only one wrong. 3 of 5 right, 1 of 3 groups; 4 of 5 true."""
    labels = [True, True, False, True, True]
    said = [True, True, False, False, False]
    metrics = accuracies(said, labels, ["a", "b", "a", "b", "c"])
    assert metrics == pytest.approx({"nlvr2/accuracy": 60, "nlvr2/consistency": 100 / 3, "nlvr2/majority": 80})
    assert accuracies([False], [False], ["x"]) == dict.fromkeys(metrics, 100)
    assert accuracies([], [], []) == {}


def test_set_scores_and_writes_predictions(tmp_path):
    files = {f"dev-1-{p}-img{side}.png": 50 for p in range(2) for side in range(2)}
    labels = {"dev-1-0-0": "True", "dev-1-1-0": "False", "dev-1-0-1": "False", "dev-1-1-1": None, "dev-2-0-0": "False"}
    rows = [{"sentence": "t", "identifier": name, "label": label} for name, label in labels.items()]
    evalset = StatementSet([StatementSource(*write(tmp_path, files, rows))], TOKENIZER, 12, (32, 64))
    assert evalset.ids == list(labels)
    assert {name: getattr(value, "shape", value) for name, value in evalset.read(0).items()} == {
        "pixels": (2, 3, 32, 64), "ids": (12,), "mask": (12,), "truncated": 0,
    }  # fmt: skip
    # Right: 0-0 and 1-0, which are one group, and 2-0-0; wrong: 0-1. 1-1 has no label and counts nowhere.
    score = evalset.score({i: np.int64(said) for i, said in ((4, 0), (3, 1), (2, 1), (1, 0), (0, 1))})
    assert score.metrics == pytest.approx({"nlvr2/accuracy": 75, "nlvr2/consistency": 200 / 3, "nlvr2/majority": 75})
    assert score.files == {
        "predictions.csv": "dev-1-0-0,True\ndev-1-1-0,False\ndev-1-0-1,True\ndev-1-1-1,True\ndev-2-0-0,False\n"
    }
    assert score.notes == ["1 statements have no label: predicted only"]
    some = evalset.score({0: np.int64(1), 2: np.int64(0)})
    assert some.metrics["nlvr2/accuracy"] == 100 and some.notes == []
    hidden = evalset.score({3: np.int64(0)})
    assert hidden.metrics == {} and hidden.files["predictions.csv"] == "dev-1-1-1,False\n"
    (batch,) = evalset.loader(rank=0, world=1, batch_size=8, workers=0)
    assert batch["index"].tolist() == [0, 1, 2, 3] and batch["bad"][0][0] == "dev-2-0-0"


# The task

CONFIG = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=3, hidden=16, heads=2, intermediate=32, vocab=40, positions=30, dropout=0.0),
    fusion_layers=2,
    hidden=12,
    image_size=(32, 32),
    init_std=None,
)


@pytest.fixture
def task():
    """Far from its start: the gates are open."""
    torch.manual_seed(1)
    task = Nlvr2Task(CONFIG).eval()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    mask = torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [True] * 3 + [False] * 5])
    return {
        "pixels": torch.randint(0, 256, (3, 2, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "ids": torch.randint(4, 40, (3, 8), generator=generator).masked_fill(~mask, 1),
        "mask": mask,
        "labels": torch.tensor([1, 0, 1]),
    }


def test_two_fused_passes_side_by_side(task, batch):
    """Each image apart with its statement; text and image of the left, then of the right, go into the classifier."""
    for row in range(3):
        pooled = []
        for side in (0, 1):
            image = task.encoder.image_stem(normalize(batch["pixels"][row, side][None]))
            text = task.encoder.text_stem(batch["ids"][row][None], batch["mask"][row][None])
            fused = task.encoder.fuse(image, text)
            pooled += [task.pool.text(fused.text), task.pool.image(fused.pyramid[-1])]
        x = torch.cat(pooled, 1) @ task.nlvr2.fc1.weight.T + task.nlvr2.fc1.bias
        x = F.layer_norm(x, (24,), task.nlvr2.norm.weight, task.nlvr2.norm.bias, eps=1e-5)
        x = x * (1 + torch.erf(x / 2**0.5)) / 2
        expected = x @ task.nlvr2.fc2.weight.T + task.nlvr2.fc2.bias
        torch.testing.assert_close(task.logits(batch)[row][None], expected, atol=1e-5, rtol=1e-4)


def test_one_image_is_the_same_image_twice(task, batch):
    one = batch | {"pixels": batch["pixels"][:, :1]}
    twice = batch | {"pixels": batch["pixels"][:, [0, 0]]}
    torch.testing.assert_close(task.logits(one), task.logits(twice), atol=1e-5, rtol=1e-5)
    assert (task.logits(one) - task.logits(batch)).abs().max() > 1e-3


def test_the_order_of_the_images_matters(task, batch):
    swapped = batch | {"pixels": batch["pixels"].flip(1)}
    assert (task.logits(swapped) - task.logits(batch)).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("images", [1, 2])
def test_the_text_stem_runs_once_for_both_images(task, batch, images, monkeypatch):
    rows = defaultdict(list)

    def count(name: str, call, rows_of):
        def counted(first, *rest):
            rows[name].append(len(rows_of(first)))
            return call(first, *rest)

        monkeypatch.setattr(task.encoder, name, counted)

    count("text_stem", task.encoder.text_stem, lambda ids: ids)
    count("image_stem", task.encoder.image_stem, lambda pixels: pixels)
    count("fuse", task.encoder.fuse, lambda image: image.map)
    task(batch | {"pixels": batch["pixels"][:, :images]})
    assert rows == {"text_stem": [3], "image_stem": [3 * images], "fuse": [3 * images]}


def test_loss_by_hand(task, batch):
    logits = task.logits(batch).detach()
    given = task(batch)
    expected = sum(-logits[i, label] + logits[i].exp().sum().log() for i, label in enumerate((1, 0, 1))) / 3
    torch.testing.assert_close(given["loss"].detach(), expected)
    assert not given["nlvr2_loss"].requires_grad
    said = task.predict(batch)
    assert said.dtype == torch.int64 and said.tolist() == (logits[:, 1] > logits[:, 0]).long().tolist()
    right = sum(int(a == b) for a, b in zip(said.tolist(), (1, 0, 1))) / 3
    assert given["accuracy"].item() == pytest.approx(right)
    given["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.nlvr2.parameters())
