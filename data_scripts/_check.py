"""Verify what lies on the disk: files and sizes, counts, archive hashes, and that it opens."""

from dataclasses import dataclass, field
from pathlib import Path

import pooch

from data_scripts._disk import human
from data_scripts._record import Record, list_files
from data_scripts._sets import DataSet


@dataclass
class Report:
    """``facts`` were seen, ``warnings`` are worth a look, ``problems`` make the data unusable."""

    facts: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """One line each, most harmless first."""
        return "\n".join(
            [f"  ok: {line}" for line in self.facts]
            + [f"  warning: {line}" for line in self.warnings]
            + [f"  problem: {line}" for line in self.problems]
        )


def check_files(dataset: DataSet, folder: Path, record: Record) -> Report:
    """Check files and counts without reading a picture; an empty ``record``: origin unknown."""
    report = Report()
    if not folder.is_dir():
        report.problems.append(f"{folder}: no such folder; run without --check to get the data")
        return report
    files = list_files(folder)
    report.facts.append(f"{len(files)} files, {human(sum(files.values()))}")
    _check_record(files, record, report)
    _check_counts(dataset, list(files), report)
    return report


def check_archives(record: Record, archives: Path, report: Report) -> None:
    """Add to ``report`` whether the archives that were kept in ``archives`` are unchanged."""
    for name, entry in record.archives.items():
        if (archives / name).exists():
            same = pooch.file_hash(str(archives / name), alg="sha256") == entry["sha256"]
            line = f"{archives / name}: SHA-256 {'as' if same else 'not as'} recorded"
            (report.facts if same else report.problems).append(line)


def check_opening(dataset: DataSet, folder: Path, report: Report) -> None:
    """Add to ``report`` whether FolderDataset opens the data, for each of its tasks."""
    # Here and not above: this loads torch, which nothing else in these scripts needs.
    from lib.data.errors import DataError
    from lib.data.folder import FolderDataset

    for task in dataset.tasks:
        name = dataset.layout + (f", {task}" if task else "")
        try:
            pairs = len(FolderDataset(folder, layout=dataset.layout, task=task))
        except DataError as error:
            report.problems.append(f"FolderDataset ({name}) does not open it: {error}")
        else:
            report.facts.append(f"FolderDataset ({name}) opens {pairs} image-mask pairs")


def _check_record(files: dict[str, int], record: Record, report: Report) -> None:
    if not record.files:
        report.warnings.append("no record of the unpacking: file sizes cannot be compared")
        return
    missing = [name for name in record.files if name not in files]
    changed = [name for name, size in record.files.items() if files.get(name, size) != size]
    foreign = [name for name in files if name not in record.files]
    if missing:
        report.problems.append(f"{len(missing)} files are missing: {_some(missing)}")
    if changed:
        report.problems.append(f"{len(changed)} files have another size: {_some(changed)}")
    if foreign:
        report.warnings.append(f"{len(foreign)} files were added: {_some(foreign)}")
    if not missing and not changed:
        report.facts.append("all files have their recorded size")


def _check_counts(dataset: DataSet, names: list[str], report: Report) -> None:
    for count in dataset.counts:
        found = count.found(names)
        line = f"{count.what}: {found}"
        if found == count.number or (found and count.number is None):
            report.facts.append(line)
            continue
        line += f" found, {count.number or 'some'} expected ({count.pattern})"
        (report.problems if count.exact or not found else report.warnings).append(line)


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
