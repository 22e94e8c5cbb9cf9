"""The picture of AP by shots."""

import io

import pytest
from PIL import Image

from fiber_cli.evaluation.few_shot_curve import few_shot_curve
from fiber_cli.evaluation.odinw_table import OdinwAp


@pytest.mark.parametrize("sets", [1, 2, 20])
@pytest.mark.parametrize("shots", [(0,), (1, 3), (0, 1, 5)])
def test_some_results_have_no_picture(sets, shots):
    results = []
    for number in shots:
        for seed in (None,) if number == 0 else (3, 30):
            for each in range(sets):
                results.append(OdinwAp(f"$ set_{each}", number, seed, 10.0 * number + each))
    picture = Image.open(io.BytesIO(few_shot_curve(results)))
    assert picture.format == "PNG"
    assert min(picture.size) > 300
