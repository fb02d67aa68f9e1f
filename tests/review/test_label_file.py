"""A decision changes one row of a table, whatever the table looks like, and no other byte."""

import multiprocessing
import threading
from pathlib import Path

import pytest

from fieldguide.core.errors import FieldguideError
from fieldguide.review import label_file
from fieldguide.review.label_file import Choice, Decision, LabelFile, parse_table

ANN = Decision("bee", "Ann", "2026-11-29T12:00:00Z")
PLAIN = "file,label,reviewed_by,reviewed_at\na.jpg,ant,,\nb.jpg,ant,,\n"


@pytest.fixture
def opened(tmp_path):
    """Opens a table with some content."""

    def go(data, name="labels.csv"):
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return LabelFile(path, tmp_path / "lock")

    return go


def decide(labels, name, decision=ANN, split=""):
    change, refused = labels.decide(
        [Choice((name,), decision, labels.parsed.decision((name,)), split)]
    )
    assert refused == []
    return change


def wide(text, mark=b"\xff\xfe"):
    return mark + text.encode("utf-16-le")


@pytest.mark.parametrize(
    ("table", "name", "after"),
    [
        pytest.param(PLAIN, "labels.csv", "a.jpg,bee,Ann,2026-11-29T12:00:00Z\n", id="plain"),
        pytest.param(
            'reviewed_at;"label";reviewed_by;file;note\r\n;" ant";;"a.jpg";"x;""y"""\r\n'
            ";ant;;b.jpg;\r\n",
            "labels.csv",
            '2026-11-29T12:00:00Z;bee;Ann;"a.jpg";"x;""y"""\r\n',
            id="semicolons",
        ),
        pytest.param(
            '"file","label","reviewed_by","reviewed_at"\n"a.jpg","ant","",""\n"b.jpg","ant","",""\n',
            "labels.csv",
            '"a.jpg","bee","Ann","2026-11-29T12:00:00Z"\n',
            id="all-in-quotes",
        ),
        pytest.param(
            "sep=;\nfile;label;reviewed_by;reviewed_at\n\na.jpg;ant;;\nb.jpg;ant;;\n",
            "labels.csv",
            "a.jpg;bee;Ann;2026-11-29T12:00:00Z\n",
            id="for-excel",
        ),
        pytest.param(
            'note,file,label,reviewed_by,reviewed_at\n"two\nlines",a.jpg,ant,,\nx,b.jpg,ant,,',
            "labels.csv",
            '"two\nlines",a.jpg,bee,Ann,2026-11-29T12:00:00Z\n',
            id="a-line-end-in-quotes",
        ),
        pytest.param(
            PLAIN.replace(",", "\t"),
            "labels.tsv",
            "a.jpg\tbee\tAnn\t2026-11-29T12:00:00Z\n",
            id="tabs",
        ),
    ],
)
@pytest.mark.parametrize(
    "encoded", [str.encode, lambda text: b"\xef\xbb\xbf" + text.encode(), wide]
)
def test_one_decision_changes_one_row_and_undo_gives_it_back(table, name, after, encoded, opened):
    data = encoded(table)
    labels = opened(data, name)
    before = next(text for text in labels.refresh().texts if "a.jpg" in text)
    change = decide(labels, "a.jpg")
    assert labels.path.read_bytes() == encoded(table.replace(before, after))
    assert labels.parsed.decision(("a.jpg",)) == ANN
    labels.undo(change)
    assert labels.path.read_bytes() == data


def test_a_table_without_the_columns_gets_them_once(opened):
    table = 'file,label,site,,\r\n"a, 1.jpg",ant,"x",,\r\n\r\nb.jpg,"ant",y\r\n'
    labels = opened(table)
    assert labels.path.read_bytes().decode() == table  # until the review begins
    assert labels.start()
    expected = (
        'file,label,site,reviewed_by,reviewed_at\r\n"a, 1.jpg",ant,"x",,\r\n\r\nb.jpg,"ant",y,,\r\n'
    )
    assert labels.path.read_bytes().decode() == expected
    again = LabelFile(labels.path, labels.path.with_name("lock"))
    assert not again.start()
    assert labels.path.read_bytes().decode() == expected


