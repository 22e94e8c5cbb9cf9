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
from fiber_cli.inference.search import judgement, run_search, search, table
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
    results, bad, _ = search(loaded, folder, index, QUERIES, top_k=4, options=OPTIONS)
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
    results = search(loaded, folder, index, QUERIES[:1], top_k=6, options=OPTIONS, raw_sum=True).results
    assert [result.score for result in results] == pytest.approx([result.itc + result.itm for result in results])
    scores = [result.score for result in results]
    assert scores == sorted(scores, reverse=True)


def test_another_checkpoint_may_score_the_pairs(retriever, folder):
    """It has no dual encoder; the candidates and their cosines stay, the fusion scores are its own."""
    loaded, other = retriever(), retriever(1, itc=0.0, itm_negatives="random")
    index, _ = build_index(loaded, folder, options=OPTIONS)
    both = search(loaded, folder, index, QUERIES[:1], itm=other, top_k=4, options=OPTIONS).results
    alone = search(loaded, folder, index, QUERIES[:1], top_k=4, options=OPTIONS).results
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
    results, bad, _ = search(retriever(), folder, index, QUERIES[:1], top_k=50, options=OPTIONS)
    assert [name for name, _ in bad] == [f"{folder}/5.png"]
    assert [result.rank for result in results] == [1, 2, 3, 4, 5, 6]


def test_long_queries_are_told_and_missing_heads_are_named(retriever, folder, capsys):
    index, _ = build_index(retriever(), folder, options=OPTIONS)
    long = ["red " * 60, "blue " * 60]
    assert search(retriever(), folder, index, long, top_k=2, options=OPTIONS).cuts == [
        "2 queries were cut at 30 tokens"
    ]
    assert search(retriever(), folder, index, QUERIES, top_k=2, options=OPTIONS).cuts == []
    run(retriever(), folder, long[0])
    assert capsys.readouterr().err.count("1 query was cut at 30 tokens\n") == 1
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


def middle_score(loaded, folder, query, name="score", **over):
    """A score that some pictures reach and some do not."""
    index, _ = build_index(loaded, folder, options=OPTIONS)
    results = search(loaded, folder, index, [query], options=OPTIONS, **over).results
    scores = sorted(result._asdict()[name] for result in results)
    return (scores[2] + scores[3]) / 2


@pytest.mark.parametrize("raw_sum", [False, True])
def test_pictures_below_the_threshold_of_the_sum_are_said_to_match_or_the_other_way_round(
    retriever, folder, capsys, raw_sum
):
    least = middle_score(retriever(), folder, QUERIES[1])
    loaded = retriever(search_threshold=least, fewest_words=3.0, most_words=4.0)
    run(loaded, folder, QUERIES[1], as_json=True, top_k=7, raw_sum=raw_sum)
    printed = capsys.readouterr()
    results = json.loads(printed.out)
    logits = [result["itc"] / TEMPERATURE + result["itm"] for result in results]
    assert [result["matches"] for result in results] == [score >= least for score in logits]
    assert sum(result["matches"] for result in results) == 4
    of = "a sum of both as logits" if raw_sum else "a score"
    assert f"matches from {of} of {least:.2f}, chosen by validation with texts of 3 to 4 words" in printed.err
    assert "nothing there" not in printed.err
    run(loaded, folder, QUERIES[1], shown=7, top_k=7)
    header, *rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert header == ["rank", "score", "itc", "itm", "match", "image"]
    assert sorted(row[4] for row in rows) == ["no"] * 3 + ["yes"] * 4


def test_a_short_query_is_judged_by_the_threshold_of_captions(retriever, folder, tmp_path, capsys):
    of_queries = {"query_search_threshold": 1000.0, "fewest_query_words": 1.0, "most_query_words": 2.0}
    loaded = retriever(search_threshold=-1000.0, fewest_words=4.0, most_words=7.0, **of_queries)
    (tmp_path / "both.txt").write_text("ring\na red star and a blue moon\nword word word word word word word word\n")
    run(loaded, folder, tmp_path / "both.txt", as_json=True, top_k=7)
    printed = capsys.readouterr()
    answers = {result["query"]: result.get("matches") for result in json.loads(printed.out)}
    assert list(answers.values()) == [False, True, None]
    assert "1000.00, chosen by validation with texts of 1 to 2 words, or of -1000.00, with 4 to 7 words" in printed.err
    assert '"ring": no picture of the folder reaches 1000.00; nothing there' in printed.err
    assert printed.err.count("likely to show it") == 1


