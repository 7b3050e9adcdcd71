"""The classical baseline: no learning, no weights, no torch."""

from avbench.baselines.family import Family

FAMILIES = (
    Family(
        name="xcorr",
        kind="classical",
        description="motion energy against sound onset strength, no learning",
        mini="avbench.baselines.xcorr:Xcorr",
    ),
)
