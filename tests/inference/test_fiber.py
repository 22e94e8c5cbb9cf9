"""`Fiber`: pictures and texts in, plain results out."""

import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from small_detector import LABELS, MOST, assert_same

import fiber_cli
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.loading import load
from fiber_cli.data.scenes.drawing import draw
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.text import encode
from fiber_cli.errors import UserError
from fiber_cli.inference.fiber import Fiber
from fiber_cli.inference.index import image_set
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.caption import task as caption_task
from fiber_cli.tasks.items import TextSet
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval.pairs import score_pairs


@pytest.fixture(scope="module")
def coarse(runs):
    return Fiber.from_pretrained(runs["coarse"], batch_size=2)


def tokens(model, texts):
    ids, mask, _ = encode(model.context.tokenizer, texts, model.context.text_length)
    return ids, mask


def test_fiber_is_imported_from_the_package_which_loads_nothing_by_itself():
    code = (
        "import sys, fiber_cli\n"
        "assert not {'torch', 'numpy', 'PIL'} & sys.modules.keys()\n"
        "from fiber_cli import Detection, Fiber, to_supervision\n"
        "assert 'fiber_cli.evaluation' not in sys.modules, 'of evaluation'\n"
        "assert 'deepspeed' not in sys.modules\n"
        "print(Fiber.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "Fiber\n"
    with pytest.raises(AttributeError, match="Fibre"):
        _ = fiber_cli.Fibre


def test_a_run_is_used_by_its_latest_checkpoint_although_it_keeps_a_best(runs, tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    for pointer, name in (("best", "step-000001"), ("latest", "step-000002")):
        shutil.copytree(resolve(runs["coarse"]), folder / name)
        (folder / pointer).write_text(f"{name}\n")
    assert Fiber.from_pretrained(tmp_path).loaded.path == folder / "step-000001"
    assert Fiber.from_pretrained(tmp_path, latest=True).loaded.path == folder / "step-000002"
    assert Fiber.from_pretrained(folder / "step-000002").loaded.path == folder / "step-000002"
    assert capsys.readouterr().err.splitlines() == [
        f"checkpoint: {folder}/step-000001, the best; --latest takes step-000002",
        f"checkpoint: {folder}/step-000002, the latest; the best is step-000001",
    ]


def test_embeddings_are_the_tasks_features_for_every_form_of_input(coarse, readable):
    features = coarse.embed_images(readable)
    assert features.shape == (3, 256)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    pixels = torch.stack([coarse.transform(Image.open(path).convert("RGB")) for path in readable])
    with torch.no_grad():
        np.testing.assert_allclose(features, coarse.task.predict({"pixels": pixels}).numpy(), atol=1e-5)
    opened = Image.open(readable[0])
    for one in (str(readable[0]), readable[0], opened, np.asarray(opened.convert("RGB"))):
        single = coarse.embed_images(one)
        assert single.shape == (256,)
        np.testing.assert_allclose(single, features[0], atol=1e-5)
    batch = np.stack([np.asarray(opened.convert("RGB"))] * 2)
    np.testing.assert_allclose(coarse.embed_images(batch), features[[0, 0]], atol=1e-5)
    texts = ["a red circle", "two stars on a dark background", "a moon"]
    rows = coarse.embed_texts(texts)
    ids, mask = tokens(coarse, texts)
    with torch.no_grad():
        np.testing.assert_allclose(rows, coarse.task.predict({"ids": ids, "mask": mask}).numpy(), atol=1e-5)
    np.testing.assert_allclose(coarse.embed_texts(texts[1]), rows[1], atol=1e-5)


def test_match_pairs_and_broadcasts(coarse, readable):
    texts = ["a red circle", "a star", "a large green moon"]
    paired = coarse.match(readable, texts)
    one_image = coarse.match(readable[0], texts)
    one_text = coarse.match(readable, texts[0])
    assert paired.shape == one_image.shape == one_text.shape == (3,)
    assert isinstance(coarse.match(readable[0], texts[0]), float)
    for n in range(3):
        assert paired[n] == pytest.approx(coarse.match(readable[n], texts[n]), abs=1e-4)
        assert one_image[n] == pytest.approx(coarse.match(readable[0], texts[n]), abs=1e-4)
        assert one_text[n] == pytest.approx(coarse.match(readable[n], texts[0]), abs=1e-4)
    pixels = coarse.transform(Image.open(readable[1]).convert("RGB"))[None]
    with torch.no_grad():
        stem = coarse.task.encoder.image_stem(normalize(pixels))
        logits = coarse.task.match(stem, coarse.task.encoder.text_stem(*tokens(coarse, texts[1:2])))
    assert paired[1] == pytest.approx(float(logits[0, 1]), abs=1e-4)
    with pytest.raises(UserError, match="3 images and 2 texts"):
        coarse.match(readable, texts[:2])


def test_a_picture_of_several_pairs_has_one_stem(coarse, readable, monkeypatch):
    rows, image_stem = [], coarse.task.encoder.image_stem
    monkeypatch.setattr(
        coarse.task.encoder, "image_stem", lambda pixels: rows.append(len(pixels)) or image_stem(pixels)
    )
    coarse.match(readable[0], ["a red circle", "a star", "a moon"])  # in batches of two pairs
    assert rows == [1]
    first, second, third = readable
    rows.clear()
    coarse.match([first, second, first, third, first], ["a", "b", "c", "d", "e"])
    assert sum(rows) == 3


def test_a_text_of_several_pairs_has_one_stem(coarse, readable, monkeypatch):
    rows, text_stem = [], coarse.task.encoder.text_stem
    monkeypatch.setattr(
        coarse.task.encoder, "text_stem", lambda ids, mask: rows.append(len(ids)) or text_stem(ids, mask)
    )
    coarse.match(readable[:2], "a red circle")
    assert rows == [1]


def test_pairs_are_scored_otherwise_than_by_re_ranking(coarse, readable):
    """In any order, with pictures that come several times and one that cannot be read among them."""
    texts = ["a red circle", "a star", "a large green moon over a small disc", "moons", "a"]
    folder = readable[0].parent
    images = image_set(coarse.loaded, folder, [path.relative_to(folder).as_posix() for path in readable])
    text_set = TextSet(texts, coarse.context.tokenizer, coarse.context.text_length)
    wanted = [np.arange(len(texts))] * len(readable)
    expected = score_pairs(coarse.task, images, text_set, wanted, PredictOptions(2, 0), shows_progress=False).scores
    pairs = [(row, column) for column in range(len(texts)) for row in range(len(readable))]
    broken = readable[0].with_name("none.png")
    given = [readable[row] for row, _ in pairs]
    asked = [texts[column] for _, column in pairs]
    with pytest.warns(UserWarning, match="image 1 is left out"):
        logits = coarse.match([given[0], broken, *given[1:]], [asked[0], "a", *asked[1:]], on_error="skip")
    assert np.isnan(logits[1])
    np.testing.assert_allclose(np.delete(logits, 1), [expected[pair] for pair in pairs], atol=1e-4)


def test_answers_are_of_the_checkpoints_vocabulary(runs, readable):
    vqa = Fiber.from_pretrained(runs["vqa"])
    one = vqa.answer(readable[0], "is there a star?")
    assert one in vqa.context.labels
    assert vqa.answer(readable, "is there a star?")[0] == one
    assert vqa.answer([readable[0]], ["is there a star?"]) == [one]


def test_generated_answers_depend_on_what_is_asked_beside_them(runs, readable):
    vqa = Fiber.from_pretrained(runs["vqa_generated"])
    questions = ["is there a star?", "how many red shapes are there?", "what?"]
    alone = [vqa.answer(readable[0], question) for question in questions]
    assert vqa.answer(readable[0], questions) == alone
    assert all(isinstance(answer, str) for answer in alone)


def test_captions_and_how_they_are_searched_for(runs, readable, monkeypatch):
    captioner = Fiber.from_pretrained(runs["caption"], batch_size=2)
    captions = captioner.caption(readable, beam=2)
    assert len(captions) == 3
    assert all(isinstance(text, str) and "<" not in text for text in captions)
    assert captioner.caption(readable[2], beam=2) == captions[2]
    calls, search = [], caption_task.beam_search
    monkeypatch.setattr(caption_task, "beam_search", lambda *a, **o: calls.append(o) or search(*a, **o))
    captioner.caption(readable[:1], beam=2, as_published=True)
    captioner.caption(readable[:1], beam=3)
    with pytest.warns(DeprecationWarning, match="as_published") as warned:
        captioner.caption(readable[:1], beam=2, published=True)
    assert warned[0].filename == __file__
    assert [(call["beam"], call["as_published"]) for call in calls] == [(2, True), (3, False), (2, True)]


def test_options_of_a_call_do_not_stay_in_the_model(runs, readable):
    captioner = Fiber.from_pretrained(runs["caption"])
    before = captioner.task.beam, captioner.task.search_as_published
    captioner.caption(readable[0], beam=before[0] + 1, as_published=not before[1])
    assert (captioner.task.beam, captioner.task.search_as_published) == before


def test_what_a_checkpoint_cannot_do_and_bad_input(runs, coarse, detector, pictures, readable):
    for name, method, arguments, said in (
        ("vqa", "caption", (readable[0],), "fiber finetune caption"),
        ("caption", "answer", (readable[0], "what?"), "fiber finetune vqa"),
        ("nlvr2", "embed_texts", ("a",), "fiber pretrain coarse"),
        ("vqa", "match", (readable[0], "a"), "ITM head"),
    ):
        with pytest.raises(UserError, match=said):
            getattr(Fiber.from_pretrained(runs[name]), method)(*arguments)
    with pytest.raises(UserError, match=r"a checkpoint of coarse, without a detector; .*`fiber pretrain fine`"):
        coarse.detect(readable[0], "cat")
    with pytest.raises(UserError, match="a checkpoint of detection, without dual-encoder features"):
        detector.embed_images(readable[0])
    with pytest.raises(UserError, match=r"broken\.jpg: not a readable image"):
        coarse.embed_images([readable[0], pictures / "broken.jpg"])
    with pytest.raises(UserError, match="no such file"):
        coarse.embed_images("nowhere.png")
    with pytest.raises(UserError, match="wanted is uint8"):
        coarse.embed_images(np.zeros((4, 4, 3)))
    with pytest.raises(UserError, match="longer than the model's 30 tokens"):
        coarse.embed_texts("red " * 40)
    with pytest.raises(UserError, match="no input"):
        coarse.embed_images([])


def test_one_unreadable_picture_costs_that_picture_and_not_the_list(runs, coarse, detector, pictures, readable):
    broken = pictures / "broken.jpg"
    given = [readable[0], broken, readable[1], b"no image"]
    features = coarse.embed_images(readable[:2])
    with pytest.warns(UserWarning, match=r"image \d is left out") as warned:
        rows = coarse.embed_images(given, on_error="skip")
    assert len(warned) == 2
    assert str(warned[0].message).startswith(f"image 1 is left out: {broken}")
    np.testing.assert_allclose(rows[[0, 2]], features, atol=1e-5)
    assert np.isnan(rows[[1, 3]]).all()
    with pytest.warns(UserWarning, match=r"image \d is left out"):
        logits = coarse.match(given, "a red circle", on_error="skip")
    np.testing.assert_allclose(logits[[0, 2]], coarse.match(readable[:2], "a red circle"), atol=1e-4)
    assert np.isnan(logits[[1, 3]]).all()
    with pytest.warns(UserWarning, match=r"image \d is left out"):
        found = detector.detect(given, LABELS, threshold=0, on_error="skip")
    assert found[1] is None
    assert found[3] is None
    assert_same(found[2], detector.detect(readable[1], LABELS, threshold=0))
    captioner = Fiber.from_pretrained(runs["caption"])
    with pytest.warns(UserWarning, match=r"image \d is left out"):
        captions = captioner.caption(given, on_error="skip")
    assert captions == [captioner.caption(readable[0]), None, captioner.caption(readable[1]), None]
    vqa = Fiber.from_pretrained(runs["vqa"])
    with pytest.warns(UserWarning, match=r"image \d is left out"):
        answers = vqa.answer(given, "how many?", on_error="skip")
    assert answers == [vqa.answer(readable[0], "how many?"), None, vqa.answer(readable[1], "how many?"), None]


def test_unreadable_pictures_are_errors_that_say_which_and_what_to_do(coarse, pictures, readable):
    broken = pictures / "broken.jpg"
    with pytest.raises(UserError, match=r'image 1: .*broken\.jpg: not a readable image.*on_error="skip"'):
        coarse.embed_images([readable[0], broken])
    for alone in (broken, "https://example.org/a.jpg"):
        with pytest.raises(UserError):
            coarse.embed_images(alone, on_error="skip")
        with pytest.raises(UserError):
            coarse.match(alone, ["a red circle", "a star"], on_error="skip")
    with pytest.raises(UserError, match='on_error=\'ignore\': give "raise" or "skip"'):
        coarse.embed_images(readable, on_error="ignore")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(UserError, match="none of 1 images could be read"):
        coarse.embed_images([broken], on_error="skip")


def test_max_pixels_is_an_argument_and_pillow_stays_as_it_is(coarse, detector, readable, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # the user's own; 64 x 64 would be an error of Pillow's
    filters = list(warnings.filters)
    assert coarse.embed_images(readable[0]).shape == (256,)
    with pytest.raises(UserError, match="more than 4,095 pixels"):
        coarse.embed_images(readable[0], max_pixels=64 * 64 - 1)
    with pytest.raises(UserError, match="more than 4,095 pixels"):
        detector.detect(readable[0].read_bytes(), "cat", max_pixels=64 * 64 - 1)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert warnings.filters == filters


def run_in_threads(calls, threads=6):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda call: call(), calls))


def test_threads_with_other_options_share_a_captioner(runs, readable):
    """Every call's caption is that of its own options, in whatever order the threads take turns."""
    captioner = Fiber.from_pretrained(runs["caption"], batch_size=2)
    options = [(1, False), (2, False), (5, False), (1, True), (3, True), (5, True)]
    expected = [captioner.caption(readable, beam, as_published) for beam, as_published in options]
    assert len({tuple(captions) for captions in expected}) > 1
    shared = Fiber.from_pretrained(runs["caption"], batch_size=2)
    calls = [partial(shared.caption, readable, beam, as_published) for beam, as_published in options * 4]
    assert run_in_threads(calls) == expected * 4


def test_threads_with_other_options_share_a_detector(detector, readable):
    options = [
        {"labels": LABELS, "threshold": 0, "top_k": 3},
        {"labels": LABELS, "threshold": 0, "nms_iou": 0.1},
        {"labels": "cat", "threshold": 0.4},
        {"labels": LABELS[:2], "threshold": 0, "chunk": 1},
        {"labels": ["a dog"], "threshold": 0},
        {"labels": LABELS, "threshold": 0.2},
    ]
    expected = [detector.detect(readable[1], **one) for one in options]
    found = run_in_threads([partial(detector.detect, readable[1], **one) for one in options * 3])
    for detections, of_option in zip(found, expected * 3, strict=True):
        assert_same(detections, of_option)


def test_eight_threads_with_different_options_give_what_each_gives_alone(runs, detector, readable, retriever, folder):
    """To the bit: nothing of one call is seen by another, of one object or of several."""
    captioner, answerer = (Fiber.from_pretrained(runs[task], batch_size=2) for task in ("caption", "vqa_generated"))
    searched = Fiber(retriever(), batch_size=2).with_index(folder)
    calls = [
        partial(detector.detect, readable[1], LABELS, threshold=0, top_k=3),
        partial(detector.detect, readable, "cat", threshold=0.1, nms_iou=0.2),
        partial(captioner.caption, readable, 1),
        partial(captioner.captions, readable[0], 3, beam=2),
        partial(captioner.captions, readable[:2], 2, as_published=True),
        partial(answerer.answer, readable, "what is it?"),
        partial(answerer.answers, readable[2], ["how many?", "which colour?"], 2),
        partial(searched.search, "a red circle", 2),
    ]
    alone = [call() for call in calls]
    assert run_in_threads(calls * 4, threads=8) == alone * 4


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_a_lower_precision_gives_nearly_the_same_of_every_kind(runs, detector_run, readable, precision):
    for path in (runs["coarse"], detector_run):
        full, low = Fiber.from_pretrained(path), Fiber.from_pretrained(path, precision=precision)
        assert full.precision == "fp32"
        assert low.precision == precision
        assert low.loaded.task is low.task
        if path == detector_run:
            found, expected = (model.detect(readable[0], LABELS, threshold=0, top_k=1) for model in (low, full))
            np.testing.assert_allclose(found.scores, expected.scores, atol=0.1)
            continue
        for of_low, of_full in (
            (low.embed_images(readable), full.embed_images(readable)),
            (low.embed_texts(["a moon"]), full.embed_texts(["a moon"])),
        ):
            assert of_low.dtype == np.float32
            np.testing.assert_allclose(of_low, of_full, atol=0.05)
            assert (of_low != of_full).any()
        if precision != "int8":  # which is for trained weights: of noise the logit is noise
            assert low.match(readable[0], "a moon") == pytest.approx(full.match(readable[0], "a moon"), abs=1)


def test_one_checkpoint_is_used_in_two_precisions(runs, readable):
    loaded = load(runs["coarse"])
    full = Fiber(loaded).embed_images(readable)
    for precision in ("bf16", "int8"):
        low = Fiber(loaded, precision=precision).embed_images(readable)
        assert (low != full).any()
        np.testing.assert_array_equal(Fiber(loaded).embed_images(readable), full)


def overlap(a, b):
    """IoU of boxes given by their edges."""
    width, height = (min(a[2 + i], b[2 + i]) - max(a[i], b[i]) for i in (0, 1))
    inter = max(0, width) * max(0, height)
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def test_detection_of_every_form_of_input_alone_and_in_a_batch(detector, readable):
    detections = detector.detect(readable, LABELS, threshold=0)
    assert len(detections) == 3
    assert all(len(of_picture) == MOST for of_picture in detections)
    for path, of_picture in zip(readable, detections, strict=True):
        width, height = Image.open(path).size
        scores = [one.score for one in of_picture]
        assert scores == sorted(scores, reverse=True)
        for label, index, score, (x1, y1, x2, y2) in of_picture:
            assert label == LABELS[index]
            assert 0 < score < 1
            assert 0 <= x1 < x2 <= width
            assert 0 <= y1 < y2 <= height
    assert len({one.index for of_picture in detections for one in of_picture}) == 4
    opened = Image.open(readable[1])
    for one in (str(readable[1]), readable[1], opened, np.asarray(opened)):
        assert_same(detector.detect(one, LABELS, threshold=0), detections[1])
    typed = detector.detect(readable[0], "red circle . Star . traffic_light_(big) . dog.", threshold=0)
    assert_same(typed, detections[0])


def test_threshold_nms_and_top_k_hold_for_one_call(detector, readable):
    one = readable[0]
    before = dict(detector.task.postprocessing)
    everything = detector.detect(one, LABELS, threshold=0)
    middle = everything[12].score
    above = [detection for detection in everything if detection.score >= middle]
    assert_same(detector.detect(one, LABELS, threshold=middle), above)
    assert_same(detector.detect(one, LABELS, threshold=0, top_k=5), everything[:5])
    lonely = detector.detect(one, LABELS, threshold=0, nms_iou=0, top_k=1000)
    crowd = detector.detect(one, LABELS, threshold=0, nms_iou=1, top_k=1000)
    assert len(lonely) < len(crowd)
    for n, detection in enumerate(lonely):
        of_label = [better for better in lonely[:n] if better.label == detection.label]
        assert not any(overlap(detection.box, better.box) > 0.02 for better in of_label)
    assert detector.task.postprocessing == before
    assert_same(detector.detect(one, LABELS, threshold=0), everything)


def test_an_object_takes_the_places_of_others_before_it_has_one_name(detector, readable):
    """`top_k` counts objects, and the checkpoint's own limit does not cut their boxes before."""
    one = readable[0]
    crowd = detector.detect(one, LABELS, threshold=0, nms_iou=1, top_k=1000)
    expected = []
    for detection in crowd:
        if not any(overlap(detection.box, better.box) > 0.5 for better in expected):
            expected.append(detection)
    assert len({detection.label for detection in expected}) > 1
    once = partial(detector.detect, one, LABELS, threshold=0, nms_iou=1, agnostic_nms_iou=0.5)
    assert_same(once(top_k=1000), expected)
    assert_same(once(top_k=4), expected[:4])
    assert_same(once(), expected[:MOST])
    phrases = detector.ground(one, None, LABELS[:2], threshold=0, agnostic_nms_iou=0)
    assert not any(overlap(phrases[0].box, other.box) > 0 for other in phrases[1:])


@pytest.mark.parametrize("options", [{"threshold": 1.5}, {"nms_iou": -1}, {"agnostic_nms_iou": 2}, {"top_k": 0}])
def test_limits_that_are_none_are_told(detector, readable, options):
    with pytest.raises(UserError, match=next(iter(options))):
        detector.detect(readable[0], "cat", **options)


def test_bad_pictures_of_detection_are_told(detector, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        detector.detect("nowhere.png", "cat")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match=r"huge\.png: more than 89,478,485 pixels"):
        detector.detect(tmp_path / "huge.png", "cat")


def test_chunks_are_prompts_of_their_own_over_one_image_stem(detector, readable, monkeypatch):
    stems, alone = [], []
    image_stem = detector.task.encoder.image_stem
    for index, label in enumerate(LABELS):
        detections = detector.detect(readable[0], [label], threshold=0)
        alone += [one._replace(index=index) for one in detections]
    monkeypatch.setattr(detector.task.encoder, "image_stem", lambda pixels: stems.append(1) or image_stem(pixels))
    alone.sort(key=lambda one: -one.score)
    chunked = detector.detect(readable[0], LABELS, threshold=0, chunk=1)
    assert_same(chunked, alone[:MOST])
    assert len(stems) == 1
    together = detector.detect(readable[0], LABELS, threshold=0)
    assert max(abs(one.score - two.score) for one, two in zip(together, chunked, strict=True)) > 1e-4
    assert_same(detector.detect(readable[0], LABELS, threshold=0, chunk=4), together)


def test_phrases_of_a_sentence(detector, readable):
    """A sentence that is a prompt of labels gives what the labels give."""
    labels = ["red circle", "dog"]
    expected = detector.detect(readable, labels, threshold=0)
    grounded = detector.ground(readable, "red circle. dog", labels, threshold=0)
    for detections, of_labels in zip(grounded, expected, strict=True):
        assert_same(detections, of_labels)
    assert_same(detector.ground(readable[0], "red circle. dog", "red circle; dog;", threshold=0), expected[0])
    detections = detector.ground(readable[0], "the Dog sees a dog", ["dog", "dog"], threshold=0)
    assert {one.index for one in detections} == {0, 1}
    assert {one.label for one in detections} == {"dog"}


def test_noun_phrases_of_a_sentence_are_grounded(detector, readable, monkeypatch):
    spans = [("a red circle", (0, 12)), ("two stars", (20, 29))]
    monkeypatch.setattr("fiber_cli.data.phrases.noun_phrases", lambda sentence: spans)
    detections = detector.ground(readable[0], "a red circle beside two stars", threshold=0)
    assert {one[:2] for one in detections} == {("a red circle", 0), ("two stars", 1)}


def test_upright_pictures_of_every_mode(detector, tmp_path):
    def detect(picture):
        return detector.detect(picture, LABELS, threshold=0)

    upright = draw(scene(0, "val", 4, 64)).resize((90, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to look at it
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    assert_same(detect(tmp_path / "turned.png"), detect(upright))
    grey = upright.convert("L")
    grey.save(tmp_path / "grey.png")
    assert_same(detect(tmp_path / "grey.png"), detect(grey))
    upright.convert("CMYK").save(tmp_path / "cmyk.jpg")
    seen = Image.open(tmp_path / "cmyk.jpg").convert("RGB")
    assert_same(detect(tmp_path / "cmyk.jpg"), detect(seen))
    clear = upright.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    assert_same(detect(tmp_path / "clear.png"), detect(Image.new("RGB", upright.size, "white")))
    for size in ((1, 1), (1, 200)):
        for *_, (x1, y1, x2, y2) in detect(Image.new("RGB", size)):
            assert 0 <= x1 < x2 <= size[0]
            assert 0 <= y1 < y2 <= size[1]


def test_the_thresholds_of_pairs_are_others_than_validation_chose(retriever):
    chosen = Fiber(retriever(match_threshold=-0.5, search_threshold=12.0, fewest_words=1.0, most_words=9.0))
    assert (chosen.match_threshold, chosen.search_threshold) == (-0.5, 12.0)
    of_queries = {"query_match_threshold": -2.0, "query_search_threshold": 9.0}
    lengths = {"fewest_query_words": 1.0, "most_query_words": 2.0, "fewest_words": 4.0, "most_words": 9.0}
    both = Fiber(retriever(match_threshold=-0.5, search_threshold=12.0, **of_queries, **lengths))
    assert (both.match_threshold, both.search_threshold) == (-0.5, 12.0)
    for text, match, search in (("a star", -2.0, 9.0), ("a star and a moon", -0.5, 12.0), ("word " * 10, None, None)):
        assert (both.match_threshold_of(text), both.search_threshold_of(text)) == (match, search)
    unchosen = Fiber(retriever())
    assert unchosen.match_threshold is None
    assert unchosen.search_threshold is None
    assert unchosen.match_threshold_of("a star") is None
    with pytest.raises(UserError, match="ITM head"):
        _ = Fiber(retriever(itm=0.0)).match_threshold
