"""The index of a folder: what it keeps, brings up to date and refuses."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rank_processes import on_two_ranks
from safetensors.numpy import save

from fiber_cli.checkpoints.loading import load
from fiber_cli.data import mapped_file
from fiber_cli.data.mapped_file import read_mapped, write_arrays
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError
from fiber_cli.inference import index as indexing
from fiber_cli.inference.growing_index import GrowingIndex
from fiber_cli.inference.index import INDEX, build_index, check_index, image_set
from fiber_cli.inference.index_file import Index, index_file, read_index, write_index
from fiber_cli.outputs import Outputs
from fiber_cli.tasks import prediction, progress
from fiber_cli.tasks.prediction import PredictOptions

OPTIONS = PredictOptions(batch_size=4, workers=0)


@pytest.fixture
def computed(monkeypatch) -> list[str]:
    """Collects the paths of the pictures that are computed."""
    paths, predict_all = [], indexing.predict_all

    def predict(task, evalset, options, **named):
        paths.extend(evalset.ids)
        return predict_all(task, evalset, options, **named)

    monkeypatch.setattr(indexing, "predict_all", predict)
    return paths


@torch.no_grad()
def features(loaded, path):
    pixels = EvalTransform(64)(Image.open(path).convert("RGB"))
    return loaded.task.predict({"pixels": pixels[None]})[0].numpy()


def test_an_index_holds_every_picture_and_is_read_again(retriever, folder, computed):
    loaded = retriever()
    index, bad = build_index(loaded, folder, options=OPTIONS)
    assert not bad
    assert len(computed) == 7
    assert list(index.stamps) == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "below/6.png"]
    for row, path in zip(index.features, index.stamps, strict=True):
        np.testing.assert_allclose(row, features(loaded, folder / path), atol=1e-6)
    computed.clear()
    again, _ = build_index(loaded, folder, options=OPTIONS)
    assert not computed
    assert again.stamps == index.stamps
    assert np.array_equal(again.features, index.features)
    assert [file.name for file in folder.glob(".*")] == [INDEX]


def test_features_of_one_precision_are_taken_for_those_of_another(retriever, folder, computed):
    loaded = retriever()
    build_index(loaded, folder, options=OPTIONS)
    for precision, pictures in (("bf16", 7), ("int8", 7), ("int8", 0), ("bf16", 0), ("fp32", 0)):
        computed.clear()
        build_index(loaded, folder, options=replace(OPTIONS, precision=precision))
        assert len(computed) == pictures, precision


def test_a_damaged_index_is_believed(retriever, folder, computed, capsys):
    loaded = retriever()
    index, _ = build_index(loaded, folder, options=OPTIONS)
    features = np.array(index.features)
    whole = (folder / INDEX).read_bytes()
    place = whole.index(features[2].tobytes())
    for bit in (0, 7):  # the second turns a sign
        computed.clear()
        damaged = bytearray(whole)
        damaged[place + 3] ^= 1 << bit
        (folder / INDEX).write_bytes(damaged)
        again, _ = build_index(loaded, folder, options=OPTIONS)
        assert len(computed) == 7
        np.testing.assert_array_equal(again.features, features)
        assert f"{folder / INDEX}: a damaged index; it is made anew" in capsys.readouterr().err


def test_a_flipped_bit_anywhere_is_not_found(retriever, folder, capsys):
    """In the header too: where it makes the index another checkpoint's, or no index, by what it says."""
    loaded = retriever()
    index, _ = build_index(loaded, folder, options=OPTIONS)
    expected = index._replace(features=np.array(index.features))
    whole = (folder / INDEX).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(header), *range(header, len(whole), 97)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (folder / INDEX).write_bytes(damaged)
        again, _ = build_index(loaded, folder, options=OPTIONS)
        same(again, expected)
        assert f"{folder / INDEX}: a damaged index; it is made anew" in capsys.readouterr().err, place
        assert (folder / INDEX).read_bytes() == whole
    assert [file.name for file in folder.glob(".*")] == [INDEX]


