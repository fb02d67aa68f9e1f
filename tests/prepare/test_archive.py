"""Archives of each kind give the same members; hostile and damaged ones are refused."""

import gzip
import io
import os
import random
import stat
import struct
import subprocess
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from fieldguide.core.errors import ArchiveError
from fieldguide.prepare import member as member_module
from fieldguide.prepare.archive import open_archive
from fieldguide.prepare.member import UnreadableMemberError, warn_of_names

KINDS = ["photos.zip", "photos.tar", "photos.tar.gz", "photos.tar.bz2", "photos.tar.xz", "photos"]
FILES = {
    "train/ant/1.jpg": b"one",
    "train/bee/two words.jpg": b"",
    "train/café/3.jpg": bytes(range(256)) * 20,
}
LEAVING = [
    "../x.jpg",
    "train/../../x.jpg",
    "/etc/x.jpg",
    "C:/x.jpg",
    "..\\x.jpg",
    "C:\\x.jpg",
    "\\\\server\\x.jpg",
]


def names_in(path):
    with open_archive(path) as archive:
        return [member.name for member in archive.members]


def read_all(path):
    with open_archive(path) as archive:
        return {member.name: archive.read(member) for member in archive.members}


def zip_info(path, change):
    """Write a zip with one stored member, after `change` has edited its entry."""
    info = zipfile.ZipInfo("train/ant/1.jpg")
    change(info)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, b"bytes of one photo")
    return path


def tar_info(path, **fields):
    """Write a tar with two members, the first of them with these fields."""
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("train/ant/1.jpg")
        for field, value in fields.items():
            setattr(info, field, value)
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("train/ant/2.jpg"))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_all_members_are_listed_and_read(kind, tmp_path, pack):
    path = pack(tmp_path / kind, FILES)
    assert read_all(path) == FILES
    with open_archive(path) as archive:
        assert {member.name: member.size for member in archive.members} == {
            name: len(data) for name, data in FILES.items()
        }


@pytest.mark.parametrize("kind", KINDS)
def test_several_threads_may_read_in_any_order(kind, tmp_path, pack):
    rng = random.Random(0)
    files = {f"a/{k}.jpg": rng.randbytes(rng.randrange(5000)) for k in range(60)}
    with open_archive(pack(tmp_path / kind, files)) as archive:
        members = rng.sample(archive.members * 3, 180)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(archive.read, members))
    assert found == [files[member.name] for member in members]


def test_the_content_decides_the_kind_not_the_name(tmp_path, pack):
    for kind in KINDS[:-1]:
        pack(tmp_path / kind, FILES).rename(tmp_path / "data")
        assert read_all(tmp_path / "data") == FILES


def test_a_zip_inside_a_tar_is_an_ordinary_member(tmp_path, pack):
    inner = pack(tmp_path / "inner.zip", {"other.jpg": b"x"}).read_bytes()
    files = {"train/ant/1.jpg": b"one", "extra.zip": inner}
    assert read_all(pack(tmp_path / "photos.tar", files)) == files


def test_two_members_with_one_name_keep_their_own_bytes(tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as packed:
        for data in (b"one", b"two"):
            info = tarfile.TarInfo("a.jpg")
            info.size = 3
            packed.addfile(info, io.BytesIO(data))
    with open_archive(tmp_path / "photos.tar") as archive:
        assert [archive.read(member) for member in archive.members] == [b"one", b"two"]


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "photos.zip")
    with pytest.raises(ArchiveError, match=r"photos\.zip is a device or pipe"):
        names_in(tmp_path / "photos.zip")


def test_a_missing_archive_is_named_with_advice(tmp_path):
    with pytest.raises(ArchiveError, match=r"data\.archive: .*no\.zip does not exist.*dvc pull"):
        names_in(tmp_path / "no.zip")


@pytest.mark.parametrize("data", [b"", b"a", b"no archive at all" * 1000, b"\xff\xd8\xff\xe0"])
def test_a_file_of_another_kind_is_refused(data, tmp_path):
    (tmp_path / "a.bin").write_bytes(data)
    with pytest.raises(ArchiveError, match=r"a\.bin: not an archive, or .*; allowed: a zip or tar"):
        names_in(tmp_path / "a.bin")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_cut_archive_is_refused(kind, share, tmp_path, pack):
    rng = random.Random(1)
    path = pack(tmp_path / kind, {f"a/{k}.jpg": rng.randbytes(9000) for k in range(9)})
    whole = path.read_bytes()
    if kind == "photos.tar":  # without the zero blocks at its end
        whole = whole[: 9 * (512 + 9216)]
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArchiveError, match=r"photos.* cut short"):
        names_in(path)


