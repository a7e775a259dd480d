import json
import os
import sys
from pathlib import Path

import pytest

from tests.site_factory import Site, entry_of, make_bundle
from uxdp_bundle import beneath, installed
from uxdp_bundle.errors import FileAccessError, InstalledError
from uxdp_bundle.installed import find_installed, locate, scan_installed
from uxdp_bundle.wheel_index import INDEX_PATH, encode_index


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


def only_error(site):
    scan = scan_installed([str(site.directory)])
    assert len(scan.defects) == 1, scan
    return str(scan.defects[0].error)


def test_find_installed_empty_directory_returns_nothing(site):
    assert find_installed([str(site.directory)]) == ()


def test_find_installed_distribution_without_index_is_ignored(site):
    site.write("other-1.dist-info/METADATA", b"Name: other\n")
    site.write("no_info.dist-info", b"a file")
    assert find_installed([str(site.directory)]) == ()


def test_find_installed_wheel_returns_its_bundle(site):
    path = site.install("my-nf", "1.2", name="nf")
    (function,) = find_installed([str(site.directory)])
    image = path.read_bytes()
    entry = entry_of(image, "my_nf/nf.uxdp")
    assert function.name == "nf"
    assert function.version == "1.2"
    assert function.distribution == "my-nf"
    assert function.distribution_version == "1.2"
    assert function.path == path
    assert (function.bundle_id, function.sha256) == (entry.bundle_id, entry.sha256)
    assert not function.editable
    assert not function.changed
    assert function.state == "installed"


def test_find_installed_default_path_is_that_of_the_interpreter(site, monkeypatch, tmp_path):
    site.install("my-nf")
    archive = tmp_path / "library.zip"
    archive.write_bytes(b"PK")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "missing"), str(archive), str(site.directory)])
    assert [function.name for function in find_installed()] == ["my_nf"]


def test_find_installed_same_directory_twice_finds_once(site, tmp_path):
    site.install("my-nf")
    link = tmp_path / "link"
    link.symlink_to(site.directory)
    assert len(find_installed([str(site.directory), str(site.directory), str(link)])) == 1


def test_find_installed_same_distribution_in_two_directories_takes_the_first(site, tmp_path):
    later = Site(tmp_path / "later")
    first = site.install("my-nf", "2.0")
    later.install("My.NF", "1.0")
    (function,) = find_installed([str(site.directory), str(later.directory)])
    assert function.path == first


def test_find_installed_missing_directory_raises_installed_error(tmp_path):
    with pytest.raises(InstalledError, match="No such file") as caught:
        find_installed([str(tmp_path / "missing")])
    assert isinstance(caught.value.__cause__, FileAccessError)


def test_find_installed_file_as_directory_raises_installed_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InstalledError, match="is no directory"):
        find_installed([str(tmp_path / "file")])


def test_find_installed_never_asks_import_finders(site, monkeypatch):
    site.install("my-nf")

    class Trap:
        def __getattr__(self, name):
            raise AssertionError(f"sys.meta_path was asked for {name}")

    monkeypatch.setattr(sys, "meta_path", [Trap(), *sys.meta_path])
    assert len(find_installed([str(site.directory)])) == 1


def test_locate_name_returns_function(site):
    site.install("my-nf")
    assert locate("my_nf", [str(site.directory)]).distribution == "my-nf"


def test_locate_unknown_name_lists_what_is_installed(site):
    site.install("my-nf")
    with pytest.raises(InstalledError, match="no installed network function 'other', installed are: my_nf"):
        locate("other", [str(site.directory)])


def test_locate_nothing_installed_says_none(site):
    with pytest.raises(InstalledError, match="installed are: none"):
        locate("other", [str(site.directory)])


def test_locate_good_function_ignores_defects_of_others(site):
    site.install("my-nf")
    site.install("bad-nf").unlink()
    assert locate("my_nf", [str(site.directory)]).name == "my_nf"
    with pytest.raises(InstalledError, match="No such file"):
        locate("bad_nf", [str(site.directory)])


def test_locate_unreadable_index_is_mentioned(site):
    site.install("my-nf")
    site.rewrite_index("my-nf", b"{")
    with pytest.raises(InstalledError, match=r"no installed network function 'my_nf', but .*not JSON"):
        locate("my_nf", [str(site.directory)])


def test_scan_installed_same_name_in_two_distributions_is_a_defect_of_both(site):
    site.install("a-nf", name="nf")
    site.install("b-nf", name="nf")
    site.install("c-nf")
    scan = scan_installed([str(site.directory)])
    assert [function.name for function in scan.functions] == ["c_nf"]
    assert [(defect.distribution, defect.name) for defect in scan.defects] == [("a-nf", "nf"), ("b-nf", "nf")]
    with pytest.raises(InstalledError, match="offered by 2 distributions: a-nf, b-nf"):
        locate("nf", [str(site.directory)])


