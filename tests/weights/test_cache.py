"""`avbench weights`, and running what it brought: as a person meets it."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loopback import serving
from published_files import build_small, publish

from avbench.data.clicks import click_and_flash
from avbench.data.encode import encode_clip
from avbench.data.media import media_sha256
from avbench.protocol.manifest import Manifest, write_manifest
from avbench.results.predictions import read_predictions
from avbench.ticks import ticks
from avbench.types import AvbenchError, ClipRecord, OffsetGrid, SegmentRecord, UsageError
from avbench.weights import cache as weights
from avbench.weights import checkpoints, published, verifying
from avbench.weights.checkpoints import drawn_weights

DATA = np.random.default_rng(0).bytes(5_000_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads on a busy machine cost more than they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., torch.nn.Module]:
    monkeypatch.setattr(checkpoints, "build", build_small)
    return build_small


@pytest.fixture
def large_clicks(tmp_path: Path) -> Path:
    """A manifest over one click-and-flash clip of 240 x 240: enough for the published crop."""
    folder = tmp_path / "data"
    (folder / "media").mkdir(parents=True)
    frames, sound = click_and_flash(8)
    path = folder / "media" / "clip.mp4"
    encode_clip(path, np.repeat(np.repeat(frames[:, :, :60], 4, axis=1)[:, :240], 4, axis=2), sound)
    clip = ClipRecord("clip", "clip", path.name, media_sha256(path), 200, 8 * 16_000)
    label = OffsetGrid().class_of(0.4)
    segments = (SegmentRecord("clip-0", "clip", "clip", 0, ticks(0.4), label),)
    # (as of our own making, it is read in this process, where the model is made small)
    manifest = Manifest("clicks", "synthetic", "click and flash", "uniform", {"clip": clip}, segments, folder / "media")
    write_manifest(manifest, folder)
    return folder


def one_line(done: Any, code: int, *said: str) -> None:
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("avbench: error")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    for text in said:
        assert text in lines[0]


# ---------------------------------------------------------------------------------------------------------------- list


def test_the_table_and_one_entry(avbench: Callable[..., Any]) -> None:
    table = avbench("weights", "list").stdout
    assert len(table[: table.index("for annotating")].splitlines()) == 16 + 2
    assert "22-09-21T21-00-52" in table
    assert "83fba5f" in table
    entry = avbench("weights", "list", "sparsesync.vggsound").stdout
    assert "https://a3s.fi/" in entry
    assert "probability 0.8652, logit 8.4451" in entry
    assert "1024 samples" in entry
    rows = json.loads(avbench("weights", "list", "--json").stdout)
    assert {row["name"] for row in rows if row["kind"] == "checkpoint"} == {e.name for e in published.published()}
    one_line(avbench("weights", "list", "sparsesync.vgsound"), 2, "did you mean", "sparsesync.vggsound")


def test_lead_trims_follow_what_the_training_clips_were() -> None:
    trims = {e.name: e.audio_lead_trim_samples for e in published.published()}
    assert trims["sparsesync.vggsound"] == trims["synchformer.audioset"] == 1024
    assert trims["sparsesync.lrs3"] == trims["synchformer.lrs3"] == 0  # no priming in LRS3: old decoders lost nothing


# --------------------------------------------------------------------------------------------------------------- fetch


def fetched(name: str = "sparsesync.mine") -> Path:
    return weights.downloaded(name)


def test_fetch_with_progress_and_md5(avbench: Callable[..., Any]) -> None:
    with serving(DATA) as server:
        done = avbench("weights", "fetch", "sparsesync.mine", "--url", server.url + "a.pt", "--md5", MD5[:7])
        assert done.returncode == 0, done.stderr
        assert fetched().read_bytes() == DATA
        assert "md5 verified" in done.stdout
        assert "sparsesync.mine" in done.stderr  # the bar
        assert [p.name for p in fetched().parent.iterdir()] == ["sparsesync.mine.pt"]
        again = avbench("weights", "fetch", "sparsesync.mine", "--url", server.url + "a.pt", "--md5", MD5)
        assert again.returncode == 0
        assert len(server.asked) == 1, "it is there already"


def test_a_published_name_is_checked_against_its_md5(avbench: Callable[..., Any]) -> None:
    with serving(DATA) as server:
        done = avbench("weights", "fetch", "sparsesync.vggsound", "--url", server.url)
        # a base address: the rest is the published path
        path = "/sync_models/22-09-21T21-00-52/22-09-21T21-00-52.pt"
        assert [p for p, _ in server.asked] == [path]
    one_line(done, 1, f"its md5 is {MD5[:7]}", "it must be 83fba5f", "it was deleted")
    assert not list(fetched().parent.iterdir())


def test_a_broken_download_continues(avbench: Callable[..., Any]) -> None:
    with serving(DATA, breaks_after=3_000_000) as server:
        command = ("weights", "fetch", "sparsesync.mine", "--url", server.url + "a.pt", "--md5", MD5)
        one_line(avbench(*command), 1, "broke off after 3000000 of 5000000 bytes", "run the same command to resume")
        assert avbench(*command).returncode == 0
        assert server.asked[1][1]["Range"] == "bytes=3000000-"
        assert server.asked[1][1]["If-Range"] == '"v1"'
    assert fetched().read_bytes() == DATA


@pytest.mark.parametrize("how", ["another version", "no ranges", "whole already"])
def test_what_cannot_be_continued_starts_again(how: str) -> None:
    with serving(DATA, breaks_after=2_000_000) as server:
        with pytest.raises(AvbenchError, match="broke off"):
            weights.fetch("sparsesync.mine", server.url + "a.pt")
        server.breaks_after = None
        if how == "another version":
            server.data, server.etag = DATA[::-1], '"v2"'
        elif how == "no ranges":
            server.ranges = False
        else:
            fetched().with_suffix(".pt.part").write_bytes(DATA)
        weights.fetch("sparsesync.mine", server.url + "a.pt")
        assert fetched().read_bytes() == server.data


def test_no_network_says_which_address_and_where_to_put_the_file(avbench: Callable[..., Any]) -> None:
    with serving(DATA) as server:
        gone = server.url
    done = avbench("weights", "fetch", "sparsesync.vggsound", "--url", gone)
    one_line(done, 1, f"cannot fetch {gone}sync_models/22-09-21", f"put it at {fetched('sparsesync.vggsound')}")
    with serving(DATA, status=404) as server:
        one_line(
            avbench("weights", "fetch", "sparsesync.x", "--url", server.url + "a.pt"), 1, "answered 404", "put it at"
        )


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://x/y.pt", "/etc/hostname", "data:,x"])
def test_only_web_addresses(url: str, avbench: Callable[..., Any]) -> None:
    one_line(avbench("weights", "fetch", "sparsesync.x", "--url", url), 2, "must begin with https:// or http://")
    with serving(DATA, redirect=url if "//" in url else "file://" + url) as server:
        done = avbench("weights", "fetch", "sparsesync.x", "--url", server.url + "a.pt")
    assert done.returncode == 1
    assert not fetched("sparsesync.x").exists()


@pytest.mark.parametrize("name", ["../x.y", "sparsesync", "a/b.c", "sparsesync.a.b", ".x", "sparsesync.x/../../y"])
def test_no_name_leaves_the_cache(name: str, avbench: Callable[..., Any]) -> None:
    one_line(avbench("weights", "fetch", name, "--url", "http://127.0.0.1:9/a.pt"), 2, "is not a name for weights")


# -------------------------------------------------------------------------------------- from a published file to scores


def test_fetch_convert_verify_run(
    avbench: Callable[..., Any], small: Any, tmp_path: Path, large_clicks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way under a published name, whose md5 is the test's file's for once."""
    source = publish(tmp_path / "a.pt", drawn_weights(small("sparsesync").state_dict(), 5))
    data = source.read_bytes()
    prefix = hashlib.md5(data).hexdigest()[:7]
    table = tuple(
        replace(e, md5_prefix=prefix) if e.name == "sparsesync.vggsound" else e for e in published.published()
    )
    monkeypatch.setattr(published, "published", lambda: table)
    one = ("--data", large_clicks, "--iterations", 1, "--workers", 1)
    run = ("run", "--model", "sparsesync.vggsound+apa", *one)
    one_line(avbench(*run), 2, "is not in the cache", "weights fetch sparsesync.vggsound")
    with serving(data) as server:
        assert avbench("weights", "fetch", "sparsesync.vggsound", "--url", server.url).returncode == 0
    one_line(avbench(*run), 2, "in the cache but not converted", "weights convert sparsesync.vggsound")
    done = avbench("weights", "convert", "sparsesync.vggsound")
    assert done.returncode == 0, done.stderr
    assert (
        "trained on LRS3, then VGGSound · published as sparsesync.vggsound · sound lead trim 1024 samples"
        in done.stdout
    )
    done = avbench("weights", "verify", "sparsesync.vggsound")
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout
    assert "every number is finite" in done.stdout
    assert "sparsesync.vggsound" in avbench("models", "sparsesync*").stdout
    done = avbench(*run, "--out", "out")
    assert done.returncode == 0, done.stderr
    result = json.loads(Path("out/run.json").read_text())
    card = result["model"]
    assert (card["full_size"], card["audio_lead_trim_samples"], card["dtype"]) == (True, 1024, "float32")
    assert card["trained_on"] == "LRS3, then VGGSound"
    assert "|lead1024|" in result["signature"]
    assert "sound heard 1024 samples early, as in training" in done.stdout
    # the .pt file itself is recognised by its md5: the same model
    done = avbench("run", "--model", "apa-sparsesync", "--weights", source, *one, "--out", "same")
    assert done.returncode == 0, done.stderr
    same = json.loads(Path("same/run.json").read_text())
    assert same["signature"] == result["signature"]
    assert "snapshots_computed" not in same["counters"]


