import llvmlite.binding as llvm
import pytest

from tests.unit.facts_fixtures import HEADER, PASS, SOURCES, compile_ir
from uxdp_bundle.ir_rules import Violation, find_violation

LAYOUT = "e-m:e-p:64:64-i64:64-i128:128-n32:64-S128"
HEAD = f'target datalayout = "{LAYOUT}"\ntarget triple = "bpf"\n'
FUNCTION = "define i32 @f(ptr %ctx) {\n  ret i32 2\n}\n"


def violation(text: str, head: str = HEAD) -> Violation | None:
    return find_violation(llvm.parse_assembly(head + text, llvm.create_context()))


def of_c(source: str, *flags: str) -> Violation | None:
    return find_violation(llvm.parse_bitcode(compile_ir(HEADER + source, *flags), llvm.create_context()))


@pytest.mark.parametrize("name", SOURCES)
def test_find_violation_of_real_programs_is_none(name):
    module = llvm.parse_bitcode(compile_ir(SOURCES[name].read_text()), llvm.create_context())
    assert find_violation(module) is None


@pytest.mark.parametrize("flag", ["-O0", "-O1", "-O3", "-Os", "-Oz", "-Og"])
@pytest.mark.parametrize("name", ["load_balancer", "data_sections", "context_core"])
def test_find_violation_of_real_programs_at_every_level_is_none(name, flag):
    module = llvm.parse_bitcode(compile_ir(SOURCES[name].read_text(), flag), llvm.create_context())
    assert find_violation(module) is None


@pytest.mark.parametrize("triple", ["bpf", "bpfel", "bpf-unknown-unknown", "bpfel-unknown-none"])
def test_find_violation_of_bpf_triples_is_none(triple):
    assert violation(FUNCTION, HEAD.replace('"bpf"', f'"{triple}"')) is None


ORDINARY = """
int counted; static volatile int hidden_one; const char *text = "asm sideeffect \\"x\\" and module asm \\n";
static const char quotes[] = "use asm \\"";
int dotted_name asm("a.b$c");
int odd_name asm("an asm sideeffect \\"x\\", name; = alias ");
extern int LINUX_KERNEL_VERSION __kconfig;
extern void absent(void) __ksym __weak;
__attribute__((annotate("note"))) static __noinline int annotated(int x) { return x + bpf_get_prandom_u32(); }
__attribute__((cold, noinline)) int rarely(int x) { return bpf_get_prandom_u32() / x; }
SEC("xdp") int f(struct xdp_md *ctx)
{
    int x[4] = {}, y;
    asm volatile("" ::: "memory");
    asm volatile("" : "+r"(ctx));
    __builtin_prefetch(x);
    __builtin_memset(x, ctx->rx_queue_index, sizeof(x));
    if (__builtin_add_overflow(x[0], x[1], &y) || __builtin_expect(y, 1))
        __builtin_trap();
    __builtin_assume(y > 3);
    if (absent)
        absent();
    bpf_trace_printk(quotes, sizeof(quotes), text, odd_name++, dotted_name++);
    y += __builtin_popcount(y) + __builtin_bswap32(y) + __builtin_clz(y);
    return y + annotated(counted++) + rarely(hidden_one++);
}
"""


