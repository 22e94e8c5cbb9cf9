"""The metric by which a run keeps its best checkpoint."""

from collections.abc import Collection

from fiber_cli.errors import UserError


def measured_name(metric: str, measured: Collection[str]) -> str:
    """The metric's name among those that a validation has; without Java that of its stand-in. Raises UserError where
    there is neither: no validation of the run would keep a best, and it would end well without one."""
    for name in (metric, f"{metric} (plain tokens)"):
        if name in measured:
            return name
    if measured:
        raise UserError(
            f"log.keep_best: the validation has no {metric}; it measured {', '.join(measured)}. Go by one of these, or "
            f"name sources in data.val that have what {metric} is about; too small a validation may have none of it"
        )
    raise UserError(
        f"log.keep_best: the validation has no {metric}, it measured nothing: data.val is too small, none of its items "
        "has anything to score; name more of them, or set log.keep_best to null"
    )


def check_measurable(metric: str, measurable: Collection[str]) -> None:
    """Raises UserError for a metric that no validation of the run will have, before its first step."""
    if metric in measurable:
        return
    if measurable:
        raise UserError(
            f"log.keep_best: the validation cannot give {metric}; data.val gives {', '.join(measurable)}. Go by one of "
            f"these, or name sources in data.val that have what {metric} is about"
        )
    raise UserError(
        f"log.keep_best: the validation cannot give {metric}: nothing in data.val has a truth to be scored by; name "
        "sources with annotations, or set log.keep_best to null"
    )