def test_a_photo_without_a_row_gets_one_and_undo_takes_it_away(opened):
    table = "file,label,split,reviewed_by,reviewed_at\r\na.jpg,ant,train,,\r\n"
    labels = opened(table)
    change = decide(labels, 'new, "1".jpg', split="train")
    row = '"new, ""1"".jpg",bee,train,Ann,2026-11-29T12:00:00Z\r\n'
    assert labels.path.read_bytes().decode() == table + row
    assert labels.parsed.decision(('new, "1".jpg',)) == ANN
    labels.undo(change)
    assert labels.path.read_bytes().decode() == table
    assert labels.parsed.decision(('new, "1".jpg',)) == Decision()
    decide(labels, 'new, "1".jpg', split="train")
    assert labels.path.read_bytes().decode() == table + row


def test_a_last_row_without_a_line_end_gets_one_before_a_new_row(opened):
    labels = opened(PLAIN.removesuffix("\n"))
    decide(labels, "c.jpg")
    assert labels.path.read_text() == PLAIN + "c.jpg,bee,Ann,2026-11-29T12:00:00Z\n"


def test_undo_of_a_last_row_that_has_got_a_line_end(opened):
    labels = opened(PLAIN.removesuffix("\n"))
    changes = [decide(labels, name) for name in ("b.jpg", "c.jpg")]
    assert [labels.undo(change) for change in reversed(changes)] == [0, 0]
    assert labels.path.read_text() == PLAIN
    labels = opened(PLAIN.removesuffix("\n"))
    choices = [Choice(("b.jpg",), ANN, Decision("ant")), Choice(("c.jpg",), ANN, Decision())]
    change, _ = labels.decide(choices)
    assert labels.undo(change) == 0
    assert labels.path.read_text() == PLAIN


@pytest.mark.parametrize(("old", "new"), [("\n", "\r\n"), ("\r\n", "\n")])
def test_undo_after_an_editor_has_changed_the_line_ends(old, new, opened):
    table = 'note,file,label,reviewed_by,reviewed_at\n"two\nlines",a.jpg,ant,,\nx,b.jpg,ant,,\n'
    labels = opened(table.replace("\n", old))
    change = decide(labels, "a.jpg")
    labels.path.write_bytes(labels.path.read_bytes().replace(old.encode(), new.encode()))
    assert labels.undo(change) == 0
    back = labels.path.read_bytes().decode()
    assert back.replace("\r\n", "\n") == table


def test_rows_that_repeat_each_other_are_changed_together(opened):
    table = PLAIN + "./a.jpg,ant,,\na.jpg,ant,,\n"
    labels = opened(table)
    change, _ = labels.decide([Choice(("a.jpg", "./a.jpg"), ANN, Decision("ant"))])
    assert labels.path.read_text().count(",bee,Ann,") == 3
    labels.undo(change)
    assert labels.path.read_text() == table


def test_what_somebody_else_has_decided_stays(opened):
    ann = opened(PLAIN)
    bob = LabelFile(ann.path, ann.path.with_name("lock"))
    change = decide(ann, "a.jpg")
    theirs = Decision("crab", "Bob", "2026-11-29T12:00:01Z")
    assert bob.decide([Choice(("a.jpg",), theirs, Decision("ant"))]) == ([], [0])
    assert bob.parsed.decision(("a.jpg",)) == ANN
    decide(bob, "b.jpg", theirs)
    ann.undo(change)  # another row has changed meanwhile
    assert ann.path.read_text() == PLAIN.replace(
        "b.jpg,ant,,", "b.jpg,crab,Bob,2026-11-29T12:00:01Z"
    )
    change = decide(ann, "a.jpg")
    decide(bob, "a.jpg", theirs)
    assert ann.undo(change) == 1
    assert ann.parsed.decision(("a.jpg",)) == theirs


