"""The results of an evaluation, on disk and on screen."""

from pathlib import Path
from typing import Any

from fiber_cli.characters import one_line
from fiber_cli.text_files import dump_json

_DIRECTIONS = (("image retrieval (IR)", "ir"), ("text retrieval (TR)", "tr"))


def write_results(output: Path, results: dict[str, Any], files: dict[str, Any]) -> None:
    """`output`/results.json, and the files of a `Result` beside it: text as it is, everything else as JSON."""
    for name, content in {"results.json": results, **files}.items():
        text = content if isinstance(content, str) else dump_json(content, indent=2) + "\n"
        path = output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")


def table(results: dict[str, Any]) -> str:
    """The results for the screen; recalls as one row per way and direction."""
    metrics = dict(results["metrics"])
    counts = f"{results['samples']} samples"
    if "texts" in results:
        counts = f"{results['images']} images, {results['texts']} texts"
    lines = [f"{results['dataset']} {results['split']}, {results['mode']}: {counts}, {results['seconds']} s"]
    ways = _ways_of_retrieval(metrics)
    width = max([11, *map(len, ways)])
    for way in ways:
        for title, direction in _DIRECTIONS:
            cells = [f"@{k} {metrics.pop(f'{way}/{direction}@{k}'):6.2f}" for k in (1, 5, 10)]
            lines.append(f"  {way:<{width}} {title:<21} {'   '.join(cells)}")
    width = max([32, *map(len, metrics)])
    for name, value in metrics.items():
        lines.append(f"  {name:<{width}} {value:8.2f}")
    if results["bad"]:
        lines.append(f"  left out: {len(results['bad'])}, such as {': '.join(results['bad'][0])}")
    if results["truncated"]:
        lines.append(f"  {results['truncated']} texts were cut at the model's text length")
    lines.extend(f"  {note}" for note in results["notes"])
    return "\n".join(map(one_line, lines))


def _ways_of_retrieval(metrics: dict[str, float]) -> list[str]:
    """Such as "itc" and "rerank-50", in their order."""
    ways = [name.partition("/")[0] for name in metrics if "/ir@" in name]
    return list(dict.fromkeys(ways))
