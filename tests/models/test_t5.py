"""Our T5 against transformers', and the encoder's laws."""

import pytest
import torch

from openltx.cache import TensorCache
from openltx.checkpoints.t5 import find_t5, load_t5
from openltx.errors import RequestError
from openltx.models.t5 import PROMPTS_AT_ONCE, T5, T5Config, T5Encoder, distance_buckets

PROMPTS = ["a red ball bounces", "", "the blue box, the red box. a ball bounces", "zebra"]


@pytest.fixture(scope="module")
def theirs(t5_files):
    return t5_files.transformers_t5()


@pytest.fixture(scope="module")
def folder(t5_files, tmp_path_factory):
    return t5_files.write_folder(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def encoder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("openltx.checkpoints.t5.cache_folder", lambda: tmp_path / "cache")
    return load_t5(folder)


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def test_the_network_is_transformers_t5_with_masks(folder, theirs):
    ids = torch.randint(0, 64, (3, 256))
    mask = torch.arange(256) < torch.tensor([256, 40, 1])[:, None]
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).last_hidden_state
    ours = T5(find_t5(folder))(ids, mask)
    assert relative_error(ours[mask], expected[mask]) <= 1e-5
    with torch.no_grad():
        unmasked = theirs(ids).last_hidden_state
    assert relative_error(ours[1, :40], unmasked[1, :40]) > 1e-3  # the mask has a say


def test_bfloat16_stays_near_float32(folder):
    ids, mask = torch.randint(0, 64, (2, 30)), torch.ones(2, 30, dtype=torch.bool)
    exact = T5(find_t5(folder))(ids, mask)
    assert 0 < relative_error(T5(find_t5(folder), torch.bfloat16)(ids, mask), exact) <= 0.02


@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (8, 20)])
def test_distances_have_transformers_buckets(buckets, far):
    from transformers.models.t5.modeling_t5 import T5Attention

    positions = torch.arange(300)
    expected = T5Attention._relative_position_bucket(
        positions[None, :] - positions[:, None], bidirectional=True, num_buckets=buckets, max_distance=far
    )
    assert torch.equal(distance_buckets(300, T5Config(num_buckets=buckets, max_distance=far)), expected)


def test_prompts_are_encoded_as_if_padded_to_256_with_a_mask(encoder, theirs):
    context = encoder.encode(PROMPTS)
    ids = torch.zeros(len(PROMPTS), 256, dtype=torch.long)
    for row, tokens in zip(ids, encoder.tokenize(PROMPTS), strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=context.mask.long()).last_hidden_state
    assert context.embeddings.shape == (len(PROMPTS), 256, 384)
    assert context.mask.sum(1).tolist() == [len(tokens) for tokens in encoder.tokenize(PROMPTS)]
    assert relative_error(context.embeddings[context.mask], expected[context.mask]) <= 1e-5
    assert not context.embeddings[~context.mask].any()


def test_a_batch_equals_its_singles(folder, encoder):
    prompts = [f"{'a red ball ' * i}box" for i in range(PROMPTS_AT_ONCE + 2)]
    batch = encoder.encode(prompts)
    fresh = T5Encoder(find_t5(folder), encoder.tokenize)
    for i in (0, 7, PROMPTS_AT_ONCE + 1):
        torch.testing.assert_close(
            batch.embeddings[i : i + 1], fresh.encode([prompts[i]]).embeddings, rtol=0, atol=1e-5
        )


def test_white_space_around_a_prompt_means_nothing(encoder):
    bare, spaced = encoder.encode(["a red ball"]), encoder.encode(["  a red ball\n"])
    assert torch.equal(bare.embeddings, spaced.embeddings)


def test_a_long_prompt_is_cut_with_a_warning_that_counts(encoder, theirs):
    with pytest.warns(UserWarning, match=r"has 301 tokens and is cut.* first 256"):
        context = encoder.encode(["ball " * 300])
    assert context.mask.all()
    (tokens,) = encoder.tokenize(["ball " * 300])
    with torch.no_grad():
        expected = theirs(torch.tensor([[*tokens[:255], 1]])).last_hidden_state
    assert relative_error(context.embeddings, expected) <= 1e-5


def test_256_tokens_are_not_cut(encoder):
    assert encoder.encode(["ball " * 255]).mask.sum() == 256


def test_float16_is_refused_with_the_reason(folder):
    with pytest.raises(RequestError, match="beyond 65504"):
        load_t5(folder, dtype=torch.float16)


def test_a_single_string_is_not_taken_for_a_list_of_letters(encoder):
    with pytest.raises(TypeError, match="sequence of prompts"):
        encoder.encode("ball")


class Unreadable:
    """The weights of an encoder that must not be read."""

    def __init__(self, weights):
        self.config, self.fingerprint = weights.config, weights.fingerprint

    def read(self, *_):
        raise AssertionError("the weights were read")

    def words(self, *_):
        raise AssertionError("the weights were read")


def test_a_prompt_that_is_known_needs_no_weights(folder, encoder):
    first = encoder.encode(PROMPTS)
    again = T5Encoder(Unreadable(find_t5(folder)), encoder.tokenize, cache=encoder.cache).encode(PROMPTS[::-1])
    assert torch.equal(first.embeddings, again.embeddings.flip(0))
    assert torch.equal(first.mask, again.mask.flip(0))


def test_other_words_formats_and_weights_are_not_known(folder, encoder):
    encoder.encode(["a red ball"])
    weights = Unreadable(find_t5(folder))
    other = Unreadable(find_t5(folder))
    other.fingerprint = "another"
    for text, using, dtype in [
        ("a red box", weights, torch.float32),
        ("a red ball", weights, torch.bfloat16),
        ("a red ball", other, torch.float32),
    ]:
        with pytest.raises(AssertionError, match="were read"):
            T5Encoder(using, encoder.tokenize, dtype=dtype, cache=encoder.cache).encode([text])


@pytest.mark.parametrize("damage", [b"", b"not tensors", None])
def test_a_damaged_memory_is_made_anew(folder, encoder, damage):
    first = encoder.encode(["a red ball"])
    (path,) = encoder.cache.folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-10] if damage is None else damage)
    assert torch.equal(encoder.encode(["a red ball"]).embeddings, first.embeddings)
    assert path.read_bytes() == whole


def test_a_memory_of_another_shape_or_without_numbers_is_not_believed(encoder):
    first = encoder.encode(["a red ball"])
    (path,) = encoder.cache.folder.iterdir()
    for wrong in (torch.zeros(2, 384), torch.full((4, 384), torch.nan)):
        TensorCache(encoder.cache.folder).write(path.stem, wrong)
        assert torch.equal(encoder.encode(["a red ball"]).embeddings, first.embeddings)
