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

    def __str__(self) -> str:
        lm, codec = ("unknown" if value is None else value for value in (self.lm, self.codec))
        return f"{self.severity}: {self.field}: LM {lm}, codec {codec}. {self.action}"


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
    own_codec: bool = True,
) -> Report:
    """Compare a language model with a codec.

    Args:
        lm: what the language model expects.
        codec: what the codec is, bare.
        lm_name: how the report calls the language model.
        codec_name: how the report calls the codec.
        num_codebooks: codebooks that the user wants the codec to use.
        trained_with: the name of the codec the model was trained on, where it is known.
        own_codec: the codec is the one that came with the language model.
    """
    findings: list[Finding] = []

    def add(severity: str, field: str, in_lm: Any, in_codec: Any, action: str) -> None:
        findings.append(Finding(severity, field, in_lm, in_codec, action))

    chosen = _choose_codebooks(lm, codec, 2 if lm.stereo == "codebook" else 1, num_codebooks, add)
    if chosen is not None:
        codec = replace(codec, num_codebooks=chosen)
    wrapped = codec
    interleaves = lm.stereo is not None and codec.channels == 1
    if interleaves:
        wrapped = codec.interleaved(per_timestep=lm.stereo == "timestep")
    elif lm.stereo is not None:
        add(
            ERROR, "channels", "two mono streams, interleaved", codec.channels,
            "Use a mono codec: left and right are encoded apart and interleaved.",
        )  # fmt: skip

    used = codec.cardinalities[: codec.num_codebooks]
    sizes = sorted(set(used))
    if sizes != [lm.cardinality]:
        shown = sizes[0] if len(sizes) == 1 else list(used)
        add(
            ERROR, "card", lm.cardinality, shown,
            f"Use a codec with {lm.cardinality} entries a codebook, or train the LM with transformer_lm.card="
            f"{max(sizes)}.",
        )  # fmt: skip
    if lm.sample_rate is not None and lm.sample_rate != codec.output_rate:
        add(
            ERROR, "sample_rate", lm.sample_rate, codec.output_rate,
            f"Use a codec at {lm.sample_rate} Hz, or train the LM with sample_rate={codec.output_rate}.",
        )  # fmt: skip
    if lm.channels is not None and lm.channels != wrapped.channels and (interleaves or lm.stereo is None):
        add(
            ERROR, "channels", lm.channels, wrapped.channels,
            f"Use a codec with {lm.channels} channel{'s' * (lm.channels != 1)}, or train the LM with "
            f"channels={wrapped.channels}.",
        )  # fmt: skip
    if lm.frame_rate is not None and lm.frame_rate != codec.frame_rate:
        add(
            ERROR, "frame_rate", float(lm.frame_rate), float(codec.frame_rate),
            f"Use a codec with {float(lm.frame_rate):g} frames a second: the LM's tokens keep that time.",
        )  # fmt: skip
    if not codec.can_decode:
        add(ERROR, "decode", "needed", "encoder only", "Use a codec that decodes.")
    if not codec.can_encode:
        add(WARNING, "encode", "needed for audio prompts", "decoder only", "Continuation will not work.")
    if not own_codec:
        if trained_with is None:
            add(
                NOTE,
                "provenance",
                None,
                codec_name,
                "Nothing tells whether the LM was trained on this codec.",
            )
        else:
            add(
                WARNING, "provenance", trained_with, codec_name,
                "The LM was trained on another codec: its tokens mean something else to this one.",
            )  # fmt: skip
    order = (ERROR, WARNING, NOTE)
    findings.sort(key=lambda finding: order.index(finding.severity))
    return Report(lm_name, codec_name, lm, wrapped, codec.num_codebooks, tuple(findings))


def _choose_codebooks(lm: LMSpec, codec: CodecSpec, factor: int, wanted: int | None, add: Any) -> int | None:
    """The number of codebooks to set on the bare codec; ``None`` where none serves."""
    each = f" on each of two channels (n_q {lm.num_codebooks})" if factor == 2 else ""
    needed = lm.num_codebooks // factor
    allowed = codec.allowed_num_codebooks
    if lm.codec_num_codebooks is not None and lm.codec_num_codebooks != needed:
        add(
            ERROR, "compression_model_n_q", needed, lm.codec_num_codebooks,
            f"The LM's configuration sets {lm.codec_num_codebooks} codebooks on its codec, but needs {needed}{each}.",
        )  # fmt: skip
    if wanted is not None and wanted != needed:
        add(ERROR, "n_q", needed, wanted, f"Set num_codebooks={needed}{each}, or leave it out.")
        return wanted if wanted in allowed else None
    if needed not in allowed:
        add(
            ERROR, "n_q", needed, ranges(allowed),
            f"Use a codec that allows {needed} codebooks{each}, or train the LM with n_q={max(allowed) * factor}.",
        )  # fmt: skip
        return None
    if needed != codec.num_codebooks:
        add(NOTE, "n_q", needed, codec.num_codebooks, f"The codec is set to {needed} codebooks{each}.")
    return needed
