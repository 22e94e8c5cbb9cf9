"""Captioning: the search, the three objectives, CIDEr-D, the community's metrics, and evaluation sets."""

import itertools
import json
import math
import shutil
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp
from PIL import Image

from fiber_cli.tasks.caption.evaluation import CaptionSet
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.sources.nocaps import NocapsSource
from fiber_cli.data.scenes.drawing import ScenesSource
from fiber_cli.data.text import encode, load_tokenizer
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.tasks.caption import metrics
from fiber_cli.tasks.caption import cider
from fiber_cli.model import captioner as search
from fiber_cli.model.captioner import SpecialIds, Stepper, beam_search, sample
from fiber_cli.model.config import TINY, FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask

CLS, PAD, SEP, MASK = range(4)
SPECIAL = SpecialIds(cls=CLS, sep=SEP, pad=PAD, mask=MASK)
IDS = {"cls_id": CLS, "sep_id": SEP, "pad_id": PAD, "mask_id": MASK}


def config(vocab: int, dropout: float = 0.0) -> FiberConfig:
    return FiberConfig(
        image=ImageConfig(embed_dim=8, depths=(1, 2), heads=(1, 2), window=2, patch=8, drop_path=dropout),
        text=TextConfig(layers=4, hidden=16, heads=2, intermediate=32, vocab=vocab, positions=64, dropout=dropout),
        fusion_layers=3,
        hidden=16,
        image_size=(32, 32),
        init_std=None,
    )


def make_task(vocab: int = 30, seed: int = 0, dropout: float = 0.0, **settings) -> CaptionTask:
    """A task far from its start: gates open, distributions neither flat nor certain."""
    torch.manual_seed(seed)
    task = CaptionTask(config(vocab, dropout), **IDS, **{"max_length": 12, "beam": 3} | settings)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return task.eval()


def pixels(images: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=generator)


def memory_of(task: CaptionTask, images: int) -> torch.Tensor:
    with torch.no_grad():
        return task.captioner.memory(pixels(images).float() / 128 - 1)