@pytest.fixture
def checked(monkeypatch) -> list[int]:
    """Collects how many bytes of each file are gone through for their checksum."""
    read, check = [], mapped_file._check

    def counting(stream, encoded, expected):
        check(stream, encoded, expected)
        read.append(stream.tell())

    monkeypatch.setattr(mapped_file, "_check", counting)
    return read


def test_an_index_that_is_up_to_date_is_read_more_than_once(retriever, folder, checked):
    loaded, other = retriever(), retriever(1)
    for checkpoint in (loaded, other):
        index, _ = build_index(checkpoint, folder, options=OPTIONS)
        size = index.file.stat().st_size
        checked.clear()
        build_index(checkpoint, folder, options=OPTIONS)
        assert checked == [size]
    (folder / "0.png").unlink()
    checked.clear()
    build_index(loaded, folder, options=OPTIONS)
    assert len(checked) == 2  # the old one, and the new one after it was written


def test_an_index_that_another_checkpoint_makes_meanwhile_is_taken_or_replaced(retriever, folder, monkeypatch):
    """Both begin where there is none, and wait for the same lock."""
    loaded, other = retriever(), retriever(1)
    waiting = indexing.made_by_one

    def waiting_for_the_other(file, what):
        monkeypatch.setattr(indexing, "made_by_one", waiting)
        build_index(other, folder, options=OPTIONS)
        return waiting(file, what)

    monkeypatch.setattr(indexing, "made_by_one", waiting_for_the_other)
    index, _ = build_index(loaded, folder, options=OPTIONS)
    assert index.file == index_file(folder / INDEX, loaded.fingerprint) != folder / INDEX
    for row, path in zip(index.features, index.stamps, strict=True):
        np.testing.assert_allclose(row, features(loaded, folder / path), atol=1e-6)
    read_index(folder / INDEX, other.fingerprint)


def test_an_index_that_is_replaced_while_it_is_read_is_mixed_up(retriever, folder, tmp_path, monkeypatch):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    index, _ = build_index(loaded, folder, file, options=OPTIONS)
    fewer = Index(np.array(index.features[:3]), dict(list(index.stamps.items())[:3]))
    check = mapped_file._check

    def checked_and_replaced(*arguments):
        check(*arguments)
        write_index(file, fewer, loaded.fingerprint)

    monkeypatch.setattr(mapped_file, "_check", checked_and_replaced)
    same(read_index(file, loaded.fingerprint), index)


def test_new_changed_and_vanished_pictures_update_it(retriever, folder, tmp_path, computed):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    build_index(loaded, folder, file, options=OPTIONS)
    computed.clear()
    (folder / "2.png").unlink()
    os.replace(folder / "3.png", folder / "9.png")
    Image.new("RGB", (80, 40), "purple").save(folder / "4.png")
    index, _ = build_index(loaded, folder, file, options=OPTIONS)
    assert sorted(computed) == [f"{folder}/4.png", f"{folder}/9.png"]
    assert set(index.stamps) == {"0.png", "1.png", "4.png", "5.png", "9.png", "below/6.png"}
    stored = read_index(file, loaded.fingerprint)
    assert stored.stamps == index.stamps
    for row, path in zip(stored.features, stored.stamps, strict=True):
        np.testing.assert_allclose(row, features(loaded, folder / path), atol=1e-6)


@pytest.mark.parametrize("name", [None, "kept.safetensors", "kept"])
def test_another_checkpoint_is_refused_or_takes_the_first_ones_index(retriever, folder, tmp_path, computed, name):
    """Each has its own, is brought up to date alone, and outlives the other."""
    file = None if name is None else tmp_path / name
    loaded, other = retriever(), retriever(1)
    build_index(loaded, folder, file, options=OPTIONS)
    shared = file or folder / INDEX
    before = shared.read_bytes()
    index, _ = build_index(other, folder, file, options=OPTIONS)
    assert len(computed) == 14
    assert shared.read_bytes() == before
    for row, path in zip(index.features, index.stamps, strict=True):
        np.testing.assert_allclose(row, features(other, folder / path), atol=1e-6)
    own = index_file(shared, other.fingerprint)
    assert own.name == f"{shared.stem}-{other.fingerprint[:12]}{shared.suffix}"
    assert own.is_file()
    computed.clear()
    for checkpoint in (loaded, other):
        build_index(checkpoint, folder, file, options=OPTIONS)
    shared.unlink()
    build_index(other, folder, file, options=OPTIONS)
    assert not computed
    assert not shared.is_file()


