"""Every source of first weights against every task that may start from it: what both have is the source's, bit for bit,
the rest is told, and what may not start says so."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
import torch
from public_backbones import public_roberta_config, public_swin
from safetensors.torch import save_file
from small_runs import RECIPE
from transformers import RobertaForMaskedLM

from fiber_cli.checkpoints import directory, saving
from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.loading import load, new_task
from fiber_cli.checkpoints.positions import resize_position_bias
from fiber_cli.checkpoints.published import coarse, file, fine
from fiber_cli.checkpoints.published.file import convert_file
from fiber_cli.checkpoints.weights import load_weights, named_weights
from fiber_cli.config.recipe import ModelSettings
from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.position_embedding import resize_position_embedding
from fiber_cli.tasks import TASKS, declared, published_forms
from fiber_cli.tasks.context import TaskContext
from fiber_cli.training import initialise as first_weights
from fiber_cli.training.initialise import initialise, initialise_towers, load_backbones
from fiber_cli.training.work import work

LABELS = ("yes", "no")
LENGTH = 30
ITC, ITM = {"itm": 0.0}, {"itc": 0.0, "itm_negatives": "random"}
#: Forms of the tasks: what is switched off changes the heads.
FORMS: dict[str, tuple[str, dict]] = {name: (name, {}) for name in TASKS}
FORMS |= {"retrieval-itc": ("retrieval", ITC), "retrieval-itm": ("retrieval", ITM)}
# There are positions for so many tokens more than LENGTH.
FORMS["vqa_generated"] = ("vqa_generated", {"answer_length": 6})
REGIONS = ("fine", "detection", "grounding", "refexp")
RETRIEVAL = ("retrieval", "retrieval-itc", "retrieval-itm")
#: Form that the weights are of → forms that may start from them.
MAY_START = {
    "coarse": tuple(FORMS),
    "vqa": ("vqa",),
    "vqa_generated": ("vqa_generated", "caption"),
    "nlvr2": ("nlvr2",),
    "caption": ("caption", "vqa_generated"),
    **dict.fromkeys(RETRIEVAL, (*RETRIEVAL, "vqa", "nlvr2", *REGIONS)),
    **dict.fromkeys(REGIONS, REGIONS),
}
#: Of published checkpoints; further ones are of the same tasks.
KINDS = [kind for kind in published_forms() if kind in MAY_START]


def sizes(vocab: int) -> FiberConfig:
    """As deep as the base model's stages are many, and narrow; the windows are one for 32 pixels."""
    return FiberConfig(
        image=ImageConfig(embed_dim=8, depths=(1, 1, 4, 2), heads=(1, 2, 4, 8), window=2, drop_path=0.0),
        text=TextConfig(layers=6, hidden=24, heads=2, intermediate=32, vocab=vocab, positions=40, dropout=0.0),
        hidden=16,
        image_size=(64, 64),
    )


def make(form: str, tokenizer, seed: int, *, norm_image_query: bool = True):
    """A task of a form with random weights, and its context."""
    torch.manual_seed(seed)
    name, switches = FORMS[form]
    narrow = {"channels": 32, "blocks": 1} if name in REGIONS else {}
    settings = declared(name).settings(name=name, **switches, **narrow)
    config = sizes(len(tokenizer))
    image = dataclasses.replace(config.image, fixed_window=declared(name).free_image_size)
    config = dataclasses.replace(config, image=image, norm_image_query=norm_image_query)
    labels = LABELS if name == "vqa" else None
    context = TaskContext(settings, config, tokenizer, LENGTH, labels)
    task = new_task(context)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.add_(torch.randn_like(parameter))
    return task, context


