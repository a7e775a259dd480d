"""Find installed network functions by reading files, never by running code of the package.

``uxdp list`` and ``uxdp serve NAME`` may run as root, the package's publisher is not trusted yet. So importlib.metadata
is not asked: its finders may be objects that a package's .pth file has installed. What counts are files only:

    SITE/NAME-VERSION.dist-info/extra_metadata/uxdp/index.json    names the bundles (see ``wheel_index``)
    SITE/NAME-VERSION.dist-info/RECORD                            digests of the index and of each bundle
    SITE/NAME-VERSION.dist-info/METADATA                          the distribution's name and version
    SITE/NAME-VERSION.dist-info/direct_url.json                   PEP 610: says that an install is editable

Every path is walked component by component from a descriptor with O_NOFOLLOW, so a symbolic link is an error, never a
way out. The RECORD is not signed: it shows accidents and mixed-up files. Who may be trusted is decided later, by
``authenticate``, on a sealed copy.

One distribution's defects never hide another's functions: ``scan_installed`` returns both, and nothing defective can be
located.

References: PEP 376 and 427 (RECORD), PEP 610, PEP 660, https://packaging.python.org/specifications/recording-installed-packages/
"""

import base64
import csv
import hashlib
import io
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from packaging.metadata import parse_email
from packaging.utils import canonicalize_name

from . import canonical
from .beneath import open_directory, read_beneath
from .container import MAX_FILE_BYTES, bundle_from_bytes
from .errors import BundleFormatError, FileAccessError, InstalledError, UxdpError
from .wheel_index import INDEX_PATH, MAX_INDEX_BYTES, IndexEntry, parse_index, path_parts

# A README may be long and is part of METADATA; RECORD has one line per file of the distribution.
MAX_METADATA_BYTES: Final = 4 << 20
MAX_RECORD_BYTES: Final = 16 << 20
MAX_DIRECT_URL_BYTES: Final = 64 << 10

_DIST_INFO = ".dist-info"
# What METADATA may say: https://packaging.python.org/specifications/name-normalization/, and any version's characters.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9.+!_-]{1,128}")


@dataclass(frozen=True, slots=True)
class InstalledFunction:
    """One installed network function whose files are those that were installed.

    ``bundle_id`` and ``sha256`` are those of the file at ``path`` now. ``changed`` is set when an editable install's
    live file is no longer the one of the installation's moment.
    """

    name: str
    version: str
    distribution: str
    distribution_version: str
    path: Path
    bundle_id: str
    sha256: str
    editable: bool
    changed: bool

    @property
    def state(self) -> str:
        """``installed``, ``editable``, or ``editable, changed``."""
        if not self.editable:
            return "installed"
        return "editable, changed" if self.changed else "editable"


@dataclass(frozen=True, slots=True)
class InstalledDefect:
    """Why one function of a distribution, or all of it (``name`` is None), cannot be used."""

    distribution: str
    name: str | None
    error: InstalledError


@dataclass(frozen=True, slots=True)
class InstalledScan:
    """Everything found on a search path: what can be used, and what cannot and why; both sorted by name."""

    functions: tuple[InstalledFunction, ...]
    defects: tuple[InstalledDefect, ...]


def scan_installed(search_path: Sequence[str] | None = None) -> InstalledScan:
    """Look through every .dist-info of ``search_path``; the first directory that has a distribution wins.

    :param search_path: site directories that must exist; None means those of ``sys.path`` that do
    """
    functions: list[InstalledFunction] = []
    defects: list[InstalledDefect] = []
    seen: set[str] = set()
    for directory in _directories(search_path):
        _scan_directory(directory, seen, functions, defects)
    return _without_duplicates(functions, defects)


def find_installed(search_path: Sequence[str] | None = None) -> tuple[InstalledFunction, ...]:
    """Return all installed network functions, sorted by name.

    :param search_path: as for ``scan_installed``, which reports defects instead of raising them
    :raises InstalledError: the first defect of any distribution that has an index
    """
    scan = scan_installed(search_path)
    for defect in scan.defects:
        raise defect.error
    return scan.functions


def locate(name: str, search_path: Sequence[str] | None = None) -> InstalledFunction:
    """Return the installed network function called ``name``.

    Defects of other functions do not matter.

    :raises InstalledError: there is none, or its files are not those that were installed
    """
    scan = scan_installed(search_path)
    for function in scan.functions:
        if function.name == name:
            return function
    for defect in scan.defects:
        if defect.name == name:
            raise defect.error
    unreadable = [defect for defect in scan.defects if defect.name is None]
    if unreadable:
        raise InstalledError(
            f"no installed network function {name!r}, but {unreadable[0].error}", remedy=unreadable[0].error.remedy
        )
    known = ", ".join(function.name for function in scan.functions) or "none"
    raise InstalledError(
        f"no installed network function {name!r}, installed are: {known}",
        remedy="pip install the package that has it, or name its file",
    )


