"""The best answers and captions with their scores."""

import pytest
import torch

from fiber_cli.inference.fiber import Fiber
from fiber_cli.model.pixels import normalize


@pytest.fixture(scope="module")
def models(runs):
    return {task: Fiber.from_pretrained(runs[task], batch_size=2) for task in ("vqa", "vqa_generated", "caption")}


@pytest.mark.parametrize("task", ["vqa", "vqa_generated"])
def test_the_first_of_the_best_answers_is_the_answer(models, readable, task):
    model = models[task]
    questions = ["what is it?", "how many?", "which colour is the star?"]
    best = model.answers(readable, questions, k=2)
    assert [of_pair[0].text for of_pair in best] == model.answer(readable, questions)
    for of_pair in best:
        scores = [each.score for each in of_pair]
        assert scores == sorted(scores, reverse=True)
        assert all(0 <= score <= 1 for score in scores)
        assert len({each.text for each in of_pair}) == len(of_pair) <= 2
    for alone, in_list in zip(model.answers(readable[1], questions[1], k=2), best[1], strict=True):
        assert alone.text == in_list.text
        assert alone.score == pytest.approx(in_list.score, abs=1e-5)


def test_scores_of_a_closed_list_are_the_sigmoids_of_its_logits(models, readable):
    model = models["vqa"]
    best = model.answers(readable[0], "what is it?", k=1000)
    assert {each.text for each in best} == set(model.context.labels)
    batch = {"pixels": model._pixels([_opened(readable[0])])}
    batch["ids"], batch["mask"] = model._encoded(["what is it?"])
    with torch.inference_mode():
        shares = model.task.batch_logits(batch).sigmoid()[0]
    for each in best:
        assert each.score == pytest.approx(float(shares[model.context.labels.index(each.text)]), abs=1e-5)


def test_the_score_of_a_caption_is_the_mean_probability_of_its_tokens(models, readable):
    model = models["caption"]
    (best, *others) = model.captions(readable[0], k=3)
    assert model.caption(readable[0]) == best.text
    assert [each.score for each in others] == sorted((each.score for each in others), reverse=True)
    task = model.task
    with torch.inference_mode():
        pixels = model._pixels([_opened(readable[0])])
        rows, scores = task.best_captions(pixels, 3, beam=5)
        special = task.special
        tokens = [token for token in rows[0, 0].tolist() if token != special.pad]
        ids = torch.tensor([[special.cls, *tokens]])
        states = task.captioner.states(task.captioner.memory(normalize(pixels)), ids)
        logits = task.mlm(states).float()
        logits[..., special.mask] = -torch.inf
        log_probs = logits.log_softmax(-1)[0]
    length = min(len(tokens) + 1, task.max_length - 1)
    following = [*tokens, special.sep][:length]
    of_tokens = [float(log_probs[place, token]) for place, token in enumerate(following)]
    mean = sum(of_tokens) / length
    assert float(scores[0, 0]) == pytest.approx(float(torch.tensor(mean).exp()), rel=1e-3)


def test_a_search_is_as_wide_as_what_is_asked_of_it(models, readable):
    model = models["caption"]
    assert len(model.captions(readable[0], k=4, beam=1)) > 1
    assert len(model.captions(readable[:2], k=2, as_published=True)) == 2


def test_pictures_that_cannot_be_read_may_be_left_out(models, readable, pictures):
    with pytest.warns(UserWarning, match="image 1 is left out"):
        best = models["caption"].captions([readable[0], pictures / "broken.jpg"], k=1, on_error="skip")
    assert best[1] is None
    with pytest.warns(UserWarning, match="image 1 is left out"):
        assert models["vqa"].answers([readable[0], pictures / "broken.jpg"], "why?", on_error="skip")[1] is None


def _opened(file):
    from fiber_cli.inference.pictures import read_picture

    return read_picture(file)
