"""Code that was compiled ahead of time does what the kernel does, with any number of workers; its origin is told."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bundle_factory import PUBLISHER, build_case
from tests.differential.agreement import assert_agreement_of
from tests.isolated_user import isolate
from uxdp_bundle.authentication import authenticate
from uxdp_bundle.binding import BoundBundle, bind
from uxdp_bundle.container import Bundle, bundle_from_bytes
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.signature import sign_bundle
from uxdp_bundle.trust import TrustedKey, TrustStore
from uxdp_runtime.cli import main
from uxdp_runtime.compile.ahead import compile_ahead
from uxdp_runtime.compile.compiler import Target
from uxdp_runtime.compile.program import Origin, compile_program, program_source
from uxdp_runtime.compile.targets import named_target
from uxdp_runtime.differential import native_cpus
from uxdp_runtime.stores import ControlLibrary
from uxdp_runtime.verify import verify

pytestmark = pytest.mark.kernel

PROGRAMS_ONLY = TrustStore((TrustedKey(PUBLISHER.public, ("*",)),))
NATIVE_TOO = TrustStore((*PROGRAMS_ONLY.keys, TrustedKey(PUBLISHER.public, ("*",), "native")))
FRAMES = 500


def _bound(bundle: Bundle, trust: TrustStore, *, insecure: bool = False) -> BoundBundle:
    used = RollbackState(Path("/nonexistent"))
    return bind(authenticate(bundle, trust, now=datetime.now(UTC), rollback=used, allow_unsigned=insecure))


def _with_native_code(case: str) -> bytes:
    """Return a signed bundle with its programs compiled for this machine."""
    with bundle_from_bytes(build_case(case)) as bundle:
        bound = _bound(bundle, TrustStore(), insecure=True)
        target = named_target("native")
        codes = []
        for fact in bound.facts.programs:
            source = program_source(bound, fact.name, num_cpus=0, values=None, constants={})
            codes.append(compile_ahead(source, target).content())
        with bundle_from_bytes(bundle.with_members(codes)) as compiled:
            return sign_bundle(compiled, PUBLISHER)


# Per-CPU maps and LRU lists depend on the number of workers; configuration and symbols are this kernel's.
@pytest.mark.parametrize(
    "case",
    [
        *("native/map_percpu", "native/map_lru", "native/map_hash", "native/tail_calls"),
        *("native/kernel_config", "native/kernel_symbols", "native/dynptr_xdp", "native/timers"),
        "native/fib_lookup",
    ],
)
def test_code_of_the_bundle_agrees_with_the_kernel(
    kernel: None, control: ControlLibrary, tmp_path: Path, case: str
) -> None:
    with bundle_from_bytes(_with_native_code(case)) as bundle:
        bound = _bound(bundle, NATIVE_TOO)
        for fact in bound.facts.programs:
            with verify(bound) as verified:
                compiled = compile_program(
                    verified, fact.name, None, num_cpus=native_cpus(), cache_directory=tmp_path / "cache"
                )
                assert (compiled.origin, compiled.rejections) == (Origin.AHEAD, ())
                assert assert_agreement_of(compiled, control, frames=FRAMES, seed=3).total() == FRAMES
    assert not (tmp_path / "cache").exists()


def test_code_of_the_bundle_whose_signer_is_not_trusted_for_it_is_compiled_here(
    kernel: None, target: Target, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with bundle_from_bytes(_with_native_code("native/map_hash")) as bundle:
        for origin in (Origin.LLVM, Origin.CACHE):
            with verify(_bound(bundle, PROGRAMS_ONLY)) as verified:
                compiled = compile_program(verified, "map_hash", target, num_cpus=2, cache_directory=cache)
                assert compiled.origin is origin
                (rejection,) = compiled.rejections
                assert rejection.field == "signature"


def test_code_of_the_bundle_for_other_core_values_is_compiled_here(
    kernel: None, control: ControlLibrary, target: Target
) -> None:
    # The case declares xdp_md in another order than the kernel, which only the kernel's answers to CO-RE put right.
    with bundle_from_bytes(_with_native_code("context_core")) as bundle, verify(_bound(bundle, NATIVE_TOO)) as verified:
        compiled = compile_program(verified, "relocated", target, num_cpus=native_cpus(), cache_directory=None)
        assert compiled.origin is Origin.LLVM
        (rejection,) = compiled.rejections
        assert rejection.field == "values"
        assert "for llvm.xdp_md:0:0$0:0, this kernel has 16" in rejection.reason
        assert_agreement_of(compiled, control, frames=20, seed=1)


def test_code_of_the_bundle_for_other_constants_is_compiled_here(kernel: None, target: Target) -> None:
    with bundle_from_bytes(_with_native_code("native/global_data")) as bundle:
        bound = _bound(bundle, NATIVE_TOO)
        with verify(bound) as verified:
            compiled = compile_program(verified, "global_data", target, num_cpus=2, cache_directory=None)
            assert compiled.origin is Origin.AHEAD
        with verify(bound, params={"modulus": 7}) as verified:
            compiled = compile_program(verified, "global_data", target, num_cpus=2, cache_directory=None)
            assert (compiled.origin, compiled.rejections[0].field) == (Origin.LLVM, "constants")


def test_commands_say_where_code_comes_from(kernel: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("UXDP_CACHE_DIR", str(tmp_path / "cache"))
    publisher = f'[[keys]]\nkey = "{PUBLISHER.public.text}"\nnames = ["*"]\n'
    user.trust(publisher)
    bundle = tmp_path / "nf.uxdp"
    bundle.write_bytes(_with_native_code("native/map_hash"))
    command = ["test", str(bundle), "-n", "50"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "compiled from IR, not taken from the bundle" in result.stderr
    assert f"uxdp trust add {PUBLISHER.public.text} --names 'map_hash' --role native" in result.stderr
    user.trust(publisher + publisher + 'role = "native"\n')
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code == 0, result.output
    assert '"origin": "aot"' in result.stdout
    assert result.stderr == ""


def test_damaged_file_in_the_cache_is_compiled_again(
    kernel: None, control: ControlLibrary, target: Target, tmp_path: Path
) -> None:
    directory = tmp_path / "cache"
    with bundle_from_bytes(build_case("native/map_hash")) as bundle:
        bound = _bound(bundle, TrustStore(), insecure=True)
        for origin in (Origin.LLVM, Origin.CACHE, Origin.LLVM, Origin.CACHE):
            with verify(bound) as verified:
                compiled = compile_program(
                    verified, "map_hash", target, num_cpus=native_cpus(), cache_directory=directory
                )
                assert compiled.origin is origin
                assert_agreement_of(compiled, control, frames=20, seed=1)
            if origin is Origin.CACHE:
                (path,) = directory.iterdir()
                data = bytearray(path.read_bytes())
                data[len(data) // 2] ^= 0x10
                path.write_bytes(data)
