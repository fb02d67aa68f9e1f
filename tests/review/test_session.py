"""What a session shows, writes and takes back."""

import shutil
from pathlib import Path

import pytest
import yaml
from reviewed import TABLE, rows_of_table, run_prepare, write_audit, write_params

from fieldguide.core.errors import FieldguideError
from fieldguide.core.params import load_params
from fieldguide.review.queues import folder_queue, least_certain, random_test_queue


def decide(session, k, label):
    item = session.queue.items[k]
    assert session.decide([(k, label, session.project.decision(item.photo))]) == []


def names(session):
    return [session.queue.items[k].photo.source for k in session.waiting().items]


class TestTable:
    """The table that is made from the folders."""

    def test_it_gives_the_store_of_the_folders(self, folder, start):
        before = {path.name: path.read_bytes() for path in Path("data/prepared").iterdir()}
        start()
        rows = list(rows_of_table().values())
        assert rows[0] == {
            "file": "train/ant/00.png",
            "label": "ant",
            "split": "train",
            "reviewed_by": "",
            "reviewed_at": "",
        }
        assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
        assert {row["split"] for row in rows if row["file"].startswith("val/")} == {"test"}
        write_params(labels=str(TABLE))
        run_prepare()
        assert {path.name: path.read_bytes() for path in Path("data/prepared").iterdir()} == before

    @pytest.mark.parametrize("layout", ["train and val", "classes"])
    def test_decisions_move_no_other_photo(self, layout, folder, start, make_photos, pack):
        if layout == "classes":
            pack(folder / "flat.zip", make_photos(each=30))
            write_params(archive="flat.zip")
        before = run_prepare()
        write_audit([(n, split, label, "") for n, (split, label) in before.items()])
        session = start()
        changed = dict.fromkeys(names(session)[::4], "bee")
        for k, name in enumerate(names(session)):
            if name in changed:
                decide(session, k, "bee")
        write_params(labels=str(TABLE), archive=load_params().data.archive)
        assert {before[name][0] for name in changed} == {"train", "val"}
        expected = {n: (split, changed.get(n, label)) for n, (split, label) in before.items()}
        assert run_prepare() == expected

    def test_photos_that_the_store_lacks_get_the_split_of_their_folder(self, folder, start):
        for name in ("train/ant", "val/bee"):
            photo = Path("data/photos", name, "00.png")
            photo.with_name("copy.png").write_bytes(photo.read_bytes())
        run_prepare()
        start()
        rows = rows_of_table()
        found = {rows["train/ant/copy.png"]["split"], rows["train/ant/00.png"]["split"]}
        assert "train" in found
        assert rows["val/bee/copy.png"]["split"] == "test"

    def test_photos_of_the_folder_get_no_class(self, folder, start, make_photos, pack, classifier):
        pack(folder / "flat", make_photos(classes=["cat", "dog", "new"], each=12, pixels=40))
        write_params(archive="flat")
        run_prepare()
        new = Path("flat/new")
        session = start(lambda project: folder_queue(project, classifier, new), folder=new)
        assert {row["label"] for row in rows_of_table().values()} == {"cat", "dog"}
        test = len(list(new.iterdir())) - len(names(session))
        assert f"{test} are test photos" in session.queue.why
        TABLE.unlink()
        with pytest.raises(FieldguideError, match="without its photos, fewer than two classes"):
            start(folder=Path("flat"))
        assert not TABLE.exists()

    def test_it_is_written_only_when_all_else_is_right(self, folder, start):
        for name, message in [
            ("data/photos/train/nat", "is no folder; allowed: a folder of data.archive"),
            ("data/photos/train/ant/00.png", "is no folder"),
            ("data/labels", "is not in data.archive"),
        ]:
            with pytest.raises(FieldguideError, match=message):
                start(folder=Path(name))
        Path("plots/audit.csv").unlink()
        with pytest.raises(FieldguideError, match=r"plots/audit.csv: does not exist"):
            start()
        assert not TABLE.exists()

    @pytest.mark.parametrize("change", ["other splits", "other photos"])
    def test_one_of_an_earlier_review_must_fit(self, change, folder, start, make_photos, pack):
        start()
        if change == "other splits":
            TABLE.write_text(
                TABLE.read_text().replace("train/ant/00.png,ant,train", "train/ant/00.png,ant,test")
            )
            message = "train/ant/00.png has the split test; in data/prepared it has train"
        else:
            pack(folder / "flat", make_photos(classes=["cat", "dog"], each=12))
            write_params(archive="flat")
            run_prepare()
            message = "no file of its 75 rows"
        before = TABLE.read_bytes()
        with pytest.raises(FieldguideError, match=f"(?s){message}.*delete it: `fieldguide review`"):
            start()
        assert TABLE.read_bytes() == before
        TABLE.unlink()
        write_audit([])
        start()

    def test_class_names_are_tidied_and_twins_are_refused(self, folder, start):
        for place in Path("data/photos").glob("*/crab"):
            place.rename(place.with_name("big  crab"))
        start()
        assert {row["label"] for row in rows_of_table().values()} == {"ant", "bee", "big crab"}
        TABLE.unlink()
        ant = Path("data/photos/train/ant")
        for k, name in enumerate(("\u00e9.png", "e\u0301.png")):
            ant.joinpath(f"0{k}.png").rename(ant / name)
        with pytest.raises(FieldguideError, match="whose accents are stored in different ways"):
            start()
        assert not TABLE.exists()

    def test_one_in_the_archive_must_be_copied(self, folder, start, make_photos, pack):
        photos = make_photos(each=20)
        table = "file,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in photos)
        pack(folder / "flat.zip", photos | {"labels.csv": table.encode()})
        write_params(archive="flat.zip", labels="labels.csv")
        run_prepare()
        with pytest.raises(FieldguideError, match=r"copy it to data/labels/labels.csv"):
            start()

    def test_a_name_that_no_table_can_hold(self, folder, start):
        Path("data/photos/train/ant/00.png").rename("data/photos/train/ant/0\n0.png")
        with pytest.raises(FieldguideError, match=r"'train/ant/0\\n0.png' cannot be a name"):
            start()
        assert not TABLE.exists()


