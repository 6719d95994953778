"""A Hub and an https server for a test, and a client, in this process or another, that knows no other.

Nothing of the client is replaced. It takes its settings from environment variables when it is imported, so in this
process it is made to read them again; in a process of its own, a command finds them as a user sets them.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from huggingface_hub import close_session, constants, hf_api

from command_line import Result
from network.https import HttpsServer
from network.hub import Hub


class Environment(Protocol):
    """Sets variables (``None``: takes them away), for this process's client too and for processes that it starts."""

    def __call__(self, **variables: str | None) -> None: ...


class Command(Protocol):
    """Runs a program in a process of its own, with the variables and these on top."""

    def __call__(self, *args: object, **variables: str) -> Result: ...


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    """Variables of a user with an empty cache and no token; afterwards all is as it was."""
    with pytest.MonkeyPatch.context() as patch:

        def change(**variables: str | None) -> None:
            for name, value in variables.items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            _reread()

        for name in list(os.environ):
            if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")):
                patch.delenv(name)
        change(
            HF_HOME=str(tmp_path / "huggingface"),
            HF_HUB_DISABLE_TELEMETRY="1",
            HF_HUB_DISABLE_XET="1",
            no_proxy="127.0.0.1,localhost",
        )
        yield change
    _reread()


def _reread() -> None:
    """Have the client take its settings from the environment, as when it was imported."""
    close_session()
    importlib.reload(constants)
    hf_api.api.endpoint = constants.ENDPOINT


@pytest.fixture
def hub(environment: Environment) -> Iterator[Hub]:
    """A Hub, empty, that the client takes for the Hub."""
    with Hub() as hub:
        environment(HF_ENDPOINT=hub.url)
        yield hub


@pytest.fixture
def https_server(environment: Environment, tmp_path: Path) -> Iterator[HttpsServer]:
    """An https server that clients trust, of a directory that is empty."""
    directory, authority = tmp_path / "served", tmp_path / "authority.pem"
    directory.mkdir()
    with HttpsServer(directory) as server:
        authority.write_bytes(server.authority)
        environment(SSL_CERT_FILE=str(authority))
        yield server


@pytest.fixture
def python(environment: Environment) -> Command:
    """``python ARGS``, in a process of its own."""

    def run(*args: object, **variables: str) -> Result:
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def command(python: Command) -> Command:
    """``python -m codecbay ARGS``, in a process of its own; a traceback is a failure."""

    def run(*args: object, **variables: str) -> Result:
        result = python("-m", "codecbay", *args, **variables)
        assert "Traceback" not in result.out + result.err
        return result

    return run