def test_queries_of_all_lengths_are_said_to_miss_one_score(retriever, folder, tmp_path, capsys):
    of_queries = {"query_search_threshold": 1000.0, "fewest_query_words": 1.0, "most_query_words": 2.0}
    loaded = retriever(search_threshold=2000.0, fewest_words=4.0, most_words=7.0, **of_queries)
    (tmp_path / "many.txt").write_text("".join(f"ring {number}\na ring or {number}\n" for number in range(3)))
    run(loaded, folder, tmp_path / "many.txt", top_k=7)
    assert "no picture of the folder reaches 1000.00 or 2000.00; nothing there" in capsys.readouterr().err


def test_a_query_that_no_picture_shows_is_answered_in_silence(retriever, folder, tmp_path, capsys):
    nowhere = retriever(search_threshold=1000.5)
    run(nowhere, folder, "a blue ring", top_k=7)
    nothing = "nothing there is likely to show it\n"
    assert f'"a blue ring": no picture of the folder reaches 1000.50; {nothing}' in capsys.readouterr().err
    run(nowhere, folder, "a blue ring", top_k=3)
    assert f"none of the dual encoder's 3 best pictures reaches 1000.50; {nothing}" in capsys.readouterr().err
    (tmp_path / "many.txt").write_text("".join(f"ring {number}\n" for number in range(7)))
    run(nowhere, folder, tmp_path / "many.txt")
    err = capsys.readouterr().err
    assert '7 queries, such as "ring 0", "ring 1", "ring 2", "ring 3", "ring 4": none of the' in err
    assert err.count("likely to show it") == 1


def test_something_is_told_of_texts_of_other_lengths_or_without_a_threshold(retriever, folder, capsys):
    for loaded in (retriever(search_threshold=1000.0, fewest_words=5.0, most_words=6.0), retriever()):
        for query in (QUERIES[0], QUERIES[1]):  # seven words, and four
            run(loaded, folder, query, as_json=True)
            printed = capsys.readouterr()
            assert "matches" not in json.loads(printed.out)[0]
            assert "likely to show" not in printed.err


def test_a_threshold_that_is_given_is_not_gone_by(retriever, folder, capsys):
    loaded = retriever(search_threshold=1000.0, fewest_words=90.0)
    least = middle_score(loaded, folder, QUERIES[2], raw_sum=True)
    run(loaded, folder, QUERIES[2], as_json=True, top_k=7, raw_sum=True, threshold=least)
    printed = capsys.readouterr()
    assert [result["matches"] for result in json.loads(printed.out)] == [True] * 4 + [False] * 3
    assert f"a picture matches from a score of {least:.2f}\n" in printed.err


def test_of_two_checkpoints_the_threshold_of_the_wrong_one_is_taken(retriever, folder):
    loaded = retriever(search_threshold=-1000.0)
    scorer = {"itc": 0.0, "itm_negatives": "random"}
    plain = retriever(1, **scorer)
    assert judgement(loaded, plain) is None  # its own sums are of other scores
    least = middle_score(loaded, folder, QUERIES[0], "itm", itm=plain)
    other = retriever(1, **scorer, match_threshold=least)
    index, _ = build_index(loaded, folder, options=OPTIONS)
    judged = judgement(loaded, other)
    results = search(loaded, folder, index, QUERIES[:1], itm=other, options=OPTIONS, judged=judged).results
    assert [result.matches for result in results] == [result.itm >= least for result in results]
    assert sum(result.matches for result in results) == 4


@pytest.mark.parametrize("bad", ["nan", "inf", "much"])
def test_a_threshold_that_is_no_number_is_taken(runs, pictures, capsys, bad):
    words = ["rerank", "--images", pictures, "--query", "a", "--threshold", bad, "--checkpoint", runs["coarse"]]
    code, _, err = command(capsys, *words)
    assert code == 2
    assert "--threshold" in err


def test_a_threshold_for_a_dataset_is_taken(runs, capsys):
    code, _, err = command(capsys, "rerank", "scenes", "--threshold", "0", "--checkpoint", runs["coarse"])
    assert code == 2
    assert "--threshold: not for a dataset" in err


def test_the_command_line_reaches_it(runs, pictures, capsys, tmp_path):
    index, sheet = tmp_path / "index", tmp_path / "sheet.png"
    words = ["rerank", "--images", pictures, "--query", "a red circle", "--index", index, "--sheet", sheet]
    code, out, err = command(capsys, *words, "--json", "--top-k", "2", "--workers", "0", "--checkpoint", runs["coarse"])
    assert code == 0
    assert [result["rank"] for result in json.loads(out)] == [1, 2]
    assert "broken.jpg" in err
    assert index.is_file()
    assert Image.open(sheet).size[0] > 100