@pytest.mark.parametrize("flag", ["-O0", "-O1", "-O2", "-O3"])
def test_find_violation_of_everything_ordinary_is_none(flag):
    assert of_c(ORDINARY, flag) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('@"a \\22 asm \\22 b" = global i32 0\n', id="quotes-in-a-name"),
        pytest.param('@s = global [5 x i8] c" asm "\n@t = global [1 x i8] c"x"\n', id="string-that-ends-in-asm"),
        pytest.param('@s = global [24 x i8] c"asm sideeffect \\22x\\22, \\22\\22\\0A\\00"\n', id="string-like-asm"),
        pytest.param('@s = global [20 x i8] c"\\0Amodule asm \\22evil\\22\\0A\\00"\n', id="string-like-module-asm"),
        pytest.param(
            '@s = global [29 x i8] c"\\0Aattributes #0 = { \\22xray\\22 }\\0A\\00"\n', id="string-like-attributes"
        ),
        pytest.param('@"x = alias i32, ptr @y" = global i32 0\n', id="name-like-alias"),
        pytest.param('@"x thread_local " = global i32 0\n', id="name-like-thread-local"),
        pytest.param('define void @"f prefix i32 1"() {\n  ret void\n}\n', id="name-like-prefix"),
        pytest.param("%alias = type { i32 }\n@x = global %alias zeroinitializer\n", id="type-named-alias"),
        pytest.param("@alias = global i32 0\n@x = global ptr @alias\n", id="variable-named-alias"),
        pytest.param("define void @g(ptr %prefix, ptr %gc) {\n  ret void\n}\n", id="parameters-named-prefix"),
        pytest.param(
            'define void @g() {\n"an asm ":\n  br label %"; preds = asm "\n"; preds = asm ":\n  ret void\n}\n',
            id="labels-like-asm",
        ),
        pytest.param('@x = global i32 0, section "license"\n', id="license"),
        pytest.param('@x = global i32 0, section "anything"\n', id="section-without-a-dot"),
        pytest.param('@x = global i32 0, section ".data.mine"\n', id="data-section"),
        pytest.param('define void @g() section ".text.cold" {\n  ret void\n}\n', id="text-section"),
        pytest.param('@x = external global i32, section ".kconfig"\n', id="kconfig"),
        pytest.param('@x = extern_weak global i32, section ".ksyms"\n', id="ksym"),
        pytest.param('declare void @g() section ".ksyms"\n', id="kfunc"),
        pytest.param('@"llvm.xdp_md:0:4$0:1" = external global i64\n', id="core-global"),
        pytest.param("$c = comdat any\n@c = linkonce_odr global i32 0, comdat\n", id="comdat"),
        pytest.param("@x = internal constant i32 0\n@llvm.used = appending global [1 x ptr] [ptr @x]\n", id="used"),
        pytest.param("@x = weak global i32 0\n@y = hidden local_unnamed_addr global i32 0, align 8\n", id="linkages"),
        pytest.param("!llvm.module.flags = !{}\n", id="no-flags"),
        pytest.param('!llvm.module.flags = !{!0}\n!0 = !{i32 7, !"frame-pointer", i32 2}\n', id="flags"),
        pytest.param('!llvm.ident = !{!0}\n!0 = !{!"asm sideeffect \\22x\\22"}\n', id="metadata"),
        pytest.param("define void @g() #0 {\n  ret void\n}\nattributes #0 = { nounwind cold }\n", id="attributes"),
        pytest.param("declare i64 @llvm.vector.reduce.or.v4i64(<4 x i64>)\n", id="vector-reduction"),
    ],
)
def test_find_violation_of_harmless_ir_is_none(text):
    assert violation(FUNCTION + text) is None


GCC = 'define void @g() gc "asm \\22" {\n  ret void\n}\n'


