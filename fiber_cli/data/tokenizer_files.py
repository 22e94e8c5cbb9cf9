"""A tokeniser from its data files alone, of one of two classes of transformers.

What comes with a tokeniser may name code: classes of its own (`auto_map`), templates (`chat_template`). None of it is
loaded, offered or kept; and no class is looked up by a name out of a file.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiber_cli.data.file_records import say_once
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import check_regular

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONFIG, MODEL_CONFIG = "tokenizer_config.json", "config.json"
VOCABULARY = ("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "special_tokens_map.json")
#: All that is read of a folder, and fetched from the hub.
FILES = (*VOCABULARY, CONFIG, MODEL_CONFIG)
#: Bytes; the largest vocabularies have tens of millions.
_LARGEST_FILE = 256 * 2**20
#: Names of classes that are RoBERTa's tokeniser, without "Fast".
_ROBERTA = frozenset({"RobertaTokenizer", "BartTokenizer", "LEDTokenizer", "LongformerTokenizer"})
#: Settings of tokenizer_config.json that hold values; special tokens (`…_token`) and these.
_SETTINGS = frozenset(
    (
        *("add_prefix_space", "trim_offsets", "errors", "model_max_length", "padding_side", "truncation_side"),
        *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "split_special_tokens"),
        *("clean_up_tokenization_spaces", "model_input_names", "do_lower_case", "strip_accents"),
    )
)
#: Settings of no effect here: the class, which is one of two, and where the files were when they were written.
_IDLE = frozenset(("tokenizer_class", "backend", "is_local", "local_files_only", "name_or_path"))
#: Settings that name code.
_CODE = ("auto_map", "trust_remote_code", "chat_template")


def read_folder(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokeniser of a folder with `tokenizer.json`, or `vocab.json` and `merges.txt`: RoBERTa's class where the
    folder says that it is RoBERTa's or says nothing, else what `tokenizer.json` describes. Code that it names is told
    and left alone. Raises OSError or ValueError, and what transformers raises for damaged files."""
    from transformers import PreTrainedTokenizerFast, RobertaTokenizer

    files = {path.name for path in folder.iterdir()}
    # transformers builds an empty tokeniser from an empty folder without a word.
    if "tokenizer.json" not in files and not {"vocab.json", "merges.txt"} <= files:
        raise OSError("the folder has neither tokenizer.json nor vocab.json and merges.txt")
    config = read_object(folder / CONFIG)
    model = read_object(folder / MODEL_CONFIG)
    code = [name for name in _CODE if name in config or name in model]
    if code:
        say_once(
            f"{folder}: {', '.join(code)} of its settings is code, which is never run; the tokeniser is its data files"
        )
    is_roberta = "tokenizer.json" not in files or _says_roberta(config, model)
    kind = RobertaTokenizer if is_roberta else PreTrainedTokenizerFast
    settings = {name: value for name, value in config.items() if _is_value(name)}
    unfamiliar = files - {*VOCABULARY, CONFIG} or config.keys() - settings.keys() - _IDLE
    with ExitStack() as stack:
        # What holds nothing else, as our own, is read where it is: a full disk keeps nobody from using it.
        source = folder
        if unfamiliar or not str(folder.absolute()).isprintable():
            source = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _copy(folder, VOCABULARY, source)
            (source / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
        for name in VOCABULARY:
            _check_size(folder / name)
        tokenizer: PreTrainedTokenizerBase = kind.from_pretrained(source)
    tokenizer.name_or_path = str(folder)
    return tokenizer


def _is_value(setting: str) -> bool:
    return setting in _SETTINGS or setting.endswith("_token")


def fetch(name: str) -> Path:
    """The folder with the data files of a tokeniser on the Hugging Face hub, downloaded or from its cache. Raises
    OSError or ValueError where there is none."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=list(FILES)))


def _says_roberta(config: dict[str, Any], model: dict[str, Any]) -> bool:
    """Whether the settings of a tokeniser, and of a model beside it, are RoBERTa's, or none at all."""
    name = config.get("tokenizer_class") or model.get("tokenizer_class")
    if isinstance(name, str):
        return name.removesuffix("Fast") in _ROBERTA
    return model.get("model_type") == "roberta" or not (config or model)


def read_object(file: Path) -> dict[str, Any]:
    """The content of a JSON file, nothing where it is not there."""
    if not file.is_file():
        return {}
    _check_size(file)
    try:
        content = parse_json(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file.name} is not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} holds no JSON object")
    return content


def _copy(folder: Path, names: Iterable[str], to: Path) -> None:
    for name in names:
        file = folder / name
        if file.is_file():
            _check_size(file)
            shutil.copyfile(file, to / name)


def _check_size(file: Path) -> None:
    """ValueError for a file, where it is there, that is larger than any vocabulary."""
    check_regular(file)
    size = file.stat().st_size if file.is_file() else 0
    if size > _LARGEST_FILE:
        raise ValueError(f"{file.name} has {size:,} bytes, which no tokeniser has")
