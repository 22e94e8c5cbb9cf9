"""Token ids and masking, with RoBERTa's own tokeniser where it is at hand and a small one otherwise."""

import json
import shutil

import numpy as np
import pytest
import torch

from fiber_cli.data.text import encode, load_tokenizer, mask_tokens
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