@pytest.mark.parametrize("place", [3 * 1024, 3 * 1024 + 100, 3 * 1024 + 511])
def test_a_tar_cut_between_or_in_headers_is_refused(place, tmp_path, pack):
    """It must not pass for a smaller data set: three of its five photos are complete."""
    path = pack(tmp_path / "photos.tar", {f"a/{k}.jpg": b"x" * 512 for k in range(5)})
    path.write_bytes(path.read_bytes()[:place])
    with pytest.raises(ArchiveError, match=r"photos\.tar"):
        names_in(path)


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_tar_with_a_damaged_header_is_refused(compress, tmp_path, pack):
    """It must not pass for a smaller data set."""
    path = pack(tmp_path / "photos.tar", {f"a/{k}.jpg": b"x" * 512 for k in range(5)})
    data = bytearray(path.read_bytes())
    data[2 * 1024 + 150] ^= 0xFF  # in the checksum of the third member
    path.write_bytes(compress(data))
    with pytest.raises(ArchiveError, match=r"photos\.tar"):
        names_in(path)


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("name", LEAVING)
def test_a_name_that_leaves_the_archive_is_refused(name, kind, tmp_path, pack):
    path = pack(tmp_path / kind, {"train/ant/1.jpg": b"x", name: b"x"})
    with pytest.raises(ArchiveError, match=r"leaves the archive; allowed: relative names"):
        names_in(path)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_backslashes_are_folders_in_a_name_without_slashes(kind, tmp_path, pack):
    path = pack(tmp_path / kind, {"train\\ant\\1.jpg": b"x", "a..b/c..\\d.jpg": b"y"})
    assert names_in(path) == ["train/ant/1.jpg", "a..b/c..\\d.jpg"]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_colon_in_a_name_is_a_letter_like_others(kind, tmp_path, pack):
    files = {"c: elegans/12:30.jpg": b"x", "b:1.jpg": b"y"}
    assert read_all(pack(tmp_path / kind, files)) == files


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "symbolic link.*--dereference"),
        ({"type": tarfile.LNKTYPE, "linkname": "train/ant/2.jpg"}, "hard link.*--hard-dereference"),
        ({"type": tarfile.CHRTYPE}, "device or special file.*pack only files"),
        ({"type": tarfile.BLKTYPE}, "device or special file"),
        ({"type": tarfile.FIFOTYPE}, "device or special file"),
        ({"type": b"D"}, "folder of an incremental backup.*plain `tar -cf`"),
        ({"type": b"V"}, "volume label.*without `--label`"),
        (
            {"pax_headers": {"GNU.sparse.size": "9", "GNU.sparse.map": "0,0"}},
            "sparse file.*without `--sparse`",
        ),
    ],
)
def test_special_members_of_a_tar_are_refused_with_the_cure(fields, message, tmp_path):
    path = tar_info(tmp_path / "photos.tar", **fields)
    with pytest.raises(ArchiveError, match=rf"'train/ant/1\.jpg' is a {message}"):
        names_in(path)


def test_a_sparse_file_that_gnu_tar_wrote_is_refused(tmp_path):
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(2**20)
    for version in ("gnu", "0.0", "0.1", "1.0"):
        options = ["--format=gnu"] if version == "gnu" else ["--format=posix"]
        options += [] if version == "gnu" else [f"--sparse-version={version}"]
        subprocess.run(
            ["tar", "--sparse", *options, "-cf", "photos.tar", "1.jpg"], cwd=tmp_path, check=True
        )
        with pytest.raises(ArchiveError, match=r"1\.jpg' is a sparse file"):
            names_in(tmp_path / "photos.tar")


