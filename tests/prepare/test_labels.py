"""A table of classes gives the same store as folders, and its faults are named by their rows."""

import csv
import io
import json

import pytest

from fieldguide.core.errors import ArchiveError
from fieldguide.core.store import SPLITS, Store
from fieldguide.prepare.prepare import prepare

CLASSES = ("ant", "bee", "crab")


@pytest.fixture
def run(tmp_path, make_params, pack, monkeypatch):
    """Prepare photos by a table; return the files of the store."""
    monkeypatch.chdir(tmp_path)

    def go(photos, name="labels.csv", table=b"", *, target="prepared", inside=False, **changes):
        files = {**photos, name: table} if inside else photos
        archive = pack(tmp_path / "photos.zip", files)
        if not inside:
            (tmp_path / name).write_bytes(table)
        data = {"archive": str(archive), "image_size": 16, "labels": name, **changes}
        go.prepared = prepare(
            make_params(data=data, model={"conv_layers": 2}).data, tmp_path / target
        )
        return {file.name: file.read_bytes() for file in (tmp_path / target).iterdir()}

    return go


def rows_of(photos, split_of=None):
    """Return file, class and split of photos in class folders."""
    rows = []
    for name in photos:
        *above, label, _ = name.split("/")
        rows.append((name, label, (split_of or {}).get("".join(above), "train")))
    return rows


def csv_of(rows, header=("file_name", "label"), delimiter=",", encoding="utf-8"):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([header, *(row[: len(header)] for row in rows)])
    return file.getvalue().encode(encoding)


def json_lines_of(rows):
    lines = [json.dumps({"image": file, "class": label}) for file, label, *_ in rows]
    return "\n".join([*lines, ""]).encode()


def coco_of(rows):
    found = {
        "info": {"year": 2026},
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(CLASSES)],
        "images": [{"id": f"i{k}", "file_name": file} for k, (file, *_) in enumerate(rows)],
        "annotations": [
            {"id": k, "image_id": f"i{k}", "category_id": CLASSES.index(label) + 1}
            for k, (_, label, *_) in enumerate(rows)
        ],
    }
    return json.dumps(found).encode()


