"""Code that the bundle brings along: used only from whom it may come from, and only where nothing differs."""

import dataclasses
import json
import platform
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.bound_bundles import bound_image
from tests.bundle_factory import AUDITOR, PUBLISHER, build_case
from tests.independent_reader import read
from tests.isolated_user import IsolatedUser
from uxdp_bundle import keys
from uxdp_bundle.authentication import authenticate
from uxdp_bundle.binding import BoundBundle, bind
from uxdp_bundle.container import bundle_from_bytes, open_bundle
from uxdp_bundle.keys import SigningKey
from uxdp_bundle.native_code import NativeCode
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.signature import sign_bundle
from uxdp_bundle.trust import TrustedKey, TrustStore
from uxdp_runtime.cli import main
from uxdp_runtime.compile.ahead import compile_ahead, find_native
from uxdp_runtime.compile.compiler import NativeObject, ProgramSource, Target, with_late_values
from uxdp_runtime.compile.loader import LoadedObject, undefined_names
from uxdp_runtime.compile.program import program_source
from uxdp_runtime.compile.targets import NamedTarget
from uxdp_runtime.stores import Stores, control_library

BASELINE = {"x86_64": "x86-64", "aarch64": "generic"}[platform.machine()]
HERE = NamedTarget(Target(platform.machine(), BASELINE, ""), ())
ALLOWED = TrustStore((TrustedKey(PUBLISHER.public, ("*",)), TrustedKey(PUBLISHER.public, ("*",), "native")))
# CO-RE, so that there are values; per-CPU maps, so that the number of workers matters.
CASE = "context_core"


def source_of(bound: BoundBundle) -> ProgramSource:
    return program_source(bound, bound.facts.programs[0].name, num_cpus=2, values=None, constants={})


@pytest.fixture(scope="module")
def code() -> NativeCode:
    with bound_image(build_case(CASE)) as bound:
        return compile_ahead(source_of(bound), HERE)


Finder = Callable[..., tuple[NativeCode | None, tuple[str, ...]]]


@pytest.fixture
def find() -> Iterator[Finder]:
    """Put code into the bundle, and look for it as a runtime would; ``change`` is what the runtime has otherwise."""

    def find(
        *codes: NativeCode, trust: TrustStore = ALLOWED, key: SigningKey = PUBLISHER, **change: object
    ) -> tuple[NativeCode | None, tuple[str, ...]]:
        with bundle_from_bytes(build_case(CASE)) as bundle:
            image = bundle.with_members([code.content() for code in codes])
        with bundle_from_bytes(image) as bundle, bundle_from_bytes(sign_bundle(bundle, key)) as signed:
            used = RollbackState(Path("/nonexistent"))
            bound = bind(authenticate(signed, trust, now=datetime.now(UTC), rollback=used, allow_unsigned=True))
            source = dataclasses.replace(source_of(bound), values=dict(codes[0].values) if codes else {})
            found, rejections = find_native(bound, dataclasses.replace(source, **change))
        return found, tuple(rejection.field for rejection in rejections)

    yield find


def test_find_native_what_matches_is_used(code: NativeCode, find: Finder) -> None:
    found, rejections = find(code)
    assert found is not None
    assert found.data == code.data
    assert rejections == ()
    assert code.values, "the case has CO-RE relocations"


def test_find_native_nothing_there_is_no_rejection(find: Finder) -> None:
    assert find() == (None, ())


