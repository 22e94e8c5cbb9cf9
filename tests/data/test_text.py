"""Token ids and masking, with RoBERTa's own tokeniser where it is at hand and a small one otherwise."""

import io
import json
import shutil
import sys

import numpy as np
import pytest
import torch

from fiber_cli.data.text import encode, load_tokenizer, mask_tokens, read_small_letters
from fiber_cli.errors import UserError

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with a byte-level BPE without merges: one token per character."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(SPECIAL + letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def test_encode_pads_cuts_and_counts(small):
    tokenizer = load_tokenizer(small)
    ids, mask, truncated = encode(tokenizer, ["ab", "", "abcdefgh"], 6)
    a = len(SPECIAL)
    assert ids.tolist() == [[0, a, a + 1, 2, 1, 1], [0, 2, 1, 1, 1, 1], [0, a, a + 1, a + 2, a + 3, 2]]
    assert mask.sum(1).tolist() == [4, 2, 6]
    assert mask.dtype == torch.bool
    assert ids.dtype == torch.int64
    assert (mask == (ids != 1)).all()
    assert truncated == 1
    ids, mask, truncated = encode(tokenizer, [], 6)
    assert ids.shape == mask.shape == (0, 6)
    assert truncated == 0


def test_offsets_of_capitals_are_those_of_other_characters(small):
    tokenizer = load_tokenizer(small)
    read_small_letters(tokenizer)
    encoded = tokenizer("Aİ Bc", return_offsets_mapping=True)
    letters = dict(zip(encoded["offset_mapping"], tokenizer.convert_ids_to_tokens(encoded["input_ids"]), strict=True))
    assert (letters[0, 1], letters[3, 4], letters[4, 5]) == ("a", "b", "c")


def test_robertas_tokenizer(shared, tmp_path):
    folder = shared / "data" / "roberta-base"
    ids, _, truncated = encode(load_tokenizer(folder), ["Hello world", "a <mask>"], 7)
    # As published for roberta-base: Hello 31414, " world" 232, a 102, <s> 0, </s> 2, <pad> 1.
    assert ids[0].tolist() == [0, 31414, 232, 2, 1, 1, 1]
    assert ids[1, 1].item() == 102
    assert 50264 in ids[1].tolist()
    assert truncated == 0
    for name in ("vocab.json", "merges.txt"):  # without a configuration beside them
        shutil.copy(folder / name, tmp_path)
    bare = load_tokenizer(tmp_path)
    assert torch.equal(encode(bare, ["Hello world"], 7)[0][0], ids[0])
    bare.save_pretrained(tmp_path / "saved")  # as a checkpoint keeps it
    assert torch.equal(encode(load_tokenizer(tmp_path / "saved"), ["Hello world"], 7)[0][0], ids[0])


def test_tokenizers_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text('{"cut')
    names = [tmp_path / "absent", tmp_path / "empty", tmp_path / "broken", "./here", "roberta-nonesuch"]
    for name in names:
        with pytest.raises(UserError, match=r"cannot load the tokeniser .*\n.*vocab.json and merges.txt"):
            load_tokenizer(name)


def test_tokenizer_without_mask_token(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UserError, match="has no pad, cls, sep, mask token"):
        load_tokenizer(tmp_path)


TEXTS = ["a bc", " leading  space", "Größe, naïve ŷ", "猫と犬 🐶", "\t\n\x00\u200b", "", "<mask> a </s>", "z" * 300]


def copy_of(tokenizer, folder, **settings):
    """The tokenizer's files with these settings over its own."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return folder


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Python files beside a tokenizer that leave a trace where they are run, and a standard input that says yes."""
    folder = tmp_path / "code"
    folder.mkdir()
    text = f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Own: pass\n"
    for name in ("tokenization_own.py", "configuration_own.py"):
        (folder / name).write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\n"))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}},
        {"auto_map": ["tokenization_own.Own", "tokenization_own.Own"], "tokenizer_class": "Own"},
        {"auto_map": "tokenization_own.Own", "trust_remote_code": True},
        {"chat_template": "{{ ().__class__.__base__.__subclasses__() }}"},
        {"tokenizer_class": "os.system"},
        {"tokenizer_class": ["Own"]},
        {"gguf_file": "model.gguf", "init_inputs": ["x"], "fast_tokenizer_files": ["../../tokenizer.9.json"]},
        {"tokenizer_file": "/etc/passwd", "vocab_file": "/etc/passwd"},
    ],
)
def test_a_tokenizer_runs_no_code_and_reads_the_same_ids(tokenizer, code, tmp_path, capsys, settings):
    folder = copy_of(tokenizer, code, **settings)
    loaded = load_tokenizer(folder)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert not (tmp_path / "ran").exists()
    assert sys.stdin.read() == "y\ny\ny\n"
    named = settings.keys() & {"auto_map", "chat_template", "trust_remote_code"}
    told = capsys.readouterr().err
    assert len(told.splitlines()) == bool(named)
    assert all(name in told for name in named)
    loaded.save_pretrained(tmp_path / "kept")  # nor does a checkpoint that is made with it pass it on
    kept = "".join(path.read_text() for path in (tmp_path / "kept").iterdir())
    assert not any(f'"{name}"' in kept for name in ("auto_map", "chat_template", "gguf_file"))
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]


