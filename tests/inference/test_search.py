"""Searching a folder: what the index keeps and refuses, the results against plain passes, the contact sheet."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from fiber_cli.tasks.retrieval import pairs
from fiber_cli.inference import search
from fiber_cli.data.images import normalize
from fiber_cli.data.scenes.drawing import ScenesSource
from fiber_cli.data.text import encode, load_tokenizer
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.inference.sheet import LINE, TILE, draw_sheet
from fiber_cli.tasks.coarse.task import CoarseTask

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=16, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=0.0),
    text=TextConfig(layers=2, hidden=32, heads=4, intermediate=64, vocab=2000, positions=60, dropout=0.0),
    fusion_layers=2,
    hidden=24,
    image_size=(64, 64),
)
OPTIONS = {"batch_size": 4, "workers": 0}
QUERIES = ["a red circle above a green star", "a small blue square", "two hearts"]


class Checkpoint:
    """What `loading.load` gives, without files."""

    def __init__(self, seed=0, fingerprint="first", **settings):
        torch.manual_seed(seed)
        self.task = CoarseTask(SMALL, **settings).eval()
        for name, parameter in self.task.named_parameters():
            if name.endswith(".alpha"):
                torch.nn.init.constant_(parameter, 0.7)
            elif parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2)
        self.tokenizer, self.text_length, self.image_size = load_tokenizer("builtin"), 30, (64, 64)
        self.fingerprint, self.path, self.name = fingerprint, "runs/x/checkpoints/step-000001", "coarse"


@pytest.fixture(scope="module")
def loaded():
    return Checkpoint()


@pytest.fixture
def folder(tmp_path):
    """Seven pictures, one of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    source = ScenesSource("val", 7, image_size=64)
    for i in range(7):
        source.image(i).save(folder / ("below/6.png" if i == 6 else f"{i}.png"))
    return folder


@torch.no_grad()
def features(loaded, path):
    pixels = EvalTransform(64)(Image.open(path).convert("RGB"))
    return loaded.task.predict({"pixels": pixels[None]})[0].numpy()


def embedded(monkeypatch):
    """Collects the paths of the pictures that are computed."""
    done, predict_all = [], search.predict_all
    monkeypatch.setattr(search, "predict_all", lambda task, s, **o: done.extend(s.ids) or predict_all(task, s, **o))
    return done


def test_an_index_holds_every_picture_and_is_read_again(loaded, folder, monkeypatch):
    done = embedded(monkeypatch)
    index, bad = search.build_index(loaded, folder, **OPTIONS)
    assert (
        not bad
        and len(done) == 7
        and list(index.stamps) == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "below/6.png"]
    )
    for row, path in zip(index.features, index.stamps):
        np.testing.assert_allclose(row, features(loaded, folder / path), atol=1e-6)
    done.clear()
    again, _ = search.build_index(loaded, folder, **OPTIONS)
    assert not done and again.stamps == index.stamps and np.array_equal(again.features, index.features)
    assert [file.name for file in folder.glob(".*")] == [search.INDEX]


def test_new_changed_and_vanished_pictures_update_it(loaded, folder, tmp_path, monkeypatch):
    file = tmp_path / "kept.safetensors"
    search.build_index(loaded, folder, file, **OPTIONS)
    done = embedded(monkeypatch)
    (folder / "2.png").unlink()
    os.replace(folder / "3.png", folder / "9.png")
    Image.new("RGB", (80, 40), "purple").save(folder / "4.png")
    index, _ = search.build_index(loaded, folder, file, **OPTIONS)
    assert sorted(done) == [f"{folder}/4.png", f"{folder}/9.png"]
    assert set(index.stamps) == {"0.png", "1.png", "4.png", "5.png", "9.png", "below/6.png"}
    stored = search.read_index(file, "first")
    assert stored.stamps == index.stamps
    for row, path in zip(stored.features, stored.stamps):
        np.testing.assert_allclose(row, features(loaded, folder / path), atol=1e-6)