@pytest.mark.parametrize(
    ("text", "kind", "fragment"),
    [
        pytest.param('module asm "nop"\n', "module-asm", '"nop"', id="module-asm"),
        pytest.param(
            'define void @g() {\n  call void asm sideeffect "r0 = 1", ""()\n  ret void\n}\n',
            "inline-asm",
            "'r0 = 1'",
            id="inline-asm",
        ),
        pytest.param(
            'define void @g() {\n  call void asm alignstack inteldialect " ", ""()\n  ret void\n}\n',
            "inline-asm",
            "' '",
            id="inline-asm-of-a-blank",
        ),
        pytest.param(
            'define void @g() {\n  call void asm sideeffect "", ""()\n  call void asm "x", ""()\n  ret void\n}\n',
            "inline-asm",
            "'x'",
            id="inline-asm-behind-an-empty-one",
        ),
        pytest.param(
            'define i64 @g() {\n  %1 = call i64 asm "", "=r"()\n  ret i64 %1\n}\n',
            "inline-asm",
            "operands are not known",
            id="inline-asm-that-makes-a-value",
        ),
        pytest.param(
            'define i64 @g(i64 %0, i64 %1) {\n  %3 = call i64 asm "", "=r,r"(i64 %0)\n  ret i64 %3\n}\n',
            "inline-asm",
            "operands are not known",
            id="inline-asm-that-leaves-its-operand",
        ),
        pytest.param(
            'define void @g() {\n  call void asm sideeffect "", "~{rsp}"()\n  ret void\n}\n',
            "inline-asm",
            "operands are not known",
            id="inline-asm-that-clobbers-another-machine",
        ),
        pytest.param(
            'define void @g() {\n  callbr void asm sideeffect "may_goto ${0:l}; r0 = 1", "!i"()\n'
            "          to label %1 [label %2]\n1:\n  br label %2\n2:\n  ret void\n}\n",
            "inline-asm",
            "may_goto",
            id="inline-asm-behind-may-goto",
        ),
        pytest.param("@g = alias i32 (ptr), ptr @f\n", "alias", "'g' is an alias", id="alias"),
        pytest.param('@"a b" = weak dso_local alias i32 (ptr), ptr @f\n', "alias", "'a b'", id="alias-quoted"),
        pytest.param("@g = ifunc i32 (ptr), ptr @r\ndefine ptr @r() {\n  ret ptr @f\n}\n", "ifunc", "'g'", id="ifunc"),
        pytest.param(
            "%t = type { i32, ptr, ptr }\n"
            "@llvm.global_ctors = appending global [1 x %t] [%t { i32 0, ptr @f, ptr null }]\n",
            "constructors",
            "llvm.global_ctors",
            id="constructors",
        ),
        pytest.param(
            "@llvm.global_dtors = external global i32\n", "constructors", "llvm.global_dtors", id="destructors"
        ),
        pytest.param("@x = external global i32\n", "external", "variable 'x'", id="external-variable"),
        pytest.param("declare void @g()\n", "external", "function 'g'", id="external-function"),
        pytest.param('declare void @g() section ".text"\n', "external", "function 'g'", id="external-in-a-section"),
        pytest.param('declare void @"g section .ksyms"()\n', "external", "section .ksyms'", id="external-with-a-name"),
        pytest.param(
            "define available_externally void @g() {\n  ret void\n}\n", "external", "available_ext", id="borrowed-body"
        ),
        pytest.param("@x = available_externally global i32 1\n", "external", "'x'", id="borrowed-variable"),
        pytest.param("@x = common global i32 0\n", "external", "'x' is common", id="common"),
        pytest.param("@x = thread_local global i32 0\n", "thread-local", "'x'", id="thread-local"),
        pytest.param("@x = internal thread_local(initialexec) global i32 0\n", "thread-local", "'x'", id="initialexec"),
        pytest.param(
            "declare void @llvm.x86.sse2.pause()\n", "intrinsic", "llvm.x86.sse2.pause", id="target-intrinsic"
        ),
        pytest.param("declare i64 @llvm.readcyclecounter()\n", "intrinsic", "readcyclecounter", id="cycle-counter"),
        pytest.param("declare i64 @llvm.bpf.load.byte(ptr, i64)\n", "intrinsic", "bpf.load.byte", id="packet-load"),
        pytest.param("define void @g() prefix i32 1 {\n  ret void\n}\n", "annex", "'g' has prefix", id="prefix"),
        pytest.param("define void @g() prologue i64 1 {\n  ret void\n}\n", "annex", "prologue", id="prologue"),
        pytest.param(
            "define void @g() personality ptr @f {\n  ret void\n}\n", "annex", "personality", id="personality"
        ),
        pytest.param('define void @g() gc "shadow-stack" {\n  ret void\n}\n', "annex", "gc", id="gc"),
        pytest.param("define void @g() naked {\n  ret void\n}\n", "naked", "naked", id="naked"),
        pytest.param('@x = global ptr @f, section ".init_array"\n', "section", "'.init_array'", id="init-array"),
        pytest.param('@x = global i32 0, section ".text"\n', "section", "variable 'x'", id="variable-in-text"),
        pytest.param('define void @g() section ".init" {\n  ret void\n}\n', "section", "'.init'", id="init-function"),
        pytest.param(
            'define void @g() section ".data" {\n  ret void\n}\n', "section", "'.data'", id="function-in-data"
        ),
        pytest.param(
            'define void @g() #0 {\n  ret void\n}\nattributes #0 = { "probe-stack"="evil" }\n',
            "attribute",
            "'probe-stack'",
            id="attribute-that-calls",
        ),
        pytest.param(
            'define void @g() #0 {\n  ret void\n}\nattributes #0 = { "frame-pointer"="all" "fentry-call"="true" }\n',
            "attribute",
            "'fentry-call'",
            id="attribute-behind-another",
        ),
        pytest.param(
            'define void @g() {\n  call void @g() #0\n  ret void\n}\nattributes #0 = { "xray-x" }\n',
            "attribute",
            "'xray-x'",
            id="attribute-of-a-call",
        ),
        pytest.param(
            '!llvm.module.flags = !{!0}\n!0 = !{i32 1, !"cf-protection-branch", i32 1}\n',
            "module-flag",
            "'cf-protection-branch'",
            id="module-flag",
        ),
        pytest.param(
            '!llvm.module.flags = !{!1, !0}\n!0 = !{i32 1, !"kcfi", i32 1}\n!1 = !{i32 7, !"uwtable", i32 1}\n',
            "module-flag",
            "'kcfi'",
            id="module-flag-behind-another",
        ),
    ],
)
def test_find_violation_names_what_is_wrong(text, kind, fragment):
    found = violation(FUNCTION + text)
    assert found is not None
    assert (found.kind, fragment in found.message) == (kind, True), found