@pytest.mark.parametrize(
    ("trust", "key"),
    [
        pytest.param(TrustStore((TrustedKey(PUBLISHER.public, ("*",)),)), PUBLISHER, id="publisher-only"),
        pytest.param(
            TrustStore((TrustedKey(PUBLISHER.public, ("*",)), TrustedKey(PUBLISHER.public, ("other",), "native"))),
            PUBLISHER,
            id="native-of-another-name",
        ),
        pytest.param(
            TrustStore((TrustedKey(PUBLISHER.public, ("*",)), TrustedKey(AUDITOR.public, ("*",), "native"))),
            PUBLISHER,
            id="native-by-another-key",
        ),
        pytest.param(ALLOWED, AUDITOR, id="signed-by-a-stranger"),
        pytest.param(TrustStore((TrustedKey(PUBLISHER.public, ("*",), "native"),)), PUBLISHER, id="insecure"),
    ],
)
def test_find_native_signer_not_trusted_for_it_is_not_used(
    code: NativeCode, find: Finder, trust: TrustStore, key: SigningKey
) -> None:
    assert find(code, trust=trust, key=key) == (None, ("signature",))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"machine": "aarch64" if platform.machine() == "x86_64" else "x86_64"}, "machine", id="machine"),
        pytest.param({"features": ("avx10.9",)}, "features", id="feature"),
        pytest.param({"llvm": "21.1.0"}, "llvm", id="llvm"),
        pytest.param({"library": "00" * 32}, "library", id="library"),
        pytest.param({"object": "00" * 32}, "object", id="object"),
        pytest.param({"maps": "00" * 32}, "maps", id="maps"),
        pytest.param({"data": b"\x7fELF of no kind"}, "object-file", id="no-object"),
    ],
)
def test_find_native_compiled_for_something_else_is_not_used(
    code: NativeCode, find: Finder, change: dict[str, object], field: str
) -> None:
    assert find(dataclasses.replace(code, **change)) == (None, (field,))


def test_find_native_other_values_are_not_used(code: NativeCode, find: Finder) -> None:
    name, value = next(iter(code.values.items()))
    assert find(code, values={**code.values, name: value + 4}) == (None, ("values",))
    assert find(code, values={**code.values, "llvm.t:1:4$0:0": 4}) == (None, ("values",))
    assert find(code, values={}) == (None, ("values",))
    assert find(code, constants={"limit": b"\1"}) == (None, ("constants",))


def test_find_native_damaged_member_is_not_used(code: NativeCode, find: Finder) -> None:
    assert find(dataclasses.replace(code, features=("b", "a"))) == (None, ("format",))


def test_find_native_that_needs_what_this_runtime_does_not_have_is_not_used(code: NativeCode, find: Finder) -> None:
    """Another version of the runtime may give symbols other names; nothing of it may surface when code is loaded."""
    for name in (b"uxdp_worker\0", b"uxdp_run\0"):
        assert name in code.data
        other = dataclasses.replace(code, data=code.data.replace(name, name.replace(b"u", b"v")))
        assert find(other) == (None, ("object-file",))


def test_find_native_of_another_program_is_none_of_ours(code: NativeCode, find: Finder) -> None:
    assert find(dataclasses.replace(code, program="other")) == (None, ())


def test_find_native_the_most_capable_cpu_is_taken(code: NativeCode, find: Finder) -> None:
    feature = {"x86_64": "sse3", "aarch64": "neon"}[platform.machine()]
    better = dataclasses.replace(code, cpu="better", features=(feature,), data=code.data + b"\0")
    impossible = dataclasses.replace(code, cpu="best", features=("a", "b", "c"))
    found, rejections = find(code, better, impossible)
    assert found is not None
    assert (found.target.cpu, found.data, rejections) == ("better", better.data, ())


def test_compile_ahead_any_number_of_workers_runs() -> None:
    """The number of workers is a symbol that the loader resolves, and no constant."""
    with bound_image(build_case("native/map_percpu")) as bound:
        source = source_of(bound)
        code = compile_ahead(source, HERE)
        assert compile_ahead(dataclasses.replace(source, num_cpus=7), HERE) == code
        stores = Stores(source.object, source.maps, 3, control_library())
        assert stores.symbols(0)["uxdp.num_cpus"] == 3
        assert b"uxdp.num_cpus\0" in code.data or not source.maps
        symbols = {**stores.symbols(0), **dict.fromkeys(("uxdp_worker", *_libc()), 4096)}
        assert LoadedObject(code.data, symbols).address("uxdp_run")


def _libc() -> tuple[str, ...]:
    from uxdp_runtime.compile.compiler import LIBC

    return LIBC


