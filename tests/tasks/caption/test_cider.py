"""CIDEr-D equals the published program, and its tables are written, read and refused."""

import json

import numpy as np
import pytest

from fiber_cli.data.text import encode, load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.tasks.caption import cider


@pytest.mark.parametrize(("mode", "prefix"), [("corpus", ""), ("df", "df_mode_")])
def test_scores_are_those_of_the_published_program(shared, mode, prefix):
    cases = json.loads((shared / "golden" / "cider_cases.json").read_text())
    references = list(cases[f"{prefix}gts"].values())
    expected = cases[f"ciderD_{mode}_mode"]
    if mode == "corpus":
        table = cider.document_frequency(references)
    else:
        table = cider.read_document_frequency(shared / "golden" / "cider_df.json")
    scorer = cider.CiderD(table)
    scores = scorer(cases[f"{prefix}hyps"], references)
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-9, rtol=0)
    assert scores.mean() == pytest.approx(expected["mean"], abs=1e-9)
    twice = [text for text in cases[f"{prefix}hyps"] for _ in range(2)]
    assert (scorer(twice, references) == scores.repeat(2)).all()


def test_document_frequencies_count_images_and_are_read_as_written(tmp_path):
    table = cider.document_frequency([["a b", "a b a b"], ["b a"], []])
    assert table.ref_len == 3
    expected = {"a": 2, "b": 2, "a b": 1, "b a": 2, "a b a": 1, "b a b": 1, "a b a b": 1}
    assert table.document_frequency == expected
    cider.write_document_frequency(tmp_path / "new" / "df.json", table)
    assert json.loads((tmp_path / "new" / "df.json").read_text()) == {"ref_len": 3.0, "document_frequency": expected}
    assert cider.read_document_frequency(tmp_path / "new" / "df.json") == table


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"ref_len": 3}',
        '{"ref_len": 0, "document_frequency": {}}',
        '{"ref_len": 1, "document_frequency": {"a": 1}}',
        '{"ref_len": 3, "document_frequency": {"a": "b"}}',
        '{"ref_len": 3, "document_frequency": []}',
        '{"ref_len": NaN, "document_frequency": {"a": 1}}',
        '{"ref_len": 1e400, "document_frequency": {"a": 1}}',
        '{"ref_len": true, "document_frequency": {"a": 1}}',
        '{"ref_len": 3, "document_frequency": {"a": NaN}}',
        '{"ref_len": 3, "document_frequency": {"a": -1}}',
        '{"ref_len": 3, "document_frequency": {"a": ' + "9" * 400 + "}}",
        '{"ref_len": ' + "9" * 5_000 + ', "document_frequency": {}}',
        '{"ref_len": 3, "document_frequency": ' + "[" * 100_000,
    ],
)
def test_other_files_are_no_table_of_document_frequencies(tmp_path, content):
    (tmp_path / "df.json").write_text(content)
    with pytest.raises(UserError, match=r"df\.json.*ref_len"):
        cider.read_document_frequency(tmp_path / "df.json")
    with pytest.raises(UserError, match=r"none\.json"):
        cider.read_document_frequency(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("caption", "wrapped"),
    [(" A dog. ", "A dog <eos>"), ("a dog..", "a dog. <eos>"), ("", " <eos>"), ("a .", "a  <eos>")],
)
def test_captions_are_wrapped_as_published(caption, wrapped):
    assert cider.wrap(caption) == wrapped


def test_reward_of_token_rows():
    tokenizer = load_tokenizer("builtin")
    texts = ["a red circle is left of a blue star", "a red circle"]
    rows, _, _ = encode(tokenizer, texts, 20)
    references = [[texts[0] + "."], ["two dogs"]]
    table = cider.document_frequency([[cider.wrap(text) for text in of_image] for of_image in references])
    rewards = cider.CiderReward(cider.CiderD(table), tokenizer)(rows, references)
    assert rewards.dtype == np.float64
    # A caption equal to its only reference scores 10; <eos>, in every image, weighs nothing.
    np.testing.assert_allclose(rewards, [10, 0], atol=1e-12)
