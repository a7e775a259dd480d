"""uxdp bench --maps: every type is measured on both sides, with what it is filled with."""

import json

import pytest
from click.testing import CliRunner

from uxdp_runtime.bench import maps
from uxdp_runtime.cli.group import main
from uxdp_runtime.compile import targets

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]


KINDS = ("percpu_array", "lru_percpu_hash", "lpm_trie", "hash_of_maps", "stack", "bloom_filter")


@pytest.mark.parametrize("kind", KINDS)
def test_operations_cost_something_on_both_sides(kind: str) -> None:
    plan = maps.Plan((kind,), (8,), (50,), (1,), rounds=1, runs=64)
    figures = list(maps.measure(plan, targets.host_target()))
    assert [figure.operation for figure in figures] == list(maps.KINDS[kind].operations)
    assert all(0.1 <= figure.native_ns < 10_000 and 0.1 <= figure.kernel_ns < 10_000 for figure in figures)


def test_commands_prints_figures_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uxdp_runtime.cli.bench._MAP_RUNS", 64)
    run = CliRunner().invoke(main, ["bench", "--maps", "--types", "hash", "--fill", "10", "--key-bytes", "4", "--json"])
    assert run.exit_code == 0, run.output
    results = json.loads(run.output)["results"]
    assert [(item["type"], item["operation"], item["fill"]) for item in results] == [
        ("hash", "lookup", 10),
        ("hash", "update", 10),
    ]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "expected a bundle, or --maps"),
        (("nf.uxdp", "--maps"), "measures no bundle"),
        (("--maps", "--types", "heap"), "expected some of array"),
        (("--maps", "--key-bytes", "5"), "multiples of 4"),
        (("--maps", "--threads", "1000000"), "expected 1.."),
    ],
    ids=["nothing", "both", "no-type", "odd-key", "threads"],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], text: str) -> None:
    run = CliRunner().invoke(main, ["bench", *arguments])
    assert (run.exit_code, text in run.output.replace("\n", " ")) == (2, True), run.output
