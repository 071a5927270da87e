"""Raw files from folders and from a server on this machine that also has bad days."""

import errno
import functools
import hashlib
import io
import shutil
import ssl
import subprocess
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from silent_study.data.errors import DataError
from silent_study.data.raw import ATTEMPTS, Form, RawFile, npz_digest, obtain, verify

CONTENT = {"set/train": b"training images" * 1000, "set/test": b"test images" * 1000}


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read(_root, _split):
    yield np.zeros((0, 1, 1, 1), dtype=np.uint8)


def form(*urls):
    """The two files, each at these addresses (with its path in the place of {})."""
    return Form(
        read,
        tuple(
            RawFile(path, sha256(content), tuple(url.format(path) for url in urls)) for path, content in CONTENT.items()
        ),
    )


def put(folder, contents=CONTENT):
    for path, content in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Server:
    """What an address answers with: a content, or a way to fail; and the paths that it was asked for."""

    address: str = ""
    answers: dict[str, bytes | str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server, *arguments):
        self.told = server
        super().__init__(*arguments)

    def do_GET(self):
        path = self.path.lstrip("/")
        self.told.asked.append(path)
        answer = self.told.answers.get(path, "missing")
        if isinstance(answer, str):
            self.fail(answer)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def fail(self, how):
        if how == "once":
            self.told.answers[self.path.lstrip("/")] = CONTENT[self.path.lstrip("/")]
        if how in ("cut", "once"):
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"the beginning")
        else:
            self.send_error(503 if how == "busy" else 404)

    def log_message(self, *_):
        pass


@contextmanager
def served(context=None):
    """A running server, over TLS where there is a context."""
    state = Server()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, state))
    httpd.handle_error = lambda *_: None  # type: ignore[method-assign]
    if context is not None:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    state.address = f"{'http' if context is None else 'https'}://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield state
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.fixture
def server():
    with served() as state:
        yield state


def test_files_that_are_there_are_used_where_they_are(tmp_path):
    raw, mirror = tmp_path / "raw", put(tmp_path / "mirror")
    assert obtain("set", [Form(read)], raw) == (Form(read), raw)  # a form without files needs nothing
    assert obtain("set", [form()], raw, str(mirror)).root == mirror
    assert not raw.exists()
    put(raw)  # files that were downloaded before come first
    assert obtain("set", [form()], raw, str(mirror)).root == raw


def test_any_form_that_is_there_is_taken_rather_than_a_download(tmp_path, server):
    other = Form(read, (RawFile("other", sha256(b"the same in another form")),))
    mirror = put(tmp_path / "mirror", {"other": b"the same in another form"})
    obtained = obtain("set", [form(server.address + "/{}"), other], tmp_path / "raw", str(mirror))
    assert (obtained.form, obtained.root) == (other, mirror)
    assert server.asked == []


@pytest.mark.parametrize("there", [[], ["set/train"]])
def test_only_what_is_missing_is_downloaded(tmp_path, server, there):
    server.answers = dict(CONTENT)
    # What a killed download left goes.
    put(tmp_path / "raw", {path: CONTENT[path] for path in there} | {".downloading-set/tmp123": b"half of it"})
    obtained = obtain("set", [form(server.address + "/{}")], tmp_path / "raw")
    assert obtained.root == tmp_path / "raw"
    assert contents(tmp_path / "raw") == CONTENT
    assert server.asked == [path for path in CONTENT if path not in there]


def test_a_mirrors_address_is_asked_before_the_publishers(tmp_path, server):
    server.answers = {f"mirror/{path}": content for path, content in CONTENT.items()}
    obtain("set", [form(server.address + "/{}")], tmp_path / "raw", f"{server.address}/mirror/")
    assert server.asked == [f"mirror/{path}" for path in CONTENT]


@pytest.mark.parametrize("answer", ["missing", "busy", "cut", b"something else"])
def test_the_next_address_is_tried_after_a_failure(tmp_path, server, capsys, answer):
    server.answers = {f"good/{path}": content for path, content in CONTENT.items()}
    server.answers |= {f"bad/{path}": answer for path in CONTENT}
    obtain("set", [form(server.address + "/bad/{}", server.address + "/good/{}")], tmp_path / "raw")
    assert contents(tmp_path / "raw") == CONTENT
    assert server.asked[: ATTEMPTS + 1] == ["bad/set/train"] * ATTEMPTS + ["good/set/train"]
    assert f"{server.address}/bad/set/train: " in capsys.readouterr().err