class TestAuditQueue:
    """Photos that the audit suspects."""

    def test_test_photos_are_not_shown_whatever_the_audit_says(self, folder, start):
        photos = ["val/ant/00.png", "train/bee/01.png", "val/bee/02.png", "train/ant/01.png"]
        write_audit([(name, "train", name.split("/")[1], "crab") for name in photos])
        session = start()
        assert names(session) == ["train/bee/01.png", "train/ant/01.png"]
        assert session.queue.items[0].suggested == "crab"
        assert session.queue.items[0].reasons == ["label: odd one"]

    def test_a_split_that_prepare_drew_is_known_from_the_store(
        self, folder, start, make_photos, pack
    ):
        pack(folder / "flat.zip", make_photos(each=20))
        write_params(archive="flat.zip")
        split_of = {name: split for name, (split, _) in run_prepare().items()}
        write_audit([(name, "train", name.split("/")[0], "") for name in split_of])
        assert set(names(start())) == {name for name, split in split_of.items() if split != "test"}

    def test_photos_that_the_archive_does_not_have_are_passed_over(self, folder, start):
        write_audit([("no.png", "train", "ant", ""), ("train/ant/01.png", "train", "ant", "")])
        assert names(start()) == ["train/ant/01.png"]

    def test_doubts_about_one_photo_are_shown_together(self, folder, start):
        row = ("train/ant/01.png", "train", "ant")
        write_audit([(*row, ""), (*row, "bee")])
        (item,) = start().queue.items
        assert len(item.reasons) == 2
        assert item.suggested == "bee"

    def test_the_second_photo_of_a_pair_of_copies_gets_the_class_of_the_first(self, folder, start):
        ant, bee = "train/ant/01.png", "train/bee/01.png"
        write_audit([(ant, "left out", "ant", "bee", bee), (bee, "left out", "bee", "ant", ant)])
        session = start()
        first, second = session.queue.items
        assert (session.suggestion(first), session.suggestion(second)) == ("bee", "ant")
        decide(session, 0, "bee")
        assert session.suggestion(second) == "bee"
        session.undo()
        decide(session, 0, "")
        assert session.suggestion(second) == ""

    def test_without_an_audit(self, folder, start):
        Path("plots/audit.csv").unlink()
        with pytest.raises(FieldguideError, match=r"plots/audit.csv: does not exist; run `field"):
            start()
        Path("plots/audit.csv").write_text("file,kind\na,b\n")
        with pytest.raises(FieldguideError, match="found columns file, kind; allowed: file, split"):
            start()


