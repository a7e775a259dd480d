"""The build hook's outputs: bitcode and control objects for both machines."""

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import pytest

import uxdp_runtime
from uxdp_bundle.bpf_object import BpfObject

HOOK = Path(uxdp_runtime.__file__).parents[1] / "hatch_build.py"
# What a loader has to resolve for native code.
LIBC = {"memcpy", "memmove", "memset", "memcmp", "bcmp", "clock_gettime", "write", "getpid", "process_vm_readv"}
LIBC |= {"syscall"}
# What the loader and the compiler resolve.
RESOLVED = {"uxdp_program", "uxdp_worker", "uxdp_kernel", "uxdp_pool", "uxdp_declared"}
HELPERS = """
map_lookup_elem map_update_elem map_delete_elem xdp_adjust_head xdp_adjust_meta xdp_adjust_tail xdp_load_bytes
xdp_store_bytes xdp_get_buff_len csum_diff ktime_get_ns ktime_get_boot_ns ktime_get_coarse_ns jiffies64
get_smp_processor_id get_prandom_u32 redirect redirect_map ringbuf_output ringbuf_reserve ringbuf_submit
ringbuf_discard ringbuf_query trace_printk loop
""".split()


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    """The hook as a module."""
    spec = importlib.util.spec_from_file_location("native_build_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return module


@pytest.fixture(scope="module")
def outputs(hook: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ...]]:
    """Everything built, outside of the tree."""
    folder = tmp_path_factory.mktemp("native")
    return {machine: hook.build_native(machine, folder) for machine in hook.MACHINES}


@pytest.fixture(params=["x86_64", "aarch64"])
def library(request: pytest.FixtureRequest, outputs: dict[str, tuple[Path, ...]]) -> Iterator[Any]:
    """One machine's bitcode, parsed."""
    yield llvm.parse_bitcode(outputs[request.param][0].read_bytes())


def test_bitcode_has_every_helper(library: Any) -> None:
    defined = {function.name for function in library.functions if not function.is_declaration}
    assert {f"uxdp_helper_{name}" for name in HELPERS} <= defined
    assert {"uxdp_run", "uxdp_tail_target", "uxdp_prefetch", "uxdp_map_update", "uxdp_store_init"} <= defined


def test_bitcode_needs_nothing_but_libc_and_the_program(library: Any) -> None:
    declared = {function.name for function in library.functions if function.is_declaration}
    declared |= {variable.name for variable in library.global_variables if variable.is_declaration}
    assert {name for name in declared if not name.startswith("llvm.")} <= LIBC | RESOLVED


def test_bitcode_names_no_cpu_and_no_path(library: Any) -> None:
    text = str(library)
    assert not re.search(r'"(target-cpu|target-features|tune-cpu)"', text)
    assert str(HOOK.parent) not in text
    assert " asm " not in text


@pytest.mark.parametrize("cpu", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_bitcode_compiles_for_every_level(outputs: dict[str, tuple[Path, ...]], cpu: str) -> None:
    module = llvm.parse_bitcode(outputs["x86_64"][0].read_bytes())
    machine = llvm.Target.from_triple(module.triple).create_target_machine(cpu=cpu, opt=1, reloc="pic")
    assert machine.emit_object(module)[:4] == b"\x7fELF"


def test_bitcode_compiles_for_aarch64(outputs: dict[str, tuple[Path, ...]]) -> None:
    module = llvm.parse_bitcode(outputs["aarch64"][0].read_bytes())
    machine = llvm.Target.from_triple(module.triple).create_target_machine(cpu="generic", opt=1, reloc="pic")
    assert machine.emit_object(module)[18:20] == (183).to_bytes(2, "little")  # EM_AARCH64


def test_build_is_repeated_only_after_a_change(hook: ModuleType, tmp_path: Path) -> None:
    paths = bitcode, *_objects = hook.build_native("x86_64", tmp_path)
    first = [path.read_bytes() for path in paths]
    bitcode.write_bytes(b"kept")
    assert hook.build_native("x86_64", tmp_path)[0].read_bytes() == b"kept"
    os.utime(bitcode, (0, 0))
    hook.build_native("x86_64", tmp_path)
    assert [path.read_bytes() for path in paths] == first
    assert {path.name for path in tmp_path.iterdir()} == {"control-x86_64.o", "ports-x86_64.o", "uxdp-x86_64.bc"}


def test_bpf_programs_are_objects_without_paths(hook: ModuleType, tmp_path: Path) -> None:
    for program in hook.BPF_PROGRAMS:
        output = hook.build_bpf(program, tmp_path)
        data = output.read_bytes()
        assert BpfObject(data).section("xdp") is not None
        assert str(HOOK.parent).encode() not in data
        ir = tmp_path / hook.BPF_IR_OUTPUT.format(program=program)
        assert ir.exists() == (program in hook.BPF_WITH_IR)
        assert not ir.exists() or str(HOOK.parent).encode() not in ir.read_bytes()
        before = output.stat().st_mtime_ns
        assert hook.build_bpf(program, tmp_path).stat().st_mtime_ns == before
