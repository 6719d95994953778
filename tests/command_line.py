"""Runs the command line in this process, as a user does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from codecbay.cli import main


class Result:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Run:
    """Runs a command; a traceback is a failure."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: object) -> Result:
        try:
            main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        else:
            code = 0
        captured = self._capsys.readouterr()
        assert "Traceback" not in captured.err + captured.out
        return Result(int(code or 0), captured.out, captured.err)