def test_test_photos_come_in_the_same_random_order_without_opinions(folder, start):
    first, second = (start(lambda project: random_test_queue(project, 0)) for _ in range(2))
    assert names(first) == names(second) != sorted(names(first))
    assert sorted(names(first)) == [
        f"val/{label}/{k:02d}.png" for label in ("ant", "bee", "crab") for k in range(5)
    ]
    assert {(item.suggested, len(item.reasons)) for item in first.queue.items} == {("", 0)}


class TestDecisions:
    """Decisions, skips and undo."""

    def test_prepare_uses_exactly_the_decisions(self, folder, start):
        start()
        write_params(labels=str(TABLE))
        before = run_prepare()
        lines = TABLE.read_text().splitlines()
        session = start()
        decide(session, 0, "bee")  # train/ant/00.png
        decide(session, 1, "ant")  # right as it was
        decide(session, 2, "")
        decide(session, 3, "crab")
        assert session.undo() == ([3], 0)
        changed = [
            new
            for old, new in zip(lines, TABLE.read_text().splitlines(), strict=True)
            if old != new
        ]
        assert [line.split(",")[:4] for line in changed] == [
            ["train/ant/00.png", "bee", before["train/ant/00.png"][0], "Ann"],
            ["train/ant/01.png", "ant", before["train/ant/01.png"][0], "Ann"],
            ["train/ant/02.png", "", before["train/ant/02.png"][0], "Ann"],
        ]
        assert all(line.split(",")[4].endswith("Z") for line in changed)
        after = run_prepare()
        del before["train/ant/02.png"]
        split, _ = before["train/ant/00.png"]
        assert after == before | {"train/ant/00.png": (split, "bee")}

    def test_skipped_photos_come_last(self, folder, start):
        session = start()
        every = names(session)
        decide(session, 0, "bee")
        session.skip(1)
        session.skip(2)
        expected = [*every[3:], every[1], every[2]]
        assert names(session) == expected
        assert session.undo() == ([2], 0)
        assert names(session) == [every[2], *every[3:], every[1]]
        assert [session.undo() for _ in range(3)] == [([1], 0), ([0], 0), ([], 0)]
        assert names(session) == every

    def test_the_last_training_photo_of_a_class(self, folder, start, make_photos, pack):
        photos = make_photos("train", each=4, seed=0) | make_photos("val", each=2, seed=1)
        pack(folder / "small", photos)
        write_params(archive="small", near_copies=False)
        split_of = {name: split for name, (split, _) in run_prepare().items()}
        ants = [name for name in photos if "/ant/" in name and split_of[name] == "train"]
        write_audit([(name, "train", "ant", "bee") for name in ants])
        session = start()
        assert session.warnings() == []
        for k in range(len(ants)):
            decide(session, k, "bee")
        warning = "Class 'ant' has 0 training photos: `prepare` needs 1 or more."
        assert session.warnings() == start().warnings() == [warning]
        write_params(archive="small", near_copies=False, labels=str(TABLE))
        message = "class 'ant' has 3 photos for validation or test and none for training"
        with pytest.raises(FieldguideError, match=message):
            run_prepare()
        assert session.undo() == ([len(ants) - 1], 0)
        assert session.warnings() == []
        run_prepare()

    def test_by_class(self, folder, start):
        session = start()
        assert session.waiting().by_class == {"ant": 20, "bee": 20, "crab": 20}
        assert {names(session)[k].split("/")[1] for k in session.waiting("bee").items} == {"bee"}

    def test_two_reviewers_on_one_table(self, folder, start):
        ann, bob = start(), start(reviewer="Bob")
        seen = bob.project.decision(bob.queue.items[0].photo)
        decide(ann, 0, "bee")
        assert bob.decide([(0, "crab", seen)]) == [0]
        assert bob.waiting().items[0] == 1
        decide(bob, 1, "crab")
        assert ann.waiting().items[0] == 2
        rows = rows_of_table()
        found = [
            (rows[f"train/ant/0{k}.png"]["label"], rows[f"train/ant/0{k}.png"]["reviewed_by"])
            for k in (0, 1)
        ]
        assert found == [("bee", "Ann"), ("crab", "Bob")]


@pytest.fixture
def classifier(make_classifier):
    return make_classifier(["ant", "bee", "crab"])


