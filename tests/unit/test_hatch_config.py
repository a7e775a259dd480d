import os
from pathlib import PurePosixPath

import fastjsonschema
import pytest
from validate_pyproject.api import Validator
from validate_pyproject.errors import ValidationError
from validate_pyproject.plugins import PluginWrapper

from hatch_uxdp.config import HookConfigError, check_include_dirs, find_sources, parse_config
from hatch_uxdp.schema import get_schema
from uxdp_bundle.errors import UxdpError

LOCATION = "tool.hatch.build.targets.wheel.hooks.uxdp"


def parse(**table):
    return parse_config(
        {key.replace("_", "-"): value for key, value in {"sources": ["nf.c"], **table}.items()}, LOCATION
    )


@pytest.fixture(scope="module")
def accepts():
    """Whether the JSON schema accepts a hook's table, wherever hatchling reads it."""
    check = fastjsonschema.compile(get_schema())

    def accepts(table):
        results = set()
        for tool in (
            {"build": {"targets": {"wheel": {"hooks": {"uxdp": table}}}}},
            {"build": {"hooks": {"uxdp": table}}},
        ):
            try:
                check(tool)
                results.add(True)
            except fastjsonschema.JsonSchemaValueException:
                results.add(False)
        (result,) = results
        return result

    return accepts


GOOD = {
    "least": {"sources": ["nf.c"]},
    "globs": {"sources": ["*.c", "src/**/*.c", "a b.c"]},
    "all": {
        "sources": ["nf.c"],
        "include-dirs": ["include", ".", "a/b"],
        "defines": ["A", "B=", "C=1 + 2", "_D=\u00e9"],
        "cflags": ["-O2", "-Wall", "-isystem", "/usr/include/x"],
        "sign": "require",
        "key-env": "MY_KEY",
    },
    "defines-table": {"sources": ["nf.c"], "defines": {"A": 1, "B": "x", "C": ""}},
    "sign-off": {"sources": ["nf.c"], "sign": "off"},
    "sign-auto": {"sources": ["nf.c"], "sign": "auto"},
    "reserved": {
        "sources": ["nf.c"],
        "enable-by-default": False,
        "dependencies": ["uxdp"],
        "require-runtime-dependencies": True,
        "require-runtime-features": ["clang"],
    },
}

