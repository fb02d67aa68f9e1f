"""The photos of a project, each with its rows in the label table and its place in the test set."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from fieldguide.core.errors import FieldguideError
from fieldguide.core.params import DataParams
from fieldguide.core.store import Store
from fieldguide.prepare.archives import Archives
from fieldguide.prepare.labels import find_tables, match_rows, read_labels
from fieldguide.prepare.layout import SPLIT_OF, files_by_name
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
        self, params: DataParams, archives: Archives, labels: LabelFile, store: Store
    ) -> None:
        """Match photos and rows.

        Args:
            params: `data.labels` names the label table.
            archives: open, as long as photos are shown.
            labels: the label table.
            store: says which photos are test photos if the archive does not.

        Raises:
            FieldguideError: `prepare` would refuse the table, or the store cannot be read.
        """
        self.params, self.archives, self.labels = params, archives, labels
        found = files_by_name(archives.members)
        (table,) = find_tables(params, archives, found)
        folder = table.entry.folders if table.entry else ()
        self._matched = match_rows(labels.table(params.group_columns), found, folder)
        self._found = {one.member.source: one for one in found if one.is_photo}
        self._names: dict[str, list[str]] = defaultdict(list)
        for row, one in self._matched.labelled:
            self._names[one.member.source].append(row.file)
        photos = read_labels(params, archives).photos
        # By the table, or by folders of the archive; otherwise `prepare` draws the splits.
        self.has_splits = any(photo.split != "train" for photo in photos)
        self._test = {photo.member.source for photo in photos if photo.split == "test"}
        self._test |= {  # also without a class
            one.member.source
            for row, one in self._matched.labelled
            if SPLIT_OF.get(row.split.lower()) == "test"
        }
        self._test.update(store.split("test").sources)

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

    def decision(self, photo: ReviewPhoto) -> Decision:
        """Return what the table says about a photo."""
        return self.labels.decision(photo.names)

    def test_photos(self) -> list[ReviewPhoto]:
        """Return all test photos, sorted by name."""
        photos = [self.photo(source) for source in sorted(self._test)]
        return [photo for photo in photos if photo is not None]

    def photos_in(self, folder: Path) -> list[ReviewPhoto]:
        """Return the photos in a folder of the archive, without test photos.

        Raises:
            FieldguideError: `data.archive` does not hold the folder, it has no photo, or the table
                has no column for the split of photos that are added to it.
        """
        prefix = self._prefix(folder)
        found = [self.photo(name) for name in sorted(self._found) if name.startswith(prefix)]
        photos = [photo for photo in found if photo and not self.is_test(photo)]
        if not photos:
            raise FieldguideError(f"{folder}: no photo in it that may be reviewed")
        if self.has_splits and not self.labels.has_splits:
            raise FieldguideError(
                f"{self.labels.path}: has no column split, and the folders of the archive are its "
                "splits; add the column (train, val or test in each row), because a photo that is "
                "added needs a split"
            )
        return photos

    def _prefix(self, folder: Path) -> str:
        """Return what the source names of all photos in a folder begin with."""
        given = self.params.archive
        roots = [Path(root) for root in ([given] if isinstance(given, str) else given)]
        for root in roots:
            if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
                below = folder.resolve().relative_to(root.resolve()).parts
                above = () if isinstance(given, str) else (root.name,)
                return "".join(f"{name}/" for name in (*above, *below))
        if not folder.is_dir():
            raise FieldguideError(f"{folder}: is no folder; allowed: a folder of data.archive")
        archives = ", ".join(map(str, [*roots, folder]))
        raise FieldguideError(
            f"{folder}: is not in data.archive, so the label table cannot name its photos; allowed:"
            f" a folder of data.archive; to add it, set data.archive: [{archives}] and see "
            'data/README.md, "Several archives", for dvc.yaml'
        )