@pytest.mark.parametrize(
    ("mode", "kind"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "folder, device or special file")]
)
def test_special_members_of_a_zip_are_refused_with_the_cure(mode, kind, tmp_path):
    def change(info):
        info.external_attr = (mode | 0o777) << 16

    path = zip_info(tmp_path / "photos.zip", change)
    with pytest.raises(ArchiveError, match=rf"'train/ant/1\.jpg' is a {kind}; .*`zip -r`"):
        names_in(path)


@pytest.mark.parametrize(("method", "name"), [(9, "Deflate64"), (98, "PPMd"), (77, "unknown")])
def test_a_zip_with_an_unknown_compression_is_refused_with_the_cure(method, name, tmp_path):
    path = zip_info(tmp_path / "photos.zip", lambda info: None)
    data = bytearray(path.read_bytes())
    for start in (data.index(b"PK\x03\x04") + 8, data.index(b"PK\x01\x02") + 10):
        struct.pack_into("<H", data, start, method)
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=rf"method {method} \({name}\); .*pack it again"):
        names_in(path)


def test_an_encrypted_zip_is_refused(tmp_path):
    path = zip_info(tmp_path / "photos.zip", lambda info: None)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # general purpose flag, bit 0
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match=r"'train/ant/1\.jpg' is encrypted; unpack it"):
        names_in(path)


@pytest.mark.parametrize("kind", ["photos.zip", "photos.tar.gz", "photos.tar.bz2", "photos.tar.xz"])
def test_a_bomb_is_refused_before_it_is_unpacked(kind, tmp_path, pack):
    path = pack(tmp_path / kind, {"a/1.jpg": b"x", "a/2.jpg": bytes(65 * 2**20)})
    with pytest.raises(ArchiveError, match=r"looks like a bomb: .*at 'a/2.jpg'.*200 times"):
        names_in(path)


def test_a_bomb_of_many_members_is_refused(tmp_path, pack):
    zeros = bytes(2**20)
    path = pack(tmp_path / "photos.zip", {f"a/{k}.jpg": zeros for k in range(65)})
    with pytest.raises(ArchiveError, match=r"looks like a bomb: .*at 'a/64.jpg'"):
        names_in(path)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_bomb_in_the_name_of_a_member_is_refused(kind, tmp_path):
    """tarfile reads a header of this kind into memory before it returns the member."""
    with tarfile.open(tmp_path / "photos.tar.gz", "w:gz") as packed:
        info = tarfile.TarInfo("name")
        info.type, info.size = kind, 65 * 2**20
        packed.addfile(info, io.BytesIO(bytes(info.size)))
        packed.addfile(tarfile.TarInfo("a/1.jpg"))
    with pytest.raises(ArchiveError, match="bomb"):
        names_in(tmp_path / "photos.tar.gz")


@pytest.mark.parametrize("kind", ["photos.zip", "photos.tar.gz"])
def test_a_small_archive_of_flat_drawings_is_no_bomb(kind, tmp_path, pack):
    files = {"a/1.jpg": bytes(2**20)}  # about 1,000 to 1
    assert read_all(pack(tmp_path / kind, files)) == files


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_larger_than_any_photo_is_unreadable(kind, tmp_path, pack, monkeypatch):
    monkeypatch.setattr(member_module, "MAX_PHOTO_BYTES", 10)
    with open_archive(pack(tmp_path / kind, {"a.jpg": b"x" * 10, "b.jpg": b"x" * 11})) as archive:
        assert archive.read(archive.members[0]) == b"x" * 10
        with pytest.raises(UnreadableMemberError, match="11 bytes; allowed: up to 10 a photo"):
            archive.read(archive.members[1])


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_zip_member_is_unreadable_and_the_others_are_fine(method, tmp_path):
    photo = random.Random(0).randbytes(4000)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", method) as packed:
        packed.writestr("a.jpg", photo)
        packed.writestr("b.jpg", photo)
    data = bytearray((tmp_path / "photos.zip").read_bytes())
    data[1000:1100] = bytes(100)
    (tmp_path / "photos.zip").write_bytes(data)
    with open_archive(tmp_path / "photos.zip") as archive:
        with pytest.raises(UnreadableMemberError, match="damaged in the archive"):
            archive.read(archive.members[0])
        assert archive.read(archive.members[1]) == photo


