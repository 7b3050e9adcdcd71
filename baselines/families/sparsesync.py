"""SparseSync, and the sound encoder that its training starts from."""

from avbench.baselines.family import DEFAULT_TAG, SYNTHSYNC, Family, Layout

_MODEL = "avbench.baselines.sparsesync:SparseSync"

FAMILIES = (
    Family(
        name="sparsesync",
        kind="learned",
        description="mini SparseSync-like backbone: two towers over the whole window",
        trained_on=SYNTHSYNC,
        mini="avbench.baselines.mini:MiniSparseSync",
        weights={DEFAULT_TAG: "sparsesync", "synthsync-pt": "sparsesync-pt", "hard": "sparsesync.hard"},
        aliases={"apa-sparsesync": "apa"},
        full=Layout(
            name="sparsesync",
            model=_MODEL,
            has=(("vfeat_extractor.base.",),),
            lacks=("streaming_head.", "transformer.streaming_down_proj."),
        ),
        also_published=(
            Layout(
                name="resnet-audio",
                model=_MODEL,
                has=(("layer4.",), ("conv1.",)),
                class_rows="",
                encoders=("afeat_extractor.",),
                drops=("fc.",),  # its classifier
                renames=(("", "afeat_extractor."),),
            ),
        ),
    ),
)
