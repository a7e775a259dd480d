"""``verify`` against the running kernel: what is accepted, what is refused and why, and what is left behind."""

import ctypes
import errno
import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bound_bundles import bound_bundle, bound_case, bound_image, made_by_another_llvm
from tests.bundle_factory import CASES, build_case
from tests.isolated_user import isolate
from uxdp_bundle.binding import Binding
from uxdp_bundle.container import open_bundle
from uxdp_bundle.errors import BindingError, UnsupportedFeatureError
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bpf import libbpf, loading, syscall
from uxdp_runtime.bpf.maps import Map
from uxdp_runtime.bpf.relocation import CoreKind, ExternKind, ObjectCode
from uxdp_runtime.bpf.test_run import TestRunner, Verdict
from uxdp_runtime.errors import LoadError, MissingCapabilityError, ParameterError, VerifierError
from uxdp_runtime.verify import VerifiedObject, verify

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

EXAMPLES = Path(__file__).parents[2] / "examples"
FRAME = bytes(64)


def example_image(name: str) -> bytes:
    return build(BuildRequest(sources=(f"{name}.c",), cwd=EXAMPLES / name)).bundle


def u32(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def answers(verified: VerifiedObject, name: str = "answers") -> dict[int, int]:
    items = verified.maps[name].items()
    return {int.from_bytes(key, sys.byteorder): int.from_bytes(value, sys.byteorder) for key, value in items}


def run(verified: VerifiedObject, program: str) -> int:
    with TestRunner(verified.programs[program].fd) as runner:
        return runner.run(FRAME).verdict


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Fail the test if it leaves descriptors open."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    gc.collect()  # what pytest.raises caught refers to the test's frame, which refers to it
    assert len(os.listdir("/proc/self/fd")) <= len(before)


# --- accepted ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/*.c")))
def test_verify_example_is_accepted(name: str, descriptors: None, capfd: pytest.CaptureFixture[str]) -> None:
    with bound_image(example_image(name)) as bound, verify(bound) as verified:
        program = verified.programs[name]
        info = syscall.program_info(program.fd)
        assert list(verified.programs) == [name]
        assert (program.tag, program.id) == (info.tag, info.id)
        assert len(program.tag) == 16
        assert program.processed_instructions >= len(program.code.instructions) // 2
        assert program.verification_time_us is not None
        assert list(verified.maps) == [definition.name for definition in bound.facts.maps]
        assert set(program.maps) <= set(verified.maps)
        for definition in bound.facts.maps:
            item = verified.maps[definition.name]
            assert (item.type, item.info.key_size, item.info.value_size) == (
                definition.type,
                definition.key_size,
                definition.value_size,
            )
        assert len(program.code.instructions) == bound.facts.programs[0].instructions
    assert capfd.readouterr() == ("", "")


def test_verify_object_closed_nothing_stays_in_the_kernel() -> None:
    with bound_image(example_image("firewall")) as bound:
        verified = verify(bound)
        fd = verified.programs["firewall"].fd
        verified.close()
        with pytest.raises(OSError, match="BPF_OBJ_GET_INFO_BY_FD"):
            syscall.program_info(fd)
        verified.close()


def test_verify_bundle_closed_first_object_stays_usable() -> None:
    with bound_case("minimal") as bound:
        verified = verify(bound)
    with verified:
        assert run(verified, "minimal") == Verdict.PASS


def test_verify_file_replaced_after_opening_loads_what_was_authenticated(tmp_path: Path) -> None:
    path = tmp_path / "nf.uxdp"
    path.write_bytes(build_case("minimal"))
    with open_bundle(path) as opened:
        bound = bound_bundle(opened)
        path.write_bytes(build_case("loading/sections"))
        with verify(bound) as verified:
            assert list(verified.programs) == ["minimal"]
            assert run(verified, "minimal") == Verdict.PASS


def test_verify_programs_of_several_ages_and_types_loads_only_xdp() -> None:
    with bound_case("loading/sections") as bound, verify(bound) as verified:
        # on_demand is loaded because a prog_array holds it from the start.
        assert list(verified.programs) == ["on_demand", "older", "newer"]
        assert all(syscall.program_info(p.fd).type == syscall.PROG_TYPE_XDP for p in verified.programs.values())
        assert run(verified, "older") == Verdict.TX


def test_verify_named_program_loads_no_other() -> None:
    with bound_case("loading/sections") as bound:
        with verify(bound, programs=["with_frags"]) as verified:
            assert list(verified.programs) == ["on_demand", "with_frags"]
        with pytest.raises(ParameterError, match="no such program, but on_demand, older, newer, with_frags"):
            verify(bound, programs=["classifier"])
        with pytest.raises(ParameterError):
            verify(bound, programs=[])


# --- constants, sizes, pins ----------------------------------------------------------------------


def copied(verified: VerifiedObject) -> bytes:
    assert run(verified, "settings") == Verdict.PASS
    return verified.maps["copies"].lookup(u32(0))


def test_verify_params_set_reach_the_program() -> None:
    values: dict[str, int | bytes] = {
        "limit": 0xFFFFFFFF,
        "offset": -32768,
        "seed": 5,
        "enabled": 0,
        "mode": 1,
        "range": b"\x01\x02\x03\x04",
        "label": b"wxyz",
        "other": 200,
    }
    with bound_case("loading/settings") as bound:
        with verify(bound) as verified:
            before = copied(verified)
            assert verified.params == {}
            assert int.from_bytes(before[8:12], sys.byteorder) == 64
        with verify(bound, params=values) as verified:
            expected = (5).to_bytes(8, sys.byteorder) + u32(0xFFFFFFFF) + u32(1)
            expected += (-32768).to_bytes(2, sys.byteorder, signed=True) + b"\x01\x02\x03\x04" + b"wxyz" + b"\x00\xc8"
            assert copied(verified)[: len(expected)] == expected
            assert verified.params["limit"] == b"\xff" * 4
            assert b"wxyz" in verified.constants[".rodata"]
            assert verified.constants[".rodata.other"] == b"\xc8"


def test_verify_constants_are_frozen() -> None:
    with bound_case("loading/settings") as bound, verify(bound) as verified:
        for section in (".rodata", ".rodata.other"):
            item = verified.maps[section]
            assert "frozen:\t1" in Path(f"/proc/self/fdinfo/{item.fd}").read_text()
            with pytest.raises(OSError, match="EPERM"):
                item.update(u32(0), bytes(item.info.value_size))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("limit", 1 << 32, id="too-large"),
        pytest.param("limit", -1, id="negative"),
        pytest.param("offset", 32768, id="signed-too-large"),
        pytest.param("enabled", 2, id="not-a-truth-value"),
        pytest.param("range", 1, id="integer-for-a-struct"),
        pytest.param("label", b"abc", id="too-short"),
        pytest.param("limits", 1, id="no-such-constant"),
        pytest.param("runs", 1, id="not-constant"),
    ],
)
def test_verify_wrong_param_is_a_parameter_error(name: str, value: int | bytes) -> None:
    with bound_case("loading/settings") as bound, pytest.raises(ParameterError) as caught:
        verify(bound, params={name: value})
    assert caught.value.context == f"constant {name}"
    assert caught.value.exit_code == 2