def test_an_index_of_another_checkpoint_is_refused(loaded, folder, tmp_path):
    file = tmp_path / "kept.safetensors"
    search.build_index(loaded, folder, file, **OPTIONS)
    before = file.read_bytes()
    with pytest.raises(UserError, match="made by another checkpoint"):
        search.build_index(Checkpoint(1, "second"), folder, file, **OPTIONS)
    assert file.read_bytes() == before
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="not an index"):
        search.build_index(loaded, folder, file, **OPTIONS)
    with pytest.raises(UserError, match="cannot write the index.*--index"):
        search.build_index(loaded, folder, tmp_path / "no" / "such", **OPTIONS)


def test_broken_pictures_are_told_and_the_rest_is_done(loaded, folder):
    (folder / "1.png").write_bytes(b"no picture")
    index, bad = search.build_index(loaded, folder, **OPTIONS)
    assert [name for name, _ in bad] == [f"{folder}/1.png"] and len(index.stamps) == 6
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of 7 images could be read"):
        search.build_index(loaded, folder, **OPTIONS)
    for file in folder.rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match="no image files"):
        search.build_index(loaded, folder, **OPTIONS)


@torch.no_grad()
def expected(loaded, folder, paths, query, k):
    """(path, itc, itm) of the k best by ITC, ordered by the sum, one plain pass each."""
    ids, mask, _ = encode(loaded.tokenizer, [query], loaded.text_length)
    text = loaded.task.encoder.text_stem(ids, mask)
    rows = []
    for path in paths:
        image = loaded.task.encoder.image_stem(normalize(EvalTransform(64)(Image.open(folder / path))[None]))
        itc = float(loaded.task.image_features(image) @ loaded.task.text_features(text).T)
        rows.append((str(folder / path), itc, float(loaded.task.match(image, text)[0, 1])))
    chosen = sorted(rows, key=lambda row: -row[1])[:k]
    return sorted(chosen, key=lambda row: -(row[1] + row[2]))


def test_results_are_those_of_plain_passes_over_the_dual_encoders_best(loaded, folder, monkeypatch):
    index, _ = search.build_index(loaded, folder, **OPTIONS)
    scored, done = pairs.match_scores, []
    monkeypatch.setattr(pairs, "match_scores", lambda *args: done.append(len(args[2].tokens)) or scored(*args))
    results, bad = search.search(loaded, folder, index, QUERIES, top_k=4, **OPTIONS)
    assert not bad and sum(done) == 3 * 4 and len(results) == 12
    for query in QUERIES:
        mine = [found for found in results if found["query"] == query]
        assert [found["rank"] for found in mine] == [1, 2, 3, 4]
        rows = expected(loaded, folder, index.stamps, query, 4)
        assert [found["path"] for found in mine] == [path for path, _, _ in rows]
        for found, (_, itc, itm) in zip(mine, rows):
            assert (found["itc"], found["itm"]) == pytest.approx((itc, itm), abs=1e-5)
            assert found["score"] == pytest.approx(itc + itm, abs=1e-5)
    assert json.loads(json.dumps(results)) == results
    shown = search.table(results, 2).splitlines()
    assert shown[0] == QUERIES[0] and len(shown) == 3 * 4 + 2
    assert shown[2].split()[0] == "1" and shown[2].endswith(results[0]["path"])


def test_another_checkpoint_may_score_the_pairs(loaded, folder):
    """It has no dual encoder; the candidates and their cosines stay, the fusion scores are its own."""
    index, _ = search.build_index(loaded, folder, **OPTIONS)
    other = Checkpoint(seed=1, fingerprint="second", itc=0.0, itm_negatives="random")
    both, _ = search.search(loaded, folder, index, QUERIES[:1], itm=other, top_k=4, **OPTIONS)
    alone, _ = search.search(loaded, folder, index, QUERIES[:1], top_k=4, **OPTIONS)
    assert {(found["path"], found["itc"]) for found in both} == {(found["path"], found["itc"]) for found in alone}
    rows = expected(other, folder, [found["path"][len(str(folder)) + 1 :] for found in both], QUERIES[0], 4)
    scores = {path: itm for path, _, itm in rows}
    assert {found["path"]: found["itm"] for found in both} == pytest.approx(scores, abs=1e-5)
    assert scores != pytest.approx({found["path"]: found["itm"] for found in alone}, abs=1e-3)