@torch.no_grad()
def log_probs(task: CaptionTask, memory: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Of the token after [cls, *tokens], from one image memory (N, C), by a pass over the whole text."""
    states = task.captioner.states(memory[None], torch.tensor([[CLS, *tokens]]))
    logits = task.mlm(states[0, -1])
    logits[MASK] = -torch.inf
    return logits.log_softmax(0)


def mean_log_prob(task: CaptionTask, memory: torch.Tensor, tokens: list[int]) -> float:
    steps = [float(log_probs(task, memory, tokens[:i])[token]) for i, token in enumerate(tokens)]
    return sum(steps) / len(steps)


def unpadded(row: torch.Tensor) -> list[int]:
    """Tokens up to the ending one, included."""
    tokens = row.tolist()
    end = next((i for i, token in enumerate(tokens) if token in (SEP, PAD)), len(tokens) - 1)
    assert all(token == PAD for token in tokens[end + 1 :])
    return tokens[: end + 1]


def plain_search(task: CaptionTask, memory: torch.Tensor, beam: int, max_length: int) -> tuple[list[int], float]:
    """The search in lists, one image, everything recomputed."""
    live, finished = [([], 0.0)], []
    for _ in range(max_length - 1):
        candidates = []
        for tokens, total in live:
            values = log_probs(task, memory, tokens).tolist()
            candidates += [([*tokens, i], total + value) for i, value in enumerate(values) if i != MASK]
        candidates.sort(key=lambda each: -each[1])
        finished += [each for each in candidates[:beam] if each[0][-1] in (SEP, PAD)]
        live = [each for each in candidates if each[0][-1] not in (SEP, PAD)][:beam]
        if len(finished) >= beam:
            break
    tokens, total = max(finished + live, key=lambda each: each[1] / len(each[0]))
    return tokens, total / len(tokens)


def biased(task: CaptionTask, sep: float, pad: float = 0.0) -> CaptionTask:
    with torch.no_grad():
        task.mlm.bias[SEP] += sep
        task.mlm.bias[PAD] += pad
    return task


@pytest.mark.parametrize(("sep", "pad"), [(0.0, 0.0), (2.0, 0.0), (4.0, 0.0), (3.0, 3.0)])
@pytest.mark.parametrize("beam", [1, 3])
def test_search_is_the_plain_one_and_batches_do_not_matter(sep, pad, beam):
    task = biased(make_task(seed=int(sep)), sep, pad)
    memory = memory_of(task, 6)
    found, scores = beam_search(task.captioner, memory, beam=beam, max_length=12, special=SPECIAL)
    assert found.shape == (6, 11) and found.dtype == torch.int64
    for i in range(6):
        alone, _ = beam_search(task.captioner, memory[i : i + 1], beam=beam, max_length=12, special=SPECIAL)
        assert torch.equal(alone[0], found[i])
        tokens, score = plain_search(task, memory[i], beam, 12)
        assert found[i].tolist() == tokens + [PAD] * (11 - len(tokens))
        assert float(scores[i]) == pytest.approx(score, abs=1e-5)
        assert float(scores[i]) == pytest.approx(mean_log_prob(task, memory[i], tokens), abs=1e-5)


def test_wide_search_is_exhaustive():
    task = make_task(vocab=6)
    memory = memory_of(task, 3)
    found, best = beam_search(task.captioner, memory, beam=60, max_length=4, special=SPECIAL)
    words = [CLS, 4, 5]
    sentences = [
        [*start, last]
        for length in range(3)
        for start in itertools.product(words, repeat=length)
        for last in ([SEP, PAD, *words] if length == 2 else [SEP, PAD])
    ]
    for i in range(3):
        scores = [mean_log_prob(task, memory[i], tokens) for tokens in sentences]
        assert float(best[i]) == pytest.approx(max(scores), abs=1e-5)
        assert unpadded(found[i]) == sentences[int(np.argmax(scores))]


class FromTheStart(Stepper):
    """Without the cache's keys and values; counts the rows it computes."""

    rows_computed: ClassVar[list[int]] = []

    def states(self):
        self.rows_computed.append(len(self.tokens))
        repeated = self.memory.repeat_interleave(self.rows, 0)
        return self.captioner.states(repeated, self.tokens)[:, -1]

    def _keep(self, rows):
        self.tokens = self.tokens[rows]


@pytest.mark.parametrize("published", [False, True])
def test_cache_changes_nothing_and_done_images_drop_out(monkeypatch, published):
    task = biased(make_task(seed=9), 2.0)
    memory = memory_of(task, 8)
    options = {"beam": 3, "max_length": 12, "special": SPECIAL, "published": published}
    cached = beam_search(task.captioner, memory, **options)
    monkeypatch.setattr(search, "Stepper", FromTheStart)
    monkeypatch.setattr(FromTheStart, "rows_computed", rows := [])
    plain = beam_search(task.captioner, memory, **options)
    assert torch.equal(cached[0], plain[0])
    torch.testing.assert_close(cached[1], plain[1], atol=1e-5, rtol=0)
    assert rows[0] == 24 and rows == sorted(rows, reverse=True)
    if not published:
        assert len(set(rows)) > 2, "images were to be done at different lengths"


@pytest.mark.parametrize("published", [False, True])
def test_search_stops_early(monkeypatch, published):
    task = biased(make_task(), 50.0)
    monkeypatch.setattr(search, "Stepper", FromTheStart)
    monkeypatch.setattr(FromTheStart, "rows_computed", rows := [])
    found, _ = beam_search(
        task.captioner, memory_of(task, 2), beam=3, max_length=12, special=SPECIAL, published=published
    )
    assert found.tolist() == [[SEP] + [PAD] * 10] * 2
    assert len(rows) < 5


def test_mask_token_is_never_generated_and_predictions_hide_special_tokens():
    task = make_task()
    with torch.no_grad():
        task.mlm.bias[MASK] = 1000.0
        task.mlm.bias[CLS] += 3.0
    tokens = [sample(task.captioner, memory_of(task, 3), samples=4, max_length=12, special=SPECIAL)[:, 1:]]
    tokens += [
        beam_search(task.captioner, memory_of(task, 3), beam=3, max_length=12, special=SPECIAL, published=p)[0]
        for p in (False, True)
    ]
    assert all((each != MASK).all() for each in tokens)
    assert (tokens[1] == CLS).any()
    rows = task.predict({"pixels": pixels(3)})
    assert rows.shape == (3, 11) and not torch.isin(rows, torch.tensor([CLS, SEP, MASK])).any()


def test_samples_follow_the_model():
    task = biased(make_task(vocab=8), 1.0)
    memory = memory_of(task, 2)
    torch.manual_seed(0)
    rows = sample(task.captioner, memory, samples=6000, max_length=5, special=SPECIAL)
    assert rows.shape == (12000, 5) and (rows[:, 0] == CLS).all()
    for i in range(2):
        mine = rows[i * 6000 : (i + 1) * 6000]
        for prefix in ([], [5], [5, 6]):
            chosen = mine[(mine[:, 1 : 1 + len(prefix)] == torch.tensor(prefix)).all(1), 1 + len(prefix)]
            share = torch.bincount(chosen, minlength=8) / len(chosen)
            expected = log_probs(task, memory[i], prefix).exp()
            assert (share - expected).abs().max() < 4 * 0.5 / math.sqrt(len(chosen))
    [unpadded(row) for row in rows[:200, 1:]]


def make_batch(images: int = 4, length: int = 10, vocab: int = 30, seed: int = 3) -> dict:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocab, (images, length), generator=generator)
    ids[:, 0] = CLS
    mask = torch.arange(length)[None] < torch.randint(4, length + 1, (images, 1), generator=generator)
    ids[torch.arange(images), mask.sum(1) - 1] = SEP
    ids = ids.masked_fill(~mask, PAD)
    references = [("a b c",), ("d e", "d f")] * (images // 2)
    return {"pixels": pixels(images), "ids": ids, "mask": mask, "references": references, "step": 0}


def test_only_the_expected_parameters_differ_from_the_coarse_task():
    ours, coarse = ({name for name, _ in t.named_parameters()} for t in (make_task(), CoarseTask(config(30))))
    assert ours - coarse and all(name.startswith(CaptionTask.NEW) for name in ours - coarse)
    assert coarse - ours and all(name.startswith(CaptionTask.DROPPED) for name in coarse - ours)


def test_likelihood_by_hand():
    task, batch = make_task(), make_batch()
    memory = task.captioner.memory(task_pixels := (batch["pixels"].float() / 255 - 0.5))
    assert task_pixels.shape == (4, 3, 32, 32)
    entropies, real = task.cross_entropies(task.captioner, memory, batch["ids"], batch["mask"])
    for i in range(4):
        text = batch["ids"][i][batch["mask"][i]].tolist()
        assert int(real[i].sum()) == len(text) - 1
        for t in range(1, len(text)):
            states = task.captioner.states(memory[i : i + 1], torch.tensor([text[:t]]))
            expected = -task.mlm(states[0, -1]).log_softmax(0)[text[t]]
            torch.testing.assert_close(entropies[i, t - 1], expected, atol=1e-5, rtol=1e-5)
    assert not entropies[~real].any()


def train(task: CaptionTask, steps: range) -> None:
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        task.train()(make_batch(seed=step) | {"step": step})["loss"].backward()
        optimizer.step()


def test_gold_copy_is_renewed_hidden_and_resumed():
    task = make_task(objective="gold", gold_refresh=3, dropout=0.1)
    names, size = set(task.state_dict()), sum(p.numel() for p in task.parameters())
    assert task.resume_state() == {}
    train(task, range(1))
    first = {name: value.clone() for name, value in task.resume_state().items()}
    train(task, range(1, 2))
    assert set(task.state_dict()) == names and sum(p.numel() for p in task.parameters()) == size
    assert set(first) == names
    assert all(torch.equal(first[name], value) for name, value in task.resume_state().items())
    assert not task.frozen.encoder.training

    kept = {name: value.clone() for name, value in task.state_dict().items()}
    state = {name: value.clone() for name, value in task.resume_state().items()}
    other = make_task(objective="gold", gold_refresh=3, dropout=0.1, seed=9)
    other.load_state_dict(kept)
    other.load_resume_state(state)
    task.load_resume_state(task.step_state())  # what happens when a step is not applied
    for steps in (range(2, 3), range(3, 5)):
        train(task, steps)
        train(other, steps)
    for name, value in task.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    for name, value in task.resume_state().items():
        assert torch.equal(value, other.resume_state()[name]), name
    assert not torch.equal(task.resume_state()["mlm.bias"], first["mlm.bias"])


def test_gold_weights_by_hand():
    task, batch = make_task(objective="gold", gold_floor=0.01), make_batch()
    task.refresh_frozen(0)
    with torch.no_grad():
        frozen = make_task()
        for parameter in task.parameters():
            parameter.zero_()
    image = batch["pixels"].float() / 255
    entropies, real = frozen.cross_entropies(
        frozen.captioner, frozen.captioner.memory(image), batch["ids"], batch["mask"]
    )
    weights = task.gold_weights(image, batch["ids"], batch["mask"])
    assert not weights.requires_grad
    for i in range(4):
        chances = [math.exp(-e) for e in entropies[i][real[i]].tolist()]
        for t, chance in enumerate(chances):
            expected = max(0.01, chance * sum(chances[t:]) / len(chances[t:]))
            assert float(weights[i, t]) == pytest.approx(expected, abs=1e-6)


def reward_of(drawn: torch.Tensor, references) -> np.ndarray:
    return np.array([len(set(row)) / 7 for row in drawn.tolist()])


def test_cider_gradient_is_that_of_the_published_formula(monkeypatch):
    task, batch = make_task(objective="cider", cider_samples=3, max_length=10), make_batch()
    task.reward = reward_of
    torch.manual_seed(5)
    log = task.train()(batch)
    log["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    task.zero_grad()

    image = search_pixels(batch)
    torch.manual_seed(5)
    drawn = sample(task.captioner, task.captioner.memory(image), samples=3, max_length=10, special=SPECIAL)
    total = 0.0
    for row, reward in enumerate(reward_of(drawn, None)):
        tokens = unpadded(drawn[row, 1:])
        tokens = tokens[:-1] if tokens[-1] == PAD else tokens
        memory = task.captioner.memory(image[row // 3][None])
        if tokens:
            logits = task.mlm(task.captioner.states(memory, torch.tensor([[CLS, *tokens[:-1]]])))[0]
            chances = logits.softmax(1)[torch.arange(len(tokens)), tokens]
            total = total + (chances + 1e-9).log().mean() * 100 * (1 - reward) / 4
    likelihood = make_likelihood(task, batch, image)
    loss = 0.3 * likelihood + 0.7 * total
    torch.testing.assert_close(log["loss"], loss.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log["mle_loss"], likelihood.detach())
    assert float(log["reward"]) == pytest.approx(reward_of(drawn, None).mean())
    loss.backward()
    for name, parameter in task.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-3, msg=name)
        else:
            assert parameter.grad is None, name


def search_pixels(batch: dict) -> torch.Tensor:
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return (batch["pixels"].float() / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def make_likelihood(task: CaptionTask, batch: dict, image: torch.Tensor) -> torch.Tensor:
    logits = task.mlm(task.captioner.states(task.captioner.memory(image), batch["ids"], mask=batch["mask"]))[:, :-1]
    labels = batch["ids"][:, 1:]
    return torch.nn.functional.cross_entropy(logits[labels != PAD], labels[labels != PAD])


@pytest.mark.parametrize("objective", ["mle", "gold", "cider"])
def test_every_objective_trains_the_same_parameters_under_autocast(objective):
    """Sampling and the frozen copy run without gradient between passes with gradient."""
    task, batch = make_task(objective=objective, cider_samples=2, max_length=10, dropout=0.1).train(), make_batch()
    task.reward = reward_of
    trained = []
    for autocast in (False, True):
        task.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = task(batch)["loss"]
        assert loss.dtype == torch.float32
        loss.backward()
        trained.append({name for name, p in task.named_parameters() if p.grad is not None and p.grad.any()})
    assert trained[0] == trained[1]
    assert any(name.startswith("encoder.memory_proj.") for name in trained[0])
    assert any(name.startswith("encoder.image.patch_embed.") for name in trained[0])


def _rank_loss(rank: int, world: int, folder: str, objective: str) -> None:
    torch.set_num_threads(1)
    td.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    task, batch = make_task(objective=objective).train(), make_batch()
    rows = slice(rank * 4 // world, (rank + 1) * 4 // world)
    share = {name: value[rows] if name != "step" else value for name, value in batch.items()}
    loss = task(share)["loss"]
    loss.backward()
    grad = task.mlm.bias.grad
    for value in (grad, loss := loss.detach()):
        td.all_reduce(value)
        value /= world
    if rank == 0:
        torch.save((loss, grad), f"{folder}/out.pt")
    td.destroy_process_group()


@pytest.mark.parametrize("objective", ["mle", "gold"])
def test_ranks_give_the_loss_of_the_whole_batch(tmp_path, objective):
    task, batch = make_task(objective=objective).train(), make_batch()
    assert len(set(batch["mask"].sum(1).tolist())) > 1
    loss = task(batch)["loss"]
    loss.backward()
    mp.spawn(_rank_loss, (2, str(tmp_path), objective), nprocs=2)
    other_loss, other_grad = torch.load(tmp_path / "out.pt")
    torch.testing.assert_close(other_loss, loss.detach())
    torch.testing.assert_close(other_grad, task.mlm.bias.grad)


def test_learns_its_captions():
    tokenizer = load_tokenizer("builtin")
    ids = {f"{kind}_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("cls", "sep", "pad", "mask")}
    source = ScenesSource("train", 4, image_size=64)
    torch.manual_seed(0)
    task = CaptionTask(TINY, **ids, beam=2, max_length=40)
    texts = [source.captions(i)[0] for i in range(4)]
    rows, mask, _ = encode(tokenizer, texts, 40)
    batch = {"pixels": torch.stack([EvalTransform(64)(source.image(i)) for i in range(4)]), "ids": rows, "mask": mask}
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = task.train()(batch)["loss"]
        loss.backward()
        optimizer.step()
    found = task.eval().predict({"pixels": batch["pixels"]})
    assert tokenizer.batch_decode(found, skip_special_tokens=True) == texts


@pytest.fixture(scope="module")
def cases(request):
    shared = request.getfixturevalue("shared")
    return json.loads((shared / "golden" / "cider_cases.json").read_text()), shared / "golden" / "cider_df.json"


def test_cider_d(cases):
    cases, table = cases
    for prefix, mode in (("", "corpus"), ("df_mode_", "df")):
        references = list(cases[f"{prefix}gts"].values())
        expected = cases[f"ciderD_{mode}_mode"]
        frequency = cider.document_frequency(references) if mode == "corpus" else cider.read_document_frequency(table)
        scores = cider.CiderD(**frequency)(cases[f"{prefix}hyps"], references)
        np.testing.assert_allclose(scores, expected["scores"], atol=1e-9, rtol=0)
        assert scores.mean() == pytest.approx(expected["mean"], abs=1e-9)
        twice = [text for text in cases[f"{prefix}hyps"] for _ in range(2)]
        assert (cider.CiderD(**frequency)(twice, references) == scores.repeat(2)).all()


def test_document_frequencies(tmp_path):
    table = cider.document_frequency([["a b", "a b a b"], ["b a"], []])
    assert table["ref_len"] == 3
    expected = {"a": 2, "b": 2, "a b": 1, "b a": 2, "a b a": 1, "b a b": 1, "a b a b": 1}
    assert table["document_frequency"] == expected
    cider.write_document_frequency(tmp_path / "df.json", table)
    assert cider.read_document_frequency(tmp_path / "df.json") == table


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"ref_len": 3}', '{"ref_len": 0, "document_frequency": {}}',
                '{"ref_len": 3, "document_frequency": {"a": "b"}}', '{"ref_len": 3, "document_frequency": []}']
)  # fmt: skip
def test_bad_document_frequencies(tmp_path, content):
    (tmp_path / "df.json").write_text(content)
    with pytest.raises(UserError, match="df.json.*ref_len"):
        cider.read_document_frequency(tmp_path / "df.json")
    with pytest.raises(UserError, match="none.json"):
        cider.read_document_frequency(tmp_path / "none.json")


def test_wrap_and_reward():
    assert [cider.wrap(text) for text in (" A dog. ", "a dog..", "", "a .")] == [
        "A dog <eos>", "a dog. <eos>", " <eos>", "a  <eos>"
    ]  # fmt: skip
    tokenizer = load_tokenizer("builtin")
    texts = ["a red circle is left of a blue star", "a red circle"]
    rows, _, _ = encode(tokenizer, texts, 20)
    references = [[texts[0] + "."], ["two dogs"]]
    frequency = cider.document_frequency([[cider.wrap(text) for text in own] for own in references])
    rewards = cider.CiderReward(cider.CiderD(**frequency), tokenizer)(rows, references)
    assert rewards.dtype == np.float64
    # A caption equal to its only reference scores 10; <eos>, in every image, weighs nothing.
    np.testing.assert_allclose(rewards, [10, 0], atol=1e-12)


java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java")
PLAIN = " (plain tokens)"


@java
def test_tokens_are_those_of_pycocoevalcap():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [
        "A man, riding a horse.",
        "Don't stop (now)!",
        "3 1/2 dogs - and a Café",
        "x;y: \"quoted\" 'text' ...",
        "a",
    ]
    expected = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    assert metrics.ptb_tokens(texts) == [expected[i][0] for i in range(len(texts))]
    awkward = ["", "a\nb\r\nc\u2028d\x85e\x0bf", "...", "a|||b", ""]
    assert metrics.ptb_tokens(awkward) == ["", "a b c d e f", "", "a b", ""]


@java
def test_caption_metrics_by_hand(monkeypatch):
    monkeypatch.setattr("pycocoevalcap.spice.spice.get_stanford_models", lambda: pytest.fail("would download"))
    monkeypatch.setattr(metrics, "SPICE_FILES", ("absent.jar",))
    hypotheses = ["A man rides, a\nhorse.", "two red birds sing", ""]
    references = [["a man rides a horse"], ["two red birds fly"], ["nothing here"]]
    found, notes = metrics.caption_metrics(hypotheses, references)
    names = [*(f"bleu{n}" for n in range(1, 5)), "cider", "meteor", "rouge_l"]
    assert sorted(found) == [f"caption/{name}" for name in names]
    assert len(notes) == 1 and "SPICE" in notes[0] and "get_stanford_models" in notes[0]
    # 9 words for 11: 8 of them, and 6 of 7 pairs of words, are the references'.
    brevity = math.exp(1 - 11 / 9)
    assert found["caption/bleu1"] == pytest.approx(100 * brevity * 8 / 9, abs=1e-6)
    assert found["caption/bleu2"] == pytest.approx(100 * brevity * math.sqrt(8 / 9 * 6 / 7), abs=1e-6)
    assert found["caption/rouge_l"] == pytest.approx(100 * (1 + 3 / 4 + 0) / 3)
    # Every word is of one image, so weights are counts; the second caption shares 3 of 4, 2 of 3, 1 of 2, 0 of 1.
    assert found["caption/cider"] == pytest.approx(100 * 10 * (1 + (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4 + 0) / 3)
    assert 0 < found["caption/meteor"] < 100


def test_without_java(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found, notes = metrics.caption_metrics(["A man rides, a horse", "x"], [["a man rides a horse."], ["y"]])
    names = [*(f"bleu{n}" for n in range(1, 5)), "cider", "rouge_l"]
    assert sorted(found) == [f"caption/{name}{PLAIN}" for name in names]
    assert found[f"caption/rouge_l{PLAIN}"] == pytest.approx(50)
    assert len(notes) == 1 and all(word in notes[0] for word in ("METEOR", "SPICE", "Java"))


def nocaps(folder, annotated=True, **change):
    (folder / "images").mkdir(exist_ok=True)
    names = ["in-domain", "out-domain", "in-domain"]
    images = [{"id": 40 + i, "file_name": f"{i}.png", "domain": names[i]} for i in range(3)]
    for image in images:
        Image.new("RGB", (20, 30), (60 * image["id"] % 255, 9, 9)).save(folder / "images" / image["file_name"])
    content = {"images": images}
    if annotated:
        texts = ["a red dog", "two big cats", "a house at sea"]
        content["annotations"] = [{"image_id": 40 + i, "caption": t, "id": i} for i, t in enumerate(texts)]
        content["annotations"].append({"image_id": 40, "caption": "one dog", "id": 9})
    (folder / "nocaps.json").write_text(json.dumps(content | change))
    return folder / "nocaps.json", folder / "images"


def rows_of(tokenizer, texts):
    """Predictions as the task gives them: without the special tokens, padded."""
    ids, _, _ = encode(tokenizer, texts, 30)
    hidden = torch.isin(ids, torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))
    return ids.masked_fill(hidden, tokenizer.pad_token_id).numpy()


def test_caption_set_with_domains(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    tokenizer = load_tokenizer("builtin")
    evalset = CaptionSet([NocapsSource(*nocaps(tmp_path))], tokenizer, 32)
    assert len(evalset) == 3 and evalset.read(0)["pixels"].shape == (3, 32, 32)
    rows = rows_of(tokenizer, ["a red dog", "a boat", "a house at sea"])
    score = evalset.score(dict(enumerate(rows)))
    assert score.files["captions.json"] == [
        {"image_id": 40, "caption": "a red dog"},
        {"image_id": 41, "caption": "a boat"},
        {"image_id": 42, "caption": "a house at sea"},
    ]
    rouge = {name: value for name, value in score.metrics.items() if "rouge_l" in name}
    expected = {"caption/": 200 / 3, "caption/in-domain/": 100, "caption/out-domain/": 0}
    assert rouge == pytest.approx({f"{prefix}rouge_l{PLAIN}": value for prefix, value in expected.items()})
    assert len(score.notes) == 1
    # An image that could not be read is in nothing.
    part = evalset.score({0: rows[0], 2: rows[2]})
    assert [each["image_id"] for each in part.files["captions.json"]] == [40, 42]
    assert part.metrics[f"caption/rouge_l{PLAIN}"] == 100


def test_caption_set_without_references(tmp_path):
    tokenizer = load_tokenizer("builtin")
    evalset = CaptionSet([NocapsSource(*nocaps(tmp_path, annotated=False))], tokenizer, 32)
    score = evalset.score(dict(enumerate(rows_of(tokenizer, ["a", "b", "c"]))))
    assert score.metrics == {} and len(score.files["captions.json"]) == 3
    assert len(score.notes) == 1 and "3 of 3 images have no reference" in score.notes[0]


@pytest.mark.parametrize(
    "change", [{"images": [{"id": 1}]}, {"images": []}, {"annotations": [{"image_id": 7, "caption": "x"}]}]
)
def test_bad_nocaps(tmp_path, change):
    with pytest.raises(UserError, match="nocaps.json"):
        NocapsSource(*nocaps(tmp_path, **change))


def test_image_ids_of_karpathy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    _, images = nocaps(tmp_path)
    entries = [
        {"filename": f"{i}.png", "split": "test", "sentences": [{"raw": "a dog"}], **extra}
        for i, extra in enumerate([{"cocoid": 391895}, {}])
    ]
    (tmp_path / "k.json").write_text(json.dumps({"images": entries}))
    tokenizer = load_tokenizer("builtin")
    sources = [KarpathySource(tmp_path / "k.json", images, "test"), ScenesSource("val", 1)]
    score = CaptionSet(sources, tokenizer, 32).score(dict(enumerate(rows_of(tokenizer, ["a dog"] * 3))))
    ids = [each["image_id"] for each in score.files["captions.json"]]
    assert ids == [391895, "1.png", sources[1].key(0)]
