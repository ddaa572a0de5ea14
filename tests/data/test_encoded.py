"""One's own videos as latents: sizes, the cache, what is left out."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from openltx.data.captioned import CaptionedVideo
from openltx.data.encoded import Encoded, Size, encode_videos
from openltx.errors import DataError, RequestError
from openltx.media.io import write_video
from openltx.media.transforms import to_tensor
from openltx.models.bundle import LTXModel

SIZES = (Size(width=64, height=32, frames=17), Size(width=32, height=64, frames=9))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[CaptionedVideo]:
    """A wide video of 20 frames, a tall one of 30 with a reference, a picture."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    write_video(folder / "wide.mp4", rng.integers(0, 255, (20, 32, 64, 3), dtype=np.uint8), 24.0)
    write_video(folder / "tall.mp4", rng.integers(0, 255, (30, 100, 50, 3), dtype=np.uint8), 30.0)
    write_video(folder / "depth.mp4", rng.integers(0, 255, (30, 100, 50, 3), dtype=np.uint8), 30.0)
    Image.fromarray(rng.integers(0, 255, (40, 70, 3), dtype=np.uint8)).save(folder / "still.png")
    return [
        CaptionedVideo(path=folder / "wide.mp4", caption="a wide one"),
        CaptionedVideo(path=folder / "tall.mp4", caption="a tall one", reference=folder / "depth.mp4"),
        CaptionedVideo(path=folder / "still.png", caption="a picture, longer caption"),
    ]


def encode(model: LTXModel, videos: list[CaptionedVideo], cache: Path) -> list[Encoded]:
    assert model.text is not None
    found, rejected = encode_videos(videos, cache, model.vae, model.text, SIZES)
    assert not rejected
    return found


def test_each_video_gets_the_nearest_size_and_its_first_frames(
    tiny_model: LTXModel, videos: list[CaptionedVideo], tmp_path: Path
) -> None:
    wide, tall, still = encode(tiny_model, videos, tmp_path)
    assert [tuple(x.latents.shape) for x in (wide, tall, still)] == [(16, 3, 1, 2), (16, 2, 2, 1), (16, 1, 1, 2)]
    assert (wide.fps, tall.fps) == (24.0, 30.0)
    assert tall.reference is not None
    assert tall.reference.shape == tall.latents.shape
    assert not torch.equal(tall.reference, tall.latents)
    assert wide.reference is None
    assert tiny_model.text is not None
    context = tiny_model.text.encode([still.caption])
    torch.testing.assert_close(still.text, context.embeddings[0].bfloat16())
    with Image.open(videos[2].path) as image:
        from openltx.media.transforms import resize_cover

        pixels = resize_cover(np.asarray(image), 32, 64)[None]
    exact = tiny_model.vae.encode(to_tensor(pixels)[None])[0]
    torch.testing.assert_close(still.latents.float(), exact.float(), rtol=0.01, atol=0.01)


def test_what_is_known_is_not_encoded_again_and_what_changed_is(
    tiny_model: LTXModel, videos: list[CaptionedVideo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = encode(tiny_model, videos, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny_model.vae), "encode", None)
        patch.setattr(type(tiny_model.text), "encode", lambda *_: pytest.fail("nothing is missing"))
        again = encode(tiny_model, videos, tmp_path)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(first, again, strict=True))
    renamed = CaptionedVideo(path=videos[0].path, caption="something else")
    encode(tiny_model, [renamed, *videos[1:]], tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    with torch.no_grad():
        parameter = next(tiny_model.vae.parameters())
        parameter.add_(1)
        encode(tiny_model, videos[2:], tmp_path)  # other weights
        parameter.sub_(1)
    assert len(list(tmp_path.iterdir())) == 5


def test_damaged_and_short_files_are_left_out_with_the_reason(
    tiny_model: LTXModel, videos: list[CaptionedVideo], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    short = CaptionedVideo(path=videos[0].path, caption="x", reference=videos[2].path)  # one frame for seventeen
    assert tiny_model.text is not None
    found, rejected = encode_videos(
        [CaptionedVideo(path=broken, caption="x"), short, videos[2]],
        tmp_path / "cache",
        tiny_model.vae,
        tiny_model.text,
        SIZES,
    )
    assert [example.caption for example in found] == [videos[2].caption]
    assert [Path(rejection.source).name for rejection in rejected] == ["broken.mp4", "wide.mp4"]
    assert "1 frames, and 17 are needed" in rejected[1].reason
    with pytest.raises(DataError, match="None of the 1 videos"):
        encode_videos([short], tmp_path / "cache", tiny_model.vae, tiny_model.text, SIZES)


def test_sizes_off_the_grid_are_refused() -> None:
    with pytest.raises(RequestError, match="nearest"):
        Size(width=65, height=32, frames=17)
