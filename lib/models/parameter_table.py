"""What ESP-MedSAM weighs: counted from the model at hand, beside the released code and the paper.

The paper's claim changed from version to version (31.4 % of SAM-B, 4.5 % of SAM-H, 2.0 % of
SAM-H). They are most likely two ways of counting one network: the encoder with one modality's
controller, which is all that an image needs, or with those of all six modalities.
"""

from collections.abc import Iterable

from torch import nn

from lib.models.esp_medsam import EspMedSam

# Parameters of segment-anything's models, image encoder, prompt encoder and decoder.
SAM = {"SAM-B": 93_735_472, "SAM-L": 312_342_832, "SAM-H": 641_090_608}

# Measured on the released code (github.com/xq141839/De-LightSAM), which builds one controller.
# Its encoder keeps TinyViT's classification head, its prompt encoder the point and mask
# prompts; neither is used. It has 7 queries and uses 6.
RELEASED = {
    "shared encoder": 6_065_532,
    "one modality controller": 3_144_202,
    "prompt encoder": 6_220,
    "patch head": 65_793,
    "dense prompt": 1_024,
    "mask queries": 1_792,
    "mask decoder": 3_505_024,
    "modality classifier": 0,
}

# (version of arXiv 2407.14153, share, of which SAM, how we read it)
CLAIMS = (
    ("v1, July 2024", 0.314, "SAM-B", "all"),
    ("v4, August 2024", 0.045, "SAM-H", "all"),
    ("v5, July 2025", 0.020, "SAM-H", "one"),
)


def count(modules: nn.Module | Iterable[nn.Parameter] | None) -> int:
    """Number of parameters, buffers excluded; 0 of nothing."""
    if modules is None:
        return 0
    parameters = modules.parameters() if isinstance(modules, nn.Module) else modules
    return sum(parameter.numel() for parameter in parameters)


def parts(model: EspMedSam) -> dict[str, int]:
    """Parameters of each part of `model`, built on `TinyVitEncoder`; controllers are equal."""
    decoder, prompts = model.decoder, model.prompts
    return {
        "shared encoder": count(model.encoder.shared_parameters()),
        "one modality controller": count(model.encoder.controllers[0]),
        "prompt encoder": 0,  # a fixed random matrix, no parameter
        "patch head": count(prompts.patch_head) if prompts is not None else 0,
        "dense prompt": count(prompts.dense) if prompts is not None else 0,
        "mask queries": count(decoder.queries.parameters()),
        "mask decoder": count(decoder) - count(decoder.queries.parameters()),
        "modality classifier": count(model.classifier),
    }


def totals(parts: dict[str, int], modalities: int) -> dict[str, int]:
    """Parameters with "one" controller and with "all" controllers of `modalities` modalities."""
    one = sum(parts.values())
    return {"one": one, "all": one + (modalities - 1) * parts["one modality controller"]}


def parameter_table(model: EspMedSam) -> list[dict]:
    """A row a part with its parameters in ours and in the released code, then the two totals."""
    ours, modalities = parts(model), len(model.modalities)
    rows = [{"part": part, "ours": ours[part], "released": RELEASED[part]} for part in ours]
    mine, theirs = totals(ours, modalities), totals(RELEASED, 6)
    names = {"one": "whole, one controller", "all": f"whole, all {modalities} controllers"}
    return rows + [{"part": n, "ours": mine[k], "released": theirs[k]} for k, n in names.items()]


def claims_table(model: EspMedSam) -> list[dict]:
    """A row a claim of the paper: its share, and ours and the released code's, both ways counted.

    Shares are fractions of all parameters of the SAM named in the row; "counted" is our reading
    of the claim, "one" controller or "all".
    """
    mine, theirs = totals(parts(model), len(model.modalities)), totals(RELEASED, 6)
    return [
        {
            "version": version,
            "of": sam,
            "claimed": share,
            "counted": how,
            "ours, one": mine["one"] / SAM[sam],
            "ours, all": mine["all"] / SAM[sam],
            "released, one": theirs["one"] / SAM[sam],
            "released, all": theirs["all"] / SAM[sam],
        }
        for version, share, sam, how in CLAIMS
    ]
