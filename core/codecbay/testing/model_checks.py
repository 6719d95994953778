"""Checks of the codec as a module: its spec, its parameters, its identity."""

from __future__ import annotations

import copy

import torch

from codecbay.codec import measure
from codecbay.errors import ConfigError
from codecbay.testing.trial import Mismatch, NotApplicable, Trial, expect


def spec(trial: Trial) -> None:
    """The spec does not contradict itself, the attributes, or what the codec does to a second of noise."""
    codec = trial.codec
    spec = codec.spec
    allowed = spec.allowed_num_codebooks
    expect("num_codebooks, by default, (of the spec)", max(allowed, default=None), spec.num_codebooks)
    if list(allowed) != sorted(set(allowed)) or not 1 <= allowed[0] <= allowed[-1] <= len(spec.cardinalities):
        raise Mismatch(
            f"allowed_num_codebooks to ascend within 1..{len(spec.cardinalities)}, the codebooks there are",
            f"{list(allowed)}",
        )
    for name in ("sample_rate", "channels", "frame_size", "num_codebooks", "output_rate"):
        expect(f"the attribute {name}", getattr(spec, name), getattr(codec, name))
    expect("the attribute cardinality", max(spec.cardinalities), codec.cardinality)
    expect("the attribute total_codebooks", len(spec.cardinalities), codec.total_codebooks)
    if not abs(codec.frame_rate - float(spec.frame_rate)) < 1:  # it may be rounded, as AudioCraft's is
        raise Mismatch(f"the attribute frame_rate to be {float(spec.frame_rate)}", f"{codec.frame_rate}")
    try:
        measure(codec)
    except ConfigError as error:
        raise Mismatch("the codec to do what its spec declares", str(error)) from error


def inference(trial: Trial) -> None:
    """No module trains, no parameter and no output has a gradient."""
    codec = trial.codec
    training = [name or "the codec itself" for name, module in codec.named_modules() if module.training]
    if training:
        raise Mismatch("every module in evaluation mode", f"{len(training)} in training mode, such as {training[0]}")
    learning = [name for name, parameter in codec.named_parameters() if parameter.requires_grad]
    if learning:
        raise Mismatch("no parameter to require a gradient", f"{len(learning)} that do, such as {learning[0]}")
    with torch.enable_grad():
        outputs = []
        if codec.spec.can_encode:
            outputs += list(codec.encode(trial.wav()))
        if codec.spec.can_decode:
            outputs.append(codec.decode(trial.codes(), trial.scale()))
    if any(output is not None and output.requires_grad for output in outputs):
        raise Mismatch("output without gradients", "output that requires a gradient")


def dtype_and_device(trial: Trial) -> None:
    """Built in bfloat16, all parameters are, and the codec takes and gives what it does in float32."""
    wanted = torch.device(trial.device)
    for dtype in (torch.float32, torch.bfloat16):
        codec = trial.codec if dtype == torch.float32 else trial.build(dtype)
        others = {
            name: parameter.dtype
            for name, parameter in codec.named_parameters()
            if parameter.is_floating_point() and parameter.dtype != dtype
        }
        for name, found in others.items():
            raise Mismatch(f"all parameters in {dtype}, as was asked for", f"'{name}' in {found}")
        for name, tensor in codec.state_dict(keep_vars=True).items():
            if tensor.device.type != wanted.type or wanted.index not in (None, tensor.device.index):
                raise Mismatch(f"everything on {wanted}, as was asked for", f"'{name}' on {tensor.device}")
        codes, scale = trial.codes(), None
        if codec.spec.can_encode:
            codes, scale = codec.encode(trial.wav())
            expect(f"the device type of codes, in {dtype},", wanted.type, codes.device.type)
        if codec.spec.can_decode:
            wav = codec.decode(codes, scale)
            if not wav.is_floating_point() or not wav.isfinite().all():
                raise Mismatch(
                    f"a finite floating-point waveform, in {dtype}", f"{wav.dtype} with NaN, infinity or none"
                )


def fingerprint_stable(trial: Trial) -> None:
    """The fingerprint depends neither on the dtype nor on the number of codebooks in use."""
    expected = trial.codec.fingerprint()
    expect("the fingerprint in bfloat16", expected, trial.build(torch.bfloat16).fingerprint())
    n = trial.codec.spec.allowed_num_codebooks[0]
    codec = trial.build()
    codec.set_num_codebooks(n)
    expect(f"the fingerprint of the codec, built once more, with {n} codebooks in use,", expected, codec.fingerprint())


def fingerprint_distinct(trial: Trial) -> None:
    """A codec whose weights are others has another fingerprint."""
    first = trial.codec.fingerprint()
    other = copy.deepcopy(trial.codec)
    changed = [tensor for tensor in other.state_dict().values() if tensor.is_floating_point()]
    if not changed:
        raise NotApplicable("the codec has no weights")
    for tensor in changed:
        tensor.copy_(torch.randn_like(tensor, device="cpu"))
    other._fingerprint = None  # it was that of the original
    # Codebooks that were computed from the weights once, and kept; put back, as others may share them.
    kept = [(codebook, codebook.clone()) for codebook in other.codebooks() if codebook.is_contiguous()]
    for codebook, _ in kept:
        codebook.neg_().add_(1)
    second = other.fingerprint()
    for codebook, values in kept:
        codebook.copy_(values)
    if second == first:
        raise Mismatch("another fingerprint where all weights are others", f"the same, {first[:12]}")