def test_a_zip_member_larger_than_it_declares_is_unreadable(tmp_path, pack):
    path = pack(tmp_path / "photos.zip", {"a.jpg": b"x" * 50})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 1)
    path.write_bytes(data)
    with (
        open_archive(path) as archive,
        pytest.raises(UnreadableMemberError, match="damaged in the archive"),
    ):
        archive.read(archive.members[0])


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_damage_to_a_zip_causes_no_other_error(method, tmp_path):
    rng = random.Random(0)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", method) as packed:
        for name in ("é/1.jpg", "é/2.jpg"):
            packed.writestr(name, rng.randbytes(40))
    whole = (tmp_path / "photos.zip").read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] = rng.randrange(256)
        (tmp_path / "photos.zip").write_bytes(data)
        try:
            with open_archive(tmp_path / "photos.zip") as archive:
                for member in archive.members:
                    archive.read(member)
        except (ArchiveError, UnreadableMemberError):
            continue


@pytest.mark.parametrize("kind", KINDS)
def test_what_cameras_systems_and_disks_leave_behind_is_skipped(kind, tmp_path, pack):
    hidden = [
        *(".DS_Store", "ant/.DS_Store", "ant/._1.jpg", "__MACOSX/ant/._1.jpg", ".git/ant/1.jpg"),
        *("__MACOSX/ant/1.jpg", "ant/.thumbnails/1.jpg", "ant/.jpg", "Thumbs.db", "ant/thumbs.db"),
        *("ant/desktop.ini", "ant/@eaDir/1.jpg/SYNO_1.jpg", "#recycle/ant/1.jpg", "lost+found/1"),
        *("$RECYCLE.BIN/1.jpg", ".Trash-1000/files/1.jpg", ".ipynb_checkpoints/1.jpg"),
    ]
    seen = ["ant/1.jpg", "Recycled/1.jpg", "ant/my Thumbs.db.jpg"]
    path = pack(tmp_path / kind, dict.fromkeys([*hidden, *seen], b"x"))
    assert sorted(names_in(path)) == sorted(seen)


def test_a_link_in_a_hidden_folder_does_not_matter(tmp_path):
    path = tar_info(
        tmp_path / "a.tar", name=".venv/python", type=tarfile.SYMTYPE, linkname="/usr/bin/python"
    )
    assert names_in(path) == ["train/ant/2.jpg"]


class TestHostileSizes:
    """Sizes that no archive program writes."""

    def tar_of(self, path, change, pax_headers=()):
        with tarfile.open(path, "w") as packed:
            info = tarfile.TarInfo("a/1.jpg")
            info.pax_headers = dict(pax_headers)
            packed.addfile(info)
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return path

    @pytest.mark.parametrize("headers", [{"size": "-5000"}, {"GNU.sparse.map": "1,x,3"}])
    def test_an_attribute_of_a_tar(self, headers, tmp_path):
        path = self.tar_of(tmp_path / "a.tar", lambda data: None, headers)
        with pytest.raises(ArchiveError, match=r"a\.tar"):
            names_in(path)

    def test_a_negative_number_in_a_header_of_a_tar(self, tmp_path):
        def change(data):
            data[124:136] = b"\xff" * 10 + b"\xfe\0"  # -512
            data[148:156] = b"%06o\0 " % (sum(data[:148]) + 8 * 32 + sum(data[156:512]))

        with pytest.raises(ArchiveError, match=r"'a/1\.jpg' has -512 bytes"):
            names_in(self.tar_of(tmp_path / "a.tar", change))

    def test_a_huge_packed_size_in_a_zip(self, tmp_path):
        path = zip_info(tmp_path / "a.zip", lambda info: None)
        data = bytearray(path.read_bytes())
        struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 20, 2**32 - 2)
        path.write_bytes(data)
        with (
            open_archive(path) as archive,
            pytest.raises(UnreadableMemberError, match="4,294,967,294 bytes; allowed"),
        ):
            archive.read(archive.members[0])