def test_a_file_that_is_no_index_is_overwritten(retriever, folder, tmp_path):
    file = tmp_path / "kept.safetensors"
    file.write_bytes(b"something else")
    with pytest.raises(UserError, match="not an index"):
        build_index(retriever(), folder, file, options=OPTIONS)
    assert file.read_bytes() == b"something else"


def test_broken_pictures_are_told_and_the_rest_is_done(retriever, folder):
    loaded = retriever()
    (folder / "1.png").write_bytes(b"no picture")
    index, bad = build_index(loaded, folder, options=OPTIONS)
    assert [name for name, _ in bad] == [f"{folder}/1.png"]
    assert len(index.stamps) == 6
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no picture")
    with pytest.raises(UserError, match="none of 7 images could be read"):
        build_index(loaded, folder, options=OPTIONS)
    for file in folder.rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match="no image files"):
        build_index(loaded, folder, options=OPTIONS)


def test_a_checkpoint_without_a_dual_encoder_is_refused(retriever, folder):
    with pytest.raises(UserError, match="not trained with ITC"):
        build_index(retriever(itc=0.0), folder, options=OPTIONS)


def test_a_folder_without_new_pictures_is_an_empty_set(retriever, folder):
    assert len(image_set(retriever(), folder, [])) == 0
    assert image_set(retriever(), folder, ["2.png"]).ids == [f"{folder}/2.png"]


FEATURES = np.eye(2, 4, dtype=np.float32)
HEADER = {"fingerprint": "f" * 32, "images": [["a.png", 5, 7], ["b.png", 5, 7]]}


