"""What a check is, what it works on, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from codecbay._resources import plugin_page
from codecbay.codec import Codec
from codecbay.spec import facts

_FRAMES = 12  # of a short signal


class MakeCodec(Protocol):
    """Builds the codec under test; every call gives the same codec anew, with all codebooks."""

    def __call__(self, *, device: str, dtype: torch.dtype) -> Codec:
        """The codec on ``device``, its parameters in ``dtype``."""
        ...


class Mismatch(AssertionError):  # noqa: N818, because it reads better
    """A codec does not do what was expected of it.

    Args:
        expected: what every codec promises.
        found: what this one does.
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}; found {found}")
        self.expected = expected
        self.found = found


class NotApplicable(Exception):  # noqa: N818, because it is no error
    """A check asks for what the codec does not claim to have; the message says what."""


@dataclass(frozen=True)
class Check:
    """One promise that every codec keeps.

    Attributes:
        name: of the check, and of its section in the documentation.
        function: takes a :class:`Trial`, and raises :class:`Mismatch` or :class:`NotApplicable`.
        about: the promise, in one line.
    """

    name: str
    function: Callable[[Trial], None]
    about: str

    @property
    def read_more(self) -> str:
        """Where the check is explained."""
        return f"{plugin_page('conformance.md')}#{self.name}"


@dataclass(frozen=True)
class Result:
    """What came of a check.

    Attributes:
        check: its name.
        about: the promise.
        status: ``passed``, ``failed``, ``skipped``, ``expected failure``, or ``unexpected pass``.
        message: why, where it did not simply pass.
        expected: what every codec promises, where the check failed.
        found: what this codec does, where the check failed.
        read_more: where the check is explained.
        error: what the codec raised, where it raised what it should not.
    """

    check: str
    about: str
    status: str
    message: str | None
    expected: str | None
    found: str | None
    read_more: str
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether all is as it should be: it passed, was skipped, or failed as was expected."""
        return self.status in ("passed", "skipped", "expected failure")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        plain = facts(self)
        plain.pop("error")
        return plain | {"ok": self.ok}


@dataclass(frozen=True)
class Trial:
    """The codec under test, and what the checks may assume of it.

    Attributes:
        make_codec: builds it.
        package: where its files lie, where it has any.
        device: to build it on.
        batch_equal: the fraction of codes that a batch must share with its items encoded one by one.
    """

    make_codec: MakeCodec
    package: Path | None = None
    device: str = "cpu"
    batch_equal: float = 0.999

    def build(self, dtype: torch.dtype = torch.float32) -> Codec:
        """The codec, built anew; a check that changes its codec uses this.

        Random weights come out the same each time.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.make_codec(device=self.device, dtype=dtype)

    @cached_property
    def codec(self) -> Codec:
        """The codec, built once for all checks that leave it as it is."""
        return self.build()

    def encoder(self) -> Codec:
        """The codec, where it can encode."""
        if not self.codec.spec.can_encode:
            raise NotApplicable("the codec only decodes")
        return self.codec

    def decoder(self) -> Codec:
        """The codec, where it can decode."""
        if not self.codec.spec.can_decode:
            raise NotApplicable("the codec only encodes")
        return self.codec

    def both(self) -> Codec:
        """The codec, where it can encode and decode."""
        self.encoder()
        return self.decoder()

    def files(self) -> Path:
        """The package, where there is one."""
        if self.package is None:
            raise NotApplicable("no package was given")
        return self.package

    def wav(self, *, samples: int | None = None, batch: int = 1, seed: int = 0) -> Tensor:
        """Tones in noise, ``[batch, C, samples]``, each item half as loud as the one before it.

        Twelve frames and a half, where the number of samples is not given.
        """
        spec = self.codec.spec
        samples = samples or _FRAMES * spec.frame_size + max(spec.frame_size // 2, 1)
        generator = torch.Generator().manual_seed(seed)
        noise = 0.2 * torch.randn(batch, spec.channels, samples, generator=generator)
        phase = torch.arange(samples) / spec.sample_rate * 2 * torch.pi
        tones = torch.stack([(1 + seed + c) * 0.013 * spec.sample_rate * phase for c in range(spec.channels)]).sin()
        loudness = 0.5 ** torch.arange(batch)[:, None, None]
        return ((noise + 0.3 * tones) * loudness).to(self.device)

    def codes(self, *, samples: int | None = None, batch: int = 1, seed: int = 0) -> Tensor:
        """Random codes of so many samples, ``[batch, K, T]``, within the cardinality of each codebook.

        Of twelve frames, where the number of samples is not given.
        """
        spec = self.codec.spec
        frames = self.codec.frames_of(samples or _FRAMES * spec.frame_size)
        generator = torch.Generator().manual_seed(seed)
        rows = [
            torch.randint(n, (batch, frames), generator=generator) for n in spec.cardinalities[: spec.num_codebooks]
        ]
        return torch.stack(rows, dim=1).to(self.device)

    def scale(self, *, samples: int | None = None, batch: int = 1) -> Tensor | None:
        """A scale to decode :meth:`codes` with, where the codec has one."""
        spec = self.codec.spec
        if not spec.has_scale or not spec.can_encode:
            return None
        return self.codec.encode(self.wav(samples=samples or _FRAMES * spec.frame_size, batch=batch))[1]


def expect(what: str, expected: object, found: object) -> None:
    """Compare two values.

    Raises:
        Mismatch: they differ.
    """
    if expected != found:
        raise Mismatch(f"{what} to be {expected}", str(found))


def expect_error(what: str, error: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> None:
    """Call something that must be refused.

    Raises:
        Mismatch: it went through, or raised something else.
    """
    kinds = error if isinstance(error, tuple) else (error,)
    expected = f"{what} to be refused with {' or '.join(kind.__name__ for kind in kinds)}"
    try:
        call()
    except kinds:
        return
    except Exception as other:  # a codec is someone else's code: anything can come out of it
        raise Mismatch(expected, f"{type(other).__name__}: {shortened(str(other))}") from other
    raise Mismatch(expected, "it was let through")


def shortened(text: str) -> str:
    """The text in one line, of 300 characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:299]}…"
