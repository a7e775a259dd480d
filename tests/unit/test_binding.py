import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.bundle_factory import Forgery, build_case
from tests.elf_forge import SHF_ALLOC
from tests.unit.facts_fixtures import SOURCES, clang
from uxdp_bundle import binding
from uxdp_bundle.authentication import AuthenticBundle, authenticate
from uxdp_bundle.binding import Binding, BoundBundle, bind
from uxdp_bundle.bpf_object import BpfObject
from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.errors import BindingError, BundleFormatError, LoweringError, ObjectError
from uxdp_bundle.facts import object_facts
from uxdp_bundle.lowering import RefusedIrError, lower
from uxdp_bundle.manifest import to_json
from uxdp_bundle.rollback import RollbackState
from uxdp_bundle.shim import encode_shim
from uxdp_bundle.trust import TrustStore
from uxdp_cc.build import BuildRequest, build

SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")


def authentic(image: bytes) -> AuthenticBundle:
    """Return a bundle that nobody's trust was asked about: binding is another question."""
    bundle = bundle_from_bytes(image, path="nf.uxdp")
    return authenticate(
        bundle, TrustStore.load(), now=datetime.now(UTC), rollback=RollbackState.load(), allow_unsigned=True
    )


def bind_image(image: bytes) -> BoundBundle:
    return bind(authentic(image))


def settle_facts(forged: Forgery) -> Forgery:
    """Let the manifest and the shim say what the object says: then only object and IR can differ."""
    facts = object_facts(forged.content("object"))
    forged.manifest |= {
        "programs": to_json(facts.programs),
        "maps": to_json(facts.maps),
        "params": to_json(facts.params),
        "xdp_md": to_json(facts.xdp_md),
    }
    forged.manifest["requirements"]["kernel"] = to_json(facts.kernel)
    forged.store("shim", encode_shim(facts.accesses))
    return forged


def with_object(case: str, change: Callable[[bytearray, BpfObject], None]) -> Forgery:
    """Return a case's bundle whose object is changed, and whose manifest and shim know it."""
    forged = Forgery.of(case)
    obj = forged.content("object")
    image = bytearray(obj)
    change(image, BpfObject(obj))
    forged.store("object", bytes(image))
    return settle_facts(forged)


def place_of(image: bytes | bytearray, index: int) -> tuple[int, int]:
    """Return where a section is in an object: offset and size."""
    (table,) = struct.unpack_from("<Q", image, 40)
    header = SECTION_HEADER.unpack_from(image, table + index * 64)
    return header[4], header[5]


def place(image: bytes | bytearray, obj: BpfObject, name: str) -> tuple[int, int]:
    section = next(section for section in obj.sections if section.name == name)
    return place_of(image, section.index)


@pytest.mark.parametrize("name", SOURCES)
def test_bind_bundle_of_case_is_equal(name):
    source = SOURCES[name]
    image = build(BuildRequest(sources=(source.name,), cwd=source.parent)).bundle
    bound = bind_image(image)
    assert (bound.binding, bound.relowered) == (Binding.EQUAL, None)
    assert bound.ir == bound.authentic.bundle.member("ir")
    assert bound.facts == object_facts(bytes(bound.authentic.bundle.object))


@pytest.mark.parametrize("flags", [("-O1",), ("-O3",), ("-Os",), ("-mcpu=v1",), ("-mcpu=v4",)], ids=" ".join)
def test_bind_bundle_built_with_flags_is_equal(flags):
    assert bind_image(build_case("many_facts", clang_args=flags)).binding is Binding.EQUAL


