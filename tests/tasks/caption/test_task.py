"""The three objectives of captioning, held against their definitions, and what keeps them going."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp
from small_captioner import CLS, IDS, MASK, PAD, SEP, SPECIAL, make_task, random_pixels, small_config, unpadded

from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.text import encode, load_tokenizer
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.model.beam_search import beam_search
from fiber_cli.model.config import TINY
from fiber_cli.model.pixels import normalize
from fiber_cli.model.sampling import sample
from fiber_cli.tasks import declared
from fiber_cli.tasks.caption.cider import document_frequency, write_document_frequency
from fiber_cli.tasks.caption.settings import CaptionSettings
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.context import TaskContext


def make_batch(images: int = 4, length: int = 10, vocab: int = 30, seed: int = 3) -> dict:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, vocab, (images, length), generator=generator)
    ids[:, 0] = CLS
    mask = torch.arange(length)[None] < torch.randint(4, length + 1, (images, 1), generator=generator)
    ids[torch.arange(images), mask.sum(1) - 1] = SEP
    ids = ids.masked_fill(~mask, PAD)
    references = [("a b c",), ("d e", "d f")] * (images // 2)
    return {"pixels": random_pixels(images), "ids": ids, "mask": mask, "references": references, "step": 0}


def test_only_the_expected_parameters_differ_from_the_coarse_task():
    ours = {name for name, _ in make_task().named_parameters()}
    coarse = {name for name, _ in CoarseTask(small_config(30)).named_parameters()}
    changes = declared("caption").init_from
    assert ours - coarse
    assert all(name.startswith(changes.fresh) for name in ours - coarse)
    assert coarse - ours
    assert all(name.startswith(changes.dropped) for name in coarse - ours)


def test_predictions_hide_special_tokens():
    task = make_task()
    with torch.no_grad():
        task.mlm.bias[CLS] += 3.0
    rows = task.predict({"pixels": random_pixels(3)})
    assert rows.shape == (3, 11)
    assert not torch.isin(rows, torch.tensor([CLS, SEP, MASK])).any()
    memory = task.captioner.memory(normalize(random_pixels(3)))
    captions, _ = beam_search(task.captioner, memory, beam=3, max_length=12, special=SPECIAL)
    assert (captions == CLS).any(), "there was to be something to hide"


def test_the_search_is_the_tasks_unless_a_call_has_its_own():
    task = make_task(beam=3, search_as_published=True)
    memory = task.captioner.memory(normalize(random_pixels(4)))
    options = {"max_length": 12, "special": SPECIAL}
    searched = {}
    for beam, as_published in ((3, True), (1, False)):
        captions, _ = beam_search(task.captioner, memory, beam=beam, as_published=as_published, **options)
        searched[beam] = captions.masked_fill((captions == CLS) | (captions == SEP), PAD)
    assert torch.equal(task.caption(memory), searched[3])
    assert torch.equal(task.caption(memory, beam=1, as_published=False), searched[1])
    assert not torch.equal(searched[3], searched[1])


def test_likelihood_by_hand():
    task, batch = make_task(), make_batch()
    memory = task.captioner.memory(batch["pixels"].float() / 255 - 0.5)
    losses = task.cross_entropies(task.captioner, memory, batch["ids"], batch["mask"])
    for i in range(4):
        text = batch["ids"][i][batch["mask"][i]].tolist()
        assert int(losses.real[i].sum()) == len(text) - 1
        for t in range(1, len(text)):
            states = task.captioner.states(memory[i : i + 1], torch.tensor([text[:t]]))
            expected = -task.mlm(states[0, -1]).log_softmax(0)[text[t]]
            torch.testing.assert_close(losses.entropies[i, t - 1], expected, atol=1e-5, rtol=1e-5)
    assert not losses.entropies[~losses.real].any()


def train(task: CaptionTask, steps: range) -> None:
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        task.train()(make_batch(seed=step) | {"step": step})["loss"].backward()
        optimizer.step()


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.items()}


def assert_equal_states(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_gold_copy_is_renewed_hidden_and_resumed():
    task = make_task(objective="gold", gold_refresh=3, dropout=0.1)
    names, size = set(task.state_dict()), sum(p.numel() for p in task.parameters())
    assert task.resume_state() == {}
    train(task, range(1))
    first = copied(task.resume_state())
    train(task, range(1, 2))
    assert set(task.state_dict()) == names
    assert sum(p.numel() for p in task.parameters()) == size
    assert set(first) == names
    assert_equal_states(task.resume_state(), first)
    assert not task.frozen.encoder.training

    other = make_task(objective="gold", gold_refresh=3, dropout=0.1, seed=9)
    other.load_state_dict(copied(task.state_dict()))
    other.load_resume_state(copied(task.resume_state()))
    task.load_resume_state(task.step_state())  # what happens when a step is not applied
    for steps in (range(2, 3), range(3, 5)):
        train(task, steps)
        train(other, steps)
    assert_equal_states(task.state_dict(), other.state_dict())
    assert_equal_states(task.resume_state(), other.resume_state())
    assert not torch.equal(task.resume_state()["mlm.bias"], first["mlm.bias"])


def test_gold_weights_by_hand():
    task, batch = make_task(objective="gold", gold_floor=0.01), make_batch()
    task.refresh_frozen(0)
    with torch.no_grad():
        frozen = make_task()
        for parameter in task.parameters():
            parameter.zero_()
    image = batch["pixels"].float() / 255
    memory = frozen.captioner.memory(image)
    entropies, real = frozen.cross_entropies(frozen.captioner, memory, batch["ids"], batch["mask"])
    weights = task.gold_weights(image, batch["ids"], batch["mask"])
    assert not weights.requires_grad
    for i in range(4):
        chances = [math.exp(-entropy) for entropy in entropies[i][real[i]].tolist()]
        for t, chance in enumerate(chances):
            expected = max(0.01, chance * sum(chances[t:]) / len(chances[t:]))
            assert float(weights[i, t]) == pytest.approx(expected, abs=1e-6)


def reward_of(drawn: torch.Tensor, references) -> np.ndarray:
    return np.array([len(set(row)) / 7 for row in drawn.tolist()])


def policy_gradient(task: CaptionTask, image: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """The published formula, caption by caption, three of each image."""
    total = torch.zeros(())
    for row, reward in enumerate(reward_of(drawn, None)):
        tokens = unpadded(drawn[row, 1:])
        tokens = tokens[:-1] if tokens[-1] == PAD else tokens
        memory = task.captioner.memory(image[row // 3][None])
        if tokens:
            logits = task.mlm(task.captioner.states(memory, torch.tensor([[CLS, *tokens[:-1]]])))[0]
            chances = logits.softmax(1)[torch.arange(len(tokens)), tokens]
            total = total + (chances + 1e-9).log().mean() * 100 * (1 - reward) / len(image)
    return total


def likelihood(task: CaptionTask, batch: dict, image: torch.Tensor) -> torch.Tensor:
    logits = task.mlm(task.captioner.states(task.captioner.memory(image), batch["ids"], mask=batch["mask"]))[:, :-1]
    labels = batch["ids"][:, 1:]
    return torch.nn.functional.cross_entropy(logits[labels != PAD], labels[labels != PAD])


def test_cider_gradient_is_that_of_the_published_formula():
    task, batch = make_task(objective="cider", cider_samples=3, max_length=10), make_batch()
    task.reward = reward_of
    torch.manual_seed(5)
    log = task.train()(batch)
    log["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    task.zero_grad()

    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    image = (batch["pixels"].float() / 255 - mean) / std
    torch.manual_seed(5)
    drawn = sample(task.captioner, task.captioner.memory(image), samples=3, max_length=10, special=SPECIAL)
    mle = likelihood(task, batch, image)
    loss = 0.3 * mle + 0.7 * policy_gradient(task, image, drawn)
    torch.testing.assert_close(log["loss"], loss.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log["mle_loss"], mle.detach())
    assert float(log["reward"]) == pytest.approx(reward_of(drawn, None).mean())
    loss.backward()
    for name, parameter in task.named_parameters():
        if name in gradients:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-3, msg=name)
        else:
            assert parameter.grad is None, name


def test_captions_in_the_fused_form_are_those_of_the_other():
    """They read the maps of the fused blocks, and search them alike."""
    task, other = make_task(form="fused"), make_task()
    assert not [name for name, _ in task.named_parameters() if "memory_proj" in name]
    batch = {"pixels": random_pixels(3)}
    together = task.predict(batch)
    for row in range(3):
        torch.testing.assert_close(task.predict({"pixels": batch["pixels"][row : row + 1]})[0], together[row])
    assert not torch.equal(together, other.predict(batch))
    with pytest.raises(UserError, match=r"model\.fusion_layers above 0"):
        CaptionTask(dataclasses.replace(small_config(30), fusion_layers=0), form="fused")


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


def loss_and_gradient(objective: str, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Of some rows of a batch."""
    task, batch = make_task(objective=objective).train(), make_batch()
    loss = task({name: value[rows] if name != "step" else value for name, value in batch.items()})["loss"]
    loss.backward()
    return loss.detach(), task.mlm.bias.grad