def test_decisions_that_are_written_together_are_undone_together(opened):
    labels = opened(PLAIN)
    choices = [Choice((name,), ANN, Decision("ant")) for name in ("a.jpg", "b.jpg")]
    new = Choice(("c.jpg",), ANN, Decision())
    change, refused = labels.decide([choices[0], choices[1]._replace(seen=ANN), new])
    assert refused == [1]
    rows = ["a.jpg,bee,Ann,2026-11-29T12:00:00Z", "b.jpg,ant,,"]
    rows.append("c.jpg,bee,Ann,2026-11-29T12:00:00Z")
    assert labels.path.read_text().splitlines()[1:] == rows
    assert labels.undo(change) == 0
    assert labels.path.read_text() == PLAIN


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(PLAIN.replace("b.jpg", '"b.jpg'), id="a-quote"),
        pytest.param(
            "reviewed_at,reviewed_by,label,file\n,,ant,a.jpg\n,,b.jpg\n", id="other-columns"
        ),
        pytest.param("file,label\na.jpg,ant\n", id="lost-columns"),
    ],
)
def test_a_table_that_is_broken_and_mended_again_loses_nothing(broken, opened):
    labels = opened(PLAIN)
    labels.path.write_text(broken)
    with pytest.raises(FieldguideError):
        labels.decide([Choice(("a.jpg",), ANN, Decision("ant"))])
    assert labels.path.read_text() == broken
    labels.path.write_text(PLAIN)
    decide(labels, "a.jpg")
    row = "a.jpg,bee,Ann,2026-11-29T12:00:00Z"
    assert labels.path.read_text() == PLAIN.replace("a.jpg,ant,,", row)


def test_a_link_stays_one_and_its_table_changes(opened, tmp_path):
    table = opened(PLAIN, "shared.csv").path
    link = tmp_path / "link.csv"
    link.symlink_to(table.name)
    decide(LabelFile(link, tmp_path / "lock"), "a.jpg")
    assert link.is_symlink()
    assert "a.jpg,bee,Ann" in table.read_text()


def test_every_account_may_open_the_lock(opened, tmp_path):
    decide(opened(PLAIN), "a.jpg")
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666


def _decide_all(path, numbers, who):
    labels = LabelFile(path, path.with_name("lock"))
    for number in numbers:
        decide(labels, f"{number}.jpg", Decision("bee", who, "2026-11-29T12:00:00Z"))


def test_two_programs_at_once_lose_no_decision(opened):
    rows = "".join(f"{number}.jpg,ant,,\n" for number in range(200))
    path = opened("file,label,reviewed_by,reviewed_at\n" + rows).path
    spawn = multiprocessing.get_context("spawn")
    both = [
        spawn.Process(target=_decide_all, args=(path, range(start, 200, 2), who))
        for start, who in enumerate(("Ann", "Bob"))
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    expected = [f"{k}.jpg,bee,{('Ann', 'Bob')[k % 2]},2026-11-29T12:00:00Z" for k in range(200)]
    assert path.read_text().splitlines()[1:] == expected


def test_a_slow_reader_does_not_bring_back_an_older_table(opened, monkeypatch):
    one = opened(PLAIN)
    two = LabelFile(one.path, one.path.with_name("lock"))
    one.path.write_text(PLAIN + "\n")  # so that it is parsed again
    parsing, may_go_on = threading.Event(), threading.Event()

    def slow(name, data):
        parsed = parse_table(name, data)
        if threading.current_thread() is reader:
            parsing.set()
            may_go_on.wait(1)
        return parsed

    monkeypatch.setattr(label_file, "parse_table", slow)
    reader = threading.Thread(target=one.refresh)
    reader.start()
    assert parsing.wait(60)
    decide(two, "a.jpg")
    assert one.refresh().decision(("a.jpg",)) == ANN
    may_go_on.set()
    reader.join(60)
    assert one.parsed.decision(("a.jpg",)) == ANN
    decide(one, "b.jpg")
    assert one.path.read_text().count(",bee,Ann,") == 2


def _decide_and_tell(path, numbers, told):
    labels = LabelFile(path, path.with_name("lock"))
    for number in numbers:
        decide(labels, f"{number}.jpg")
        told.send(number)


@pytest.mark.parametrize("count", [1, 7, 20])
def test_a_killed_program_loses_no_decision_and_leaves_a_whole_table(count, opened):
    rows = "".join(f"{number}.jpg,ant,,\n" for number in range(5000))
    path = opened("file,label,reviewed_by,reviewed_at\n" + rows).path
    spawn = multiprocessing.get_context("spawn")
    told, tell = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_decide_and_tell, args=(path, range(5000), tell))
    process.start()
    for number in range(count):
        assert told.poll(60)
        assert told.recv() == number
    process.kill()
    process.join(60)
    lines = path.read_text().splitlines()[1:]
    decided = sum(",bee," in line for line in lines)
    assert count <= decided < 5000
    assert lines == [
        f"{k}.jpg,bee,Ann,2026-11-29T12:00:00Z" if k < decided else f"{k}.jpg,ant,,"
        for k in range(5000)
    ]
    decide(LabelFile(path, path.with_name("lock")), "4999.jpg")  # the lock is free


