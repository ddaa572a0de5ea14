"""Image-text models: a tiny random CLIP from a folder, against transformers' own path through it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from openltx.errors import CheckpointError
from openltx.eval.image_text import ImageText, TransformersImageText, TransformersVision, adherence

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP with random weights that reads bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("clip") / "Tiny-CLIP"
    letters = ["<start>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<end>"
    ).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **small,
            "vocab_size": len(letters),
            "max_position_embeddings": 32,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformers.CLIPModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}')
    return folder


def test_pictures_and_texts_come_out_as_transformers_has_them(tiny_clip: Path) -> None:
    model = TransformersImageText(str(tiny_clip))
    assert isinstance(model, ImageText)
    assert model.name == "tiny_clip"
    reference = transformers.CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1  # of the model's own side: nothing is scaled
    given = ((pixels + 1) / 2 - torch.tensor([0.4, 0.5, 0.6]).reshape(3, 1, 1)) / torch.tensor([0.2, 0.3, 0.4]).reshape(
        3, 1, 1
    )
    ids = transformers.AutoTokenizer.from_pretrained(tiny_clip)(["a ball", "two"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = reference(pixel_values=given, **ids)
    torch.testing.assert_close(F.normalize(model.images(pixels), dim=-1), expected.image_embeds, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        F.normalize(model.texts(["a ball", "two"]), dim=-1), expected.text_embeds, atol=1e-5, rtol=1e-4
    )


def test_long_prompts_are_cut_and_frames_of_any_size_are_taken(tiny_clip: Path) -> None:
    model = TransformersImageText(str(tiny_clip))
    frames = torch.rand(3, 3, 48, 80) * 2 - 1
    assert -1 <= adherence(model, frames, "a ball " * 100) <= 1


def test_adherence_is_the_mean_cosine() -> None:
    class Fixed:
        name = "fixed"

        def images(self, _: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[2.0, 0], [0, 1.0]])

        def texts(self, _: list[str]) -> torch.Tensor:
            return torch.tensor([[3.0, 0]])

    assert adherence(Fixed(), torch.zeros(2, 3, 8, 8), "x") == pytest.approx(0.5)


def test_a_vision_model_gives_its_class_token(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(tmp_path / "vit")
    model = TransformersVision(str(tmp_path / "vit"))
    features = model.images(torch.rand(2, 3, 40, 20))
    assert features.shape == (2, 16)
    assert not np.allclose(features[0], features[1])


def test_what_is_no_such_model_is_one_error(tiny_clip: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        TransformersImageText(str(tmp_path))
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
        )
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(CheckpointError, match="does not compare pictures with texts"):
        TransformersImageText(str(tmp_path / "bert"))
    with pytest.raises(CheckpointError, match="no vision model"):
        TransformersVision(str(tmp_path / "bert"))
