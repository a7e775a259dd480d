"""What DPDK is told, and what its refusals mean: devices, ifindexes, EAL's arguments."""

import errno

import pytest

from uxdp_runtime.errors import ParameterError
from uxdp_runtime.ports import dpdk
from uxdp_runtime.ports.dpdk import DpdkDevice, assign_ifindexes, parse_pci, parse_vdev, plan_eal

PCI = DpdkDevice("0000:18:00.0", "0000:18:00.0", is_pci=True)
NULL = DpdkDevice("net_null0", "net_null0", is_pci=False)
MEMIF = DpdkDevice("net_memif1", "net_memif1,role=client,id=1", is_pci=False)


def test_devices_by_address_and_by_devargs() -> None:
    assert parse_pci("0000:18:00.0, 3b:00.1") == (PCI, DpdkDevice("0000:3b:00.1", "0000:3b:00.1", is_pci=True))
    assert parse_vdev("net_memif1,role=client,id=1") == MEMIF
    for text in ("eth0", "0000:18:00.0,", "18:00.9"):
        with pytest.raises(ParameterError, match=r"expected a PCI address such as 0000:18:00\.0"):
            parse_pci(text)
    for text in ("", "0000:18:00.0", "net_" + "x" * 64, "Net0"):
        with pytest.raises(ParameterError, match="such as net_memif0,role=client"):
            parse_vdev(text)


def test_ifindexes_are_those_given_then_the_kernels_then_the_first_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpdk, "kernel_ifindex", lambda device: 7 if device.is_pci else 0)
    assert assign_ifindexes([PCI, NULL, MEMIF]) == {"0000:18:00.0": 7, "net_null0": 1, "net_memif1": 2}
    assert assign_ifindexes([PCI, NULL, MEMIF], ["1=net_memif1"]) == {
        "net_memif1": 1,
        "0000:18:00.0": 7,
        "net_null0": 2,
    }
    for given, said in (
        (["0=net_null0"], "expected IFINDEX=DEVICE"),
        (["net_null0"], "expected IFINDEX=DEVICE"),
        (["3=net_x"], "is no device that is served"),
        (["3=net_null0", "3=net_memif1"], "given twice"),
        (["3=net_null0", "4=net_null0"], "given twice"),
    ):
        with pytest.raises(ParameterError, match=said):
            assign_ifindexes([NULL, MEMIF], given)


def test_interface_of_the_kernel_is_passed_into_only_if_it_has_no_copy_of_its_own() -> None:
    assert dpdk.has_netdev(DpdkDevice("net_af_xdp0", "net_af_xdp0,iface=lo", is_pci=False))
    assert not dpdk.has_netdev(DpdkDevice("net_af_packet0", "net_af_packet0,iface=lo", is_pci=False))
    assert not dpdk.has_netdev(DpdkDevice("net_af_xdp0", "net_af_xdp0,iface=none0", is_pci=False))
    assert not dpdk.has_netdev(NULL)


def test_eal_has_huge_pages_if_there_are_enough_and_leaves_nothing_behind() -> None:
    plan = plan_eal([PCI], [3, 1], 64, (), huge_mib=64)
    assert plan.arguments == ("--lcores", "0@(1,3)", "--no-telemetry", "--in-memory", "-a", "0000:18:00.0")
    assert plan.no_huge_reason == ""
    plan = plan_eal([MEMIF], [0], 64, ("--log-level", "8"), huge_mib=63)
    assert plan.no_huge_reason == "64 MiB are needed, 63 MiB are free in huge pages"
    assert plan.arguments == (
        *("--lcores", "0@(0)", "--no-telemetry", "--no-huge", "-m", "64", "--no-shconf", "--no-pci"),
        *("--vdev", "net_memif1,role=client,id=1", "--log-level", "8"),
    )


def test_user_decides_on_memory() -> None:
    plan = plan_eal([NULL], [0], 64, ("--socket-mem", "512"), huge_mib=0)
    assert plan.arguments == (
        "--lcores",
        "0@(0)",
        "--no-telemetry",
        "--no-pci",
        "--vdev",
        "net_null0",
        "--socket-mem",
        "512",
    )
    assert plan.no_huge_reason == ""


@pytest.mark.parametrize(
    ("log", "remedy"),
    [
        ('EAL: failed to parse device "net_x0"', "such as net_memif0?"),
        ("EAL: core 99 unavailable", "--lcores"),
        ("EAL: FATAL: Cannot get hugepage information.", "mount hugetlbfs"),
        ("EAL: VFIO group is not viable!", "dpdk-devbind.py -b vfio-pci"),
    ],
)
def test_eals_refusal_comes_with_what_to_do(log: str, remedy: str) -> None:
    error = dpdk.eal_error(errno.EINVAL, f"EAL: Detected CPU lcores: 2\n{log}\n", [NULL])
    assert error.context == "net_null0"
    assert str(error).endswith(f"DPDK does not start: {log}")
    assert remedy in (error.remedy or "")


def test_refusal_of_a_device_tells_the_drivers_last_words_once() -> None:
    log = "EAL: Selected IOVA mode 'VA'\nmemif_set_role(): Unknown role\nmemif_set_role(): Unknown role\n"
    error = dpdk.refusal_of_device(MEMIF, errno.ENODEV, "DPDK has made no port of it", log)
    assert str(error) == "net_memif1: DPDK has made no port of it (memif_set_role(): Unknown role)"
    assert "arguments" in (error.remedy or "")
    error = dpdk.refusal_of_device(PCI, errno.ENODEV, "DPDK has made no port of it", "")
    assert str(error) == "0000:18:00.0: DPDK has made no port of it"
    assert "dpdk-devbind.py" in (error.remedy or "")
