"""Who encodes a request's words: a T5 that is given, token states that are given, or nobody."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import openltx
from openltx import CheckpointError, GenerationRequest, Generator, LTXModel, RequestError
from openltx.checkpoints.prompts import save_prompts
from openltx.models.t5 import T5Encoder
from openltx.models.text import PromptStates, TextContext, join
from openltx.pipelines import generate as module
from openltx.pipelines import velocity
from openltx.pipelines.texts import token_states

PROMPT = "a red ball bounces"
REQUEST = GenerationRequest(PROMPT, negative="a blue box", seed=1)


@pytest.fixture(scope="module")
def t5_folder(t5_files: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return t5_files.write_folder(tmp_path_factory.mktemp("t5"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openltx.checkpoints.t5.cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def model(tiny_checkpoint: Path, t5_folder: Path) -> LTXModel:
    return openltx.load(tiny_checkpoint, device="cpu", precision="float32", text_encoder=t5_folder)


def states_of(model: LTXModel, prompt: str = PROMPT, negative: str = "a blue box") -> PromptStates:
    assert model.text is not None
    context = model.text.encode([prompt, negative])
    positive, unwanted = (TextContext(context.embeddings[i : i + 1], context.mask[i : i + 1]) for i in range(2))
    return PromptStates(positive=positive, negative=unwanted, prompt=prompt, negative_prompt=negative)


def latents(model: LTXModel, request: GenerationRequest, states: PromptStates | None = None) -> torch.Tensor:
    generator = Generator(model)
    *_, last = generator.sample(generator.prepare(request, embeddings=states))
    return last.state.targets


def test_a_given_t5_reads_the_prompt(model: LTXModel, tiny_model: LTXModel) -> None:
    assert isinstance(model.text, T5Encoder)
    words = [latents(model, replace(REQUEST, prompt=text)) for text in (PROMPT, "the blue box")]
    assert not torch.equal(*words)
    assert not torch.equal(words[0], latents(tiny_model, REQUEST))


def test_padding_changes_nothing_that_is_seen(model: LTXModel) -> None:
    """The transformer masks it, so it may hold anything, and may be left out."""
    states = states_of(model)
    junk = torch.where(states.positive.mask[..., None], states.positive.embeddings, 7.0)
    transformer = model.transformer
    positions = torch.rand(1, 3, 6)
    tokens, t = torch.randn(1, 6, 16), torch.tensor([0.5])
    bare = states.positive.trimmed()
    assert bare.mask.all()
    assert bare.mask.sum() == states.positive.mask.sum() < 256
    with torch.inference_mode():
        whole, other, short = (
            transformer(tokens, t, positions, context.embeddings, context.mask)
            for context in (states.positive, replace(states.positive, embeddings=junk), bare)
        )
    assert torch.equal(whole, other)
    torch.testing.assert_close(whole, short, rtol=0, atol=1e-5)


def test_given_states_are_as_good_as_their_words(model: LTXModel, tmp_path: Path) -> None:
    expected = latents(model, REQUEST)
    states = states_of(model)
    silent = replace(model, text=None)
    assert torch.equal(latents(silent, REQUEST, states), expected)
    save_prompts(tmp_path / "ball.safetensors", states)
    request = GenerationRequest(prompt_embeds=tmp_path / "ball.safetensors", seed=1)
    assert torch.equal(latents(silent, request), expected)
    prepared = Generator(silent).prepare(request)
    assert (prepared.request.prompt, prepared.request.negative) == (PROMPT, "a blue box")
    assert np.array_equal(
        Generator(silent)(GenerationRequest.from_json(prepared.request.to_json())).frames,
        openltx.generate(model, PROMPT, negative="a blue box", seed=1).frames,
    )


def test_prompt_and_negative_are_the_same_in_one_batch_and_one_by_one(
    model: LTXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = latents(model, REQUEST)
    monkeypatch.setattr(velocity, "ONE_BATCH_TOKENS", 0)
    torch.testing.assert_close(latents(model, REQUEST), together, rtol=0, atol=1e-4)


def test_only_what_guidance_needs_is_encoded(model: LTXModel) -> None:
    assert len(token_states(model, REQUEST, None, negative=False)) == 1
    states = replace(states_of(model), negative=None)
    assert len(token_states(replace(model, text=None), REQUEST, states, negative=False)) == 1


def test_a_missing_negative_is_encoded_or_asked_for(model: LTXModel) -> None:
    states = replace(states_of(model), negative=None)
    assert torch.equal(latents(model, REQUEST, states), latents(model, REQUEST))
    with pytest.raises(CheckpointError, match="cannot read the negative prompt"):
        latents(replace(model, text=None), REQUEST, states)


def test_a_model_without_an_encoder_says_what_to_give_before_it_reads_pictures(
    model: LTXModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "given_items", lambda *_: pytest.fail("a picture was read"))
    with pytest.raises(CheckpointError, match=r"--text-encoder PATH.*--prompt-embeds FILE"):
        Generator(replace(model, text=None)).prepare(REQUEST)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: TextContext(c.embeddings[..., :8], c.mask), r"\[1, 256, 8\].* reads \[1, tokens, 384\]"),
        (lambda c: join([c, c]), r"\[2, 256, 384\]"),
        (lambda c: TextContext(c.embeddings * torch.nan, c.mask), "NaN"),
    ],
)
@pytest.mark.parametrize("which", ["positive", "negative"])
def test_states_that_do_not_fit_are_refused(model: LTXModel, change, complaint: str, which: str) -> None:
    states = states_of(model)
    wrong = replace(states, **{which: change(getattr(states, which))})
    with pytest.raises(RequestError, match=complaint):
        Generator(model).prepare(REQUEST, embeddings=wrong)


@pytest.mark.parametrize(("field", "text"), [("prompt", "a cat"), ("negative", "rain")])
def test_states_of_other_words_are_refused(model: LTXModel, field: str, text: str) -> None:
    with pytest.raises(RequestError, match=f'made of the {field} .* and the request says "{text}"'):
        Generator(model).prepare(replace(REQUEST, **{field: text}), embeddings=states_of(model))


def test_a_t5_of_another_width_is_refused(t5_files: ModuleType, tiny_checkpoint: Path, tmp_path: Path) -> None:
    t5_files.transformers_t5(d_model=32).save_pretrained(tmp_path / "narrow")
    t5_files.write_tokenizer(tmp_path / "narrow")
    with pytest.raises(CheckpointError, match="gives 32 channels, and the transformer of tiny reads 384"):
        openltx.load(tiny_checkpoint, device="cpu", text_encoder=tmp_path / "narrow")


def test_contexts_of_several_lengths_join_with_padding() -> None:
    contexts = [TextContext(torch.ones(1, n, 4), torch.ones(1, n, dtype=torch.bool)) for n in (2, 3)]
    both = join(contexts)
    assert both.mask.tolist() == [[True, True, False], [True, True, True]]
    assert not both.embeddings[0, 2].any()


def test_a_context_without_any_token_is_left_as_it_is() -> None:
    nothing = TextContext(torch.ones(1, 3, 4), torch.zeros(1, 3, dtype=torch.bool))
    assert nothing.trimmed().embeddings.shape == (1, 3, 4)


def test_a_request_needs_words_or_states() -> None:
    with pytest.raises(RequestError, match="prompt is empty"):
        GenerationRequest()
    assert GenerationRequest(prompt_embeds="ball.safetensors").prompt == ""
