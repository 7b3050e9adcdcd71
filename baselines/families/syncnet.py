"""SyncNet: lips against sound, the published lip-sync scorer. No small model, no weights in the package."""

from avbench.baselines.family import Family, Layout

FAMILIES = (
    Family(
        name="syncnet",
        kind="learned",
        description="SyncNet: the lips of the largest face against the sound; no answer where no face is seen",
        full=Layout(
            name="syncnet",
            model="avbench.baselines.syncnet:SyncNet",
            has=(("netcnnlip.",), ("netcnnaud.",)),
            class_rows="",
            n_classes=21,
        ),
    ),
)
