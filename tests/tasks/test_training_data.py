"""What a task makes of its sources, and what it says of entries that it leaves out."""

from colour_images import ColourImages

from fiber_cli.data.readers import collate
from fiber_cli.tasks.training_data import TrainingData


def data_of(*dropped: int, words: str | None = "boxes without an area") -> TrainingData:
    sources = []
    for count in dropped:
        source = ColourImages(3)
        source.dropped = count
        sources.append(source)
    return TrainingData(sources, reader=lambda source, i, rng: {}, collate=collate, dropped=words)


def test_left_out_entries_are_counted_over_all_sources():
    assert data_of(2, 0, 3).notice == "5 boxes without an area are not trained on"


def test_nothing_is_said_of_nothing():
    assert data_of(0, 0).notice is None
    assert data_of(2, words=None).notice is None
