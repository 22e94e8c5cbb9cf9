"""A DATASET that is none is told with what is missing, before a checkpoint is chosen by it."""

import pytest

from fiber_cli.data.sources import FORMATS
from fiber_cli.errors import UserError
from fiber_cli.evaluation.dataset_forms import check_dataset
from fiber_cli.evaluation.names import DATASETS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with things in it that are evaluated, and others."""
    monkeypatch.chdir(tmp_path)
    for name in ("none", "pictures", "labels/images", "shards"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("pictures/a.png", "shards/0.tar", "list.json", "table.tsv"):
        (tmp_path / name).touch()


@pytest.mark.parametrize(
    "dataset",
    [
        *DATASETS,
        "labels",
        "shards",
        "./shards",
        "list.json",
        "absent.tar",
        "s/{0..3}.tar",
        "s3://a/b.tar",
        "https://a/b/",
        "pipe:cat a.tar",
        "pipe:zcat a.tar.gz",
    ],
)
def test_a_data_set_is_refused(dataset):
    check_dataset(dataset)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            "tar",
            "tar is a form of data, without its path: give the folder of the .tar files, one of them, or a pattern",
        ),
        ("Folder", "give the folder with pictures and labels, or its data.yaml"),
        ("statements", "give the JSONL, and its pictures with --images"),
        ("visual_genome", "unknown dataset 'visual_genome': .*; visual_genome is a kind of source of recipes"),
        ("nlvr", "unknown dataset 'nlvr': .*; did you mean nlvr2?"),
        ("odinw", "did you mean odinw13?"),
        ("quiz", "unknown dataset 'quiz': give one of scenes, coco,"),
        ("", "unknown dataset ''"),
        ("none", "none: a folder with neither .tar shards nor labels"),
        ("pictures", "pictures: a folder with neither .tar shards nor labels"),
        ("absent/", "absent/: no such file or folder; give"),
        ("absent.json", "absent.json: no such file"),
        ("absent.yaml", "absent.yaml: no such file"),
        ("absent.tsv", "absent.tsv: no such file or folder"),
        ("table.tsv", "table.tsv: is read in no form; give"),
        ("https://a.b/c.json", "from elsewhere .tar shards alone are read"),
        ("pipe:cat c.jsonl", "from elsewhere .tar shards alone are read"),
    ],
)
def test_what_is_none_is_unknown_or_found_out_later(dataset, expected):
    with pytest.raises(UserError, match=expected.replace("?", r"\?")):
        check_dataset(dataset)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_kind_of_recipes_is_told_like_any_unknown_word(kind):
    if kind not in DATASETS and kind != "shards":
        with pytest.raises(UserError, match=r"is a form of data, without its path|is a kind of source|did you mean"):
            check_dataset(kind)
