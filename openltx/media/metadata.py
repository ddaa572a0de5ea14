"""A dictionary of text inside a media file, as one JSON string under one name.

.mp4     the tag ``openltx`` (and ``comment``, which most players show)
.png     the text chunk ``openltx``
.gif     the file's comment
.webp    EXIF's image description
"""

import json
from collections.abc import Mapping

KEY = "openltx"
EXIF_DESCRIPTION = 0x010E


def pack(metadata: Mapping[str, str]) -> str:
    """The dictionary as ASCII JSON, marked as ours."""
    return json.dumps({KEY: dict(metadata)})


def unpack(*candidates: str | bytes | None) -> dict[str, str]:
    """The dictionary of the first candidate that ``pack`` made; empty if none is."""
    for candidate in candidates:
        try:
            found = json.loads(candidate or "")
        except ValueError:  # somebody else's comment
            continue
        if isinstance(found, dict) and isinstance(found.get(KEY), dict):
            return {str(key): str(value) for key, value in found[KEY].items()}
    return {}
