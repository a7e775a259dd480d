"""What native code does not have is named with its C line: helper, kfunc, map type, and a use of the context."""

import struct

import pytest

from tests.bound_bundles import bound_image
from tests.hostile.workbench import run_uxdp
from tests.unit.facts_fixtures import HEADER, clang
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile import targets
from uxdp_runtime.compile.compiler import compile_object
from uxdp_runtime.compile.places import place_of
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.unsupported_helpers import reason_of

HELPER = """
static __noinline int inner(struct xdp_md *ctx)
{
	return ctx->rx_queue_index + bpf_send_signal(9); /* line 8 */
}
SEC("xdp") int outer(struct xdp_md *ctx) { return inner(ctx); }
"""
KFUNC = """
extern int bpf_xdp_nothing(struct xdp_md *ctx) __ksym;

SEC("xdp") int outer(struct xdp_md *ctx)
{
	return bpf_xdp_nothing(ctx); /* line 10 */
}
"""
KEYS = """
extern void *bpf_lookup_system_key(__u64 id) __ksym;

SEC("xdp") int outer(struct xdp_md *ctx)
{
	return bpf_lookup_system_key(0) != NULL; /* line 10 */
}
"""
MAP = """
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} groups SEC(".maps");

SEC("xdp") int outer(struct xdp_md *ctx)
{
	return bpf_current_task_under_cgroup(&groups, 0); /* line 15 */
}
"""


def refusal(source: str, tmp_path) -> UnsupportedFeatureError:
    """Compile a source as far as it goes."""
    text = HEADER + source
    (tmp_path / "nf.c").write_text(text)
    image = build(BuildRequest(sources=("nf.c",), cwd=tmp_path)).bundle
    with bound_image(image) as bound, pytest.raises(UnsupportedFeatureError) as caught:
        prepared = program_source(bound, "outer", num_cpus=1, values=None, constants={})
        compile_object(prepared, targets.named_target("x86-64-v3").target)
    return caught.value


def line_of(source: str) -> int:
    """Return the line that its comment names, in the file."""
    return next(number for number, line in enumerate((HEADER + source).splitlines(), 1) if "/* line" in line)


@pytest.mark.parametrize(
    ("source", "name", "function"),
    [
        pytest.param(HELPER, "bpf_send_signal", "inner", id="helper-in-a-subprogram"),
        pytest.param(KFUNC, "bpf_xdp_nothing", "outer", id="kfunc"),
        pytest.param(KEYS, "bpf_lookup_system_key", "outer", id="kfunc-of-the-kernel's-keys"),
        pytest.param(MAP, "map type cgroup_array", "outer", id="map"),
    ],
)
def test_compile_what_is_missing_is_named_with_its_line(source: str, name: str, function: str, tmp_path) -> None:
    error = refusal(source, tmp_path)
    assert error.name == name
    assert error.context == f"nf.c:{line_of(source)}, function {function}"
    assert str(error) == f"{error.context}: {name}: {error.reason}"


def test_place_of_what_a_function_does_not_use_is_where_it_begins() -> None:
    image = clang(HEADER + 'SEC("xdp") int f(struct xdp_md *ctx)\n{\n\treturn ctx->rx_queue_index;\n}')
    assert place_of(image, "bpf_redirect") == ""
    assert place_of(image, "xdp_md", "f").endswith(", function f")
    assert place_of(image, "xdp_md", "f").partition(",")[0].rpartition(":")[2].isdecimal()


def test_place_of_no_object_is_the_function() -> None:
    assert place_of(b"", "bpf_redirect", "f") == "function f"
    assert place_of(b"", "bpf_redirect") == ""


def test_replay_of_what_is_missing_says_where_in_one_line(tmp_path) -> None:
    (tmp_path / "nf.c").write_text(HEADER + HELPER)
    (tmp_path / "nf.uxdp").write_bytes(build(BuildRequest(sources=("nf.c",), cwd=tmp_path)).bundle)
    # An empty capture: struct pcap_file_header, version 2.4, LINKTYPE_ETHERNET.
    (tmp_path / "in.pcap").write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    done = run_uxdp("replay", "nf.uxdp", "in.pcap", "--unverified", "--insecure-unsigned", folder=tmp_path)
    assert done.returncode == UnsupportedFeatureError.exit_code
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("uxdp: error: "))
    place = f"nf.c:{line_of(HELPER)}, function inner"
    assert line == f"uxdp: error: {place}: bpf_send_signal: {reason_of('bpf_send_signal')}"
