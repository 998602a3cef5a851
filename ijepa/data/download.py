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

DOWNLOAD_ERRORS = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError, RuntimeError)
"""Errors of a failed download; RuntimeError is torchvision's for a wrong checksum."""


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        url: its https:// URL.
        md5: MD5 checksum of the archive.
        folder: name of the folder inside it.
        size: download size, to show to the user.
    """

    url: str
    md5: str
    folder: str
    size: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def fetch_archive(archive: Archive, root: Path) -> Path:
    """The archive's folder below ``root``; if missing, it is unpacked from ``root``/NAME, or the archive is downloaded.

    Raises:
        ConfigError: if the archive could not be downloaded, or ``root`` is not writable.
    """

    def download_and_unpack(temporary: Path) -> Path:
        file = root / archive.name
        if not check_integrity(file, archive.md5):
            print(f"download {archive.url} ({archive.size}), once; cached in {root}", flush=True)
            download_url(archive.url, temporary, archive.name, archive.md5)
            file = temporary / archive.name
        extract_archive(file, temporary)
        return temporary / archive.folder

    try:
        root.mkdir(parents=True, exist_ok=True)
        make_once(root / archive.folder, download_and_unpack)
    except DOWNLOAD_ERRORS as error:
        reason = getattr(error, "reason", None) or error
        problem = (
            f"{archive.url} could not be downloaded ({reason}); put {archive.name} (md5 {archive.md5}) there yourself"
        )
        raise ConfigError("data.root", root, problem) from None
    except OSError as error:
        raise ConfigError("data.root", root, f"cannot be written: {error.strerror}") from None
    return root / archive.folder


def make_once(folder: Path, make: Callable[[Path], Path]) -> None:
    """Creates ``folder`` atomically unless it exists; one process per machine does it, the others wait.

    Args:
        folder: the final path.
        make: creates the folder inside the temporary folder that it is given, and returns its path there.
    """
    if int(os.environ.get("LOCAL_RANK", "0")) > 0:
        while not folder.is_dir():  # local rank 0 creates it; if that fails, all ranks are ended
            time.sleep(0.2)
    if folder.is_dir():
        return
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        complete = make(Path(temporary))
        try:
            complete.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run has just created it
                raise