def test_scan_installed_name_of_a_broken_distribution_is_not_taken_from_another(site):
    site.install("a-nf", name="nf").write_bytes(b"damaged")
    site.install("b-nf", name="nf")
    assert scan_installed([str(site.directory)]).functions == ()


def test_scan_installed_two_versions_in_one_directory_is_a_defect(site):
    site.install("my-nf", "1.0")
    site.install("my-nf", "2.0")
    assert "2 versions of one distribution" in only_error(site)


def remove_bundle(site):
    (site.directory / "my_nf/my_nf.uxdp").unlink()


def flip_bundle(site):
    path = site.directory / "my_nf/my_nf.uxdp"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def link_bundle(site):
    path = site.directory / "my_nf/my_nf.uxdp"
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def link_folder(site):
    path = site.directory / "my_nf"
    path.rename(site.directory / "elsewhere")
    path.symlink_to("elsewhere")


def fifo_bundle(site):
    path = site.directory / "my_nf/my_nf.uxdp"
    path.unlink()
    os.mkfifo(path)


def directory_bundle(site):
    path = site.directory / "my_nf/my_nf.uxdp"
    path.unlink()
    path.mkdir()


def huge_bundle(site):
    os.truncate(site.directory / "my_nf/my_nf.uxdp", 1 << 30)


def edit_record(site, edit):
    path = site.info("my-nf") / "RECORD"
    path.write_bytes(edit(path.read_bytes()))


def unrecorded_bundle(site):
    edit_record(site, lambda record: b"".join(line for line in record.splitlines(True) if b".uxdp" not in line))


def unrecorded_index(site):
    edit_record(site, lambda record: b"".join(line for line in record.splitlines(True) if b"index.json" not in line))


def no_digest(site):
    edit_record(site, lambda record: b"".join(line.split(b",")[0] + b",,\n" for line in record.splitlines()))


def md5_digest(site):
    edit_record(site, lambda record: record.replace(b"sha256=", b"md5="))


def wrong_size(site):
    edit_record(site, lambda record: record.replace(b"\n", b"9\n", 1))


def two_lines(site):
    edit_record(site, lambda record: record + b"my_nf/my_nf.uxdp,sha256=x,1\n")


def short_line(site):
    edit_record(site, lambda record: record + b"my_nf\n")


def binary_record(site):
    edit_record(site, lambda record: record + b"\xff,,\n")


def open_quote(site):
    edit_record(site, lambda record: record + b'"my_nf,,\n')


def no_record(site):
    (site.info("my-nf") / "RECORD").unlink()


def huge_record(site):
    os.truncate(site.info("my-nf") / "RECORD", installed.MAX_RECORD_BYTES + 1)


def edited_index(site):
    path = site.info("my-nf") / INDEX_PATH
    path.write_bytes(path.read_bytes() + b" ")


def link_index(site):
    path = site.info("my-nf") / INDEX_PATH
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def link_index_folder(site):
    path = site.info("my-nf") / "extra_metadata"
    path.rename(site.directory / "elsewhere")
    path.symlink_to(site.directory / "elsewhere")


def link_info(site):
    path = site.info("my-nf")
    path.rename(site.directory / "elsewhere")
    path.symlink_to("elsewhere")


def no_metadata(site):
    (site.info("my-nf") / "METADATA").unlink()


def foreign_metadata(site):
    (site.info("my-nf") / "METADATA").write_bytes(b"Name: other\nVersion: 1.0\n\n")


def hostile_version(site):
    (site.info("my-nf") / "METADATA").write_bytes(b"Name: my-nf\nVersion: \x1b[2J\n\n")


def binary_metadata(site):
    (site.info("my-nf") / "METADATA").write_bytes(bytes(range(256)) * 8)


def bundle_of_another_name(site):
    path = site.install("my-nf", name="other")
    entry = entry_of(path.read_bytes(), "my_nf/other.uxdp")
    fields = {key: getattr(entry, key) for key in ("version", "path", "bundle_id", "sha256")}
    site.rewrite_index("my-nf", json.dumps({"schema": 1, "bundles": [{"name": "my_nf", **fields}]}).encode())


def wrong_bundle_id(site):
    entry = entry_of((site.directory / "my_nf/my_nf.uxdp").read_bytes(), "my_nf/my_nf.uxdp")
    fields = {key: getattr(entry, key) for key in ("name", "version", "path", "sha256")}
    index = {"schema": 1, "bundles": [{"bundle_id": "0" * 64, **fields}]}
    site.rewrite_index("my-nf", json.dumps(index).encode())


