"""Native code in a bundle: what a member of role ``native`` holds. FORMAT.md, "Native code", is the specification.

    u32 length of the description · description, canonical JSON · ELF object

Nothing binds native code to the object that the kernel verifies: lowering IR again shows what IR means, but nothing
shows that of machine code. So it is exactly as trustworthy as whoever signed it, and a runtime uses it only if a key
that signed the bundle is trusted for that (``trust.NATIVE_ROLE``). The description says what the code was compiled for
and from; where anything of it differs, the code is not used.
"""

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from . import canonical
from .container import Content
from .errors import BundleFormatError
from .manifest import to_json

NATIVE_MEDIA_TYPE: Final = "application/vnd.uxdp.native-object"
MACHINES: Final = ("aarch64", "x86_64")
MAX_DESCRIPTION_BYTES: Final = 256 << 10
_LENGTH = struct.Struct("<I")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_WORD = re.compile(r"[A-Za-z0-9._+-]{1,64}")
KEYS: Final = frozenset(("cpu", "features", "library", "llvm", "machine", "maps", "object", "program", "values"))


@dataclass(frozen=True, slots=True)
class NativeCode:
    """One program as machine code, and everything that it was compiled for and from.

    - ``program``: the XDP program that frames enter;
    - ``machine``, ``cpu``: the machine, and LLVM's name of the CPU; ``features``: what the code may use beyond the
      baseline of the machine, by LLVM's names, sorted;
    - ``llvm``: full version of the LLVM that compiled it; ``library``: SHA-256 of the native library's bitcode that it
      is linked with, which stands for the ABI between the code, the stores and the runtime;
    - ``object``: SHA-256 of the eBPF object; ``maps``: SHA-256 of the definitions of its maps (``maps_digest``);
    - ``values``: the numbers that stand for CO-RE relocations in it, by the placeholder's name in the IR;
    - ``data``: a relocatable ELF object.
    """

    program: str
    machine: str
    cpu: str
    features: tuple[str, ...]
    llvm: str
    library: str
    object: str
    maps: str
    values: Mapping[str, int]
    data: bytes

    @property
    def name(self) -> str:
        """The member's name: program, machine and CPU."""
        return f"{self.program}/{self.machine}/{self.cpu}"

    def content(self) -> Content:
        """Return the member that holds this code."""
        description = canonical.dumps(
            {key: to_json(getattr(self, key)) for key in KEYS - {"values"}} | {"values": dict(self.values)}
        )
        data = _LENGTH.pack(len(description)) + description + self.data
        return Content("native", self.name, NATIVE_MEDIA_TYPE, data, "zstd")


def maps_digest(maps: tuple[object, ...]) -> str:
    """Return the SHA-256 of maps' definitions, as the manifest writes them: ``NativeCode.maps``."""
    return hashlib.sha256(canonical.dumps({"maps": to_json(maps)})).hexdigest()


def parse_native_code(data: bytes, name: str, *, context: str) -> NativeCode:
    """Parse a member of role ``native``; the object in it is not looked at.

    :param name: the member's
    :param context: what to call the member in errors
    :raises BundleFormatError: it is not as FORMAT.md says
    """

    def refuse(key: str, message: str) -> BundleFormatError:
        return BundleFormatError(message, context=f"{context}.{key}" if key else context)

    if len(data) < _LENGTH.size:
        raise refuse("", f"{len(data)} bytes, too short for native code")
    (length,) = _LENGTH.unpack_from(data)
    if length > min(MAX_DESCRIPTION_BYTES, len(data) - _LENGTH.size):
        raise refuse("", f"a description of {length} bytes, which reaches outside of the member or over the limit")
    end = _LENGTH.size + length
    found = canonical.loads_canonical(data[_LENGTH.size : end], what=context, max_bytes=MAX_DESCRIPTION_BYTES)
    if found.keys() != KEYS:
        difference = sorted(found.keys() ^ KEYS)[0]
        raise refuse(difference[:80], "unknown key" if difference in found else "missing")
    texts = {}
    for key, pattern in (
        *(("cpu", _WORD), ("llvm", _WORD), ("machine", _WORD)),
        *((key, _SHA256) for key in ("library", "maps", "object")),
    ):
        texts[key] = found[key]
        if not isinstance(found[key], str) or not pattern.fullmatch(found[key]):
            raise refuse(key, f"{found[key]!r:.80} does not match {pattern.pattern}")
    if found["machine"] not in MACHINES:
        raise refuse("machine", f"{found['machine']!r}, expected one of {', '.join(MACHINES)}")
    program, features, values = found["program"], found["features"], found["values"]
    if not isinstance(program, str) or not program.isprintable():
        raise refuse("program", f"{program!r:.80}, expected a printable name")
    if (
        not isinstance(features, list)
        or not all(isinstance(name, str) and _WORD.fullmatch(name) for name in features)
        or features != sorted(set(features))
    ):
        raise refuse("features", "expected a sorted array of different names")
    if not isinstance(values, dict) or not all(type(value) is int for value in values.values()):
        raise refuse("values", "expected an object of integers")
    code = NativeCode(program=program, features=tuple(features), values=values, data=data[end:], **texts)
    if code.name != name:
        raise refuse("", f"is called {name!r:.80}, expected {code.name!r}")
    return code