class TestSameStore:
    """Folders and every kind of table give the same bytes."""

    @pytest.mark.parametrize("top", ["", "top/deeper"])
    @pytest.mark.parametrize("inside", [False, True])
    def test_folders_csv_json_lines_and_coco(self, top, inside, run, make_photos, tmp_path):
        photos = make_photos(top, each=8)
        rows = [(file.removeprefix(f"{top}/"), *rest) for file, *rest in rows_of(photos)]
        expected = run(photos, "none")
        tables = {"a.csv": csv_of(rows), "a.jsonl": json_lines_of(rows), "a.json": coco_of(rows)}
        tables["a.tsv"] = csv_of(rows, delimiter="\t")
        for name, table in tables.items():
            place = f"{top}/{name}" if inside and top else name
            assert run(photos, place, table, inside=inside) == expected, name

    def test_split_folders_are_splits_and_so_is_a_column(self, run, make_photos, tmp_path):
        photos = {**make_photos("train", each=6), **make_photos("val", each=2, seed=1)}
        expected = run(photos, "none")
        assert run(photos, "a.csv", csv_of(rows_of(photos))) == expected
        rows = rows_of(photos, {"val": "test"})
        flat = {f"{k:03}.png": data for k, data in enumerate(photos.values())}
        given = [(name, *row[1:]) for name, row in zip(flat, rows, strict=True)]
        run(flat, "a.csv", csv_of(given, ("file", "label", "split")), target="flat")
        for split in SPLITS:
            labels = [
                Store(tmp_path / target).split(split).labels for target in ("flat", "prepared")
            ]
            assert labels[0].tolist() == labels[1].tolist()

    @pytest.mark.parametrize(
        "encode",
        [
            lambda rows: csv_of(rows, encoding="utf-8-sig"),
            lambda rows: csv_of(rows, delimiter=";", encoding="cp1252"),
            lambda rows: csv_of(rows, delimiter="\t", encoding="utf-16"),
            lambda rows: b"sep=;\r\n" + csv_of(rows, delimiter=";"),
            lambda rows: csv_of(rows).replace(b"\r\n", b"\r"),  # old macOS
            lambda rows: csv_of(rows).replace(b"\r\n", b",,\r\n"),  # columns that are empty
            lambda rows: b"\r\n" + csv_of(rows) + b",\r\n\r\n",
            lambda rows: csv_of([(file, f"\u200b {label}\u00a0") for file, label in rows]),
        ],
    )
    def test_a_table_as_a_spreadsheet_writes_it(self, encode, run, make_photos):
        photos = make_photos(classes=("Käfer", "bee"), each=5)
        rows = [(name, label) for name, label, _ in rows_of(photos)]
        assert run(photos, "a.csv", encode(rows)) == run(photos, "b.csv", csv_of(rows))

    def test_a_list_of_objects_and_other_values_of_an_image(self, run, make_photos):
        photos = make_photos(each=5)
        rows = rows_of(photos)
        entries = [{"file": file, "label": label, "image": {"w": 1}} for file, label, _ in rows]
        coco = json.loads(coco_of(rows))
        for image in coco["images"]:
            image |= {"label": 1.5, "path": None, "split": None, "license": [1]}
        expected = run(photos, "none")
        assert run(photos, "a.json", json.dumps(entries).encode()) == expected
        assert run(photos, "b.json", json.dumps(coco).encode()) == expected

    def test_a_table_in_each_split_as_hugging_face_has_them(self, run, make_photos):
        photos = {**make_photos("train", each=6), **make_photos("test", each=2, seed=1)}
        expected = run(photos, "none")
        flat, tables = {}, {"train": [("file_name", "label")], "test": [("file_name", "label")]}
        for name, label, _ in rows_of(photos):
            split, _, file = name.partition("/")
            flat[name] = photos[name]
            tables[split].append((file, label))
        for split, rows in tables.items():
            flat[f"{split}/metadata.csv"] = csv_of(rows[1:])
        assert run(flat, "x.csv", b"", labels="metadata.csv") == expected
        flat["test/metadata.csv"] = csv_of(tables["test"][1:]).replace(b"crab\r", b"Crab\r", 1)
        with pytest.raises(
            ArchiveError, match=r"test/metadata.csv, row 6: class 'Crab'; test/meta"
        ):
            run(flat, "x.csv", b"", labels="metadata.csv")

    def test_windows_paths_and_accents_of_two_kinds_are_the_same(self, run, make_photos):
        photos = make_photos(classes=("bee", "Ka\u0308fer"), each=4)
        rows = [(name.replace("/", "\\"), label) for name, label, _ in rows_of(photos)]
        expected = run(photos, "none")
        assert run(photos, "a.csv", csv_of(rows)) == expected
        assert "were tidied: row 6, row 7" in run.prepared.warnings[0]

    def test_spaces_around_a_class_are_tidied_and_named(self, run, make_photos):
        photos = make_photos(each=4)
        rows = [(name, label) for name, label, _ in rows_of(photos)]
        rows[2] = (rows[2][0], " ant ")
        assert run(photos, "a.csv", csv_of(rows)) == run(photos, "none")
        run(photos, "a.csv", csv_of(rows))
        assert run.prepared.warnings == [
            "a.csv: class names whose spaces or accents were tidied: row 4"
        ]

    def test_a_table_beside_archives_in_their_folder(self, run, make_photos, pack, tmp_path):
        (tmp_path / "both").mkdir()
        photos = {"a.zip": make_photos(each=5), "b.zip": make_photos(each=5, seed=1)}
        for name, files in photos.items():
            pack(tmp_path / "both" / name, files)
        rows = [
            (f"{a}/{file}", label)
            for a, files in photos.items()
            for file, label, _ in rows_of(files)
        ]
        (tmp_path / "both" / "labels.csv").write_bytes(csv_of(rows))
        archive = str(tmp_path / "both")
        folders = run({}, "none", archive=archive)
        assert b"labels.csv" in folders.pop("left_out.csv")
        found = run({}, "both/labels.csv", csv_of(rows), archive=archive)
        assert found.pop("left_out.csv").count(b"\n") == 1  # the header
        assert found == folders


