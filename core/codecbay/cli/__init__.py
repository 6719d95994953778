"""The command line. Each command lives in a module that is imported when it is run.

Exit codes: 0 done, 1 refused (one message on standard error), 2 wrong usage.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn

import click

from codecbay import __version__
from codecbay.errors import CodecbayError, PluginError

# name: (module, what it does)
_COMMANDS = {
    "generate": ("generate", "Generate audio from text, audio or a melody."),
    "encode": ("codes", "Turn a sound file into codes."),
    "decode": ("codes", "Turn codes back into a sound file."),
    "info": ("inspect", "Say what a package is and what it declares."),
    "check": ("inspect", "Say whether a codec fits under a language model."),
    "conformance": ("conformance", "Say whether a codec keeps the promises of every codec."),
    "download": ("packages", "Fetch a package, and all that it needs, for use without a network."),
    "export": ("packages", "Make a package of a training checkpoint."),
    "convert": ("packages", "Write a package in another layout."),
    "push": ("packages", "Share a package on the Hugging Face Hub."),
    "codecs": ("listing", "List the published codecs that are known by name."),
    "plugins": ("listing", "List the plugins that were found, and what became of them."),
    "new-plugin": ("new_plugin", "Write a plugin to start from: a project that can be installed, with its tests."),
}


class _LazyGroup(click.Group):
    """A group that knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"{__name__}.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="codecbay")
def cli() -> None:
    """Swap the neural audio codec under an audio language model."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit."""
    warnings.simplefilter("ignore")
    for category in (UserWarning, FutureWarning):  # of our own; other libraries' are not the user's business
        warnings.filterwarnings("default", category=category, module=r"codecbay")
    warnings.showwarning = _show_warning
    try:
        cli.main(args, prog_name="codecbay", standalone_mode=True)
    except PluginError as error:
        _refuse(str(error) if error.__cause__ is None else f"{error}\nIn Python, the traceback shows where.")
    except CodecbayError as error:
        _refuse(str(error))
    except MemoryError:
        _refuse("There is not enough memory for this.")
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, of a GPU
            raise
        _refuse(f"There is not enough memory on the device for this. {str(error).splitlines()[0]}")


def _refuse(message: str) -> NoReturn:
    click.echo(f"Error: {_plain(message)}", err=True)
    sys.exit(1)


def _plain(text: str) -> str:
    """Text without control characters, which file names and metadata may smuggle to a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {_plain(str(message))}", err=True)
