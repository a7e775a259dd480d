"""uxdp bench: every repetition gets the next flow's frame as it was at first, whatever the program did to the last."""

import json
import mmap
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bound_bundles import bound_case
from tests.isolated_user import isolate
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.bench.kernel_side import KernelSide
from uxdp_runtime.bench.limit import compile_source
from uxdp_runtime.bench.native_side import BURST, EXPORTED, NativeSide
from uxdp_runtime.bench.workload import HEAD_BYTES, flow_frame
from uxdp_runtime.cli import main
from uxdp_runtime.compile.compiler import Variant, compile_object
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import host_target
from uxdp_runtime.errors import ParameterError
from uxdp_runtime.stores import Stores, control_library
from uxdp_runtime.verify import verify

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]

EXAMPLES = Path(__file__).parents[2] / "examples"
FLOWS = 60
FRAMES = 600  # ten of each flow
WITNESS = struct.Struct("=3Q")
FRAME = flow_frame(proto="udp", payload_bytes=100)


def native_side() -> NativeSide:
    with bound_case("bench_witness") as bound:
        source = program_source(bound, "bench_witness", num_cpus=1, values=None, constants={})
        native = compile_object(source, host_target(), Variant(EXPORTED))
        return NativeSide(native, Stores(source.object, source.maps, 1, control_library()), 0, FRAME)


def test_kernel_side_restores_every_frame() -> None:
    with bound_case("bench_witness") as bound, verify(bound) as verified:
        program = verified.programs["bench_witness"]
        with KernelSide(program, FRAME, FLOWS) as side:
            native_side().fill(side.heads(), FLOWS, FRAME)
            assert side.time(FRAMES) > 0
            assert side.verdict() == 3
        frames, size, wrong = WITNESS.unpack(verified.maps["witness"].lookup(bytes(4)))
        assert (frames, size, wrong) == (FRAMES + 1, (FRAMES + 1) * len(FRAME.data), 0)
        counts = sorted(struct.unpack("=Q", value)[0] for _key, value in verified.maps["sources"].items())
        assert counts == [FRAMES // FLOWS] * (FLOWS - 1) + [FRAMES // FLOWS + 1]


def test_native_side_restores_every_frame() -> None:
    frames = BURST * FLOWS
    side = native_side()
    heads = mmap.mmap(-1, FLOWS * HEAD_BYTES)
    side.fill(heads, FLOWS, FRAME)
    side.use_heads(heads, FLOWS)
    assert side.time(frames) > 0
    assert side.verdicts() == {3: frames}
    seen, size, wrong = WITNESS.unpack(side.stores["witness"].lookup(bytes(4)) or b"")
    assert (seen, size, wrong) == (frames, frames * len(FRAME.data), 0)
    assert {value for _key, value in side.stores["sources"].items()} == {struct.pack("=Q", frames // FLOWS)}
    assert side.time_empty(frames) > 0
    assert WITNESS.unpack(side.stores["witness"].lookup(bytes(4)) or b"")[0] == frames


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The load balancer's bundle."""
    isolate(monkeypatch, tmp_path)
    path = tmp_path / "load_balancer.uxdp"
    path.write_bytes(build(BuildRequest(sources=("load_balancer.c",), cwd=EXAMPLES / "load_balancer")).bundle)
    return path


def test_bench_prints_all_variants_and_writes_a_chart(bundle: Path, tmp_path: Path) -> None:
    folder = EXAMPLES / "load_balancer"
    chart = tmp_path / "bench.svg"
    arguments = ["bench", str(bundle), "--insecure-unsigned", "--json", "--flows", "1,100", "--frames", "2000"]
    arguments += ["--rounds", "3", "--workload", str(folder / "bench.json"), "--plot", str(chart)]
    run = CliRunner().invoke(main, [*arguments, "--limit", str(folder / "load_balancer.c")])
    assert run.exit_code == 0, run.output
    document = json.loads(run.stdout)
    assert [result["flows"] for result in document["results"]] == [1, 100]
    variants = {"kernel", "native", "no inlining", "no look-ahead", "limit"}
    for result in document["results"]:
        assert result["ns_per_frame"].keys() == variants
        assert all(len(rounds) == 3 for rounds in result["rounds_ns"].values())
        assert result["empty_ns"]["kernel"] > result["empty_ns"]["native"] > 0
    assert chart.read_text().count("<title>") == 2 * len(variants)


def test_bench_of_a_program_that_differs_is_refused(bundle: Path, tmp_path: Path) -> None:
    # Without content the limit's source must do the same as the bundle's; this one does not.
    source = tmp_path / "other.c"
    text = (EXAMPLES / "load_balancer" / "load_balancer.c").read_text()
    source.write_text(text.replace("return XDP_PASS;", "return XDP_DROP;"))
    arguments = ["bench", str(bundle), "--insecure-unsigned", "--flows", "1", "--frames", "100", "--rounds", "1"]
    run = CliRunner().invoke(main, [*arguments, "--limit", str(source)])
    assert isinstance(run.exception, ParameterError) or run.exit_code != 0
    assert "limit: verdicts" in run.output + str(run.exception)


def test_limit_of_a_source_that_is_no_c_is_clangs_message(tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    source.write_text("int f(void) { return g; }")
    with pytest.raises(ParameterError, match="undeclared identifier 'g'"):
        compile_source(source)


@pytest.mark.parametrize("flows", ["0", "x", "1,,2", "99999999"])
def test_bench_with_wrong_flows_says_so(bundle: Path, flows: str) -> None:
    run = CliRunner().invoke(main, ["bench", str(bundle), "--flows", flows])
    assert run.exit_code != 0
    assert "--flows" in run.output + str(run.exception)
