"""RoBERTa's tokeniser out of the two files in which a checkpoint keeps it, by the tokenizers library alone.

`import transformers` looks into thousands of files and takes longer than a small checkpoint does to answer. Where the
files say exactly what transformers would make of them, the same is made of them directly; for all that is not asked of
it daily it stands aside for transformers' own.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fiber_cli.data.tokenizer_files import CONFIG, read_folder, read_object

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer.json"
#: Special tokens in transformers' order.
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
#: Settings of tokenizer_config.json that change nothing of what is asked here.
_IDLE = {"tokenizer_class", "backend", "is_local", "local_files_only", "name_or_path", "model_max_length", "errors"}
_OPTIONS = {"add_special_tokens", "return_offsets_mapping", "verbose"}
#: What RoBERTa's tokeniser has in tokenizer.json beside its words.
_MODEL = {
    **{"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""},
    **{"fuse_unk": False, "byte_fallback": False, "ignore_merges": False},
}
_BYTES = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}


class Encodings(dict[str, Any]):
    """`input_ids`, `attention_mask` and, where they were asked for, `offset_mapping`: a list for one text, a list of
    lists for several."""

    @property
    def input_ids(self) -> Any:
        return self["input_ids"]

    @property
    def attention_mask(self) -> Any:
        return self["attention_mask"]


class QuickTokenizer:
    """What is asked of `PreTrainedTokenizerBase` to encode and decode, with the same answers; the rest, and what is
    asked afterwards, is answered by transformers' tokeniser of the same files, which is made then.

    tokens: by the names in tokenizer_config.json. files: the two files' content by name.
    """

    def __init__(self, folder: Path, backend: "Tokenizer", tokens: Mapping[str, str], files: Mapping[str, bytes]):
        self._folder, self._backend, self._files = folder, backend, files
        self._full: PreTrainedTokenizerBase | None = None
        self.name_or_path = str(folder)
        self.all_special_tokens = list(dict.fromkeys(tokens[name] for name in _TOKENS))
        self.all_special_ids = [backend.token_to_id(token) for token in self.all_special_tokens]
        self.cls_token_id = backend.token_to_id(tokens["cls_token"])
        self.sep_token_id = backend.token_to_id(tokens["sep_token"])
        self.pad_token_id = backend.token_to_id(tokens["pad_token"])
        self.mask_token_id = backend.token_to_id(tokens["mask_token"])

    def __call__(self, text: str | Sequence[str], *pairs: Any, **options: Any) -> Any:
        """One text or several to `Encodings`, see transformers."""
        texts = [text] if isinstance(text, str) else text
        is_usual = isinstance(texts, list) and texts and all(isinstance(each, str) for each in texts)
        if self._full is not None or not is_usual or pairs or options.keys() - _OPTIONS:
            return self.full()(text, *pairs, **options)
        encoded = self._backend.encode_batch(texts, add_special_tokens=options.get("add_special_tokens", True))
        lists: dict[str, list[Any]] = {
            "input_ids": [each.ids for each in encoded],
            "attention_mask": [each.attention_mask for each in encoded],
        }
        if options.get("return_offsets_mapping"):
            lists["offset_mapping"] = [each.offsets for each in encoded]
        if isinstance(text, str):
            return Encodings({name: of_texts[0] for name, of_texts in lists.items()})
        return Encodings(lists)

    def batch_decode(self, sequences: Any, **options: Any) -> Any:
        """Texts of token ids, see transformers."""
        if self._full is not None or options.keys() - {"skip_special_tokens"}:
            return self.full().batch_decode(sequences, **options)
        rows = [list(map(int, row)) for row in sequences]
        return self._backend.decode_batch(rows, skip_special_tokens=options.get("skip_special_tokens", False))

    def __len__(self) -> int:
        return len(self.get_vocab())

    def get_vocab(self) -> dict[str, int]:
        """Tokens by their text, special ones with them."""
        if self._full is not None:
            return self._full.get_vocab()
        return self._backend.get_vocab(with_added_tokens=True)

    @property
    def backend_tokenizer(self) -> "Tokenizer":
        """What encodes, see transformers; what is set of it holds for the full tokeniser too."""
        return self._backend if self._full is None else self._full.backend_tokenizer

    def full(self) -> "PreTrainedTokenizerBase":
        """transformers' tokeniser of the files as they were when this one was made."""
        if self._full is None:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self._files.items():
                    (Path(folder) / name).write_bytes(content)
                self._full = read_folder(Path(folder))
            self._full.name_or_path = self.name_or_path
            self._full.backend_tokenizer.normalizer = self._backend.normalizer
        return self._full

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # also while a copy is being made
            raise AttributeError(name)
        return getattr(self.full(), name)


def read_quickly(folder: Path) -> "PreTrainedTokenizerBase | None":
    """The tokeniser of a folder that holds a `RobertaTokenizer`'s two files as transformers writes them and nothing
    else; None for all other folders, damaged ones too."""
    try:
        if {path.name for path in folder.iterdir()} != {TOKENIZER, CONFIG}:
            return None
        content, config = read_object(folder / TOKENIZER), read_object(folder / CONFIG)
        files = {name: (folder / name).read_bytes() for name in (TOKENIZER, CONFIG)}
    except (OSError, ValueError):
        return None
    if not _is_usual(content, config):
        return None
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_buffer(files[TOKENIZER])
    except Exception:  # all that the library raises, of which transformers then says more
        return None
    tokens = {name: config[name] for name in _TOKENS}
    if any(backend.token_to_id(token) is None for token in tokens.values()):
        return None
    backend.encode_special_tokens = False
    return cast("PreTrainedTokenizerBase", QuickTokenizer(folder, backend, tokens, files))


def _is_usual(content: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether tokenizer.json holds what `RobertaTokenizer` makes of the settings in tokenizer_config.json."""
    settings = {"add_prefix_space": config.get("add_prefix_space"), "trim_offsets": config.get("trim_offsets")}
    if config.keys() - _IDLE != {*_TOKENS, *settings} or config.get("tokenizer_class") != "RobertaTokenizer":
        return False
    if not all(isinstance(config[name], str) for name in _TOKENS):
        return False
    if not all(isinstance(value, bool) for value in settings.values()):
        return False
    model, added = content.get("model"), content.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(added, list):
        return False
    ids = {token["content"]: token["id"] for token in added if token.get("special") is True}
    sep, cls = config["sep_token"], config["cls_token"]
    parts = {
        "truncation": None,
        "padding": None,
        "normalizer": None,
        "pre_tokenizer": {**_BYTES, "add_prefix_space": config["add_prefix_space"]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [sep, ids.get(sep)],
            "cls": [cls, ids.get(cls)],
            **settings,
        },
        "decoder": {**_BYTES, "add_prefix_space": True},
    }
    is_of_roberta = all(content.get(name) == part for name, part in parts.items())
    is_plain_bpe = {name: value for name, value in model.items() if name not in ("vocab", "merges")} == _MODEL
    has_tokens_alone = ids.keys() == {config[name] for name in _TOKENS} and len(ids) == len(added)
    knows_words = len(model.get("vocab", ())) > len(ids)
    return is_of_roberta and is_plain_bpe and has_tokens_alone and knows_words
