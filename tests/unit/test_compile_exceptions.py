"""Exceptions natively: handlers of the program's own, which old libbpf cannot load, and what may not throw."""

from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from uxdp_bundle.errors import UnsupportedFeatureError
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.compile.compiler import compile_object
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.native_module import FrameBatch, NativeModule
from uxdp_runtime.stores import Stores, control_library

HEAD = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define handled_by(name) __attribute__((btf_decl_tag("exception_callback:" #name)))

extern void bpf_throw(__u64 cookie) __ksym;
char _license[] SEC("license") = "Dual MIT/GPL";

"""
HANDLERS = """\
__noinline int own(__u64 cookie)
{
	return cookie == 9 ? XDP_TX : XDP_DROP;
}

static __noinline int below(struct xdp_md *ctx)
{
	if (ctx->ingress_ifindex > 1)
		bpf_throw(ctx->ingress_ifindex);
	return 4;
}

SEC("xdp") handled_by(own) int with_handler(struct xdp_md *ctx)
{
	int result = below(ctx);

	if (ctx->rx_queue_index)
		bpf_throw(9);
	return result;
}

SEC("xdp") int without_handler(struct xdp_md *ctx)
{
	return below(ctx) + 1;
}
"""


def verdict(folder: Path, text: str, program: str, *, ifindex: int, queue: int = 0) -> int:
    (folder / "nf.c").write_text(HEAD + text)
    image = build(BuildRequest(sources=("nf.c",), cwd=folder)).bundle
    with bound_image(image) as bound:
        source = program_source(bound, program, num_cpus=1, values=None, constants={})
        native = compile_object(source, host_target())
        batch = FrameBatch(1)
        batch.put(0, bytes(60), ifindex=ifindex, queue=queue)
        NativeModule(native.data, Stores(source.object, source.maps, 1, control_library()), 0).run(batch, 1)
    return batch.result(0).verdict


@pytest.mark.parametrize(
    ("program", "ifindex", "queue", "expected"),
    [
        pytest.param("with_handler", 1, 0, 4, id="nothing-thrown"),
        pytest.param("with_handler", 1, 3, 3, id="by-the-program"),
        pytest.param("with_handler", 9, 0, 3, id="by-a-subprogram"),
        pytest.param("with_handler", 8, 3, 1, id="by-a-subprogram-first"),
        pytest.param("without_handler", 7, 0, 7, id="kernels-handler"),
        pytest.param("without_handler", 1, 0, 5, id="nothing-thrown-without-handler"),
    ],
)
def test_thrown_cookie_is_handled(tmp_path: Path, program: str, ifindex: int, queue: int, expected: int) -> None:
    assert verdict(tmp_path, HANDLERS, program, ifindex=ifindex, queue=queue) == expected


def test_next_frame_starts_without_exception(tmp_path: Path) -> None:
    (tmp_path / "nf.c").write_text(HEAD + HANDLERS)
    image = build(BuildRequest(sources=("nf.c",), cwd=tmp_path)).bundle
    with bound_image(image) as bound:
        source = program_source(bound, "without_handler", num_cpus=1, values=None, constants={})
        module = NativeModule(
            compile_object(source, host_target()).data, Stores(source.object, source.maps, 1, control_library()), 0
        )
        batch = FrameBatch(3)
        for index, ifindex in enumerate((1, 7, 1)):
            batch.put(index, bytes(60), ifindex=ifindex)
        module.run(batch, 3)
    assert [batch.result(index).verdict for index in range(3)] == [5, 7, 5]


CALLBACK = """\
static int step(__u32 index, void *context)
{
	if (index == 3)
		bpf_throw(1);
	return 0;
}

SEC("xdp") int f(struct xdp_md *ctx)
{
	bpf_loop(ctx->ingress_ifindex, step, 0, 0);
	return XDP_PASS;
}
"""
THROWING_HANDLER = """\
__noinline int own(__u64 cookie)
{
	if (cookie > 3)
		bpf_throw(1);
	return 0;
}

SEC("xdp") handled_by(own) int f(struct xdp_md *ctx)
{
	bpf_throw(ctx->ingress_ifindex);
	return XDP_PASS;
}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(CALLBACK, "called by a callback", id="callback"),
        pytest.param(THROWING_HANDLER, "called by a handler of exceptions", id="handler"),
    ],
)
def test_what_the_kernel_refuses_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match=message):
        verdict(tmp_path, text, "f", ifindex=1)