def test_verify_max_entries_resizes_a_map() -> None:
    with bound_case("loading/sections") as bound:
        with verify(bound, max_entries={"pinned_by_name": 77}) as verified:
            assert verified.maps["pinned_by_name"].info.max_entries == 77
        for name in ("nothing", ".rodata"):
            with pytest.raises(ParameterError, match="declares no such map"):
                verify(bound, max_entries={name: 1})


def test_verify_pins_only_where_asked_to(bpffs: Path) -> None:
    with bound_case("loading/sections") as bound:
        with verify(bound):
            assert not Path("/sys/fs/bpf/pinned_by_name").exists()
        with verify(bound, pin_path=bpffs / "nf") as verified:
            verified.maps["pinned_by_name"].update(u32(1), u32(2))
        assert sorted(path.name for path in (bpffs / "nf").iterdir()) == ["pinned_by_name", "stages"]
        with verify(bound, pin_path=bpffs / "nf") as again:
            assert again.maps["pinned_by_name"].lookup(u32(1)) == u32(2)
        with pytest.raises(LoadError, match="couldn't reuse pinned map"):
            verify(bound, pin_path=bpffs / "nf", max_entries={"pinned_by_name": 9})


def test_verify_pin_path_outside_of_a_bpffs_says_so(tmp_path: Path) -> None:
    with bound_case("loading/sections") as bound, pytest.raises(LoadError, match="not on BPF FS") as caught:
        verify(bound, pin_path=tmp_path)
    assert isinstance(caught.value, OSError)
    assert caught.value.errno == errno.EINVAL


