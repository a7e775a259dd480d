import re

import pytest

from tests.unit.facts_fixtures import clang
from uxdp_bundle.helpers import HELPERS, NOT_FOR_XDP, helper_name

NUMBERS = {"bpf_map_lookup_elem": 1, "bpf_xdp_adjust_head": 44, "bpf_redirect_map": 51, "bpf_loop": 181}


@pytest.mark.parametrize(("name", "number"), NUMBERS.items())
def test_helper_name_of_known_number_is_the_kernels(name, number):
    assert helper_name(number) == name


def test_helper_name_of_the_uapi_header_are_ours():
    """The header of the machine may be older than the list, and names the same numbers."""
    source = "#include <linux/bpf.h>\n#define STR(x, ...) NAME(x)\n___BPF_FUNC_MAPPER(STR)\n"
    names = re.findall(r"NAME\((\w+)\)", clang(source, "-E").decode())
    if not names:  # before Linux 6.2 the header has no numbers
        names = re.findall(r"FN\((\w+)\)", clang("#include <linux/bpf.h>\n__BPF_FUNC_MAPPER(FN)\n", "-E").decode())
    assert len(names) > 200
    assert [f"bpf_{name}" for name in names] == list(HELPERS[: len(names)])


@pytest.mark.parametrize("number", [0, -1, 212, 100_000])
def test_helper_name_of_unknown_number_says_the_number(number):
    assert helper_name(number) == f"helper#{number}"


def test_helpers_have_each_name_once():
    assert len(set(HELPERS)) == len(HELPERS) == 212


def test_helpers_not_for_xdp_are_helpers():
    assert set(HELPERS) > NOT_FOR_XDP


@pytest.mark.parametrize("name", ["bpf_xdp_adjust_head", "bpf_redirect", "bpf_tail_call", "bpf_csum_diff", "bpf_loop"])
def test_helpers_that_xdp_programs_use_are_allowed(name):
    assert name not in NOT_FOR_XDP


@pytest.mark.parametrize("name", ["bpf_skb_load_bytes", "bpf_skb_store_bytes", "bpf_override_return", "bpf_sys_bpf"])
def test_helpers_of_other_programs_are_refused(name):
    assert name in NOT_FOR_XDP
