"""Run uxdp-cc and uxdp as a user does: by name, with a configuration that is nobody's."""

import os
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

# What the caller of the tests is configured by; and make's own, by which an inner make speaks otherwise.
_NOT_A_USERS = ("UXDP_", "XDG_", "SUDO_", "MAKE", "MFLAGS")


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a user whose home is ``home``, with the commands of this installation on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_A_USERS)}
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    own = {"UXDP_SYSTEM_CONFIG": str(home / "etc"), "UXDP_STATE_DIR": str(home / "state")}
    return {**kept, "PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), **own, **variables}


def run(command: str, cwd: Path, env: Mapping[str, str], *, status: int = 0) -> str:
    """Run a shell command line, which must end with ``status``; return what it wrote to both outputs."""
    result = subprocess.run(
        ["sh", "-ec", command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == status, f"{command}\nstatus {result.returncode}\n{result.stdout}"
    return result.stdout


def in_network_namespace(command: str, cwd: Path, env: Mapping[str, str]) -> str:
    """Run a command where there are two interfaces, v0 and its peer v1, and a /sys/fs/bpf; they go when it ends."""
    setup = "mount -t bpf bpf /sys/fs/bpf; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up"
    script = f"{setup}; {command}"
    return run(f"unshare --mount --net sh -ec '{script}'", cwd, env)
