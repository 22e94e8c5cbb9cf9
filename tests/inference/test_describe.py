"""A text for each picture of a folder, as `fiber caption` and `fiber answer` print it."""

import json

import pytest
from commands import command

from fiber_cli.errors import UserError
from fiber_cli.inference.describe import describe_images


def sizes(pictures):
    return [f"{picture.width} x {picture.height}" for picture in pictures]


def test_a_broken_image_is_named_and_the_rest_is_done(pictures, readable, capsys):
    describe_images([pictures], sizes, "size", batch=2, as_json=False)
    out, err = capsys.readouterr()
    texts = ["64 x 64", "150 x 40", "50 x 130"]
    assert out.splitlines() == [f"{path}\t{text}" for path, text in zip(readable, texts, strict=True)]
    assert err == f"left out: {pictures}/broken.jpg: {err.rpartition('broken.jpg: ')[2]}"
    assert "not a readable" in err
    describe_images([pictures], sizes, "size", batch=3, as_json=True)
    described = json.loads(capsys.readouterr().out)
    assert described == [{"image": str(path), "size": text} for path, text in zip(readable, texts, strict=True)]


def test_a_batch_of_broken_images_is_not_described(pictures, capsys):
    with pytest.raises(UserError, match="none of 1 images could be read"):
        describe_images([pictures / "broken.jpg"], sizes, "size", batch=2, as_json=True)
    assert capsys.readouterr().out == ""


def test_the_commands_on_a_folder_with_a_broken_image(runs, pictures, capsys):
    code, out, err = command(capsys, "caption", pictures, "--checkpoint", runs["caption"], "--json", "--beam", "2")
    captions = json.loads(out)
    assert code == 0
    assert [one["image"].rpartition("/")[2] for one in captions] == ["a.png", "b.jpg", "a.png"]
    assert set(captions[0]) == {"image", "caption"}
    assert "left out: " in err
    assert "broken.jpg" in err
    code, out, err = command(capsys, "answer", pictures, "how many stars are there?", "--checkpoint", runs["vqa"])
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "broken.jpg" in err
    assert all(line.split("\t")[1] for line in out.splitlines())
    code, out, err = command(capsys, "caption", pictures / "broken.jpg", "--checkpoint", runs["caption"])
    assert code == 1
    assert out == ""
    assert "none of 1 images could be read" in err
    code, _, err = command(capsys, "caption", pictures / "nothing.png", "--checkpoint", runs["caption"])
    assert code == 1
    assert "no such file or folder" in err
