"""Correctly signed bundles that say one thing and hold another: nothing of them may be used."""

import copy

import pytest

from tests.bundle_factory import Forgery, build_case
from uxdp_bundle.errors import BindingError, BundleFormatError, LoweringError
from uxdp_bundle.lowering import RefusedIrError
from uxdp_bundle.shim import decode_shim, encode_shim


def lying(edit, case: str = "many_facts") -> bytes:
    """Return the image of a signed bundle whose manifest ``edit`` has changed."""
    forged = Forgery.of(case)
    edit(forged.manifest)
    return forged.image()


def with_ir_of(other: str, case: str = "minimal", **options) -> bytes:
    """Return a signed bundle with the object of one case and the IR of another."""
    forged = Forgery.of(case)
    forged.store_compressed("ir", Forgery(build_case(other, **options)).content("ir"))
    return forged.image()


def with_object_of(other: str, case: str) -> bytes:
    """Return a signed bundle that is one case's but for the object (and all that follows from it)."""
    forged, source = Forgery.of(case), Forgery.of(other)
    forged.store("object", source.content("object"))
    forged.store("shim", source.content("shim"))
    for key in ("programs", "maps", "params", "xdp_md", "requirements"):
        forged.manifest[key] = source.manifest[key]
    return forged.image()


# minimal_twin.c is minimal.c but for one constant: same facts, other code.
@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        pytest.param(lambda: with_ir_of("minimal_twin"), "section xdp differs", id="ir-with-other-code"),
        pytest.param(
            lambda: with_object_of("minimal_twin", "minimal"), "section xdp differs", id="object-with-other-code"
        ),
        pytest.param(lambda: with_ir_of("many_facts"), "lowers the IR to another object", id="ir-of-another-program"),
        pytest.param(
            lambda: with_object_of("many_facts", "minimal"), "lowers the IR to another object", id="object-of-another"
        ),
        pytest.param(
            lambda: with_ir_of("many_facts", "many_facts", clang_args=("-DBURST_LIMIT=65",)),
            "section .rodata differs",
            id="ir-with-another-constant",
        ),
        pytest.param(
            lambda: with_ir_of("many_facts", "many_facts", clang_args=("-DFLOWS=1023",)),
            "section .BTF differs",
            id="ir-with-another-map",
        ),
        pytest.param(
            lambda: with_ir_of("many_facts", "many_facts", clang_args=('-DLICENSE="GPL"',)),
            "section license differs",
            id="ir-with-another-license",
        ),
    ],
)
def test_object_and_ir_of_two_signed_bundles_are_refused(bench, make, fragment):
    error = bench.refuses(make(), BindingError, fragment, step="bind")
    assert error.remedy


def program(index: int, **fields):
    return lambda manifest: manifest["programs"][index].update(fields)


def bpf_map(index: int, **fields):
    return lambda manifest: manifest["maps"][index].update(fields)


def inner_map(**fields):
    return lambda manifest: manifest["maps"][1]["inner"].update(fields)


def param(index: int, **fields):
    return lambda manifest: manifest["params"][index].update(fields)


def drop(key: str, index: int = 0):
    return lambda manifest: manifest[key].pop(index)


def duplicate(key: str):
    return lambda manifest: manifest[key].append(copy.deepcopy(manifest[key][-1]))


def swap(key: str):
    return lambda manifest: manifest[key].insert(0, manifest[key].pop())


def requirement(**fields):
    return lambda manifest: manifest["requirements"].update(fields)


def lowering(**fields):
    return lambda manifest: manifest["build"]["lowering"].update(fields)