class TestLeftOut:
    """What is left out and what is only said."""

    def test_everything_is_named(self, run, make_photos):
        photos = make_photos(each=6)
        rows = [(name, label) for name, label, _ in rows_of(photos)]
        rows[1] = (rows[1][0], "")
        rows.append(("gone.png", "ant"))
        del rows[12]
        rows.append(rows[3])
        photos["ant/raw.cr2"] = b"x"
        rows.append(("ant/raw.cr2", "ant"))
        found = run(photos, "a.csv", csv_of(rows), max_unreadable=0.2)
        assert [row[:4] for row in csv.reader(found["left_out.csv"].decode().splitlines())][1:] == [
            ["ant/01.png", "", "no class", "row 3: the class is empty"],
            ["ant/raw.cr2", "ant", "not a photo", ".cr2"],
            ["crab/00.png", "", "no class", "not in a.csv"],
            ["gone.png", "ant", "no such file", "row 19 of a.csv"],
        ]
        assert run.prepared.warnings == ["a.csv: rows that repeat another one: row 20 (row 5)"]

    def test_an_image_of_two_categories_is_left_out(self, run, make_photos):
        photos = make_photos(each=6)
        table = json.loads(coco_of(rows_of(photos)))
        table["annotations"].append({"image_id": "i0", "category_id": 2})
        table["annotations"].append({"image_id": "i1", "category_id": 1})  # a second ant
        del table["annotations"][2]
        found = run(photos, "a.json", json.dumps(table).encode())
        assert [row[:4] for row in csv.reader(found["left_out.csv"].decode().splitlines())][1:] == [
            ["ant/00.png", "", "no class", "image i0: 2 categories: ant, bee"],
            ["ant/02.png", "", "no class", "image i2: no annotation"],
        ]

    def test_classes_whose_files_are_all_missing_are_said(self, run, make_photos):
        rows = [(name, label) for name, label, _ in rows_of(make_photos(each=4))]
        photos = make_photos(classes=("ant", "bee"), each=4)
        run(photos, "a.csv", csv_of(rows), max_unreadable=1)
        assert run.prepared.warnings == ["a.csv: classes without any photo: crab"]


