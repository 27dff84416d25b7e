"""Kvasir-SEG: 1000 colonoscopy frames with polyp masks. ``python -m data_scripts.kvasir``.

Jha et al., "Kvasir-SEG: A Segmented Polyp Dataset", MMM 2020. The size and SHA-256 below are
stated alike by several independent projects (torch-em among them).
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

KVASIR = DataSet(
    name="kvasir",
    title="Kvasir-SEG (polyps in colonoscopy)",
    licence="research and education only, cite the paper, no redistribution",
    homepage="https://datasets.simula.no/kvasir-seg/",
    unpacked=50_000_000,
    counts=(
        Count("images", "*/images/*.jpg", 1000),
        Count("masks", "*/masks/*.jpg", 1000),
    ),
    layout="kvasir",
    sources=(
        Source(
            filename="kvasir-seg.zip",
            url="https://datasets.simula.no/downloads/kvasir-seg.zip",
            known_hash="sha256:03b30e21d584e04facf49397a2576738fd626815771afbbf788f74a7153478f7",
            size=46_227_172,
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main([KVASIR]))
