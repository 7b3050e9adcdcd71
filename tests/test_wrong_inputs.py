"""Wrong requests to every command: one line that says what is wrong, the right exit code, nothing written, and never a
traceback.

In a line ``*`` after a command stands for what it needs to be right: see ``FULL``. What the files and folders hold is
in ``FILES`` and ``folder``.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import make_run

from avbench import cli

Avbench = Callable[..., "subprocess.CompletedProcess[str]"]

FULL = {
    "run *": "run --model constant --data ./DATA --n-resamples 20",
    "submit pack *": "submit pack TRACKRUN --out new --org acme --name toy",
}
FILES = {
    "notes.txt": "words",
    "bad.mp4": "no video",
    "x.json": "[1]",
    "zero.safetensors": "",
    "full/thesis.tex": "years of work",
    "broken/manifest.json": "{",
    "listed/manifest.json": "[1]",
    "future/manifest.json": '{"schema_version": 99}',
    "badrun/run.json": "{",
    "futurerun/run.json": '{"schema_version": 99}',
    "badentry/submission.json": "{}",
    "net.py": "import avbench\n\n\nclass NotAModel:\n    pass\n\n\nclass Net(avbench.SnapshotPredictor):\n    pass\n",
    "needs.py": "import avbench\nclass Net(avbench.SnapshotPredictor):\n    def __init__(self, width: int): ...\n",
    "bad_syntax.py": "class Net(:\n",
    "bad_import.py": "import no_such_module\n",
    "raises.py": "raise RuntimeError('no')\n",
    "exits.py": "raise SystemExit(0)\n",
    "bad.yaml": "model: [constant\n",
    "unknown.yaml": "model: constant\nhopp: 2\n",
    "tagged.yaml": "model: !!python/object/apply:os.system [true]\n",
}
# a request that is wrong in itself: exit code 2; what is said of it begins like this
WRONG = {
    "": {
        "": "the following arguments are required: COMMAND; see",
        "rum": "argument COMMAND: invalid choice: 'rum': did you",
        "--modle": "the following arguments are required: COMMAND; see",
        "-x": "the following arguments are required: COMMAND; see",
        "run run": "the following arguments are required: --model; see",
        "data": "the following arguments are required: VERB; see",
        "submit": "the following arguments are required: VERB; see",
        "leaderboard": "the following arguments are required: VERB; see",
        "weights": "the following arguments are required: VERB; see",
        "store": "say what to do: merge, verify, ls or prune; see",
        "train": "name a recipe: sparsesync-pt, sparsesync,",
        "data frmo-files": "argument VERB: invalid choice: 'frmo-files': did",
        "submit pak": "argument VERB: invalid choice: 'pak': did you mean",
        "weights lst": "argument VERB: invalid choice: 'lst': did you mean",
        "leaderboard biuld": "argument VERB: invalid choice: 'biuld': did you",
        "store mrege": "argument VERB: invalid choice: 'mrege': did you",
        "train fulsize": "argument RECIPE: invalid choice: 'fulsize': did you",
        "data ''": "argument VERB: invalid choice: '': there are synth,",
        "rün": "argument COMMAND: invalid choice: 'rün': did you",
        "модель": "argument COMMAND: invalid choice: 'модель': there",
        "run\\n--model": "argument COMMAND: invalid choice: 'runn--model':",
        "--version=2": "--version: ignored explicit argument '2';",
    },
    "run": {
        "run": "the following arguments are required: --model; see",
        "run --modle constant": "unknown option --modle: did you mean --model; see",
        "run --model": "--model: expected one argument; see",
        "run --model ''": "unknown model ''; `avbench models` lists those",
        "run --model ' '": "unknown model ' '; `avbench models` lists those",
        "run --model no-such": "unknown model 'no-such'; `avbench models` lists",
        "run --model constnat": "unknown model 'constnat'; did you mean constant?",
        "run --model constant+": "unknown head '' in 'constant+': there are none,",
        "run --model +apa": "unknown model '+apa'; `avbench models` lists those",
        "run --model constant+apa": "unknown model 'constant+apa'; did you mean constant?",
        "run --model xcorr+nothing": "unknown head 'nothing' in 'xcorr+nothing': there",
        "run --model xcorr+apa+apa": "unknown model 'xcorr+apa+apa'; did you mean xcorr?",
        "run --model nothing.py:Net": "model file nothing.py does not exist",
        "run --model notes.txt:Net": "unknown model 'notes.txt:Net'; `avbench models`",
        "run --model empty:Net": "unknown model 'empty:Net'; `avbench models` lists",
        "run --model net.py": "model 'net.py': name the class too, as in",
        "run --model net.py:": "model 'net.py:': name the class too, as in",
        "run --model net.py:Missing": "net.py:Missing: there is no such class; the file",
        "run --model net.py:NotAModel": "net.py:NotAModel is not a SnapshotPredictor;",
        "run --model xcorr+net.py:NotAModel": "net.py:NotAModel is not a StreamingHead; subclass",
        "run --model bad_syntax.py:Net": "model file bad_syntax.py does not run: SyntaxError:",
        "run --model bad_import.py:Net": "model file bad_import.py does not run:",
        "run --model raises.py:Net": "model file raises.py does not run: RuntimeError: no",
        "run --model binary.py:Net": "model file binary.py does not run: SyntaxError:",
        "run --model exits.py:Net": "model file exits.py does not run: SystemExit: 0",
        "run --model needs.py:Net": "needs.py:Net needs the argument 'width'",
        "run --model net.py:Net --model-args width": "--model-args 'width': write it as NAME=VALUE, for",
        "run --model needs.py:Net --model-args width=wide": "needs.py:Net: the argument width is 'wide'; it must",
        "run --model needs.py:Net --model-args height=2": "needs.py:Net has no argument 'height': it takes",
        "run --model constant --model-args a=1": "model 'constant' ignores its input; --weights,",
        "run --model sparsesync.no-such-tag": "sparsesync has no weights 'no-such-tag': there are",
        "run --model constant --weights notes.txt": "model 'constant' ignores its input; --weights,",
        "run --model xcorr --head-weights notes.txt": "model 'xcorr': head none has no weights;",
        "run --model sparsesync --dtype float99": "dtype is 'float99'; it must be one of float32,",
        "run --model sparsesync --dtype ''": "dtype is ''; it must be one of float32, bfloat16,",
        "run --model sparsesync --random-weights x": "--random-weights: 'x' is not a whole number;",
        "run --model sparsesync --random-weights -1": "the seed of random weights is -1; it must be 0 or",
        "run --model constant --data no-such": "unknown data 'no-such': it is neither synthsync,",
        "run --model constant --data ''": ". is a folder without manifest.json; of videos,",
        "run --model constant --data notes.txt": "notes.txt is a file, and no manifest folder; of",
        "run --model constant --data ./bad.mp4": "bad.mp4 is a file, and no manifest folder; of",
        "run --model constant --data DATA/media/one.mp4": "DATA/media/one.mp4 is a file, and no manifest",
        "run --model constant --data DATA/media": "DATA/media is a folder without manifest.json; of",
        "run --model constant --data ./empty": "empty is a folder without manifest.json; of videos,",
        "run --model constant --data ./broken": "broken/manifest.json cannot be read: Expecting",
        "run --model constant --data ./listed": "listed/manifest.json: schema_version is None, this",
        "run --model constant --data ./future": "future/manifest.json: schema_version is 99, this",
        "run --model constant --data ./nowhere": "nowhere is not a manifest folder (no such folder)",
        "run --model constant --data hub:": "'hub:' is not pinned: write hub:ORG/NAME@COMMIT",
        "run --model constant --data hub:ORG": "'hub:ORG' is not pinned: write hub:ORG/NAME@COMMIT",
        "run --model constant --data hub:ORG/NAME@main": "'main' can move: write hub:ORG/NAME@COMMIT with all",
        "run --model constant --data hub:ORG/NAME@123": "'123' can move: write hub:ORG/NAME@COMMIT with all",
        "run --model constant --data 'hub:a b/c'": "'hub:a b/c' is not pinned: write",
        "run --model constant --data synthsnyc": "unknown data 'synthsnyc': did you mean synthsync or",
        "run --model constant --split mars": "unknown split 'mars' of synthsync: there are train,",
        "run * --split mars": "clicks has no split 'mars'; it has test",
        "run * --split ''": "clicks has no split ''; it has test",
        "run * --limit 0": "limit is 0; it must be at least 1",
        "run * --limit -3": "limit is -3; it must be at least 1",
        "run * --limit x": "--limit: 'x' is not a whole number;",
        "run * --limit 1.5": "--limit: '1.5' is not a whole number;",
        "run * --limit 1e3": "--limit: '1e3' is not a whole number;",
        "run * --hop 0": "hop is 0 s; it must be a positive multiple of 0.04",
        "run * --hop -2": "hop is -2 s; it must be a positive multiple of 0.04",
        "run * --hop nan": "hop is nan s; it must be a positive multiple of",
        "run * --hop inf": "hop is inf s; it must be a positive multiple of",
        "run * --hop 0.03": "hop is 0.03 s; it must be a positive multiple of",
        "run * --hop 2s": "--hop: '2s' is not a number;",
        "run * --hop 1e9": "none of the 4 segments of clicks is long enough for",
        "run * --hop 1e300": "none of the 4 segments of clicks is long enough for",
        "run * --hop 1,2": "--hop: '1,2' is not a number;",
        "run * --iterations 0": "iterations is 0; it must be a whole number, at",
        "run * --iterations -1": "iterations is -1; it must be a whole number, at",
        "run * --iterations 99999999999999999999": "none of the 4 segments of clicks is long enough for",
        "run * --iterations many": "--iterations: 'many' is not a whole number;",
        "run * --iterations 2.0": "--iterations: '2.0' is not a whole number;",
        "run * --protocol streeming": "--protocol: invalid choice: 'streeming':",
        "run * --protocol dynamic": "none of the 4 segments of clicks is long enough for",
        "run * --protocol ''": "--protocol: invalid choice: '': there are",
        "run * --out notes.txt --iterations 1": "notes.txt is not a folder",
        "run * --out full --iterations 1": "full already holds thesis.tex; give --force to",
        "run * --out '' --iterations 1": ". already holds",
        "run * --out 'nul\\0l' --iterations 1": "an argument has a character in it (NUL) that no",
        "run * --csv empty": "--csv empty is a folder; name a file in it",
        "run * --csv ''": "--csv . is a folder; name a file in it",
        "run * --seed -1 --iterations 1": "seed is -1; it must be 0 or more",
        "run * --seed x": "--seed: 'x' is not a whole number;",
        "run * --seed 1e400": "--seed: '1e400' is not a whole number;",
        "run * --workers 0": "workers is 0; it must be at least 1",
        "run * --workers -2": "workers is -2; it must be at least 1",
        "run * --workers x": "--workers: 'x' is not a whole number;",
        "run * --workers 10000000000": "none of the 4 segments of clicks is long enough for",
        "run * --device gpu": "device 'gpu' cannot be used here: torch has no",
        "run * --device ''": "device '' cannot be used here: Device string must",
        "run * --device tpu:x": "device 'tpu:x' cannot be used here: Invalid device",
        "run * --batch-size 0x": "--batch-size: '0x' is neither a whole",
        "run * --batch-size -1 --iterations 1": "batch_size is -1; it must be at least 1",
        "run * --metrics": "--metrics: expected at least one argument;",
        "run * --metrics acc,map": "--metrics 'acc,map': separate several by spaces:",
        "run * --metrics nothing": "unknown metric 'nothing': there are default, all,",
        "run * --metrics Acc": "unknown metric 'Acc': did you mean acc?",
        "run * --shard 0/2": "--shard 0/2 does not exist; shares are 1/2 to 2/2",
        "run * --shard 3/2": "--shard 3/2 does not exist; shares are 1/2 to 2/2",
        "run * --shard x": "--shard: 'x' is not I/N, such as 1/4; see",
        "run * --shard 1/0": "--shard 1/0 does not exist; there must be at least",
        "run * --shard -1/2": "--shard: expected one argument; see",
        "run --model constant --data ./DATA --n-resamples 0": "n_resamples is 0; it must be at least 20, for an",
        "run --model constant --data ./DATA --n-resamples -5": "n_resamples is -5; it must be at least 20, for an",
        "run --model constant --data ./DATA --n-resamples 3": "n_resamples is 3; it must be at least 20, for an",
        "run --model constant --data ./DATA --n-resamples x": "--n-resamples: 'x' is not a whole number;",
        "run * surplus": "unrecognized arguments: surplus; see `avbench run",
        "run * --jsn": "unknown option --jsn: did you mean --json; see",
        "run * --json=1": "--json: ignored explicit argument '1'; see",
        "run --config nowhere.yaml": "cannot read nowhere.yaml: No such file or directory",
        "run --config notes.txt": "notes.txt: a recipe is a mapping of options, as in",
        "run --config empty": "cannot read empty: Is a directory",
        "run --config bad.yaml": "bad.yaml is no YAML: while parsing a flow sequence",
        "run --config unknown.yaml": "unknown.yaml: unknown option 'hopp'; did you mean",
        "run --config tagged.yaml": "tagged.yaml is no YAML: could not determine a",
        "run --config binary.py": "binary.py is no YAML: 'utf-8' codec can't decode",
        "run * --save-config empty": "--save-config empty is a folder; name a file in it",
        "run * --save-config notes.txt/x.yaml": "--save-config notes.txt/x.yaml: there is no folder",
        "run --config": "--config: expected one argument; see",
        "run --model constant,xcorr": "unknown model 'constant,xcorr'; did you mean",
        "run --model constant --models xcorr": "unknown option --models: did you mean --model; see",
    },
    "sweep": {
        "sweep": "the following arguments are required: --models; see",
        "sweep --models": "--models: expected at least one argument;",
        "sweep --models no-such": "unknown model 'no-such'; `avbench models` lists",
        "sweep --models constant,xcorr": "--models 'constant,xcorr': separate several by",
        "sweep --models constant --hops 1,2": "--hops: '1,2': separate several by spaces;",
        "sweep --models constant --hops 0 --data ./DATA": "hop is 0 s; it must be a positive multiple of 0.04",
        "sweep --models constant --hops x": "--hops: 'x' is not a number;",
        "sweep --models constant --hops nan --data ./DATA": "hop is nan s; it must be a positive multiple of",
        "sweep --models constant --hops inf --data ./DATA": "hop is inf s; it must be a positive multiple of",
        "sweep --models constant --iterations 0 --data ./DATA": "iterations is 0; it must be a whole number, at",
        "sweep --models constant --iterations 9999 --data ./DATA": "no segment of clicks is long enough for all of",
        "sweep --models constant --iterations 2,4": "--iterations: '2,4': separate several by",
        "sweep --models constant --data no-such": "unknown data 'no-such': it is neither synthsync,",
        "sweep --models constant --plot figure.doc": "cannot draw figure.doc: a figure's file name ends",
        "sweep --models constant --plot empty": "cannot draw empty: a figure's file name ends in",
        "sweep --models constant --csv empty": "--csv empty is a folder; name a file in it",
        "sweep --models constant --selection best": "--selection: invalid choice: 'best': did",
        "sweep --models constant --support mine": "--support: invalid choice: 'mine': there",
        "sweep --models constant --n-resamples 2 --data ./DATA": "n_resamples is 2; it must be at least 20, for an",
        "sweep --models constant --limit 0 --data ./DATA": "limit is 0; it must be at least 1",
        "sweep --models constant --seed -1 --data ./DATA": "seed is -1; it must be 0 or more",
        "sweep --models constant --workers 0 --data ./DATA": "workers is 0; it must be at least 1",
        "sweep --models constant constant --data ./DATA": "no segment of clicks is long enough for all of hops",
        "sweep --models constant --store notes.txt --data ./DATA": "no segment of clicks is long enough for all of",
    },
    "models, report, compare": {
        "models nothing": "no model matches 'nothing'; `avbench models` lists",
        "models a b": "unrecognized arguments: b; see `avbench models",
        "report": "the following arguments are required: RUN_DIR; see",
        "report nowhere": "cannot read nowhere: No such file or directory",
        "report empty": "cannot read empty/run.json: No such file or",
        "report notes.txt": "notes.txt is not strict JSON: Expecting value: line",
        "report badrun": "badrun/run.json is not strict JSON: Expecting",
        "report cutrun": "cutrun/run.json is not strict JSON",
        "report futurerun": "futurerun/run.json has schema_version 99; this",
        "report RUN --stream no-such-0": "--stream names the stream to draw: add --plot FILE",
        "report RUN --plot figure.doc": "cannot draw figure.doc: a figure's file name ends",
        "report RUN --plot empty": "cannot draw empty: a figure's file name ends in",
        "report RUN --plot figure.svg --stream nothing": "RUN: no stream to draw, because its offsets are",
        "report RUN RUN": "unrecognized arguments: RUN; see `avbench report",
        "report badparquet": "badparquet/predictions.parquet is not the file that",
        "report badparquet --plot figure.svg --stream x": "badparquet/predictions.parquet is not the file that",
        "compare": "the following arguments are required: RUN; see",
        "compare RUN": "there is nothing to compare RUN with: name two runs",
        "compare RUN nowhere": "cannot read nowhere: No such file or directory",
        "compare empty RUN": "cannot read empty/run.json: No such file or",
        "compare notes.txt RUN": "notes.txt is not strict JSON: Expecting value: line",
        "compare RUN badrun": "badrun/run.json is not strict JSON: Expecting",
        "compare RUN badparquet": "badparquet/predictions.parquet is not the file that",
        "compare RUN noparquet": "noparquet: predictions file 'predictions.parquet'",
        "compare RUN RUN": "RUN and RUN are the same run twice: there is",
        "compare --metrics map RUN": "the following arguments are required: RUN: put RUN before --metrics, which takes",
        "compare RUN --metrics map RUN": "RUN is a run: put it before --metrics, which takes all",
        "compare RUN RUN --csv empty": "--csv empty is a folder; name a file in it",
        "compare RUN RUN --n-resamples x": "--n-resamples: 'x' is not a whole number;",
        "compare RUN RUN --n-resamples -1": "n_resamples is -1; it must be at least 20, for an",
        "compare RUN RUN --seed -1": "seed is -1; it must be 0 or more",
    },
    "predict": {
        "predict": "the following arguments are required:",
        "predict bad.mp4 --model no-such": "unknown model 'no-such'; `avbench models` lists",
        "predict bad.mp4 --model constant": "model 'constant' ignores its input; choose one that",
        "predict bad.mp4 --tolerance itu": "tolerance 'itu': it is not one of itu-detect,",
        "predict bad.mp4 --tolerance 1/x": "tolerance '1/x': it is not one of itu-detect,",
        "predict bad.mp4 --tolerance nan/1": "tolerance 'nan/1': it is not one of itu-detect,",
        "predict bad.mp4 --tolerance -1/-1": "--tolerance: expected one argument; see",
        "predict bad.mp4 --hop nan": "hop is nan s; it must be a positive multiple of",
        "predict bad.mp4 --hop 0": "hop is 0 s; it must be a positive multiple of 0.04",
        "predict bad.mp4 --hop 0.03": "hop is 0.03 s; it must be a positive multiple of",
        "predict bad.mp4 --audio-track -1": "--audio-track is -1; tracks are counted from 1",
        "predict bad.mp4 --audio-track x": "--audio-track: 'x' is not a whole number;",
        "predict bad.mp4 --audio-track 0": "--audio-track is 0; tracks are counted from 1",
        "predict bad.mp4 --video-track 0": "--video-track is 0; tracks are counted from 1",
        "predict bad.mp4 --tolerance 0.1": "tolerance '0.1': it is not one of itu-detect, itu-accept, atsc, ebu, nor "
        "EARLY/LATE in seconds such as 0.045/0.125",
        "predict bad.mp4 --json --jsonl": "--jsonl: not allowed with argument --json;",
        "predict bad.mp4 --csv empty": "--csv empty is a folder; name a file in it",
        "predict bad.mp4 --device gpu": "device 'gpu' cannot be used here: torch has no",
        "predict bad.mp4 --workers 0": "workers is 0; it must be at least 1",
    },
    "watch, score": {
        "watch": "the following arguments are required: URL; see",
        "watch bad.mp4 --model no-such": "unknown model 'no-such'; `avbench models` lists",
        "watch bad.mp4 --tolerance itu-detct": "tolerance 'itu-detct': did you mean itu-detect or",
        "watch bad.mp4 --hop nan": "hop is nan s; it must be a positive multiple of",
        "watch bad.mp4 --hop -1": "hop is -1 s; it must be a positive multiple of 0.04",
        "watch bad.mp4 --for -1": "--for is -1.0; it must be more than 0 s",
        "watch bad.mp4 --for nan": "--for is nan; it must be more than 0 s",
        "watch bad.mp4 --timeout -1": "--timeout is -1.0; it must be more than 0 s",
        "watch bad.mp4 --alarm-after x": "--alarm-after: 'x' is not a number;",
        "watch bad.mp4 --alarm-after -1": "the times before an alarm and before it is cleared",
        "watch bad.mp4 --webhook notaurl": "the webhook's address is not http://HOST/... or",
        "watch bad.mp4 --metrics-port 99999999": "--metrics-port is 99999999; a port is 1 ... 65535,",
        "watch bad.mp4 --metrics-port -1": "--metrics-port is -1; a port is 1 ... 65535, or 0",
        "watch bad.mp4 --input-option novalue": "--input-option novalue is not KEY=VALUE",
        "watch bad.mp4 --device gpu": "device 'gpu' cannot be used here: torch has no",
        "watch gopher://x/y": "gopher:// is no protocol of live streams known here",
        "watch bad.mp4 --video-track -1": "--video-track is -1; tracks are counted from 1",
        "watch bad.mp4 --audio-track 0": "--audio-track is 0; tracks are counted from 1",
        "score": "nothing to score: name a folder or a file, or give",
        "score nowhere": "nowhere does not exist",
        "score empty": "synchformer.audioset is not in the cache: `avbench weights fetch synchformer.audioset`, then "
        "`avbench weights convert synchformer.audioset`. Figures need such a download; without it `avbench predict`",
        "score bad.mp4 --metrics desink": "unknown metric 'desink': did you mean",
        "score bad.mp4 --metrics ''": "no metric is named; there are desync.first-last,",
        "score bad.mp4 --seconds x": "--seconds: 'x' is not a number;",
        "score bad.mp4 --seconds -1": "the length to read is -1.0 s; it must be a positive",
        "score bad.mp4 --seconds nan": "the length to read is nan s; it must be a positive",
        "score bad.mp4 --workers 0": "workers is 0; it must be at least 1",
        "score bad.mp4 --out full": "full already holds thesis.tex; give --force to",
        "score bad.mp4 --page empty": "--page empty is a folder; name a file in it",
        "score bad.mp4 --csv empty": "--csv empty is a folder; name a file in it",
        "score bad.mp4 --boxes nowhere.json": "--boxes nowhere.json is no file",
        "score bad.mp4 --boxes notes.txt": "notes.txt has no boxes",
        "score bad.mp4 --device gpu": "device 'gpu' cannot be used here: torch has no",
        "score bad.mp4 --reference nowhere": "nowhere does not exist",
        "score bad.mp4 --n-resamples 2": "n_resamples is 2; it must be at least 20, for an",
        "score bad.mp4 --seed -1": "seed is -1; it must be 0 or more",
        "score DATA/media --metrics offset --reference empty": "synchformer.audioset is not in the cache: `avbench",
    },
    "paper, latency": {
        "paper tabel3": "there is no 'tabel3' in the paper; did you mean",
        "paper table3,table4": "there is no 'table3,table4' in the paper; did you",
        "paper table3 --data no-such": "unknown data 'no-such': it is neither synthsync,",
        "paper table3 --data ./DATA --n-resamples 0": "n_resamples is 0; it must be at least 20, for an",
        "paper table3 --data ./DATA --limit 0": "limit is 0; it must be at least 1",
        "paper table3 --latency-samples -1 --data ./DATA": "latency_samples is -1; it must be at least 0",
        "paper table3 --out full --data ./DATA": "full already holds thesis.tex; give --force to",
        "paper table3 --out notes.txt --data ./DATA": "notes.txt is not a folder",
        "paper table3 --split mars --data ./DATA": "clicks has no split 'mars'; it has test",
        "paper table3 --seed -1 --data ./DATA": "seed is -1; it must be 0 or more",
        "paper table3 --workers 0 --data ./DATA": "workers is 0; it must be at least 1",
        "latency": "the following arguments are required: --model; see",
        "latency --model no-such": "unknown model 'no-such'; `avbench models` lists",
        "latency --model constant": "model constant ignores its input: there is nothing",
        "latency --model xcorr --mode fast": "--mode: invalid choice: 'fast': there are",
        "latency --model xcorr --samples 0": "samples is 0; it must be at least 2 (64 for an",
        "latency --model xcorr --samples x": "--samples: 'x' is not a whole number;",
        "latency --model xcorr --device gpu": "device is 'gpu'; cpu and cuda (or cuda:N) can be",
        "latency --model xcorr --threads 0": "threads is 0; it must be at least 1",
        "latency --model xcorr --threads -1": "threads is -1; it must be at least 1",
        "latency --model xcorr --hop nan": "hop is nan s; it must be a positive multiple of",
        "latency --model xcorr --hop 0": "hop is 0 s; it must be a positive multiple of 0.04",
        "latency --model xcorr --out notes.txt": "notes.txt is there already; give --force to replace",
    },
    "data": {
        "data synth no-such": "unknown SynthSync data 'no-such': there are",
        "data synth synthsync --split mars": "unknown split 'mars' of synthsync: there are train,",
        "data synth synthsync --workers 0": "workers is 0; it must be at least 1",
        "data synth ./DATA": "unknown SynthSync data './DATA': there are",
        "data from-files": "the following arguments are required: DIR|FILE,",
        "data from-files nowhere --out new": "nowhere does not exist",
        "data from-files empty --out new": "no video files found",
        "data from-files bad.mp4": "the following arguments are required: --out; see",
        "data from-files bad.mp4 --out full": "full already holds thesis.tex; give --force to",
        "data from-files bad.mp4 --out notes.txt": "notes.txt is not a folder",
        "data from-files bad.mp4 --out new --offsets some": "offset law 'some' is not one of uniform,",
        "data from-files bad.mp4 --out new --offsets fixed:9": "offset law 'fixed:9' is not one of uniform,",
        "data from-files bad.mp4 --out new --offsets fixed:nan": "offset law 'fixed:nan' is not one of uniform,",
        "data from-files bad.mp4 --out new --starts grid:0": "start law 'grid:0' is not one of first,",
        "data from-files bad.mp4 --out new --starts x": "start law 'x' is not one of first, grid:SECONDS (a",
        "data from-files bad.mp4 --out new --starts nan": "start law 'nan' is not one of first, grid:SECONDS",
        "data from-files bad.mp4 --out new --hop 0.03": "hop is 0.03 s; it must be a positive multiple of",
        "data from-files bad.mp4 --out new --iterations 0": "iterations is 0; it must be at least 1",
        "data from-files bad.mp4 --out new --seed -1": "seed is -1; it must be 0 or more",
        "data from-files bad.mp4 --out new --video-track -1": "--video-track is -1; tracks are counted from 1",
        "data from-files bad.mp4 --out new --audio-track 0": "--audio-track is 0; tracks are counted from 1",
        "data from-files bad.mp4 --out new --sound-gap 0": "--sound-gap is 0 s; it must be above 0, at most an",
        "data from-files bad.mp4 --out new --picture-gap nan": "--picture-gap is nan s; it must be above 0, at most",
        "data from-files bad.mp4 --out new --workers 0": "workers is 0; it must be at least 1",
        "data dynamic no-such --out new": "unknown data 'no-such': it is neither synthsync,",
        "data dynamic ./DATA --out full": "full already holds thesis.tex; give --force to",
        "data dynamic ./DATA --out new --laws jmp": "laws jmp: choose among hold, jump, excursion,",
        "data dynamic ./DATA --out new --laws jump,drift": "no clip of clicks is long enough: 48 windows need",
        "data dynamic ./DATA --out new --limit 0": "limit is 0; it must be at least 1",
        "data dynamic ./DATA --out new --iterations 0": "iterations is 0; it must be a whole number, at",
        "data dynamic ./DATA --out new --hop 0": "hop is 0 s; it must be a positive multiple of 0.04",
        "data dynamic ./DATA --out new --seed -1": "seed is -1; it must be 0 or more",
        "data dynamic ./DATA --out new --split mars": "clicks has no split 'mars'; it has test",
        "data dynamic ./DATA --out new --starts x": "start law 'x' is not one of first, grid:SECONDS (a",
        "data ls nowhere": "no manifest under nowhere; `avbench data",
        "data ls empty": "no manifest under empty; `avbench data from-files`",
        "data ls broken": "broken/manifest.json cannot be read: Expecting",
        "data ls notes.txt": "no manifest under notes.txt; `avbench data",
        "data info no-such": "unknown data 'no-such': it is neither synthsync,",
        "data info mm": "unknown data 'mm': it is neither synthsync, synthsync-full, synthsync-normal, "
        "synthsync-full-normal, synthsync-hard, synthsync-hard-full, synthsync-dynamic, synthsync-test",
        "data info ./empty": "empty is a folder without manifest.json; of videos,",
        "data info ./broken": "broken/manifest.json cannot be read: Expecting",
        "data info ./DATA --split mars": "clicks has no split 'mars'; it has test",
        "data info ./DATA --plot figure.doc": "cannot draw figure.doc: a figure's file name ends",
        "data info ./cutsegments": "cutsegments/segments.parquet is not the table that",
        "data info ./nosegments": "nosegments/segments.parquet cannot be read: No such",
        "data verify no-such": "unknown data 'no-such': it is neither synthsync,",
        "data verify ./notes.txt": "notes.txt is a file, and no manifest folder; of",
        "data verify ./DATA --workers 0": "workers is 0; it must be at least 1",
        "data pairs ./DATA --out full": "full already holds thesis.tex; give --force to",
        "data pairs ./DATA --out new --shifts x": "--shifts: 'x' is not a list of seconds",
        "data pairs ./DATA --out new --shifts 9": "shift 9 s: it must be above 0, at most 2 s, and a",
        "data pairs ./DATA --out new --shifts nan": "shift nan s: it must be above 0, at most 2 s, and a",
        "data pairs ./DATA --out new --shifts ''": "there is no shift; give seconds such as",
        "data pairs no-such --out new": "unknown data 'no-such': it is neither synthsync,",
        "data pairs ./DATA --out new --limit 0": "limit is 0; it must be at least 1",
        "data pairs ./DATA --out new --hop 0": "hop is 0 s; it must be a positive multiple of 0.04",
        "data pairs ./DATA --out new --iterations 0": "iterations is 0; it must be a whole number, at",
        "data pairs ./DATA --out new --seed -1": "seed is -1; it must be 0 or more",
        "data pull": "the following arguments are required: ORG/NAME; see",
        "data pull ORG": "'ORG' is not a valid repository name (ORG/NAME)",
        "data pull ORG/NAME --revision aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa --out full": "full already holds",
        "data push nowhere --repo ORG/NAME": "nowhere is not a manifest folder (no such folder)",
        "data push empty --repo ORG/NAME": "empty is not a manifest folder (no manifest.json in",
        "data push ./DATA --repo ORG": "'ORG' is not a valid repository name (ORG/NAME)",
        "data push ./DATA --repo 'a b/c'": "'a b/c' is not a valid repository name (ORG/NAME)",
        "data import-realsync --lists nowhere --media none --out new": "nowhere is not a folder with published lists",
        "data import-realsync --lists empty --media none --out new": "there is no published list in empty (looked",
        "data import-realsync --lists empty --media none --out new --workers 0": "workers is 0; it must be at least 1",
        "data import-realsync --lists empty --media nowhere --out new": "nowhere is not a folder; use `--media none`",
        "data import-realsync --lists empty --media none --out full": "there is no published list in empty (looked",
        "data build": "the following arguments are required: --videos,",
        "data build --videos nowhere --out new": "nowhere does not exist",
        "data build --videos notes.txt --out new": "notes.txt is a file, and no folder of videos",
        "data build --videos DATA/media --out full": "full is not empty and not a build's folder; choose",
        "data build --videos DATA/media --out notes.txt": "notes.txt is not a folder",
        "data build --videos DATA/media --out new --clip-s 0": "clip is 0 s; it must be a positive multiple of 0.04",
        "data build --videos DATA/media --out new --clip-s nan": "clip is nan s; it must be a positive multiple of",
        "data build --videos DATA/media --out new --min-duration-s -1": "the shortest video is -1 s, its least",
        "data build --videos DATA/media --out new --crf 99": "crf is 99; it must be 0 ... 51",
        "data build --videos DATA/media --out new --split 80/20": "split '80/20' must be three shares",
        "data build --videos DATA/media --out new --split a/b/c": "split 'a/b/c' must be three shares",
        "data build --videos DATA/media --out new --offsets some": "offset law 'some' is not one of uniform,",
        "data build --videos DATA/media --out new --short-side 0": "short side is 0; it must be even and at least 16",
        "data build --videos DATA/media --out new --faces no-such": "no annotator of faces is named 'no-such':",
        "data build --videos DATA/media --out new --engine lua": "unknown engine 'lua': choose local or ray",
        "data build --videos DATA/media --out new --timeout-s 0": "the limit for one job is 0 s; it must be above 0 s",
        "data build --videos DATA/media --out new --workers 0": "workers is 0; it must be at least 1",
        "data build --videos DATA/media --out new --seed -1": "seed is -1; it must be 0 or more",
        "data annotate --data ./DATA": "nothing to do with the annotations: give --score,",
        "data annotate --data no-such --score": "unknown data 'no-such': it is neither synthsync,",
        "data annotate --data ./DATA --score --workers 0": "workers is 0; it must be at least 1",
        "data annotate --data ./DATA --out full": "full already holds thesis.tex; give --force to",
        "data annotate --data ./DATA --page empty": "--page empty is a folder; name a file in it",
        "data annotate --data ./DATA --score --corrections nowhere": "cannot read nowhere: No such file or directory",
        "data annotate --data ./DATA --score --lips nothing.py:X": "annotator file",
        "data annotate --data ./DATA --score --lips no-such": "no annotator of lips is named 'no-such': choose",
        "data annotate --data ./DATA --score --events net.py:NotAModel": "annotator",
    },
    "weights, store, train": {
        "weights list no-such": "no published checkpoint 'no-such'; `avbench weights",
        "weights fetch": "the following arguments are required: NAME; see",
        "weights fetch no-such": "no published checkpoint 'no-such'; `avbench weights",
        "weights fetch sparsesync --url notaurl": "'notaurl' is not a web address; it must begin with",
        "weights fetch sparsesync --md5 xyz": "no published checkpoint 'sparsesync': did you mean",
        "weights convert notes.txt --out new.txt": "new.txt must end in .safetensors",
        "weights convert notes.txt --out empty": "empty must end in .safetensors",
        "weights convert notes.txt --audio-lead-trim-samples -1": "notes.txt is none of the published checkpoints",
        "weights convert notes.txt --name no-such": "'no-such' is not a name for weights; it must be",
        "weights verify nowhere": "'nowhere' is not a name for weights; it must be",
        "store ls nowhere": "nowhere is no snapshot store (it has no store.json)",
        "store ls notes.txt": "notes.txt is no snapshot store (it has no",
        "store ls full": "full is no snapshot store (it has no store.json)",
        "store merge nowhere --out new": "nowhere is no snapshot store (it has no store.json)",
        "store merge full --out new": "full is no snapshot store (it has no store.json)",
        "store prune x --store full": "full is no snapshot store",
        "store merge": "the following arguments are required: STORE, --out;",
        "store merge nowhere": "the following arguments are required: --out; see",
        "store verify nowhere": "nowhere is no snapshot store (it has no store.json)",
        "store verify full": "full is no snapshot store (it has no store.json)",
        "train perpetuum": "argument RECIPE: invalid choice: 'perpetuum': there",
        "train words --threads 0": "threads is 0; it must be at least 1",
        "train head": "the following arguments are required: --backbone;",
        "train head --backbone no-such --head lstm --data ./DATA": "unknown model 'no-such'; `avbench models` lists",
        "train head --backbone sparsesync --head rnn": "--head: invalid choice: 'rnn': there are",
        "train head --backbone xcorr+apa --head lstm": "xcorr+apa: a head is trained on a backbone alone,",
        "train head --backbone constant": "constant ignores its input: no head can be trained",
        "train head --backbone xcorr --data no-such": "unknown data 'no-such': it is neither synthsync,",
        "train head --backbone xcorr --data ./DATA --steps 0": "steps is 0; it must be at least 1",
        "train head --backbone xcorr --data ./DATA --steps x": "--steps: 'x' is not a whole number;",
        "train head --backbone xcorr --data ./DATA --offsets 0": "offsets is 0; it must be at least 1",
        "train head --backbone xcorr --data ./DATA --limit -1": "limit is -1; it must be at least 1",
        "train head --backbone xcorr --data ./DATA --seed -1": "seed is -1; it must be 0 or more",
        "train head --backbone xcorr --data ./DATA --workers 0": "workers is 0; it must be at least 1",
        "train head --backbone xcorr --data ./DATA": "clicks has no split 'train'; it has test",
        "train fullsize nothing": "unrecognized arguments: nothing; see `avbench train",
        "train fullsize": "--data (a manifest folder) and --init (SparseSync",
        "train fullsize --recipe no-such": "unknown recipe 'no-such': choose from paper-trf,",
        "train fullsize --recipe no-such --data nowhere": "unknown recipe 'no-such': choose from paper-trf,",
        "train fullsize --set x": "--set x: it must be NAME=VALUE",
        "train fullsize --threads 0": "--data (a manifest folder) and --init (SparseSync",
    },
    "submit, leaderboard, doctor": {
        "submit tracks --jsn": "unknown option --jsn: did you mean --json; see",
        "submit pack RUN": "the following arguments are required: --out, --org,",
        "submit pack nowhere --out new --org acme --name toy": "cannot read nowhere: No such file or directory",
        "submit pack empty --out new --org acme --name toy": "cannot read empty/run.json: No such file or",
        "submit pack badrun --out new --org acme --name toy": "badrun/run.json is not strict JSON: Expecting",
        "submit pack badparquet --out new --org acme --name toy": "the run (clicks test,",
        "submit pack noparquet --out new --org acme --name toy": "the run (clicks test,",
        "submit pack RUN --out full --org acme --name toy": "the run (clicks test,",
        "submit pack RUN --out notes.txt --org acme --name toy": "the run (clicks test,",
        "submit pack RUN --out new --org acme --name toy --card nowhere.json": "cannot read nowhere.json: No such",
        "submit pack RUN --out new --org acme --name toy --card notes.txt": "notes.txt is not strict JSON: Expecting",
        "submit pack RUN --out new --org acme --name toy --card x.json": "x.json is not a card (a JSON object)",
        "submit pack RUN --out new --org acme --name toy --parameters x": "--parameters: 'x' is not a whole",
        "submit pack RUN --out new --org acme --name toy --training-data some": "--training-data: invalid",
        "submit check nowhere": "folder:",
        "submit check empty": "folder: has no submission.json;",
        "submit check notes.txt": "folder:",
        "submit check RUN": "RUN is a run, not a submission; `avbench submit pack",
        "submit check badentry": "schema_version: is null; this",
        "submit check empty --n-resamples -1": "n_resamples is -1; it must be 0 (no intervals) or",
        "submit check empty --labels nowhere": "folder: has no submission.json;",
        "submit push nowhere --repo ORG/NAME": "folder:",
        "submit push empty --repo ORG": "repository is 'ORG'; it must be ORG/NAME",
        "submit push empty --repo ORG/NAME": "folder: has no submission.json;",
        "leaderboard build --entries nowhere --out new": "nowhere is not a folder of entries",
        "leaderboard build --entries full --out new": "full holds no entries; they are folders",
        "leaderboard build --entries notes.txt --out new": "notes.txt is not a folder of entries",
        "leaderboard build --entries RUN --out new": "RUN holds no entries; they are folders",
        "leaderboard build --entries empty --out full": "full is not empty and not a site made by this",
        "leaderboard build --entries empty --out notes.txt": "notes.txt is not empty and not a site made by this",
        "leaderboard build --entries empty --out new --workers 0": "workers is 0; it must be at least 1",
        "leaderboard build --entries empty --out new --decisions nowhere": "cannot read nowhere: No such file or",
        "leaderboard build --entries empty --out new --decisions notes.txt": "notes.txt line 1: notes.txt line 1 is",
        "leaderboard build --entries empty --out new --labels notes.txt": "notes.txt is not strict JSON: Expecting",
        "leaderboard export --entries empty --format xml --out new": "--format: invalid choice: 'xml':",
        "leaderboard export --entries empty --format eval-results --out new": "--format eval-results needs the",
        "leaderboard export --entries empty --format csv --out full": "--out full is a folder; name a file in it",
        "leaderboard export --entries nowhere --format csv --out new": "nowhere is not a folder of entries",
        "leaderboard export --entries full --format csv --out new": "full holds no entries; they are folders",
        "leaderboard review --base empty --entries empty --out full": "full already holds thesis.tex; give --force",
        "leaderboard review --base empty --entries empty --out notes.txt": "notes.txt is not a folder",
        "leaderboard redraw --track no-such --out new": "track: there is no track",
        "leaderboard redraw --track synthsync-test --out full": "full already exists and is not empty; choose a new",
        "leaderboard redraw --track synthsync-test --out notes.txt": "notes.txt already exists and is not empty;",
        "leaderboard redraw --track synthsync-test --out new --workers 0": "workers is 0; it must be at least 1",
        "leaderboard redraw --track synthsync-test --out new --seed -1": "seed is -1; it must be 0 or more",
        "leaderboard audit nowhere RUN --labels x.json": "x.json is not a labels file: labels: Input should",
        "leaderboard audit RUN nowhere --labels x.json": "x.json is not a labels file: labels: Input should",
        "leaderboard audit RUN RUN --labels nowhere": "cannot read nowhere: No such file or directory",
        "leaderboard audit RUN RUN --labels x.json --n-resamples 0": "n_resamples is 0; it must be at least 1",
        "leaderboard audit RUN RUN": "the following arguments are required: --labels; see",
        "completion": "the following arguments are required: SHELL",
        "completion tcsh": "argument SHELL: invalid choice: 'tcsh'",
        "train head --backbone xcorr --log-to paper": "--log-to: invalid choice: 'paper'",
        "doctor no-such": "unknown model 'no-such'; `avbench models` lists",
        "doctor nothing.py:Net": "model file nothing.py does not exist",
        "doctor net.py:NotAModel": "net.py:NotAModel is not a SnapshotPredictor;",
        "doctor metrics extra": "unrecognized arguments: extra; see `avbench doctor",
        "doctor constant+": "unknown head '' in 'constant+': there are none,",
        "doctor notes.txt": "unknown model 'notes.txt'; `avbench models` lists",
    },
    "plan, view, cite, formats, devices, on demand": {
        "plan": "one of the arguments --data --clips is",
        "plan --model constant": "one of the arguments --data --clips is",
        "plan --data no-such": "unknown data 'no-such': it is neither",
        "plan --model no-such --data synthsync": "unknown model 'no-such'; `avbench models` lists",
        "plan --model sparsesync --data no-such": "unknown data 'no-such': it is neither",
        "plan --model sparsesync --data synthsync --split no-such": "unknown split 'no-such' of synthsync: there are",
        "plan --model sparsesync --data synthsync --devices 0": "--devices is 0; it must be at least 1",
        "plan --model sparsesync --data synthsync --devices -3": "--devices is -3; it must be at least 1",
        "plan --model sparsesync --data synthsync --devices many": "--devices: 'many' is not a whole number;",
        "plan --model sparsesync --clips 0": "--clips is 0; it must be at least 1",
        "plan --model sparsesync --clips -1": "--clips is -1; it must be at least 1",
        "plan --model sparsesync --clips 10 --clip-s 0": "clips of 0 s with a segment every 10 s: a clip",
        "plan --model sparsesync --clips 10 --clip-s nan": "clips of nan s with a segment every 10 s: a",
        "plan --model sparsesync --clips 10 --clip-s inf": "clips of inf s with a segment every 10 s: a",
        "plan --model sparsesync --clips 10 --every-s 0": "clips of 300 s with a segment every 0 s: a clip",
        "plan --model sparsesync --clips 10 --every-s -2": "clips of 300 s with a segment every -2 s: a",
        "plan --model sparsesync --clips 10 --data synthsync": "--data: not allowed with argument",
        "plan --model sparsesync --clips 10 --clip-s 1": "no segment of 10 clips of 1 s is long enough",
        "plan --model sparsesync --data synthsync --hop 0": "hop is 0 s; it must be a positive multiple of",
        "plan --model sparsesync --data synthsync --hop nan": "hop is nan s; it must be a positive multiple of",
        "plan --model sparsesync --data synthsync --iterations 0": "iterations is 0; it must be a whole number, at",
        "view no-such": "no-such is no folder; name one that `avbench",
        "view notes.txt": "notes.txt is no folder; name one that `avbench",
        "view empty": "empty holds no run; `avbench run` writes them",
        "view full": "full holds no run; `avbench run` writes them to",
        "cite no-such": "cannot read no-such: No such file or directory",
        "cite empty": "cannot read empty/run.json: No such file or",
        "cite badrun": "badrun/run.json is not strict JSON: Expecting",
        "cite notes.txt": "notes.txt is not strict JSON: Expecting value:",
        "leaderboard publish": "the following arguments are required: --space;",
        "leaderboard publish --space acme": "'acme' is not a valid repository name",
        "leaderboard publish --space acme/board --site empty": "empty is no site; make one with `avbench",
        "leaderboard publish --space acme/board --site no-such": "no-such is no site; make one with `avbench",
        "leaderboard publish --space ../board --site empty": "'../board' is not a valid repository name",
        "leaderboard build --entries empty --out site --repo-url nowhere": "--repo-url 'nowhere' is no address; it",
        "leaderboard build --entries empty --out site --site-url javascript:x": "--site-url 'javascript:x' is no",
        "leaderboard build --entries empty --out site --title ''": "--title has 1 to 120 letters, --contact at most",
        "leaderboard export --entries empty --format eval-yml --out x": "--format: invalid choice:",
        "leaderboard export --entries empty --format eval-yaml --out empty": "--out empty is a folder; name a file in",
        "leaderboard export --entries empty --format every-eval-ever --out full": "full already holds thesis.tex; give",
        "report TRACKRUN --every-eval-ever empty": "--every-eval-ever empty is a folder; name a",
        "report TRACKRUN --data no-such": "unknown data 'no-such': it is neither",
        "report TRACKRUN --every-eval-ever x.json --relationship friend": "--relationship: invalid choice:",
        "run --model constant --engine rayy": "--engine: invalid choice: 'rayy': did",
        "run --model constant --ray-address auto": "--ray-address goes with --engine ray",
        "run --model constant --fetch some": "--fetch: invalid choice: 'some': there",
        "run --model constant --keep-media 2GB": "--keep-media goes with --fetch on-demand",
        "run --model constant --fetch on-demand": "synthsync is not hosted, so nothing is fetched",
        "run --model constant --fetch on-demand --keep-media lots": "--keep-media: 'lots' is no size such",
        "run --model constant --fetch on-demand --keep-media -3GB": "--keep-media: expected one argument;",
        "run --model constant --fetch on-demand --keep-media 0": "synthsync is not hosted, so nothing is fetched",
        "run --model constant --format pdf": "--format: invalid choice: 'pdf': there",
        "run --model constant --json --format md": "--json and --format md contradict each other:",
        "run --model constant --device gpu": "device 'gpu' cannot be used here: torch has no",
        "run --model constant --device cuda:99": "device 'cuda:99' cannot be used here: torch",
        "run --model constant --device tpu": "device 'tpu' cannot be used here: torch has no",
        "run --model sparsesync --dtype int8": "dtype is 'int8'; it must be one of float32,",
        "compare TRACKRUN TRACKRUN --format pdf": "--format: invalid choice: 'pdf': there",
        "compare TRACKRUN TRACKRUN --json --format latex": "--json and --format latex contradict each",
        "sweep --models constant --format pdf": "--format: invalid choice: 'pdf': there",
        "paper table1 --format pdf": "--format: invalid choice: 'pdf': there",
        "paper table1 --model xcorr": "--model adds no row to table1; it does to",
        "paper table3 --model no-such": "unknown model 'no-such'; `avbench models` lists",
        "paper table3 --model-args a=1": "--model-args goes with a class of your own in",
        "paper --model xcorr table3": "table3 is an exhibit: put it before --model, which takes",
        "paper --model x.py:X --model-args a=1 all": "all is an exhibit: put it before --model-args,",
        "paper table3 --model a,b": "--model 'a,b': separate several by spaces:",
        "latency --model sparsesync --batch-size 4": "--batch-size can only be 1 here: a step is",
        "latency --model sparsesync --format pdf": "--format: invalid choice: 'pdf': there",
        "watch bad.mp4 --batch-size 2": "--batch-size can only be 1 here: a stream is",
        "score bad.mp4 --metrics offset --device gpu": "device 'gpu' cannot be used here: torch has no",
        "doctor net.py:Net --device gpu": "device 'gpu' cannot be used here: torch has no",
        "train head --backbone xcorr --head lstm --device gpu": "device 'gpu' cannot be used here: torch has no",
        "data cache --prune no-such": "nothing is kept of no-such; `avbench data",
        "data croissant": "the following arguments are required: DATA,",
        "data croissant empty": "the following arguments are required: --out;",
        "data croissant no-such --out new.json": "no-such is not a manifest folder (no such",
        "completion": "the following arguments are required: SHELL;",
        "completion tcsh": "argument SHELL: invalid choice: 'tcsh': there",
    },
}
# what was asked could be done elsewhere, but not here: exit code 1
FAILED = {
    "submit pack * --out notes.txt": "cannot write",
    "run --model sparsesync --weights notes.txt": "weight file notes.txt is neither a safetensors file",
    "run --model sparsesync --weights nowhere.safetensors": "weight file nowhere.safetensors does not exist",
    "run --model sparsesync --weights empty": "weight file empty is not a regular file",
    "run --model sparsesync --weights zero.safetensors": "weight file zero.safetensors is neither a",
    "run --model sparsesync --weights cut.pt": "cut.pt is not a torch checkpoint in zip form",
    "run --model sparsesync --weights evil.pt": "weight file evil.pt is neither a safetensors file",
    "run --model streamsync-trf --weights notes.txt": "weight file notes.txt is neither a safetensors file",
    "run * --out notes.txt/x --iterations 1": "cannot write to notes.txt/x: Not a directory;",
    "run * --csv notes.txt/x.csv": "cannot write to notes.txt: Not a directory; choose",
    "predict bad.mp4 --store notes.txt": "cannot write to notes.txt: File exists; choose",
    "predict bad.mp4 --out notes.txt": "cannot write to notes.txt: Not a directory; choose",
    "watch nowhere.ts": "nowhere.ts does not exist; give an address such as",
    "watch bad.mp4 --record notes.txt": "cannot write to notes.txt: Not a directory; choose",
    "latency --model xcorr --out notes.txt/x.json": "cannot write to notes.txt: Not a directory; choose",
    "weights convert nowhere.pt": "weight file nowhere.pt does not exist",
    "weights convert notes.txt --out new.safetensors": "notes.txt is not a torch checkpoint in zip form or",
    "weights convert cut.pt --out new.safetensors": "cut.pt is not a torch checkpoint in zip form or in",
    "weights convert evil.pt --out new.safetensors": "evil.pt is not a torch checkpoint in zip form or in",
    "weights convert empty": "weight file empty is a folder",
    "weights verify notes.txt": "notes.txt is not a torch checkpoint in zip form or",
    "weights verify zero.safetensors": "weight file zero.safetensors is damaged: Error",
    "weights verify empty": "weight file empty is a folder",
    "weights verify notes.txt --media nowhere.mp4": "notes.txt is not a torch checkpoint in zip form or",
    "train words --out notes.txt": "cannot write to notes.txt: File exists; choose",
    "train head --backbone xcorr --data ./DATA --out notes.txt": "cannot write to notes.txt: Not a directory;",
    "doctor sparsesync --weights nowhere": "weight file nowhere does not exist",
}

PACK = {  # the same, of a run that could be submitted
    "submit pack * --org 'Acme Inc'": "--org: may have letters A-Z and a-z, digits, and . _ -",
    "submit pack * --name 'To y'": "--name: may have letters",
    "submit pack * --org ../x": "--org:",
    "submit pack * --org ''": "--org:",
    "submit pack * --name ünï": "--name:",
    "submit pack * --revision 'a b'": "--revision:",
    "submit pack * --parameters -1": "--parameters:",
    "submit pack * --paper-url javascript:x": "--paper-url:",
    "submit pack * --code-url notaurl": "--code-url:",
    "submit pack * --latency nowhere.json": "cannot read nowhere.json",
    "submit pack * --latency x.json": "--latency: ",
    "submit pack * --training-data declared": "--training-data",
}
CASES = {line: (2, said) for lines in WRONG.values() for line, said in lines.items()}
CASES |= {line: (2, said) for line, said in PACK.items()} | {line: (1, said) for line, said in FAILED.items()}


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch evil-was-here",)


@pytest.fixture(scope="module")
def folder(clicks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all of them: a wrong request changes nothing in it. ``RUN`` is a run, of which ``badparquet``,
    ``noparquet`` and ``cutrun`` are damaged copies, ``DATA`` is data, of which ``cutsegments`` and ``nosegments`` are.
    """
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").mkdir()
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "binary.py").write_bytes(bytes(range(256)))
    (folder / "cut.pt").write_bytes(b"PK\x03\x04 the beginning of a zip file")
    (folder / "evil.pt").write_bytes(pickle.dumps(Evil()))
    make_run(folder / "TRACKRUN")
    for name in ("DATA", "cutsegments", "nosegments"):
        shutil.copytree(clicks, folder / name)
    (folder / "nosegments/segments.parquet").unlink()
    table = folder / "cutsegments/segments.parquet"
    table.write_bytes(table.read_bytes()[:200])
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        words = [*shlex.split(FULL["run *"]), "--iterations", "2", "--workers", "1", "--out", "RUN"]
        assert cli.main(words) == 0
    for name in ("badparquet", "noparquet", "cutrun"):
        shutil.copytree(folder / "RUN", folder / name)
    (folder / "badparquet/predictions.parquet").write_text("no table")
    (folder / "noparquet/predictions.parquet").unlink()
    (folder / "cutrun/run.json").write_text((folder / "RUN/run.json").read_text()[:300])
    return folder


