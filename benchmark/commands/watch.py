"""``avbench watch``."""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avbench.commands.common import (
    SIGN,
    add_command,
    add_compute_options,
    add_model_options,
    add_tracks,
    device_of,
    hop_s,
    model_options,
    one_window,
    say,
    tracks_of,
)

if TYPE_CHECKING:
    from avbench.data.live import LiveOptions, LiveSource
    from avbench.registry.options import StreamingModel
    from avbench.runs.watch import Alarm, Sink, Watch
    from avbench.runs.watch_record import Record

MOST_PORT = 65535

ONE_WINDOW = "a stream is watched window by window, as they arrive"


def add(commands: Any) -> None:
    """Adds the subcommand to the parser."""
    parser = add_command(
        commands,
        "watch",
        _watch,
        "watch a live stream: how far its sound is off, since when, how surely",
        "URL: udp://, rtp://, srt://, rtmp://, rtsp://, http(s):// (MPEG-TS, HLS), a file, - (stdin), or with\n"
        f"--format a capture device. {SIGN}\n"
        "Prints one JSON object a line (type: window, change, alarm, clear, gap, lag, reconnect, summary; t_s:\n"
        "seconds of the stream); on a terminal, a view of them. A lost connection is taken up again. SIGTERM and\n"
        "Ctrl-C end it with a summary. Exit code 1: the stream cannot be opened, or the record has holes.",
        "avbench watch udp://239.1.1.1:5000 --model xcorr --tolerance ebu",
        "avbench watch https://example.org/live.m3u8 --model sparsesync.vggsound --metrics-port 9273 --record seen",
        "ffmpeg -i srt://example.org:9000 -c copy -f mpegts - | avbench watch - --model xcorr --jsonl",
        "avbench watch /dev/video0 --format v4l2 --model xcorr   # where the device brings sound, too",
    )
    parser.add_argument("url", metavar="URL", help="the stream; - is stdin")
    parser.add_argument(
        "--model",
        metavar="M",
        help="a name of `avbench models`, or file.py:Class; +bayes is added if it names no head (default: the best "
        "published weights in the cache)",
    )
    parser.add_argument("--hop", type=float, default=2.0, metavar="S", help="seconds between windows (default: 2)")
    parser.add_argument("--jsonl", action="store_true", help="JSON lines on a terminal, too")
    parser.add_argument("--for", dest="for_s", type=float, metavar="S", help="end after S seconds of stream")
    _add_alarm(parser)
    _add_stream(parser)
    add_compute_options(parser, one=ONE_WINDOW)
    add_model_options(parser)


