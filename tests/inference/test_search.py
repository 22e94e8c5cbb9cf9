"""Searching a folder: the results against plain passes, and what the command prints."""

import json

import pytest
import torch
from commands import command
from PIL import Image

from fiber_cli.data.text import encode
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.inference.index import build_index
from fiber_cli.inference.search import run_search, search, table
from fiber_cli.inference.sheet import TILE
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval import pairs

OPTIONS = PredictOptions(batch_size=4, workers=0)
#: Of both checkpoints, untrained.
TEMPERATURE = 0.07
QUERIES = ["a red circle above a green star", "a small blue square", "two hearts"]


@torch.no_grad()
def plain_passes(loaded, folder, paths, query, k):
    """(path, itc, itm) of the k best by ITC, ordered by the sum, one plain pass each."""
    ids, mask, _ = encode(loaded.context.tokenizer, [query], loaded.context.text_length)
    text = loaded.task.encoder.text_stem(ids, mask)
    rows = []
    for path in paths:
        image = loaded.task.encoder.image_stem(normalize(EvalTransform(64)(Image.open(folder / path))[None]))
        itc = 0.0
        if loaded.task.temperature is not None:
            itc = float(loaded.task.image_features(image) @ loaded.task.text_features(text).T)
        rows.append((str(folder / path), itc, float(loaded.task.match(image, text)[0, 1])))
    chosen = sorted(rows, key=lambda row: -row[1])[:k]
    return sorted(chosen, key=lambda row: -(row[1] / TEMPERATURE + row[2]))


def test_results_are_those_of_plain_passes_over_the_dual_encoders_best(retriever, folder, monkeypatch):
    loaded = retriever()
    index, _ = build_index(loaded, folder, options=OPTIONS)
    match_scores, scored = pairs.match_scores, []
    monkeypatch.setattr(pairs, "match_scores", lambda *args: scored.append(len(args[2].tokens)) or match_scores(*args))
    results, bad = search(loaded, folder, index, QUERIES, top_k=4, options=OPTIONS)
    assert not bad
    assert sum(scored) == 3 * 4
    assert len(results) == 12
    for query in QUERIES:
        of_query = [result for result in results if result.query == query]
        assert [result.rank for result in of_query] == [1, 2, 3, 4]
        rows = plain_passes(loaded, folder, index.stamps, query, 4)
        assert [result.path for result in of_query] == [path for path, _, _ in rows]
        for result, (_, itc, itm) in zip(of_query, rows, strict=True):
            assert (result.itc, result.itm) == pytest.approx((itc, itm), abs=1e-5)
            assert result.score == pytest.approx(itc / TEMPERATURE + itm, abs=1e-4)
    assert json.loads(json.dumps(results)) == [list(result) for result in results]
    lines = table(results, 2).splitlines()
    assert lines[0] == QUERIES[0]
    assert len(lines) == 3 * 4 + 2
    assert lines[2].split()[0] == "1"
    assert lines[2].endswith(results[0].path)


def test_the_raw_sum_has_the_cosine_as_it_is(retriever, folder):
    loaded = retriever()
    index, _ = build_index(loaded, folder, options=OPTIONS)
    results, _ = search(loaded, folder, index, QUERIES[:1], top_k=6, options=OPTIONS, raw_sum=True)
    assert [result.score for result in results] == pytest.approx([result.itc + result.itm for result in results])
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True)


def test_another_checkpoint_may_score_the_pairs(retriever, folder):
    """It has no dual encoder; the candidates and their cosines stay, the fusion scores are its own."""
    loaded, other = retriever(), retriever(1, itc=0.0, itm_negatives="random")
    index, _ = build_index(loaded, folder, options=OPTIONS)
    both, _ = search(loaded, folder, index, QUERIES[:1], itm=other, top_k=4, options=OPTIONS)
    alone, _ = search(loaded, folder, index, QUERIES[:1], top_k=4, options=OPTIONS)
    assert {(result.path, result.itc) for result in both} == {(result.path, result.itc) for result in alone}
    paths = [result.path[len(str(folder)) + 1 :] for result in both]
    for result in both:
        assert result.score == pytest.approx(result.itc / TEMPERATURE + result.itm, abs=1e-4)
    scores = {path: itm for path, _, itm in plain_passes(other, folder, paths, QUERIES[0], 4)}
    assert {result.path: result.itm for result in both} == pytest.approx(scores, abs=1e-5)
    assert scores != pytest.approx({result.path: result.itm for result in alone}, abs=1e-3)