class TestRefused:
    """Nothing is written, and the message says what is wrong."""

    def test_a_full_disk_leaves_the_table_as_it_was(self, opened):
        labels = opened(PLAIN)
        labels.path.with_name(".labels.csv.partial").symlink_to("/dev/full")
        with pytest.raises(FieldguideError, match=r"labels.csv: cannot be written \(No space"):
            decide(labels, "a.jpg")
        assert labels.path.read_text() == PLAIN
        decide(labels, "a.jpg")  # it can be tried again
        assert labels.parsed.decision(("a.jpg",)) == ANN

    def test_a_table_that_may_not_be_written(self, opened):
        labels = opened(PLAIN)
        labels.path.chmod(0o444)  # also for root: DVC protects the files of its cache so
        with pytest.raises(FieldguideError, match="may not be written; allow it"):
            decide(labels, "a.jpg")
        assert labels.path.read_text() == PLAIN

    def test_a_name_that_the_encoding_lacks(self, opened):
        labels = opened((PLAIN + "c.jpg,Käfer,,\n").encode("cp1252"))
        with pytest.raises(
            FieldguideError, match=r"\(cp1252\) has no '見'; save the table as UTF-8"
        ):
            decide(labels, "a.jpg", Decision("ant", "見", "2026-11-29T12:00:00Z"))

    def test_a_table_that_is_gone(self, opened):
        labels = opened(PLAIN)
        labels.path.unlink()
        with pytest.raises(FieldguideError, match=r"labels.csv: cannot be read \(No such file"):
            decide(labels, "a.jpg")

    def test_a_table_that_has_lost_its_columns(self, opened):
        labels = opened(PLAIN)
        labels.path.write_text("file,label\na.jpg,ant\n")
        with pytest.raises(FieldguideError, match="has lost its columns reviewed_by"):
            decide(labels, "a.jpg")

    @pytest.mark.parametrize(
        ("table", "name", "message"),
        [
            ("[]", "labels.json", "allowed for a review: .csv .tsv .txt"),
            ("", "labels.csv", "no header"),
            ("file,label\na.jpg\n", "labels.csv", "row 2: 1 fields; the header has 2"),
            ("file,label\na.jpg,ant,old,\n", "labels.csv", "row 2: 4 fields; the header has 2"),
            ('file,label\n"a"b,c\n', "labels.csv", "row 2: ',' expected after '\"'"),
            ("file,site\na.jpg,x\n", "labels.csv", "no column with the classes"),
        ],
    )
    def test_a_table_that_cannot_be_read(self, table, name, message, opened, tmp_path):
        with pytest.raises(FieldguideError, match=message):
            opened(table, name)
        assert Path(tmp_path, name).read_text() == table