@pytest.mark.parametrize(
    ("edit", "fragment"),
    [
        pytest.param(drop("programs"), "manifest.programs: 2 claimed, the object has 3", id="program-concealed"),
        pytest.param(duplicate("programs"), "manifest.programs: 4 claimed, the object has 3", id="program-invented"),
        pytest.param(swap("programs"), "manifest.programs[0]: name", id="programs-in-another-order"),
        pytest.param(program(0, name="second"), "manifest.programs[0]: name 'second' claimed", id="program-name"),
        pytest.param(program(1, section="xdp"), "manifest.programs[1]: section 'xdp' claimed", id="program-section"),
        pytest.param(program(1, flags=[]), "manifest.programs[1]: flags () claimed", id="program-flags"),
        pytest.param(program(0, helpers=[]), "manifest.programs[0]: helpers () claimed", id="helpers-concealed"),
        pytest.param(
            program(2, helpers=["bpf_redirect"]),
            "helpers ('bpf_redirect',) claimed, the object has ()",
            id="helper-invented",
        ),
        pytest.param(program(1, kfuncs=[]), "manifest.programs[1]: kfuncs () claimed", id="kfunc-concealed"),
        pytest.param(program(0, instructions=2), "manifest.programs[0]: instructions 2 claimed", id="instructions"),
        pytest.param(drop("maps"), "manifest.maps: 4 claimed, the object has 5", id="map-concealed"),
        pytest.param(duplicate("maps"), "manifest.maps: 6 claimed, the object has 5", id="map-invented"),
        pytest.param(swap("maps"), "manifest.maps[0]: name", id="maps-in-another-order"),
        pytest.param(bpf_map(0, name="other"), "maps[0]: name 'other' claimed", id="map-name"),
        pytest.param(bpf_map(0, type="hash"), "maps[0]: type 'hash' claimed", id="map-type"),
        pytest.param(bpf_map(0, key_size=8), "maps[0]: key_size 8 claimed", id="map-key"),
        pytest.param(bpf_map(0, value_size=0), "maps[0]: value_size 0 claimed", id="map-value"),
        pytest.param(bpf_map(0, max_entries=1), "maps[0]: max_entries 1 claimed", id="map-entries"),
        pytest.param(bpf_map(0, flags=0), "maps[0]: flags 0 claimed", id="map-flags"),
        pytest.param(bpf_map(0, pinning=False), "maps[0]: pinning False claimed", id="map-pinning"),
        pytest.param(bpf_map(1, inner=None), "maps[1]: inner None claimed", id="inner-map-concealed"),
        pytest.param(inner_map(value_size=4), "maps[1]: inner MapDefinition(", id="inner-map-value"),
        pytest.param(drop("params"), "manifest.params: 4 claimed, the object has 5", id="param-concealed"),
        pytest.param(param(0, default=65), "manifest.params[0]: default 65 claimed", id="param-default"),
        pytest.param(param(0, type="__s32"), "manifest.params[0]: type '__s32' claimed", id="param-type"),
        pytest.param(param(0, size=8), "manifest.params[0]: size 8 claimed", id="param-size"),
        pytest.param(param(1, default="78616200"), "manifest.params[1]: default '78616200' claimed", id="param-bytes"),
        pytest.param(
            lambda m: m.update(xdp_md=[]), "manifest.xdp_md: 0 claimed, the object has 4", id="xdp_md-concealed"
        ),
        pytest.param(lambda m: m["xdp_md"].append("data_meta"), "manifest.xdp_md: 5 claimed", id="xdp_md-invented"),
        pytest.param(lambda m: m["xdp_md"].reverse(), "manifest.xdp_md[0]", id="xdp_md-unsorted"),
        pytest.param(requirement(kernel=[]), "manifest.requirements.kernel: 0 claimed", id="kernel-features"),
        pytest.param(requirement(llvm=21), "manifest.requirements.llvm", id="llvm"),
        pytest.param(requirement(mcpu="v4"), "manifest.requirements.mcpu", id="mcpu"),
        pytest.param(lowering(llvm="21.1.0"), "manifest.requirements.llvm", id="lowering-llvm"),
        pytest.param(lowering(cpu="v1"), "manifest.requirements.mcpu", id="lowering-cpu"),
        pytest.param(lowering(optimisation=0), "lowers the IR to another object", id="lowering-optimisation"),
        pytest.param(
            lambda m: m["build"].update(lowering=None), "there must be an IR member exactly if", id="lowering-concealed"
        ),
    ],
)
def test_manifest_that_lies_is_refused(bench, edit, fragment):
    bench.refuses(lying(edit), BindingError, fragment, step="bind")


def without_ir(forged: Forgery) -> None:
    forged.remove("ir")


