import copy
from typing import Any

import pytest

from tests.bundle_factory import Forgery, canonical_json
from uxdp_bundle import manifest
from uxdp_bundle.errors import BundleFormatError
from uxdp_bundle.manifest import MapDefinition, Param, Program, parse_manifest, to_json

SHA = "ab" * 32
INNER = {
    "name": "",
    "type": "hash",
    "key_size": 4,
    "value_size": 8,
    "max_entries": 16,
    "flags": 0,
    "pinning": False,
    "inner": None,
}
MINIMAL: dict[str, Any] = {
    "build": {
        "compiler": "clang version 22.1.8",
        "flags": ["-O2", "-mcpu=v3"],
        "lowering": {"cpu": "v3", "features": "+alu32,-x", "llvm": "22.1.0", "optimisation": 2},
        "sources": [{"path": "src/nf.c", "sha256": SHA}],
    },
    "critical": [],
    "license": "Dual MIT/GPL",
    "maps": [INNER | {"name": "tables", "type": "array_of_maps", "inner": INNER}],
    "members": [
        {
            "role": "object",
            "name": "object",
            "offset": 0,
            "length": 128,
            "size": 128,
            "sha256": SHA,
            "media_type": "application/vnd.uxdp.bpf-object",
            "compression": "none",
        }
    ],
    "name": "nf",
    "params": [
        {"name": "limit", "type": "__u32", "size": 4, "default": -7},
        {"name": "label", "type": "char[2]", "size": 2, "default": "6e66"},
    ],
    "programs": [
        {"name": "nf", "section": "xdp", "flags": [], "helpers": ["bpf_redirect"], "kfuncs": [], "instructions": 7}
    ],
    "requirements": {"kernel": ["btf"], "llvm": 22, "mcpu": "v3"},
    "schema": 1,
    "security_version": 3,
    "version": "1.0",
    "xdp_md": ["data"],
}


def changed(path: str, value: Any = None, *, remove: bool = False) -> bytes:
    """Return the minimal manifest with one field, named by keys and indices with dots, set or removed."""
    top = copy.deepcopy(MINIMAL)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split(".")]
    target: Any = top
    for part in parents:
        target = target[part]
    if remove:
        del target[last]
    else:
        target[last] = value
    return canonical_json(top)


def refusal(data: bytes) -> BundleFormatError:
    with pytest.raises(BundleFormatError) as caught:
        parse_manifest(data)
    assert type(caught.value) is BundleFormatError
    assert len(caught.value.message) < 400
    return caught.value


def test_parse_manifest_reads_every_field():
    parsed = parse_manifest(canonical_json(MINIMAL))
    assert (parsed.name, parsed.version, parsed.security_version, parsed.license) == ("nf", "1.0", 3, "Dual MIT/GPL")
    assert parsed.programs == (Program("nf", "xdp", (), ("bpf_redirect",), (), 7),)
    inner = MapDefinition("", "hash", 4, 8, 16, 0, False, None)
    assert parsed.maps == (MapDefinition("tables", "array_of_maps", 4, 8, 16, 0, False, inner),)
    assert parsed.params == (Param("limit", "__u32", 4, -7), Param("label", "char[2]", 2, "6e66"))
    assert (parsed.xdp_md, parsed.critical) == (("data",), ())
    assert (parsed.requirements.kernel, parsed.requirements.llvm, parsed.requirements.mcpu) == (("btf",), 22, "v3")
    assert parsed.build.compiler == "clang version 22.1.8"
    assert parsed.build.flags == ("-O2", "-mcpu=v3")
    assert (parsed.build.sources[0].path, parsed.build.sources[0].sha256) == ("src/nf.c", SHA)
    assert parsed.build.lowering == manifest.Lowering("22.1.0", "v3", "+alu32,-x", 2)
    assert parsed.members[0].media_type == "application/vnd.uxdp.bpf-object"


def test_encode_gives_back_the_bytes():
    data = canonical_json(MINIMAL)
    assert parse_manifest(data).encode() == data


def test_encode_real_manifest_gives_back_the_bytes(many_facts_image):
    data = canonical_json(Forgery(many_facts_image).manifest)
    assert parse_manifest(data).encode() == data


def test_to_json_of_a_part_has_no_schema():
    assert to_json((Param("limit", "__u32", 4, 1), None)) == [
        {"name": "limit", "type": "__u32", "size": 4, "default": 1},
        None,
    ]


def test_parse_manifest_without_lowering_has_none():
    assert parse_manifest(changed("build.lowering", None)).build.lowering is None


