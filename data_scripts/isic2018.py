"""ISIC 2018 task 1: dermoscopy with lesion masks. ``python -m data_scripts.isic2018``.

Codella et al., arXiv 1902.03368; Tschandl et al., Scientific Data 5, 2018. Training 2594,
validation 100, test 1000 images. SHA-256 as in torch-em; sizes as served by the ISIC archive.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

BASE = "https://isic-challenge-data.s3.amazonaws.com/2018/"


def _source(filename: str, size: int, sha256: str) -> Source:
    return Source(filename, url=BASE + filename, known_hash=f"sha256:{sha256}", size=size)


ISIC2018 = DataSet(
    name="isic2018",
    title="ISIC 2018 task 1 (skin lesions in dermoscopy)",
    licence="by image, see the ISIC archive (most often CC BY-NC 4.0 or CC0)",
    homepage="https://challenge.isic-archive.com/data/#2018",
    unpacked=14_000_000_000,
    counts=(
        Count("images", "*/isic_*.jpg", 3694),
        Count("masks", "*_segmentation.png", 3694),
    ),
    layout="isic",
    sources=(
        _source(
            "ISIC2018_Task1-2_Training_Input.zip",
            11_165_358_566,
            "80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
        ),
        _source(
            "ISIC2018_Task1_Training_GroundTruth.zip",
            27_402_895,
            "99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
        ),
        _source(
            "ISIC2018_Task1-2_Validation_Input.zip",
            239_231_159,
            "0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
        ),
        _source(
            "ISIC2018_Task1_Validation_GroundTruth.zip",
            759_706,
            "f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
        ),
        _source(
            "ISIC2018_Task1-2_Test_Input.zip",
            2_370_457_338,
            "e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
        ),
        _source(
            "ISIC2018_Task1_Test_GroundTruth.zip",
            9_680_101,
            "2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main([ISIC2018]))