BAD = {
    "no-sources": ({}, "sources: missing"),
    "unknown-key": ({"sources": ["nf.c"], "source": ["nf.c"]}, "source: unknown key, expected one of sources, "),
    "underscore-key": ({"sources": ["nf.c"], "include_dirs": ["x"]}, "include_dirs: unknown key"),
    "path-key": ({"sources": ["nf.c"], "path": "hook.py"}, "path: unknown key"),
    "key-in-file": ({"sources": ["nf.c"], "key": "secret"}, "key: unknown key"),
    "sources-string": ({"sources": "nf.c"}, "sources: a string, expected an array of strings"),
    "sources-empty": ({"sources": []}, "sources: empty"),
    "source-number": ({"sources": ["nf.c", 1]}, "sources[1]: an integer, expected a string"),
    "source-table": ({"sources": [{"path": "nf.c"}]}, "sources[0]: a table, expected a string"),
    "source-empty": ({"sources": [""]}, "sources[0]: '', expected a non-empty string"),
    "source-newline": ({"sources": ["a\nb.c"]}, "sources[0]: 'a\\nb.c', expected a non-empty"),
    "source-absolute": ({"sources": ["/src/nf.c"]}, "sources[0]: '/src/nf.c', expected a path inside the project"),
    "source-parent": ({"sources": ["../nf.c"]}, "sources[0]: '../nf.c', expected a path inside"),
    "source-inner-parent": ({"sources": ["a/../../nf.c"]}, "sources[0]: 'a/../../nf.c', expected a path inside"),
    "source-last-parent": ({"sources": ["a/.."]}, "sources[0]: 'a/..', expected a path inside"),
    "source-home": ({"sources": ["~/nf.c"]}, "sources[0]: '~/nf.c', expected a path inside"),
    "source-backslash": ({"sources": ["a\\nf.c"]}, "sources[0]"),
    "include-dirs-string": ({"sources": ["nf.c"], "include-dirs": "x"}, "include-dirs: a string, expected an array"),
    "include-dir-parent": ({"sources": ["nf.c"], "include-dirs": ["../x"]}, "include-dirs[0]: '../x', expected a path"),
    "defines-string": ({"sources": ["nf.c"], "defines": "A=1"}, "defines: a string, expected an array of NAME=VALUE"),
    "define-number": ({"sources": ["nf.c"], "defines": [1]}, "defines[0]: an integer, expected a string"),
    "define-no-name": ({"sources": ["nf.c"], "defines": ["=1"]}, "defines[0]: '' is no macro's name"),
    "define-flag": ({"sources": ["nf.c"], "defines": ["-DA"]}, "defines[0]: '-DA' is no macro's name"),
    "define-boolean": ({"sources": ["nf.c"], "defines": {"A": True}}, "defines.A: a boolean, expected a string or"),
    "define-float": ({"sources": ["nf.c"], "defines": {"A": 1.5}}, "defines.A: a number, expected a string or"),
    "define-table-name": ({"sources": ["nf.c"], "defines": {"A B": 1}}, "defines: 'A B' is no macro's name"),
    "define-table-newline": ({"sources": ["nf.c"], "defines": {"A": "1\n2"}}, "defines.A: '1\\n2', expected printable"),
    "cflags-string": ({"sources": ["nf.c"], "cflags": "-O2 -g"}, "cflags: a string, expected an array of strings"),
    "cflag-output": ({"sources": ["nf.c"], "cflags": ["-o", "x"]}, "cflags[0]: '-o' changes what is written"),
    "cflag-preprocess": ({"sources": ["nf.c"], "cflags": ["-O2", "-E"]}, "cflags[1]: '-E' changes"),
    "cflag-dependencies": ({"sources": ["nf.c"], "cflags": ["-MMD"]}, "cflags[0]: '-MMD' changes"),
    "cflag-file": ({"sources": ["nf.c"], "cflags": ["@flags"]}, "cflags[0]: '@flags' changes"),
    "cflag-key": ({"sources": ["nf.c"], "cflags": ["--uxdp-key"]}, "cflags[0]: '--uxdp-key' changes"),
    "sign-word": (
        {"sources": ["nf.c"], "sign": "always"},
        "sign: 'always', expected one of ",
    ),
    "sign-boolean": ({"sources": ["nf.c"], "sign": True}, "sign: a boolean, expected a string"),
    "key-env-pem": ({"sources": ["nf.c"], "key-env": "-----BEGIN"}, "key-env: not the name of an environment"),
    "key-env-list": ({"sources": ["nf.c"], "key-env": ["A"]}, "key-env: an array, expected a string"),
    "enable-string": (
        {"sources": ["nf.c"], "enable-by-default": "no"},
        "enable-by-default: a string, expected",
    ),
}


@pytest.mark.parametrize("table", GOOD.values(), ids=GOOD.keys())
def test_parse_config_good_table_is_accepted_as_by_the_schema(table, accepts):
    parse_config(table, LOCATION)
    assert accepts(table)


@pytest.mark.parametrize(("table", "message"), BAD.values(), ids=BAD.keys())
def test_parse_config_bad_table_names_the_full_key_and_the_schema_refuses_it(table, message, accepts):
    with pytest.raises(HookConfigError) as caught:
        parse_config(table, LOCATION)
    assert str(caught.value).startswith(f"{LOCATION}.{message}")
    assert not accepts(table)


def test_parse_config_defaults():
    config = parse()
    assert (config.sources, config.include_dirs, config.defines, config.cflags) == (("nf.c",), (), (), ())
    assert (config.sign, config.key_variable) == ("auto", "UXDP_SIGNING_KEY")


def test_parse_config_bad_key_variable_is_never_repeated():
    with pytest.raises(HookConfigError) as caught:
        parse(key_env="-----BEGIN PRIVATE KEY-----")
    assert "BEGIN" not in str(caught.value)


def test_clang_args_come_in_the_order_includes_defines_flags():
    config = parse(include_dirs=["include", "a/./b/"], defines={"A": 1, "B": ""}, cflags=["-DA=2"])
    assert config.clang_args() == ("-Iinclude", "-Ia/b", "-DA=1", "-DB=", "-DA=2")


