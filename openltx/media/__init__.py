"""Pictures and videos as files: read, write, look at. Frames are uint8 arrays ``F H W 3`` in RGB."""

from openltx.media.contact_sheet import contact_sheet
from openltx.media.io import probe, read_image, read_metadata, read_video, write_video
from openltx.media.writers import VideoWriter

__all__ = ["VideoWriter", "contact_sheet", "probe", "read_image", "read_metadata", "read_video", "write_video"]
