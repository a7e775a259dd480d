"""What is told of a network interface."""

from pathlib import Path

import pytest

from uxdp_runtime.ports.interface import numa_node


@pytest.mark.parametrize(
    ("bus_info", "content", "node"),
    [
        pytest.param("0000:18:00.0", "1\n", 1, id="node"),
        pytest.param("0000:18:00.0", "-1\n", -1, id="none"),
        pytest.param("0000:18:00.0", "", -1, id="empty"),
        pytest.param("0000:18:00.0", None, -1, id="missing"),
        pytest.param("", "1\n", -1, id="virtual"),
        pytest.param("../0000:18:00.0", "1\n", -1, id="no-address"),
    ],
)
def test_numa_node_of_a_pci_device(tmp_path: Path, bus_info: str, content: str | None, node: int) -> None:
    if content is not None:
        (tmp_path / "0000:18:00.0").mkdir()
        (tmp_path / "0000:18:00.0" / "numa_node").write_text(content)
    assert numa_node(bus_info, tmp_path) == node