@pytest.fixture(scope="module")
def ours(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Form → a run of ours."""
    runs = {}
    for form in FORMS:
        task, context = make(form, tokenizer, 0)
        runs[form] = tmp_path_factory.mktemp(form)
        config = CheckpointConfig(context.model, context.settings, LENGTH, context.labels, "builtin")
        saving.save(runs[form], 1, config=config.to_json(), weights=named_weights(task), tokenizer=tokenizer)
    return runs


@pytest.fixture(scope="module")
def published(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Kind of published checkpoint → it as a folder of ours, converted from a file in its own form."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "BASE", sizes(len(tokenizer)))
        for kind in KINDS:
            _, form = published_forms()[kind]
            folder = tmp_path_factory.mktemp(kind)
            task, context = make(kind, tokenizer, 0, norm_image_query=form.stage == "coarse")
            if form.stage == "fine":
                patch.setattr(file, "new_task", narrow_detector)
                content = {"model": fine.to_published(dict(task.named_parameters()), context.model)}
            else:
                patch.setattr(file, "new_task", new_task)
                content = {"state_dict": coarse.to_published(dict(task.named_parameters()), context.model)}
            torch.save(content, folder / "published.pth")
            (folder / "answers.json").write_text('["yes", "no"]')
            answers = folder / "answers.json" if form.labels else None
            options = {"task": kind, "tokenizer": "builtin", "answers": answers}
            folders[kind] = convert_file(folder / "published.pth", folder / "run", **options)
    return folders


def narrow_detector(context):
    """In place of the base model's width, which the published settings do not name."""
    settings = dataclasses.replace(context.settings, channels=32, blocks=1)
    return new_task(dataclasses.replace(context, settings=settings))


def assert_started(task, before, weights, target: str) -> None:
    """Everything that both have is of the weights, everything else as before and expected."""
    changes = declared(FORMS[target][0]).init_from
    after = named_weights(task)
    for name, value in after.items():
        if name in weights:
            assert torch.equal(value, weights[name]), name
        else:
            assert name.startswith(changes.fresh), name
            assert torch.equal(value, before[name]), name
    assert any(name.startswith("encoder.image.") for name in weights.keys() & after.keys())
    assert any(name.startswith("encoder.text.") for name in weights.keys() & after.keys())


@pytest.mark.parametrize("source", FORMS)
@pytest.mark.parametrize("target", FORMS)
def test_a_checkpoint_of_ours_starts_every_task_that_may(ours, tokenizer, source, target):
    task, context = make(target, tokenizer, 1)
    before = {name: value.clone() for name, value in named_weights(task).items()}
    if target in MAY_START[source]:
        initialise(task, context, ours[source])
        assert_started(task, before, load_weights(directory.resolve(ours[source])), target)
        return
    name, start = FORMS[target][0], FORMS[source][0]
    with pytest.raises(UserError, match=rf"step-000001, a checkpoint of {start}, cannot start {name}: .*do not fit"):
        initialise(task, context, ours[source])
    for key, value in named_weights(task).items():
        assert torch.equal(value, before[key]), key


def test_weights_of_the_latest_are_taken_although_there_is_a_best(ours, tokenizer, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    # The latest could not start the task.
    for pointer, form, name in (("best", "coarse", "step-000001"), ("latest", "vqa", "step-000002")):
        shutil.copytree(directory.resolve(ours[form]), folder / name)
        (folder / pointer).write_text(f"{name}\n")
    task, context = make("retrieval", tokenizer, 1)
    initialise(task, context, tmp_path)
    told = capsys.readouterr().err
    assert f"initialised from {folder}/step-000001, the best; --latest takes step-000002: " in told
    assert "new: none" in told


@pytest.mark.parametrize(("source", "target"), [(kind, target) for kind in KINDS for target in MAY_START[kind]])
def test_a_published_checkpoint_starts_every_task_that_may(published, tokenizer, source, target):
    """The published fine stage is without the norm on the image's query; so is the model that starts from it."""
    norm = published_forms()[source][1].stage == "coarse"
    task, context = make(target, tokenizer, 1, norm_image_query=norm)
    before = {name: value.clone() for name, value in named_weights(task).items()}
    initialise(task, context, published[source])
    assert_started(task, before, load_weights(directory.resolve(published[source])), target)


@pytest.fixture(scope="module")
def swin(tokenizer):
    """timm's Swin with its classifier, as it is published."""
    torch.manual_seed(2)
    return public_swin(sizes(len(tokenizer)).image, classes=5)


@pytest.fixture(scope="module")
def roberta(tokenizer):
    """RoBERTa with its language model's head, as it is published."""
    torch.manual_seed(2)
    return RobertaForMaskedLM(public_roberta_config(sizes(len(tokenizer)).text)).eval()


def microsofts(state):
    """The form in which Microsoft published them: a merging at the end of its stage, buffers, another head's name."""
    renamed = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(4, 4, dtype=torch.int64)}
    for name, value in state.items():
        for stage in (1, 2, 3):
            name = name.replace(f"layers.{stage}.downsample.", f"layers.{stage - 1}.downsample.")
        renamed[name.replace("head.fc.", "head.")] = value
    return {"model": renamed}


def save_swin(form: str, model, folder: Path) -> str:
    """A published form of a Swin below a folder: what `model.swin` is set to."""
    state = model.state_dict()
    if form == "folder":
        save_file(state, folder / "model.safetensors")
        return str(folder)
    name = f"{form}.pth"
    torch.save(microsofts(state) if form == "microsoft" else {"state_dict": state}, folder / name)
    return str(folder / name)


def check_swin(task, model) -> None:
    """Both compute the same last map."""
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    encoder = task.eval().encoder
    with torch.no_grad():
        top = encoder.image_top(encoder.image_stem(pixels))
        last = torch.nn.functional.layer_norm(top, top.shape[-1:], model.norm.weight, model.norm.bias)
        expected = model.forward_features(pixels)
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("swin_form", ["folder", "file", "microsoft"])
@pytest.mark.parametrize("form", FORMS)
def test_public_backbones_start_every_task(swin, roberta, tokenizer, tmp_path, form, swin_form):
    task, context = make(form, tokenizer, 1)
    roberta.save_pretrained(tmp_path / "roberta")
    (tmp_path / "swin").mkdir()
    source = save_swin(swin_form, swin, tmp_path / "swin")
    before = {name: value.clone() for name, value in named_weights(task).items()}
    load_backbones(task, ModelSettings(preset="tiny", swin=source, roberta=str(tmp_path / "roberta")))
    changed = {name for name, value in named_weights(task).items() if not torch.equal(value, before[name])}
    towers = set()
    for name in before:
        if name.startswith(("encoder.image.", "encoder.text.")) and ".cross." not in name:
            towers.add(name)
    assert changed == towers
    words = roberta.state_dict()["roberta.embeddings.word_embeddings.weight"]
    assert torch.equal(task.encoder.text.embeddings.word.weight, words)
    if not context.model.image.fixed_window:
        check_swin(task, swin)


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "20KB"}])
@pytest.mark.parametrize("with_head", [True, False])
def test_every_folder_in_transformers_form_starts_the_text_tower(roberta, tokenizer, tmp_path, shards, with_head):
    (roberta if with_head else roberta.roberta).save_pretrained(tmp_path, **shards)
    assert bool(shards) == (tmp_path / "model.safetensors.index.json").is_file()
    task, _ = make("grounding", tokenizer, 1)
    load_backbones(task, ModelSettings(preset="tiny", roberta=str(tmp_path)))
    weights = roberta.roberta.state_dict()
    assert torch.equal(task.encoder.text.embeddings.word.weight, weights["embeddings.word_embeddings.weight"])
    assert torch.equal(task.encoder.text.layers[5].fc2.bias, weights["encoder.layer.5.output.dense.bias"])