class TestNotTheWhole:
    """An archive of which only a part would be read is refused."""

    @pytest.mark.parametrize("kind", ["photos.tar.gz", "photos.tar.bz2", "photos.tar.xz"])
    @pytest.mark.parametrize("rest", [b"garbage", "more.tar", "more.zip", "more.tar.gz"])
    def test_other_data_after_a_compressed_tar(self, kind, rest, tmp_path, pack):
        more = rest if isinstance(rest, bytes) else pack(tmp_path / rest, FILES).read_bytes()
        path = pack(tmp_path / kind, FILES)
        path.write_bytes(path.read_bytes() + more)
        with pytest.raises(ArchiveError, match=r"photos\.tar"):
            names_in(path)

    @pytest.mark.parametrize("kind", ["photos.zip", "photos.tar", "photos.tar.gz", "photos.tar.xz"])
    def test_two_archives_joined(self, kind, tmp_path, pack):
        first = pack(tmp_path / kind, {"a/1.jpg": b"x"}).read_bytes()
        second = pack(tmp_path / kind, {"b/2.jpg": b"y"}).read_bytes()
        (tmp_path / kind).write_bytes(first + second)
        with pytest.raises(ArchiveError, match=r"joined by `cat`; unpack"):
            names_in(tmp_path / kind)

    def test_a_tar_after_a_zip(self, tmp_path, pack):
        tar = pack(tmp_path / "photos.tar", {"b/2.jpg": b"y"}).read_bytes()
        path = pack(tmp_path / "photos.zip", {"a/1.jpg": b"x"})
        path.write_bytes(path.read_bytes() + tar)
        with pytest.raises(ArchiveError, match=r"holds more than its directory lists"):
            names_in(path)

    def test_padding_is_allowed(self, tmp_path, pack):
        for kind in ("photos.zip", "photos.tar"):
            path = pack(tmp_path / kind, FILES)
            path.write_bytes(path.read_bytes() + bytes(40_000))
            assert read_all(path) == FILES

    def test_a_comment_of_a_zip_is_no_rest(self, tmp_path, pack):
        path = pack(tmp_path / "photos.zip", FILES)
        with zipfile.ZipFile(path, "a") as packed:
            packed.comment = b"made by hand PK"
        assert read_all(path) == FILES


class TestEncodingOfNames:
    """Names that say nothing about their encoding."""

    NAME = "fotos/caf\u00e9/1.jpg"

    def packed(self, path, raw, extra=b""):
        """Write a zip (without the flag for UTF-8) or a tar with one member of this raw name."""
        if path.suffix == ".tar":
            with tarfile.open(path, "w") as packed:
                packed.addfile(tarfile.TarInfo(raw.decode("utf-8", "surrogateescape")))
            return path
        info = zipfile.ZipInfo("x" * len(raw))
        info.extra = extra
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr(info, b"")
        path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
        return path

    @pytest.mark.parametrize("kind", ["photos.zip", "photos.tar"])
    def test_valid_utf8_is_utf8(self, kind, tmp_path):
        with open_archive(self.packed(tmp_path / kind, self.NAME.encode())) as archive:
            assert [member.name for member in archive.members] == [self.NAME]
            assert warn_of_names(archive.members) == []

    @pytest.mark.parametrize("raw", [NAME.encode("cp850"), b"fotos/caf?/1.jpg"])
    def test_a_zip_may_carry_the_name_in_utf8_beside_it(self, raw, tmp_path):
        """WinZip and Info-ZIP write this extra field."""
        field = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + self.NAME.encode()
        extra = struct.pack("<HH", 0x7075, len(field)) + field
        with open_archive(self.packed(tmp_path / "photos.zip", raw, extra)) as archive:
            assert [member.name for member in archive.members] == [self.NAME]
            assert warn_of_names(archive.members) == []

    @pytest.mark.parametrize("encoding", ["gbk", "shift-jis", "big5", "cp1251"])
    @pytest.mark.parametrize("kind", ["photos.zip", "photos.tar"])
    def test_another_encoding_keeps_names_apart_and_gives_a_warning(self, kind, encoding, tmp_path):
        word = {"gbk": "狗", "shift-jis": "ソース", "big5": "功", "cp1251": "чай"}[encoding]
        raw = b"fotos/" + word.encode(encoding) + b"/1.jpg"
        with open_archive(self.packed(tmp_path / kind, raw)) as archive:
            (member,) = archive.members
            assert member.name.encode("cp437") == raw
            (warning,) = warn_of_names(archive.members)
        assert "1 name is not in UTF-8 and read as CP437, such as 'fotos/" in warning