def test_the_published_answer_is_computed_again(
    avbench: Callable[..., Any], small: Any, tmp_path: Path, large_clicks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("sparsesync").state_dict(), 5))
    clip = large_clicks / "media" / "clip.mp4"
    frames, sound, priming = verifying.decoded(clip)
    assert priming == 1024, "ffmpeg's AAC in mp4 begins with priming"
    model = checkpoints.load_full_size("sparsesync", source)
    # by hand: 1 s in, sound 0.4 s later, without what the old decoders lost
    video, audio = frames[25:150], sound[priming:][int(1.4 * 16_000) :][:80_000]
    with torch.inference_mode():
        logits = model.predict(video[None], audio[None]).logits[0]
    right = {"clip": "Test clip", "offset_s": 0.4, "start_s": 1, "decoding": "legacy"}
    right |= {"offset_class": int(logits.argmax()), "logit": float(logits.max())}
    right |= {"probability": float(logits.softmax(-1).max())}
    wrong = {**right, "logit": right["logit"] + 1}
    prefix = hashlib.md5(source.read_bytes()).hexdigest()[:7]
    entry = replace(published.find_published("sparsesync.vggsound"), md5_prefix=prefix, smoke=(right, wrong))
    monkeypatch.setattr(published, "published", lambda: (entry,))
    done = avbench("weights", "verify", source, "--media", clip)
    assert done.returncode == 1
    *_, good, bad = done.stdout.splitlines()
    assert good.startswith("ok    Test clip, offset 0.4 s, start 1 s, legacy decoding: class")
    assert bad.startswith("FAIL  Test clip")
    other = tmp_path / "other.mp4"
    other.write_bytes(clip.read_bytes())
    one_line(
        avbench("weights", "verify", source, "--media", other),
        2,
        "published for other.mp4; clips with answers: Test clip",
    )


