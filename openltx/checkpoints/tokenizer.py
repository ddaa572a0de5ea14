"""T5's tokenizer: 32000 SentencePiece words, read from tokenizer.json, spiece.model, or a GGUF file's header.

Ids are those of transformers' ``T5Tokenizer``: 0 pads, 1 ends every text, 2 is unknown.
"""

from collections.abc import Sequence
from pathlib import Path

from openltx.checkpoints.assets.t5 import T5_TOKENIZER
from openltx.checkpoints.gguf import field, is_gguf, open_gguf
from openltx.checkpoints.single_file import some
from openltx.errors import CheckpointError
from openltx.models.t5 import Tokenize

NAMES = ("tokenizer.json", "spiece.model")
PAD, END, UNKNOWN = 0, 1, 2


def find_tokenizer(weights: Path, given: Path | None = None) -> Path:
    """The tokenizer of an encoder: what is ``given``, else near ``weights``, in the GGUF file, or among the assets.

    Raises ``CheckpointError`` if there is none.
    """
    if given is not None:
        places = [given]
    elif weights.is_dir():
        places = [weights, weights / "tokenizer", weights.parent / "tokenizer"]
    else:
        places = [weights.parent, weights.parent / "tokenizer", weights.parent.parent / "tokenizer"]
    found = [file for place in places for file in (place, *(place / name for name in NAMES)) if file.is_file()]
    if given is None:
        found += [weights] if is_gguf(weights) else []
        found += [file for file in T5_TOKENIZER.files.values() if file.is_file()]
    if found:
        return found[0]
    raise CheckpointError(
        f"There is no T5 tokenizer for {weights}: no {' and no '.join(NAMES)} in {some([str(p) for p in places])}. "
        "Give one with --tokenizer (tokenizer=... in Python), or leave it out and fetch it once with: openltx assets "
        f"pull {T5_TOKENIZER.name}"
    )


def load_tokenizer(path: Path, vocabulary: int) -> Tokenize:
    """Texts to ids below ``vocabulary``; raises ``CheckpointError`` if the file is damaged or not T5's."""
    if is_gguf(path):
        return _from_gguf(path, vocabulary)
    if path.suffix == ".model":
        return _from_sentencepiece(path, vocabulary)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        raise CheckpointError(f"{path} is not a tokenizer.json that can be read: {error}.") from error
    return _wrapped(tokenizer, path, vocabulary)


def _wrapped(tokenizer, path: Path, vocabulary: int) -> Tokenize:
    words = {PAD: "<pad>", END: "</s>", UNKNOWN: "<unk>"}
    _require_t5(path, [tokenizer.id_to_token(i) for i in words], tokenizer.get_vocab_size(), vocabulary)
    tokenizer.no_truncation()  # the encoder cuts and pads, and says so
    tokenizer.no_padding()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]

    if tokenize([""]) != [[END]]:
        raise CheckpointError(f"{path} is not T5's tokenizer: it does not end a text with </s>.")
    return tokenize


def _from_sentencepiece(path: Path, vocabulary: int) -> Tokenize:
    try:
        from sentencepiece import SentencePieceProcessor
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"To read {path}, type: pip install 'openltx[t5]'. A tokenizer.json in its place needs nothing."
        ) from error
    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is not a SentencePiece model: {error}.") from error
    words = [processor.id_to_piece(i) for i in range(min(3, processor.vocab_size()))]
    _require_t5(path, words, processor.vocab_size(), vocabulary)

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [[*ids, END] for ids in processor.encode(list(texts))]

    return tokenize


def _from_gguf(path: Path, vocabulary: int) -> Tokenize:
    reader = open_gguf(path)
    names = ("tokens", "scores", "precompiled_charsmap")
    words, scores, charsmap = (field(reader, f"tokenizer.ggml.{name}") for name in names)
    if not words or not scores or len(words) != len(scores):
        raise CheckpointError(f"{path} brings no T5 tokenizer. Give one with --tokenizer (tokenizer=... in Python).")
    return _wrapped(unigram(list(zip(words, scores, strict=True)), bytes(charsmap or ())), path, vocabulary)


def unigram(words: list[tuple[str, float]], charsmap: bytes):
    """T5's tokenizer from its words with their scores, and the table that normalises characters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(words, unk_id=UNKNOWN, byte_fallback=False))
    if charsmap:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    return tokenizer


def _require_t5(path: Path, first: Sequence[str | None], size: int, vocabulary: int) -> None:
    if list(first) != ["<pad>", "</s>", "<unk>"]:
        raise CheckpointError(
            f"{path} is not T5's tokenizer: its first words are {', '.join(map(str, first))}, not <pad>, </s>, <unk>. "
            "Give T5's with --tokenizer (tokenizer=... in Python)."
        )
    if size > vocabulary:
        raise CheckpointError(
            f"{path} has {size} words, and the encoder knows {vocabulary}: they do not belong together. Give the "
            "encoder's own tokenizer with --tokenizer (tokenizer=... in Python)."
        )
