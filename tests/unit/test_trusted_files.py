import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from tests.unit import trust_fixtures
from tests.unit.trust_fixtures import Directories, act_as, give_away, write
from uxdp_bundle import trusted_files
from uxdp_bundle.errors import KeyFileError

isolated = trust_fixtures.isolated
no_passwd_entry = trust_fixtures.no_passwd_entry


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_system_config_dir_default_is_etc(monkeypatch):
    monkeypatch.delenv("UXDP_SYSTEM_CONFIG", raising=False)
    assert trusted_files.system_config_dir() == Path("/etc/uxdp")


@pytest.mark.parametrize(
    ("variable", "function"),
    [("UXDP_SYSTEM_CONFIG", trusted_files.system_config_dir), ("UXDP_STATE_DIR", trusted_files.state_dir)],
    ids=["config", "state"],
)
def test_override_relative_raises(monkeypatch, variable, function):
    monkeypatch.setenv(variable, "relative/dir")
    with pytest.raises(KeyFileError, match="expected an absolute path") as caught:
        function()
    assert caught.value.context == variable
    assert caught.value.remedy == f"unset {variable}"


def test_user_config_dir_is_xdg(monkeypatch, tmp_path):
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    assert trusted_files.user_config_dir() == tmp_path / "c" / "uxdp"


@pytest.mark.parametrize("value", ["", "relative"], ids=["empty", "relative"])
def test_user_config_dir_unusable_xdg_is_home(monkeypatch, tmp_path, value):
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trusted_files.user_config_dir() == tmp_path / ".config" / "uxdp"


@pytest.mark.parametrize("home", ["", "relative"], ids=["empty", "relative"])
def test_user_config_dir_unusable_home_is_passwd(monkeypatch, home):
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    expected = trusted_files.pwd.getpwuid(os.geteuid()).pw_dir
    assert trusted_files.user_config_dir() == Path(expected) / ".config" / "uxdp"


def test_user_config_dir_without_home_raises(monkeypatch, no_passwd_entry):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(KeyFileError, match="no home directory") as caught:
        trusted_files.user_config_dir()
    assert caught.value.context == "HOME"


def test_user_config_dir_root_under_sudo_is_roots_own(monkeypatch, tmp_path):
    act_as(monkeypatch, 0)
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "c"))
    assert trusted_files.user_config_dir() == Path(trusted_files.pwd.getpwuid(0).pw_dir) / ".config" / "uxdp"


def test_user_config_dir_other_user_under_sudo_is_own(monkeypatch, tmp_path):
    act_as(monkeypatch, 1234)
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert trusted_files.user_config_dir() == tmp_path / "uxdp"


def test_state_dir_root_is_var_lib(monkeypatch):
    act_as(monkeypatch, 0)
    monkeypatch.delenv("UXDP_STATE_DIR", raising=False)
    assert trusted_files.state_dir() == Path("/var/lib/uxdp")


def test_state_dir_user_is_xdg_state(monkeypatch, tmp_path):
    act_as(monkeypatch, 1234)
    monkeypatch.delenv("UXDP_STATE_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert trusted_files.state_dir() == tmp_path / "uxdp"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trusted_files.state_dir() == tmp_path / ".local" / "state" / "uxdp"


def test_read_trusted_returns_content(tmp_path):
    path = write(tmp_path / "a.toml", b"content")
    assert trusted_files.read_trusted(path, max_bytes=7) == b"content"


def test_read_trusted_too_large_raises(tmp_path):
    path = write(tmp_path / "a.toml", b"content")
    with pytest.raises(KeyFileError, match="more than 6 bytes"):
        trusted_files.read_trusted(path, max_bytes=6)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666], ids=["group-writable", "world-writable", "both"])
def test_read_trusted_writable_by_others_raises(tmp_path, mode):
    path = write(tmp_path / "a b.toml", b"", mode)
    with pytest.raises(
        KeyFileError, match=f"mode {mode:04o} .owner uid {os.getuid()}. lets other users write"
    ) as caught:
        trusted_files.read_trusted(path, max_bytes=10)
    assert caught.value.context == str(path)
    assert caught.value.remedy == f"chmod go-w '{path}'"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o611], ids=["group-readable", "world-readable", "executable"])
