"""Maps of a running service: by its control socket, by bpftool, and as the program sees them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.isolated_user import isolate
from tests.serving import RunningService, packet_socket, received, run_folder, send_all, serving
from tests.serving_state import Answer, answer, is_answer, question, state_bundle
from tests.veth import VethPair, veth_pair
from uxdp_runtime.cli.group import main
from uxdp_runtime.serve.control_socket import RUN_FOLDER
from uxdp_runtime.serve.pinning import PIN_FOLDER

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("kernel")]


@pytest.fixture
def pair(kernel: None) -> Iterator[VethPair]:
    with veth_pair() as made:
        yield made


@pytest.fixture
def service(pair: VethPair, bpffs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[RunningService]:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv(RUN_FOLDER, run_folder(tmp_path / "run")[RUN_FOLDER])
    monkeypatch.setenv(PIN_FOLDER, str(bpffs / "uxdp"))
    bundle = state_bundle(tmp_path)
    with serving(pair, bundle, "--program", "state", "--tx", "ring", name="state") as running:
        yield running


def ask_program(pair: VethPair, count: int = 1) -> list[Answer]:
    with packet_socket(pair, pair.peer) as raw:
        send_all(raw, [question(number) for number in range(count)])
        return [answer(data) for data in received(raw, count, is_answer)]


def uxdp(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["map", *arguments], catch_exceptions=False)


def done(*arguments: str) -> str:
    result = uxdp(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_map_set_is_seen_by_the_program_at_once(service: RunningService, pair: VethPair) -> None:
    assert ask_program(pair)[0].mark == 0
    done("set", "state", "settings", "0", '{"mark": 5, "address": "10.1.2.3"}')
    assert ask_program(pair)[0].mark == 5
    assert done("get", "state", "settings", "0") == '0 = {"mark": 5, "address": "10.1.2.3"}\n'
    done("set", "state", "flows", "10.0.0.1", '{"frames": 40}', "--only", "new")
    assert [item.flow for item in ask_program(pair, 2)] == [41, 42]
    assert json.loads(done("get", "state", "flows", "10.0.0.1", "--json")) == {
        "key": 0x0A000001,
        "value": {"frames": 42},
    }
    done("delete", "state", "flows", "10.0.0.1")
    assert ask_program(pair)[0].flow == 0


def test_global_data_keeps_the_variables_that_are_not_named(service: RunningService, pair: VethPair) -> None:
    assert ask_program(pair, 3)[2].seen == 7  # limit, the larger one
    done("set", "state", ".data", "0", '{"limit": 1}')
    assert ask_program(pair)[0].seen == 4
    done("set", "state", ".bss", "0", '{"seen": 100}')
    assert ask_program(pair)[0].seen == 101


def test_values_of_workers_are_one_each(service: RunningService, pair: VethPair) -> None:
    ask_program(pair, 5)
    found = json.loads(done("get", "state", "per_worker", "0", "--json"))
    assert found == {"key": 0, "values": [{"cpu": 0, "value": 5}]}


def test_programs_and_interfaces_go_by_name(service: RunningService, pair: VethPair) -> None:
    assert ask_program(pair)[0].stage == 1
    done("set", "state", "stages", "0", "stage_two")
    assert ask_program(pair)[0].stage == 2
    assert done("dump", "state", "stages") == 'stages:\n  0 = "stage_two"\n'
    done("delete", "state", "stages", "0")
    assert ask_program(pair)[0].stage == 0
    refused = uxdp("set", "state", "stages", "0", "stage_three")
    assert refused.exit_code == 2
    assert "expected one of the programs stage_one, state, stage_two" in refused.output.replace("\n", " ")
    done("set", "state", "ports", "0", pair.interface)
    assert done("get", "state", "ports", "0") == f'0 = "{pair.interface}"\n'
    index = json.loads(done("get", "state", "ports", "0", "--json"))["value"]
    assert json.loads(pair.run(pair.host, "ip", "-json", "link", "show", pair.interface).stdout)[0]["ifindex"] == index
    for wrong in ("eth99", "4000"):
        refused = uxdp("set", "state", "ports", "1", wrong)
        assert refused.exit_code == 2
        assert "expected an interface that exists here" in refused.output


@pytest.mark.parametrize(
    ("arguments", "exit_code", "text"),
    [
        (("set", "state", "settings", "0", '{"marc": 1}'), 2, "one of the members mark, address"),
        (("set", "state", "setting", "0", "1"), 2, "did you mean settings?"),
        (("get", "state", "flows", "10.0.0.9"), 1, "no such element"),
        (("delete", "state", "settings", "0"), 1, "Invalid argument"),
        (("set", "state", "settings", "4", '{"mark": 1}'), 1, "Argument list too long"),
        (("set", "state", "flows", "10.0.0.9", '{"frames": 1}', "--only", "existing"), 1, "No such file"),
        (("list", "nobody"), 10, "no service answers"),
    ],
    ids=["no-member", "no-map", "no-element", "no-delete", "no-index", "not-existing", "no-service"],
)
def test_map_commands_that_are_wrong_say_how(
    service: RunningService, arguments: tuple[str, ...], exit_code: int, text: str
) -> None:
    result = uxdp(*arguments)
    assert (result.exit_code, text in result.output) == (exit_code, True), result.output


def test_load_checks_everything_first_and_dump_reads_it_back(service: RunningService, tmp_path: Path) -> None:
    flows = [{"key": f"10.1.{number >> 8}.{number & 255}", "value": {"frames": number}} for number in range(900)]
    file = tmp_path / "maps.json"
    file.write_text(json.dumps({"flows": [*flows, {"key": "10.9.9.9", "value": {"fames": 1}}]}))
    refused = uxdp("load", "state", str(file))
    assert refused.exit_code == 2
    assert "[900]" in refused.output
    assert json.loads(done("dump", "state", "flows", "--json")) == {"flows": []}
    file.write_text(json.dumps({"flows": flows, "settings": {"2": {"mark": 9}}, ".data": {"0": {"limit": 3}}}))
    assert done("load", "state", str(file)) == "state: 902 elements set\n"
    dumped = json.loads(done("dump", "state", "--json"))
    assert {(item["key"], item["value"]["frames"]) for item in dumped["flows"]} == {
        (0x0A010000 + number, number) for number in range(900)
    }
    assert dumped["settings"] == [{"key": 2, "value": {"mark": 9, "address": 0}}]
    file.write_text(json.dumps(dumped))
    assert done("load", "state", str(file)).startswith("state: ")


def test_maps_in_maps_go_by_their_outer_map_and_key(service: RunningService, pair: VethPair, tmp_path: Path) -> None:
    assert done("dump", "state", "groups") == 'groups:\n  1 = "residents"\n'
    done("set", "state", "residents", "10.0.0.1", "100")
    done("set", "state", "groups", "0", '{"max_entries": 1}')
    done("set", "state", "groups[0]", "10.0.0.1", "0")
    full = uxdp("set", "state", "groups[0]", "10.0.0.2", "0")
    assert (full.exit_code, "Argument list too long" in full.output) == (1, True)
    ask_program(pair, 4)
    assert done("get", "state", "groups[0]", "10.0.0.1") == '"10.0.0.1" = 4\n'
    assert done("get", "state", "groups[1]", "10.0.0.1") == '"10.0.0.1" = 104\n'
    listed = {item["name"]: item["max_entries"] for item in json.loads(done("list", "state", "--json"))}
    assert (listed["groups"], listed["groups[0]"], "groups[1]" in listed) == (2, 1, False)
    file = tmp_path / "maps.json"
    file.write_text(done("dump", "state", "--json"))
    done("set", "state", "groups", "0", "{}")  # another, empty one
    ask_program(pair)
    assert done("dump", "state", "groups", "groups[0]") == (
        'groups:\n  0 = {"max_entries": 100}\n  1 = "residents"\ngroups[0]:\n'
    )
    done("load", "state", str(file))
    ask_program(pair)
    assert done("get", "state", "groups[0]", "10.0.0.1") == '"10.0.0.1" = 5\n'
    done("delete", "state", "groups", "0")
    ask_program(pair)
    assert uxdp("get", "state", "groups[0]", "10.0.0.1").exit_code == 1
    refused = uxdp("set", "state", "groups", "0", "settings")
    assert (refused.exit_code, "Invalid argument" in refused.output) == (1, True)


def test_values_without_keys_are_pushed_and_popped(service: RunningService, pair: VethPair, tmp_path: Path) -> None:
    assert uxdp("pop", "state", "jobs").exit_code == 1
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        done("push", "state", "jobs", address)
    full = uxdp("push", "state", "jobs", "10.0.0.4")
    assert (full.exit_code, "Argument list too long" in full.output) == (1, True)
    done("push", "state", "jobs", "10.0.0.4", "--replace")
    assert done("peek", "state", "jobs") == '"10.0.0.2"\n'
    ask_program(pair)  # takes one
    assert done("dump", "state", "jobs") == 'jobs:\n  "10.0.0.3"\n  "10.0.0.4"\n'
    assert done("pop", "state", "jobs") == '"10.0.0.3"\n'
    file = tmp_path / "maps.json"
    file.write_text(json.dumps({"jobs": ["10.0.0.5"], "numbers": [4711]}))
    done("load", "state", str(file))
    assert json.loads(done("dump", "state", "jobs", "--json")) == {
        "jobs": [{"value": 0x0A000004}, {"value": 0x0A000005}]
    }
    for number, seen in (
        (0, "perhaps"),
        (4711, "perhaps"),
        (4712, "no"),
        ("0a 00 00 02", "perhaps"),
        ("02 00 00 0a", "no"),
    ):
        assert done("peek", "state", "numbers", str(number)) == f"{seen}\n", number
    done("push", "state", "numbers", "4712")
    assert done("peek", "state", "numbers", "4712") == "perhaps\n"
    assert "numbers" not in json.loads(done("dump", "state", "--json"))
    for wrong in (("set", "state", "jobs", "0", "1"), ("push", "state", "flows", "1"), ("dump", "state", "numbers")):
        assert uxdp(*wrong).exit_code == 8, wrong


def test_events_are_taken_out_of_rings(service: RunningService, pair: VethPair) -> None:
    ask_program(pair, 3)
    assert done("events", "state", "answered").split() == ["00000000", "01000000", "02000000"]
    mac = question(0)[:6].hex()
    assert done("events", "state", "sampled").split() == ["00000000" + mac] * 3
    assert done("events", "state", "answered") == ""
    ask_program(pair, 300)  # of which the ring has room for 255
    assert len(done("events", "state", "answered").split()) == 255
    assert uxdp("events", "state", "flows").exit_code == 8


def test_pinned_arrays_are_the_programs_own_memory(service: RunningService, pair: VethPair, bpffs: Path) -> None:
    folder = bpffs / "uxdp" / "state"
    assert {path.name for path in folder.iterdir()} == {"settings", "_bss", "_data"}
    ask_program(pair, 3)
    assert bytes.fromhex(bpftool_dump(folder / "_bss")[0][0][2:]) == b"\x03"
    subprocess.run(
        ["bpftool", "map", "update", "pinned", str(folder / "settings"), *"key 0 0 0 0 value 77 0 0 0 0 0 0 0".split()],
        check=True,
        timeout=60,
    )
    assert ask_program(pair)[0].mark == 77
    assert service.stop() == 0
    assert not folder.parent.exists()


def bpftool_dump(path: Path) -> list[list[str]]:
    run = subprocess.run(
        ["bpftool", "--json", "map", "dump", "pinned", str(path)], check=True, timeout=60, capture_output=True
    )
    return [item["value"] for item in json.loads(run.stdout)]


def test_context_of_live_frames_names_interface_and_queue(service: RunningService, pair: VethPair) -> None:
    links = json.loads(pair.run(pair.host, "ip", "-json", "link", "show", pair.interface).stdout)
    assert {(item.ifindex, item.queue) for item in ask_program(pair, 3)} == {(links[0]["ifindex"], 0)}