def test_bind_forward_declarations_in_another_order_are_equal():
    """LLVM numbers them as its memory happens to lie; the object means the same."""

    def swap(image: bytearray, obj: BpfObject) -> None:
        start, _size = place(image, obj, ".BTF")
        types, position, forward = obj.btf.types, start + 24, []
        positions = []
        for found in types[1:]:
            positions.append(position)
            position += 12 + 4 * len(found.extra)
        forward = [number for number, found in enumerate(types) if found.name in ("bpf_sock", "bpf_flow_keys")]
        one, two = forward
        names = [struct.unpack_from("<I", image, positions[number - 1])[0] for number in forward]
        for number, name in zip(forward, reversed(names), strict=True):
            struct.pack_into("<I", image, positions[number - 1], name)
        for number, found in enumerate(types[1:]):
            if found.kind == 2 and found.size_or_type in forward:
                other = two if found.size_or_type == one else one
                struct.pack_into("<I", image, positions[number] + 8, other)

    forged = with_object("context_subprograms", swap)
    assert forged.content("object") != Forgery.of("context_subprograms").content("object")
    assert bind_image(forged.image()).binding is Binding.EQUAL


def test_bind_debugging_information_may_be_another():
    def scribble(image: bytearray, obj: BpfObject) -> None:
        start, size = place(image, obj, ".debug_info")
        image[start : start + size] = bytes(size)

    assert bind_image(with_object("minimal", scribble).image()).binding is Binding.EQUAL


# No IR.


@pytest.fixture(scope="module")
def assembly_image(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("assembly")
    (folder / "nf.c").write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'SEC("xdp") int f(struct xdp_md *ctx)\n'
        '{\n\tint verdict;\n\tasm volatile("%0 = 2; r9 = r9" : "=r"(verdict) :: "r9");\n\treturn verdict;\n}\n'
        'char _license[] SEC("license") = "GPL";\n'
    )
    return build(BuildRequest(sources=("nf.c",), cwd=folder)).bundle


def test_bind_bundle_without_ir_has_only_bytecode(assembly_image):
    bound = bind_image(assembly_image)
    assert (bound.binding, bound.ir, bound.relowered) == (Binding.NO_IR, None, None)
    assert [program.name for program in bound.facts.programs] == ["f"]


def test_bind_bundle_without_ir_must_not_say_how_it_was_lowered(assembly_image):
    forged = Forgery(assembly_image)
    forged.manifest["build"]["lowering"] = Forgery.of("minimal").manifest["build"]["lowering"]
    with pytest.raises(BindingError, match="there must be an IR member exactly if"):
        bind_image(forged.image())


def test_bind_bundle_with_ir_must_say_how_it_was_lowered():
    forged = Forgery.of("minimal")
    forged.manifest["build"]["lowering"] = None
    with pytest.raises(BindingError, match="there must be an IR member exactly if") as caught:
        bind_image(forged.image())
    assert caught.value.context == "nf.uxdp: build"


def test_bind_bundle_without_its_ir_is_refused():
    forged = Forgery.of("minimal")
    forged.remove("ir")
    with pytest.raises(BindingError, match="there must be an IR member exactly if"):
        bind_image(forged.image())


# The IR of another program.


def test_bind_ir_of_another_bundle_raises_binding_error():
    forged = Forgery.of("minimal")
    forged.store_compressed("ir", Forgery.of("minimal_twin").content("ir"))
    with pytest.raises(BindingError, match=r"LLVM \S+ lowers the IR to another object: section xdp differs") as caught:
        bind_image(forged.image())
    assert caught.value.context == "nf.uxdp"
    assert "build it again" in caught.value.remedy


def test_bind_object_of_another_bundle_raises_binding_error():
    forged = Forgery.of("minimal")
    forged.store("object", Forgery.of("minimal_twin").content("object"))
    with pytest.raises(BindingError, match="section xdp differs"):
        bind_image(settle_facts(forged).image())


def test_bind_ir_that_is_none_raises_lowering_error():
    forged = Forgery.of("minimal")
    forged.store("ir", b"no bitcode")
    with pytest.raises(RefusedIrError, match="not LLVM bitcode"):
        bind_image(forged.image())


def test_bind_ir_that_breaks_a_rule_raises_lowering_error():
    import llvmlite.binding as llvm

    forged = Forgery.of("minimal")
    module = llvm.parse_bitcode(forged.content("ir"), llvm.create_context())
    text = f'{module}\nmodule asm "x"\n'
    forged.store_compressed("ir", llvm.parse_assembly(text, llvm.create_context()).as_bitcode())
    with pytest.raises(RefusedIrError, match="module-level assembly"):
        bind_image(forged.image())