# --- what libbpf chose ---------------------------------------------------------------------------


def test_verify_core_values_are_those_that_the_program_sees() -> None:
    with bound_case("loading/core") as bound, verify(bound) as verified:
        assert run(verified, "core") == Verdict.PASS
        assert run(verified, "other") == Verdict.DROP
        seen = answers(verified)
        by_access = {
            (value.type_name, value.kind, value.access): value.value for value in verified.core_values.values()
        }
        assert seen[0] == by_access["xdp_buff", CoreKind.FIELD_BYTE_OFFSET, "0:1"]
        assert seen[1] == by_access["xdp_rxq_info", CoreKind.FIELD_EXISTS, "0:1"] == 0
        assert seen[2] == by_access["net_device", CoreKind.FIELD_BYTE_SIZE, "0:1"] == 4
        assert seen[3] == by_access["xdp_buff", CoreKind.TYPE_SIZE, "0"] > 16
        assert seen[4] == by_access["xdp_mem_type", CoreKind.ENUMVAL_VALUE, "1"] != 99
        assert seen[5] == by_access["xdp_mem_type", CoreKind.ENUMVAL_EXISTS, "0"] == 0
        assert by_access["xdp_rxq_info", CoreKind.FIELD_BYTE_OFFSET, "0:1"] is None
        assert seen[6] == 0
        assert seen[10] == by_access["xdp_buff", CoreKind.FIELD_BYTE_OFFSET, "0:0"]
        # In a static subprogram that both programs call.
        assert seen[11] == seen[14] == by_access["net_device", CoreKind.FIELD_BYTE_OFFSET, "0:1"] > 4
        placeholders = verified.placeholders()
        assert placeholders["llvm.net_device:0:4$0:1"] == seen[11]
        assert placeholders["llvm.xdp_mem_type:11:99$1"] == seen[4]
        assert placeholders["llvm.xdp_rxq_info:0:8$0:1"] == 0xBAD2310
        ir = bound.ir or b""
        assert all(name.encode() in ir for name in placeholders if name.startswith("llvm.xdp_buff"))


def test_verify_externs_are_those_that_the_program_sees() -> None:
    with bound_case("loading/core") as bound, verify(bound) as verified:
        assert run(verified, "core") == Verdict.PASS
        seen = answers(verified)
        assert int.from_bytes(verified.kconfig["LINUX_KERNEL_VERSION"], sys.byteorder) == seen[20] > 0x050000
        assert verified.kconfig["CONFIG_NO_SUCH_THING"] == u32(0)
        assert verified.placeholders()["LINUX_KERNEL_VERSION"] == seen[20]
        assert verified.placeholders()["CONFIG_BPF_SYSCALL"] == seen[21]
        assert verified.externs["no_such_symbol"].value == seen[23] == 0
        assert verified.externs["no_such_kfunc"].value == 0
        assert verified.externs["CONFIG_BPF_SYSCALL"].kind is ExternKind.KCONFIG


def test_verify_places_lead_to_the_lines_of_subprograms() -> None:
    with bound_case("loading/core") as bound, verify(bound) as verified:
        code = ObjectCode(bound.authentic.bundle.object)
        places = verified.programs["core"].code.places
        texts = {line.text for place in places if (line := code.line_at(place)) is not None}
        for text in ("return put(base,", "put(10,", "return bpf_map_update_elem("):
            assert any(line.startswith(text) for line in texts), text
        assert len(set(places)) == len(places)


