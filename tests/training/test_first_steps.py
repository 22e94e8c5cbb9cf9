"""The first steps of the small recipes of 0.1.0 have the losses that that version's networks and training had, on the
built-in scenes of 0.2.0."""

import json
from itertools import islice
from pathlib import Path

import pytest

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.training.fit import fit

FOLDER = Path(__file__).parents[1] / "assets" / "first_steps"
#: Later ones are apart by more from processor to processor: AdamW's step is a sign where the gradient is noise.
STEPS = 5


@pytest.mark.parametrize("name", ["tiny", "tiny_fine"])
def test_losses_changed(name, tmp_path, monkeypatch):
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    recipe = resolve_recipe(
        str(FOLDER / f"{name}.yaml"), [*expected["overrides"], "runtime.threads=null", "data.workers=0"]
    )

    class Enough(Exception):
        """Ends the run."""

    from fiber_cli.training import log

    records = []

    def write(self, record, *, show=True):
        records.append(record)
        if len(records) == STEPS:
            raise Enough

    monkeypatch.setattr(log.RunLog, "write", write)
    with pytest.raises(Enough):
        fit(recipe, tmp_path / "run")
    for record, before in zip(records, islice(expected["records"], STEPS), strict=True):
        for key, value in before.items():
            tolerance = 1e-4 if key == "grad_norm" else 1e-5
            assert record[key] == pytest.approx(value, rel=tolerance), (before["step"], key)