def test_convert_wants_a_name_for_a_file_of_ones_own(avbench: Callable[..., Any], small: Any, tmp_path: Path) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("sparsesync").state_dict(), 5))
    one_line(avbench("weights", "convert", source), 2, "none of the published checkpoints", "--name")
    one_line(avbench("weights", "convert", source, "--name", "sparsesync.vggsound"), 1, "published is 83fba5f")
    one_line(
        avbench("weights", "convert", source, "--name", "synchformer.x"), 1, "contains sparsesync weights, not synchf"
    )
    one_line(avbench("weights", "convert", source, "--out", "x.bin"), 2, "must end in .safetensors")
    one_line(avbench("weights", "convert", "none.pt"), 1, "none.pt does not exist")
    one_line(avbench("weights", "convert", "sparsesync.none"), 1, "is not in the cache")
    done = avbench("weights", "convert", source, "--name", "sparsesync.mine", "--audio-lead-trim-samples", 1024)
    assert done.returncode == 0, done.stderr
    assert checkpoints.card_of_converted(weights.converted("sparsesync.mine"))["audio_lead_trim_samples"] == 1024  # type: ignore[index]
    assert avbench("weights", "convert", source, "--out", "there/x.safetensors").returncode == 0
    assert avbench("weights", "verify", "there/x.safetensors").returncode == 0


