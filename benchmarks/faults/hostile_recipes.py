"""Recipes that multiply, go round, are too deep, or hold what no recipe holds."""

from pathlib import Path

from benchmarks.faults import harm
from benchmarks.faults.hostile import Hostile, Make
from benchmarks.faults.stock import Stock

RECIPES: dict[str, str] = {
    "a list": "- 1\n- 2\n",
    "aliases that multiply": "model:\n- &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"- &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(9)),
    "aliases of mappings that multiply": "model:\n- &a0 {x: 1}\n"
    + "".join(f"- &a{n + 1} {{p: *a{n}, q: *a{n}}}\n" for n in range(60)),
    "an alias of itself": "model: &a [*a]\n",
    "a mapping that holds itself": "model: &a {preset: *a}\n",
    "merge keys that go round": "model: &a\n  <<: *a\n  preset: tiny\n",
    "an alias of nothing": "model: *nowhere\n",
    "a Python object": "model: !!python/object/apply:os.system ['touch executed']\n",
    "a Python name": "model: !!python/name:os.system\n",
    "an unknown tag": "model: !secret {preset: tiny}\n",
    "a key twice": "model: {preset: tiny}\nmodel: {preset: base}\n",
    "a key that is a number": "3: {preset: tiny}\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a date for a number": "optim: {lr: 2026-01-01, steps: 2}\n",
    "an impossible date": "optim: {lr: 2026-13-45, steps: 2}\n",
    "bytes for a text": "name: !!binary aGVsbG8=\n",
    "a number of 5,000 digits": f"optim: {{steps: {harm.MANY_DIGITS}}}\n",
    "a hexadecimal number of 5,000 digits": f"optim: {{steps: 0x{'f' * 5000}}}\n",
    "a sexagesimal number": f"optim: {{steps: 1{':59' * 3000}}}\n",
    "tabs": "model:\n\tpreset: tiny\n",
    "two documents": "model: {preset: tiny}\n---\nmodel: {preset: tiny}\n",
    "a control character": "name: \x07\n",
    "a mapping 5,000 deep": "a: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n",
    "a block 3,000 deep": "".join(" " * n + "a:\n" for n in range(3000)),
    "sections that are lists": "model: []\ntask: []\ndata: []\noptim: []\n",
    "sections that are empty": "model:\ntask:\ndata:\noptim:\n",
    "a misspelt section": "modell: {preset: tiny}\n",
}


def _recipe(text: str) -> Make:
    def make(stock: Stock, folder: Path) -> list[object]:
        (folder / "bad.yaml").write_text(text)
        return ["pretrain", "coarse", "--recipe", "bad.yaml", "--output", folder / "out"]

    return make


def hostile() -> list[Hostile]:
    return [
        Hostile(11, f"pretrain: the recipe has {what}", _recipe(text), "bad.yaml") for what, text in RECIPES.items()
    ]
