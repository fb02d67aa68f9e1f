"""Which photos are reviewed, and in which order."""

from __future__ import annotations

import csv
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from fieldguide.audit.suspect import COLUMNS
from fieldguide.core.errors import FieldguideError, PhotoError
from fieldguide.inference.classifier import Classifier, Prediction
from fieldguide.prepare.archives import Archives
from fieldguide.prepare.components import connected
from fieldguide.prepare.looks import SHAPE, Looks, look_of
from fieldguide.prepare.member import Member, UnreadableMemberError
from fieldguide.prepare.near_copies import near_copies
from fieldguide.review.project import ReviewPhoto, ReviewProject

AUDIT = Path("plots/audit.csv")
# More would not be reviewed before the next training, which changes the order. Twice as many are
# compared, so that enough remain without near-copies.
_MOST_UNCERTAIN = 1000
_APART = (
    "If labels of the test set were checked only where the classifier disagrees with them, wrong "
    "labels that it agrees with would stay, and the test accuracy would be too high."
)


@dataclass
class Item:
    """A photo of the queue, and what the reviewer is told about it."""

    photo: ReviewPhoto
    reasons: list[str] = field(default_factory=list)
    suggested: str = ""  # class of the store or the classifier; the table may lack it
    copy_of: str = ""  # name of a photo that looks the same: its class now is suggested instead


@dataclass(frozen=True)
class Queue:
    """The photos to review, in order."""

    title: str
    why: str  # explains the order to the reviewer
    items: list[Item]


def audit_queue(project: ReviewProject, path: Path = AUDIT) -> Queue:
    """Return the photos that the audit suspects, in its order, without test photos.

    Raises:
        FieldguideError: there is no audit, or its file has other columns.
    """
    items: dict[str, Item] = {}
    for line in _read_audit(path):
        photo = project.photo(line["file"])
        if photo is None or line["split"] == "test" or project.is_test(photo):
            continue
        item = items.setdefault(photo.source, Item(photo))
        item.reasons.append(": ".join(filter(None, (line["kind"], line["detail"]))))
        if not item.suggested:
            item.suggested, item.copy_of = line["suggested class"], line["other file"]
    return Queue(
        "What the audit suspects",
        "Photos that `fieldguide audit` suspects, the worst first, but no test photos: `fieldguide "
        f"review --split test` shows those. {_APART}",
        list(items.values()),
    )


def _read_audit(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            lines, columns = list(reader), reader.fieldnames or []
    except FileNotFoundError as err:
        raise FieldguideError(f"{path}: does not exist; run `fieldguide audit` first") from err
    except (OSError, ValueError, csv.Error) as err:
        raise FieldguideError(f"{path}: cannot be read ({err}); run `fieldguide audit`") from err
    missing = [name for name in COLUMNS if name not in columns]
    if missing or any(None in line.values() for line in lines):
        raise FieldguideError(
            f"{path}: found columns {', '.join(columns)}; allowed: {', '.join(COLUMNS)}; run "
            "`fieldguide audit`"
        )
    return lines


def random_test_queue(project: ReviewProject, seed: int) -> Queue:
    """Return all test photos in a random order that is the same each time.

    Args:
        project: of the photos.
        seed: of the order.
    """
    photos = project.test_photos()
    random.Random(seed).shuffle(photos)  # noqa: S311 - an order, no secret
    return Queue(
        "Test photos, in random order",
        "All test photos, in random order, without the classifier's opinion and the audit's. "
        f"{_APART}",
        [Item(photo) for photo in photos],
    )


def folder_queue(project: ReviewProject, classifier: Classifier, folder: Path) -> Queue:
    """Return the photos of a folder that have no class, the least certain first.

    Photos that were reviewed before come first, so that they count as done.

    Raises:
        FieldguideError: see `ReviewProject.photos_in`; or every photo of the folder has a class.
    """
    found = project.photos_in(folder)
    photos = [photo for photo in found if not project.is_test(photo)]
    decisions = [project.decision(photo) for photo in photos]
    pairs = list(zip(photos, decisions, strict=True))
    reviewed = [photo for photo, decision in pairs if decision.reviewed_at]
    waiting = [
        photo for photo, decision in pairs if not decision.reviewed_at and not decision.label
    ]
    if not waiting and not reviewed:
        raise FieldguideError(
            f"{folder}: all {len(photos):,} photos have a class; allowed: a folder with photos "
            "that have none (`fieldguide audit` and `fieldguide review` find wrong classes)"
        )
    shown, alike = least_certain(classifier, project.archives, [one.member for one in waiting])
    items = []
    for k, prediction in shown:
        best = ", ".join(f"{name} {value:.0%}" for name, value in prediction.top(2).items())
        items.append(Item(waiting[k], [f"the classifier is not certain: {best}"], prediction.label))
    unread = "cannot be read"
    if len(waiting) > _MOST_UNCERTAIN:
        unread += f" or come after the first {_MOST_UNCERTAIN:,}"
    rest, test = len(waiting) - len(items) - alike, len(found) - len(photos)
    hidden = {"look like one of them": alike, unread: rest, "are test photos": test}
    not_shown = ", ".join(f"{count:,} {why}" for why, count in hidden.items() if count)
    return Queue(
        f"Photos of {folder} without a class",
        "The photos that the classifier is least certain of: the difference between its two "
        "highest probabilities is small." + (f" Not shown: {not_shown}." if not_shown else ""),
        [*map(Item, reviewed), *items],
    )


def least_certain(
    classifier: Classifier,
    archives: Archives,
    members: Sequence[Member],
    *,
    most: int = _MOST_UNCERTAIN,
) -> tuple[list[tuple[int, Prediction]], int]:
    """Find the photos with the smallest margin between the two most probable classes.

    Photos that cannot be read are left out; so are near-copies of a less certain photo.

    Args:
        classifier: gives the probabilities.
        archives: of the photos.
        members: the photos.
        most: number of photos.

    Returns:
        Index in `members` and prediction of each photo, the least certain first; and the number of
        near-copies that were left out.
    """
    photos = (_read(archives, member) for member in members)
    console = Console(stderr=True)
    answers = track(
        classifier.predict_all(photos), "Classifying", total=len(members), console=console
    )
    found = [(k, one) for k, one in enumerate(answers) if isinstance(one, Prediction)]
    found.sort(key=lambda one: (_margin(one[1]), members[one[0]].source))
    found = found[: 2 * most]
    different = _without_copies(classifier, (_read(archives, members[k]) for k, _ in found))
    return [found[k] for k in different][:most], len(found) - len(different)


def _read(archives: Archives, member: Member) -> bytes:
    try:
        return archives.read(member)
    except UnreadableMemberError:
        return b""  # no photo, which the classifier says


def _margin(prediction: Prediction) -> float:
    first, second = prediction.top(2).values()
    return first - second


def _without_copies(classifier: Classifier, photos: Iterator[bytes]) -> list[int]:
    """Return the indices of photos of which no earlier one is a near-copy."""
    with tempfile.TemporaryDirectory() as folder:
        looks = Looks(Path(folder) / "looks")
        count = 0
        with looks.path.open("wb") as file:
            for photo in photos:
                try:
                    look = look_of(classifier.pixels(photo))
                except PhotoError:  # gone since it was classified; an empty look is like no other
                    look = np.zeros(SHAPE, np.uint8)
                file.write(look.data)
                count += 1
        groups = connected(count, near_copies(looks, range(count)))
    copies = {k for group in groups for k in group[1:]}
    return [k for k in range(count) if k not in copies]
