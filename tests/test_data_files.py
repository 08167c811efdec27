"""Data files: where they are looked for, how they are checked, how they are downloaded."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from data_server import Server, closed_url, served
from example_cards import WORKLOAD, changed

from harness import catalogue, data_files
from harness.cards import DataDescription, DataFile, WorkloadCard, parse_card
from harness.catalogue import Entry
from harness.data_files import DownloadFailedError, fetch, state, verified_path
from harness.errors import UsageError
from harness.home import cache_folder
from harness.prepared_paths import SPLITS, split_path
from harness.workload import FileWorkload

CONTENT = bytes(range(256)) * 40


class Silent:
    """A progress bar that nobody sees."""

    total = 0

    def __init__(self) -> None:
        self.received = 0

    def update(self, n: int) -> None:
        self.received += n

    def reset(self) -> None:
        self.received = 0

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "data"


@pytest.fixture
def server() -> Iterator[Server]:
    with served() as server:
        server.files["/blobs.bin"] = CONTENT
        yield server


def data_file(
    url: str | None = "https://example.org/blobs.bin", name: str = "blobs/blobs.bin"
) -> DataFile:
    return DataFile(
        name=name,
        bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        url=url,
        how=None if url else "Ask its author.",
    )


def real_card(*files: DataFile, name: str = "blobs/two") -> WorkloadCard:
    listed = [
        {"name": f.name, "bytes": str(f.bytes), "sha256": f.sha256}
        | ({"url": f.url} if f.url else {"how": f.how})
        for f in files
    ]
    document = changed(changed(WORKLOAD, "tier", "real"), "data|files", listed)
    document = changed(document, "name", name)
    return parse_card(
        yaml.safe_dump(changed(document, "data|licence", "MIT")), WorkloadCard, "example"
    )


def put(folder: Path, content: bytes = CONTENT, name: str = "blobs/blobs.bin") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# -- the folder ----------------------------------------------------------------------------


def test_the_variable_goes_before_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert data_files.data_folder() == folder
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA_DIR", "here")
    assert data_files.data_folder() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("BENCH_DATA_DIR", "~/files")
    assert data_files.data_folder() == tmp_path / "me" / "files"
    for unset in (
        lambda: monkeypatch.setenv("BENCH_DATA_DIR", ""),
        lambda: monkeypatch.delenv("BENCH_DATA_DIR"),
    ):
        unset()
        assert data_files.data_folder() == cache_folder() / "data"


def test_a_folder_that_cannot_be_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for text in (str(tmp_path / "file"), "~nobody-of-that-name/x"):
        monkeypatch.setenv("BENCH_DATA_DIR", text)
        with pytest.raises(UsageError, match=r"The data folder .* cannot be used: .*--data-dir"):
            data_files.data_folder()


# -- what is there -------------------------------------------------------------------------


def test_the_four_states(folder: Path) -> None:
    file = data_file()
    assert state(file) == "missing"
    path = put(folder, CONTENT[:-1])
    assert state(file) == "damaged"  # by its size alone
    put(folder, CONTENT[:-1] + b"?")
    assert state(file) == "present"  # nobody has hashed it
    assert state(file, again=True) == "damaged"
    assert state(file) == "damaged"  # remembered
    put(folder)
    os.utime(path, ns=(1, 1))  # another time, were the clock too coarse
    assert [state(file), state(file, again=True), state(file)] == [
        "present",
        "verified",
        "verified",
    ]
    path.unlink()
    path.mkdir()
    assert state(file) == "missing"


def test_a_file_is_hashed_once_until_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, path = real_card(data_file()), put(folder)
    hashed = []
    digest = hashlib.file_digest

    def counted(*arguments: object) -> object:
        hashed.append(arguments)
        return digest(*arguments)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    assert verified_path(card, "blobs/blobs.bin") == path
    assert verified_path(card, "blobs/blobs.bin") == path
    assert len(hashed) == 1
    os.utime(path, ns=(1, 1))
    verified_path(card, "blobs/blobs.bin")
    assert len(hashed) == 2


def test_a_hash_that_cannot_be_remembered_is_taken_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    put(folder)
    assert verified_path(real_card(data_file()), "blobs/blobs.bin").is_file()
    assert state(data_file()) == "present"


def test_damaged_memory_counts_for_nothing(folder: Path) -> None:
    card = real_card(data_file())
    put(folder)
    verified_path(card, "blobs/blobs.bin")
    (memory,) = (cache_folder() / "data-hashes").iterdir()
    memory.write_bytes(b"\xff\xfe")
    assert state(data_file()) == "present"
    assert verified_path(card, "blobs/blobs.bin").is_file()


def test_the_workload_asks_by_name(folder: Path) -> None:
    class Blobs(FileWorkload):
        prepare = build_model = training_batch = synthetic_batch = None  # type: ignore[assignment]
        per_example_loss = evaluate = None  # type: ignore[assignment]

    Blobs.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    workload = Blobs(real_card(data_file()))
    with pytest.raises(UsageError, match=r"blobs/two needs blobs/blobs\.bin"):
        workload.path("blobs/blobs.bin")
    path = put(folder)
    assert workload.path("blobs/blobs.bin") == path
    with pytest.raises(ValueError, match=r"names no file 'other\.bin'"):
        workload.path("other.bin")


def test_a_missing_file_is_told_with_place_and_remedy(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        verified_path(real_card(data_file()), "blobs/blobs.bin")
    message = str(caught.value)
    assert f"blobs/two needs blobs/blobs.bin, which cannot be found in {folder}." in message
    assert "`bench data get blobs/two` downloads" in message and "--data-dir" in message


def test_a_file_without_an_address_is_told_by_its_how() -> None:
    with pytest.raises(UsageError, match=r"blobs/blobs\.bin: Ask its author\.") as caught:
        verified_path(real_card(data_file(url=None)), "blobs/blobs.bin")
    assert "bench data get" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (CONTENT + b"!", "found 10241 bytes, expected 10240 bytes"),
        (CONTENT[::-1], f"found SHA-256 {hashlib.sha256(CONTENT[::-1]).hexdigest()}, expected "),
    ],
)
def test_a_damaged_file_is_told_with_both_values(folder: Path, content: bytes, found: str) -> None:
    path = put(folder, content)
    with pytest.raises(UsageError) as caught:
        verified_path(real_card(data_file()), "blobs/blobs.bin")
    message = str(caught.value)
    assert str(path) in message and found in message
    assert "`bench data get blobs/blobs.bin` replaces it" in message


def test_required_files_are_named_for_all_workloads_at_once(folder: Path) -> None:
    one = real_card(data_file(), data_file(name="blobs/labels.bin"))
    many = real_card(*(data_file(name=f"many/{n}.bin") for n in range(5)), name="blobs/many")
    put(folder)
    with pytest.raises(UsageError) as caught:
        data_files.require([one, many])
    assert (
        "blobs/two, blobs/many need blobs/labels.bin, many/0.bin, many/1.bin, many/2.bin and 2 more"
        in str(caught.value)
    )


def test_required_files_have_to_be_the_right_ones(folder: Path) -> None:
    card = real_card(data_file())
    put(folder)
    data_files.require([card])
    put(folder, CONTENT[::-1])
    with pytest.raises(UsageError, match="is not the right one: found SHA-256"):
        data_files.require([card])


def test_a_prepared_workload_requires_nothing() -> None:
    card = real_card(data_file())
    with pytest.raises(UsageError):
        data_files.require([card])
    for split in SPLITS:
        path = split_path(card, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    data_files.require([card])


# -- downloads -----------------------------------------------------------------------------


def test_a_download_arrives_whole_and_verified(server: Server, folder: Path) -> None:
    file, bar = data_file(server.url("/blobs.bin")), Silent()
    fetch(file, bar)
    path = folder / "blobs" / "blobs.bin"
    assert path.read_bytes() == CONTENT
    assert state(file) == "verified"
    assert bar.received == len(CONTENT)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_a_damaged_file_is_replaced(server: Server, folder: Path) -> None:
    put(folder, CONTENT[::-1])
    fetch(data_file(server.url("/blobs.bin")), Silent())
    assert state(data_file()) == "verified"


def _wrong(server: Server) -> None:
    server.files["/blobs.bin"] = CONTENT[::-1]


def _broken(server: Server) -> None:
    server.broken.add("/blobs.bin")


def _gone(server: Server) -> None:
    server.files.clear()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_wrong, "is not the file that the card says: .*[Hh]ash.*Nothing was kept"),
        (_broken, r"cannot be downloaded: .*IncompleteRead\(.*Try again"),
        (_gone, "cannot be downloaded: the server answers 404 .*Try again.*--data-dir"),
    ],
)
@pytest.mark.parametrize("before", [None, CONTENT[::-1]])
def test_a_failed_download_leaves_nothing_behind(
    server: Server,
    folder: Path,
    spoil: Callable[[Server], None],
    reason: str,
    before: bytes | None,
) -> None:
    if before is not None:
        put(folder, before)
    spoil(server)
    url = server.url("/blobs.bin")
    with pytest.raises(DownloadFailedError, match=f"^{url} {reason}"):
        fetch(data_file(url), Silent())
    left = {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}
    assert left == ({} if before is None else {"blobs.bin": before})


def test_a_refused_connection_is_told_plainly() -> None:
    url = closed_url()
    with pytest.raises(DownloadFailedError) as caught:
        fetch(data_file(url), Silent())
    assert str(caught.value).startswith(f"{url} cannot be downloaded: Connection refused. Try")


def test_an_interrupted_download_leaves_nothing_behind(server: Server, folder: Path) -> None:
    class Interrupting(Silent):
        def update(self, n: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(data_file(server.url("/blobs.bin")), Interrupting())
    assert list((folder / "blobs").iterdir()) == []


def test_a_folder_that_cannot_be_made_or_written_is_a_usage_error(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = data_file(server.url("/blobs.bin"))
    for number in (errno.EACCES, errno.ENOSPC):

        def refuse(number: int = number, **options: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "NamedTemporaryFile", refuse)
            with pytest.raises(UsageError, match=f"stored: {os.strerror(number)}. Make room"):
                fetch(file, Silent())
    put(folder, name="file")
    with pytest.raises(UsageError, match="cannot be stored"):
        fetch(data_file(file.url, name="file/blobs.bin"), Silent())


def test_what_has_no_address_is_not_downloaded(folder: Path) -> None:
    with pytest.raises(DownloadFailedError, match=r"Ask its author\. It belongs at .*blobs\.bin"):
        fetch(data_file(url=None), Silent())


# -- on the cards --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("data|files", None, "tier `real` has at least one"),
        ("tier", "embedded", "tier `real` has at least one, the other tiers none"),
        ("data|licence", None, "licence is missing"),
    ],
)
def test_real_cards_name_files_and_licence_others_do_not(
    path: str, value: object, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        _parsed(path, value)


def _parsed(path: str, value: object) -> WorkloadCard:
    files = [{"name": "a/b.gz", "bytes": "3", "sha256": "0" * 64, "url": "https://example.org/b"}]
    document = changed(changed(WORKLOAD, "tier", "real"), "data|files", files)
    document = changed(document, "data|licence", "MIT")
    return parse_card(yaml.safe_dump(changed(document, path, value)), WorkloadCard, "example")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("name", "../b", "must be a relative path such as"),
        ("name", "/b", "must be a relative path such as"),
        ("name", "a//b", "must be a relative path such as"),
        ("name", ".hidden", "must be a relative path such as"),
        ("url", "file:///etc/passwd", "must be an address"),
        ("url", None, "needs a `url`, or a `how`"),
        ("how", "Ask.", "needs a `url`, or a `how`"),
        ("bytes", "0", "must be a whole number >= 1"),
        ("sha256", "12", "64 hexadecimal digits"),
    ],
)
def test_a_files_fields_are_checked(field: str, value: str | None, problem: str) -> None:
    file = {"name": "a/b.gz", "bytes": "3", "sha256": "0" * 64, "url": "https://example.org/b"}
    file |= {field: value}
    with pytest.raises(UsageError, match=problem):
        _parsed("data|files", [{key: text for key, text in file.items() if text is not None}])


def test_a_name_stands_once() -> None:
    file = {"name": "a/b.gz", "bytes": "3", "sha256": "0" * 64, "url": "https://example.org/b"}
    with pytest.raises(UsageError, match="a name stands twice"):
        _parsed("data|files", [file, dict(file)])


def test_a_description_without_files_is_stored_as_before_there_were_any() -> None:
    import msgspec

    plain = msgspec.convert(
        {
            "source": "a generator",
            "sha256": {"training": "0" * 64, "evaluation": "1" * 64, "test": "2" * 64},
            "training_examples": 3,
            "evaluation_examples": 3,
            "test_examples": 3,
        },
        DataDescription,
    )
    assert {"files", "licence"}.isdisjoint(msgspec.to_builtins(plain))
    assert {"files", "licence"} <= msgspec.to_builtins(real_card(data_file()).data).keys()


def test_the_bundled_cards_agree_on_their_files() -> None:
    known = data_files.known_files()
    real = [e.card for e in catalogue.workloads().values() if e.card.tier == "real"]
    assert {file.name for card in real for file in card.data.files} == known.keys()


def test_two_files_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = DataFile(name="blobs/blobs.bin", bytes=3, sha256="0" * 64, how="Ask.")
    entries = {
        card.name: Entry(card=card, path=Path(f"{card.family}.yaml"), module="m")
        for card in (real_card(data_file(), name="a/b"), real_card(other, name="c/d"))
    }
    monkeypatch.setattr(catalogue, "workloads", lambda: entries)
    with pytest.raises(UsageError, match=r"The card c\.yaml calls a file 'blobs/blobs\.bin'"):
        data_files.known_files()