def test_read_trusted_secret_readable_by_others_raises(tmp_path, mode):
    path = write(tmp_path / "key", b"", mode)
    with pytest.raises(KeyFileError, match="lets other users read the secret key") as caught:
        trusted_files.read_trusted(path, max_bytes=10, secret=True)
    assert caught.value.remedy == f"chmod 600 {path}"
    path.chmod(0o622)
    with pytest.raises(KeyFileError, match="write it") as caught:
        trusted_files.read_trusted(path, max_bytes=10, secret=True)
    assert caught.value.remedy == f"chmod 600 {path}"


def test_read_trusted_owned_by_another_raises(tmp_path, monkeypatch):
    path = write(tmp_path / "a.toml", b"")
    give_away(path, monkeypatch)
    with pytest.raises(KeyFileError, match=r"belongs to uid \d+ .mode 0644., expected") as caught:
        trusted_files.read_trusted(path, max_bytes=10)
    assert caught.value.remedy == f"chown {os.geteuid()} {path}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away; run as root")
def test_read_trusted_owned_by_another_than_user_or_root_raises(tmp_path, monkeypatch):
    path = write(tmp_path / "a.toml", b"x")
    act_as(monkeypatch, 1234)
    assert trusted_files.read_trusted(path, max_bytes=10) == b"x", "root's file is safe for everybody"
    os.chown(path, 4711, -1)
    with pytest.raises(KeyFileError, match="expected root or uid 1234"):
        trusted_files.read_trusted(path, max_bytes=10)


def test_read_trusted_symlink_raises(tmp_path):
    target = write(tmp_path / "a.toml", b"")
    link = tmp_path / "link.toml"
    link.symlink_to(target)
    with pytest.raises(KeyFileError, match="is a symbolic link, expected a regular file"):
        trusted_files.read_trusted(link, max_bytes=10)


def test_read_trusted_fifo_raises_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(KeyFileError, match="is no regular file"):
        trusted_files.read_trusted(tmp_path / "fifo", max_bytes=10)


def test_read_trusted_directory_as_file_raises(tmp_path):
    with pytest.raises(KeyFileError, match="is no regular file"):
        trusted_files.read_trusted(tmp_path, max_bytes=10)


@pytest.mark.parametrize("name", ["missing", "nul\0byte"], ids=["missing", "null-byte"])
def test_read_trusted_unreadable_raises(tmp_path, name):
    with pytest.raises(KeyFileError):
        trusted_files.read_trusted(tmp_path / name, max_bytes=10)


def test_read_trusted_read_error_raises(tmp_path, monkeypatch):
    path = write(tmp_path / "a.toml", b"x")

    def fail(_fd, _length):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(trusted_files.os, "read", fail)
    with pytest.raises(KeyFileError, match="cannot be read: Input/output error"):
        trusted_files.read_trusted(path, max_bytes=10)


def test_read_trusted_directory_sorts_and_skips(tmp_path):
    for name in ("b.toml", "a.toml", ".hidden.toml", "note.txt"):
        write(tmp_path / "d" / name, name)
    files = trusted_files.read_trusted_directory(tmp_path / "d", suffix=".toml", max_files=2, max_bytes=100)
    assert {path.name: data for path, data in files.items()} == {"a.toml": b"a.toml", "b.toml": b"b.toml"}
    assert [path.name for path in files] == ["a.toml", "b.toml"]


def test_read_trusted_directory_missing_is_empty(tmp_path):
    assert trusted_files.read_trusted_directory(tmp_path / "d", suffix=".toml", max_files=1, max_bytes=1) == {}


def test_read_trusted_directory_too_many_files_raises(tmp_path):
    write(tmp_path / "d" / "a.toml", "")
    write(tmp_path / "d" / "b.toml", "")
    with pytest.raises(KeyFileError, match="2 files, at most 1"):
        trusted_files.read_trusted_directory(tmp_path / "d", suffix=".toml", max_files=1, max_bytes=1)


@pytest.mark.parametrize("defect", ["symlink", "file", "world-writable"])
def test_read_trusted_directory_unsafe_raises(tmp_path, defect):
    path = tmp_path / "d"
    if defect == "symlink":
        (tmp_path / "real").mkdir()
        path.symlink_to(tmp_path / "real")
    elif defect == "file":
        write(path, "")
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(KeyFileError) as caught:
        trusted_files.read_trusted_directory(path, suffix=".toml", max_files=1, max_bytes=1)
    assert caught.value.context == str(path)


