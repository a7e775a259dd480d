"""What lies around bpf(2) and needs no privileges: layouts, parsing, errors, explanations."""

import ctypes
import errno
import platform

import pytest

from uxdp_bundle.errors import UnsupportedFeatureError, UxdpError
from uxdp_runtime.bpf import capabilities, libbpf, syscall
from uxdp_runtime.bpf.capabilities import missing_to_load, parse_effective
from uxdp_runtime.bpf.cpus import parse_cpu_list
from uxdp_runtime.errors import BpfError, LoadError, MissingCapabilityError, VerifierError, errno_text

# --- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        # Offsets behind the last field used, of union bpf_attr and the info structs of include/uapi/linux/bpf.h.
        pytest.param(syscall._ELEMENT, 32, id="map-element"),
        pytest.param(syscall._BATCH, 56, id="batch"),
        pytest.param(syscall._MAP_CREATE, 72, id="map-create"),
        pytest.param(syscall._PROG_LOAD, 72, id="prog-load"),
        pytest.param(syscall._INFO, 16, id="info"),
        pytest.param(syscall._TEST_RUN, 76, id="test-run"),
        pytest.param(syscall._MAP_INFO, 80, id="bpf_map_info"),
        pytest.param(syscall._PROG_INFO, 224, id="bpf_prog_info"),
    ],
)
def test_layout_has_the_kernels_size(layout, size: int) -> None:
    assert layout.size == size


def test_open_options_have_libbpfs_layout() -> None:
    struct = libbpf._ffi.typeof("struct bpf_object_open_opts")
    assert [(name, field.offset) for name, field in struct.fields] == [
        ("sz", 0),
        ("object_name", 8),
        ("relaxed_maps", 16),
        ("pin_root_path", 24),
        ("removed", 32),
        ("kconfig", 40),
        ("btf_custom_path", 48),
        ("kernel_log_buf", 56),
        ("kernel_log_size", 64),
        ("kernel_log_level", 72),
        ("padding", 76),
    ]
    assert libbpf._ffi.sizeof(struct) == 80


# --- errors --------------------------------------------------------------------------------------


def test_bpf_error_is_an_oserror_with_errno() -> None:
    with pytest.raises(OSError, match="BPF_OBJ_GET_INFO_BY_FD") as caught:
        syscall.map_info(-1)
    assert isinstance(caught.value, BpfError)
    assert isinstance(caught.value, UxdpError)
    assert caught.value.errno in (errno.EBADF, errno.EBADFD)


def test_verifier_error_is_an_oserror_and_exits_with_9() -> None:
    error = VerifierError(errno.EACCES, "nf", "R0 !read_ok", log="…", instruction=3)
    assert isinstance(error, LoadError)
    assert isinstance(error, OSError)
    assert (error.errno, error.exit_code) == (errno.EACCES, 9)
    assert error.message == "the kernel's verifier refused program nf at instruction 3: R0 !read_ok"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.EINVAL, "Invalid argument (EINVAL)"),
        (524, "Operation not supported (ENOTSUPP)"),
        (errno.EOPNOTSUPP, "Operation not supported (EOPNOTSUPP)"),
        (4004, "Unknown error 4004 (4004)"),
    ],
)
def test_errno_text_names_the_symbol(number: int, text: str) -> None:
    assert errno_text(number) == text


def test_bpf_on_an_unknown_machine_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(UnsupportedFeatureError, match="vax"):
        syscall.map_info(-1)


def test_bpf_missing_from_the_kernel_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSuchCall:
        @staticmethod
        def syscall(*_arguments: object) -> int:
            ctypes.set_errno(errno.ENOSYS)
            return -1

    monkeypatch.setattr(syscall, "_libc", NoSuchCall)
    with pytest.raises(UnsupportedFeatureError) as caught:
        syscall.map_info(3)
    assert "CONFIG_BPF_SYSCALL" in caught.value.remedy