def test_bind_ir_that_does_not_unpack_raises_bundle_format_error():
    forged = Forgery.of("minimal")
    forged.store("ir", b"(\xb5/\xfd rubbish", size=77, compression="zstd")
    with pytest.raises(BundleFormatError):
        bind_image(forged.image())


def test_bind_parameters_of_another_lowering_raise_binding_error():
    forged = Forgery.of("many_facts")
    forged.manifest["build"]["lowering"]["cpu"] = forged.manifest["requirements"]["mcpu"] = "v1"
    with pytest.raises(BindingError, match="differs"):
        bind_image(forged.image())


@pytest.mark.parametrize("cpu", ["probe", "sky"])
def test_bind_for_an_unknown_cpu_raises_lowering_error(cpu):
    forged = Forgery.of("minimal")
    forged.manifest["build"]["lowering"]["cpu"] = cpu
    forged.manifest["requirements"]["mcpu"] = cpu
    with pytest.raises(LoweringError, match=f"CPU '{cpu}'"):
        bind_image(forged.image())


# An object that differs from its IR in one place, with a manifest that says what the object says.


def change_first(image: bytearray, obj: BpfObject, section: str) -> None:
    """Change the first constant that is put into a register."""
    start, size = place(image, obj, section)
    slot = next(slot for slot in range(start, start + size, 8) if image[slot] == 0xB4)
    image[slot + 4] ^= 1


def change_code(image: bytearray, obj: BpfObject) -> None:
    change_first(image, obj, "xdp")


def change_text(image: bytearray, obj: BpfObject) -> None:
    change_first(image, obj, ".text")


def change_rodata(image: bytearray, obj: BpfObject) -> None:
    start, _size = place(image, obj, ".rodata")
    image[start] ^= 1


def change_maps_content(image: bytearray, obj: BpfObject) -> None:
    start, _size = place(image, obj, ".maps")
    image[start] ^= 1


def change_license(image: bytearray, obj: BpfObject) -> None:
    start, _size = place(image, obj, "license")
    image[start] = ord("X")


def change_line(image: bytearray, obj: BpfObject) -> None:
    start, _size = place(image, obj, ".BTF.ext")
    functions, lines = struct.unpack_from("<4xI4xI", image, start)[0], struct.unpack_from("<I", image, start + 16)[0]
    del functions
    # Behind the header, the size of a record, and the head of a section: the column of the first line.
    image[start + 32 + lines + 4 + 8 + 12] ^= 1


def change_type_name(image: bytearray, obj: BpfObject) -> None:
    start, size = place(image, obj, ".BTF")
    found = bytes(image[start : start + size]).index(b"\0frames_seen\0")
    image[start + found + 1] = ord("g")


def relocation(image: bytearray, obj: BpfObject, section: str, entry: int) -> int:
    return place(image, obj, f".rel{section}")[0] + 16 * entry


def change_relocated_symbol(image: bytearray, obj: BpfObject) -> None:
    """Let the first relocation of .text refer to another map."""
    start = relocation(image, obj, ".text", 0)
    (symbol,) = struct.unpack_from("<I", image, start + 12)
    other = next(n for n, s in enumerate(obj.symbols) if s.name == "cpus" and n != symbol)
    struct.pack_into("<I", image, start + 12, other)


def change_initial_inner_map(image: bytearray, obj: BpfObject) -> None:
    """Let both slots of the map of maps refer to the same inner map: nothing but .rel.maps changes."""
    start = relocation(image, obj, ".maps", 0)
    (symbol,) = struct.unpack_from("<I", image, start + 12)
    struct.pack_into("<I", image, start + 16 + 12, symbol)


def change_relocation_type(image: bytearray, obj: BpfObject) -> None:
    struct.pack_into("<I", image, relocation(image, obj, ".maps", 0) + 8, 3)


def symbol_place(image: bytearray, obj: BpfObject, name: str) -> int:
    index = next(index for index, symbol in enumerate(obj.symbols) if symbol.name == name)
    return place(image, obj, ".symtab")[0] + 24 * index