# --- another LLVM --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loading/settings", "loading/core", "loading/sections"])
def test_verify_made_by_another_llvm_loads_both_objects(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    original = libbpf.LibbpfObject.load
    monkeypatch.setattr(libbpf.LibbpfObject, "load", lambda self: (loads.append(self), original(self))[1])
    with bound_image(made_by_another_llvm(name)) as bound:
        assert bound.binding is Binding.MUST_REVERIFY
        with verify(bound) as verified:
            assert verified.reverified
            assert len(loads) == 2
            entry = list(verified.programs)[-1]
            assert run(verified, entry) in (Verdict.PASS, Verdict.DROP)
            if name == "loading/sections":
                # What the prog_array holds is the object's program still, not the relowered one's.
                assert run(verified, "older") == Verdict.TX
                held = int.from_bytes(verified.maps["stages"].lookup(u32(2)), sys.byteorder)
                assert held == verified.programs["on_demand"].id


def test_verify_relowered_object_refused_is_refused(tmp_path: Path) -> None:
    source = (CASES / "rejected" / "out_of_bounds.c").read_text().replace("int out_of_bounds(", "int minimal(")
    (tmp_path / "bad.c").write_text(source)
    bad = build(BuildRequest(sources=("bad.c",), cwd=tmp_path)).bundle
    with bound_image(made_by_another_llvm("minimal")) as bound, bound_image(bad) as refused:
        # What takes a defect in LLVM: the IR of an accepted program lowers to a refused one.
        object.__setattr__(bound, "relowered", bytes(refused.authentic.bundle.object))
        with pytest.raises(VerifierError, match="lowered again"):
            verify(bound)


def test_verify_relowered_object_with_other_maps_is_refused() -> None:
    with bound_image(made_by_another_llvm("loading/settings")) as bound, bound_case("loading/core") as other:
        object.__setattr__(bound, "relowered", bytes(other.authentic.bundle.object))
        with pytest.raises(BindingError, match="other maps"):
            verify(bound)


# --- refused -------------------------------------------------------------------------------------


def test_verify_out_of_bounds_names_instruction_and_line(descriptors: None, capfd: pytest.CaptureFixture[str]) -> None:
    with bound_case("rejected/out_of_bounds") as bound, pytest.raises(VerifierError) as caught:
        verify(bound)
    error = caught.value
    assert error.exit_code == 9
    assert error.errno == errno.EACCES
    assert error.program == "out_of_bounds"
    assert error.instruction is not None
    assert str(error.source) == "rejected/out_of_bounds.c:14"
    assert error.source is not None
    assert error.source.text == "return data[14] ? XDP_PASS : XDP_TX;"
    assert "invalid access to packet, off=14 size=1" in error.reason
    assert f"{error.instruction}: (71)" in error.log
    assert "processed" in error.log
    assert error.context == "rejected/out_of_bounds.uxdp"
    assert capfd.readouterr() == ("", "")


def test_verify_defect_in_a_subprogram_names_its_line() -> None:
    with bound_case("rejected/subprogram") as bound:
        with pytest.raises(VerifierError) as caught:
            verify(bound)
        assert caught.value.program == "subprogram"
        assert caught.value.source is not None
        assert caught.value.source.text == "return *total;"
        assert "map_value_or_null" in caught.value.reason
        with verify(bound, programs=["fine"]) as verified:
            assert list(verified.programs) == ["fine"]


def test_verify_long_log_is_kept_whole(descriptors: None) -> None:
    with bound_case("rejected/unbounded_loop") as bound, pytest.raises(VerifierError) as caught:
        verify(bound)
    error = caught.value
    assert len(error.log) > 8 << 20
    assert error.log.startswith("0: R1=ctx")
    assert error.errno != errno.ENOSPC
    assert error.source is not None
    assert error.source.file == "rejected/unbounded_loop.c"


def test_verify_log_larger_than_the_largest_buffer_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        loading, "_LOGS", (*loading._LOGS[:1], (loading.LOG_LEVEL, 1 << 16), (loading.LOG_LEVEL, 1 << 17))
    )
    with bound_case("rejected/unbounded_loop") as bound, pytest.raises(VerifierError) as caught:
        verify(bound)
    assert len(caught.value.log) > 1 << 16
    assert "too complex" in caught.value.reason