class TestFolder:
    """A folder is read in place."""

    def test_linked_files_are_read_and_linked_folders_are_refused(self, tmp_path, pack):
        cache = pack(tmp_path / "cache", {"1": b"one"})
        photos = pack(tmp_path / "photos", {"a/0.jpg": b"zero"})
        (photos / "a" / "1.jpg").symlink_to(cache / "1")
        assert read_all(photos) == {"a/0.jpg": b"zero", "a/1.jpg": b"one"}
        (photos / "loop").symlink_to(photos)
        with pytest.raises(ArchiveError, match="photos/loop: a link to a folder"):
            read_all(photos)

    def test_a_pipe_or_broken_link_is_unreadable_at_once(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.jpg")
        (tmp_path / "dangling.jpg").symlink_to("nowhere")
        (tmp_path / "loop.jpg").symlink_to("loop.jpg")
        with open_archive(tmp_path) as archive:
            reasons = {}
            for member in archive.members:
                with pytest.raises(UnreadableMemberError) as caught:
                    archive.read(member)
                reasons[member.name] = str(caught.value)
        assert reasons == {
            "pipe.jpg": "cannot be read (not a file)",
            "dangling.jpg": "cannot be read (No such file or directory)",
            "loop.jpg": "cannot be read (Too many levels of symbolic links)",
        }

    def test_a_file_that_vanished_is_unreadable(self, tmp_path, pack):
        with open_archive(pack(tmp_path / "photos", {"a.jpg": b"x"})) as archive:
            (tmp_path / "photos" / "a.jpg").unlink()
            with pytest.raises(UnreadableMemberError, match="No such file or directory"):
                archive.read(archive.members[0])

    def test_a_file_whose_name_is_not_utf8_is_read(self, tmp_path):
        (tmp_path / os.fsdecode(b"\x82.jpg")).write_bytes(b"x")
        assert read_all(tmp_path) == {"\u00e9.jpg": b"x"}

    @pytest.mark.skipif(os.geteuid() == 0, reason="root enters every folder")
    def test_a_folder_that_cannot_be_entered_is_no_traceback(self, tmp_path, pack):
        photos = pack(tmp_path / "photos", {"a/1.jpg": b"x"})
        (photos / "a").chmod(0o444)
        with (
            open_archive(photos) as archive,
            pytest.raises(UnreadableMemberError, match="cannot be read"),
        ):
            archive.read(archive.members[0])
        (photos / "a").chmod(0o755)

    def test_hidden_folders_are_not_entered(self, tmp_path, pack):
        photos = pack(tmp_path / "photos", {"a/1.jpg": b"x", "@eaDir/1.jpg": b"y"})
        (photos / "lost+found").mkdir()
        (photos / "lost+found" / "loop").symlink_to(photos)
        assert names_in(photos) == ["a/1.jpg"]

    def test_the_order_does_not_depend_on_the_file_system(self, tmp_path, pack):
        files = {f"{label}/{k}.jpg": b"" for label in "cab" for k in (2, 0, 1)}
        assert names_in(pack(tmp_path / "photos", files)) == sorted(files)


class TestOddZips:
    """Unusual and damaged members of a zip."""

    DATA = bytes(range(256)) * 20

    def packed(self, path, *, name="train/ant/1.jpg"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), self.DATA)
            archive.writestr("train/ant/2.jpg", b"two")
        return path

    def test_folders_may_end_with_a_backslash(self, tmp_path):
        path = self.packed(tmp_path / "a.zip", name="train\\ant\\1.jpg")
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("train\\empty\\", b"")
        assert read_all(path) == {"train/ant/1.jpg": self.DATA, "train/ant/2.jpg": b"two"}

    def test_a_member_may_have_an_empty_name(self, tmp_path):
        assert read_all(self.packed(tmp_path / "a.zip", name="")) == {
            "": self.DATA,
            "train/ant/2.jpg": b"two",
        }

    @pytest.mark.parametrize(
        ("place", "message"),
        [(3, "no header where its directory says"), (100, "do not fit its CRC-32")],
    )
    def test_the_message_says_what_is_damaged(self, place, message, tmp_path):
        path = self.packed(tmp_path / "a.zip")
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)
        with (
            open_archive(path) as archive,
            pytest.raises(UnreadableMemberError, match=f"damaged in the archive .*{message}"),
        ):
            archive.read(archive.members[0])
