"""`Fiber` and the commands that take a user's own pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from commands import command
from fiber_cli.data.images import normalize
from fiber_cli.data.scenes.drawing import draw, scene
from fiber_cli.data.text import encode
from fiber_cli.errors import UserError
from fiber_cli.inference.fiber import Fiber, find_images
from fiber_cli.tasks.caption import task as caption


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with three pictures, one of them below another folder, a broken one, and a text file."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for n, name in enumerate(("a.png", "b.jpg", "more/c.png")):
        draw(scene(0, "val", n, 64)).save(folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def good(pictures):
    return [pictures / "a.png", pictures / "b.jpg", pictures / "more" / "c.png"]


def tokens(model, texts):
    ids, mask, _ = encode(model.loaded.tokenizer, texts, model.loaded.text_length)
    return ids, mask


def test_embeddings_are_the_tasks_features_for_every_form_of_input(runs, good):
    model = Fiber.from_pretrained(runs["coarse"], batch_size=2)
    features = model.embed_images(good)
    assert features.shape == (3, 256) and features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    pixels = torch.stack([model.transform(Image.open(path).convert("RGB")) for path in good])
    with torch.no_grad():
        np.testing.assert_allclose(features, model.task.predict({"pixels": pixels}).numpy(), atol=1e-5)
    opened = Image.open(good[0])
    for one in (str(good[0]), good[0], opened, np.asarray(opened.convert("RGB"))):
        single = model.embed_images(one)
        assert single.shape == (256,)
        np.testing.assert_allclose(single, features[0], atol=1e-5)
    batch = np.stack([np.asarray(opened.convert("RGB"))] * 2)
    np.testing.assert_allclose(model.embed_images(batch), features[[0, 0]], atol=1e-5)
    texts = ["a red circle", "two stars on a dark background", "a moon"]
    rows = model.embed_texts(texts)
    ids, mask = tokens(model, texts)
    with torch.no_grad():
        np.testing.assert_allclose(rows, model.task.predict({"ids": ids, "mask": mask}).numpy(), atol=1e-5)
    np.testing.assert_allclose(model.embed_texts(texts[1]), rows[1], atol=1e-5)


def test_match_pairs_and_broadcasts(runs, good):
    model = Fiber.from_pretrained(runs["coarse"], batch_size=2)
    texts = ["a red circle", "a star", "a large green moon"]
    paired = model.match(good, texts)
    one_image = model.match(good[0], texts)
    one_text = model.match(good, texts[0])
    assert paired.shape == one_image.shape == one_text.shape == (3,)
    assert isinstance(model.match(good[0], texts[0]), float)
    for n in range(3):
        assert paired[n] == pytest.approx(model.match(good[n], texts[n]), abs=1e-4)
        assert one_image[n] == pytest.approx(model.match(good[0], texts[n]), abs=1e-4)
        assert one_text[n] == pytest.approx(model.match(good[n], texts[0]), abs=1e-4)
    pixels = model.transform(Image.open(good[1]).convert("RGB"))[None]
    with torch.no_grad():
        stem = model.task.encoder.image_stem(normalize(pixels))
        logits = model.task.match(stem, model.task.encoder.text_stem(*tokens(model, texts[1:2])))
    assert paired[1] == pytest.approx(float(logits[0, 1]), abs=1e-4)
    with pytest.raises(UserError, match="3 images and 2 texts"):
        model.match(good, texts[:2])


def test_answers_and_captions(runs, good, monkeypatch):
    search = caption.beam_search
    vqa = Fiber.from_pretrained(runs["vqa"])
    one = vqa.answer(good[0], "is there a star?")
    assert one in vqa.loaded.labels
    assert vqa.answer(good, "is there a star?")[0] == one == vqa.answer([good[0]], ["is there a star?"])[0]
    captioner = Fiber.from_pretrained(runs["caption"], batch_size=2)
    captions = captioner.caption(good, beam=2)
    assert len(captions) == 3 and all(isinstance(text, str) and "<" not in text for text in captions)
    assert captioner.caption(good[2], beam=2) == captions[2]
    called = []
    monkeypatch.setattr(caption, "beam_search", lambda *a, **o: called.append(o["published"]) or search(*a, **o))
    captioner.caption(good[:1], beam=2, published=True)
    captioner.caption(good[:1], beam=2)
    assert called == [True, False]


def test_what_a_checkpoint_cannot_do_and_bad_input(runs, pictures, good):
    for name, method, arguments, said in (
        ("vqa", "caption", (good[0],), "fiber finetune caption"),
        ("caption", "answer", (good[0], "what?"), "fiber finetune vqa"),
        ("nlvr2", "embed_texts", ("a",), "fiber pretrain coarse"),
        ("vqa", "match", (good[0], "a"), "ITM head"),
    ):
        with pytest.raises(UserError, match=said):
            getattr(Fiber.from_pretrained(runs[name]), method)(*arguments)
    model = Fiber.from_pretrained(runs["coarse"])
    with pytest.raises(UserError, match="broken.jpg: not a readable image"):
        model.embed_images([good[0], pictures / "broken.jpg"])
    with pytest.raises(UserError, match="no such file"):
        model.embed_images("nowhere.png")
    with pytest.raises(UserError, match="wanted is uint8 RGB"):
        model.embed_images(np.zeros((4, 4, 3)))
    with pytest.raises(UserError, match="longer than the model's 30 tokens"):
        model.embed_texts("red " * 40)
    with pytest.raises(UserError, match="no input"):
        model.embed_images([])
    assert [path.name for path in find_images([pictures])] == ["a.png", "b.jpg", "broken.jpg", "c.png"]


def test_commands_on_a_folder_with_a_broken_image(runs, pictures, capsys, tmp_path):
    """The broken image is named and the rest is done."""
    code, out, err = command(capsys, "caption", pictures, "--checkpoint", runs["caption"], "--json", "--beam", "2")
    found = json.loads(out)
    assert code == 0 and [path["image"].rpartition("/")[2] for path in found] == ["a.png", "b.jpg", "c.png"]
    assert set(found[0]) == {"image", "caption"} and "left out: " in err and "broken.jpg" in err
    code, out, err = command(capsys, "answer", pictures, "how many stars are there?", "--checkpoint", runs["vqa"])
    assert code == 0 and len(out.splitlines()) == 3 and "broken.jpg" in err
    assert all(line.split("\t")[1] for line in out.splitlines())
    index, sheet = tmp_path / "index", tmp_path / "sheet.png"
    words = ["rerank", "--images", pictures, "--query", "a red circle", "--index", index, "--sheet", sheet]
    code, out, err = command(capsys, *words, "--json", "--top-k", "2", "--workers", "0", "--checkpoint", runs["coarse"])
    assert code == 0 and [found["rank"] for found in json.loads(out)] == [1, 2] and "broken.jpg" in err
    assert index.is_file() and Image.open(sheet).size[0] > 100
    code, out, err = command(capsys, "caption", pictures / "broken.jpg", "--checkpoint", runs["caption"])
    assert code == 1 and out == "" and "none of 1 images could be read" in err
    code, _, err = command(capsys, "caption", pictures / "nothing.png", "--checkpoint", runs["caption"])
    assert code == 1 and "no such file or folder" in err


def test_the_newest_run_of_the_task_is_taken(runs, good, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(capsys, "answer", good[0], "is there a star?")
    assert code == 1 and "no runs/*/checkpoints/latest of task vqa" in err
    (tmp_path / "runs").mkdir()
    for name in ("vqa", "caption"):
        (tmp_path / "runs" / name).symlink_to(runs[name])
    assert command(capsys, "answer", good[0], "is there a star?")[0] == 0
    assert command(capsys, "caption", good[0], "--beam", "1")[0] == 0
