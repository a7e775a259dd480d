import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.site_factory import Site, entry_of
from uxdp_runtime.cli import installed, main

TRAP = "import pathlib; pathlib.Path({!r}).write_text('executed')\n"


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


def run(*arguments):
    return CliRunner().invoke(main, ["list", *map(str, arguments)], prog_name="uxdp")


def test_list_nothing_installed_says_so_on_stderr_and_succeeds(site):
    result = run("--site", site.directory)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "no network function is installed here" in result.stderr


def test_list_piped_prints_aligned_plain_columns(site):
    path = site.install("my-nf", "1.2", name="nf")
    site.install("other-nf")
    result = run("--site", site.directory)
    assert result.exit_code == 0
    header, first, second = result.stdout.splitlines()
    assert header.split() == ["Name", "Version", "Distribution", "Bundle", "id", "State", "Path"]
    bundle_id = entry_of(path.read_bytes(), "x").bundle_id
    assert first.split() == ["nf", "1.2", "my-nf", "1.2", bundle_id, "installed", str(path)]
    assert header.index("Path") == first.index(str(path)) == second.index(str(site.directory))


def test_list_json_has_every_field(site, tmp_path):
    path = site.install("my-nf")
    live = site.install_editable("your-nf", tmp_path / "project")
    result = run("--site", site.directory, "--json")
    assert result.exit_code == 0
    first, second = json.loads(result.stdout)["functions"]
    entry = entry_of(path.read_bytes(), "x")
    assert first == {
        "name": "my_nf",
        "version": "1.0",
        "distribution": "my-nf",
        "distribution_version": "1.0",
        "path": str(path),
        "bundle_id": entry.bundle_id,
        "sha256": entry.sha256,
        "editable": False,
        "changed": False,
        "state": "installed",
    }
    assert (second["path"], second["state"]) == (str(live), "editable")


def test_list_broken_function_is_an_error_and_the_others_are_listed(site):
    site.install("good-nf")
    site.install("my-nf").write_bytes(b"damaged")
    result = run("--site", site.directory)
    assert result.exit_code == 7
    _, good, bad = result.stdout.splitlines()
    assert good.startswith("good_nf ")
    assert bad.split() == ["my_nf", "-", "my-nf", "-", "error", "-"]
    assert "uxdp: error: " in result.stderr
    assert "RECORD says sha256=" in result.stderr
    assert "pip install --force-reinstall my-nf" in result.stderr


def test_list_json_broken_function_is_in_errors(site):
    site.install("good-nf")
    site.install("my-nf").unlink()
    result = run("--site", site.directory, "--json")
    assert result.exit_code == 7
    document = json.loads(result.stdout)
    assert [function["name"] for function in document["functions"]] == ["good_nf"]
    (error,) = document["errors"]
    assert (error["name"], error["distribution"], error["exit_code"]) == ("my_nf", "my-nf", 7)


def test_list_several_sites_are_looked_through_in_order(site, tmp_path):
    other = Site(tmp_path / "other")
    site.install("my-nf", "2.0")
    other.install("my-nf", "1.0")
    other.install("your-nf")
    result = run("--site", site.directory, "--site", other.directory)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["my_nf", "2.0"], ["your_nf", "1.0"]]


def test_list_terminal_shows_a_table_with_short_ids(site, monkeypatch):
    path = site.install("my-nf")
    tables = []
    monkeypatch.setattr(installed.output, "print_table", lambda *arguments: tables.append(arguments))
    monkeypatch.setattr(installed.sys, "stdout", type("Tty", (), {"isatty": staticmethod(lambda: True)})())
    assert installed.list_installed.callback((str(site.directory),), False) == 0
    ((_, columns, rows),) = tables
    assert len(columns) == len(rows[0])
    assert rows[0][3] == entry_of(path.read_bytes(), "x").bundle_id[:16]


def test_list_missing_site_is_a_usage_error(tmp_path):
    result = run("--site", tmp_path / "missing")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


@pytest.mark.parametrize("how", ["package", "path-file", "start-up"])
def test_list_never_runs_code_of_a_package(site, tmp_path, how):
    site.install("my-nf")
    witness = tmp_path / "witness"
    trap = TRAP.format(str(witness))
    site.write("my_nf/__init__.py", trap.encode())
    if how == "path-file":
        site.write("my_nf.pth", trap.encode())
    if how == "start-up":
        site.write("sitecustomize.py", trap.encode())
        site.write("usercustomize.py", trap.encode())
    command = [sys.executable, "-m", "uxdp_runtime", "list", "--site", str(site.directory)]
    # The site directory is also where the command runs: Python then puts no trust in it either.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=site.directory)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith("my_nf ")
    assert not witness.exists()
    subprocess.run([sys.executable, "-c", "import my_nf"], check=True, cwd=site.directory)
    assert witness.exists(), "the trap itself does not work"
