"""BUSI: breast ultrasound with lesion masks. ``python -m data_scripts.busi``.

Al-Dhabyani et al., Data in Brief 28, 2020: 437 benign, 210 malignant, 133 normal images. Taken
from Kaggle with the user's own client, or from a zip with ``--archive``. The authors' own address
can be given with ``--url``; its server has been seen without a valid certificate chain.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

BUSI = DataSet(
    name="busi",
    title="BUSI (breast ultrasound)",
    licence="research use, cite the paper; the copy on Kaggle says CC0",
    homepage="https://www.kaggle.com/datasets/aryashah2k/breast-ultrasound-images-dataset",
    unpacked=260_000_000,
    counts=(
        Count("images", "*/*).png", 780, exact=False),
        Count("masks", "*_mask*.png", 798, exact=False),
    ),
    layout="busi",
    sources=(
        Source(
            filename="breast-ultrasound-images-dataset.zip",
            kaggle="aryashah2k/breast-ultrasound-images-dataset",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main([BUSI]))