def _add_alarm(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("alarms, and who is told")
    group.add_argument(
        "--tolerance",
        metavar="T",
        help="itu-detect, itu-accept, atsc, ebu, or EARLY/LATE in seconds such as 0.045/0.125 (default: itu-accept)",
    )
    group.add_argument(
        "--alarm-after",
        type=float,
        metavar="S",
        help="seconds that the stream must be judged out of tolerance before the alarm (default: 10)",
    )
    group.add_argument(
        "--clear-after",
        type=float,
        metavar="S",
        help="seconds within tolerance before it is over (default: 20; a fault that comes and goes is one alarm)",
    )
    group.add_argument("--webhook", metavar="URL", help="POST alarms and their end as JSON; redirects are not followed")
    group.add_argument("--metrics-port", type=int, metavar="N", help="serve figures for Prometheus (0: any free port)")
    group.add_argument("--metrics-host", metavar="HOST", help="address to serve them on (default: 127.0.0.1)")
    group.add_argument(
        "--record", type=Path, metavar="DIR", help="keep all events and the probabilities of each window in DIR"
    )


def _add_stream(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the stream")
    group.add_argument(
        "--timeout",
        type=float,
        default=20.0,
        metavar="S",
        help="without data for so long a connection is lost (default: 20; HLS is silent for a segment)",
    )
    group.add_argument("--format", default="", metavar="F", help="FFmpeg's name of a capture device or container")
    group.add_argument(
        "--input-option", action="append", default=[], metavar="KEY=VALUE", help="FFmpeg's; may be given several times"
    )
    add_tracks(group, "FFmpeg's choice")


def _watch(args: argparse.Namespace) -> int:
    from avbench.data.live import Address, LiveSource
    from avbench.runs.answering import Answering
    from avbench.runs.watch import Alerts, Watch, watch
    from avbench.system.webhook import Webhook

    one_window(args, ONE_WINDOW)
    device = device_of(args)
    alarm, options = _alarm(args), _options(args)
    address = Address.of(args.url, args.format, _input_options(args.input_option))
    _check_outputs(args)
    out = sys.stdout
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # what a user's model prints
        model = _model(args, device)
        answering = Answering(model, options.hop_s, device)
        if answering.why:
            say(f"note: {answering.why}")
        source = LiveSource(address, answering.frontend, options)
        state = Watch(source, alarm)
        about = {"stream": address.shown, "model": model.name}
        record = _record(args, model, about, alarm) if args.record else None
        webhook = Webhook(args.webhook, say) if args.webhook else None
        sinks: list[Sink] = [record] if record else []
        sinks += [Alerts(webhook, about)] if webhook else []
        sinks += _metrics(args, state)
        sinks.append(_view(args, out, f"{address.shown} · {model.name} · {alarm.table.name}"))
        with _ended_by_signals(source):
            watch(source, answering, alarm, sinks, state)
    if webhook and webhook.failed:
        say(f"{webhook.failed} of {webhook.failed + webhook.sent} messages did not reach the webhook")
    if record and record.lost:
        say(f"{record.lost} lines are missing in the record")
        return 1
    return 0


def _model(args: argparse.Namespace, device: str) -> StreamingModel:
    """The model, loaded, with a head that follows changing offsets if its name has none."""
    from avbench.registry.loading import load
    from avbench.runs.predict import default_model, resolved
    from avbench.types import UsageError

    options = model_options(args)
    if args.model is None and options.changes_anything:
        raise UsageError("weights and precision go with a model: name it with --model")
    name, told = (args.model, "") if args.model is not None else default_model()
    if told:
        say(told)
    return load(resolved(name, options.for_device(device)), device)


def _alarm(args: argparse.Namespace) -> Alarm:
    from avbench.runs.watch import ALARM_AFTER_S, CLEAR_AFTER_S, TOLERANCE, Alarm
    from avbench.scoring.tolerance import tolerance_asked

    after_s = ALARM_AFTER_S if args.alarm_after is None else args.alarm_after
    clear_after_s = CLEAR_AFTER_S if args.clear_after is None else args.clear_after
    return Alarm(tolerance_asked(args.tolerance or TOLERANCE), after_s, clear_after_s, most_s=max(args.hop, 5.0))


def _options(args: argparse.Namespace) -> LiveOptions:
    from avbench.data.live import LiveOptions
    from avbench.protocol.rules import streaming
    from avbench.types import UsageError

    for name, value in (("--for", args.for_s), ("--timeout", args.timeout)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name} is {value}; it must be more than 0 s")
    video, audio = tracks_of(args)
    streaming(hop_s(args), iterations=1)  # refuses a hop that is no number of frames
    return LiveOptions(
        hop_s=args.hop,
        timeout_s=args.timeout,
        for_s=args.for_s,
        video_track=video,
        audio_track=audio,
    )


def _input_options(given: list[str]) -> dict[str, str]:
    from avbench.types import UsageError, printable

    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"--input-option {printable(text)} is not KEY=VALUE")
        found[key] = value
    return found


def _record(args: argparse.Namespace, model: StreamingModel, about: dict[str, Any], alarm: Alarm) -> Record:
    from avbench import __version__
    from avbench.engine.fingerprint import head_fingerprint, model_fingerprint
    from avbench.runs.answering import WINDOW_S
    from avbench.runs.watch_record import Record
    from avbench.types import UsageError

    if model.backbone is None or model.head is None:
        raise UsageError(f"model {model.name!r} ignores its input; choose one that looks and listens")
    head = {
        **about,
        "avbench_version": __version__,
        "fingerprint": model_fingerprint(model.backbone),
        "head_fingerprint": head_fingerprint(model.head),
        "trained_on": model.trained_on,
        "window_s": WINDOW_S,
        "hop_s": args.hop,
        "tolerance": {"name": alarm.table.name, "early_s": alarm.table.early_s, "late_s": alarm.table.late_s},
        "alarm_after_s": alarm.after_s,
        "clear_after_s": alarm.clear_after_s,
    }
    return Record(args.record, head, say)


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuses where nothing can be sent or written, and a device that is not there, before the model is loaded."""
    from avbench.system.devices import check_device
    from avbench.system.outputs import check_writable
    from avbench.system.webhook import check_address
    from avbench.types import UsageError

    check_device(args.device)
    if args.webhook:
        check_address(args.webhook)
    if args.metrics_port is not None and not 0 <= args.metrics_port <= MOST_PORT:
        raise UsageError(
            f"--metrics-port is {args.metrics_port}; a port is 1 ... {MOST_PORT}, or 0 for any that is free"
        )
    if args.record is not None:
        check_writable(args.record, "--record")


def _metrics(args: argparse.Namespace, state: Watch) -> list[Sink]:
    from avbench.types import UsageError

    if args.metrics_port is None:
        if args.metrics_host:
            raise UsageError("--metrics-host needs --metrics-port")
        return []
    from avbench.runs.watch_metrics import HOST, Metrics

    host = args.metrics_host or HOST
    metrics = Metrics(state, args.metrics_port, host)
    say(f"metrics: http://{host}:{metrics.port}/metrics")
    return [metrics]


def _view(args: argparse.Namespace, out: Any, title: str) -> Sink:
    from avbench.pages.watch_text import WatchText
    from avbench.runs.watch import JsonLines

    return WatchText(out, title) if out.isatty() and not args.jsonl else JsonLines(out)


@contextlib.contextmanager
def _ended_by_signals(source: LiveSource) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the stream; a second one acts as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def end(number: int, _: object) -> None:
        source.stop()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