def planted(kind):
    """Return a table with a fault, and the message; its good rows are row 2 to row 19."""
    rows = [(f"{label}/{k:02}.png", label, "train") for label in CLASSES for k in range(6)]
    header = ("file_name", "label")
    whole = csv_of(rows).decode()
    last = whole.split("\r\n")[-2]
    line = json_lines_of(rows).decode().split("\n")
    coco = json.loads(coco_of(rows))
    split = csv_of(rows, (*header, "split")).decode()
    faults = {
        "empty": ("a.csv", "", "no row"),
        "no rows": ("a.csv", "file_name,label\n", "no row"),
        "no file column": (
            "a.csv",
            whole.replace("file_name", "nom"),
            "no column with the names of the photos; found: nom, label; allowed: file_name or",
        ),
        "no class column": (
            "a.csv",
            whole.replace("label", "etikett"),
            "no column with the classes; found: file_name, etikett; allowed: label or class",
        ),
        "two columns": ("a.csv", whole.replace("label", "File_Name"), "two columns 'File_Name'"),
        "too many fields": (
            "a.csv",
            whole.replace("bee/03.png", "bee,03.png"),
            "row 11: 3 fields; the header has 2",
        ),
        "too few fields": (
            "a.csv",
            whole.replace("ant/02.png,ant", "ant/02.png"),
            "row 4: 1 fields",
        ),
        "an open quote": (
            "a.csv",
            whole.replace("bee/03.png", '"bee/03.png'),
            "row 11: unexpected end of data",
        ),
        "an empty file": (
            "a.csv",
            whole.replace("crab/00.png,", ","),
            "row 14: file_name is empty",
        ),
        "two classes": (
            "a.csv",
            whole + "ant/00.png,bee\r\n",
            "row 20: ant/00.png: label 'bee'; row 2 has 'ant'",
        ),
        "upper case": (
            "a.csv",
            whole.replace(last, "crab/05.png,Crab"),
            "row 19: class 'Crab'; row 14 has 'crab'",
        ),
        "inner spaces": (
            "a.csv",
            whole.replace(last, "crab/05.png,cr ab"),
            "row 19: class 'cr ab'; row 14 has 'crab'",
        ),
        "missing files": ("a.csv", whole.replace("bee/0", "bee/9"), r"row 8: bee/90.png"),
        "no file at all": (
            "a.csv",
            whole.replace(".png", ".jpg"),
            "no file of its 18 rows, such as 'ant/00.jpg' (row 2), is in",
        ),
        "unknown split": (
            "a.csv",
            split.replace("bee/01.png,bee,train", "bee/01.png,bee,holdout"),
            "row 9: split 'holdout'; allowed: train, val, test",
        ),
        "two splits": (
            "a.csv",
            split + "bee/00.png,bee,val\r\n",
            "row 20: bee/00.png: split 'val'; row 8 has 'train'",
        ),
        "zero bytes": ("a.csv", whole.replace("label", "la\0bel"), "holds zero bytes"),
        "one class": (
            "a.csv",
            whole.replace("bee\r", "ant\r").replace("crab\r", "ant\r"),
            "found 1 class",
        ),
        "all raw": ("a.csv", whole + "x/1.cr2,raw\r\nx/2.cr2,raw\r\n", "row 20: x/1.cr2"),
        "not JSON": ("a.jsonl", "\n".join([*line[:4], "{'file': 1}", *line[4:]]), "line 5: "),
        "a list": ("a.jsonl", "\n".join(["[]", *line]), "line 1: found list; allowed: an object"),
        "a class of another type": (
            "a.jsonl",
            "\n".join([*line, '{"image": "x", "class": 1.5}']),
            "line 20: class: found 1.5; allowed: text",
        ),
        "no COCO": ("a.json", json.dumps({"images": []}), "not COCO JSON"),
        "broken JSON": ("a.json", "{", "not JSON"),
        "deep JSON": ("a.json", "[" * 100_000, "not JSON"),
        "no such category": (
            "a.json",
            json.dumps({**coco, "categories": coco["categories"][:2]}),
            "annotation of image i12: there is no category 3",
        ),
        "no such image": (
            "a.json",
            json.dumps({**coco, "images": coco["images"][1:]}),
            "annotation of image i0: there is no such image",
        ),
        "an image twice": (
            "a.json",
            json.dumps({**coco, "images": coco["images"] + coco["images"][:1]}),
            "image i0: id is there twice",
        ),
        "an image without a name": (
            "a.json",
            json.dumps({**coco, "images": [*coco["images"], {"id": 1}]}),
            "image 19: file_name: found null",
        ),
        "a category twice": (
            "a.json",
            json.dumps({**coco, "categories": [*coco["categories"], {"id": 1, "name": "dog"}]}),
            "category 1: id is there twice",
        ),
        "a key twice": (
            "a.jsonl",
            "\n".join([*line, '{"image": "x", "class": "a", "class": "b"}']),
            "line 20: the key 'class' is there twice",
        ),
        "half a character": (
            "a.jsonl",
            "\n".join([*line, '{"image": "x", "class": "\\ud800"}']),
            "line 20: class: '\\ud800' holds a control character",
        ),
        "one-letter columns": (
            "a.csv",
            whole.replace("label", "label,s,s").replace("png,", "png,1,2,"),
            "two columns 's'",
        ),
        "Shift-JIS": ("a.csv", whole.replace("crab", "\u3001"), "line 14 is neither"),
        "another format": (
            "a.xlsx",
            "PK",
            "data.labels: found a.xlsx; allowed: .csv .tsv .txt .jsonl",
        ),
    }
    return faults if kind is None else faults[kind]


@pytest.mark.parametrize("kind", planted(None))
def test_a_planted_fault_is_refused_with_its_row(kind, run, make_photos, tmp_path):
    name, table, message = planted(kind)
    photos = {**make_photos(each=6), "x/1.cr2": b"1", "x/2.cr2": b"2"}
    with pytest.raises(ArchiveError) as caught:
        run(photos, name, table.encode("cp932" if kind == "Shift-JIS" else "utf-8"))
    assert message in str(caught.value)
    assert name in str(caught.value)
    assert not (tmp_path / "prepared").exists()


def test_a_missing_table_is_refused(run, make_photos):
    message = "data.labels: b.csv: found neither in .*photos.zip nor in this project; allowed: none"
    with pytest.raises(ArchiveError, match=message):
        run(make_photos(), "x.csv", b"", inside=True, labels="b.csv")


def test_a_path_that_two_archives_have_needs_the_archive(run, make_photos, pack, tmp_path):
    (tmp_path / "both").mkdir()
    for name in ("a.zip", "b.zip"):
        pack(tmp_path / "both" / name, make_photos(each=5))
    rows = [(name, label) for name, label, _ in rows_of(make_photos(each=5))]
    with pytest.raises(ArchiveError, match=r"row 2: ant/00.png may be a.zip/ant/00.png and b.zip/"):
        run({}, "labels.csv", csv_of(rows), archive=str(tmp_path / "both"))