def test_exists_of_dangling_link_is_true(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert trusted_files.exists(tmp_path / "link")
    assert not trusted_files.exists(tmp_path / "nowhere")
    assert not trusted_files.exists(write(tmp_path / "file", "") / "below")


def test_exists_unknowable_raises(tmp_path):
    with pytest.raises(KeyFileError, match="too long"):
        trusted_files.exists(tmp_path / ("x" * 300))


def test_ensure_directory_sets_modes_despite_umask(tmp_path):
    old = os.umask(0o077)
    try:
        trusted_files.ensure_directory(tmp_path / "a" / "b" / "c", mode=0o755, parents_mode=0o711)
    finally:
        os.umask(old)
    assert mode_of(tmp_path / "a") == mode_of(tmp_path / "a" / "b") == 0o711
    assert mode_of(tmp_path / "a" / "b" / "c") == 0o755
    trusted_files.ensure_directory(tmp_path / "a" / "b" / "c", mode=0o700, parents_mode=0o700)
    assert mode_of(tmp_path / "a" / "b" / "c") == 0o755, "what exists keeps its mode"


def test_ensure_directory_below_a_file_raises(tmp_path):
    write(tmp_path / "file", "")
    with pytest.raises(KeyFileError, match="cannot be written"):
        trusted_files.ensure_directory(tmp_path / "file" / "d", mode=0o700, parents_mode=0o700)


def test_ensure_directory_unsafe_raises(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o775)
    with pytest.raises(KeyFileError, match="lets other users write"):
        trusted_files.ensure_directory(tmp_path / "d", mode=0o700, parents_mode=0o700)


def test_write_new_never_overwrites(tmp_path):
    path = write(tmp_path / "key", b"old")
    with pytest.raises(FileExistsError):
        trusted_files.write_new(path, b"new", 0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["key"]


def test_write_new_does_not_follow_a_link(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        trusted_files.write_new(tmp_path / "key", b"new", 0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_replace_file_sets_mode_and_replaces_a_link_itself(tmp_path):
    target = write(tmp_path / "target", b"target")
    (tmp_path / "link").symlink_to(target)
    trusted_files.replace_file(tmp_path / "link", b"new", 0o640)
    assert not (tmp_path / "link").is_symlink()
    assert mode_of(tmp_path / "link") == 0o640
    assert target.read_bytes() == b"target"


def test_replace_file_failing_write_leaves_old(tmp_path, monkeypatch):
    path = write(tmp_path / "f", b"old")

    def full(_fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trusted_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        trusted_files.replace_file(path, b"new", 0o600)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_replace_file_over_directory_leaves_nothing(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="directory"):
        trusted_files.replace_file(tmp_path / "d", b"new", 0o600)
    assert os.listdir(tmp_path) == ["d"]


def test_locked_excludes_other_threads(tmp_path):
    order = []

    def second() -> None:
        with trusted_files.locked(tmp_path):
            order.append("second")

    with trusted_files.locked(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.1)
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert mode_of(tmp_path / ".lock") == 0o600


def test_locked_symlink_raises(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="cannot be written"), trusted_files.locked(tmp_path):
        pytest.fail("the lock was had")


def test_locked_lock_of_others_raises(tmp_path):
    write(tmp_path / ".lock", "", 0o666)
    with pytest.raises(KeyFileError, match="lets other users"), trusted_files.locked(tmp_path):
        pytest.fail("the lock was had")


@pytest.mark.parametrize(("number", "has_remedy"), [(errno.EACCES, True), (errno.ENOSPC, False)])
def test_unwritable_names_remedy_for_permissions(number, has_remedy):
    error = trusted_files.unwritable(Path("/x"), OSError(number, os.strerror(number)))
    assert os.strerror(number) in error.message
    assert bool(error.remedy) == has_remedy


def test_isolated_user_touches_nothing_real(isolated: Directories):
    assert trusted_files.system_config_dir() == isolated.system
    assert trusted_files.user_config_dir() == isolated.user
    assert trusted_files.state_dir() == isolated.state