# --- libbpf --------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", ["libbpf.so.0", None])
def test_libbpf_missing_or_too_old_names_the_package(old: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_LIBRARY", "libbpf-that-is-not-there.so.1")
    monkeypatch.setattr(ctypes.util, "find_library", lambda _name: old)
    libbpf._library.cache_clear()
    try:
        with pytest.raises(UnsupportedFeatureError) as caught:
            libbpf.libbpf_version()
    finally:
        libbpf._library.cache_clear()
    assert caught.value.name == "libbpf"
    assert caught.value.remedy == "apt install libbpf1"
    assert ("libbpf.so.0 is too old" in caught.value.reason) == (old is not None)


def test_libbpf_without_a_function_names_it_and_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_LIBRARY", "libc.so.6")  # a library, and none of BPF
    libbpf._library.cache_clear()
    try:
        with pytest.raises(UnsupportedFeatureError) as caught:
            libbpf.libbpf_version()
    finally:
        libbpf._library.cache_clear()
    assert caught.value.reason == "libc.so.6 lacks libbpf_major_version, which every 1.x has"
    assert caught.value.remedy == "apt install libbpf1"


def test_libbpf_garbage_is_a_load_error_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LoadError, match="not a proper ELF object") as caught:
        libbpf.LibbpfObject(b"garbage" * 100, "garbage")
    assert caught.value.messages
    assert not any(message.startswith("libbpf:") for message in caught.value.messages)
    assert capfd.readouterr() == ("", "")


# --- capabilities and CPUs -----------------------------------------------------------------------

ALL = 40  # CAP_CHECKPOINT_RESTORE, the last one of Linux 5.9 and newer


def status(*names: str) -> str:
    mask = sum(1 << capabilities.CAPABILITIES[name] for name in names)
    return f"Name:\tuxdp\nCapPrm:\t{(1 << 41) - 1:016x}\nCapEff:\t{mask | 1:016x}\nCapBnd:\t{0:016x}\n"


@pytest.mark.parametrize(
    ("held", "last", "missing"),
    [
        pytest.param([], ALL, ("CAP_BPF", "CAP_NET_ADMIN"), id="none"),
        pytest.param(["CAP_BPF"], ALL, ("CAP_NET_ADMIN",), id="bpf"),
        pytest.param(["CAP_NET_ADMIN", "CAP_PERFMON"], ALL, ("CAP_BPF",), id="net-admin"),
        pytest.param(["CAP_BPF", "CAP_NET_ADMIN"], ALL, (), id="enough"),
        pytest.param(["CAP_SYS_ADMIN"], ALL, (), id="sys-admin"),
        pytest.param(["CAP_NET_ADMIN"], 37, ("CAP_SYS_ADMIN",), id="before-cap-bpf"),
    ],
)
def test_missing_capabilities(held: list[str], last: int, missing: tuple[str, ...]) -> None:
    assert missing_to_load(parse_effective(status(*held)), last_capability=last) == missing


def test_explain_refusal_in_another_user_namespace_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name, text in (
        ("_STATUS", status("CAP_SYS_ADMIN")),
        ("_LAST_CAPABILITY", "40\n"),
        ("_UID_MAP", "         0       1000          1\n"),
    ):
        (tmp_path / name).write_text(text)
        monkeypatch.setattr(capabilities, name, tmp_path / name)
    error = capabilities.explain_refusal("loading", context="nf.uxdp")
    assert isinstance(error, MissingCapabilityError)
    assert "initial user namespace" in error.reason
    assert error.context == "nf.uxdp"
    (tmp_path / "_UID_MAP").write_text("         0          0 4294967295\n")
    assert capabilities.explain_refusal("loading") is None


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-3\n", 4), ("0-3,8,10-11\n", 7)])
def test_cpu_list_counts_cpus(text: str, count: int) -> None:
    assert parse_cpu_list(text) == count


@pytest.mark.parametrize("text", ["", "\n", "a", "0-", "1,,2"])
def test_cpu_list_malformed_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match="no list of CPUs"):
        parse_cpu_list(text)
