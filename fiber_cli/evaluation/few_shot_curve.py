"""AP by the number of shots as a picture."""

from collections.abc import Sequence
from io import BytesIO

from fiber_cli.characters import one_line
from fiber_cli.evaluation.few_shot import ALL_DATA
from fiber_cli.evaluation.odinw_table import OdinwAp, names_of, of_set, shots_of, summary_by_shots

#: More lines than this are told apart by nobody; the mean alone is drawn then.
_MOST_SETS = 15


def few_shot_curve(results: Sequence[OdinwAp]) -> bytes:
    """A picture (PNG): the mean AP over the sets by shots, with the deviation over the seeds, and the AP of each set
    beside it; all data at the right end."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    shots = sorted(shots_of(results), key=lambda number: (number == ALL_DATA, number))
    places = {number: place for place, number in enumerate(shots)}
    names = names_of(results)
    for name in names if 1 < len(names) <= _MOST_SETS else []:
        aps = summary_by_shots(of_set(results, name))
        own = [number for number in shots if number in aps]
        # A dollar would begin a formula.
        label = one_line(name).replace("$", r"\$")
        axes.plot([places[number] for number in own], [aps[number].ap for number in own], linewidth=1, label=label)
    mean = summary_by_shots(results)
    of_all_sets = [number for number in shots if number in mean]
    axes.errorbar(
        [places[number] for number in of_all_sets],
        [mean[number].ap for number in of_all_sets],
        yerr=[mean[number].std for number in of_all_sets],
        color="black",
        linewidth=2.5,
        marker="o",
        capsize=4,
        label=f"mean of {len(names)}",
    )
    axes.set_xticks(range(len(shots)), ["all data" if number == ALL_DATA else str(number) for number in shots])
    axes.set(xlabel="shots", ylabel="AP (%)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=2)
    picture = BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    return picture.getvalue()