def test_code_of_a_model_beside_a_tokenizer_is_not_run(tokenizer, code, tmp_path, capsys):
    folder = copy_of(tokenizer, code)
    model = {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.Own"}}
    (folder / "config.json").write_text(json.dumps(model))
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    loaded = load_tokenizer(folder)
    assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert not (tmp_path / "ran").exists()
    assert "auto_map" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "RobertaTokenizerFast", "BartTokenizer", None])
def test_ids_are_those_of_the_class_that_transformers_takes(tokenizer, tmp_path, kind):
    from transformers import AutoTokenizer

    settings = {} if kind is None else {"tokenizer_class": kind}
    folder = copy_of(tokenizer, tmp_path, add_prefix_space=True, **settings)
    expected = AutoTokenizer.from_pretrained(folder)
    loaded = load_tokenizer(folder)
    assert loaded(TEXTS)["input_ids"] == expected(TEXTS)["input_ids"]
    offsets = [each(TEXTS, return_offsets_mapping=True)["offset_mapping"] for each in (loaded, expected)]
    assert offsets[0] == offsets[1]


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "[]", "7", '{"a": ' + "9" * 5_000 + "}", '{"model_max_length": "x"}', "\udcff", ""]
)
def test_settings_of_another_form_are_a_clear_error(tokenizer, tmp_path, content):
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"cannot load the tokeniser"):
        load_tokenizer(tmp_path)


def test_a_name_of_the_hub_is_read_from_the_cache_without_its_code(tokenizer, code, tmp_path, monkeypatch, capsys):
    asked = []

    def snapshot(name, *, allow_patterns):
        asked.append((name, allow_patterns))
        return str(copy_of(tokenizer, code, auto_map={"AutoTokenizer": ["tokenization_own.Own", None]}))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert load_tokenizer("someone/own")(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    ((name, patterns),) = asked
    assert name == "someone/own"
    assert not any(pattern.endswith((".py", "*")) for pattern in patterns)
    assert not (tmp_path / "ran").exists()
    assert "auto_map" in capsys.readouterr().err


class Words:
    """What masking asks a tokenizer of a thousand words for."""

    mask_token_id, all_special_ids = 4, (0, 1, 2, 4)

    def __len__(self):
        return 1000


def masked(ids, seed=0, probability=0.15):
    return mask_tokens(ids, Words(), probability, np.random.default_rng(seed))


def test_masking_has_berts_proportions():
    ids = torch.randint(5, 1000, (1000, 200), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 0, 1
    new, labels = masked(ids)
    chosen = labels != -100
    assert not chosen[:, [0, -1]].any()
    assert (new[:, [0, -1]] == ids[:, [0, -1]]).all()
    assert (labels[chosen] == ids[chosen]).all()
    assert (new[~chosen] == ids[~chosen]).all()
    share = chosen[:, 1:-1].float().mean().item()
    assert share == pytest.approx(0.15, abs=0.003)  # 198,000 draws: three deviations are 0.0024
    per_position = chosen[:, 1:-1].float().mean(0)
    assert per_position.min() > 0.09
    assert per_position.max() < 0.21
    fate = new[chosen]
    assert (fate == 4).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert (fate == labels[chosen]).float().mean().item() == pytest.approx(0.1, abs=0.007)
    random = fate[(fate != 4) & (fate != labels[chosen])]
    assert random.min() < 20
    assert random.max() > 980


def test_masking_depends_on_the_generator_only_and_leaves_its_input():
    ids = torch.arange(5, 45)
    before = ids.clone()
    a, b, c = masked(ids, 1, 0.5), masked(ids, 1, 0.5), masked(ids, 2, 0.5)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[1], c[1])
    assert torch.equal(ids, before)
    assert a[0].dtype == a[1].dtype == torch.int64
    none = masked(ids, 1, 0.0)
    assert torch.equal(none[0], ids)
    assert (none[1] == -100).all()
