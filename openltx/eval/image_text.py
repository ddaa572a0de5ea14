"""Networks that look at frames, and at frames and words together.

``ImageEncoder`` and ``ImageText`` are what the measures ask for; any class with these methods will do. Here are
MobileNetV2 and AlexNet, whose weights are assets, and whatever transformers can load: CLIP, SigLIP and the like from a
folder or by a hub name, DINO and other vision models likewise. Safetensors only, and no code that comes with a model.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from openltx.errors import CheckpointError
from openltx.models.lpips import LPIPS
from openltx.models.mobilenet import MobileNetV2

FRAMES = 8  # of each video that the prompt is compared with
_STANDARD = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@runtime_checkable  # for the type checks of the tests
class ImageEncoder(Protocol):
    """Makes a feature vector of a picture. ``name`` becomes a part of the measures' names."""

    name: str

    def images(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        """The features of pictures in [-1, 1] of any size."""
        ...


@runtime_checkable
class ImageText(ImageEncoder, Protocol):
    """An ``ImageEncoder`` that also puts texts into the same space."""

    def texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """The features of texts; what is too long for the model is cut."""
        ...


class MobileNetFeatures:
    """The 1,280 pooled features of MobileNetV2."""

    name = "mobilenet_v2"

    def __init__(self, network: MobileNetV2) -> None:
        self.network = network

    @torch.inference_mode()
    def images(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        return self.network.embed(pixels)


class AlexNetFeatures:
    """AlexNet's last convolution, averaged over the picture: 256 numbers about textures and colours."""

    name = "alexnet"

    def __init__(self, network: LPIPS) -> None:
        self.network = network

    @torch.inference_mode()
    def images(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        pixels = F.interpolate(pixels, (224, 224), mode="bilinear", antialias=True, align_corners=False)
        return self.network.features(pixels)[-1].mean((2, 3))


class TransformersImageText:
    """CLIP, SigLIP or another model of transformers with an image and a text tower.

    ``source`` is a folder or a hub name. Pictures are scaled, whole, to the side that the model was made for: nothing
    of a wide video is cut off. Raises ``CheckpointError`` for what is no such model.
    """

    def __init__(self, source: str, name: str | None = None) -> None:
        from transformers import AutoTokenizer

        self.name = name or model_name(source)
        self._model = _load(source)
        if not all(hasattr(self._model, method) for method in ("get_image_features", "get_text_features")):
            raise CheckpointError(
                f"{source} holds a {type(self._model).__name__}, which does not compare pictures with texts. Give a "
                "model such as CLIP or SigLIP."
            )
        self._tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        self._side = int(self._model.config.vision_config.image_size)
        self._mean, self._deviation = _normalisation(source)
        self._longest = int(self._model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def images(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        """The image tower's features, projected."""
        given = _prepared(pixels, self._side, self._mean, self._deviation)
        return _vectors(self._model.get_image_features(pixel_values=given))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """The text tower's features, projected."""
        padding = "max_length" if self._model.config.model_type.startswith("siglip") else True  # as it was trained
        given = self._tokenizer(
            list(texts), padding=padding, truncation=True, max_length=self._longest, return_tensors="pt"
        )
        return _vectors(self._model.get_text_features(**given))


class TransformersVision:
    """A vision model of transformers, DINO for example, by folder or hub name: the features of its class token.

    Raises ``CheckpointError`` for what is no such model.
    """

    def __init__(self, source: str, name: str | None = None) -> None:
        self.name = name or model_name(source)
        self._model = _load(source)
        if not hasattr(self._model.config, "image_size"):
            raise CheckpointError(f"{source} holds a {type(self._model).__name__}, which is no vision model.")
        self._side = int(self._model.config.image_size)
        self._mean, self._deviation = _normalisation(source)

    @torch.inference_mode()
    def images(self, pixels: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b d"]:
        given = _prepared(pixels, self._side, self._mean, self._deviation)
        return self._model(pixel_values=given).last_hidden_state[:, 0].float()


def adherence(model: ImageText, frames: Float[Tensor, "F 3 H W"], prompt: str) -> float:
    """The mean cosine of the prompt with the frames, -1 to 1 (CLIPSIM, Wu et al. 2021, if the model is CLIP)."""
    pictures, (text,) = F.normalize(model.images(frames), dim=-1), F.normalize(model.texts([prompt]), dim=-1)
    return (pictures @ text).mean().item()


def model_name(source: str) -> str:
    """The last part of a path or a hub name, fit for a measure's name."""
    return Path(source).name.lower().replace("-", "_").replace(".", "_")


def _load(source: str) -> Any:
    """The model, in float32. A folder is read as it is; a hub name may be fetched."""
    from transformers import AutoModel

    try:
        return AutoModel.from_pretrained(source, trust_remote_code=False, use_safetensors=True).float().eval()
    except Exception as error:  # transformers has no error of its own: whatever it says, the source is at fault
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{source} cannot be loaded: {said} Give a folder in transformers' layout, with weights as .safetensors, "
            "or the name of one on the hub."
        ) from error


def _normalisation(source: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation of the pixels in [0, 1] that the model expects, from its preprocessor_config.json."""
    from transformers.utils import cached_file

    path = cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return _STANDARD
    settings = json.loads(Path(path).read_text())
    return settings.get("image_mean", _STANDARD[0]), settings.get("image_std", _STANDARD[1])


def _prepared(pixels: Tensor, side: int, mean: Sequence[float], deviation: Sequence[float]) -> Tensor:
    pixels = F.interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True, align_corners=False)
    centre, spread = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (mean, deviation))
    return ((pixels.clamp(-1, 1) + 1) / 2 - centre) / spread


def _vectors(output: Any) -> Tensor:
    """The features, which newer versions of transformers wrap."""
    return output if isinstance(output, Tensor) else output.pooler_output
