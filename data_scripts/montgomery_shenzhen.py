"""Montgomery and Shenzhen: chest X-rays with lung masks.

``python -m data_scripts.montgomery_shenzhen [--only montgomery]``. Jaeger et al., Quantitative
Imaging in Medicine and Surgery 4(6), 2014. Shenzhen's lung masks (566 of 662 images) are a later
work of Stirenko et al., 2018, on Kaggle. Montgomery's SHA-256 as in torch-em; none is published
for the two Shenzhen archives, so the first download's is recorded.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

BASE = "https://openi.nlm.nih.gov/imgs/collections/"

MONTGOMERY = DataSet(
    name="montgomery",
    title="Montgomery County (lungs in chest X-rays)",
    licence="published by the US National Library of Medicine for research, cite the paper",
    homepage="https://openi.nlm.nih.gov/faq#faq-tb-coll",
    unpacked=620_000_000,
    counts=(
        Count("images", "*/cxr_png/*.png", 138),
        Count("left masks", "*/leftmask/*.png", 138),
        Count("right masks", "*/rightmask/*.png", 138),
    ),
    layout="montgomery",
    sources=(
        Source(
            filename="NLM-MontgomeryCXRSet.zip",
            url=BASE + "NLM-MontgomeryCXRSet.zip",
            known_hash="sha256:54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424",
        ),
    ),
)

SHENZHEN = DataSet(
    name="shenzhen",
    title="Shenzhen Hospital (lungs in chest X-rays)",
    licence="images as Montgomery; masks CC BY-NC-SA 4.0 as stated by their authors",
    homepage="https://openi.nlm.nih.gov/faq#faq-tb-coll",
    unpacked=3_800_000_000,
    counts=(
        Count("images", "*/cxr_png/*.png", 662),
        Count("lung masks", "*_mask.png", 566),
    ),
    layout="shenzhen",
    sources=(
        Source(
            filename="ChinaSet_AllFiles.zip",
            url=BASE + "ChinaSet_AllFiles.zip",
            into="ChinaSet_AllFiles",
        ),
        Source(
            filename="shcxr-lung-mask.zip",
            kaggle="yoctoman/shcxr-lung-mask",
            into="ChinaSet_AllFiles/mask",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main([MONTGOMERY, SHENZHEN]))
