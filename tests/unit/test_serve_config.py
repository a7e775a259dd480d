"""``uxdp serve --config``: the file can say all that the flags can, and nothing else."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from uxdp_runtime.cli.serve import serve
from uxdp_runtime.cli.serve_config import config_parameters, read_config
from uxdp_runtime.errors import ParameterError
from uxdp_runtime.serve.options import ServeOptions

PARAMETERS = config_parameters(serve)


def example(parameter: click.Parameter) -> Any:
    """Return a value that is not the default, as TOML would give it."""
    if getattr(parameter, "is_flag", False):
        return True
    if isinstance(parameter.type, click.Choice):
        return parameter.type.choices[-1]
    if parameter.multiple:
        return ["A=1", "B=2"]
    if isinstance(parameter.type, click.Tuple):
        return [300 if kind is click.INT or isinstance(kind, click.IntRange) else "x" for kind in parameter.type.types]
    return 300 if isinstance(parameter.type, click.types.IntParamType) else "x"


def arguments(key: str, value: Any) -> list[str]:
    """Return the same value as words of a command line."""
    parameter = PARAMETERS[key]
    if isinstance(parameter, click.Argument):
        return [str(value)]
    if value is True:
        return [f"--{key}"]
    if parameter.multiple:
        return [word for item in value for word in (f"--{key}", item)]
    return [f"--{key}", *map(str, value if isinstance(value, list) else [value])]


def parsed(*words: str) -> dict[str, Any]:
    return serve.make_context("serve", list(words)).params


def written(folder: Path, text: str) -> Path:
    path = folder / "nf.toml"
    path.write_text(text)
    return path


def test_config_has_a_key_for_every_parameter_but_itself() -> None:
    # Parameter.name is not the key: --af-xdp is called interfaces inside.
    assert {parameter.name for parameter in PARAMETERS.values()} == {
        parameter.name for parameter in serve.params if parameter.name not in ("config", "help")
    }
    assert {"bundle", "af-xdp", "set", "on-failure", "insecure-unsigned"} <= PARAMETERS.keys()


@pytest.mark.parametrize("key", list(PARAMETERS))
def test_config_key_equals_its_flag(tmp_path: Path, key: str) -> None:
    value = example(PARAMETERS[key])
    by_file = parsed("--config", str(written(tmp_path, f"{key} = {json.dumps(value)}\n")))
    by_flag = parsed(*arguments(key, value))
    assert by_file == by_flag
    assert by_file != parsed()


def test_config_yields_to_flags(tmp_path: Path) -> None:
    path = written(tmp_path, 'tx = "live"\naf_xdp = ["eth0", "eth1"]\nqueues = [0, 1]\nparam = {rate = 5}\n')
    params = parsed("--tx", "ring", "--config", str(path))
    assert params["tx"] == "ring"
    assert params["interfaces"] == "eth0,eth1"
    assert params["queues"] == "0,1"
    assert list(params["params"]) == ["rate=5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("speed = 9", "no such setting: speed", id="unknown-key"),
        pytest.param("config = 'x'", "no such setting: config", id="itself"),
        pytest.param("busy-poll = 'yes'", "expected true or false", id="text-for-flag"),
        pytest.param("name = 1.5", "expected text or a number", id="float"),
        pytest.param("name = true", "expected text or a number", id="flag-for-text"),
        pytest.param("set = 'a:0=1'", "expected a list", id="text-for-list"),
        pytest.param("name = ", "no TOML", id="no-toml"),
        pytest.param("name = " + "[" * 5000, "no TOML", id="deep"),
    ],
)
def test_config_that_is_wrong_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        read_config(written(tmp_path, text), PARAMETERS)
    assert str(tmp_path / "nf.toml") in caught.value.context


def test_config_that_is_no_text_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nf.toml"
    with pytest.raises(ParameterError, match="cannot be read"):
        read_config(path, PARAMETERS)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ParameterError, match="no TOML"):
        read_config(path, PARAMETERS)


def test_config_choice_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(click.BadParameter, match="'fast' is not one of"):
        parsed("--config", str(written(tmp_path, 'tx = "fast"\n')))


@pytest.mark.parametrize(
    ("settings", "flag"),
    [({"sample_every": 1, "sample_file": "a.pcapng"}, "--pcap-sample"), ({"perf_map": True}, "--perf-map")],
)
def test_kernel_mode_refuses_what_is_about_native_code(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ParameterError, match="in the kernel mode there is none") as caught:
        ServeOptions("nf.uxdp", ("eth0",), mode="kernel", **settings)
    assert caught.value.context == flag
