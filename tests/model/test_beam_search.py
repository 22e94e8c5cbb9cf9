"""The search finds what a plain one finds, whatever is cached, batched or done early."""

import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch
from small_captioner import (
    CLS,
    MASK,
    PAD,
    SEP,
    SPECIAL,
    log_probs,
    make_captioner,
    mean_log_prob,
    memory_of,
    unpadded,
)

from fiber_cli.model import beam_search as search
from fiber_cli.model.beam_search import beam_search
from fiber_cli.model.captioner import Captioner, Stepper


def plain_search(captioner: Captioner, memory: torch.Tensor, beam: int, max_length: int) -> tuple[list[int], float]:
    """The search in lists, one image, everything recomputed."""
    live, finished = [([], 0.0)], []
    for _ in range(max_length - 1):
        candidates = []
        for tokens, total in live:
            for token, value in enumerate(log_probs(captioner, memory, tokens).tolist()):
                if token != MASK:
                    candidates.append(([*tokens, token], total + value))
        candidates.sort(key=lambda candidate: -candidate[1])
        ended = [candidate[0][-1] in (SEP, PAD) for candidate in candidates]
        finished += [candidate for candidate, end in zip(candidates[:beam], ended, strict=False) if end]
        live = [candidate for candidate, end in zip(candidates, ended, strict=True) if not end][:beam]
        if len(finished) >= beam:
            break
    tokens, total = max(finished + live, key=lambda hypothesis: hypothesis[1] / len(hypothesis[0]))
    return tokens, total / len(tokens)


@pytest.mark.parametrize(("sep", "pad"), [(0.0, 0.0), (2.0, 0.0), (4.0, 0.0), (3.0, 3.0)])
@pytest.mark.parametrize("beam", [1, 3])
def test_search_is_the_plain_one_and_batches_do_not_matter(sep, pad, beam):
    captioner = make_captioner(seed=int(sep), sep=sep, pad=pad)
    memory = memory_of(captioner, 6)
    captions, scores = beam_search(captioner, memory, beam=beam, max_length=12, special=SPECIAL)
    assert captions.shape == (6, 11)
    assert captions.dtype == torch.int64
    for i in range(6):
        alone, _ = beam_search(captioner, memory[i : i + 1], beam=beam, max_length=12, special=SPECIAL)
        assert torch.equal(alone[0], captions[i])
        tokens, score = plain_search(captioner, memory[i], beam, 12)
        assert captions[i].tolist() == tokens + [PAD] * (11 - len(tokens))
        assert float(scores[i]) == pytest.approx(score, abs=1e-5)
        assert float(scores[i]) == pytest.approx(mean_log_prob(captioner, memory[i], tokens), abs=1e-5)


def test_wide_search_is_exhaustive():
    captioner = make_captioner(vocab=6)
    memory = memory_of(captioner, 3)
    captions, best = beam_search(captioner, memory, beam=60, max_length=4, special=SPECIAL)
    words = [CLS, 4, 5]
    sentences = []
    for length in range(3):
        for start in itertools.product(words, repeat=length):
            for last in [SEP, PAD, *words] if length == 2 else [SEP, PAD]:
                sentences.append([*start, last])
    for i in range(3):
        scores = [mean_log_prob(captioner, memory[i], tokens) for tokens in sentences]
        assert float(best[i]) == pytest.approx(max(scores), abs=1e-5)
        assert unpadded(captions[i]) == sentences[int(np.argmax(scores))]


class FromTheStart(Stepper):
    """Without the cache's keys and values; counts the captions it computes."""

    computed: ClassVar[list[int]] = []

    def states(self):
        self.computed.append(len(self.tokens))
        repeated = self.memory.repeat_interleave(self.captions_per_image, 0)
        return self.captioner.states(repeated, self.tokens)[:, -1]

    def select(self, captions):
        self.tokens = self.tokens[captions]


@pytest.fixture
def computed(monkeypatch):
    """Has the search compute everything anew; gives the numbers of captions that its steps compute."""
    counts: list[int] = []
    monkeypatch.setattr(search, "Stepper", FromTheStart)
    monkeypatch.setattr(FromTheStart, "computed", counts)
    return counts


@pytest.mark.parametrize("as_published", [False, True])
def test_cache_changes_nothing_and_done_images_drop_out(request, as_published):
    captioner = make_captioner(seed=9, sep=2.0)
    memory = memory_of(captioner, 8)
    options = {"beam": 3, "max_length": 12, "special": SPECIAL, "as_published": as_published}
    cached = beam_search(captioner, memory, **options)
    computed = request.getfixturevalue("computed")
    plain = beam_search(captioner, memory, **options)
    assert torch.equal(cached[0], plain[0])
    torch.testing.assert_close(cached[1], plain[1], atol=1e-5, rtol=0)
    assert computed[0] == 24
    assert computed == sorted(computed, reverse=True)
    if not as_published:
        assert len(set(computed)) > 2, "images were to be done at different lengths"


@pytest.mark.parametrize("as_published", [False, True])
def test_search_stops_early(computed, as_published):
    captioner = make_captioner(sep=50.0)
    memory = memory_of(captioner, 2)
    captions, _ = beam_search(captioner, memory, beam=3, max_length=12, special=SPECIAL, as_published=as_published)
    assert captions.tolist() == [[SEP] + [PAD] * 10] * 2
    assert len(computed) < 5


@pytest.mark.parametrize("as_published", [False, True])
def test_mask_token_is_never_found(as_published):
    captioner = make_captioner()
    with torch.no_grad():
        captioner.mlm.bias[MASK] = 1000.0
    memory = memory_of(captioner, 3)
    captions, _ = beam_search(captioner, memory, beam=3, max_length=12, special=SPECIAL, as_published=as_published)
    assert (captions != MASK).all()
