"""SUPPORT.md says what the native library has: no more, no less."""

import re
from pathlib import Path

import llvmlite.binding as llvm
import pytest

from tests.map_shapes import shape
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_bundle.helpers import HELPERS, NOT_FOR_XDP
from uxdp_bundle.manifest import MapDefinition
from uxdp_bundle.map_definitions import MAP_TYPES
from uxdp_runtime import abi
from uxdp_runtime.compile import kfuncs
from uxdp_runtime.compile.calls import PREFIX, UnsupportedCallError, rewrite_calls
from uxdp_runtime.compile.compiler import NATIVE_FOLDER, native_library
from uxdp_runtime.compile.ir_text import Module, parse_module
from uxdp_runtime.compile.unsupported_helpers import UNSUPPORTED as UNSUPPORTED_HELPERS
from uxdp_runtime.compile.unsupported_kfuncs import UNSUPPORTED
from uxdp_runtime.compile.unsupported_maps import UNSUPPORTED as UNSUPPORTED_MAPS
from uxdp_runtime.stores import Stores, control_library

CASES = {path.stem: path.read_text() for path in (Path(__file__).parents[1] / "cases" / "native").glob("*.c")}
TEXT = (Path(__file__).parents[2] / "SUPPORT.md").read_text()
ROWS = re.compile(r"^\| `(\w+)` \| (yes|refused) \|(?: [^|]*\|)?$", re.MULTILINE)
REASONS = re.compile(r"^\| `(bpf_\w+)` \| refused \| ([^|]+) \|$", re.MULTILINE)


# Flags of maps that native code knows.
FLAGS = set(re.findall(r"\b(BPF_F_\w+) = ", (NATIVE_FOLDER / "kernel.h").read_text().partition("BPF_F_ACCESS_MASK")[0]))
# Which helpers take a map of a type, where it is not lookups and the like.
# Source: kernel/bpf/verifier.c, check_map_func_compatibility
ANYTHING = ("bpf_map_lookup_elem",)
ACCESS = {
    "stack_trace": ("bpf_get_stackid",),
    "cgroup_array": ("bpf_skb_under_cgroup", "bpf_current_task_under_cgroup"),
    "cgroup_storage": ("bpf_get_local_storage",),
    "percpu_cgroup_storage": ("bpf_get_local_storage",),
    "reuseport_sockarray": ("bpf_sk_select_reuseport",),
    "sk_storage": ("bpf_sk_storage_get", "bpf_sk_storage_delete"),
    "inode_storage": ("bpf_inode_storage_get", "bpf_inode_storage_delete"),
    "task_storage": ("bpf_task_storage_get", "bpf_task_storage_delete"),
    "cgrp_storage": ("bpf_cgrp_storage_get", "bpf_cgrp_storage_delete"),
    "user_ringbuf": ("bpf_user_ringbuf_drain",),
    # No program names these: not a type, one for the kernel's own callbacks, one for jumps of the program.
    "unspec": (),
    "struct_ops": (),
    "insn_array": (),
}


def _table(title: str) -> dict[str, bool]:
    section = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return {name: state == "yes" for name, state in ROWS.findall(section)}


def test_support_lists_exactly_the_helpers_that_xdp_may_call() -> None:
    assert list(_table("Helpers")) == [name for name in HELPERS[1:] if name not in NOT_FOR_XDP]


def test_support_says_why_helpers_stay_refused() -> None:
    section = TEXT.partition("## Helpers\n")[2].partition("\n## ")[0]
    assert dict(REASONS.findall(section)) == UNSUPPORTED_HELPERS


def test_support_says_why_maps_stay_refused() -> None:
    section = TEXT.partition("## Maps\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| refused \| (.+) \|$", section, re.MULTILINE)
    assert (
        dict(rows)
        == UNSUPPORTED_MAPS
        == {name: UNSUPPORTED_MAPS[name] for name, ok in _table("Maps").items() if not ok}
    )


def test_support_lists_exactly_the_maps_that_a_helper_for_xdp_takes() -> None:
    callable_helpers = set(HELPERS[1:]) - NOT_FOR_XDP
    wanted = [kind for kind in MAP_TYPES if callable_helpers & set(ACCESS.get(kind, ANYTHING))]
    assert sorted(_table("Maps")) == sorted(wanted)


@pytest.mark.parametrize("name", [name for name, supported in _table("Helpers").items() if supported])
def test_supported_helper_has_a_case(name: str) -> None:
    assert any(re.search(rf"\b{name}\(", text) for text in CASES.values())


@pytest.mark.parametrize("name", [name for name, supported in _table("Maps").items() if supported])
def test_supported_map_has_a_case(name: str) -> None:
    assert any(f"BPF_MAP_TYPE_{name.upper()})" in text for text in CASES.values())


