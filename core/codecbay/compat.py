"""The check: does a codec fit under a language model? Pure functions of two specs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from codecbay.spec import CodecSpec, LMSpec, facts, ranges

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that the check found.

    Attributes:
        severity: ``error`` (the pair cannot work), ``warning`` (it works, but may not mean what it should) or
            ``note``.
        field: what was compared.
        lm: the language model's value.
        codec: the codec's value.
        action: what to change.
    """

    severity: str
    field: str
    lm: Any
    codec: Any
    action: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return facts(self)

    @property
    def text(self) -> str:
        """The finding in words, without its severity."""
        lm, codec = ("unknown" if value is None else value for value in (self.lm, self.codec))
        return f"{self.field}: LM {lm}, codec {codec}. {self.action}"

    def __str__(self) -> str:
        return f"{self.severity}: {self.text}"


@dataclass(frozen=True)
class Report:
    """Everything the check found about a pair.

    Attributes:
        lm_name: the language model, as it was asked for.
        codec_name: the codec, as it was asked for.
        lm: the language model's spec.
        codec: the codec's spec as the language model would see it: number of codebooks set, stereo interleaved.
        num_codebooks: to set on the codec itself, before any interleaving.
        findings: errors first.
    """

    lm_name: str
    codec_name: str
    lm: LMSpec
    codec: CodecSpec
    num_codebooks: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the pair can be assembled."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What keeps the pair apart."""
        return tuple(f for f in self.findings if f.severity == ERROR)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "ok": self.ok,
            "lm": {"name": self.lm_name, **self.lm.to_dict()},
            "codec": {"name": self.codec_name, **self.codec.to_dict()},
            "num_codebooks": self.num_codebooks,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def __str__(self) -> str:
        verdict = "fits" if self.ok else "does not fit"
        count = "" if self.ok else f": {len(self.errors)} problem{'s' * (len(self.errors) != 1)}"
        lines = [f"Codec '{self.codec_name}' {verdict} LM '{self.lm_name}'{count}."]
        return "\n".join([*lines, *(f"  {finding}" for finding in self.findings)])


def compare(
    lm: LMSpec,
    codec: CodecSpec,
    *,
    lm_name: str = "LM",
    codec_name: str = "codec",
    num_codebooks: int | None = None,
    trained_with: str | None = None,
    own_codec: bool | None = True,
    strict: bool = False,
) -> Report:
    """Compare a language model with a codec.

    Args:
        lm: what the language model expects.
        codec: what the codec is, bare.
        lm_name: how the report calls the language model.
        codec_name: how the report calls the codec.
        num_codebooks: codebooks that the user wants the codec to use.
        trained_with: the name of the codec the model was trained on, where it is known.
        own_codec: whether the codec is the one that the model was trained on; ``None`` where nothing tells.
        strict: that it is known to be another is an error, and no warning.
    """
    chosen, findings = _choose_codebooks(lm, codec, num_codebooks)
    if chosen is not None:
        codec = replace(codec, num_codebooks=chosen)
    wrapped = codec
    if lm.stereo is not None and codec.channels == 1:
        wrapped = codec.interleaved(per_timestep=lm.stereo == "timestep")
    findings += _cardinality(lm, codec)
    findings += _sample_rate(lm, codec)
    findings += _channels(lm, codec, wrapped)
    findings += _frame_rate(lm, codec)
    findings += _abilities(codec)
    findings += _provenance(own_codec, trained_with, codec_name, ERROR if strict else WARNING)
    order = (ERROR, WARNING, NOTE)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Report(lm_name, codec_name, lm, wrapped, codec.num_codebooks, tuple(findings))