def test_a_connection_that_broke_off_is_tried_again(tmp_path, server):
    server.answers = dict.fromkeys(CONTENT, "once")
    obtain("set", [form(server.address + "/{}")], tmp_path / "raw")
    assert contents(tmp_path / "raw") == CONTENT


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("missing", "the server answers 404 Not Found"),
        ("busy", "the server answers 503 Service Unavailable"),
        ("cut", "the connection broke off"),
        (
            b"something else",
            f"expected sha256 {sha256(CONTENT['set/train'])[7:]}, found {sha256(b'something else')[7:]}: it is "
            "damaged, or of another version of the data set",
        ),
    ],
)
def test_a_download_that_fails_everywhere_is_told_with_the_way_out(tmp_path, server, answer, message):
    server.answers = {"set/train": answer}
    with pytest.raises(DataError) as error:
        obtain("set", [form(server.address + "/{}")], tmp_path / "raw")
    first, absent, reason, remedy = str(error.value).splitlines()
    assert first == "set: its raw files could not be obtained"
    assert absent == f"{tmp_path / 'raw'}: no set/train and 1 more"
    assert reason.startswith(f"{server.address}/set/train: {message}")
    assert "data.mirror in params.yaml" in remedy
    assert "SILENT_GRADIENTS_MIRROR" in remedy
    # Nothing of it stays.
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("url", "through"),
    [("http://127.0.0.1:9/{}", ""), ("http://somewhere.test/{}", " through the proxy 127.0.0.1:9")],
)
def test_no_connection_is_named_with_its_cause_and_the_proxy(tmp_path, server, monkeypatch, url, through):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://user:password@127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    with pytest.raises(DataError) as error:
        obtain("set", [form(url)], tmp_path / "raw")
    assert f"{url.format('set/train')}: no connection{through} ([Errno 111] Connection refused)" in str(error.value)
    assert "password" not in str(error.value)


def test_a_missing_bundle_of_certificates_is_named(tmp_path, server, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    with pytest.raises(DataError, match=r"https://127\.0\.0\.1:9/set/train: .*/nowhere/bundle\.pem"):
        obtain("set", [form("https://127.0.0.1:9/{}")], tmp_path / "raw")


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1"]  # noqa: RUF005
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with (
        served(context) as server,
        pytest.raises(DataError, match=f"{server.address}/set/train: its certificate is not accepted"),
    ):
        obtain("set", [form(server.address + "/{}")], tmp_path / "raw")


def test_a_set_without_an_address_says_where_it_was_looked_for(tmp_path):
    (tmp_path / "mirror").mkdir()
    with pytest.raises(DataError) as error:
        obtain("set", [form()], tmp_path / "raw", str(tmp_path / "mirror"), lambda folder: f"{folder} holds cats")
    assert str(error.value).splitlines()[1:-1] == [
        f"{tmp_path / 'raw'}: no set/train and 1 more",
        f"{tmp_path / 'mirror'}: no set/train and 1 more",
        f"{tmp_path / 'raw'} holds cats",
        f"{tmp_path / 'mirror'} holds cats",
    ]


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"X" + content[1:], lambda _: b""])
@pytest.mark.parametrize("place", ["raw", "mirror"])
@pytest.mark.parametrize("paths", [["set/test"], ["set/train", "set/test"]], ids=["one", "all"])
def test_damaged_files_are_named_with_both_digests_and_stay(tmp_path, damage, place, paths):
    damaged = CONTENT | {path: damage(CONTENT[path]) for path in paths}
    folder = put(tmp_path / place, damaged)
    (tmp_path / "mirror").mkdir(exist_ok=True)
    with pytest.raises(DataError) as error:
        obtain("set", [form("https://unused/{}")], tmp_path / "raw", str(tmp_path / "mirror"))
    assert str(error.value).splitlines() == [
        f"{folder / path}: expected sha256 {sha256(CONTENT[path])[7:]}, found {sha256(damaged[path])[7:]}: it is "
        "damaged, or of another version of the data set; remove or replace it, then the same command goes on"
        for path in paths
    ]
    assert contents(folder) == damaged