def test_verify_shows_a_readable_difference(avbench: Callable[..., Any], small: Any, tmp_path: Path) -> None:
    tensors = drawn_weights(small("sparsesync").state_dict(), 5)
    del tensors["transformer.off_head.weight"]
    tensors |= {"surprise\n\x1b[31m": torch.zeros(2), "v_bridge.bridge.0.bias": torch.full((7,), float("inf"))}
    done = avbench("weights", "verify", publish(tmp_path / "a.pt", tensors))
    assert done.returncode == 1
    failed = [line.removeprefix("FAIL  ") for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert failed == [
        "missing: transformer.off_head.weight (21x48)",
        "unexpected: surprise ?[31m (2)",
        "of another shape: v_bridge.bridge.0.bias: 7 instead of 48",
        "NaN or infinity in v_bridge.bridge.0.bias",
    ]


class _Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("verb", [("convert", "--name", "sparsesync.x"), ("verify",), ("run",)])
def test_a_malicious_file_is_refused_and_does_nothing(
    verb: tuple[str, ...], avbench: Callable[..., Any], small: Any, tmp_path: Path, large_clicks: Path
) -> None:
    mark = tmp_path / "executed"
    weights_of = drawn_weights(small("sparsesync").state_dict(), 5)
    source = publish(tmp_path / "evil.pt", weights_of, optimizer={"x": _Evil(mark)})
    if verb == ("run",):
        done = avbench("run", "--model", "sparsesync", "--weights", source, "--data", large_clicks, "--iterations", 1)
    else:
        done = avbench("weights", verb[0], source, *verb[1:])
    one_line(done, 1, "evil.pt is refused and was not executed: it names posix.system")
    assert not mark.exists()
    plain = tmp_path / "bare.pt"
    plain.write_bytes(pickle.dumps(_Evil(mark)))
    done = avbench("run", "--model", "sparsesync", "--weights", plain)
    one_line(done, 1, "neither a safetensors file nor a torch checkpoint")
    assert not mark.exists()


def test_a_header_that_asks_for_much_memory_is_not_read(avbench: Callable[..., Any], tmp_path: Path) -> None:
    """Each of its empty tensors would take a kilobyte."""
    names = ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(50_000))
    header = f"{{{names}}}".encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    for command in (("weights", "verify", path), ("run", "--model", "sparsesync", "--weights", path)):
        one_line(avbench(*command), 1, f"has {len(header)} bytes of names and shapes, at most 2097152 are read")


