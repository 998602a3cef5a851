"""Data sets that are downloaded: small ones in the published layout, from archives as they come."""

import hashlib
import io
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from helpers import ROOT, picture, train_config
from PIL import Image
from torchvision import datasets

from ijepa.data import download, published, sources
from ijepa.util.errors import UserError

COUNTS = {"train": 4, "test": 3, "unlabeled": 5}


def source(name, root, *overrides):
    return sources.build(train_config(f"data={name}", f"data.root={root}", *overrides).data, 0)


def packed(file, members):
    """A tar file of members by name."""
    with tarfile.open(file, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return md5(file.read_bytes())


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **keywords):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture
def served(tmp_path):
    """A folder that a server on this machine offers, its address, and what has been asked for."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, _, request, *rest):
            asked.append(request)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def cifar(monkeypatch, kind, folder):
    """CIFAR of few random images: the archive, and arrays and labels by part."""
    random = np.random.default_rng(0)
    hundred = kind is datasets.CIFAR100
    key = "fine_labels" if hundred else "labels"
    names = {"train": [name for name, _ in kind.train_list], "test": [name for name, _ in kind.test_list]}
    files, parts = {}, {}
    for part, batches in names.items():
        rows = [random.integers(0, 256, (2, 3072), dtype=np.uint8) for _ in batches]
        labels = [[i, 9 - i] for i in range(len(batches))]
        for batch, values, classes in zip(batches, rows, labels, strict=True):
            files[batch] = pickle.dumps({"data": values, key: classes}, protocol=2)
        parts[part] = (
            np.concatenate(rows).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
            [label for classes in labels for label in classes],
        )
    files[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: [f"kind {i}" for i in range(10)]}, protocol=2)
    for part, batches in names.items():
        monkeypatch.setattr(kind, f"{part}_list", [[name, md5(files[name])] for name in batches])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(files[kind.meta["filename"]])})
    members = {f"{kind.base_folder}/{name}": content for name, content in files.items()}
    monkeypatch.setattr(kind, "tgz_md5", packed(folder / kind.filename, members))
    return parts


def stl(monkeypatch, folder):
    random = np.random.default_rng(0)
    images = {part: random.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8) for part, n in COUNTS.items()}
    files = {f"{part}_X.bin": values.tobytes() for part, values in images.items()}
    files |= {"train_y.bin": bytes([1, 10, 3, 3]), "test_y.bin": bytes([2, 1, 10])}
    files["class_names.txt"] = "\n".join([*"abcdefghij", ""]).encode()
    members = {f"stl10_binary/{name}": content for name, content in files.items()}
    monkeypatch.setattr(datasets.STL10, "tgz_md5", packed(folder / datasets.STL10.filename, members))
    for part in ("train", "test"):
        unchecked = [[name, None] for name, _ in getattr(datasets.STL10, f"{part}_list")]
        monkeypatch.setattr(datasets.STL10, f"{part}_list", unchecked)
    monkeypatch.setattr(published, "STL_IMAGES", COUNTS)


@pytest.mark.parametrize(("name", "kind"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
def test_cifar(monkeypatch, tmp_path, offline, name, kind):
    parts = cifar(monkeypatch, kind, tmp_path)
    found = source(name, tmp_path)
    assert found.classes == {"class": [f"kind {i}" for i in range(10)]}
    for images, part in ((found.train, "train"), (found.val, "test")):
        values, labels = parts[part]
        assert len(images) == len(values)
        assert images.labels == {"class": labels}
        for i, expected in enumerate(values):
            assert images.read(i).mode == "RGB"
            assert np.array_equal(np.asarray(images.read(i)), expected)
            assert images.name(i) == f"{name} {part} {i}"
    again = source(name, tmp_path)
    assert again.train.fingerprint() == found.train.fingerprint() != found.val.fingerprint()
    grey = source(name, tmp_path, "data.channels=1", "data.mean=[0.5]", "data.std=[0.25]")
    assert grey.train.read(0).mode == "L"
    assert grey.train.fingerprint() != found.train.fingerprint()


def test_stl10(monkeypatch, tmp_path, offline):
    stl(monkeypatch, tmp_path)
    found, plain = source("stl10", tmp_path), source("stl10_unlabelled", tmp_path)
    assert found.classes == {"class": list("abcdefghij")}
    assert found.train.labels == {"class": [0, 9, 2, 2]}
    assert found.val.labels == {"class": [1, 0, 9]}
    assert (plain.classes, plain.train.labels, plain.val.labels) == ({}, {}, {})
    theirs = {part: datasets.STL10(tmp_path, split=part) for part in COUNTS}
    expected = [image for part in ("unlabeled", "train") for image, _ in theirs[part]]
    for ours, images in (
        (found.train, [image for image, _ in theirs["train"]]),
        (found.val, [image for image, _ in theirs["test"]]),
        (plain.train, expected),
        (plain.val, [image for image, _ in theirs["test"]]),
    ):
        assert len(ours) == len(images)
        for i, image in enumerate(images):
            assert np.array_equal(np.asarray(ours.read(i)), np.asarray(image))
    prints = [images.fingerprint() for images in (found.train, found.val, plain.train)]
    assert len(set(prints)) == 3
    assert found.train.name(2) == "stl10 train 2"


def test_images_without_labels_cannot_be_evaluated(monkeypatch, tmp_path, offline, invoke):
    stl(monkeypatch, tmp_path)
    arguments = ["checkpoint=random", "data=stl10_unlabelled", f"data.root={tmp_path}", f"output={tmp_path / 'out'}"]
    code, _, error = invoke("evaluate.py", *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("error: data.source=stl10_unlabelled: has no labels")


def test_imagenette(monkeypatch, tmp_path, offline):
    members = {}
    for part, wnid, i in (("train", "n03394916", 0), ("train", "n01440764", 1), ("val", "n01440764", 2)):
        buffer = io.BytesIO()
        picture(i, 20, 30).save(buffer, "JPEG")
        members[f"imagenette2-320/{part}/{wnid}/{i}.JPEG"] = buffer.getvalue()
    members["imagenette2-320/noisy_imagenette.csv"] = b"path,noisy_labels_0"
    url = published.IMAGENETTE.url
    digest = packed(tmp_path / "imagenette2-320.tgz", members)
    monkeypatch.setattr(published, "IMAGENETTE", download.Archive(url, digest, "imagenette2-320", ""))
    found = source("imagenette", tmp_path)
    assert found.classes == {"class": ["tench, Tinca tinca", "French horn, horn"]}
    assert (found.train.labels, found.val.labels) == ({"class": [0, 1]}, {"class": [0]})
    assert found.train.read(1).size == (30, 20)
    assert found.train.name(0).endswith("train/n01440764/1.JPEG")
    assert found.train.fingerprint() == source("imagenette", tmp_path).train.fingerprint()


def test_what_is_published_has_an_option_of_its_name():
    options = {path.stem for path in (ROOT / "conf" / "data").glob("[!_]*.yaml")}
    assert options == set(sources.SOURCES)
    for name in options - {"folder", "list", "medmnist", "imagenet", "places205", "inat18", "clevr"}:
        assert train_config(f"data={name}").data.source == name
    assert Path(train_config("data=cifar10").data.root).is_absolute()


def test_a_download_is_kept_and_leaves_nothing_else(monkeypatch, tmp_path, served, capsys):
    folder, address, asked = served
    cifar(monkeypatch, datasets.CIFAR10, folder)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{datasets.CIFAR10.filename}")
    root = tmp_path / "new" / "data"
    first = source("cifar10", root).train
    assert f"download {address}/cifar-10-python.tar.gz (170 MB), once; cached in {root}" in capsys.readouterr().out
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]
    before = len(asked)
    assert source("cifar10", root).train.fingerprint() == first.fingerprint()
    assert len(asked) == before
    assert capsys.readouterr().out == ""


def test_a_download_that_fails_says_what_would_do(monkeypatch, tmp_path, served):
    folder, address, _ = served
    cifar(monkeypatch, datasets.CIFAR10, folder)
    name, root = datasets.CIFAR10.filename, tmp_path / "root"
    (folder / name).write_bytes((folder / name).read_bytes()[:-100])
    for url, reason in ((f"{address}/{name}", "corrupted"), (f"{address}/moved/{name}", "File not found")):
        monkeypatch.setattr(datasets.CIFAR10, "url", url)
        with pytest.raises(UserError) as caught:
            source("cifar10", root)
        line = str(caught.value)
        assert line.startswith(f"data.root={root}: {url} could not be downloaded (")
        assert reason in line
        assert line.endswith(f"; put {name} (md5 {datasets.CIFAR10.tgz_md5}) there yourself")
        assert "\n" not in line
        assert not list(root.iterdir())


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "stl10_unlabelled", "imagenette"])
def test_without_network(tmp_path, offline, name):
    with pytest.raises(
        UserError, match=r"^data.root=.*: https?://.* could not be downloaded \(no network\); put .*gz .*there"
    ):
        source(name, tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_half_a_file_that_was_put_there_does_not_count(monkeypatch, tmp_path, offline):
    cifar(monkeypatch, datasets.CIFAR10, tmp_path)
    file = tmp_path / datasets.CIFAR10.filename
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match="could not be downloaded"):
        source("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("stl10", "stl10_binary/test_X.bin"),
        ("stl10", "stl10_binary/train_y.bin"),
        ("stl10", "stl10_binary/class_names.txt"),
        ("stl10_unlabelled", "stl10_binary/unlabeled_X.bin"),
    ],
)
@pytest.mark.parametrize("fault", ["missing", "short"])
def test_damage_is_found(monkeypatch, tmp_path, offline, name, file, fault):
    cifar(monkeypatch, datasets.CIFAR10, tmp_path)
    stl(monkeypatch, tmp_path)
    source(name, tmp_path)
    path = tmp_path / file
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=rf"^data.root=.* is corrupt; remove {path.parent}, then it is") as caught:
        source(name, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "starts"),
    [
        (["data.root=/proc/none"], "data.root=/proc/none: cannot be written"),
        (["data.root=null"], "data.root is not set"),
        (["data.channels=2", "data.mean=[0,0]", "data.std=[1,1]"], "data.channels=2: .*try 1, 3 or 4"),
    ],
)
def test_what_does_not_fit_is_named(offline, overrides, starts):
    with pytest.raises(UserError, match=f"^{starts}"):
        sources.build(train_config("data=cifar10", *overrides).data, 0)


def test_other_processes_of_a_machine_wait_for_the_first(monkeypatch, tmp_path):
    monkeypatch.setenv("LOCAL_RANK", "1")
    folder = tmp_path / "made"
    timer = threading.Timer(0.3, folder.mkdir)
    timer.start()
    download.make_once(folder, lambda temporary: pytest.fail("made twice"))
    assert folder.is_dir()


def test_another_run_that_was_faster(tmp_path):
    def make(temporary):
        (temporary / "made").mkdir()
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "theirs").write_text("")
        return temporary / "made"

    download.make_once(tmp_path / "made", make)
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "theirs"]


def test_what_was_cut_short_leaves_nothing(tmp_path):
    def make(temporary):
        (temporary / "made").mkdir()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.make_once(tmp_path / "made", make)
    assert not list(tmp_path.iterdir())


def test_mapped_images_are_not_read_up_front(monkeypatch, tmp_path, offline):
    stl(monkeypatch, tmp_path)
    images = source("stl10", tmp_path).train.images
    while isinstance(images.base, np.ndarray):
        images = images.base
    assert isinstance(images, np.memmap)
    assert isinstance(source("stl10", tmp_path).train.read(0), Image.Image)
