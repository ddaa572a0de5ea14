"""The real T5 tokenizer in its three forms, against transformers and SentencePiece."""

import base64
import json
import sys

import pytest

from openltx.checkpoints.assets.t5 import T5_TOKENIZER
from openltx.checkpoints.t5 import find_t5, load_t5
from openltx.checkpoints.tokenizer import find_tokenizer, load_tokenizer
from openltx.errors import CheckpointError

TEXTS = [
    "",
    "a red ball bounces on a checkered floor",
    'The house is wonderful. (Really?) -- "yes", it\'s 3.5 m high; 100% of it: #1 & co.',
    "A woman with long brown hair and light skin smiles at another woman with long blonde hair.\n" * 11 + "The end",
    "Ünïcödé: café, naïve, Straße, Øresund, façade, señor",
    "日本の庭 and 北京 and Москва",
    "emoji 🎬🏀 and ligatures ﬁne ﬂow, full width ＡＢＣ, ½ and ①",
    "two  spaces,\ttab,\nnewline and a non-breaking space",
    "camera: dolly-in/out; lens=35mm; f/1.8; ISO_800; http://example.org/a?b=c",
    "antidisestablishmentarianism xqzzy zyzzyva 0123456789",
    "LOUD, quiet and CamelCase; state-of-the-art",
    "translate English to German: The house is wonderful.",
]


@pytest.fixture(scope="module")
def real():
    """The pinned tokenizer.json (`make assets` fetches it)."""
    (path,) = T5_TOKENIZER.files.values()
    assert path.is_file(), "run: openltx assets pull t5-tokenizer"
    return path


@pytest.fixture(scope="module")
def parts(real):
    """Words with their scores, and the table of characters."""
    stored = json.loads(real.read_text())
    words = [(word, score) for word, score in stored["model"]["vocab"]]
    normalizer = stored["normalizer"]
    while "precompiled_charsmap" not in normalizer:
        normalizer = normalizer["normalizers"][0]
    return words, base64.b64decode(normalizer["precompiled_charsmap"])


@pytest.fixture(scope="module")
def spiece(parts, tmp_path_factory):
    """The file that T5's authors published, made again from its parts."""
    from sentencepiece import sentencepiece_model_pb2 as pb2

    words, charsmap = parts
    model = pb2.ModelProto()
    for i, (word, score) in enumerate(words[:32000]):
        kind = pb2.ModelProto.SentencePiece.Type
        model.pieces.add(
            piece=word, score=score, type=kind.UNKNOWN if i == 2 else kind.CONTROL if i < 2 else kind.NORMAL
        )
    for name, value in {
        "model_type": 1,
        "vocab_size": 32000,
        "pad_id": 0,
        "eos_id": 1,
        "unk_id": 2,
        "bos_id": -1,
    }.items():
        setattr(model.trainer_spec, name, value)
    model.normalizer_spec.name = "nmt_nfkc"
    model.normalizer_spec.precompiled_charsmap = charsmap
    path = tmp_path_factory.mktemp("spiece") / "spiece.model"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def theirs(parts):
    from transformers import T5Tokenizer

    tokenizer = T5Tokenizer(vocab=parts[0], _spm_precompiled_charsmap=parts[1])
    return lambda text: tokenizer(text)["input_ids"]


def test_the_asset_is_t5s_tokenizer(real):
    tokenize = load_tokenizer(real, 32128)
    assert tokenize([TEXTS[-1]]) == [[13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 1]]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(real, theirs, text):
    assert load_tokenizer(real, 32128)([text]) == [theirs(text)]


def test_a_sentencepiece_model_gives_the_same_ids(real, spiece):
    assert load_tokenizer(spiece, 32128)(TEXTS) == load_tokenizer(real, 32128)(TEXTS)


def test_a_gguf_header_gives_the_same_ids(real, parts, tmp_path):
    import gguf

    path = tmp_path / "t5.gguf"
    writer = gguf.GGUFWriter(path, "t5encoder")
    writer.add_token_list([word for word, _ in parts[0]])
    writer.add_token_scores([score for _, score in parts[0]])
    writer.add_precompiled_charsmap(parts[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert load_tokenizer(path, 32128)(TEXTS) == load_tokenizer(real, 32128)(TEXTS)


def test_a_tokenizer_that_cuts_or_pads_by_itself_is_stopped(real, tmp_path):
    stored = json.loads(real.read_text())
    stored["truncation"] = {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    stored["padding"] = {
        "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    assert load_tokenizer(tmp_path / "tokenizer.json", 32128)(TEXTS) == load_tokenizer(real, 32128)(TEXTS)


def test_a_sentencepiece_model_needs_its_package(spiece, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(CheckpointError, match=r"pip install 'openltx\[t5\]'"):
        load_tokenizer(spiece, 32128)


@pytest.mark.parametrize("name", ["tokenizer.json", "spiece.model"])
@pytest.mark.parametrize("content", ["", "{}", "<html>", '{"model": 1}'])
def test_other_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        load_tokenizer(tmp_path / name, 32128)


def test_another_models_tokenizer_is_refused(tmp_path):
    from importlib.resources import files

    path = files("openltx") / "bundled" / "minilm" / "tokenizer.json"
    with pytest.raises(CheckpointError, match=r"is not T5's tokenizer: its first words are \[PAD\]"):
        load_tokenizer(path, 32128)


def test_a_larger_vocabulary_than_the_encoders_is_refused(real):
    with pytest.raises(CheckpointError, match="32100 words, and the encoder knows 64"):
        load_tokenizer(real, 64)


def test_the_tokenizer_is_looked_for_near_the_weights(tmp_path, monkeypatch, t5_files):
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "models" / "text_encoders" / "t5xxl.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    with pytest.raises(CheckpointError, match="openltx assets pull t5-tokenizer"):
        find_tokenizer(weights)
    (asset,) = T5_TOKENIZER.files.values()
    asset.parent.mkdir(parents=True)
    asset.touch()
    assert find_tokenizer(weights) == asset
    for folder in (weights.parent.parent / "tokenizer", weights.parent / "tokenizer", weights.parent):
        expected = t5_files.write_tokenizer(folder)
        assert find_tokenizer(weights) == expected
    assert find_tokenizer(weights, asset) == asset
    assert find_tokenizer(weights, weights.parent.parent / "tokenizer").parent.name == "tokenizer"
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json and no spiece\.model in .*elsewhere"):
        find_tokenizer(weights, tmp_path / "elsewhere")


def test_a_gguf_file_brings_its_own(tmp_path, t5_files, monkeypatch):
    monkeypatch.setenv("OPENLTX_CACHE", str(tmp_path / "cache"))
    folder = t5_files.write_folder(tmp_path / "t5")
    path = t5_files.write_gguf(tmp_path / "alone" / "t5.gguf", t5_files.tensors_of(folder))
    assert find_tokenizer(path) == path
    assert load_t5(path).tokenize(["a red ball"]) == load_t5(folder).tokenize(["a red ball"])
    assert find_t5(path).config == find_t5(folder).config
