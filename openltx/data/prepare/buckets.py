"""At which size and length a clip is trained: its bucket.

Clips of one bucket make batches of one shape; a set with several buckets is what the loader mixes in multi-resolution
training (paper section 2.5).
"""

from collections.abc import Sequence

from openltx.data.prepare.records import Record
from openltx.data.prepare.settings import Bucket, BucketSettings


def choose_bucket(record: Record, settings: BucketSettings) -> Bucket | str:
    """The bucket in which most of the picture is seen, of those the one of most pixels; or why there is none."""
    buckets = [Bucket.parse(size) for size in settings.sizes]
    height, width = inner_size(record)
    long_enough = [bucket for bucket in buckets if bucket.frames <= record.frames]
    if not long_enough:
        return f"too short: {record.frames} frames, the shortest bucket has {min(b.frames for b in buckets)}"
    large_enough = [
        bucket for bucket in long_enough if max(bucket.height / height, bucket.width / width) <= settings.max_enlarged
    ]
    if not large_enough:
        return f"too small: {width}x{height} would have to be enlarged"
    fitting = [bucket for bucket in large_enough if seen(height, width, bucket) >= settings.min_kept]
    if not fitting:
        return f"of no bucket's shape: {width}x{height}"
    return max(fitting, key=lambda b: (round(seen(height, width, b), 2), b.width * b.height * b.frames, str(b)))


def inner_size(record: Record) -> tuple[int, int]:
    """Height and width of a clip's picture without its bars."""
    crop = record.measures["crop"]
    return record.height - crop["top"] - crop["bottom"], record.width - crop["left"] - crop["right"]


def seen(height: int, width: int, bucket: Bucket) -> float:
    """The share of a picture that is seen when it is scaled to cover a bucket and cut at its centre."""
    ratio = (width / height) / (bucket.width / bucket.height)
    return min(ratio, 1 / ratio)


def shapes(records: Sequence[Record]) -> dict[str, int]:
    """How many clips each bucket has, in order of their names."""
    names = sorted({record.bucket for record in records if record.bucket})
    return {name: sum(record.bucket == name for record in records) for name in names}
