"""Synchformer, its first-stage encoders, and the model that says whether a clip can be synchronised at all."""

from avbench.baselines.family import DEFAULT_TAG, SYNTHSYNC, Family, Layout

_MODEL = "avbench.baselines.synchformer:Synchformer"
_ENCODERS = ("vfeat_extractor.blocks.", "afeat_extractor.ast.")

FAMILIES = (
    Family(
        name="synchformer",
        kind="learned",
        description="mini Synchformer-like backbone: towers over 0.64 s segments",
        trained_on=SYNTHSYNC,
        mini="avbench.baselines.mini:MiniSynchformer",
        weights={DEFAULT_TAG: "synchformer"},
        heads={"trf": "synchformer-trf"},
        on_top_of={"synchformer-trf": "synchformer"},
        aliases={"apa-synchformer": "apa"},
        full=Layout(name="synchformer", model=_MODEL, has=(_ENCODERS,), lacks=("transformer.sync_head.",)),
        also_published=(
            Layout(
                name="synchformer-synchronisability",
                model=_MODEL,
                arguments={"head": "sync_head"},
                has=(_ENCODERS, ("transformer.sync_head.",)),
                class_rows="transformer.sync_head.weight",
                no_offset="predicts whether a clip can be synchronised (2 classes), not an offset: it cannot be run",
                drops=("transformer.off_head.",),  # its checkpoints hold one that they do not use
            ),
            Layout(
                name="synchformer-s1",
                model=_MODEL,
                has=(("v_encoder.", "a_encoder."),),
                class_rows="",
                encoders=("vfeat_extractor.", "afeat_extractor."),
                keeps=("v_encoder.", "a_encoder."),  # not the projections and the temperature
                renames=(("v_encoder.", "vfeat_extractor."), ("a_encoder.", "afeat_extractor.")),
                rename_note="first-stage encoder names replaced by vfeat_extractor / afeat_extractor",
            ),
        ),
    ),
)
