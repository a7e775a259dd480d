"""The child process that asks LLVM about CPUs, of which its C API tells nothing.

    argv: the folder that holds llvmlite
    stdin: u32 length of a JSON request: {"triple", "cpu", "features": what to ask for}
    stdout: u32 length of a JSON reply: {"cpus": all names} or {"cpus": …, "features": those that the CPU has}

The names of CPUs are in the help that LLVM prints for the CPU "help". Whether a CPU has a feature shows when a function
for that CPU is called from one for the CPU without the feature: LLVM inlines it only if the caller has all that it has.
"""

import json
import os
import re
import struct
import sys
from typing import Any

MEMORY_BYTES = 4 << 30
CPU_SECONDS = 20
_MAX_HELP_BYTES = 1 << 20
_CPU = re.compile(r"^  (\S+)\s+- ", re.MULTILINE)
NO_LLVM = 77  # confined_child.NO_LLVM


def main() -> None:
    """Answer one request."""
    # -S left out site-packages: name the folders that are needed. They go last, so that they shadow nothing.
    sys.path += sys.argv[1:]
    try:
        import llvmlite.binding as llvm
    except (ImportError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(NO_LLVM)

    from uxdp_bundle import sandbox

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    data = sys.stdin.buffer.read()
    request = json.loads(data[4:])
    target = llvm.Target.from_triple(request["triple"])
    reply: dict[str, Any] = {"cpus": _cpus(target)}
    # Confined as soon as nothing needs to be opened; nothing of a bundle is handled here.
    sandbox.confine(memory_bytes=MEMORY_BYTES, cpu_seconds=CPU_SECONDS)
    if request["cpu"] in reply["cpus"]:
        reply["features"] = _features(llvm, target, request)
    encoded = json.dumps(reply).encode()
    sys.stdout.buffer.write(struct.pack("<I", len(encoded)) + encoded)
    sys.stdout.buffer.flush()


def _cpus(target: Any) -> list[str]:
    stderr, caught = os.dup(2), os.memfd_create("help")
    os.dup2(caught, 2)
    target.create_target_machine(cpu="help")
    os.dup2(stderr, 2)
    text = os.pread(caught, _MAX_HELP_BYTES, 0).decode()
    cpus, _, _features = text.partition("Available features")
    return _CPU.findall(cpus)


def _features(llvm: Any, target: Any, request: dict[str, Any]) -> list[str]:
    cpu, asked = request["cpu"], request["features"]
    with_all = f'"target-cpu"="{cpu}"'
    lines = [
        f'target triple = "{request["triple"]}"',
        f"define internal i32 @called(i32 %x) {with_all} {{\n  %y = add i32 %x, 1\n  ret i32 %y\n}}",
    ]
    for number, feature in enumerate(asked):
        lines.append(
            f'define i32 @without.{number}(i32 %x) {with_all} "target-features"="-{feature}" {{\n'
            "  %y = call i32 @called(i32 %x)\n  ret i32 %y\n}"
        )
    module = llvm.parse_assembly("\n".join(lines))
    builder = llvm.create_pass_builder(
        target.create_target_machine(cpu=cpu), llvm.create_pipeline_tuning_options(speed_level=2)
    )
    builder.getModulePassManager().run(module, builder)
    return [feature for number, feature in enumerate(asked) if _calls(module.get_function(f"without.{number}"))]


def _calls(function: Any) -> bool:
    return any(instruction.opcode == "call" for block in function.blocks for instruction in block.instructions)


if __name__ == "__main__":
    main()