def test_find_violation_of_another_target_is_the_triple():
    found = violation(FUNCTION, HEAD.replace('"bpf"', '"x86_64-pc-linux-gnu"'))
    assert (found.kind, "'x86_64-pc-linux-gnu', expected bpf" in found.message) == ("triple", True)


@pytest.mark.parametrize("layout", [LAYOUT.replace("i64:64", "i64:32"), "E" + LAYOUT[1:], ""])
def test_find_violation_of_another_layout_is_the_layout(layout):
    found = violation(FUNCTION, HEAD.replace(LAYOUT, layout) if layout else 'target triple = "bpf"\n')
    assert found.kind == "data-layout"


def test_find_violation_looks_for_assembly_first():
    """A source with inline assembly is built in another way, whatever else its IR holds."""
    text = "declare void @g()\n" + 'define void @h() naked {\n  call void asm "x", ""()\n  ret void\n}\n'
    assert violation(FUNCTION + text).kind == "inline-asm"


# LLVM prints names of attributes and garbage collectors without escaping them. Each of these is a module that prints
# as another one, in which what is forbidden stands in a comment, a string or nowhere.
@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param('"frame-pointer\\22 }\\0A;" "probe-stack"="evil"', id="comment"),
        pytest.param('"frame-pointer\\22=" "probe-stack"="evil"', id="string"),
        pytest.param('"frame-pointer\\22=\\22" "probe-stack"="evil"', id="closed-string"),
        pytest.param('"a\\22 }\\0A!9 = !{!\\22" "probe-stack"="evil"', id="metadata"),
        pytest.param('"a\\22 }\\0A@x = global i32 0 ;" "probe-stack"="evil"', id="variable"),
    ],
)
def test_find_violation_of_attributes_that_print_as_something_else_is_found(attributes):
    text = f"define void @g() #0 {{\n  ret void\n}}\nattributes #0 = {{ {attributes} }}\n"
    module = llvm.parse_assembly(HEAD + FUNCTION + text, llvm.create_context())
    assert find_violation(module).kind in ("text", "attribute")


def test_find_violation_of_a_collector_that_prints_as_something_else_is_found():
    text = 'define void @g() gc "x\\22 {\\0A  ret void\\0A}\\0A;" {\n  ret void\n}\n'
    assert violation(FUNCTION + text).kind in ("text", "annex")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ('asm(".set x, 1");' + PASS, "module-asm"),
        ('SEC("xdp") int f(struct xdp_md *ctx) { int x; asm volatile("%0 = 1" : "=r"(x)); return x; }', "inline-asm"),
        ("int g(int); " + 'SEC("xdp") int f(struct xdp_md *ctx) { return g(1); }', "external"),
        ('int g(void) { return 1; } int h(void) __attribute__((alias("g"))); ' + PASS, "alias"),
        ('__attribute__((constructor)) void g(void) { bpf_printk("x"); } ' + PASS, "constructors"),
        ('static int x __attribute__((section(".init_array"), used)); ' + PASS, "section"),
    ],
    ids=["module-asm", "inline-asm", "external", "alias", "constructor", "init-array"],
)
def test_find_violation_of_c_names_what_is_wrong(source, kind):
    assert of_c(source).kind == kind
