"""Other people's weights and videos that this project uses but does not ship: fetched on request, checked, cached.

store.py       what an asset is; how it comes into the cache
archives.py    the archives that assets are taken from: fetching, checking and opening them
tensors.py     weight files: digests, strict reading
lpips.py  mobilenet.py  transnet.py  videos.py  t5.py     the assets themselves
"""

from openltx.checkpoints.assets.lpips import LPIPS_WEIGHTS, load_lpips
from openltx.checkpoints.assets.mobilenet import MOBILENET_V2, load_mobilenet
from openltx.checkpoints.assets.store import Asset, pull
from openltx.checkpoints.assets.t5 import T5_TOKENIZER
from openltx.checkpoints.assets.transnet import TRANSNET_V2, load_transnet
from openltx.checkpoints.assets.videos import BIG_BUCK_BUNNY, TEST_CLIPS, VTEST
from openltx.errors import AssetError

__all__ = [
    "ASSETS",
    "LPIPS_WEIGHTS",
    "T5_TOKENIZER",
    "Asset",
    "find_asset",
    "load_lpips",
    "load_mobilenet",
    "load_transnet",
    "pull",
]

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (LPIPS_WEIGHTS, MOBILENET_V2, BIG_BUCK_BUNNY, TEST_CLIPS, VTEST, T5_TOKENIZER, TRANSNET_V2)
}


def find_asset(name: str) -> Asset:
    """The asset of this name; AssetError lists the possible ones."""
    if name not in ASSETS:
        raise AssetError(f"No asset is called {name!r}. Possible: {', '.join(ASSETS)}.")
    return ASSETS[name]