def test_verify_log_of_an_accepted_program_larger_than_its_buffer_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_LOGS", ((loading.LOG_LEVEL, 64), *loading._LOGS[1:]))
    with bound_case("minimal") as bound, verify(bound) as verified:
        assert run(verified, "minimal") == Verdict.PASS


def test_verify_long_log_of_an_accepted_program_hides_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_LOGS", (*loading._LOGS[:1], (loading.LOG_LEVEL, 256)))
    with bound_case("rejected/subprogram") as bound, pytest.raises(VerifierError) as caught:
        verify(bound, programs=["fine", "subprogram"])
    assert caught.value.program == "subprogram"
    assert "map_value_or_null" in caught.value.reason


# --- the command ---------------------------------------------------------------------------------


def command(*arguments: object) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "uxdp_runtime", "verify", "--insecure-unsigned", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch, tmp_path)


def test_command_accepts_an_example_with_another_constant(isolated: None, tmp_path: Path) -> None:
    path = tmp_path / "firewall.uxdp"
    path.write_bytes(example_image("firewall"))
    result = command(path, "--json", "--param", "default_action=0")
    assert result.returncode == 0
    document = json.loads(result.stdout)
    assert document["programs"][0]["instructions_processed"] > 100
    assert {item["name"] for item in document["maps"]} >= {"rules4", "rules6", "counters", ".rodata"}
    assert document["params"] == {"default_action": "00000000"}


def test_command_shows_the_line_of_a_refused_program(isolated: None, tmp_path: Path) -> None:
    path = tmp_path / "subprogram.uxdp"
    path.write_bytes(build_case("rejected/subprogram"))
    result = command(path)
    assert result.returncode == 9
    assert result.stdout == ""
    assert "rejected/subprogram.c:22:  return *total;\n" in result.stderr
    assert "lines before these of the verifier's log" in result.stderr
    assert "uxdp: error: " in result.stderr


# --- without privileges --------------------------------------------------------------------------

_CHILD = """
import json, os, sys
from tests.bound_bundles import bound_image
from uxdp_bundle.errors import UxdpError
from uxdp_runtime.verify import verify
with open(sys.argv[1], "rb") as file, bound_image(file.read()) as bound:
    try:
        with verify(bound):
            answer = {"type": "accepted"}
    except UxdpError as error:
        answer = {"type": type(error).__name__, "message": str(error), "remedy": error.remedy,
                  "exit_code": error.exit_code, "missing": getattr(error, "missing", None)}
print(json.dumps(answer))
"""
_PR_CAPBSET_DROP = 24
CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF = 12, 21, 38, 39


