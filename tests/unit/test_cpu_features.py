"""CPUs by name: what LLVM says of them, and what the kernel says of this machine."""

import platform

import pytest

from uxdp_runtime.compile import targets
from uxdp_runtime.compile.cpu_features import KERNEL_FLAGS, UNTOLD, host_features
from uxdp_runtime.compile.targets import named_target
from uxdp_runtime.errors import ParameterError

# x86-64 psABI, "Micro-Architecture Levels", without those that only the operating system uses.
V2 = {"crc32", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"}
V3 = V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
V4 = V3 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}


@pytest.mark.parametrize(
    ("name", "machine", "cpu", "features"),
    [
        ("x86-64-generic", "x86_64", "x86-64", set()),
        ("x86-64-v2", "x86_64", "x86-64-v2", V2),
        ("x86-64-v3", "x86_64", "x86-64-v3", V3),
        ("x86_64-x86-64-v4", "x86_64", "x86-64-v4", V4),
        ("aarch64-generic", "aarch64", "generic", {"fp-armv8", "neon"}),
        ("neoverse-n1", "aarch64", "neoverse-n1", {"crc", "dotprod", "lse", "neon", "rcpc"}),
    ],
)
def test_named_target_has_what_its_cpu_has(name, machine, cpu, features):
    named = named_target(name)
    assert (named.target.machine, named.target.cpu) == (machine, cpu)
    if machine == "x86_64":
        assert set(named.features) == features
    assert features <= set(named.features) <= KERNEL_FLAGS[machine].keys()
    assert named.features == tuple(sorted(named.features))


def test_named_target_native_needs_no_more_than_this_machine_has():
    named = named_target("native")
    assert named.target.machine == platform.machine()
    assert named.target.cpu == targets.host_target().cpu
    assert set(named.features) <= host_features()
    assert named.features


def test_named_target_instructions_of_which_the_kernel_does_not_tell_are_left_out():
    named = named_target("diamondrapids")
    assert {"-cmpccxadd", "-egpr"} <= set(named.target.features.split(","))
    assert not {*named.features} & {*UNTOLD["x86_64"]}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("znver33", "no such CPU like it: znver3, .*neoverse-n1.*x86-64-v3", id="misspelt"),
        pytest.param("generic", "no such CPU like it: .*x86-64-generic, aarch64-generic", id="which-machine"),
        pytest.param("aarch64-znver3", "no such CPU.* for aarch64: ", id="other-machine"),
        pytest.param('x" ; y', "no such CPU", id="no-word"),
        pytest.param("", "no such CPU", id="empty"),
        pytest.param("help", "no such CPU", id="llvm-option"),
        pytest.param("i386", "cannot be compiled for: .*64-bit", id="32-bit"),
    ],
)
def test_named_target_wrong_name_lists_what_there_is(name, message):
    with pytest.raises(ParameterError, match=message) as raised:
        named_target(name)
    assert raised.value.exit_code == 2


def test_kernel_flags_are_of_features_that_llvm_knows():
    import llvmlite.binding as llvm

    known = llvm.get_host_cpu_features().keys()
    if platform.machine() == "x86_64":
        assert {*KERNEL_FLAGS["x86_64"], *UNTOLD["x86_64"]} <= known
    for machine, flags in KERNEL_FLAGS.items():
        assert not flags.keys() & {*UNTOLD[machine]}


def test_host_features_agree_with_llvm():
    import llvmlite.binding as llvm

    has = {name for name, present in llvm.get_host_cpu_features().items() if present}
    assert host_features() == has & KERNEL_FLAGS[platform.machine()].keys()


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "processor : 0\nflags\t\t: fpu pni abm\n\nprocessor: 1\nflags: abm pni sse4_2\n", {"sse3", "lzcnt"}),
        ("x86_64", "processor : 0\n", set()),
        ("aarch64", "Features\t: fp asimd atomics\nCPU part : 0xd0c\n", {"fp-armv8", "neon", "lse"}),
        ("riscv64", "isa : rv64gc\n", set()),
    ],
    ids=["what-all-cpus-have", "nothing-told", "aarch64", "another-machine"],
)
def test_host_features_are_the_kernels_flags(machine, cpuinfo, expected):
    assert host_features(machine, cpuinfo) == expected