def test_the_header_of_published_weights_is_ten_times_shorter() -> None:
    template = checkpoints.template_of("streamsync-trf", 21)
    entries = {k: {"dtype": "F32", "shape": list(t.shape), "data_offsets": [10**9, 10**9]} for k, t in template.items()}
    assert 10 * len(json.dumps(entries)) <= weights.MAX_HEADER_BYTES


def test_a_pipe_is_no_weight_file(avbench: Callable[..., Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.safetensors")
    one_line(avbench("run", "--model", "sparsesync", "--weights", tmp_path / "a.safetensors"), 1, "not a regular file")


# ----------------------------------------------------------------------------------------------- what cannot be run


def test_what_is_no_offset_model_says_so_by_name(avbench: Callable[..., Any], small: Any, tmp_path: Path) -> None:
    run = ("run", "--data", "synthsync", "--model")
    one_line(avbench(*run, "sparsesync.lrs3-3"), 2, "3 classes", "cannot be run")
    two = publish(tmp_path / "a.pt", drawn_weights(small("synchformer-synchronisability", 2).state_dict(), 1))
    three = publish(tmp_path / "b.pt", drawn_weights(small("sparsesync", 3).state_dict(), 1))
    whole = drawn_weights(small("synchformer").state_dict(), 1)
    s1 = publish(tmp_path / "c.pt", {k: t for k, t in whole.items() if k.startswith(("vfeat_ext", "afeat_ext"))})
    from avbench.registry.names import load_model

    for file, family, said in (
        (two, "synchformer", "2 classes.*not an offset: it cannot be run"),
        (three, "sparsesync", "b.pt has 3 classes, the protocols have 21"),
        (s1, "synchformer", "c.pt is an encoder-only checkpoint"),
    ):
        with pytest.raises(AvbenchError, match=said) as error:
            load_model(family, file)
        assert "\n" not in str(error.value)


def test_a_cached_checkpoint_that_cannot_be_run_is_no_model(small: Any, tmp_path: Path) -> None:
    from avbench.registry.names import list_models, resolve

    source = publish(tmp_path / "b.pt", drawn_weights(small("sparsesync", 3).state_dict(), 1))
    checkpoints.convert(source, weights.converted("sparsesync.lrs3-3"))
    with pytest.raises(UsageError, match="3 classes"):
        resolve("sparsesync.lrs3-3")
    assert "sparsesync.lrs3-3" not in [m.name for m in list_models()]


# ---------------------------------------------------------------------------------------- random weights, any head


def test_random_weights_only_on_request_and_marked(
    avbench: Callable[..., Any], small: Any, large_clicks: Path, clicks: Path
) -> None:
    one = ("--data", large_clicks, "--iterations", 2, "--workers", 1, "--no-reference-rows", "--hop", 1)
    done = avbench("run", "--model", "synchformer+lstm", *one, "--random-weights", 3, "--out", "a")
    assert done.returncode == 0, done.stderr
    card = json.loads(Path("a/run.json").read_text())
    assert card["model"]["random_weights"] == 3
    assert card["model"]["trained_on"] == "nothing (random weights, seed 3)"
    assert "fixed map" in card["model"]["token"]
    assert "|lead0|random3|" in card["signature"]
    assert any("RANDOM WEIGHTS" in warning for warning in card["warnings"])
    assert "synchformer+lstm (RANDOM WEIGHTS)" in done.stdout
    assert "these scores mean nothing" in done.stdout
    assert "note: RANDOM WEIGHTS" in done.stderr
    # without the option the name means the embedded model
    done = avbench("run", "--model", "synchformer", "--data", clicks, "--iterations", 1, "--workers", 1, "--out", "b")
    assert json.loads(Path("b/run.json").read_text())["model"]["random_weights"] is None
    assert "RANDOM" not in done.stdout + done.stderr


def test_precision_is_part_of_fingerprint_and_signature(
    avbench: Callable[..., Any], small: Any, large_clicks: Path
) -> None:
    one = ("--data", large_clicks, "--iterations", 1, "--workers", 1, "--no-reference-rows", "--random-weights")
    logits, signatures = {}, set()
    for dtype in ("float32", "bfloat16"):
        done = avbench("run", "--model", "streamsync-trf", *one, "--dtype", dtype, "--out", dtype)
        assert done.returncode == 0, done.stderr
        run = json.loads(Path(dtype, "run.json").read_text())
        assert run["counters"]["snapshots_computed"] == 1, "no snapshot of another precision is used"
        assert run["model"]["dtype"] == dtype
        assert (f"|{dtype}|" in run["signature"]) == (dtype != "float32")
        signatures.add(run["signature"])
        logits[dtype] = read_predictions(Path(dtype, "predictions.parquet"))[1]
    assert len(signatures) == 2
    assert 0 < np.abs(logits["bfloat16"] - logits["float32"]).max() < 0.5


def test_wrong_requests_are_one_line(avbench: Callable[..., Any], small: Any, tmp_path: Path) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("streamsync-trf").state_dict(), 5))
    run = ("run", "--data", "synthsync", "--model")
    one_line(avbench(*run, "sparsesync", "--weights", "gone.pt"), 1, "weight file gone.pt does not exist")
    one_line(avbench(*run, "sparsesync.vggsound", "--weights", source), 2, "leave that or --weights out")
    one_line(avbench(*run, "xcorr", "--weights", source), 2, "takes no weight file")
    one_line(avbench(*run, "constant", "--random-weights"), 2, "ignores its input")
    one_line(avbench(*run, "sparsesync+apa", "--head-weights", source), 2, "head apa has no weights")
    one_line(avbench(*run, "sparsesync", "--weights", source, "--random-weights"), 2, "remove --random-weights")
    one_line(avbench(*run, "sparsesync+trf"), 2, "no trained trf head for sparsesync", "--head-weights")
    one_line(avbench(*run, "sparsesync", "--dtype", "int8"), 2, "float32, bfloat16, float16")
    one_line(avbench(*run, "sparsesync", "--dtype", "bfloat16"), 2, "mini model")
    one_line(avbench(*run, "sparsesync", "--device", "warp"), 2, "device 'warp' cannot be used here")
    one_line(avbench(*run, "sparsesync", "--random-weights", -1), 2, "must be 0 or more")
    one_line(avbench("sweep", "--models", "sparsesync", "--weights", "gone.pt"), 1, "gone.pt does not exist")
    one_line(avbench("doctor", "sparsesync", "--weights", "gone.pt"), 1, "gone.pt does not exist")
    one_line(avbench("doctor", "--random-weights"), 2, "need a model name")


def test_any_batch_size_word(avbench: Callable[..., Any], clicks: Path) -> None:
    done = avbench(
        *("run", "--model", "xcorr", "--data", clicks, "--iterations", 1, "--batch-size", "auto", "--out", "a")
    )
    assert done.returncode == 0, done.stderr
    assert avbench("run", "--model", "xcorr", "--batch-size", "many").returncode == 2
    assert avbench("run", "--model", "xcorr", "--batch-size", "-1").returncode == 2


def test_sweep_with_weights(avbench: Callable[..., Any], small: Any, tmp_path: Path, large_clicks: Path) -> None:
    source = publish(tmp_path / "a.pt", drawn_weights(small("streamsync-trf").state_dict(), 5))
    command = ("sweep", "--models", "streamsync-trf+apa", "streamsync-trf", "xcorr", "constant", "--weights", source)
    done = avbench(*command, "--data", large_clicks, "--hops", 1, "--iterations", 1, 2, "--workers", 1, "--json")
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in json.loads(done.stdout)][::2] == list(command[2:6])