def foreign_shim(forged: Forgery) -> None:
    forged.store("shim", Forgery.of("many_facts").content("shim"))


def empty_shim(forged: Forgery) -> None:
    forged.store("shim", encode_shim(()))


def shim_of_one_access(forged: Forgery) -> None:
    forged.store("shim", encode_shim(decode_shim(forged.content("shim"))[:1]))


def no_shim(forged: Forgery) -> None:
    forged.store("shim", b"")


def padded_shim(forged: Forgery) -> None:
    forged.store("shim", forged.content("shim") + bytes(16))


def packed_wrongly(forged: Forgery) -> None:
    forged.store("shim", b"xxxx", size=9, compression="zstd")


@pytest.mark.parametrize(
    ("edit", "error", "fragment"),
    [
        pytest.param(without_ir, BindingError, "there must be an IR member exactly if", id="ir-removed"),
        pytest.param(foreign_shim, BindingError, "the shim does not name the context accesses", id="shim-of-another"),
        pytest.param(empty_shim, BindingError, "the shim does not name the context accesses", id="shim-of-nothing"),
        pytest.param(shim_of_one_access, BindingError, "the shim does not name", id="shim-lacks-an-access"),
        pytest.param(no_shim, BindingError, "the shim does not name", id="shim-of-no-bytes"),
        pytest.param(padded_shim, BindingError, "the shim does not name", id="shim-with-padding"),
        pytest.param(packed_wrongly, BundleFormatError, "manifest.members[2]: not one zstd", id="shim-not-zstd"),
    ],
)
def test_member_that_does_not_belong_is_refused(bench, edit, error, fragment):
    forged = Forgery.of("minimal")
    edit(forged)
    bench.refuses(forged.image(), error, fragment, step="bind")


@pytest.mark.parametrize(
    ("fields", "error", "fragment"),
    [
        pytest.param({"cpu": "v9"}, LoweringError, "", id="unknown-cpu"),
        pytest.param({"cpu": "skylake"}, LoweringError, "", id="cpu-of-another-architecture"),
    ],
)
def test_lowering_that_llvm_does_not_know_is_refused(bench, fields, error, fragment):
    forged = Forgery.of("minimal")
    forged.manifest["build"]["lowering"] |= fields
    forged.manifest["requirements"]["mcpu"] = fields["cpu"]
    bench.refuses(forged.image(), error, fragment, step="bind")


def by_another_llvm(forged: Forgery) -> bytes:
    """Let the manifest say that another LLVM made the object: then other code may come of the same IR."""
    forged.manifest["build"]["lowering"]["llvm"] = "21.1.0"
    forged.manifest["requirements"]["llvm"] = 21
    return forged.image()


@pytest.mark.parametrize(
    ("other", "options", "fragment"),
    [
        pytest.param("minimal", {}, "an object with other", id="other-programs"),
        pytest.param("many_facts", {"clang_args": ("-DFLOWS=9",)}, "other maps or data", id="other-maps"),
        pytest.param("many_facts", {"clang_args": ("-DBURST_LIMIT=9",)}, "other maps or data", id="other-constants"),
        pytest.param("many_facts", {"clang_args": ('-DLICENSE="GPL"',)}, "other license", id="other-license"),
    ],
)
def test_ir_that_another_llvm_might_explain_must_have_the_same_interface(bench, other, options, fragment):
    forged = Forgery.of("many_facts")
    forged.store_compressed("ir", Forgery(build_case(other, **options)).content("ir"))
    bench.refuses(by_another_llvm(forged), BindingError, fragment, step="bind")


def test_ir_with_the_same_interface_by_another_llvm_must_be_reverified(bench):
    forged = Forgery.of("minimal")
    forged.store_compressed("ir", Forgery.of("minimal_twin").content("ir"))
    bench.put(by_another_llvm(forged))
    bound = bench.take("bind")
    assert bound.binding.value == "must-reverify"
    assert bound.relowered == Forgery.of("minimal_twin").content("object")


def test_ir_that_is_the_object_is_refused(bench):
    forged = Forgery.of("minimal")
    forged.store_compressed("ir", forged.content("object"))
    bench.refuses(forged.image(), RefusedIrError, "not LLVM bitcode", step="bind")
