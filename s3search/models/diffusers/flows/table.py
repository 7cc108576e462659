"""The pipeline classes of flow transformers, an entry each.

Each is proven against its own pipeline in tests/models/diffusers/test_flows.py: equal latents
after steps of the pipeline's own scheduler.
"""

from s3search.models.diffusers.flows.entry import (
    Embedded,
    Encoding,
    Entry,
    LatentSizes,
    Packing,
    Time,
)
from s3search.models.diffusers.flows.layout import picture_shapes, rows_and_columns
from s3search.models.diffusers.guidance import beyond_given, normalised

_TEXT, _POOLED = "encoder_hidden_states", "pooled_projections"
_UNDOUBLED = {"do_classifier_free_guidance": False}

FLOWS: dict[str, Entry] = {
    "FluxPipeline": Entry(
        encoding=Encoding(returns={0: _TEXT, 1: _POOLED}, arguments={"prompt_2": None}),
        sizes=LatentSizes(tile=2, of_tiles=True),
        packing=Packing.TILES,
        time=Time.UNIT,
        places=rows_and_columns,
        embedded=Embedded(),
    ),
    "QwenImagePipeline": Entry(
        encoding=Encoding(returns={0: _TEXT, 1: f"{_TEXT}_mask"}, empty=" "),
        sizes=LatentSizes(tile=2, of_tiles=True),
        packing=Packing.TILES,
        time=Time.UNIT,
        places=picture_shapes,
        combine=normalised,
        scale_name="true_cfg_scale",
        adds_frame=True,
    ),
    "StableDiffusion3Pipeline": Entry(
        encoding=Encoding(
            returns={0: _TEXT, 2: _POOLED},
            arguments={**_UNDOUBLED, "prompt_2": None, "prompt_3": None},
        ),
        sizes=LatentSizes(tile=2),
        guides_calls=True,
    ),
    "ZImagePipeline": Entry(
        encoding=Encoding(returns={0: "cap_feats"}, arguments=_UNDOUBLED),
        sizes=LatentSizes(tile=2, usual=1024),
        packing=Packing.LIST,
        time=Time.RISING,
        sign=-1.0,
        x_name="x",
        time_name="t",
        combine=beyond_given,
    ),
}
"""How each class's network is called."""
