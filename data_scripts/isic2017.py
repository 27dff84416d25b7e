"""ISIC 2017 part 1: dermoscopy with lesion masks. ``python -m data_scripts.isic2017``.

Codella et al., arXiv 1710.05006. Training 2000, validation 150, test 600 images. The MD5 sums
are stated alike by several independent projects; no SHA-256 is, so the first download's is
recorded as well.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

BASE = "https://isic-challenge-data.s3.amazonaws.com/2017/"


def _source(filename: str, md5: str) -> Source:
    return Source(filename, url=BASE + filename, known_hash=f"md5:{md5}")


ISIC2017 = DataSet(
    name="isic2017",
    title="ISIC 2017 part 1 (skin lesions in dermoscopy)",
    licence="CC0 as stated by the ISIC archive",
    homepage="https://challenge.isic-archive.com/data/#2017",
    unpacked=13_000_000_000,
    counts=(
        Count("images", "*/isic_*.jpg", 2750),
        Count("masks", "*_segmentation.png", 2750),
    ),
    layout="isic",
    sources=(
        _source("ISIC-2017_Training_Data.zip", "a14a7e622c67a358797ae59abb8a0b0c"),
        _source("ISIC-2017_Training_Part1_GroundTruth.zip", "77fdbeb6fbec4139937224416b250f4c"),
        _source("ISIC-2017_Validation_Data.zip", "8d6419d942112f709894c0d82f6c9038"),
        _source("ISIC-2017_Validation_Part1_GroundTruth.zip", "64d3e68fa2deeb8a5e89aa8dec2efd44"),
        _source("ISIC-2017_Test_v2_Data.zip", "5f6a0b5e1f2972bd1f5ea02680489f09"),
        _source("ISIC-2017_Test_v2_Part1_GroundTruth.zip", "b1742de6bd257faca3b2b21a4aa3b781"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main([ISIC2017]))