def test_a_model_without_fusion_starts_from_public_backbones(swin, tokenizer, tmp_path):
    _, context = make("detection", tokenizer, 1)
    unfused = new_task(dataclasses.replace(context, model=dataclasses.replace(context.model, fusion_layers=0)))
    load_backbones(unfused, ModelSettings(preset="tiny", swin=save_swin("folder", swin, tmp_path)))
    weight = swin.state_dict()["layers.1.downsample.reduction.weight"]
    assert torch.equal(unfused.encoder.image.stages[0].merge.reduction.weight, weight)


def test_a_recipe_has_the_norm_that_its_first_weights_lack(runs, tmp_path):
    """norm_image_query: null is what the weights have."""
    without = work(parse_recipe(RECIPE, "test", ["model.norm_image_query=false"]))
    saving.save(tmp_path, 1, config=without.config, weights=named_weights(without.task), tokenizer=without.tokenizer)
    started = work(parse_recipe(RECIPE.replace("{name: coarse}", "{name: retrieval}"), "test"), init_from=tmp_path)
    assert not [name for name in named_weights(started.task) if ".cross.norm." in name]
    assert not load(tmp_path).context.model.norm_image_query
    usual = work(parse_recipe(RECIPE, "test"), init_from=runs["coarse"])
    assert [name for name in named_weights(usual.task) if ".cross.norm." in name]