def test_parse_manifest_unknown_top_level_key_is_ignored():
    assert parse_manifest(changed("future", {"anything": [1, None]})) == parse_manifest(canonical_json(MINIMAL))


def test_parse_manifest_understood_critical_is_accepted():
    assert parse_manifest(changed("critical", ["maps", "params"])).critical == ("maps", "params")


@pytest.mark.parametrize(
    "critical", [pytest.param(["future"], id="one"), pytest.param(["maps", "future"], id="among-others")]
)
def test_parse_manifest_unknown_critical_raises_before_anything_else(critical):
    top = copy.deepcopy(MINIMAL) | {"critical": critical, "programs": "of a kind that is not known yet"}
    error = refusal(canonical_json(top))
    assert error.context == "manifest.critical"
    assert error.message.startswith("future must be understood")
    assert error.remedy == "install a newer uxdp"


def test_parse_manifest_schema_of_the_future_raises():
    error = refusal(changed("schema", 2))
    assert str(error) == "manifest.schema: 2, this version reads 1"


def test_parse_manifest_not_canonical_raises():
    assert "not in canonical form" in refusal(canonical_json(MINIMAL) + b"\n").message


def test_parse_manifest_too_long_raises():
    assert "at most 262144 allowed" in refusal(b" " * ((256 << 10) + 1)).message


@pytest.mark.parametrize(
    "path",
    [
        *sorted(MINIMAL.keys()),
        *(f"members.0.{key}" for key in MINIMAL["members"][0]),
        *(f"programs.0.{key}" for key in MINIMAL["programs"][0]),
        *(f"maps.0.{key}" for key in INNER),
        *(f"maps.0.inner.{key}" for key in INNER),
        *(f"params.0.{key}" for key in MINIMAL["params"][0]),
        *(f"requirements.{key}" for key in MINIMAL["requirements"]),
        *(f"build.{key}" for key in MINIMAL["build"]),
        *(f"build.lowering.{key}" for key in MINIMAL["build"]["lowering"]),
        *(f"build.sources.0.{key}" for key in MINIMAL["build"]["sources"][0]),
    ],
)
def test_parse_manifest_missing_or_mistyped_field_raises_with_its_path(path):
    context = "manifest." + path.replace(".0", "[0]")
    missing = refusal(changed(path, remove=True))
    assert (missing.context, missing.message) == (context, "missing")
    wrong = refusal(changed(path, True if path != "maps.0.pinning" and path != "maps.0.inner.pinning" else 1))
    assert wrong.context == context
    assert "expected" in wrong.message or "nests once" in wrong.message


@pytest.mark.parametrize(
    "path", ["members.0", "programs.0", "maps.0", "maps.0.inner", "params.0", "requirements", "build"]
)
def test_parse_manifest_unknown_key_in_a_record_raises(path):
    error = refusal(changed(f"{path}.extra" + "x" * 500, 1))
    assert error.context == "manifest." + path.replace(".0", "[0]")
    assert error.message.startswith("unknown key 'extra")