@pytest.mark.parametrize(
    ("mirror", "layout", "found"),
    [
        ("mirror", "mirror", "mirror/train: expected at {}/mirror/set/train"),
        ("mirror", "mirror/other", "mirror/other/train: expected at {}/mirror/set/train"),
        (
            "mirror",
            "mirror/a/set",
            "mirror/a/set/train: expected at {0}/mirror/set/train; {0}/mirror/a may be the mirror",
        ),
        ("a/set", "a/set", "a/set/train: expected at {0}/a/set/set/train; {0}/a may be the mirror"),
    ],
    ids=["flat", "another folder", "one level up", "one level down"],
)
def test_files_in_another_layout_are_found_and_named(tmp_path, mirror, layout, found):
    put(tmp_path / layout, {path.rpartition("/")[2]: content for path, content in CONTENT.items()})
    with pytest.raises(DataError) as error:
        obtain("set", [form()], tmp_path / "raw", str(tmp_path / mirror))
    assert f"{tmp_path}/{found.format(tmp_path)}" in str(error.value).splitlines()


def packed(kind):
    """An archive of the two files in another folder, and of one that nobody asked for."""
    buffer = io.BytesIO()
    members = {f"elsewhere/{path.rpartition('/')[2]}": content for path, content in CONTENT.items()}
    members |= {"../../escape": b"out of the folder"}
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archived(content, *urls, digest=True):
    return Form(read, form().files, (RawFile("set.packed", sha256(content) if digest else None, urls),))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("digest", [True, False])
@pytest.mark.parametrize("where", ["mirror", "server"])
def test_files_are_unpacked_from_an_archive(tmp_path, server, kind, digest, where):
    content = packed(kind)
    server.answers = {"set.packed": content} if where == "server" else {}
    mirror = put(tmp_path / "mirror", {"set.packed": content} if where == "mirror" else {"unrelated": b""})
    asked = archived(content, f"{server.address}/set.packed", digest=digest)
    obtained = obtain("set", [asked], tmp_path / "raw", str(mirror))
    assert obtained.root == tmp_path / "raw"
    found = contents(tmp_path / "raw")
    found.pop("set.packed", None)
    assert found == CONTENT
    assert not list(tmp_path.parent.rglob("escape"))


@pytest.mark.parametrize("answers", [CONTENT, {"set.packed": packed("tar")}], ids=["unpacked", "archive"])
def test_a_mirrors_address_may_hold_the_archive_or_its_files(tmp_path, server, answers):
    server.answers = dict(answers)
    obtain("set", [archived(packed("tar"), digest=False)], tmp_path / "raw", server.address)
    assert contents(tmp_path / "raw") == CONTENT | answers


@pytest.mark.parametrize(
    ("others", "message"),
    [({"test": b"other images"}, r"set/test: expected sha256 .*, found"), ({}, r"set/test: not in set\.packed")],
)
def test_an_archive_with_another_content_is_named(tmp_path, others, message):
    (tmp_path / "mirror").mkdir()
    with zipfile.ZipFile(tmp_path / "mirror" / "set.packed", "w") as archive:
        for name, content in {"train": CONTENT["set/train"], **others}.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match=message):
        obtain("set", [archived(b"", digest=False)], tmp_path / "raw", str(tmp_path / "mirror"))


@pytest.mark.parametrize("content", [b"no archive", packed("zip")[:-50], packed("tar")[:-50]])
def test_an_archive_that_cannot_be_unpacked_is_named(tmp_path, content):
    put(tmp_path / "mirror", {"set.packed": content})
    with pytest.raises(DataError, match=r"set\.packed: expected an archive that can be unpacked"):
        obtain("set", [archived(content)], tmp_path / "raw", str(tmp_path / "mirror"))


def test_a_disk_that_fills_up_during_a_download_is_told(tmp_path, server, monkeypatch):
    from pooch import HTTPDownloader

    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HTTPDownloader, "__call__", fill)
    with pytest.raises(OSError, match=r"No space left on device \(\d+ bytes free\): .*/raw'"):
        obtain("set", [form(server.address + "/{}")], tmp_path / "raw")


def test_an_npz_is_known_by_its_arrays_not_by_its_bytes(tmp_path):
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    np.savez(one, b=np.arange(3), a=np.ones((2, 2), np.uint8))
    np.savez_compressed(other, a=np.ones((2, 2), np.uint8), b=np.arange(3))
    expected = hashlib.sha256(
        b"a |u1 (2, 2)\n" + bytes([1] * 4) + b"b <i8 (3,)\n" + np.arange(3, dtype="<i8").tobytes()
    ).hexdigest()
    assert npz_digest(one) == npz_digest(other) == expected
    verify(other, f"arrays:{expected}")
    one.write_bytes(one.read_bytes()[:-30])
    with pytest.raises(DataError, match=rf"one\.npz: expected arrays {expected}, found unreadable"):
        verify(one, f"arrays:{expected}")