def _choose_codebooks(lm: LMSpec, codec: CodecSpec, wanted: int | None) -> tuple[int | None, list[Finding]]:
    """The number of codebooks to set on the bare codec, ``None`` where none serves; and what there is to say of it."""
    factor = 2 if lm.stereo == "codebook" else 1
    allowed, findings = codec.allowed_num_codebooks, []
    if lm.num_codebooks % factor:
        action = "Two interleaved channels need an even number; correct the LM's transformer_lm.n_q."
        return None, [Finding(ERROR, "n_q", lm.num_codebooks, ranges(allowed), action)]
    needed = lm.num_codebooks // factor
    each = f" on each of two channels (n_q {lm.num_codebooks})" if factor == 2 else ""
    if lm.codec_num_codebooks is not None and lm.codec_num_codebooks != needed:
        action = f"The LM needs {needed} codebooks{each}; correct compression_model_n_q in its configuration."
        findings.append(Finding(ERROR, "compression_model_n_q", needed, lm.codec_num_codebooks, action))
    if wanted is not None and wanted != needed:
        but = "" if needed in allowed else f"; but the codec allows {ranges(allowed)}"
        action = f"Set num_codebooks={needed}{each}, or leave it out{but}."
        findings.append(Finding(ERROR, "n_q", needed, wanted, action))
        return (wanted if wanted in allowed else None), findings
    if needed not in allowed:
        near = min(allowed, key=lambda n: abs(n - needed)) * factor
        action = (
            f"Use a codec that allows {needed} codebook{'s' * (needed != 1)}{each}, or train the LM with n_q={near}."
        )
        findings.append(Finding(ERROR, "n_q", needed, ranges(allowed), action))
        return None, findings
    if needed != codec.num_codebooks:
        action = f"The codec is set to {needed} codebook{'s' * (needed != 1)}{each}."
        findings.append(Finding(NOTE, "n_q", needed, codec.num_codebooks, action))
    return needed, findings


def _cardinality(lm: LMSpec, codec: CodecSpec) -> list[Finding]:
    used = codec.cardinalities[: codec.num_codebooks]
    if set(used) == {lm.cardinality}:
        return []
    uniform = len(set(used)) == 1
    train = f", or train the LM with transformer_lm.card={used[0]}" if uniform else ""
    action = f"Use a codec with {lm.cardinality} entries in each codebook{train}."
    return [Finding(ERROR, "card", lm.cardinality, used[0] if uniform else list(used), action)]


def _sample_rate(lm: LMSpec, codec: CodecSpec) -> list[Finding]:
    if lm.sample_rate in (None, codec.output_rate):
        return []
    action = f"Use a codec at {lm.sample_rate} Hz, or train the LM with sample_rate={codec.output_rate}."
    return [Finding(ERROR, "sample_rate", lm.sample_rate, codec.output_rate, action)]


def _channels(lm: LMSpec, codec: CodecSpec, wrapped: CodecSpec) -> list[Finding]:
    if lm.stereo is not None and codec.channels != 1:
        action = "Use a mono codec: left and right are encoded apart and interleaved."
        return [Finding(ERROR, "channels", "two mono streams, interleaved", codec.channels, action)]
    if lm.channels in (None, wrapped.channels):
        return []
    if lm.stereo is not None:
        action = f"The LM's configuration says channels: {lm.channels} and interleaves two; correct whichever is wrong."
    else:
        action = (
            f"Use a codec with {lm.channels} channel{'s' * (lm.channels != 1)}, or train the LM with "
            f"channels={wrapped.channels}."
        )
    return [Finding(ERROR, "channels", lm.channels, wrapped.channels, action)]


def _frame_rate(lm: LMSpec, codec: CodecSpec) -> list[Finding]:
    if lm.frame_rate in (None, codec.frame_rate):
        return []
    rate = float(lm.frame_rate or 0)
    action = f"Use a codec with {rate:g} frames a second: the LM's tokens keep that time."
    return [Finding(ERROR, "frame_rate", rate, float(codec.frame_rate), action)]


def _abilities(codec: CodecSpec) -> list[Finding]:
    findings = []
    if not codec.can_decode:
        findings.append(Finding(ERROR, "decode", "needed", "encoder only", "Use a codec that decodes."))
    if not codec.can_encode:
        action = "Continuation will not work."
        findings.append(Finding(WARNING, "encode", "needed for audio prompts", "decoder only", action))
    return findings


def _provenance(own_codec: bool | None, trained_with: str | None, codec_name: str, severity: str) -> list[Finding]:
    if own_codec is None:
        action = "Provenance unknown: nothing tells whether the LM was trained on this codec."
        return [Finding(NOTE, "provenance", trained_with, codec_name, action)]
    if own_codec:
        return []
    action = "The LM was trained on another codec: its tokens mean something else to this one."
    return [Finding(severity, "provenance", trained_with or "another", codec_name, action)]