def no_bundle_inside(site):
    site.write("my_nf/my_nf.uxdp", b"\x7fELF" + bytes(100))
    site.rewrite_index("my-nf", (site.info("my-nf") / INDEX_PATH).read_bytes())


def traversal(site):
    image = (site.directory / "my_nf/my_nf.uxdp").read_bytes()
    site.write("../outside.uxdp", image)
    index = {"schema": 1, "bundles": [{**json.loads(encode_index([entry_of(image, "x.uxdp")]))["bundles"][0]}]}
    index["bundles"][0]["path"] = "../outside.uxdp"
    site.rewrite_index("my-nf", json.dumps(index).encode())


def editable_without_direct_url(site):
    live = site.directory.parent / "my_nf.uxdp"
    live.write_bytes(make_bundle("my_nf"))
    site.rewrite_index("my-nf", encode_index([entry_of(live.read_bytes(), str(live), editable=True)]))


DEFECTS = {
    "no-bundle": (remove_bundle, "No such file"),
    "flipped-byte": (flip_bundle, "RECORD says sha256="),
    "linked-bundle": (link_bundle, "symbolic link"),
    "linked-folder": (link_folder, "symbolic link"),
    "fifo": (fifo_bundle, "no regular file"),
    "directory": (directory_bundle, "no regular file"),
    "huge-bundle": (huge_bundle, "at most"),
    "unrecorded-bundle": (unrecorded_bundle, "no line for 'my_nf/my_nf.uxdp'"),
    "unrecorded-index": (unrecorded_index, "no line for 'my_nf-1.0.dist-info/extra_metadata/uxdp/index.json'"),
    "no-digest": (no_digest, "RECORD says nothing"),
    "md5-digest": (md5_digest, "RECORD says md5="),
    "wrong-size": (wrong_size, "bytes, RECORD says"),
    "two-record-lines": (two_lines, "two lines for"),
    "short-record-line": (short_line, "a line of 1 fields"),
    "binary-record": (binary_record, "not a RECORD"),
    "open-quote-record": (open_quote, "not a RECORD"),
    "no-record": (no_record, "RECORD: No such file"),
    "huge-record": (huge_record, "at most"),
    "edited-index": (edited_index, "RECORD says sha256="),
    "linked-index": (link_index, "symbolic link"),
    "linked-index-folder": (link_index_folder, "symbolic link"),
    "linked-dist-info": (link_info, "symbolic link"),
    "no-metadata": (no_metadata, "METADATA: No such file"),
    "foreign-metadata": (foreign_metadata, "the folder is"),
    "hostile-version": (hostile_version, "the folder is"),
    "binary-metadata": (binary_metadata, "the folder is"),
    "bundle-of-another-name": (bundle_of_another_name, "is the bundle 'other'"),
    "wrong-bundle-id": (wrong_bundle_id, "the index says 1.0, 0000"),
    "no-bundle-inside": (no_bundle_inside, "no trailer"),
    "path-traversal": (traversal, "without"),
    "editable-without-direct-url": (editable_without_direct_url, "direct_url.json"),
}


@pytest.mark.parametrize(("damage", "message"), DEFECTS.values(), ids=DEFECTS.keys())
def test_scan_installed_damage_is_one_typed_error_and_hides_nothing_else(site, damage, message):
    site.install("good-nf")
    site.install("my-nf")
    damage(site)
    scan = scan_installed([str(site.directory)])
    assert [function.name for function in scan.functions] == ["good_nf"]
    (defect,) = scan.defects
    assert message in str(defect.error)
    assert defect.error.remedy
    assert defect.distribution == "my-nf"
    with pytest.raises(InstalledError):
        find_installed([str(site.directory)])
    with pytest.raises(InstalledError):
        locate("my_nf", [str(site.directory)])


@pytest.mark.parametrize("victim", ["RECORD", "METADATA", INDEX_PATH, "direct_url.json"])
def test_scan_installed_any_flipped_byte_is_never_another_exception(site, tmp_path, victim):
    """What the RECORD cannot notice (the RECORD itself, METADATA) is parsed as it is."""
    site.install_editable("my-nf", tmp_path / "project")
    path = site.info("my-nf") / victim
    good = path.read_bytes()
    for position in range(len(good)):
        for mask in (0x01, 0x20, 0x80):
            path.write_bytes(good[:position] + bytes([good[position] ^ mask]) + good[position + 1 :])
            if victim in (INDEX_PATH, "direct_url.json"):
                site.rewrite_index("my-nf", (site.info("my-nf") / INDEX_PATH).read_bytes())
            scan = scan_installed([str(site.directory)])
            assert len(scan.functions) + len(scan.defects) <= 1