def test_a_picture_that_vanishes_in_between_is_left_out(loaded, folder):
    index, _ = search.build_index(loaded, folder, **OPTIONS)
    (folder / "5.png").write_bytes(b"no picture")
    results, bad = search.search(loaded, folder, index, QUERIES[:1], top_k=50, **OPTIONS)
    assert [name for name, _ in bad] == [f"{folder}/5.png"]
    assert [found["rank"] for found in results] == [1, 2, 3, 4, 5, 6]


def test_long_queries_are_told_and_missing_heads_are_named(loaded, folder, capsys):
    index, _ = search.build_index(loaded, folder, **OPTIONS)
    search.search(loaded, folder, index, ["red " * 60], top_k=2, **OPTIONS)
    assert "1 queries were cut at 30 tokens" in capsys.readouterr().err
    with pytest.raises(UserError, match="not trained with ITC"):
        search.build_index(Checkpoint(itc=0.0), folder, **OPTIONS)
    with pytest.raises(UserError, match="ITM head"):
        search.search(Checkpoint(itm=0.0), folder, index, QUERIES, **OPTIONS)


def run(loaded, folder, query, **options):
    fixed = {"top_k": 3, "index": None, "shown": 2, "sheet": None, "as_json": False, "batch_size": 4, "workers": 0}
    search.run_search(loaded, folder, query, **(fixed | options))


def test_the_command_prints_results_alone_and_tells_what_it_left_out(loaded, folder, tmp_path, capsys):
    (folder / "1.png").write_bytes(b"no picture")
    file = tmp_path / "queries.txt"
    file.write_text("a red circle\n\ntwo hearts\n")
    run(loaded, folder, file, as_json=True, sheet=tmp_path / "sheet.png")
    printed = capsys.readouterr()
    results = json.loads(printed.out)
    assert [(found["query"], found["rank"]) for found in results] == [
        (query, rank) for query in ("a red circle", "two hearts") for rank in (1, 2, 3)
    ]
    assert "1 empty lines were skipped" in printed.err and f"left out: {folder}/1.png" in printed.err
    assert Image.open(tmp_path / "sheet.png").size[0] > 3 * TILE
    run(loaded, folder, "a red circle")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a red circle" and [line.split()[-1] for line in lines[2:]] == [f["path"] for f in results[:2]]
    for message, arguments in (
        ("no such folder", (folder / "none", "a")),
        ("--query is empty", (folder, " ")),
    ):
        with pytest.raises(UserError, match=message):
            run(loaded, *arguments)
    with pytest.raises(UserError, match="--sheet .*cannot be written"):
        run(loaded, folder, "a", sheet=tmp_path / "sheet.unknown")


def test_queries_are_lines(tmp_path):
    file = tmp_path / "queries.txt"
    file.write_text("a dog\n\n  \n ein Hund läuft \n", encoding="utf-8")
    assert search.read_queries(file) == (["a dog", "ein Hund läuft"], 2)
    file.write_text("\n\n")
    with pytest.raises(UserError, match="no query"):
        search.read_queries(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="UTF-8"):
        search.read_queries(file)
    with pytest.raises(UserError, match="No such file"):
        search.read_queries(tmp_path / "none")


def test_a_contact_sheet_shows_whole_pictures_in_order(tmp_path):
    Image.new("RGB", (40, 20), "red").save(tmp_path / "wide.png")
    Image.new("RGB", (20, 40), "blue").save(tmp_path / "tall.png")
    query = "красный 🙂 red\tthing"
    results = [
        {"query": q, "rank": n + 1, "path": str(tmp_path / name), "score": 1.0}
        for q in (query, "x" * 900)
        for n, name in enumerate(("wide.png", "tall.png", "gone.png"))
    ]
    draw_sheet(results, tmp_path / "sheet.png", columns=3)
    sheet = np.array(Image.open(tmp_path / "sheet.png"))
    red, blue = ((sheet == colour).all(2) for colour in ((255, 0, 0), (0, 0, 255)))
    # Letterboxed: 160 x 80 and 80 x 160, in two rows each.
    assert red.sum() == blue.sum() == 2 * TILE * TILE // 2
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
    top = int(np.nonzero(blue)[0].min())
    assert (sheet[top - LINE : top - 2] < 128).any(), "the query stands above"
    assert (sheet[top + TILE + 1 : top + TILE + LINE] < 128).any(), "the score stands below"