@pytest.mark.parametrize(
    ("setting", "value"), [("fusion", "top"), ("fusion_attention", "merged"), ("fusion_gate", False)]
)
def test_a_recipe_fuses_otherwise_than_its_first_weights(setting, value, tmp_path):
    """null is what the weights have, in other tasks and from config.json too."""
    made = work(parse_recipe(RECIPE, "test", [f"model.{setting}={value}".lower()]))
    saving.save(tmp_path, 1, config=made.config, weights=named_weights(made.task), tokenizer=made.tokenizer)
    vqa = parse_recipe(RECIPE.replace("{name: coarse}", "{name: vqa}"), "test")
    assert getattr(work(vqa, init_from=tmp_path).task.encoder.config, setting) == value
    assert getattr(load(tmp_path).context.model, setting) == value
    assert getattr(work(vqa).task.encoder.config, setting) != value


def test_positions_may_be_learned_later_and_then_stay(saved, tmp_path, capsys):
    """null is what the first weights have; those of another image size are resized."""
    later = work(parse_recipe(RECIPE, "test", ["model.position_embedding=true"]), init_from=saved)
    assert "  new: encoder.image.position.table\n" in capsys.readouterr().err
    weights = named_weights(later.task)
    saving.save(tmp_path, 1, config=later.config, weights=weights, tokenizer=later.tokenizer)
    vqa = RECIPE.replace("{name: coarse}", "{name: vqa}")
    on = work(parse_recipe(vqa, "test", ["model.image_size=128"]), init_from=tmp_path)
    table = on.task.encoder.image.position.table
    assert table.shape[:2] == (16, 16)
    kept = resize_position_embedding(weights["encoder.image.position.table"].detach(), (16, 16))
    torch.testing.assert_close(table.detach(), kept)
    assert work(parse_recipe(vqa, "test")).task.encoder.image.position is None


def test_positions_are_not_lost_unsaid(saved, tmp_path):
    later = work(parse_recipe(RECIPE, "test", ["model.position_embedding=true"]), init_from=saved)
    saving.save(tmp_path, 1, config=later.config, weights=named_weights(later.task), tokenizer=later.tokenizer)
    without = parse_recipe(RECIPE, "test", ["model.position_embedding=false"])
    with pytest.raises(UserError, match="unexpected"):
        work(without, init_from=tmp_path)


def test_weights_move_to_another_image_size(saved, capsys):
    made = work(parse_recipe(RECIPE, "test", ["model.image_size=128"]), init_from=saved)
    old = load_weights(directory.resolve(saved))
    new = made.task.state_dict()
    table = "encoder.image.stages.0.blocks.0.attn.relative_position_bias_table"
    assert new[table].shape[0] > old[table].shape[0]
    window = made.task.encoder.config.image.window
    torch.testing.assert_close(new[table], resize_position_bias(old[table], window))
    assert torch.equal(new["mlm.dense.weight"], old["mlm.dense.weight"])
    resized = sum(new[name].shape != tensor.shape for name, tensor in old.items())
    told = capsys.readouterr().err
    assert f"{len(old)} tensors, of which {resized} tables of positions were resized" in told
    assert resized > 0


