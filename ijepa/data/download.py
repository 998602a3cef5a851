"""Downloads and unpacks archives on first use, atomically: a folder that exists is complete."""

import os
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from ijepa.util.errors import ConfigError

NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError, RuntimeError)
"""Errors of a failed download; RuntimeError is torchvision's for a wrong checksum."""


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        url: where it is published.
        md5: checksum of the file.
        folder: the folder that it contains.
        size: shown to the user.
    """

    url: str
    md5: str
    folder: str
    size: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def fetch(archive: Archive, root: Path) -> Path:
    """The archive's folder below ``root``; if it is missing, it is unpacked from the file there or downloaded.

    Raises:
        ConfigError: if it can be neither downloaded nor written.
    """

    def unpack(temporary: Path) -> Path:
        file = root / archive.name
        if not check_integrity(file, archive.md5):
            print(f"download {archive.url} ({archive.size}), once; cached in {root}", flush=True)
            download_url(archive.url, temporary, archive.name, archive.md5)
            file = temporary / archive.name
        extract_archive(file, temporary)
        return temporary / archive.folder

    try:
        root.mkdir(parents=True, exist_ok=True)
        once(root / archive.folder, unpack)
    except NETWORK as error:
        reason = getattr(error, "reason", None) or error
        problem = (
            f"{archive.url} could not be downloaded ({reason}); put {archive.name} (md5 {archive.md5}) there yourself"
        )
        raise ConfigError("data.root", root, problem) from None
    except OSError as error:
        raise ConfigError("data.root", root, f"cannot be written: {error.strerror}") from None
    return root / archive.folder


def once(folder: Path, make: Callable[[Path], Path]) -> None:
    """Makes sure that ``folder`` exists and is complete.

    Args:
        folder: the folder.
        make: creates it inside the given temporary folder, and returns its path there.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        while not folder.is_dir():  # the first process of this machine makes it; if it fails, so do all
            time.sleep(0.2)
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        made = make(Path(temporary))
        try:
            made.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was faster
                raise