def _two_ranks(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    td.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for objective in ("mle", "gold"):
        results[objective] = loss_and_gradient(objective, slice(2 * rank, 2 * rank + 2))
        for value in results[objective]:
            td.all_reduce(value)
            value /= 2
    if rank == 0:
        torch.save(results, f"{folder}/out.pt")
    td.destroy_process_group()


def test_ranks_give_the_loss_of_the_whole_batch(tmp_path):
    assert len(set(make_batch()["mask"].sum(1).tolist())) > 1
    mp.spawn(_two_ranks, (str(tmp_path),), nprocs=2)
    for objective, of_ranks in torch.load(tmp_path / "out.pt").items():
        for value, expected in zip(of_ranks, loss_and_gradient(objective, slice(None)), strict=True):
            torch.testing.assert_close(value, expected)


def test_learns_its_captions():
    tokenizer = load_tokenizer("builtin")
    ids = {f"{kind}_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("cls", "sep", "pad", "mask")}
    source = ScenesSource("train", 4, image_size=64)
    torch.manual_seed(0)
    task = CaptionTask(TINY, **ids, beam=2, max_length=40)
    texts = [source.captions(i)[0] for i in range(4)]
    rows, mask, _ = encode(tokenizer, texts, 40)
    batch = {"pixels": torch.stack([EvalTransform(64)(source.image(i)) for i in range(4)]), "ids": rows, "mask": mask}
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)  # twice that overshoots on some processors
    for _ in range(120):
        optimizer.zero_grad()
        loss = task.train()(batch)["loss"]
        loss.backward()
        optimizer.step()
    captions = task.eval().predict({"pixels": batch["pixels"]})
    assert tokenizer.batch_decode(captions, skip_special_tokens=True) == texts


def test_a_context_gives_the_limits_the_special_tokens_and_the_reward(tmp_path):
    tokenizer = load_tokenizer("builtin")
    write_document_frequency(tmp_path / "df.json", document_frequency([["a dog <eos>"], ["a cat <eos>"]]))
    settings = CaptionSettings("caption", objective="cider", beam=2, cider_df=str(tmp_path / "df.json"))
    context = TaskContext(settings, small_config(len(tokenizer)), tokenizer, text_length=17)
    task = CaptionTask.from_context(context)
    assert (task.objective, task.beam, task.max_length) == ("cider", 2, 17)
    expected = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id)
    assert task.special == expected
    task.prepare_training(context)
    ids, _, _ = encode(tokenizer, ["a dog"], 17)
    assert task.reward(ids, [["A dog."]]).shape == (1,)
    assert IDS.keys() == {"cls_id", "sep_id", "pad_id", "mask_id"}