def test_supported_map_flags_name_their_cases() -> None:
    rows = re.findall(r"^\| `(BPF_F_\w+)` \| (yes|refused)[^|]* \| (.+) \|$", TEXT, re.MULTILINE)
    assert {name for name, state, _cases in rows if state == "yes"} == FLAGS
    for name, state, cases in rows:
        used = {case for case, text in CASES.items() if re.search(rf"\b{name}\b", text)}
        assert set(re.findall(r"`(\w+)`", cases)) <= used
        assert bool(used) == (state == "yes")


def test_support_says_which_kfuncs_the_native_library_defines_and_why_it_lacks_others() -> None:
    library = llvm.parse_bitcode(native_library("x86_64"))
    native = {
        f"bpf_{function.name.removeprefix(kfuncs.PREFIX)}"
        for function in library.functions
        if function.name.startswith(kfuncs.PREFIX) and not function.is_declaration
    }
    section = TEXT.partition("## Kfuncs\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (yes|refused) \|(?: (.+))? \|$", section, re.MULTILINE)
    assert [name for name, _state, _reason in rows] == sorted({name for name, _state, _reason in rows})
    assert {name for name, state, reason in rows if state == "yes" and not reason} == native
    assert {name: reason for name, state, reason in rows if state == "refused"} == UNSUPPORTED
    sources = "".join(path.read_text() for path in (Path(__file__).parents[1] / "cases").rglob("*.c"))
    assert {name for name in native if not re.search(rf"\b{name}\(", sources)} == set()


def test_supported_features_name_their_cases() -> None:
    section = TEXT.partition("| feature | native | cases |\n")[2].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section]
    assert len(rows) > 10
    for _feature, native, cases in rows:
        names = re.findall(r"`(\w+)`", cases)
        assert set(names) <= CASES.keys()
        assert bool(names) != native.startswith("refused")


def test_support_lists_exactly_the_network_functions() -> None:
    section = TEXT.partition("## Network functions that agree\n")[2].partition("\n## ")[0]
    sources = (Path(__file__).parents[1] / "cases" / "network_functions").iterdir()
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == sorted(path.stem for path in sources)


def test_support_says_which_helpers_the_native_library_defines() -> None:
    library = llvm.parse_bitcode(native_library("x86_64"))
    native = {
        f"bpf_{function.name.removeprefix(PREFIX)}"
        for function in library.functions
        if function.name.startswith(PREFIX) and not function.is_declaration
    }
    # The compiler makes tail calls itself; the library only finds their target.
    assert {name for name, supported in _table("Helpers").items() if supported} == native | {"bpf_tail_call"}


@pytest.fixture(scope="module")
def native_signatures() -> dict[str, str]:
    """The types of the native library's functions, as the compiler asks it for them."""
    functions = llvm.parse_bitcode(native_library("x86_64")).functions
    return {one.name: str(one.global_value_type) for one in functions if not one.is_declaration}


def _calling(callee: str, declared: str = "") -> Module:
    text = f"{declared}define i32 @nf() {{\n  %r = call i64 {callee}()\n  ret i32 0\n}}\n"
    return parse_module(str(llvm.parse_assembly(text)))


@pytest.mark.parametrize("name", UNSUPPORTED_HELPERS)
def test_refused_helper_is_refused_by_name_with_its_reason(name: str, native_signatures: dict[str, str]) -> None:
    module = _calling(f"inttoptr (i64 {HELPERS.index(name)} to ptr)")
    with pytest.raises(UnsupportedCallError) as refused:
        rewrite_calls(module, native_signatures, ["nf"])
    assert (refused.value.name, refused.value.reason) == (name, UNSUPPORTED_HELPERS[name])


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_refused_kfunc_is_refused_by_name_with_its_reason(name: str, native_signatures: dict[str, str]) -> None:
    module = _calling(f"@{name}", f'declare i64 @{name}() section ".ksyms"\n')
    with pytest.raises(UnsupportedCallError) as refused:
        kfuncs.rewrite_kfuncs(module, native_signatures, {})
    assert (refused.value.name, refused.value.reason) == (name, UNSUPPORTED[name])


@pytest.fixture(scope="module")
def minimal_object(minimal_image: bytes) -> bytes:
    """An object without maps."""
    with bundle_from_bytes(minimal_image) as bundle:
        return bytes(bundle.object)


@pytest.mark.parametrize(("kind", "supported"), _table("Maps").items(), ids=lambda value: str(value))
def test_support_says_which_maps_have_a_store(minimal_object: bytes, kind: str, supported: bool) -> None:
    key, value, entries = shape(kind)
    flags = 1 if kind == "lpm_trie" else 0  # BPF_F_NO_PREALLOC, which the kernel demands for a trie
    inner = MapDefinition("", "hash", 4, 4, 4, 0, pinning=False, inner=None) if kind.endswith("_of_maps") else None
    definition = MapDefinition("m", kind, key, value, entries, flags, pinning=False, inner=inner)
    if supported:
        stores = Stores(minimal_object, [definition], 1, control_library())
        assert stores["m"].descriptor.max_entries == entries
        assert isinstance(stores["m"].descriptor, abi.Map)
    else:
        with pytest.raises(UnsupportedFeatureError, match=kind):
            Stores(minimal_object, [definition], 1, control_library())
