"""Data sets on Kaggle, through the user's own client and account."""

import os
import shutil
import subprocess
from pathlib import Path

from data_scripts._errors import FetchError


def download_from_kaggle(name: str, path: Path) -> None:
    """Bring the zip of Kaggle data set ``name`` (``owner/set``) to ``path``.

    The client logs in with the user's token, which this project never reads. Raises FetchError
    without a client, and when the client fails.
    """
    if path.exists():
        return
    page = f"https://www.kaggle.com/datasets/{name}"
    client = shutil.which("kaggle")
    if client is None:
        raise FetchError(
            f"{page}: needs a Kaggle account, and no `kaggle` client is installed; either `pip "
            f"install kaggle` and set up its token, or download the zip in a browser and pass it "
            f"with --archive FILE"
        )
    inbox = path.with_name(f".{path.name}.kaggle")
    inbox.mkdir(parents=True, exist_ok=True)
    command = [client, "datasets", "download", "-d", name, "-p", str(inbox)]
    status = subprocess.run(command, check=False).returncode
    zips = sorted(inbox.glob("*.zip"))
    if status != 0 or len(zips) != 1:
        raise FetchError(
            f"{page}: the kaggle client ended with status {status} and {len(zips)} zip files in "
            f"{inbox}; check its token (`kaggle datasets list`), accept the terms on the page, or "
            "pass a zip with --archive FILE"
        )
    os.replace(zips[0], path)
    shutil.rmtree(inbox)
