"""AP of many fine-tunings on detection sets, such as ODinW's, as one table: sets, shots, and their means."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from fiber_cli.characters import one_line
from fiber_cli.evaluation.few_shot import ALL_DATA


class OdinwAp(NamedTuple):
    """AP of a set after a fine-tuning, in percent. shots: 0 of all data; seed: of the draw, None of all data."""

    set_name: str
    shots: int
    seed: int | None
    ap: float


class MeanAp(NamedTuple):
    """Mean and (population) standard deviation of AP over `seeds` draws."""

    ap: float
    std: float
    seeds: int


def mean_over_seeds(results: Sequence[OdinwAp]) -> MeanAp:
    """Of one set with the same shots."""
    aps = [result.ap for result in results]
    return MeanAp(statistics.fmean(aps), statistics.pstdev(aps), len(aps))


def mean_over_sets(results: Sequence[OdinwAp]) -> MeanAp:
    """Of several sets with the same shots: first the plain mean over the sets of each seed, then that over seeds."""
    of_seed: dict[int | None, list[float]] = {}
    for result in results:
        of_seed.setdefault(result.seed, []).append(result.ap)
    means = [statistics.fmean(aps) for aps in of_seed.values()]
    return MeanAp(statistics.fmean(means), statistics.pstdev(means), len(means))


def summary_by_shots(results: Sequence[OdinwAp]) -> dict[int, MeanAp]:
    """`mean_over_sets` of each number of shots that all sets have, with the same draws; a mean of some of them would
    stand beside means of all."""
    means = {}
    for number in shots_of(results):
        of_number = _with_shots(results, number)
        if _is_complete(of_number, names_of(results)):
            means[number] = mean_over_sets(of_number)
    return means


def _is_complete(results: Sequence[OdinwAp], names: Sequence[str]) -> bool:
    """Whether each of the sets has the same draws of one number of shots."""
    seeds = [sorted(str(result.seed) for result in of_set(results, name)) for name in names]
    return all(of_name == seeds[0] for of_name in seeds)


def odinw_summary(results: Sequence[OdinwAp]) -> dict[str, Any]:
    """Every AP, and the means by set and shots ("full" is all data): `runs`, `sets`, `mean`, see
    `summary_by_shots`."""
    sets: dict[str, dict[str, Any]] = {}
    for name in names_of(results):
        own = of_set(results, name)
        sets[name] = {_label(number): mean_over_seeds(_with_shots(own, number))._asdict() for number in shots_of(own)}
    mean = {_label(number): mean._asdict() for number, mean in summary_by_shots(results).items()}
    return {"runs": [result._asdict() for result in results], "sets": sets, "mean": mean}


def odinw_table(results: Sequence[OdinwAp]) -> str:
    """Sets as rows, shots as columns, the mean as the last row; over several seeds with the standard deviation; a dash
    where nothing is known."""
    shots = shots_of(results)
    names = names_of(results)
    rows = [["AP", *(_title(number) for number in shots)]]
    for name in names:
        own = summary_by_shots(of_set(results, name))
        rows.append([one_line(name), *(_cell(own.get(number)) for number in shots)])
    mean = summary_by_shots(results)
    rows.append([f"mean of {len(names)}", *(_cell(mean.get(number)) for number in shots)])
    return "\n".join(_line(row) for row in rows)


def of_set(results: Sequence[OdinwAp], name: str) -> list[OdinwAp]:
    return [result for result in results if result.set_name == name]


def names_of(results: Sequence[OdinwAp]) -> list[str]:
    return list(dict.fromkeys(result.set_name for result in results))


def shots_of(results: Sequence[OdinwAp]) -> list[int]:
    return list(dict.fromkeys(result.shots for result in results))


def _with_shots(results: Sequence[OdinwAp], shots: int) -> list[OdinwAp]:
    return [result for result in results if result.shots == shots]


def _label(shots: int) -> str:
    return "full" if shots == ALL_DATA else str(shots)


def _title(shots: int) -> str:
    if shots == ALL_DATA:
        return "full"
    return "1 shot" if shots == 1 else f"{shots} shots"


def _cell(mean: MeanAp | None) -> str:
    if mean is None:
        return "-"
    if mean.seeds == 1:
        return f"{mean.ap:.1f}"
    return f"{mean.ap:.1f} ± {mean.std:.1f}"


def _line(row: Sequence[str]) -> str:
    first, *rest = row
    return f"{first:<22}" + "".join(f"{cell:>14}" for cell in rest)
