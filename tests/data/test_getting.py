"""Files of a data set: what becomes of each."""

import zipfile

import pytest

from fiber_cli.data import getting
from fiber_cli.data.catalogue import DataFile, DataSet
from fiber_cli.data.getting import get_files
from fiber_cli.downloads import Fetched
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs

FILES = (
    DataFile(makes=("own/a",), url="https://x/a.zip?download=1", save="own/a.zip", unpack="own"),
    DataFile(makes=("own/b",), url="https://x/b", save="own/b", bytes=3),
    DataFile(makes=("own/c",), by="ask for it"),
)
OWN = DataSet("own", "Own", "https://own", "unknown", FILES, ())


@pytest.fixture
def addresses(monkeypatch):
    """The addresses that were asked for; b is not there."""
    asked = []

    def fetch(url, file, outputs, *, size, checksum, plain_http):
        assert plain_http, "COCO publishes no other addresses"
        asked.append(url)
        if url.endswith("b"):
            raise UserError(f"{url}: the server says 404")
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a", "content")
        return Fetched(file, 1, "00", 0, True, "size")

    monkeypatch.setattr(getting, "fetch", fetch)
    return asked


def test_nothing_but_telling_fetches(addresses):
    assert [got.state for got in get_files(OWN, None, Outputs())] == ["told", "told", "by hand"]
    assert not addresses


def test_one_file_that_cannot_be_had_keeps_the_others_away(addresses, tmp_path):
    states = [(got.state, got.words) for got in get_files(OWN, tmp_path, Outputs(), mirror="http://m/d/")]
    assert [state for state, _ in states] == ["fetched", "failed", "by hand"]
    assert addresses == ["http://m/d/a.zip", "http://m/d/b"]
    assert (tmp_path / "own" / "a").read_text() == "content"
    assert states[2][1] == "own/c: ask for it"
    (tmp_path / "own" / "a.zip").unlink()
    (tmp_path / "own" / "c").mkdir()
    again = [got.state for got in get_files(OWN, tmp_path, Outputs())]
    assert again == ["there", "failed", "there"]
