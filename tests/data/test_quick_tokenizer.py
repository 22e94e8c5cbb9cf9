"""The tokeniser of a checkpoint without transformers answers as transformers' does."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiber_cli.data.quick_tokenizer import CONFIG, TOKENIZER, read_quickly
from fiber_cli.data.text import load_tokenizer, read_small_letters, special_ids

TEXTS = [
    "a red circle",
    "",
    " leading  and double ",
    "Größe, naïve ŷ",
    "猫と犬 🐶👩‍👩‍👧",
    "a <mask> circle</s> <s>and<pad>  <mask><unk>",
    "\t\n\x00\u200b",
    "don't 1,234.5 ... (x)",
    "word " * 600,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The packaged tokeniser as a checkpoint has it."""
    folder = tmp_path_factory.mktemp("tokenizer")
    load_tokenizer("builtin").save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def quick(folder):
    tokenizer = read_quickly(folder)
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="module")
def full(folder):
    return load_tokenizer(folder)


def test_its_parts_are_not_transformers(quick, full):
    assert json.loads(quick._backend.to_str()) == json.loads(full.backend_tokenizer.to_str())
    assert special_ids(quick) == special_ids(full)
    assert quick.all_special_tokens == full.all_special_tokens
    assert quick.all_special_ids == full.all_special_ids
    assert quick.get_vocab() == full.get_vocab()
    assert len(quick) == len(full)
    assert quick.name_or_path == full.name_or_path
    assert quick._full is None


def assert_the_same(quick, full, texts):
    for options in ({}, {"add_special_tokens": False}, {"return_offsets_mapping": True, "verbose": False}):
        assert dict(quick(texts, **options)) == dict(full(texts, **options))
        assert dict(quick(texts[0], **options)) == dict(full(texts[0], **options))
    rows = full(texts)["input_ids"]
    for options in ({}, {"skip_special_tokens": True}):
        assert quick.batch_decode(rows, **options) == full.batch_decode(rows, **options)
    assert quick._full is None


def test_texts_have_other_tokens_than_transformers(quick, full):
    assert_the_same(quick, full, TEXTS)
    assert quick("a red circle").input_ids == full("a red circle").input_ids
    assert quick(TEXTS).attention_mask == full(TEXTS).attention_mask


@settings(max_examples=50, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=3))
def test_any_text_has_other_tokens_than_transformers(folder, full, texts):
    assert_the_same(read_quickly(folder), full, texts)


def test_the_rest_is_not_transformers(folder, full, tmp_path):
    """What is asked beside the usual is answered by transformers' own, and from then on everything."""
    for ask in (
        lambda one: one("a red circle", truncation=True, max_length=3)["input_ids"],
        lambda one: one("a", "b")["input_ids"],
        lambda one: one(["a", "b c"], padding=True, return_tensors="pt")["input_ids"].tolist(),
        lambda one: one.convert_ids_to_tokens([0, 5, 6]),
        lambda one: one.eos_token_id,
        lambda one: one.batch_decode([[5, 6]], clean_up_tokenization_spaces=False),
    ):
        tokenizer = read_quickly(folder)
        expected = ask(full)
        assert ask(tokenizer) == expected
        assert tokenizer._full is not None
        assert dict(tokenizer("a red circle")) == dict(full("a red circle"))
    with pytest.raises(AttributeError):
        read_quickly(folder).nothing_of_the_kind  # noqa: B018


def test_saving_writes_other_files(folder, full, tmp_path):
    """Also after the folder has gone: what was read is kept."""
    gone = tmp_path / "gone"
    gone.mkdir()
    for file in folder.iterdir():
        (gone / file.name).write_bytes(file.read_bytes())
    tokenizer = read_quickly(gone)
    for file in gone.iterdir():
        file.unlink()
    tokenizer.save_pretrained(str(tmp_path / "quick"))
    full.save_pretrained(str(tmp_path / "full"))
    names = sorted(path.name for path in (tmp_path / "full").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "quick").iterdir())
    for name in names:
        assert (tmp_path / "quick" / name).read_bytes() == (tmp_path / "full" / name).read_bytes()


def test_copies_do_not_answer(quick, full):
    for copied in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        assert dict(copied(TEXTS)) == dict(full(TEXTS))
        assert special_ids(copied) == special_ids(full)


def changed(folder, tmp_path, name, change):
    """A copy of the folder with a file's content changed."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / name).read_text())
    change(content)
    (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (CONFIG, lambda config: config.update(tokenizer_class="BertTokenizer")),
        (CONFIG, lambda config: config.update(add_prefix_space=True)),
        (CONFIG, lambda config: config.update(trim_offsets="no")),
        (CONFIG, lambda config: config.update(mask_token={"content": "<mask>", "lstrip": False})),
        (CONFIG, lambda config: config.update(extra_special_tokens=["<extra>"])),
        (CONFIG, lambda config: config.update(cls_token="<none>")),
        (CONFIG, lambda config: config.pop("pad_token")),
        (TOKENIZER, lambda content: content.update(normalizer={"type": "Lowercase"})),
        (TOKENIZER, lambda content: content.update(truncation={"max_length": 4})),
        (TOKENIZER, lambda content: content["post_processor"].update(sep=["</s>", 3])),
        (TOKENIZER, lambda content: content["pre_tokenizer"].update(use_regex=False)),
        (TOKENIZER, lambda content: content["model"].update(dropout=0.5)),
        (TOKENIZER, lambda content: content["model"].update(vocab={})),
        (TOKENIZER, lambda content: content["added_tokens"].pop()),
        (TOKENIZER, lambda content: content["added_tokens"][0].update(special=False)),
        (TOKENIZER, lambda content: content.pop("model")),
    ],
)
def test_what_transformers_would_read_otherwise_is_read_quickly(folder, tmp_path, name, change):
    assert read_quickly(changed(folder, tmp_path, name, change)) is None


def test_folders_of_another_form_are_read_quickly(folder, tmp_path):
    assert read_quickly(tmp_path) is None
    assert read_quickly(tmp_path / "none") is None
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert read_quickly(tmp_path) is not None
    (tmp_path / "added_tokens.json").write_text("{}")
    assert read_quickly(tmp_path) is None
    (tmp_path / "added_tokens.json").unlink()
    (tmp_path / TOKENIZER).write_bytes((folder / TOKENIZER).read_bytes()[:-9])
    assert read_quickly(tmp_path) is None


def test_transformers_is_loaded(folder):
    program = f"""
import sys
from pathlib import Path
from fiber_cli.data.quick_tokenizer import read_quickly
tokenizer = read_quickly(Path({str(folder)!r}))
print(tokenizer("a red circle")["input_ids"][0], "transformers" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "0 False\n"


def test_small_letters_need_transformers_or_are_lost_with_it(folder):
    quick, full = read_quickly(folder), load_tokenizer(folder)
    texts = ["A Red CIRCLE", "ÄÖ\u0130 <mask> X"]
    wanted = full([text.lower() for text in texts])["input_ids"]
    assert quick(texts).input_ids != wanted
    read_small_letters(quick)
    read_small_letters(full)
    assert_the_same(quick, full, texts)
    assert quick(texts).input_ids == wanted
    assert quick.full()(texts)["input_ids"] == wanted