@pytest.mark.parametrize(
    ("cflags", "message"),
    [
        (["-O2", "other.c"], "'other.c' is no flag, or lacks its value"),
        (["-O2 -g"], None),
        (["-I"], "'-I' is no flag, or lacks its value"),
        (["-target", "x86_64"], "-target x86_64: a bundle holds little-endian eBPF"),
        (["-mcpu=probe"], "-mcpu=probe: expected one of"),
        (["--help"], "have clang do something else than compile"),
    ],
    ids=["second-source", "two-in-one", "no-value", "target", "cpu", "help"],
)
def test_parse_config_flags_that_make_another_command_are_refused(cflags, message):
    if message is None:
        assert parse(cflags=cflags).cflags == tuple(cflags)  # clang's to refuse
        return
    with pytest.raises(HookConfigError) as caught:
        parse(cflags=cflags)
    assert caught.value.context == f"{LOCATION}.cflags"
    assert message in str(caught.value)


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")


def test_find_sources_globs_and_paths_give_each_file_once_sorted_by_name(tmp_path):
    touch(tmp_path, "b.c", "src/a.c", "src/deep/c.c", "src/a.h", ".venv/x.c", "src/__pycache__/y.c", ".hidden/z.c")
    config = parse(sources=["b.c", "**/*.c", "src/*.c"])
    paths = [PurePosixPath(name) for name in ("src/a.c", "b.c", "src/deep/c.c")]
    assert list(find_sources(config, tmp_path)) == paths


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["none.c"], "sources[0]: 'none.c' matches no file in "),
        (["a.c", "src/*.cc"], "sources[1]: 'src/*.cc' matches no file"),
        (["a.c", "a.h"], "sources[1]: 'a.h' is no .c file"),
        (["src"], "sources[0]: 'src' matches no file"),
        (["a*"], "sources[0]: 'a.h' is no .c file"),
        (["a.c", "src/a.c"], "sources[1]: 'src/a.c' and 'a.c' (tool.hatch"),
        (["**x/*.c"], "sources[0]: '**x/*.c' "),
        (["-x.c"], "sources[0]: '-x' cannot be the name of a bundle"),
        (["-d/b.c"], "sources[0]: '-d/b.c' begins with '-'"),
        (["out.c"], "sources[0]: "),
    ],
    ids=[
        "missing", "glob-without-match", "header", "folder", "glob-with-header", "same-stem", "bad-glob", "bad-name",
        "like-a-flag",         "link-out",
    ],
)  # fmt: skip
def test_find_sources_bad_entry_names_the_full_key(tmp_path, sources, message):
    root = tmp_path / "project"
    touch(root, "a.c", "a.h", "src/a.c", "-x.c", "-d/b.c")
    touch(tmp_path, "outside.c")
    (root / "out.c").symlink_to(tmp_path / "outside.c")
    with pytest.raises(HookConfigError) as caught:
        find_sources(parse(sources=sources), root)
    assert str(caught.value).startswith(f"{LOCATION}.{message}")


def test_check_include_dirs_accepts_folders_and_inner_links(tmp_path):
    touch(tmp_path, "include/nf.h")
    (tmp_path / "link").symlink_to("include")
    check_include_dirs(parse(include_dirs=["include", ".", "link"]), tmp_path)


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ("none", "'none' is no directory in"),
        ("nf.h", "'nf.h' is no directory"),
        ("out", "is a link out of the project"),
    ],
    ids=["missing", "file", "link-out"],
)
def test_check_include_dirs_bad_entry_names_the_full_key(tmp_path, directory, message):
    touch(tmp_path, "nf.h")
    (tmp_path / "out").symlink_to(os.sep)
    with pytest.raises(HookConfigError) as caught:
        check_include_dirs(parse(include_dirs=[".", directory]), tmp_path)
    assert caught.value.context == f"{LOCATION}.include-dirs[1]"
    assert message in str(caught.value)


def test_get_schema_lets_the_rest_of_hatch_pass():
    fastjsonschema.compile(get_schema("hatch"))({"version": {"path": "x"}, "build": {"hooks": {"vcs": {"any": 1}}}})


def test_get_schema_is_what_validate_pyproject_reports_from(tmp_path):
    plugin = PluginWrapper("hatch", get_schema)
    validator = Validator(plugins=[plugin])
    project = {"name": "nf", "version": "1"}
    table = {"sources": ["nf.c"], "sign": "always"}
    tool = {"hatch": {"build": {"targets": {"wheel": {"hooks": {"uxdp": table}}}}}}
    with pytest.raises(ValidationError, match=r"uxdp\.sign"):
        validator({"project": project, "tool": tool})
    table["sign"] = "off"
    validator({"project": project, "tool": tool})


def test_get_schema_of_another_tool_raises():
    with pytest.raises(UxdpError, match=r"only for \[tool.hatch\]"):
        get_schema("uxdp")
