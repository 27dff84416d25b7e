"""COVID-QU-Ex: chest X-rays with lung and infection masks. ``python -m data_scripts.covid_qu_ex``.

Tahir et al., Computers in Biology and Medicine 139, 2021. On Kaggle only: needs the user's own
``kaggle`` client, or ``--archive`` with a zip from the browser. No hash is published, and the
counts differ between versions of the set, so they warn and do not refuse.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet, Source

COVID_QU_EX = DataSet(
    name="covid_qu_ex",
    title="COVID-QU-Ex (lungs and infections in chest X-rays)",
    licence="CC BY-SA 4.0 as stated on Kaggle",
    homepage="https://www.kaggle.com/datasets/anasmohammedtahir/covidqu",
    unpacked=2_000_000_000,
    counts=(
        Count("lung images", "*/lung segmentation data/*/images/*.png", 33_920, exact=False),
        Count("lung masks", "*/lung segmentation data/*/lung masks/*.png", 33_920, exact=False),
        Count(
            "infection masks",
            "*/infection segmentation data/*/infection masks/*.png",
            2_913,
            exact=False,
        ),
    ),
    layout="covid_qu_ex",
    tasks=("lung", "infection"),
    sources=(Source(filename="covidqu.zip", kaggle="anasmohammedtahir/covidqu"),),
)

if __name__ == "__main__":
    raise SystemExit(main([COVID_QU_EX]))
