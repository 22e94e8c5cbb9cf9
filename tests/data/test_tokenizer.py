"""The packaged tokenizer behaves as RoBERTa's does and knows the scenes' words."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import fiber_cli
from fiber_cli.data.scenes.captions import MAX_WORDS, captions
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.scenes.questions import questions
from fiber_cli.data.scenes.vocabulary import SYNONYMS, VALUES

FOLDER = Path(fiber_cli.__file__).parent / "assets" / "tokenizer"
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_tokenizer.py"


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


def test_special_tokens(tokenizer):
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    assert 1000 <= len(tokenizer) <= 2000
    special = (tokenizer.cls_token_id, tokenizer.pad_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id)
    assert special == (0, 1, 2, 3) == (tokenizer.bos_token_id, 1, tokenizer.eos_token_id, 3)
    assert tokenizer("")["input_ids"] == [0, 2]
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("red", "blue"))
    assert tokenizer("red", "blue")["input_ids"] == [0, *one, 2, 2, *two, 2]
    words = tokenizer.convert_tokens_to_ids(["<s>", "a", "<mask>", "Ġcircle", "</s>"])
    assert tokenizer("a <mask> circle")["input_ids"] == words


@pytest.mark.parametrize(
    "text", ["a red circle", " leading  and double ", "Größe, naïve ŷ", "猫と犬 🐶👩‍👩‍👧", "\t\n\x00\u200b"]
)
def test_round_trip_and_offsets(tokenizer, text: str):
    encoded = tokenizer(text, return_offsets_mapping=True)
    assert tokenizer.unk_token_id not in encoded["input_ids"]
    assert tokenizer.decode(encoded["input_ids"][1:-1], clean_up_tokenization_spaces=False) == text
    inner = encoded["offset_mapping"][1:-1]
    assert all(0 <= start <= end <= len(text) for start, end in inner)
    covered = {k for start, end in inner for k in range(start, end)}
    assert covered >= {k for k, character in enumerate(text) if character != " "}


def test_every_byte_has_a_token(tokenizer):
    vocabulary = set(tokenizer.get_vocab())
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255]
    assert {chr(b) for b in printable} | {chr(256 + k) for k in range(256 - len(printable))} <= vocabulary


def test_scene_texts_take_one_token_a_word_and_fit_the_text_length(tokenizer):
    scenes = [scene(3, split, index) for split in ("val", "test") for index in range(150)]
    lines = [caption.text for one in scenes for caption in captions(one)]
    for line, ids in zip(lines, tokenizer(lines)["input_ids"], strict=True):
        assert len(ids) - 2 == len(re.findall(r"\w+|[^\w\s]", line)) <= MAX_WORDS, line
    other = [entry.text for one in scenes for entry in (*questions(one), *expressions(one))]
    assert max(len(ids) for ids in tokenizer(other)["input_ids"]) <= 40
    words = {word for values in VALUES.values() for word in values} | set(SYNONYMS.values())
    assert all(len(tokenizer.tokenize(f" {word}")) == 1 for word in words)


def test_offsets_follow_phrases(tokenizer):
    for caption in captions(scene(3, "val", 0)):
        offsets = tokenizer(caption.text, return_offsets_mapping=True)["offset_mapping"]
        starts, ends = {start for start, _ in offsets}, {end for _, end in offsets}
        assert all(phrase.start in starts and phrase.end in ends for phrase in caption.phrases)


def test_everyday_text_is_not_spelt_in_letters(tokenizer):
    text = "A young woman in a red jacket is riding her bicycle down the street while two dogs run by."
    assert len(tokenizer.tokenize(text)) <= 1.5 * len(text.split())


def test_script_is_deterministic(tmp_path):
    script = runpy.run_path(str(SCRIPT))
    script["train"].__globals__["SCENES"] = 20
    for name in ("one", "two"):
        script["train"](tmp_path / name)
    for file in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        assert (FOLDER / file).stat().st_size > 0


def test_asking_the_script_for_help_makes_a_folder_of_that_name(tmp_path):
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "where the files go" in ended.stdout
    assert not list(tmp_path.iterdir())