@pytest.mark.parametrize("path", ["build.lowering.extra", "build.sources.0.extra"])
def test_parse_manifest_unknown_key_in_build_raises(path):
    assert refusal(changed(path, 1)).message == "unknown key 'extra'"


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("schema", 1, 1 << 31),
        ("security_version", 0, (1 << 31) - 1),
        ("members.0.offset", 0, (1 << 64) - 1),
        ("members.0.length", 0, (1 << 64) - 1),
        ("members.0.size", 0, (1 << 64) - 1),
        ("programs.0.instructions", 1, 1 << 31),
        ("maps.0.key_size", 0, (1 << 32) - 1),
        ("maps.0.value_size", 0, (1 << 32) - 1),
        ("maps.0.max_entries", 0, (1 << 32) - 1),
        ("maps.0.flags", 0, (1 << 32) - 1),
        ("params.0.size", 1, 1 << 24),
        ("requirements.llvm", 0, 1000),
        ("build.lowering.optimisation", 0, 3),
    ],
)
def test_parse_manifest_integer_out_of_range_raises(path, low, high):
    context = "manifest." + path.replace(".0", "[0]")
    for value in (low - 1, high + 1):
        error = refusal(changed(path, value))
        if -(1 << 63) <= value < 1 << 64:
            assert (error.context, error.message) == (context, f"{value}, expected {low}..{high}")
        else:
            assert "does not fit 64 bits" in error.message
    if path != "schema":
        for value in (low, high):
            parse_manifest(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        pytest.param("name", "", id="empty-name"),
        pytest.param("name", "-nf", id="name-like-an-option"),
        pytest.param("name", ".nf", id="hidden-name"),
        pytest.param("name", "a/b", id="name-with-slash"),
        pytest.param("name", "n" * 65, id="name-too-long"),
        pytest.param("name", "nf\u0661", id="name-beyond-ascii"),
        pytest.param("version", "1 0", id="version-with-space"),
        pytest.param("license", "x" * 1025, id="text-too-long"),
        pytest.param("license", "a\x1b[2J", id="text-that-moves-the-cursor"),
        pytest.param("license", "a\u202eb", id="text-that-turns-around"),
        pytest.param("license", "a\nb", id="text-of-two-lines"),
        pytest.param("xdp_md", ["data", 1], id="number-among-texts"),
        pytest.param("xdp_md", ["data", "\x00"], id="zero-among-texts"),
        pytest.param("members.0.role", "root", id="role"),
        pytest.param("members.0.role", "r" * 1000, id="long-role"),
        pytest.param("members.0.compression", "gzip", id="compression"),
        pytest.param("members.0.sha256", SHA.upper(), id="upper-case-hash"),
        pytest.param("members.0.sha256", SHA[:-1], id="short-hash"),
        pytest.param("members.0.name", "/etc/passwd", id="absolute-path"),
        pytest.param("members.0.name", "../x", id="path-upwards"),
        pytest.param("members.0.name", "a/../../x", id="path-upwards-inside"),
        pytest.param("members.0.name", "a/..", id="path-upwards-at-the-end"),
        pytest.param("members.0.name", "./a", id="path-with-dot"),
        pytest.param("members.0.name", "a\\b", id="backslash"),
        pytest.param("members.0.name", "a" * 256, id="long-path"),
        pytest.param("members.0.name", "", id="empty-path"),
        pytest.param("build.sources.0.path", "../nf.c", id="source-upwards"),
        pytest.param("build.lowering.features", "+a b", id="features-with-space"),
        pytest.param("params.1.default", "6e6", id="odd-hex"),
        pytest.param("params.1.default", "6e6666", id="hex-of-another-size"),
        pytest.param("params.1.default", "6E66", id="upper-case-hex"),
        pytest.param("params.1.default", "zzzz", id="no-hex"),
        pytest.param("params.1.default", None, id="null-default"),
        pytest.param("maps.0.inner", [], id="inner-is-a-list"),
        pytest.param("programs", {}, id="object-instead-of-array"),
        pytest.param("programs.0", "nf", id="text-instead-of-record"),
        pytest.param("programs", [MINIMAL["programs"][0]] * 257, id="too-many-programs"),
        pytest.param("maps", [INNER] * 257, id="too-many-maps"),
        pytest.param("params", [MINIMAL["params"][0]] * 1025, id="too-many-params"),
        pytest.param("members", [MINIMAL["members"][0]] * 65, id="too-many-members"),
    ],
)
def test_parse_manifest_bad_value_raises_with_its_path(path, value):
    error = refusal(changed(path, value))
    assert error.context.startswith("manifest." + path.replace(".0", "[0]").replace(".1.", "[1]."))


@pytest.mark.parametrize("name", ["a", "a.b", "..a", "a/b.c", "a..b/c", "x" * 255, "é"])
def test_parse_manifest_member_path_that_stays_below_is_accepted(name):
    assert parse_manifest(changed("members.0.name", name)).members[0].name == name


def test_parse_manifest_map_of_maps_of_maps_raises():
    error = refusal(changed("maps.0.inner.inner", INNER))
    assert (error.context, error.message) == ("manifest.maps[0].inner.inner", "a map-in-map nests once")


def test_map_extra_is_a_key_of_its_own_that_few_manifests_have():
    parsed = parse_manifest(changed("map_extra", {"tables": 5}))
    assert [item.extra for item in parsed.maps] == [5]
    assert parse_manifest(parsed.encode()) == parsed
    plain = parse_manifest(changed("version", "2"))
    assert plain.maps[0].extra == 0
    assert b"map_extra" not in plain.encode()


@pytest.mark.parametrize(
    "extra", [[], {"tables": 0}, {"tables": "5"}, {"others": 1}], ids=["list", "zero", "text", "no-map"]
)
def test_map_extra_of_another_form_is_refused(extra):
    assert refusal(changed("map_extra", extra)).context.startswith("manifest.map_extra")