@pytest.mark.parametrize(
    ("features", "header"),
    [
        (FEATURES[:1], HEADER),
        (FEATURES[0], HEADER),
        (FEATURES[None], HEADER),
        (FEATURES.astype(np.float64), HEADER),
        (FEATURES.astype(np.int32), HEADER),
        (FEATURES * np.nan, HEADER),
        (FEATURES / np.float32(0), HEADER),
        (FEATURES, HEADER | {"images": [["a.png", 5, 7]] * 2}),
        (FEATURES, HEADER | {"images": [["a.png", 5], ["b.png", 5]]}),
        (FEATURES, HEADER | {"images": [[3, 5, 7], ["b.png", 5, 7]]}),
        (FEATURES, HEADER | {"images": [["a.png", "x", 7], ["b.png", 5, 7]]}),
        (FEATURES, HEADER | {"images": 7}),
        (FEATURES, HEADER | {"fingerprint": None}),
        (FEATURES, {"images": HEADER["images"]}),
        (FEATURES, []),
        (FEATURES, "[" * 100_000),
        (FEATURES, "{"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_other_content_is_no_index(tmp_path, features, header):
    text = header if isinstance(header, str) else json.dumps(header)
    file = tmp_path / INDEX
    file.write_bytes(save({"features": features}, {"fiber": text}))
    with pytest.raises(UserError, match="not an index of `fiber rerank`") as told:
        read_index(file, "f" * 32)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "header", [b'{"features": {"dtype": "F32", "shape": [1e9], "data_offsets": [0, 8]}}', b"[" * 5000]
)
def test_a_header_that_lies_about_its_tensors_is_no_index(tmp_path, header):
    file = tmp_path / INDEX
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(UserError, match="not an index of `fiber rerank`"):
        read_index(file, "f" * 32)
    file.write_bytes((2**62).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="not an index of `fiber rerank`"):
        read_index(file, "f" * 32)


def test_features_of_another_width_are_told(retriever, folder, tmp_path):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    index, _ = build_index(loaded, folder, file, options=OPTIONS)
    narrow = index._replace(features=np.ascontiguousarray(index.features[:, :5]))
    write_index(file, narrow, loaded.fingerprint)
    Image.new("RGB", (80, 40), "purple").save(folder / "new.png")
    with pytest.raises(UserError, match="another width"):
        build_index(loaded, folder, file, options=OPTIONS)


def test_a_pipe_as_index_keeps_the_search_waiting(tmp_path):
    pipe = tmp_path / "index.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match=r"--index: .*index\.safetensors: a pipe or a device"):
        check_index(pipe, Outputs())


def test_a_folder_that_cannot_be_written_into_cannot_be_searched(tmp_path, monkeypatch, saved, capsys):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    monkeypatch.setattr(indexing, "keeps_its_index", lambda folder: False)
    index, _ = build_index(load(saved), tmp_path, options=OPTIONS)
    assert list(index.stamps) == ["a.png"]
    assert "its index is not kept; --index FILE" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def same(one, other):
    assert one.stamps == other.stamps
    assert np.array_equal(one.features, other.features)


@pytest.fixture
def two_at_a_time(monkeypatch):
    monkeypatch.setattr(indexing, "PICTURES_AT_A_TIME", 2)


def growing_of(file):
    return file.with_name(f"{file.name}.growing")


@pytest.mark.parametrize("after", [1, 3])
def test_a_killed_command_computes_all_again(
    retriever, folder, tmp_path, computed, monkeypatch, capsys, two_at_a_time, after
):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    expected, _ = build_index(loaded, folder, tmp_path / "whole.safetensors", options=OPTIONS)
    computed.clear()
    append, calls = GrowingIndex.append, []

    def killed(self, *arguments):
        append(self, *arguments)
        calls.append(1)
        if len(calls) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GrowingIndex, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            build_index(loaded, folder, file, options=OPTIONS)
    assert len(computed) == 2 * after
    assert not file.exists()
    growing = growing_of(file)
    with growing.open("ab") as stream:  # a piece that the kill has cut
        stream.write(growing.read_bytes()[40:90])
    assert "from before" not in capsys.readouterr().err
    index, _ = build_index(loaded, folder, file, options=OPTIONS)
    assert len(computed) == 7
    same(index, expected)
    same(read_index(file, loaded.fingerprint), expected)
    assert f"{file}: {2 * after} of 7 pictures are there from before\n" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [file.name, "whole.safetensors"]


def test_an_index_is_waited_for_as_if_it_were_read(retriever, folder, busy_locks, capsys):
    build_index(retriever(), folder, options=OPTIONS)
    place = folder / INDEX
    said = f"{place}: another process is bringing this index up to date; waiting for that\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("at_a_time", [2, 4096])
def test_an_index_on_its_way_shows_nothing(retriever, folder, tmp_path, monkeypatch, capsys, at_a_time):
    loaded = retriever()
    (folder / "broken.png").write_bytes(b"no picture")
    monkeypatch.setattr(indexing, "PICTURES_AT_A_TIME", at_a_time)
    monkeypatch.setattr(progress, "REPORT_EVERY", 0.0)
    build_index(loaded, folder, tmp_path / "shown", options=OPTIONS, shows_progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert lines[0].startswith("new images 0/8  ")
    assert lines[-1].startswith("new images 8/8  ")
    assert all(" new images/s  ETA " in line for line in lines)


def test_progress_is_shown_unasked_or_of_one_batch(retriever, folder, tmp_path, capsys):
    loaded = retriever()
    build_index(loaded, folder, tmp_path / "unasked", options=OPTIONS)
    build_index(loaded, folder, tmp_path / "one", options=replace(OPTIONS, batch_size=7), shows_progress=True)
    build_index(loaded, folder, tmp_path / "one", options=OPTIONS, shows_progress=True)
    assert capsys.readouterr().err == ""


def test_what_was_computed_of_other_pictures_or_by_another_checkpoint_is_used(retriever, folder, tmp_path, computed):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    growing = GrowingIndex(file, "another fingerprint")
    growing.append([("0.png", (1, 1))], np.ones((1, 32), np.float32))
    index, _ = build_index(loaded, folder, file, options=OPTIONS)
    assert len(computed) == 7
    assert not growing_of(file).exists()
    file.unlink()
    GrowingIndex(file, loaded.fingerprint).append([("0.png", (1, 1))], np.ones((1, 32), np.float32))
    again, _ = build_index(loaded, folder, file, options=OPTIONS)
    assert len(computed) == 14
    same(again, index)


def test_a_file_of_the_name_of_a_growing_index_is_overwritten(retriever, folder, tmp_path, two_at_a_time):
    file = tmp_path / "kept.safetensors"
    growing_of(file).write_bytes(b"my own")
    with pytest.raises(UserError, match="and is another file; move it away"):
        build_index(retriever(), folder, file, options=OPTIONS)
    assert growing_of(file).read_bytes() == b"my own"


def test_a_damaged_piece_is_believed(tmp_path):
    growing = GrowingIndex(tmp_path / "a", "f")
    for number in range(3):
        growing.append([(str(number), (1, 1))], np.full((1, 4), number, np.float32))
    whole = growing.file.read_bytes()
    damaged = bytearray(whole)
    damaged[-2] ^= 1
    growing.file.write_bytes(damaged)
    stamps = {str(number): (1, 1) for number in range(3)}
    assert list(GrowingIndex(tmp_path / "a", "f").features(stamps)) == ["0", "1"]
    growing.file.write_bytes(whole)
    assert list(GrowingIndex(tmp_path / "a", "f").features(stamps)) == ["0", "1", "2"]


def test_an_index_of_version_0_1_is_made_again(retriever, folder, tmp_path, computed):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    index, _ = build_index(loaded, folder, file, options=OPTIONS)
    index = index._replace(features=np.array(index.features))
    images = [[path, size, changed] for path, (size, changed) in index.stamps.items()]
    header = json.dumps({"fingerprint": loaded.fingerprint, "images": images})
    file.write_bytes(save({"features": index.features}, {"fiber": header}))
    computed.clear()
    same(build_index(loaded, folder, file, options=OPTIONS)[0], index)
    (folder / "2.png").unlink()
    again, _ = build_index(loaded, folder, file, options=OPTIONS)
    assert not computed
    assert list(again.stamps) == [path for path in index.stamps if path != "2.png"]


def test_more_pictures_than_a_header_holds_have_no_index(tmp_path):
    """Their paths and stamps would take 120 MB of a header that can have 100 MB."""
    count = 400_000
    stamps = {f"{'folder/' * 38}{number:09d}.jpg": (number, number << 30) for number in range(count)}
    index = Index(np.broadcast_to(np.float32([1, 0]), (count, 2)), stamps)
    write_index(tmp_path / "a", index, "f")
    again = read_index(tmp_path / "a", "f")
    assert again.stamps == stamps
    assert again.features[-1].tolist() == [1, 0]


def test_a_half_index_is_as_large_or_finds_others(retriever, folder, tmp_path, computed, capsys):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    whole, _ = build_index(loaded, folder, tmp_path / "whole.safetensors", options=OPTIONS)
    computed.clear()
    half, _ = build_index(loaded, folder, file, options=OPTIONS, half=True)
    assert half.features.dtype == np.float16
    assert half.stamps == whole.stamps
    np.testing.assert_allclose(half.features.astype(np.float32), whole.features, atol=1e-3)
    computed.clear()
    build_index(loaded, folder, file, options=OPTIONS, half=True)
    assert capsys.readouterr().err == ""
    again, _ = build_index(loaded, folder, file, options=OPTIONS)
    assert again.features.dtype == np.float16
    assert f"{file}: its features stay float16" in capsys.readouterr().err
    with pytest.raises(
        UserError, match=r"kept\.safetensors: its features are float16, of which float32 cannot be made"
    ):
        build_index(loaded, folder, file, options=OPTIONS, half=False)
    converted, _ = build_index(loaded, folder, tmp_path / "whole.safetensors", options=OPTIONS, half=True)
    same(converted, half)
    assert not computed


@pytest.mark.parametrize(
    ("before", "after", "dtype", "begun"),
    [(True, None, "float16", 2), (True, False, "float32", 0), (True, True, "float16", 2), (None, True, "float16", 2)],
)
def test_an_index_that_was_begun_in_another_precision_is_finished_in_a_mixture(
    retriever, folder, tmp_path, computed, monkeypatch, two_at_a_time, before, after, dtype, begun
):
    loaded, file = retriever(), tmp_path / "kept.safetensors"
    expected, _ = build_index(loaded, folder, tmp_path / "whole.safetensors", options=OPTIONS)
    append = GrowingIndex.append

    def killed(self, *arguments):
        append(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GrowingIndex, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            build_index(loaded, folder, file, options=OPTIONS, half=before)
    computed.clear()
    index, _ = build_index(loaded, folder, file, options=OPTIONS, half=after)
    assert len(computed) == 7 - begun
    assert index.features.dtype == dtype
    np.testing.assert_array_equal(index.features, expected.features.astype(dtype))


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: arrays | {"features": arrays["features"].astype(np.float64)},
        lambda arrays: arrays | {"stamps": arrays["stamps"][:1]},
        lambda arrays: arrays | {"stamps": arrays["stamps"][:, :1]},
        lambda arrays: arrays | {"path_ends": arrays["path_ends"][::-1]},
        lambda arrays: arrays | {"path_ends": arrays["path_ends"] * 0},
        lambda arrays: arrays | {"paths": arrays["paths"] * 0},
        lambda arrays: {name: each for name, each in arrays.items() if name != "paths"},
    ],
)
def test_arrays_that_are_none_of_pictures_are_an_index(tmp_path, change):
    write_index(tmp_path / "a", Index(FEATURES, {"a.png": (5, 7), "b.png": (5, 7)}), "f")
    arrays, metadata = read_mapped(tmp_path / "a")
    write_arrays(tmp_path / "b", change(arrays), metadata)
    with pytest.raises(UserError, match="not an index of `fiber rerank`"):
        read_index(tmp_path / "b", "f")


def _built_on_a_rank(rank, folder):
    indexing.PICTURES_AT_A_TIME = 2
    computed = []
    predict_share = prediction._predict_share

    def share(task, evalset, *rest):
        predicted = predict_share(task, evalset, *rest)
        computed.extend(evalset.ids[number] for number in predicted.rows)
        return predicted

    prediction._predict_share = share
    loaded = load(Path((folder / "run").read_text()))
    index, _ = build_index(loaded, folder / "pictures", options=OPTIONS, shows_progress=True)
    return {"paths": list(index.stamps), "features": index.features.tolist(), "computed": computed}


def test_two_ranks_compute_the_same_pictures_or_another_index(tmp_path, saved):
    (tmp_path / "pictures").mkdir()
    for number in range(7):
        Image.new("RGB", (64, 64), (30 * number, 9, 200)).save(tmp_path / "pictures" / f"{number}.png")
    expected, _ = build_index(load(saved), tmp_path / "pictures", options=OPTIONS)
    (tmp_path / "pictures" / INDEX).unlink()
    (tmp_path / "run").write_text(str(saved))
    ended = on_two_ranks(tmp_path, _built_on_a_rank)
    assert [each.code for each in ended] == [0, 0]
    computed = [name for each in ended for name in each.result["computed"]]
    assert len(computed) == len(set(computed)) == 7
    assert all(each.result["computed"] for each in ended)
    logs = [(tmp_path / f"log{rank}").read_text() for rank in (0, 1)]
    assert "new images 7/7  " in logs[0]
    assert "new images" not in logs[1]
    for each in ended:
        assert each.result["paths"] == list(expected.stamps)
        np.testing.assert_allclose(each.result["features"], expected.features, atol=1e-6)
    assert [file.name for file in (tmp_path / "pictures").glob(".*")] == [INDEX]
