"""Prompts are written out by a program or a small language model, or the generation ends with a reason."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch

from openltx import CheckpointError, GenerationRequest, RequestError
from openltx.cli import main
from openltx.media.io import read_metadata
from openltx.pipelines.enhance import (
    INSTRUCTION,
    Enhancer,
    LanguageModel,
    Program,
    open_enhancer,
    with_enhanced_prompt,
)

LOUDER = "import sys; print(sys.stdin.buffer.read().decode().upper(), end='\\n\\n')"


def program(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


class Doubling:
    def enhance(self, prompt: str) -> str:
        return f"{prompt} {prompt}"


def test_a_program_reads_the_prompt_and_writes_a_fuller_one() -> None:
    assert open_enhancer(program(LOUDER)).enhance("a  blåe ball\nrolls") == "A BLÅE BALL ROLLS"


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    open_enhancer(f"{program(LOUDER)} ; touch {tmp_path / 'made'}").enhance("a ball")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no model here')", "exit code 1.*no model here"),
        ("pass", "wrote nothing"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "UTF-8"),
    ],
)
def test_a_program_that_fails_is_named_with_its_reason(code: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        open_enhancer(program(code)).enhance("a ball")


def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(RequestError, match=r"within 0\.2 s"):
        Program((sys.executable, "-c", "import time; time.sleep(9)"), timeout=0.2).enhance("a ball")


@pytest.mark.parametrize("source", ["no-such-program --fast", "", "'unfinished"])
def test_what_is_neither_program_nor_folder_is_refused(source: str) -> None:
    with pytest.raises(RequestError, match="enhance="):
        open_enhancer(source)


def test_the_request_keeps_both_prompts_and_parts_are_enhanced_one_by_one() -> None:
    enhancer: Enhancer = Doubling()
    request = with_enhanced_prompt(GenerationRequest("a | b"), enhancer)
    assert (request.prompt, request.original_prompt) == ("a | b a | b", "a | b")
    request = with_enhanced_prompt(GenerationRequest(r"a\|b | c"), enhancer, in_parts=True)
    assert request.prompt == r"a\|b a\|b | c c"


def test_the_file_has_both_prompts(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "ball.mp4"
    line = ["generate", "a ball", "--enhance", program(LOUDER), "--model", str(tiny_checkpoint), "-o", str(out)]
    assert main(line) == 0
    request = GenerationRequest.from_json(read_metadata(out)["request"])
    assert (request.prompt, request.original_prompt) == ("A BALL", "a ball")


def test_a_failure_never_falls_back_to_the_prompt_as_it_was(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ball.mp4"
    line = ["generate", "a ball", "--enhance", program("pass"), "--model", str(tiny_checkpoint), "-o", str(out)]
    assert main(line) == 2
    assert "wrote nothing" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture(scope="module")
def tiny_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal language model with random weights that reads and writes bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("language-model")
    vocabulary = {letter: i for i, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=1024,
        bos_token_id=None,
        eos_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_a_language_model_writes_the_likeliest_words(tiny_language_model: Path) -> None:
    model = LanguageModel(tiny_language_model, max_new_tokens=12)
    text = f"{INSTRUCTION}\n\nIdea: a ball\n\nParagraph:"
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    with torch.inference_mode():
        for _ in range(12):
            best = model.model(ids).logits[:, -1:].argmax(-1)
            if best.item() == 0:
                break
            ids = torch.cat([ids, best], 1)
    expected = model.tokenizer.decode(ids[0, start:])
    assert model.enhance("a ball") == " ".join(expected.split()) != ""


def test_a_language_model_that_knows_conversations_is_spoken_to(tiny_language_model: Path) -> None:
    model = LanguageModel(tiny_language_model, max_new_tokens=4)
    model.tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[answer]"
    text = model.tokenizer.decode(model._inputs("a ball")["input_ids"][0])
    assert text == f"[user]{INSTRUCTION}\n\nIdea: a ball[answer]"


def test_a_prompt_that_is_too_long_is_refused(tiny_language_model: Path) -> None:
    with pytest.raises(RequestError, match="takes 1024"):
        LanguageModel(tiny_language_model, max_new_tokens=12).enhance("a ball " * 200)


def test_pickled_weights_and_code_in_the_folder_are_never_run(tiny_language_model: Path, tmp_path: Path) -> None:
    for path in tiny_language_model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "unheard-of", "auto_map": {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.C"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        open_enhancer(str(tmp_path))
    assert not (tmp_path / "it-ran").exists()
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"as \.safetensors"):
        open_enhancer(str(tmp_path))
