"""DRIVE: fundus photographs with vessel masks. ``python -m data_scripts.drive --archive FILE...``.

Staal et al., IEEE Transactions on Medical Imaging 23(4), 2004. Only registered users may download
it, so the script takes their zips: ``training.zip`` and ``test.zip``, or one ``DRIVE.zip``.
"""

from data_scripts._cli import main
from data_scripts._sets import Count, DataSet

DRIVE = DataSet(
    name="drive",
    title="DRIVE (vessels in fundus photographs)",
    licence="research use after registration; redistribution is not granted",
    homepage="https://drive.grand-challenge.org/",
    unpacked=60_000_000,
    counts=(
        # 20 each in training and test; the challenge holds back the test set's vessel masks.
        Count("images", "*/images/*.tif", 40, exact=False),
        Count("vessel masks", "*/1st_manual/*.gif", 40, exact=False),
    ),
    layout="drive",
    how_to_get="register at https://drive.grand-challenge.org/ and download its zips",
)

if __name__ == "__main__":
    raise SystemExit(main([DRIVE]))
