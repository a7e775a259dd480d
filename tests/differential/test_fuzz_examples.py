"""Inputs that evolve towards new branches of the examples find no difference."""

import os
from pathlib import Path

import pytest

from tests.bound_bundles import bound_image
from tests.differential.test_examples_agree import CASES, EXAMPLES
from uxdp_cc.build import BuildRequest, build
from uxdp_runtime.frames.constants import constants_of, keys_of
from uxdp_runtime.fuzz.fuzzer import Fuzzer
from uxdp_runtime.fuzz.trial import Trial
from uxdp_runtime.map_file import read_map_file
from uxdp_runtime.stores import ControlLibrary

pytestmark = pytest.mark.kernel

SECONDS = 600 if os.environ.get("UXDP_LONG") else 20
# What is left are answers that cannot be, such as an array without an element, and what maps of other content would do.
LEAST_REACHED = 0.6


@pytest.mark.parametrize("name", CASES)
def test_fuzz_of_an_example_finds_no_difference(kernel: None, control: ControlLibrary, cache: Path, name: str) -> None:
    settings, _expected = CASES[name]
    source = EXAMPLES / name / f"{name}.c"
    with bound_image(build(BuildRequest(sources=(source.name,), cwd=source.parent)).bundle, path=source.name) as bound:
        obj = bytes(bound.authentic.bundle.object)
        contents = read_map_file(obj, None, settings)
        steering = {*constants_of(obj), *keys_of(bound.facts.maps, contents)}
        (program,) = (fact.name for fact in bound.facts.programs)
        trial = Trial(bound, program, programs=[program], params={}, control=control, cache_directory=cache)
        result = Fuzzer(trial, contents, steering, seed=1).run(SECONDS)
    print(
        f"{name}: {result.frames / result.seconds:.0f} frames/s, {result.edges_reached} of {result.edges} edges, "
        f"{result.corpus} inputs kept, {result.left_out} frames and {result.unrepeated} differences by chance"
    )
    assert result.finding is None, (result.finding, result.case)
    assert result.unrepeated == 0
    assert result.edges_reached >= LEAST_REACHED * result.edges
    assert result.frames > 1000
    assert result.epochs >= 1
