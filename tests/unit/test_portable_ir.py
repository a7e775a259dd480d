from pathlib import Path

from uxdp_bundle.container import bundle_from_bytes
from uxdp_bundle.portable_ir import portable
from uxdp_cc.build import BuildRequest, build

SOURCE = "int a;\\0A// secret\\0Aint f() {\\0A\\0A  return 1;\\0A}\\0A// end"


def ir(file: str) -> str:
    return f"""\
source_filename = "/home/me/nf.c"
define i32 @f() !dbg !1 {{
  ret i32 1, !dbg !2
}}
!1 = distinct !DISubprogram(name: "f", scope: !3, file: !3, line: 3, scopeLine: 3)
!2 = !DILocation(line: 5, column: 3, scope: !4)
!3 = {file}
!4 = distinct !DILexicalBlock(scope: !1, file: !3, line: 4)
!5 = !DILocation(line: 0, scope: !4)
"""


def file_of(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("!3"))


def test_portable_keeps_the_lines_that_have_code_at_their_numbers():
    text = portable(
        ir(f'!DIFile(filename: "nf.c", directory: ".", checksumkind: CSK_MD5, checksum: "ab", source: "{SOURCE}")')
    )
    kept = "\\0A\\0Aint f() {\\0A\\0A  return 1;"
    assert file_of(text) == (
        f'!3 = !DIFile(filename: "nf.c", directory: ".", checksumkind: CSK_MD5, checksum: "ab", source: "{kept}")'
    )
    assert 'source_filename = "nf.c"' in text


def test_portable_keeps_nothing_of_files_without_code_and_of_the_system():
    unused = f'!3 = !DIFile(filename: "vmlinux.h", directory: ".", source: "{SOURCE}")'
    assert portable(unused) == '!3 = !DIFile(filename: "vmlinux.h", directory: ".")'
    system = ir(f'!DIFile(filename: "/usr/include/nf.h", directory: "", source: "{SOURCE}")')
    assert file_of(portable(system)) == '!3 = !DIFile(filename: "/usr/include/nf.h", directory: "")'


def test_portable_spells_files_in_one_way():
    """As clang writes them for nf.c, for /project/nf.c whose folder is mapped, and for a header found beside nf.c."""
    for name, directory in (("nf.c", "."), ("nf.c", ""), ("./nf.c", "."), ("././nf.c", "")):
        text = portable(ir(f'!DIFile(filename: "{name}", directory: "{directory}", source: "{SOURCE}")'))
        assert file_of(text).startswith('!3 = !DIFile(filename: "nf.c", directory: ".", source: "\\0A\\0Aint f()')


def test_bundle_shows_of_the_source_what_btf_shows(tmp_path: Path):
    (tmp_path / "vmlinux.h").write_text("/* nothing to see */\ntypedef int unused;\n" * 1000)
    (tmp_path / "nf.c").write_text(
        '#include "vmlinux.h"\n#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n/* not to be published */\n'
        'SEC("xdp")\nint nf(struct xdp_md *ctx)\n{\n\treturn ctx->rx_queue_index + 7;\n}\n'
    )
    with bundle_from_bytes(build(BuildRequest(("nf.c",), cwd=tmp_path)).bundle) as bundle:
        for content in (bytes(bundle.object), bundle.member("ir")):
            assert b"return ctx->rx_queue_index + 7;" in content
            assert b"not to be published" not in content
            assert b"nothing to see" not in content
            assert len(content) < 20_000