def test_read_beneath_file_that_shrinks_while_it_is_read_raises(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"now")
    start = beneath.open_directory(tmp_path)
    status = os.stat_result((0o100644, 0, 0, 1, 0, 0, 100, 0, 0, 0))
    monkeypatch.setattr(beneath.os, "fstat", lambda fd: status)
    try:
        with pytest.raises(FileAccessError, match="changed while it was read"):
            beneath.read_beneath(start, ["file"], 1000, "file")
    finally:
        os.close(start)


def test_scan_installed_folder_name_with_control_characters_is_shown_escaped(site):
    image = make_bundle("nf")
    info = "\x1b[2Jevil-1.0.dist-info"
    site.write(f"{info}/{INDEX_PATH}", encode_index([entry_of(image, "nf.uxdp")]))
    site.write(f"{info}/METADATA", b"Name: evil\nVersion: 1.0\n")
    (defect,) = scan_installed([str(site.directory)]).defects
    assert (defect.distribution + str(defect.error) + defect.error.remedy).isprintable()


def test_find_installed_editable_serves_the_live_file(site, tmp_path):
    live = site.install_editable("my-nf", tmp_path / "project")
    (function,) = find_installed([str(site.directory)])
    assert function.path == live
    assert (function.editable, function.changed, function.state) == (True, False, "editable")
    live.write_bytes(make_bundle("my_nf", "2.0"))
    (function,) = find_installed([str(site.directory)])
    assert (function.version, function.changed, function.state) == ("2.0", True, "editable, changed")
    assert function.bundle_id == entry_of(live.read_bytes(), "x").bundle_id


def test_find_installed_editable_project_path_with_link_and_space_is_found(site, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "a link").symlink_to(tmp_path / "real")
    site.install_editable("my-nf", tmp_path / "real", url=(tmp_path / "a link").as_uri())
    assert len(find_installed([str(site.directory)])) == 1


@pytest.mark.parametrize(
    "url",
    ["file:///nowhere", "https://example.org/project", "file://[/x", "file:///a%00b", "relative", 7],
    ids=["other-folder", "not-local", "bad-host", "null-byte", "relative", "number"],
)
def test_scan_installed_editable_outside_of_its_project_is_a_defect(site, tmp_path, url):
    live = site.install_editable("my-nf", tmp_path / "project")
    origin = {"url": url, "dir_info": {"editable": True}}
    site.write(f"{site.info('my-nf').name}/direct_url.json", json.dumps(origin).encode())
    site.rewrite_index("my-nf", (site.info("my-nf") / INDEX_PATH).read_bytes())
    assert "direct_url.json" in only_error(site)
    assert live.exists()


@pytest.mark.parametrize("dir_info", [{}, {"editable": False}, {"editable": 1}, "editable", None])
def test_scan_installed_editable_index_of_a_plain_install_is_a_defect(site, tmp_path, dir_info):
    site.install_editable("my-nf", tmp_path / "project")
    origin = {"url": (tmp_path / "project").as_uri(), "dir_info": dir_info}
    site.write(f"{site.info('my-nf').name}/direct_url.json", json.dumps(origin).encode())
    site.rewrite_index("my-nf", (site.info("my-nf") / INDEX_PATH).read_bytes())
    assert "the index says editable" in only_error(site)


def test_scan_installed_editable_live_file_of_another_name_is_a_defect(site, tmp_path):
    live = site.install_editable("my-nf", tmp_path / "project")
    live.write_bytes(make_bundle("other"))
    assert "is the bundle 'other'" in only_error(site)


def test_scan_installed_editable_live_file_missing_names_both_remedies(site, tmp_path):
    site.install_editable("my-nf", tmp_path / "project").unlink()
    (defect,) = scan_installed([str(site.directory)]).defects
    assert "No such file" in str(defect.error)
    assert "pip install" in defect.error.remedy


def test_scan_installed_editable_live_file_behind_link_is_a_defect(site, tmp_path):
    live = site.install_editable("my-nf", tmp_path / "project")
    live.rename(tmp_path / "elsewhere.uxdp")
    live.symlink_to(tmp_path / "elsewhere.uxdp")
    assert "symbolic link" in only_error(site)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rules about owners; run as root")
@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("how", ["owner", "mode"])
def test_scan_installed_editable_in_another_users_power_is_a_defect_for_root(site, tmp_path, what, how):
    live = site.install_editable("my-nf", tmp_path / "project")
    path = live if what == "file" else live.parent
    if how == "owner":
        os.chown(path, 12345, -1)
    else:
        path.chmod(0o777)
    assert f"{path}: belongs to uid" in only_error(site)
    assert Path(path).exists()


def test_scan_installed_editable_of_an_ordinary_user_has_no_owner_rule(site, tmp_path, monkeypatch):
    live = site.install_editable("my-nf", tmp_path / "project")
    live.parent.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert len(find_installed([str(site.directory)])) == 1
