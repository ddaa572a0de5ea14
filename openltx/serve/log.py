"""One line a thing that happened, as JSON on stderr: {"at": ..., "event": "job.finished", "job": ..., "seconds": ...}.

What people ask for is private: prompts, file names and keys are never logged.
"""

import json
import logging
import sys
import time
from typing import Any

_LOGGER = logging.getLogger("openltx.serve")


def happened(event: str, *, level: int = logging.INFO, exc_info: bool = False, **fields: Any) -> None:
    """Log one event with its fields; ``exc_info`` adds the traceback of the exception that is being handled."""
    _LOGGER.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def log_as_json() -> None:
    """Send this server's events, and what the libraries under it complain about, to stderr as JSON."""
    handler = _Stderr()
    handler.setFormatter(_JSONLines())
    for name, level in ((_LOGGER.name, logging.INFO), ("uvicorn", logging.WARNING), ("sqlalchemy", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


class _Stderr(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")
        sys.stderr.flush()


class _JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"at": round(time.time(), 3), "event": record.getMessage()}
        if record.name != _LOGGER.name:
            line["logger"] = record.name
        if record.levelno >= logging.WARNING:
            line["level"] = record.levelname.lower()
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