def change_bind(image: bytearray, obj: BpfObject) -> None:
    """Make a program weak."""
    image[symbol_place(image, obj, "second") + 4] = 2 << 4 | 2


def change_visibility(image: bytearray, obj: BpfObject) -> None:
    image[symbol_place(image, obj, "second") + 5] = 2


def change_flags(image: bytearray, obj: BpfObject) -> None:
    """Let a section be writable for loaders that look."""
    (table,) = struct.unpack_from("<Q", image, 40)
    section = next(section for section in obj.sections if section.name == "license")
    image[table + section.index * 64 + 8] ^= 4 << 2


def rename_section(image: bytearray, obj: BpfObject) -> None:
    """Let an unloaded section be one that some loader might look at."""
    names = place(image, obj, ".strtab")
    text = bytes(image[names[0] : names[0] + names[1]])
    at = text.index(b".debug_info\0")
    image[names[0] + at : names[0] + at + 11] = b".struct_ops"


def load_debugging_information(image: bytearray, obj: BpfObject) -> None:
    """Let a section be loaded whatever its name says."""
    (table,) = struct.unpack_from("<Q", image, 40)
    section = next(section for section in obj.sections if section.name == ".debug_info")
    image[table + section.index * 64 + 8] |= SHF_ALLOC
    start, _size = place_of(image, section.index)
    image[start] ^= 1


@pytest.mark.parametrize(
    ("case", "change", "difference"),
    [
        ("many_facts", load_debugging_information, "section .debug_info differs"),
        ("many_facts", change_code, "section xdp differs"),
        ("many_facts", change_text, "section .text differs"),
        ("many_facts", change_rodata, "section .rodata differs"),
        ("many_facts", change_maps_content, "section .maps differs"),
        ("many_facts", change_license, "section license differs"),
        ("many_facts", change_line, "section .BTF.ext differs"),
        ("many_facts", change_relocated_symbol, "relocations of section .text differs"),
        ("map_types", change_initial_inner_map, "relocations of section .maps differs"),
        ("map_types", change_relocation_type, "relocations of section .maps differs"),
        ("many_facts", change_bind, "symbol table differs"),
        ("many_facts", change_visibility, "symbol table differs"),
        ("many_facts", change_flags, "section license differs"),
        ("many_facts", rename_section, "section .struct_ops differs"),
    ],
)
def test_bind_object_that_differs_in_one_place_raises_binding_error(case, change, difference):
    with pytest.raises(BindingError) as caught:
        bind_image(with_object(case, change).image())
    assert difference in str(caught.value)


def test_bind_object_whose_types_have_other_names_raises_binding_error():
    with pytest.raises(BindingError, match=r"section \.BTF differs"):
        bind_image(with_object("many_facts", change_type_name).image())


def test_bind_object_without_types_raises_binding_error():
    forged = Forgery.of("minimal")
    source = SOURCES["minimal"].read_text()
    forged.store("object", clang(source, "-g0"))
    with pytest.raises(BindingError, match=r"section \S+ differs"):
        bind_image(settle_facts(forged).image())


# A manifest that lies about its object.