def test_weights_of_other_sizes_are_refused(saved):
    with pytest.raises(UserError, match=r"shape: .* \(\d+, \d+\) in the weights"):
        work(parse_recipe(RECIPE, "test", ["model.hidden=48"]), init_from=saved)


def test_a_tokeniser_of_other_words_is_refused(saved, tmp_path):
    other = load_tokenizer("builtin")
    other.add_tokens(["zyzzyva"])
    other.save_pretrained(tmp_path / "other")
    recipe = parse_recipe(RECIPE, "test", [f"model.tokenizer={tmp_path / 'other'}"])
    with pytest.raises(UserError, match="its tokeniser is not the recipe's"):
        work(recipe, init_from=saved)


def test_public_weights_are_read_where_the_recipe_names_them(monkeypatch):
    read = []
    monkeypatch.setattr(first_weights, "load_swin", lambda encoder, name: read.append(("swin", name)))
    monkeypatch.setattr(first_weights, "load_roberta", lambda encoder, name: read.append(("roberta", name)))
    task = work(parse_recipe(RECIPE, "test")).task
    load_backbones(task, ModelSettings("tiny"))
    assert read == []
    load_backbones(task, ModelSettings("tiny", swin="a", roberta="b"))
    assert read == [("swin", "a"), ("roberta", "b")]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.fusion_layers=0"],
        ["model.fusion_layers=2"],
        ["model.fusion=top"],
        ["model.fusion_attention=merged", "model.fusion_gate=false"],
        ["task.mlm=0"],
        ["model.image_size=128"],
    ],
)
def test_towers_bring_how_they_were_fused(saved, overrides, capsys):
    """Of the weights both towers and the heads that fit, whatever looks at what in the model that they begin."""
    fresh = named_weights(work(parse_recipe(RECIPE, "test", overrides)).task)
    started = named_weights(work(parse_recipe(RECIPE, "test", [*overrides, f"model.towers={saved}"])).task)
    told = capsys.readouterr().err
    assert f"towers from {directory.resolve(saved)}" in told
    taken = re.search(r"heads from there: (.*)", told)[1].split(", ")
    assert ("mlm" in taken) == (overrides != ["task.mlm=0"])
    assert ("pool" in taken) == (overrides != ["model.fusion=top"])  # which pools maps of the joint width
    weights = load_weights(directory.resolve(saved))
    assert started.keys() == fresh.keys()
    for name, value in started.items():
        is_of_the_towers = name.startswith(("encoder.image.", "encoder.text.")) and ".cross." not in name
        if not is_of_the_towers and name.partition(".")[0] not in taken:
            assert torch.equal(value, fresh[name]), name
        elif value.shape == weights[name].shape:
            assert torch.equal(value, weights[name]), name
        else:
            assert "relative_position_bias_table" in name
            assert not torch.equal(value, fresh[name])


@pytest.mark.parametrize("form", ["detection", "caption", "coarse"])
def test_towers_begin_another_task_than_their_own(ours, tokenizer, form):
    """A detector has no norm behind the last stage; what there is of the towers is taken."""
    task, context = make(form, tokenizer, 1)
    initialise_towers(task, context, str(ours["vqa"]))
    weights = load_weights(directory.resolve(ours["vqa"]))
    for name, value in named_weights(task).items():
        if name.startswith(("encoder.image.", "encoder.text.")) and ".cross." not in name:
            assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["model.towers=./no/such"], "model.towers: no/such does not exist"),
        (["model.towers=SAVED", "model.text_layers=3"], "the text tower of .*model.towers.*do not fit the model"),
        (["model.towers=SAVED", "model.tokenizer=OTHER"], "its tokeniser is not the recipe's"),
    ],
)
def test_towers_that_do_not_fit_are_refused(saved, tmp_path, overrides, told):
    other = load_tokenizer("builtin")
    other.add_tokens(["zyzzyva"])
    other.save_pretrained(tmp_path / "other")
    settings = [each.replace("SAVED", str(saved)).replace("OTHER", str(tmp_path / "other")) for each in overrides]
    with pytest.raises(UserError, match=told):
        work(parse_recipe(RECIPE, "test", settings))