def _directories(search_path: Sequence[str] | None) -> Iterator[Path]:
    """Yield each directory once, absolute; what is missing from ``sys.path`` is skipped, as the interpreter does."""
    seen: set[tuple[int, int]] = set()
    for entry in sys.path if search_path is None else search_path:
        path = Path(entry).absolute()
        try:
            status = path.stat()
        except OSError:
            if search_path is not None:
                yield path
            continue
        identity = (status.st_dev, status.st_ino)
        if identity not in seen and (search_path is not None or stat.S_ISDIR(status.st_mode)):
            seen.add(identity)
            yield path


def _scan_directory(
    directory: Path, seen: set[str], functions: list[InstalledFunction], defects: list[InstalledDefect]
) -> None:
    """Scan every .dist-info of one site directory that has an index and is not shadowed by one in ``seen``."""
    try:
        site = open_directory(directory)
    except FileAccessError as cause:
        defects.append(InstalledDefect(str(directory), None, _installed_error(cause)))
        return
    try:
        with os.scandir(site) as entries:
            infos_found = sorted(entry.name for entry in entries if entry.name.endswith(_DIST_INFO))
        by_name: dict[str, list[str]] = {}
        for info in infos_found:
            by_name.setdefault(canonicalize_name(_name_and_version(info)[0]), []).append(info)
        for name, infos in sorted(by_name.items()):
            shadowed = name in seen
            seen.add(name)
            if shadowed or not any(_has_index(site, info) for info in infos):
                continue
            if len(infos) == 1:
                _Distribution(directory, site, infos[0], name).scan(functions, defects)
                continue
            error = InstalledError(
                f"{len(infos)} versions of one distribution in one directory: {', '.join(map(ascii, infos))}",
                context=str(directory),
                remedy=f"pip install --force-reinstall {name}",
            )
            defects.append(InstalledDefect(ascii(name)[1:-1], None, error))
    finally:
        os.close(site)


def _name_and_version(info: str) -> tuple[str, str]:
    # A version holds no '-' in a .dist-info's name; an old tool's distribution name may.
    name, _, version = info.removesuffix(_DIST_INFO).rpartition("-")
    return name, version


def _has_index(site: int, info: str) -> bool:
    try:
        os.lstat(f"{info}/{INDEX_PATH}", dir_fd=site)
    except OSError:
        return False
    return True