def program_field(name: str, value: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["programs"][0].update({name: value})


def map_field(name: str, value: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["maps"][0].update({name: value})


def param_field(name: str, value: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["params"][0].update({name: value})


@pytest.mark.parametrize(
    ("lie", "context", "fragment"),
    [
        pytest.param(program_field("name", "other"), "manifest.programs[0]", "name 'other' claimed", id="program-name"),
        pytest.param(program_field("section", "xdp.frags"), "manifest.programs[0]", "section", id="program-section"),
        pytest.param(program_field("helpers", []), "manifest.programs[0]", "helpers () claimed", id="helpers"),
        pytest.param(program_field("kfuncs", ["k"]), "manifest.programs[0]", "kfuncs ('k',) claimed", id="kfuncs"),
        pytest.param(
            program_field("instructions", 1), "manifest.programs[0]", "instructions 1 claimed", id="instructions"
        ),
        pytest.param(program_field("flags", ["frags"]), "manifest.programs[0]", "flags", id="flags"),
        pytest.param(lambda m: m["programs"].pop(), "manifest.programs", "2 claimed, the object has 3", id="one-fewer"),
        pytest.param(lambda m: m["programs"].reverse(), "manifest.programs[0]", "name", id="order"),
        pytest.param(map_field("type", "array"), "manifest.maps[0]", "type 'array' claimed", id="map-type"),
        pytest.param(map_field("key_size", 8), "manifest.maps[0]", "key_size 8 claimed", id="key-size"),
        pytest.param(map_field("value_size", 1), "manifest.maps[0]", "value_size 1 claimed", id="value-size"),
        pytest.param(map_field("max_entries", 1), "manifest.maps[0]", "max_entries 1 claimed", id="max-entries"),
        pytest.param(map_field("flags", 77), "manifest.maps[0]", "flags 77 claimed", id="map-flags"),
        pytest.param(map_field("pinning", False), "manifest.maps[0]", "pinning False claimed", id="pinning"),
        pytest.param(lambda m: m["maps"].pop(), "manifest.maps", "claimed, the object has", id="map-left-out"),
        pytest.param(param_field("default", 1), "manifest.params[0]", "default 1 claimed", id="default"),
        pytest.param(param_field("type", "long"), "manifest.params[0]", "type 'long' claimed", id="param-type"),
        pytest.param(lambda m: m["params"].pop(), "manifest.params", "claimed, the object has", id="param-left-out"),
        pytest.param(lambda m: m["xdp_md"].pop(), "manifest.xdp_md", "claimed, the object has", id="field-left-out"),
        pytest.param(
            lambda m: m["xdp_md"].__setitem__(0, "egress_ifindex"),
            "manifest.xdp_md[0]",
            "'egress_ifindex' claimed",
            id="another-field",
        ),
        pytest.param(
            lambda m: m["requirements"]["kernel"].remove("btf"), "manifest.requirements.kernel", "claimed", id="feature"
        ),
        pytest.param(
            lambda m: m["requirements"].update(llvm=21), "manifest.requirements.llvm", "LLVM 21 claimed", id="llvm"
        ),
        pytest.param(
            lambda m: m["requirements"].update(mcpu="v1"), "manifest.requirements.mcpu", "'v1' claimed", id="mcpu"
        ),
    ],
)
def test_bind_manifest_that_lies_raises_binding_error(lie, context, fragment):
    forged = Forgery.of("many_facts")
    # The first map, program and constant have something of each that can be wrong.
    lie(forged.manifest)
    with pytest.raises(BindingError) as caught:
        bind_image(forged.image())
    assert (caught.value.context, fragment in caught.value.message) == (context, True), str(caught.value)


def test_bind_object_without_xdp_program_raises_binding_error():
    forged = Forgery.of("minimal")
    forged.store("object", clang("int f(void) { return 1; }"))
    with pytest.raises(BindingError, match="holds no XDP program"):
        bind_image(settle_facts(forged).image())


def test_bind_object_that_no_loader_takes_raises_object_error():
    forged = Forgery.of("minimal")
    source = '#include <linux/bpf.h>\n__attribute__((section("xdp"), used)) static int f(void) { return 1; }'
    forged.store("object", clang(source))
    with pytest.raises(ObjectError, match="is static"):
        bind_image(forged.image())


@pytest.mark.parametrize(
    "shim",
    [
        pytest.param(b"", id="empty"),
        pytest.param(encode_shim([]), id="no-accesses"),
        pytest.param(Forgery.of("many_facts").content("shim"), id="of-another-bundle"),
    ],
)
def test_bind_wrong_shim_raises_binding_error(shim):
    forged = Forgery.of("minimal")
    forged.store("shim", shim)
    with pytest.raises(BindingError, match="the shim does not name the context accesses"):
        bind_image(forged.image())


# Made by another LLVM.


def made_by_another_llvm(case: str, **lowering: Any) -> Forgery:
    """Return a bundle that says another LLVM made it, and whose object differs as if that were true."""
    forged = Forgery.of(case)
    forged.store("object", lower([forged.content("ir")], **({"optimisation": 0} | lowering)).object)
    forged.manifest["build"]["lowering"]["llvm"] = "21.1.0"
    forged.manifest["requirements"]["llvm"] = 21
    return settle_facts(forged)


def test_bind_other_code_of_another_llvm_must_be_verified_again():
    forged = made_by_another_llvm("map_types")
    bound = bind_image(forged.image())
    assert bound.binding is Binding.MUST_REVERIFY
    assert bound.ir == forged.content("ir")
    assert bound.relowered == Forgery.of("map_types").content("object")
    assert bound.facts == object_facts(forged.content("object"))


def test_bind_same_code_of_another_llvm_is_equal():
    forged = Forgery.of("minimal")
    forged.manifest["build"]["lowering"]["llvm"] = "21.1.0"
    forged.manifest["requirements"]["llvm"] = 21
    assert bind_image(forged.image()).binding is Binding.EQUAL


def test_bind_other_code_of_the_same_llvm_raises_binding_error():
    forged = made_by_another_llvm("map_types")
    forged.manifest["build"]["lowering"]["llvm"] = Forgery.of("minimal").manifest["build"]["lowering"]["llvm"]
    forged.manifest["requirements"]["llvm"] = int(forged.manifest["build"]["lowering"]["llvm"].partition(".")[0])
    with pytest.raises(BindingError, match="section xdp differs"):
        bind_image(forged.image())


BASE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
const volatile __u32 limit = 1;
static volatile __u32 state = 5;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
    table SEC(".maps");
SEC("xdp") int f(struct xdp_md *ctx)
{
    __u64 *found = bpf_map_lookup_elem(&table, &(__u32){0});
    return found && *found > limit + state++ ? ctx->rx_queue_index : XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.mark.parametrize(
    ("before", "after", "other"),
    [
        pytest.param("max_entries, 4", "max_entries, 5", "maps or data", id="maps"),
        pytest.param("state = 5", "state = 6", "maps or data", id="data"),
        pytest.param('"GPL"', '"GPL v2"', "license", id="license"),
        pytest.param("__u32 limit", "__s32 limit", "constants", id="constants"),
        pytest.param("ctx->rx_queue_index", "ctx->ingress_ifindex", "accesses to xdp_md", id="accesses"),
        pytest.param("int f(", "int g(", "programs", id="program-name"),
        pytest.param('SEC("xdp")', 'SEC("xdp.frags")', "programs", id="program-section"),
        pytest.param(": XDP_PASS", ": bpf_get_prandom_u32()", "programs", id="helpers"),
        pytest.param("char _license", 'SEC("xdp") int h(void *c) { return 1; }\nchar _license', "programs", id="added"),
    ],
)
def test_bind_other_interface_of_another_llvm_raises_binding_error(before, after, other, tmp_path):
    assert before in BASE
    images = []
    for source in (BASE, BASE.replace(before, after)):
        (tmp_path / "nf.c").write_text(source)
        images.append(build(BuildRequest(sources=("nf.c",), cwd=tmp_path)).bundle)
    forged, another = map(Forgery, images)
    forged.store_compressed("ir", another.content("ir"))
    forged.manifest["build"]["lowering"]["llvm"] = "21.1.0"
    forged.manifest["requirements"]["llvm"] = 21
    with pytest.raises(BindingError, match=f"made by LLVM 21.1.0; LLVM .* with other {other}") as caught:
        bind_image(forged.image())
    assert "LLVM 21.1.0" in caught.value.remedy


# The type is made by its arrow alone.


def test_bound_bundle_cannot_be_made_otherwise():
    bound = bind_image(build_case("minimal"))
    with pytest.raises(TypeError, match=r"made by bind\(\) alone"):
        BoundBundle(bound.authentic, bound.facts, Binding.EQUAL, bound.ir, None, object())
    with pytest.raises((TypeError, ValueError)):
        replace(bound, binding=Binding.NO_IR)
    with pytest.raises(TypeError, match="cannot be derived from"):
        type("Mine", (BoundBundle,), {})
    with pytest.raises(AttributeError):
        bound.ir = b"other"


def test_bind_describes_how_values_and_records_differ():
    assert binding._how("one", "two") == "'one' claimed, the object has 'two'"
