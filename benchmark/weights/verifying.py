"""The checks of ``avbench weights verify``: hashes, entries, values, the published answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avbench.baselines.frontends import cut_window
from avbench.baselines.tuned import tuned
from avbench.system.findings import Finding
from avbench.types import AvbenchError, FrontEnd, MediaError, UsageError, first_line
from avbench.weights import checkpoints
from avbench.weights.containers import read_container
from avbench.weights.published import Published, md5_of, published_entry, with_md5

MAX_LINES = 12  # for one kind of difference
LOGIT_TOLERANCE, PROBABILITY_TOLERANCE = 0.1, 0.02  # some published values were computed under float16 autocast


def examine(path: Path, media: Path | None = None) -> Iterator[Finding]:
    """Check a converted ``.safetensors`` or a published ``.pt`` file; the findings come one by one.

    ``media``: a clip for which answers of this checkpoint are published; they are computed again and compared.
    ``AvbenchError`` if the file cannot be read or is refused; ``UsageError`` if no answer is published for that clip.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        card = checkpoints.card_of_converted(path)
        tensors = checkpoints.load_weights(path)
        if card is None:
            yield Finding(False, f"{path.name}: its provenance is unknown, {path.with_suffix('.json').name} is missing")
            family, n_classes, entry = checkpoints.family_of(tensors), checkpoints.n_classes_of(tensors), None
        else:
            family, n_classes = card["family"], card["n_classes"]
            entry = published_entry(str(card.get("published_as")))
            yield Finding(
                True, f"{path.name}: sha256 {card['sha256'][:12]}... matches {path.with_suffix('.json').name}"
            )
            yield from (Finding(True, f"changed when converted: {change}") for change in card.get("changes", []))
    else:
        container = read_container(path)
        family = checkpoints.family_of(container.tensors)
        tensors, changes = checkpoints.renamed(container.tensors)
        n_classes, digest = checkpoints.n_classes_of(tensors), md5_of(path)
        entry = with_md5(digest)
        about = ", ".join(f"{key} {value}" for key, value in sorted(container.about.items()))
        yield Finding(
            True, f"{path.name}: read without executing it; md5 {digest[:7]}...; {about or 'no further information'}"
        )
        yield from (Finding(True, f"would be changed when converted: {change}") for change in changes)
    known = (
        f"published as {entry.name}, trained on {entry.trained_on}" if entry else "none of the published checkpoints"
    )
    yield Finding(True, f"{family}, {n_classes or 'no'} classes; {known}")
    whole = True
    for finding in _entries(tensors, family, n_classes):
        whole &= finding.ok
        yield finding
    yield _finite(tensors)
    if media is not None:
        if not whole:
            raise AvbenchError(f"{path.name} does not fit the model, so the published answer was not computed")
        yield from _answers(path, family, entry, Path(media))


def _entries(tensors: dict[str, Tensor], family: str, n_classes: int) -> Iterator[Finding]:
    template = checkpoints.template_of(family, n_classes)
    wrong = checkpoints.differences(tensors, template)
    if not wrong:
        n = sum(t.numel() for t in tensors.values() if t.is_floating_point())
        yield Finding(True, f"{len(tensors)} entries, {n} numbers: keys and shapes match the full-size model")
    for what, items in wrong.items():
        for item in items[:MAX_LINES]:
            side, shape = (template, tensors)[what == "unexpected"], ""
            if item in side:
                shape = f" ({checkpoints.shape_text(side[item])})"
            yield Finding(False, f"{what}: {item}{shape}")
        if len(items) > MAX_LINES:
            yield Finding(False, f"{what}: and {len(items) - MAX_LINES} more")


def _finite(tensors: dict[str, Tensor]) -> Finding:
    bad = [k for k, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]
    more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
    return Finding(not bad, f"NaN or infinity in {', '.join(bad[:3])}{more}" if bad else "every number is finite")


# ------------------------------------------------------------------------------------------------- the published answer


def _answers(path: Path, family: str, entry: Published | None, media: Path) -> Iterator[Finding]:
    stated = [s for s in (entry.smoke if entry else ()) if s["clip"].split()[-1] in media.name]
    if not stated:
        there = sorted({s["clip"] for s in (entry.smoke if entry else ())})
        what = entry.name if entry else path.name
        known = ", ".join(there) or "none"
        raise UsageError(f"no answer of {what} is published for {media.name}; clips with answers: {known}")
    model: Any = tuned(checkpoints.load_full_size(family, path), made_for="cpu")
    frames, sound, priming = decoded(media)
    for said in stated:
        trim = priming if said["decoding"] == "legacy" else 0
        video, audio = cut_window(
            frames, sound, float(said["start_s"]), float(said["offset_s"]), audio_lead_trim_samples=trim
        )
        with torch.inference_mode():
            logits = model.predict(video[None], audio[None]).logits[0].double()
        probability, found = logits.softmax(-1).max(-1)
        logit, label = float(logits[found]), said["offset_class"]
        ok = (
            int(found) == label
            and abs(logit - said["logit"]) <= LOGIT_TOLERANCE
            and abs(float(probability) - said["probability"]) <= PROBABILITY_TOLERANCE
        )
        where = (
            f"{said['clip']}, offset {said['offset_s']:g} s, start {said['start_s']:g} s, {said['decoding']} decoding"
        )
        text = (
            f"{where}: class {int(found)}, probability {probability:.4f}, logit {logit:.4f}; published class {label}, "
        )
        yield Finding(ok, f"{text}{said['probability']:.4f}, {said['logit']:.4f}")


def decoded(media: Path) -> tuple[Tensor, Tensor, int]:
    """A clip as the published test code decodes it: centre crops (T, 3, 224, 224) uint8, all samples (N,) float32, and
    the number of samples that old decoders dropped at its start (the sound's priming).

    ``UsageError`` for a missing file, ``MediaError`` for a damaged one.
    """
    import av

    from avbench.data.media import ClipReader

    if not media.is_file():
        raise UsageError(f"{media} does not exist")
    reader = ClipReader(media)
    frames = np.stack([crop for (crop,) in reader.frames(FrontEnd(size=224, fit="crop", short_side=256))])
    sound = reader.audio()
    try:
        with av.open(str(media)) as container:
            stream = container.streams.audio[0]
            first = next(p.pts for p in container.demux(stream) if p.pts is not None)
            priming = max(0, round(-first * float(stream.time_base or 0) * 16_000))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(media.name, f"the sound is damaged ({first_line(error)})") from error
    return torch.from_numpy(frames), torch.from_numpy(sound), priming
