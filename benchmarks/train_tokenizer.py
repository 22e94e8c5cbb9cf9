"""Make the packaged tokenizer: byte-level BPE in RoBERTa's format, from scene texts and common English words.

    python -m benchmarks.train_tokenizer [FOLDER]

Writes vocab.json, merges.txt and tokenizer_config.json, the same bytes on every run with the same version of
`tokenizers`. Models trained with one vocabulary cannot use another: make it anew only with a new release.
"""

import argparse
import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

# Counting words on several threads could break ties between equally frequent pairs in another order.
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import ByteLevelBPETokenizer

from fiber_cli.data.scenes.captions import captions
from fiber_cli.data.scenes.expressions import expressions
from fiber_cli.data.scenes.layout import scene
from fiber_cli.data.scenes.questions import questions
from fiber_cli.data.scenes.statements import pair_statements, statements

FOLDER = Path(__file__).parents[1] / "fiber_cli" / "assets" / "tokenizer"
SIZE = 2000
SCENES = 1000
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")

#: Words of everyday descriptions, frequent ones first, so that a user's own text is not spelt in letters.
WORDS = """
a the of and to in is on with at are for his her an it two from by that as this there one man woman while up
out people person their he she they its young white black red blue dog boy girl wearing standing shirt
street down playing water sitting walking men women group three over through near next front large other
child another some children looking into behind holding small green background air outside ball brown field
off grass yellow around little along beside who has have was be not or what which where how many does do you
can see photo picture image player running jumping dressed jacket hat riding bike snow dogs crowd beach
building side together top road orange big old camera four several horse park car something game against
pink sidewalk being table baseball soccer hand face city wall under shorts face long hands bicycle rock
while between head team wooden other mouth dark pants smiling people night girls boys toy light purple area
hill purple high across back after ocean sits stands walks runs jumps plays holds looks rides eating food
talking tree trees mountain river swimming pool tennis basketball football skateboard trick ramp jump
climbing guitar singing stage music band working worker construction wood metal glass paper floor room
kitchen house door window chair bench bed couch cat bird horses cow sheep elephant bear giraffe zebra animal
animals train bus truck motorcycle boat plane airplane traffic sign fire hydrant stop clock umbrella bag
suitcase tie frisbee ski skis skiing snowboard kite bat glove surfboard racket bottle wine cup fork knife
spoon bowl plate banana apple sandwich carrot pizza cake plant flower flowers toilet tv television laptop
mouse remote keyboard phone oven sink refrigerator book books vase teddy hair brush lady guy adult baby
family couple friends someone everyone both each all any few more most no none left right middle center
centre corner above below beneath bottom upper lower inside onto toward towards away past upon without
within during before about like than then when also only very just same different first second last new open
closed empty full bright clear cloudy sunny wet dry hot cold clean dirty short tall wide narrow round flat
thin thick gray grey gold silver tan color colour colored striped plaid dress coat jeans shoes boots helmet
glasses sunglasses cap scarf uniform suit costume swimsuit backpack leash collar stick rope net fence gate
bridge path trail track lake sea sand wave waves forest woods desert sky cloud sun moon star stars rain ice
stone rocks dirt mud hole cliff farm garden yard town village store shop market restaurant bar cafe station
airport school church stadium court playground festival parade wedding party race match sport sports bowling
golf hockey rugby dance dancing dancer performing performer watching waiting sleeping laying lying leaning
kneeling bending reaching throwing catching kicking hitting swinging sliding flying driving pulling pushing
carrying cutting cooking making taking giving getting going coming using reading writing painting drawing
cleaning fishing hiking surfing sledding racing chasing fetching digging drinking laughing crying posing
pointing waving hugging kissing shopping selling buying displays shows showing shown contains filled covered
made decorated parked crossing passing moving set seen being appears seems look stand sit walk run play hold
ride eat drink jump throw catch wear take make go get come use show day evening morning afternoon summer
winter spring year time way part piece number line row pair set kind type size shape object thing world
country american asian african police officer soldier student teacher doctor nurse chef driver rider skater
surfer skier swimmer runner singer musician artist crew body arm arms leg legs foot feet eye eyes nose ear
ears tail wing wings finger beard mustache smile tongue neck shoulder shoulders knee knees lap wheel wheels
seat engine tire ladder box boxes basket bucket barrel cart wagon stroller tent flag banner poster balloon
balloons candle lamp curtain carpet rug blanket pillow mirror shelf cabinet counter desk computer screen
microphone drum drums piano violin bread cheese meat chicken fish rice soup salad vegetable vegetables fruit
orange lemon tomato potato broccoli egg chocolate coffee tea milk beer ice cream donut hot sauce yes true
false would could should will did done many much fast slow close far low deep loud quiet happy sad angry
funny beautiful pretty colorful large huge tiny modern five six seven eight nine ten hundred old young
teenage elderly male female human
""".split()  # noqa: SIM905 (a list would have a line a word)


def corpus() -> Iterator[str]:
    """Scene texts as they come; each common word inside a sentence and at its beginning, weighted by rank."""
    scenes = [scene(0, "train", index) for index in range(SCENES)]
    for one, two in pairwise(scenes):
        yield from (caption.text for caption in captions(one))
        yield from (question.text for question in questions(one))
        yield from (question.answers[0] for question in questions(one))
        yield from (statement.text for statement in statements(one))
        yield from (statement.text for statement in pair_statements(one, two))
        yield from (expression.text for expression in expressions(one))
    for rank, word in enumerate(dict.fromkeys(WORDS)):
        weight = 20 + 4000 // (rank + 10)
        yield from [f"x {word}"] * weight
        yield from [word.capitalize()] * (weight // 10)


def train(folder: Path) -> None:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        corpus(), vocab_size=SIZE - 1, min_frequency=2, special_tokens=list(SPECIAL), show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    path = folder / "vocab.json"
    vocab = json.loads(path.read_text(encoding="utf-8"))
    vocab["<mask>"] = len(vocab)
    path.write_text(json.dumps(vocab, ensure_ascii=False) + "\n", encoding="utf-8")
    settings = {
        "tokenizer_class": "RobertaTokenizer",
        "add_prefix_space": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        # Takes the space before it along, as RoBERTa's does.
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": False},
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where the files go; default: %(default)s")
    train(parser.parse_args().folder)
