"""Data Science Bowl 2018 (BBBC038): microscopy with one mask file per nucleus.

``python -m data_scripts.dsb2018``. Caicedo et al., Nature Methods 16, 2019. The training images
of stage 1, from the Broad Bioimage Benchmark Collection. Kaggle's ``stage1_train.zip`` and the
community's corrected copy (664 images) do as well, with ``--archive``. No hash is published: the
first download's is recorded.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

DSB2018 = DataSet(
    name="dsb2018",
    title="Data Science Bowl 2018, stage 1 training (nuclei in microscopy)",
    licence="CC0",
    homepage="https://bbbc.broadinstitute.org/BBBC038",
    unpacked=100_000_000,
    counts=(
        Count("images", "*/images/*.png", 670, exact=False),
        Count("nucleus masks", "*/masks/*.png", None),
    ),
    layout="dsb2018",
    sources=(
        Source(
            filename="stage1_train.zip",
            url="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
            into="stage1_train",
        ),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main([DSB2018]))
