"""StreamSync: SparseSync trained together with a streaming head, a transformer or an LSTM."""

from avbench.baselines.family import DEFAULT_TAG, SYNTHSYNC, Family, Layout

_MODEL = "avbench.baselines.streamsync:StreamSync"
_MINI = "avbench.baselines.mini:MiniSparseSync"

FAMILIES = (
    Family(
        name="streamsync-trf",
        kind="learned",
        description="mini SparseSync-like backbone trained with a streaming transformer",
        trained_on=SYNTHSYNC,
        mini=_MINI,
        weights={DEFAULT_TAG: "streamsync-trf", "dynamic": "streamsync-trf.dynamic", "hard": "streamsync-trf.hard"},
        head="trf",
        heads={"trf": "streamsync-trf"},
        tagged_heads={"streamsync-trf.dynamic": "trf", "streamsync-trf.hard": "trf"},
        on_top_of={
            "streamsync-trf": "sparsesync",
            "streamsync-trf.dynamic": "sparsesync",
            "streamsync-trf.hard": "sparsesync.hard",
        },
        full=Layout(
            name="streamsync-trf",
            model=_MODEL,
            arguments={"head": "trf"},
            head="trf",
            has=(("vfeat_extractor.base.",), ("streaming_head.", "transformer.streaming_down_proj.")),
            lacks=("streaming_head.lstm.",),
        ),
    ),
    Family(
        name="streamsync-lstm",
        kind="learned",
        description="mini SparseSync-like backbone trained with a streaming LSTM",
        trained_on=SYNTHSYNC,
        mini=_MINI,
        weights={DEFAULT_TAG: "streamsync-lstm", "dynamic": "streamsync-lstm.dynamic", "hard": "streamsync-lstm.hard"},
        head="lstm",
        heads={"lstm": "streamsync-lstm"},
        tagged_heads={"streamsync-lstm.dynamic": "lstm", "streamsync-lstm.hard": "lstm"},
        on_top_of={
            "streamsync-lstm": "sparsesync",
            "streamsync-lstm.dynamic": "sparsesync",
            "streamsync-lstm.hard": "sparsesync.hard",
        },
        full=Layout(
            name="streamsync-lstm",
            model=_MODEL,
            arguments={"head": "lstm"},
            head="lstm",
            has=(("vfeat_extractor.base.",), ("streaming_head.lstm.",)),
        ),
    ),
)