@pytest.fixture(scope="session")
def make_classifier(tmp_path_factory):
    from bundles import bundle_of  # noqa: PLC0415 - imports PyTorch

    from fieldguide.inference.torch_classifier import TorchClassifier  # noqa: PLC0415
    from fieldguide.network.bundle import save_bundle  # noqa: PLC0415

    def make(classes):
        folder = tmp_path_factory.mktemp("classifier") / "classifier"
        save_bundle(bundle_of(classes), folder)
        return TorchClassifier(folder, "cpu")

    return make


class TestFolderQueue:
    """Photos without a class, the least certain first."""

    @pytest.fixture
    def unlabelled(self, folder, start, make_photos, pack):
        """A folder of the archive with 12 photos, two of them the same, and one broken."""
        start()  # makes the table
        write_params(labels=str(TABLE))
        photos = make_photos("", ["new"], each=12, seed=7, pixels=40)
        photos["new/copy.png"] = photos["new/03.png"]
        photos["new/broken.png"] = b"no photo"
        pack(folder / "data" / "photos", photos)
        return folder / "data" / "photos" / "new"

    def test_the_least_certain_first_and_no_two_alike(self, unlabelled, start, classifier):
        session = start(lambda project: folder_queue(project, classifier, Path("data/photos/new")))
        found = names(session)
        assert len(found) == len(set(found)) == 12
        assert ("new/copy.png" in found) != ("new/03.png" in found)
        assert "Not shown: 1 look like one of them, 1 cannot be read." in session.queue.why
        margins = []
        for name in found:
            first, second = classifier.predict(Path("data/photos", name)).top(2).values()
            margins.append(first - second)
        assert margins == pytest.approx(sorted(margins))
        item = session.queue.items[0]
        assert item.suggested == classifier.predict(Path("data/photos", found[0])).label

    def test_a_decision_adds_a_training_row_and_a_new_session_goes_on(
        self, unlabelled, start, classifier
    ):
        def make_queue(project):
            return folder_queue(project, classifier, unlabelled)

        before = TABLE.read_text()
        session = start(make_queue)
        every = names(session)
        decide(session, 0, "crab")
        decide(session, 1, "")
        added = TABLE.read_text().removeprefix(before).splitlines()
        assert [line.rsplit(",", 1)[0] for line in added] == [
            f"{every[0]},crab,train,Ann",
            f"{every[1]},,train,Ann",
        ]
        assert run_prepare()[every[0]] in [("train", "crab"), ("val", "crab")]
        again = start(make_queue)
        assert names(again) == every[2:]
        assert again.waiting().total == 12

    def test_a_limit(self, unlabelled, start, classifier):
        session = start()
        members = [photo.member for photo in session.project.photos_in(unlabelled)]
        found, _ = least_certain(classifier, session.project.archives, members, most=3)
        assert len(found) == 3

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("data/photos/train", "all 60 photos have a class"),
            ("data/photos/val", "no photo in it that may be reviewed"),
            ("elsewhere", r"not in data.archive.*set data.archive: \[data/photos, elsewhere\]"),
            ("none", "none: is no folder"),
        ],
    )
    def test_refused(self, name, message, unlabelled, start, classifier):
        shutil.copytree(unlabelled, "elsewhere")
        with pytest.raises(FieldguideError, match=message):
            start(lambda project: folder_queue(project, classifier, Path(name)))

    def test_folders_of_splits_need_a_column_for_new_photos(self, unlabelled, start, classifier):
        lines = TABLE.read_text().splitlines()
        TABLE.write_text("".join(",".join(line.split(",")[:2]) + "\n" for line in lines))
        with pytest.raises(FieldguideError, match="has no column split"):
            start(lambda project: folder_queue(project, classifier, unlabelled))


def test_the_command_names_what_is_wrong(folder):
    from here import fieldguide_here  # noqa: PLC0415

    for arguments, message in [
        (["--split", "val"], "fieldguide: --split: found val; allowed: test"),
        (["data/photos", "--split", "test"], "--split test: found data/photos; allowed: without"),
        (["--reviewer", " "], "--reviewer: found ''; allowed: a name"),
    ]:
        done = fieldguide_here("review", *arguments, cwd=folder)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    shutil.rmtree("data/prepared")
    done = fieldguide_here("review", "--reviewer", "Ann", cwd=folder)
    assert "not a prepared store" in done.stderr
    assert "`dvc checkout prepare` brings back" in done.stderr
    assert yaml.safe_load(Path("params.yaml").read_text())["data"]["labels"] == "none"