def verify_without(tmp_path: Path, image: bytes, *capabilities: int) -> dict[str, object]:
    """Verify in a child that has lost capabilities for good: with exec, root regains what its bounding set has."""
    path = tmp_path / "nf.uxdp"
    path.write_bytes(image)
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        for number in capabilities:
            if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP")

    result = subprocess.run(
        [sys.executable, "-c", _CHILD, str(path)],
        cwd=Path(__file__).parents[2],
        preexec_fn=drop,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


@pytest.mark.parametrize(
    ("dropped", "missing"),
    [
        pytest.param([CAP_BPF, CAP_SYS_ADMIN], ["CAP_BPF"], id="bpf"),
        pytest.param([CAP_NET_ADMIN, CAP_SYS_ADMIN], ["CAP_NET_ADMIN"], id="net-admin"),
        pytest.param([CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN], ["CAP_BPF", "CAP_NET_ADMIN"], id="both"),
    ],
)
def test_verify_without_capabilities_names_those_that_are_missing(
    dropped: list[int], missing: list[str], tmp_path: Path
) -> None:
    answer = verify_without(tmp_path, example_image("flow_meter"), *dropped)
    assert answer["type"] == "MissingCapabilityError"
    assert answer["missing"] == missing
    assert answer["exit_code"] == 8
    assert "kernel.unprivileged_bpf_disabled is" in str(answer["message"])
    assert "CAP_PERFMON" in str(answer["remedy"])


def test_verify_with_bpf_and_net_admin_alone_succeeds(tmp_path: Path) -> None:
    answer = verify_without(tmp_path, example_image("l2_swap"), CAP_SYS_ADMIN, CAP_PERFMON)
    assert answer["type"] == "accepted"


def test_verify_refused_without_perfmon_says_that_it_may_be_why(tmp_path: Path) -> None:
    # It subtracts pointers.
    answer = verify_without(tmp_path, example_image("flow_meter"), CAP_SYS_ADMIN, CAP_PERFMON)
    assert answer["type"] == "VerifierError"
    assert "CAP_PERFMON" in str(answer["remedy"])


def test_missing_capability_is_a_permission_error() -> None:
    error = MissingCapabilityError(["CAP_BPF"], "missing")
    assert isinstance(error, PermissionError)
    assert error.errno == errno.EPERM


# --- map types -----------------------------------------------------------------------------------


def test_verify_map_type_that_the_kernel_has_not_got_is_named(tmp_path: Path) -> None:
    source = (CASES / "loading" / "sections.c").read_text().replace("BPF_MAP_TYPE_HASH", "4711")
    (tmp_path / "odd.c").write_text(source)
    image = build(BuildRequest(sources=("odd.c",), cwd=tmp_path)).bundle
    with bound_image(image) as bound, pytest.raises(UnsupportedFeatureError, match="map type type#4711") as caught:
        verify(bound)
    assert "pinned_by_name" in caught.value.reason


def build_text(folder: Path, text: str) -> bytes:
    head = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    tail = '\nchar _license[] SEC("license") = "GPL";\n'
    (folder / "odd.c").write_text(head + text + tail)
    return build(BuildRequest(sources=("odd.c",), cwd=folder)).bundle


def test_verify_kfunc_that_the_kernel_has_not_got_is_named(tmp_path: Path) -> None:
    text = "extern int bpf_no_such_kfunc(void) __ksym;\n"
    text += 'SEC("xdp") int odd(struct xdp_md *ctx) { return bpf_no_such_kfunc() + ctx->rx_queue_index; }'
    with (
        bound_image(build_text(tmp_path, text)) as bound,
        pytest.raises(UnsupportedFeatureError, match="kfunc bpf_no_such_kfunc") as caught,
    ):
        verify(bound)
    assert "newer kernel" in caught.value.remedy


def test_verify_configuration_that_the_kernel_has_not_got_is_named(tmp_path: Path) -> None:
    text = "extern int CONFIG_NO_SUCH_THING __kconfig;\n"
    text += 'SEC("xdp") int odd(struct xdp_md *ctx) { return CONFIG_NO_SUCH_THING + ctx->rx_queue_index; }'
    with bound_image(build_text(tmp_path, text)) as bound, pytest.raises(LoadError, match="CONFIG_NO_SUCH_THING"):
        verify(bound)


def test_verify_map_that_the_kernel_refuses_is_named(tmp_path: Path) -> None:
    with bound_case("loading/sections") as bound, pytest.raises(LoadError, match="map 'pinned_by_name'") as caught:
        verify(bound, max_entries={"pinned_by_name": 0})
    assert caught.value.errno == errno.EINVAL
    assert not isinstance(caught.value, VerifierError)
    assert caught.value.exit_code == 9


def test_kernel_has_map_type_knows_hash_and_not_4711() -> None:
    assert libbpf.kernel_has_map_type(1) is True
    assert libbpf.kernel_has_map_type(4711) is False


def test_verified_maps_are_borrowed() -> None:
    with bound_case("loading/settings") as bound, verify(bound) as verified:
        verified.maps["copies"].close()
        assert len(copied(verified)) > 0
        with Map(os.dup(verified.maps[".bss"].fd), owned=True) as counter, counter.mmap() as memory:
            assert int.from_bytes(memory[:8], sys.byteorder) == 1
