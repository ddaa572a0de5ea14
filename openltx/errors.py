"""Every failure that a user can cause, as one small tree.

    OpenLTXError
    ├── RequestError        a generation request that cannot be served (empty prompt, size off the grid, ...)
    ├── MediaError          a picture or a video that cannot be read or written
    ├── CheckpointError     a weight file that is missing, truncated, renamed or of another architecture
    ├── DataError           a data set, a manifest or a world that cannot be used
    ├── AssetError          a weight or a video of somebody else's that cannot be fetched or does not match its hash
    ├── RunError            a training run that cannot start, resume or go on
    │   └── DivergedError   its loss or gradient is no finite number any more
    └── ServeError          a server that cannot start, or refuses a piece of work

Each message says what was asked, what is possible, and what to do. The command line prints it and exits with code 2.
"""


class OpenLTXError(Exception):
    """Base of all errors that a user can cause and mend."""


class RequestError(OpenLTXError):
    """A generation request that cannot be served as it stands."""


class MediaError(OpenLTXError):
    """A picture or video file that cannot be read or written."""


class CheckpointError(OpenLTXError):
    """A weight file that is missing, damaged, or does not fit the model."""


class DataError(OpenLTXError):
    """A data set, manifest or world that cannot be used."""


class AssetError(OpenLTXError):
    """A third party's asset that cannot be fetched or fails its hash."""


class RunError(OpenLTXError):
    """A training run that cannot start, resume or continue."""


class DivergedError(RunError):
    """A training run whose loss or gradient is no finite number any more."""


class ServeError(OpenLTXError):
    """A server that cannot start, or refuses a piece of work."""
