"""Full disks: training at ten sizes of the free space, all other commands that write at three."""

import pytest

from benchmarks.faults.disks import SHARES, WRITINGS, Disks
from benchmarks.faults.full_disk import NoDisk, build_library, full_disk

# Together more than a minute.
pytestmark = pytest.mark.slow

AT_TEN_SIZES = ("training on one rank", "training on two ranks")
SOME_SHARES = (0.0, 0.35, 0.9)


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """A disk whose free space can be set, by the first means that is permitted here."""
    try:
        with full_disk(tmp_path_factory.mktemp("disk")) as disk:
            yield Disks(disk)
    except NoDisk as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("writing", [pytest.param(writing, id=writing.what) for writing in WRITINGS])
def test_a_full_disk_ends_in_a_traceback_or_leaves_halves(disks, writing):
    shares = SHARES if writing.what in AT_TEN_SIZES else SOME_SHARES
    check(disks, writing, shares)


def test_writes_that_are_counted_are_a_full_disk_too(tmp_path):
    """The means where mounts are not permitted."""
    try:
        build_library(tmp_path)
    except NoDisk as error:
        pytest.skip(str(error))
    with full_disk(tmp_path / "full", counted=True) as disk:
        disks = Disks(disk)
        for writing in WRITINGS:
            if writing.what in ("vqa-answers", "detect --coco"):
                check(disks, writing, SOME_SHARES)


def check(disks, writing, shares):
    assert len(SHARES) == 10
    trials = [disks.trial(writing, share) for share in shares]
    problems = [trial.line() for trial in trials if trial.problem]
    assert not problems, "\n".join(problems)