def test_a_picture_that_vanishes_in_between_is_left_out(retriever, folder):
    index, _ = build_index(retriever(), folder, options=OPTIONS)
    (folder / "5.png").write_bytes(b"no picture")
    results, bad = search(retriever(), folder, index, QUERIES[:1], top_k=50, options=OPTIONS)
    assert [name for name, _ in bad] == [f"{folder}/5.png"]
    assert [result.rank for result in results] == [1, 2, 3, 4, 5, 6]


def test_long_queries_are_told_and_missing_heads_are_named(retriever, folder, capsys):
    index, _ = build_index(retriever(), folder, options=OPTIONS)
    search(retriever(), folder, index, ["red " * 60], top_k=2, options=OPTIONS)
    assert "1 queries were cut at 30 tokens" in capsys.readouterr().err
    with pytest.raises(UserError, match="ITM head"):
        search(retriever(itm=0.0), folder, index, QUERIES, options=OPTIONS)


def run(loaded, folder, query, **over):
    arguments = {"top_k": 3, "index": None, "shown": 2, "sheet": None, "as_json": False, "options": OPTIONS}
    run_search(loaded, folder, query, **(arguments | over))


def test_the_command_prints_results_alone_and_tells_what_it_left_out(retriever, folder, tmp_path, capsys):
    loaded = retriever()
    (folder / "1.png").write_bytes(b"no picture")
    file = tmp_path / "queries.txt"
    file.write_text("a red circle\n\ntwo hearts\n")
    run(loaded, folder, file, as_json=True, sheet=tmp_path / "sheet.png")
    printed = capsys.readouterr()
    results = json.loads(printed.out)
    assert [(result["query"], result["rank"]) for result in results] == [
        (query, rank) for query in ("a red circle", "two hearts") for rank in (1, 2, 3)
    ]
    assert list(results[0]) == ["query", "rank", "path", "score", "itc", "itm"]
    assert "1 empty lines were skipped" in printed.err
    assert "score: itc / 0.07 + itm" in printed.err
    assert f"left out: {folder}/1.png" in printed.err
    assert Image.open(tmp_path / "sheet.png").size[0] > 3 * TILE
    run(loaded, folder, "a red circle", raw_sum=True)
    assert "score: itc + itm, the cosine as it is" in capsys.readouterr().err
    run(loaded, folder, "a red circle")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a red circle"
    assert [line.split()[-1] for line in lines[2:]] == [result["path"] for result in results[:2]]
    for message, arguments in (
        ("no such folder", (folder / "none", "a")),
        ("--query is empty", (folder, " ")),
    ):
        with pytest.raises(UserError, match=message):
            run(loaded, *arguments)
    with pytest.raises(UserError, match=r"--sheet .*cannot be written"):
        run(loaded, folder, "a", sheet=tmp_path / "sheet.unknown")


def test_the_command_line_reaches_it(runs, pictures, capsys, tmp_path):
    index, sheet = tmp_path / "index", tmp_path / "sheet.png"
    words = ["rerank", "--images", pictures, "--query", "a red circle", "--index", index, "--sheet", sheet]
    code, out, err = command(capsys, *words, "--json", "--top-k", "2", "--workers", "0", "--checkpoint", runs["coarse"])
    assert code == 0
    assert [result["rank"] for result in json.loads(out)] == [1, 2]
    assert "broken.jpg" in err
    assert index.is_file()
    assert Image.open(sheet).size[0] > 100
