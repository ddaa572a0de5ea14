"""Prompts written out by a language model or a program, for models that were trained on long captions. Off by default.

An ``Enhancer`` is anything that makes a prompt from a prompt. There are two: a program that reads the one on its
standard input and writes the other, and a folder with a causal language model in the layout of transformers. Nothing is
fetched, only safetensors are read, and no code comes from a model folder. What an enhancer gives is what the video is
made from, and what its file says; the prompt as it was given stands beside it. A failure ends the generation.
"""

import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from openltx.errors import CheckpointError, RequestError
from openltx.pipelines.request import GenerationRequest
from openltx.pipelines.windows import join_prompt, split_prompt

INSTRUCTION = (
    "Turn the idea below into a prompt for a video model. Write one flowing paragraph of at most 150 words, "
    "in the present tense, in the order in which things happen. Begin with the main movement, then say how it goes on. "
    "Describe how everything looks, how the camera stands or moves, and what the light and the colours are like. Keep "
    "what the idea says and add only what goes with it. Answer with the paragraph and nothing else."
)


@runtime_checkable  # for the type checks of the tests
class Enhancer(Protocol):
    """What makes a fuller prompt of a prompt."""

    def enhance(self, prompt: str) -> str:
        """The fuller prompt; raises an ``OpenLTXError`` if there is none."""
        ...


@dataclass(frozen=True)
class Program:
    """A program that reads a prompt on its standard input and writes the fuller one to its standard output.

    It is started as it stands, without a shell.
    """

    command: tuple[str, ...]
    timeout: float = 600.0

    def enhance(self, prompt: str) -> str:
        """The program's output; raises ``RequestError`` if it fails, writes nothing, or takes too long (seconds)."""
        name = self.command[0]
        try:
            done = subprocess.run(self.command, input=prompt.encode(), capture_output=True, timeout=self.timeout)
        except OSError as error:
            raise RequestError(f"{name} cannot be started to enhance the prompt: {error.strerror or error}.") from error
        except subprocess.TimeoutExpired as error:
            raise RequestError(f"{name} did not enhance the prompt within {self.timeout:g} s.") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise RequestError(f"{name} failed to enhance the prompt (exit code {done.returncode}): {said[-1]}")
        try:
            return _paragraph(done.stdout.decode(), name)
        except UnicodeDecodeError as error:
            raise RequestError(f"{name} did not write text in UTF-8.") from error


class LanguageModel:
    """A causal language model from a folder (transformers' layout, safetensors), told to write prompts out.

    It writes the likeliest words, so the same prompt gives the same text. Raises ``CheckpointError`` for a folder that
    holds no such model.
    """

    def __init__(self, folder: Path, max_new_tokens: int = 256) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.folder, self.max_new_tokens = folder, max_new_tokens
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise CheckpointError(
                f"{folder} is no folder with a language model: it must hold config.json, the tokenizer's files and the "
                "weights as .safetensors."
            )
        only_data: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(folder, **only_data)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **only_data)
        except Exception as error:  # transformers has no error of its own: whatever it says, the folder is at fault
            raise CheckpointError(f"The language model in {folder} cannot be loaded: {_first_line(error)}") from error
        self.model = model.eval()

    def enhance(self, prompt: str) -> str:
        """The model's answer; raises ``RequestError`` if it is empty or the prompt too long."""
        import torch

        inputs = self._inputs(prompt)
        used = inputs["input_ids"].shape[1]
        limit = getattr(self.model.config, "max_position_embeddings", None)
        if limit is not None and used + self.max_new_tokens > limit:
            raise RequestError(
                f"The prompt is too long to be enhanced by {self.folder}: with the instruction it has {used} tokens, "
                f"and {self.max_new_tokens} are to be written, but the model takes {limit}."
            )
        padding = self.tokenizer.pad_token_id
        with torch.inference_mode():
            written = self.model.generate(
                **inputs,
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id if padding is None else padding,
            )
        return _paragraph(self.tokenizer.decode(written[0, used:], skip_special_tokens=True), str(self.folder))

    def _inputs(self, prompt: str) -> Any:
        """Token ids and mask of the instruction and the prompt, as a conversation if the model knows how."""
        text = f"{INSTRUCTION}\n\nIdea: {prompt}"
        if self.tokenizer.chat_template is None:
            return self.tokenizer(f"{text}\n\nParagraph:", return_tensors="pt", return_token_type_ids=False)
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )


def open_enhancer(source: str) -> Enhancer:
    """A folder's language model, or the program of a command line. Raises ``RequestError`` if it is neither."""
    if source.strip() and Path(source).is_dir():
        return LanguageModel(Path(source))
    try:
        words = tuple(shlex.split(source))
    except ValueError as error:
        raise RequestError(f"enhance={source!r} is no command line: {error}.") from error
    if not words or shutil.which(words[0]) is None:
        raise RequestError(
            f"enhance={source!r} is neither a folder with a language model nor a program that can be started. A "
            "program reads the prompt on its standard input and writes the enhanced one to its standard output."
        )
    return Program(words)


def with_enhanced_prompt(
    request: GenerationRequest, enhancer: Enhancer, *, in_parts: bool = False
) -> GenerationRequest:
    """The request with a fuller prompt; the one it had is kept as ``original_prompt``.

    ``in_parts``: each part between bars is enhanced by itself, as a long video in windows needs it.
    """
    if in_parts:
        fuller = join_prompt([enhancer.enhance(part) for part in split_prompt(request.prompt)])
    else:
        fuller = enhancer.enhance(request.prompt)
    return replace(request, prompt=fuller, original_prompt=request.prompt)


def _paragraph(text: str, writer: str) -> str:
    """One line of text; raises ``RequestError`` if there is none."""
    words = text.split()
    if not words:
        raise RequestError(f"{writer} was to enhance the prompt, but wrote nothing.")
    return " ".join(words)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
