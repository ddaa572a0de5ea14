"""The ``openltx`` command: one table of subcommands, each imported only when it runs.

Whatever a user can cause ends here as one line on stderr and exit code 2; Ctrl-C ends with code 130.
"""

import difflib
import errno
import os
import sys
import warnings
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from openltx import __version__
from openltx.errors import OpenLTXError

_EXTRAS = (
    {"mujoco": "world", "tensorboard": "train", "skimage": "eval", "transformers": "enhance"}
    | dict.fromkeys(("fastapi", "uvicorn", "sqlalchemy", "pydantic", "prometheus_client"), "serve")
    | {"psycopg": "postgres", "ray": "ray"}
)
_PLACE_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip

HELP = """
Text or an image becomes a video, by an LTX-Video model that is open from training to sampling.

- `openltx generate "a red ball bounces on a checkered floor" -o ball.mp4`
- `openltx generate "a red ball rolls to the left" --image start.png --seed 7`
- `openltx inspect ball.mp4` shows the request that made a video
- `openltx COMMAND --help` shows all options of a command
"""

_use = Group("Make videos", sort_key=1)
_learn = Group("Train and measure", sort_key=2)

COMMANDS = {
    "generate": ("generate:generate", _use, "Make a video from a prompt, or from a picture and a prompt."),
    "upscale": ("upscale:upscale", _use, "Make a video larger, or smoother in time, by an upscaler alone."),
    "plan": ("plan:plan_command", _use, "Show what a request would take: operations, memory, time."),
    "demo": ("demo:demo", _use, "Make the two demonstration videos with the bundled model."),
    "embed": ("embed:embed", _use, "Encode a prompt into a file, so that making videos of it needs no text encoder."),
    "models": ("models:models", _use, "List the released models, and which of them are here."),
    "pull": ("models:pull", _use, "Fetch a released model."),
    "convert": ("convert:convert", _use, "Turn a single file into a diffusers folder, or back."),
    "inspect": ("inspect:inspect", _use, "Show the request inside a video, or what a weight file holds."),
    "serve": ("serve:serve_app", _use, "Serve a model to clients of the OpenAI Videos API."),
    "data": ("data:data_app", _learn, "Render worlds or cut videos to learn from, and look at data sets."),
    "train": ("train:train_app", _learn, "Train the Video-VAE or the transformer."),
    "eval": ("eval:eval_app", _learn, "Measure the VAE, its latents and the generated videos."),
    "assets": ("assets:assets_app", _learn, "Fetch other people's weights that training and measuring use."),
}

app = App(
    name="openltx",
    help=HELP,
    help_format="markdown",
    version=__version__,
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_int_as_exit_code_else_zero",
)
app["--help"].group = app["--version"].group = Group("Help", sort_key=3)
for _rank, (_name, (_target, _group, _help)) in enumerate(COMMANDS.items()):
    app.command(f"openltx.cli.{_target}", name=_name, group=_group, help=_help, sort_key=_rank)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        return _complain(_unknown_command(words[0]))
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return app(words)
    except KeyboardInterrupt:
        return _complain("Stopped.", code=130)
    except BrokenPipeError:  # the reader of our output has gone (| head): nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OpenLTXError, CycloptsError) as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _complain(f"This command needs {error.name}, which is not installed: pip install 'openltx[{extra}]'")
    except OSError as error:
        if error.errno not in _PLACE_ERRORS:
            raise
        return _complain(f"{error.strerror}: {error.filename or 'while writing'}")


def _complain(message: str, code: int = 2) -> int:
    """Print one red line on stderr."""
    _print_line(message, "bold red")
    return code


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Print one yellow line on stderr, without the place in the code that Python names."""
    _print_line(str(message), "yellow")


def _print_line(message: str, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True, highlight=False).print(Text(line, style=style))


def _unknown_command(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    guess = f' Did you mean "{near[0]}"?' if near else ""
    return f'There is no command "{name}".{guess} Commands: {", ".join(COMMANDS)}. See: openltx --help'