def words_of(line: str) -> list[str]:
    for short, full in FULL.items():
        line = line.replace(short, full)
    return [word.replace("\\0", "\0").replace("\\n", "\n") for word in shlex.split(line)]


def held(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, but for what Python keeps of a file that it ran."""
    files = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def check(done: subprocess.CompletedProcess[str], code: int, said: str) -> None:
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"avbench: error: {said}")
    assert done.stderr.endswith("\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert done.returncode == code


@pytest.fixture(scope="module")
def parser() -> Callable[[], object]:
    """The parser, made once: five hundred of them would take longer than all that is tested."""
    return functools.cache(cli._parser)


@pytest.mark.parametrize("line", CASES)
def test_a_wrong_request_is_one_line(
    line: str, avbench: Avbench, folder: Path, parser: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(cli, "_parser", parser)
    before = held(folder)
    check(avbench(*words_of(line)), *CASES[line])
    assert held(folder) == before


def test_there_are_two_hundred_and_every_command_is_among_them() -> None:
    assert len(CASES) >= 200
    given = {tuple(words_of(line)[:2]) for line in CASES}
    commands = cli._parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    for name, command in commands.items():
        assert name in {words[0] for words in given if words}, name
        if command._subparsers is not None and name != "train":
            verbs = command._subparsers._group_actions[0].choices
            lacking = [verb for verb in verbs if (name, verb) not in given]
            assert not lacking, f"{name}: {lacking}"


@pytest.mark.parametrize("line", ["rün", "run * --hop nan", "weights list no-such", "report badrun"])
def test_and_so_it_is_for_a_process(line: str, folder: Path) -> None:
    before = held(folder)
    words = [sys.executable, "-m", "avbench", *words_of(line)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=100)
    check(done, *CASES[line])
    assert held(folder) == before


def test_a_character_that_no_name_can_have_is_refused_in_a_recipe(avbench: Avbench, tmp_path: Path) -> None:
    Path(tmp_path / "nul.yaml").write_text(json.dumps({"model": "constant", "out": "a\0b"}))
    check(avbench("run", "--config", "nul.yaml"), 2, "an argument has a character in it (NUL)")


# -- what is there is not replaced ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "weights convert cut.pt --out there.safetensors",
        "leaderboard export --entries empty --format csv --out there.csv",
        "leaderboard export --entries empty --format eval-results --dataset ORG/NAME --out full",
        "leaderboard review --base empty --entries empty --out reviewed",
        "data build --videos DATA/media --out full",
        "data annotate --data DATA --page there.html",
        "data croissant DATA --out there.json",
        "data info DATA --plot there.svg",
        "run --model constant --data DATA --csv there.csv",
        "run --model constant --data DATA --save-config there.yaml",
        "sweep --models constant --data DATA --csv there.csv",
        "sweep --models constant --data DATA --plot there.svg",
        "compare one other --csv there.csv",
        "compare one other --page there.html",
        "compare one other --plot there.svg",
        "predict a.mp4 --csv there.csv",
        "score a.mp4 --csv there.csv",
        "score a.mp4 --page there.html",
        "report RUN --plot there.svg",
        "report RUN --every-eval-ever there.json",
        "latency --model xcorr --out there.json",
    ],
)
def test_what_is_there_is_not_replaced(line: str, avbench: Avbench, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "reviewed").mkdir()
    for end in ("safetensors", "csv", "html", "json", "svg", "yaml"):
        (tmp_path / f"there.{end}").write_text("mine")
    (tmp_path / "reviewed" / "review.md").write_text("mine")
    before = held(tmp_path)
    done = avbench(*words_of(line))
    assert done.returncode == 2
    assert "--force" in done.stderr or "choose a new one" in done.stderr
    assert held(tmp_path) == before


def test_force_replaces_it(avbench: Avbench, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "review.md").write_text("mine")
    done = avbench("leaderboard", "review", "--base", "empty", "--entries", "empty", "--out", ".", "--force")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "review.md").read_text() != "mine"
