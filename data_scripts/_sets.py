"""What a script knows of its data set: where it comes from, what it must hold, how it is opened."""

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Source:
    """One archive of a data set.

    ``url`` is the publisher's address and ``kaggle`` a data set's name on Kaggle; one of them.
    ``known_hash`` (``"sha256:<hex>"`` or ``"md5:<hex>"``) and ``size`` in bytes are None where no
    trustworthy source states them. ``into`` is a folder that replaces the archive's own top
    folders, where these differ between copies of the archive.
    """

    filename: str
    url: str | None = None
    kaggle: str | None = None
    known_hash: str | None = None
    size: int | None = None
    into: str = ""


@dataclass(frozen=True)
class Count:
    """How many files a pattern must match, e.g. ``"*/masks/*.png"``; letter case is ignored.

    Another number above zero is an error where ``exact``, else a warning: some sets are known
    in several versions. ``number`` None asks for one file at least.
    """

    what: str
    pattern: str
    number: int | None
    exact: bool = True

    def found(self, names: list[str]) -> int:
        """Number of relative paths in ``names`` that match."""
        return sum(fnmatchcase("/" + name.lower(), self.pattern.lower()) for name in names)


@dataclass(frozen=True)
class DataSet:
    """A data set. No ``sources`` means that only the user can get it, by registering.

    ``unpacked`` is the expected size in bytes after unpacking. ``layout`` and ``tasks`` are what
    ``lib.data.folder.FolderDataset`` opens it with.
    """

    name: str
    title: str
    licence: str
    homepage: str
    unpacked: int
    counts: tuple[Count, ...]
    layout: str
    tasks: tuple[str | None, ...] = (None,)
    sources: tuple[Source, ...] = ()
    how_to_get: str = ""
