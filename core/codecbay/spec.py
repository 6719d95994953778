"""What the check compares: plain facts about a codec and about a language model, known from headers alone."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any

from codecbay.errors import CodecbayError, ConfigError


@dataclass(frozen=True)
class CodecSpec:
    """The facts about a codec.

    Attributes:
        sample_rate: of the waveform that is encoded, in Hz.
        channels: of the waveform.
        cardinalities: entries of each codebook, for all the codebooks there are.
        frame_size: samples to a frame.
        frame_rate: frames a second, exact.
        num_codebooks: codebooks in use.
        allowed_num_codebooks: what ``num_codebooks`` may be set to.
        has_scale: whether ``encode`` returns a scale that ``decode`` needs back.
        can_encode: whether the package holds an encoder.
        can_decode: whether the package holds a decoder.
        decoded_sample_rate: of the waveform that is decoded, in Hz, where it is another.
        lookahead: samples after a frame's end that its codes, or its audio, may depend on: 0 for a causal codec,
            ``None`` where they are not known, or without bound.
        chunked_tolerance: the fraction of codes, and of samples, that may differ where a recording is encoded and
            decoded by windows with a second of surroundings; 0 where no frame depends on more than that.
        extra_inputs: what encoding or decoding needs beside waveform and codes.
        licence: of the weights, where it is known.
    """

    sample_rate: int
    channels: int
    cardinalities: tuple[int, ...]
    frame_size: int
    frame_rate: Fraction
    num_codebooks: int
    allowed_num_codebooks: tuple[int, ...]
    has_scale: bool = False
    can_encode: bool = True
    can_decode: bool = True
    decoded_sample_rate: int | None = None
    lookahead: int | None = None
    chunked_tolerance: float = 0.1
    extra_inputs: tuple[str, ...] = ()
    licence: str | None = None

    def __post_init__(self) -> None:
        counts = {
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "frame_size": self.frame_size,
            "decoded_sample_rate": self.output_rate,
            **{f"cardinalities[{i}]": size for i, size in enumerate(self.cardinalities)},
        }
        problems = [f"{name} is {value!r}" for name, value in counts.items() if type(value) is not int or value < 1]
        allowed = self.allowed_num_codebooks
        if not allowed or self.num_codebooks not in allowed or not 0 < min(allowed) <= max(allowed):
            problems.append(f"num_codebooks is {self.num_codebooks!r} of {allowed!r}")
        elif max(allowed) > len(self.cardinalities):
            problems.append(f"{len(self.cardinalities)} cardinalities for {max(allowed)} codebooks")
        if self.lookahead is not None and (type(self.lookahead) is not int or self.lookahead < 0):
            problems.append(f"lookahead is {self.lookahead!r}")
        if not 0 <= self.chunked_tolerance <= 1:
            problems.append(f"chunked_tolerance is {self.chunked_tolerance!r}")
        if not (self.can_encode or self.can_decode):
            problems.append("it neither encodes nor decodes")
        problems = problems or self._uneven()
        if problems:
            raise ConfigError(f"This describes no codec: {'; '.join(problems)}.")

    def _uneven(self) -> list[str]:
        """What does not come out even: codes to a frame, or samples to a frame of the waveform that is decoded."""
        problems, least = [], Fraction(self.sample_rate, self.frame_size)
        if not isinstance(self.frame_rate, Fraction) or self.frame_rate < least or (self.frame_rate / least) % 1:
            problems.append(f"frame_rate is {self.frame_rate!r}, expected {least!r} (sample_rate / frame_size)")
        if self.frame_size * self.output_rate % self.sample_rate:
            problems.append(
                f"a frame of {self.frame_size} samples at {self.sample_rate} Hz is no whole number of samples at "
                f"{self.output_rate} Hz"
            )
        return problems

    @property
    def output_rate(self) -> int:
        """The sample rate of the waveform that is decoded, in Hz."""
        return self.decoded_sample_rate or self.sample_rate

    @property
    def causal(self) -> bool:
        """Whether a frame depends on nothing after it, so that audio can be encoded and decoded while it arrives."""
        return self.lookahead == 0

    @property
    def latency(self) -> Fraction | None:
        """Seconds of audio that must have arrived before the codes of a frame are known, if ``lookahead`` is."""
        return None if self.lookahead is None else Fraction(self.frame_size + self.lookahead, self.sample_rate)

    def with_num_codebooks(self, n: int) -> CodecSpec:
        """The same codec with ``n`` codebooks in use.

        Raises:
            CodecbayError: ``n`` is not allowed.
        """
        if type(n) is not int or n not in self.allowed_num_codebooks:
            raise CodecbayError(
                f"num_codebooks={n} was asked for, but the codec allows {ranges(self.allowed_num_codebooks)}."
            )
        return replace(self, num_codebooks=n)

    def interleaved(self, per_timestep: bool) -> CodecSpec:
        """The spec of this mono codec applied to left and right, their codes interleaved into one stream.

        Interleaving is by codebook (twice the codebooks) or by time step (twice the frames).
        """
        if per_timestep:
            return replace(self, channels=2, frame_rate=self.frame_rate * 2)
        return replace(
            self,
            channels=2,
            cardinalities=tuple(c for c in self.cardinalities for _ in range(2)),
            num_codebooks=self.num_codebooks * 2,
            allowed_num_codebooks=tuple(n * 2 for n in self.allowed_num_codebooks),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return facts(self)


@dataclass(frozen=True)
class LMSpec:
    """What a language model expects of the codec under it.

    Attributes:
        kind: ``musicgen`` or ``audiogen``.
        cardinality: values of a token (``card``).
        num_codebooks: streams of tokens (``n_q``).
        max_duration: the longest segment it was trained on, in seconds.
        sample_rate: in Hz, where the package tells it.
        channels: of the audio, where the package tells it.
        frame_rate: frames a second, where the package's own codec tells it.
        stereo: ``None``, or how two mono streams are interleaved: ``codebook`` or ``timestep``.
        codec_num_codebooks: codebooks to set on the codec before any interleaving, where the package says so.
        trained_on: the name of the codec it was trained on, where the package tells it.
    """

    kind: str
    cardinality: int
    num_codebooks: int
    max_duration: float
    sample_rate: int | None = None
    channels: int | None = None
    frame_rate: Fraction | None = None
    stereo: str | None = None
    codec_num_codebooks: int | None = None
    trained_on: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return facts(self)


def ranges(values: tuple[Any, ...]) -> str:
    """Values in few words: ``1..4``, ``2, 4, 8``."""
    if len(values) > 2 and isinstance(values[0], int) and values == tuple(range(values[0], values[-1] + 1)):
        return f"{values[0]}..{values[-1]}"
    return ", ".join(map(str, values))


def facts(of: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON can hold them: fractions as numbers, tuples as lists."""
    return {field.name: _plain(getattr(of, field.name)) for field in fields(of)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return facts(value)
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