class _Distribution:
    """One .dist-info that has an index; ``site`` is borrowed for the time of ``scan``."""

    def __init__(self, directory: Path, site: int, info: str, name: str) -> None:
        self._directory = directory
        self._site = site
        self._info = info
        # A folder can be called anything, also what a terminal would obey: only checked names are shown as they are.
        self._name = ascii(name)[1:-1]
        self._version = ""
        self._record: dict[str, tuple[str, str]] = {}

    def scan(self, functions: list[InstalledFunction], defects: list[InstalledDefect]) -> None:
        """Append what this distribution offers, and what of it cannot be used."""
        try:
            self._read_metadata()
            self._record = self._read_record()
            data = self._read_recorded(f"{self._info}/{INDEX_PATH}", MAX_INDEX_BYTES)
            entries = parse_index(data, what=self._at(INDEX_PATH))
        except (FileAccessError, InstalledError) as cause:
            defects.append(self._defect(None, cause))
            return
        for entry in entries:
            try:
                functions.append(self._function(entry))
            except (BundleFormatError, FileAccessError, InstalledError) as cause:
                defects.append(self._defect(entry.name, cause))

    def _defect(self, name: str | None, cause: UxdpError) -> InstalledDefect:
        error = cause if isinstance(cause, InstalledError) else _installed_error(cause)
        error.remedy = error.remedy or f"pip install --force-reinstall {self._name}"
        return InstalledDefect(self._name, name, error)

    def _function(self, entry: IndexEntry) -> InstalledFunction:
        if entry.editable:
            path = Path(entry.path)
            data = self._read_live(entry.path)
        else:
            path = self._directory / entry.path
            data = self._read_recorded(entry.path, MAX_FILE_BYTES)
        sha256 = hashlib.sha256(data).hexdigest()
        with bundle_from_bytes(data, path=str(path)) as bundle:
            function = InstalledFunction(
                name=bundle.manifest.name,
                version=bundle.manifest.version,
                distribution=self._name,
                distribution_version=self._version,
                path=path,
                bundle_id=bundle.bundle_id,
                sha256=sha256,
                editable=entry.editable,
                changed=sha256 != entry.sha256,
            )
        if function.name != entry.name:
            raise InstalledError(f"is the bundle {function.name!r}, the index says {entry.name!r}", context=str(path))
        said = (entry.version, entry.bundle_id, entry.sha256)
        if not entry.editable and (function.version, function.bundle_id, sha256) != said:
            raise InstalledError(
                f"is version {function.version}, bundle {function.bundle_id}, sha256 {sha256}; "
                f"the index says {said[0]}, {said[1]}, {said[2]}",
                context=str(path),
            )
        return function

    def _at(self, name: str) -> str:
        return f"{self._directory}/{ascii(self._info)[1:-1]}/{name}"

    def _read(self, relative: str, limit: int) -> bytes:
        return read_beneath(self._site, path_parts(relative), limit, f"{self._directory}/{relative}")

    def _read_metadata(self) -> None:
        metadata, _ = parse_email(self._read(f"{self._info}/METADATA", MAX_METADATA_BYTES))
        name, version = metadata.get("name", ""), metadata.get("version", "")
        folder = canonicalize_name(_name_and_version(self._info)[0])
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version) or canonicalize_name(name) != folder:
            raise InstalledError(
                f"names {name[:128]!a} {version[:128]!a}, the folder is {self._info!a}", context=self._at("METADATA")
            )
        self._name, self._version = name, version

    def _read_record(self) -> dict[str, tuple[str, str]]:
        where = self._at("RECORD")
        data = self._read(f"{self._info}/RECORD", MAX_RECORD_BYTES)
        result: dict[str, tuple[str, str]] = {}
        try:
            for row in csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True):
                if len(row) != 3:
                    raise InstalledError(f"a line of {len(row)} fields, expected 3: {row[:1]}", context=where)
                path, digest, size = row
                if result.setdefault(path, (digest, size)) != (digest, size):
                    raise InstalledError(f"two lines for {path!r}", context=where)
        except (csv.Error, UnicodeDecodeError) as cause:
            raise InstalledError(f"not a RECORD: {cause}", context=where) from cause
        return result

    def _read_recorded(self, relative: str, limit: int) -> bytes:
        """Read a file of the distribution that the RECORD lists with this content."""
        if relative not in self._record:
            raise InstalledError(f"no line for {relative!r}", context=self._at("RECORD"))
        wanted, size = self._record[relative]
        data = self._read(relative, limit)
        where = f"{self._directory}/{relative}"
        seen = "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        if seen != wanted:
            raise InstalledError(f"has {seen}, RECORD says {wanted or 'nothing'}", context=where)
        if size not in ("", str(len(data))):
            raise InstalledError(f"has {len(data)} bytes, RECORD says {size}", context=where)
        return data

    def _read_live(self, path: str) -> bytes:
        """Read an editable install's live file; root does so only where nobody else could have put it."""
        self._check_editable(path)
        start = open_directory("/")
        as_root = os.geteuid() == 0
        try:
            return read_beneath(start, path_parts(path), MAX_FILE_BYTES, path, owned=as_root)
        except FileAccessError as error:
            error.remedy = "build it again (pip install -e), or install it as a wheel (pip install, without -e)"
            raise
        finally:
            os.close(start)

    def _check_editable(self, path: str) -> None:
        """Require that the installer says: editable, from a folder that holds ``path``."""
        where = self._at("direct_url.json")
        data = self._read_recorded(f"{self._info}/direct_url.json", MAX_DIRECT_URL_BYTES)
        origin = canonical.loads(data, what=where, max_bytes=MAX_DIRECT_URL_BYTES, error=InstalledError)
        dir_info, url = origin.get("dir_info"), origin.get("url")
        if not isinstance(dir_info, dict) or dir_info.get("editable") is not True or not isinstance(url, str):
            raise InstalledError("the index says editable, this says it is not", context=where)
        if not _url_holds(url, path):
            raise InstalledError(f"says {url[:256]!a}, which does not hold {path!a}", context=where)


def _url_holds(url: str, path: str) -> bool:
    try:
        parts = urlsplit(url)
        # Installers write the path as the user gave it, the index has the resolved one.
        project = Path(unquote(parts.path)).resolve()
    except (OSError, RuntimeError, ValueError):  # an odd port or host, a null byte, a loop of links
        return False
    return parts.scheme == "file" and parts.path.startswith("/") and Path(path).is_relative_to(project)


def _installed_error(cause: UxdpError) -> InstalledError:
    error = InstalledError(cause.message, context=cause.context, remedy=cause.remedy)
    error.__cause__ = cause
    return error


def _without_duplicates(functions: list[InstalledFunction], defects: list[InstalledDefect]) -> InstalledScan:
    """Turn a name that two distributions offer into a defect of each: which one is meant cannot be known."""
    offers: dict[str, set[str]] = {}
    for function in functions:
        offers.setdefault(function.name, set()).add(function.distribution)
    for defect in defects:
        if defect.name is not None:
            offers.setdefault(defect.name, set()).add(defect.distribution)
    unique = []
    for function in sorted(functions, key=lambda function: function.name):
        distributions = offers[function.name]
        if len(distributions) == 1:
            unique.append(function)
            continue
        error = InstalledError(
            f"{function.name!r} is offered by {len(distributions)} distributions: {', '.join(sorted(distributions))}",
            remedy=f"pip uninstall all but one, or serve a file: {function.path}",
        )
        defects.append(InstalledDefect(function.distribution, function.name, error))
    return InstalledScan(
        tuple(unique), tuple(sorted(defects, key=lambda defect: (defect.distribution, defect.name or "")))
    )
