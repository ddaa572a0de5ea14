"""Token states in files: what is written comes back, and what is not token states is refused."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from openltx.checkpoints.prompts import load_prompts, save_prompts
from openltx.errors import CheckpointError
from openltx.models.text import PromptStates, TextContext


def context(length=5, tokens=3, dtype=torch.float32):
    return TextContext(torch.randn(1, length, 8).to(dtype), torch.arange(length)[None] < tokens)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ball.safetensors"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_come_back_bit_by_bit_with_their_texts(path, dtype):
    states = PromptStates(
        positive=context(dtype=dtype), negative=context(7, 1, dtype), prompt="a ball", negative_prompt="Ω blurry"
    )
    save_prompts(path, states, text_encoder="t5")
    loaded = load_prompts(path)
    assert (loaded.prompt, loaded.negative_prompt) == ("a ball", "Ω blurry")
    for ours, theirs in ((loaded.positive, states.positive), (loaded.negative, states.negative)):
        assert torch.equal(ours.embeddings, theirs.embeddings)
        assert ours.embeddings.dtype == dtype
        assert torch.equal(ours.mask, theirs.mask)
    with safe_open(path, "pt") as file:
        assert file.metadata()["text_encoder"] == "t5"
        assert set(file.keys()) == {
            "prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask",
        }  # fmt: skip


def test_a_batch_is_written_row_by_row(path):
    both = torch.randn(2, 5, 8)
    mask = torch.ones(2, 5, dtype=torch.bool)
    save_prompts(path, PromptStates(positive=TextContext(both[1:], mask[1:])))
    assert torch.equal(load_prompts(path).positive.embeddings, both[1:])
    assert load_prompts(path).negative is None


@pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.bool])
def test_what_others_wrote_without_a_batch_is_read(path, kind):
    mask = torch.tensor([1, 1, 0])
    save_file({"prompt_embeds": torch.ones(3, 8), "prompt_attention_mask": mask.to(kind)}, path)
    loaded = load_prompts(path)
    assert loaded.positive.embeddings.shape == (1, 3, 8)
    assert loaded.positive.mask.tolist() == [[True, True, False]]
    assert loaded.prompt == ""


@pytest.mark.parametrize(
    ("tensors", "complaint"),
    [
        ({"prompt_embeds": torch.ones(1, 3, 8)}, "has no tensor prompt_attention_mask; it has prompt_embeds"),
        ({"weight": torch.ones(1)}, "has no tensor prompt_embeds"),
        (
            {"prompt_embeds": torch.ones(2, 3, 8), "prompt_attention_mask": torch.ones(2, 3)},
            r"not hold the states of one prompt: prompt_embeds is \[2, 3, 8\]",
        ),
        ({"prompt_embeds": torch.ones(1, 3, 8), "prompt_attention_mask": torch.ones(1, 4)}, r"mask \[1, 4\]"),
        (
            {"prompt_embeds": torch.ones(1, 3, 8, dtype=torch.int32), "prompt_attention_mask": torch.ones(1, 3)},
            "must be float32, float16 or bfloat16",
        ),
        ({"prompt_embeds": torch.ones(1, 3, 8), "prompt_attention_mask": torch.ones(1, 3) * 2}, "must be 1 for tokens"),
        ({"prompt_embeds": torch.ones(1, 3, 8), "prompt_attention_mask": torch.zeros(1, 3)}, "a token at least"),
    ],
)
def test_other_tensors_are_refused(path, tensors, complaint):
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=complaint):
        load_prompts(path)


def test_a_pickle_and_a_cut_file_are_refused(path):
    torch.save({"prompt_embeds": torch.ones(1, 3, 8)}, path)
    with pytest.raises(CheckpointError, match="is a pickle"):
        load_prompts(path)
    save_prompts(path, PromptStates(positive=context()))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="cut short"):
        load_prompts(path)


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_prompts(tmp_path / "nowhere" / "a.safetensors", PromptStates(positive=context()))
    assert list(tmp_path.iterdir()) == []