# uxdp compile


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def bundle(isolated_user: IsolatedUser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    with bundle_from_bytes(build_case("native/tail_calls")) as unsigned:
        key, _created = keys.development_key(create=True)
        Path("nf.uxdp").write_bytes(sign_bundle(unsigned, key))
    return "nf.uxdp"


def test_compile_puts_a_signed_member_for_each_program_and_cpu(bundle: str) -> None:
    key = keys.development_key(create=False)[0].public.text
    before = Path(bundle).read_bytes()
    cpus = ("x86-64-v3", "aarch64-generic")
    options = [part for cpu in cpus for part in ("--cpu", cpu)]
    result = run("compile", bundle, *options, "-o", "out.uxdp", "--program", "second", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert [(item["program"], item["machine"], item["cpu"]) for item in shown["native"]] == [
        ("second", "x86_64", "x86-64-v3"),
        ("second", "aarch64", "generic"),
    ]
    assert Path(bundle).read_bytes() == before
    found = read(Path("out.uxdp").read_bytes())
    assert found["bundle_id"] == shown["bundle_id"]
    assert found["keys"] == [key] == [shown["key"]]
    assert list(found["native"]) == ["second/x86_64/x86-64-v3", "second/aarch64/generic"]
    assert run("bind", "out.uxdp").exit_code == 0
    # Again, in place: the member is replaced, the other stays.
    result = run("compile", "out.uxdp", "--cpu", "x86-64-v3", "--program", "second")
    assert result.exit_code == 0, result.output
    assert "in place of 1 signature" in result.stdout
    with open_bundle("out.uxdp") as opened:
        assert [m.name for m in opened.manifest.members if m.role == "native"] == [
            "second/aarch64/generic",
            "second/x86_64/x86-64-v3",
        ]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        pytest.param(["--cpu", "znver33"], 2, "like it: znver3", id="cpu"),
        pytest.param([], 2, "Missing option '--cpu'", id="no-cpu"),
        pytest.param(["--cpu", "x86-64-v3", "--program", "nope"], 2, "no such program, but ", id="program"),
        pytest.param(["--cpu", "x86-64-v3", "-o", "/nonexistent/x"], 1, "/nonexistent", id="output"),
        pytest.param(["--cpu", "x86-64-v3", "--key", "none.pem"], 6, "none.pem", id="key"),
    ],
)
def test_compile_wrong_request_changes_nothing(bundle: str, arguments: list[str], exit_code: int, message: str) -> None:
    before = Path(bundle).read_bytes()
    result = run("compile", bundle, *arguments)
    assert result.exit_code == exit_code, result.output
    assert message in result.stderr
    assert Path(bundle).read_bytes() == before


def test_compile_ahead_leaves_the_kernels_configuration_to_the_loader() -> None:
    with bound_image(build_case("native/kernel_config")) as bound:
        code = compile_ahead(source_of(bound), HERE)
        late = {name for name in undefined_names(code.data) if name.startswith("uxdp.value.")}
        assert late == {
            f"uxdp.value.{name}" for name in ("LINUX_KERNEL_VERSION", "CONFIG_BPF_SYSCALL", "CONFIG_HZ")
        } | {"uxdp.value.CONFIG_NO_SUCH_OPTION"}
        assert not code.values
        numbers = {
            "LINUX_KERNEL_VERSION": 0x61200,
            "CONFIG_BPF_SYSCALL": 1,
            "CONFIG_HZ": 250,
            "CONFIG_NO_SUCH_OPTION": 0,
        }
        native = NativeObject(code.data, HERE.target, code.llvm)
        defined = with_late_values(native, numbers)
        assert not any(name.startswith("uxdp.value.") for name in undefined_names(defined.data))
        assert with_late_values(native, {}) == native


def test_compile_program_that_reads_the_kernels_configuration_is_compiled_ahead(bundle: str) -> None:
    Path(bundle).write_bytes(build_case("native/kernel_config"))
    result = run("compile", bundle, "--cpu", "x86-64-v3", "--insecure-unsigned")
    assert result.exit_code == 0, result.output


def test_compile_untrusted_bundle_is_refused(bundle: str) -> None:
    Path(bundle).write_bytes(build_case("native/tail_calls"))
    assert run("compile", bundle, "--cpu", "x86-64-v3").exit_code == 4


def test_compile_help_has_an_example() -> None:
    assert "uxdp compile nf.uxdp --cpu x86-64-v3" in run("compile", "--help").stdout
