"""The photos of a project, each with its rows in the label table and its place in the test set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import FieldguideError
from fieldguide.core.output import counted
from fieldguide.core.params import DataParams
from fieldguide.core.store import SPLITS, Store
from fieldguide.prepare.archives import Archives
from fieldguide.prepare.labels import check_missing, match_rows, splits_of_rows
from fieldguide.prepare.layout import files_by_name
from fieldguide.prepare.member import Member
from fieldguide.review.label_file import Decision, LabelFile


class ReviewPhoto(NamedTuple):
    """A photo and what the label table calls it."""

    member: Member
    names: tuple[str, ...]  # of its rows; if it has none, the name that a new row gets

    @property
    def source(self) -> str:
        """Name of the photo, as the prepared store has it."""
        return self.member.source


class ReviewProject:
    """The photos of `data.archive`, and which of them are test photos."""

    def __init__(
        self,
        params: DataParams,
        archives: Archives,
        labels: LabelFile,
        store: Store,
        folders: Sequence[str] = (),
    ) -> None:
        """Match photos and rows.

        Args:
            params: of the project.
            archives: open, as long as photos are shown.
            labels: the label table.
            store: says which photos are test photos if the archive does not.
            folders: of the archive, in which the table lies.

        Raises:
            FieldguideError: the rows do not fit the archive, or the store cannot be read.
        """
        self.params, self.archives, self.labels, self._store = params, archives, labels, store
        found = files_by_name(archives.members)
        table = labels.table(params.group_columns)
        self._matched = match_rows(table, found, folders)
        labelled, missing = self._matched.labelled, self._matched.missing
        check_missing(table.name, labelled, missing, archives, params)
        self._found = {one.member.source: one for one in found if one.is_photo}
        self._names: dict[str, list[str]] = defaultdict(list)
        # Splits are in the column of the table, else in the folders of the archive.
        self.table_has_splits = any(row.split for row, _ in labelled)
        self._split_of = {row.file: "none" for row in missing}
        self._test = set(store.split("test").sources)
        for (row, one), split in zip(labelled, splits_of_rows(table.name, labelled), strict=True):
            self._names[one.member.source].append(row.file)
            self._split_of[row.file] = split
            if split == "test":
                self._test.add(one.member.source)
        splits = set(self._split_of.values())
        self.archive_has_splits = bool({"val", "test"} & splits) and not self.table_has_splits
        self.drawn = [split for split in ("test", "val") if split not in splits]  # by `prepare`

    def photo(self, source: str) -> ReviewPhoto | None:
        """Return a photo; None if the archive does not have it, or no row can name it."""
        found = self._found.get(source)
        if found is None:
            return None
        names = self._names.get(source)
        if names is None:
            new = self._matched.name_of(found)
            names = [] if new is None else [new]
        return ReviewPhoto(found.member, tuple(dict.fromkeys(names))) if names else None

    def is_test(self, photo: ReviewPhoto) -> bool:
        """Tell whether a photo is in the test set."""
        return photo.source in self._test

    def check_splits(self) -> None:
        """Refuse a table that has other splits than the store.

        Raises:
            FieldguideError: a photo is in another split.
        """
        for split in SPLITS:
            for source in self._store.split(split).sources:
                for name in self._names.get(source, ()):
                    if self._split_of[name] != split:
                        raise FieldguideError(
                            f"{self.labels.path}: {name} has the split {self._split_of[name]}; in "
                            f"{self._store.folder} it has {split}"
                        )

    def decision(self, photo: ReviewPhoto) -> Decision:
        """Return what the table says about a photo."""
        return self.labels.parsed.decision(photo.names)

    def test_photos(self) -> list[ReviewPhoto]:
        """Return all test photos, sorted by name."""
        photos = [self.photo(source) for source in sorted(self._test)]
        return [photo for photo in photos if photo is not None]

    def lacking(self, classes: Collection[str]) -> list[str]:
        """Return a sentence for each class that has too few training photos for `prepare`.

        Args:
            classes: that had a photo when the review began; those of the table are added.
        """
        # Each split that is drawn takes a photo of the class; rare classes are not drawn from.
        least = 1 if self.params.min_photos > 1 else 1 + len(self.drawn)
        decisions = self.labels.parsed.decisions
        photos = Counter(decision.label for decision in decisions.values())
        training = Counter(
            decision.label
            for name, decision in decisions.items()
            if self._split_of.get(name, "train") == "train"
        )
        return [
            f"Class {label!r} has {counted(training[label], 'training photo')}: `prepare` needs "
            f"{least} or more."
            if photos[label]
            else f"Class {label!r} has no photo left: the next training will not know it."
            for label in sorted({*classes, *self.labels.parsed.classes})
            if training[label] < least
        ]

    def photos_in(self, folder: Path) -> list[ReviewPhoto]:
        """Return the photos in a folder of the archive, also test photos.

        Raises:
            FieldguideError: `data.archive` does not hold the folder, it has no photo, or the table
                has no column for the split of photos that are added to it.
        """
        prefix = prefix_of(self.params, folder)
        found = [self.photo(name) for name in sorted(self._found) if name.startswith(prefix)]
        photos = [photo for photo in found if photo]
        if all(map(self.is_test, photos)):
            raise FieldguideError(f"{folder}: no photo in it that may be reviewed")
        if self.archive_has_splits:
            raise FieldguideError(
                f"{self.labels.path}: has no column split, and the folders of the archive are its "
                "splits; add the column (train, val or test in each row), because a photo that is "
                "added needs a split"
            )
        return photos


def prefix_of(params: DataParams, folder: Path) -> str:
    """Return what the source names of all photos in a folder begin with.

    Raises:
        FieldguideError: it is no folder, or `data.archive` does not hold it.
    """
    if not folder.is_dir():
        raise FieldguideError(f"{folder}: is no folder; allowed: a folder of data.archive")
    given = params.archive
    roots = [Path(root) for root in ([given] if isinstance(given, str) else given)]
    for root in roots:
        if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
            below = folder.resolve().relative_to(root.resolve()).parts
            above = () if isinstance(given, str) else (root.name,)
            return "".join(f"{name}/" for name in (*above, *below))
    archives = ", ".join(map(str, [*roots, folder]))
    raise FieldguideError(
        f"{folder}: is not in data.archive, so the label table cannot name its photos; allowed:"
        f" a folder of data.archive; to add it, set data.archive: [{archives}] and see "
        'data/README.md, "Several archives", for dvc.yaml'
    )
