"""T5's tokenizer, for encoders whose files come without one."""

import re
import tarfile
import tempfile
from pathlib import Path

from openltx.checkpoints.assets.archives import Distribution, copy_from_tar, file_sha256
from openltx.checkpoints.assets.store import Asset
from openltx.errors import AssetError
