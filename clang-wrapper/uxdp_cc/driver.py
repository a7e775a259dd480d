"""What uxdp-cc does with a command line that it understood: build bundles, or become clang."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from uxdp_bundle.errors import UxdpError

from .argv import BundleOptions, Invocation, default_output, parse_argv, without_ours
from .build import BuildRequest, build, name_of
from .compilation import clang_command
from .dependencies import STDIN, path_map, rule_names
from .errors import ClangUsageError, CompileError
from .messages import report, say
from .output import STDOUT, write_output
from .toolchain import Toolchain, find_toolchain

_HELP = """\
uxdp-cc: compile XDP programs to signed bundles, with clang's command line

  uxdp-cc -c nf.c                        write nf.uxdp
  uxdp-cc -O2 -I include -c nf.c -o x.o  a bundle that existing libbpf loaders open as x.o
  uxdp-cc a.c b.c -o nf.uxdp             link the IR of several sources first
  make CLANG=uxdp-cc                     in a project that compiles with $(CLANG) -target bpf … -c

All options of clang pass through. In front of them stand -target bpf -O2 -g -mcpu=v3 -fno-jump-tables, the folder of
<asm/types.h>, and options that keep the building machine out of the output. -E, -S, -M, --version and the like are left
to clang.

  --uxdp-key FILE              sign with this key (or $UXDP_SIGNING_KEY: a file name or the PEM text;
                               passphrase in $UXDP_SIGNING_KEY_PASSPHRASE); default: your development key
  --uxdp-unsigned              do not sign
  --uxdp-name NAME             name of the network function (default: stem of the source; of several, of -o)
  --uxdp-version VERSION       its version (default: 0)
  --uxdp-security-version N    refuse lower ones after this one was used (default: 0)
  --uxdp-license TEXT          its license (default: what the source says in section "license")
  --uxdp-embed-sources         put the project's sources into the bundle

$UXDP_CLANG names the clang to use; without it the ziglang package's is used (pip install 'uxdp[clang]'), then the
newest clang on PATH that llvmlite's LLVM can read.
"""


def run(argv: list[str]) -> int:
    """Do what a command line says; return the exit status.

    :raises UxdpError: nothing was begun; what fails later is reported, so that the other sources are still built
    """
    try:
        invocation = parse_argv(argv)
    except ClangUsageError:
        _become([*find_toolchain().command, *without_ours(argv)])
    if invocation.action == "help":
        sys.stdout.write(_HELP)
        return 0
    toolchain = find_toolchain()
    if invocation.action == "clang":
        _become_clang(invocation, toolchain)
    if len(invocation.sources) > 1 and not _driver_accepts(invocation, toolchain):
        _become_clang(invocation, toolchain)
    if invocation.action == "link":
        return _make_bundle(invocation, range(len(invocation.sources)), toolchain)
    # One that fails does not keep the others from being made; the first failure is the status.
    statuses = [_make_bundle(invocation, [index], toolchain) for index in range(len(invocation.sources))]
    return next((status for status in statuses if status), 0)


def _driver_accepts(invocation: Invocation, toolchain: Toolchain) -> bool:
    """Whether clang would begin at all: a missing file or unknown option keeps it from compiling the other sources."""
    command = _with_defaults(invocation, ["-###", *invocation.raw], toolchain)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _become_clang(invocation: Invocation, toolchain: Toolchain) -> NoReturn:
    """Let clang do all of it. Without a source there is nothing that our defaults could mean."""
    plain = not invocation.sources or invocation.raw[0] in ("-cc1", "-cc1as")
    command = [*toolchain.command, *invocation.raw]
    _become(command if plain else _with_defaults(invocation, invocation.raw, toolchain))


def _with_defaults(invocation: Invocation, arguments: Sequence[str], toolchain: Toolchain) -> list[str]:
    mapping = path_map(toolchain, invocation.sources, invocation.clang_args, Path.cwd())
    return clang_command(toolchain, arguments, mapping)


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # which Python ignores, and an exec would keep ignoring
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted


def _make_bundle(invocation: Invocation, indices: Sequence[int], toolchain: Toolchain) -> int:
    """Make the bundle of the sources with these indices; return the exit status."""
    options = invocation.bundle
    sources = tuple(invocation.sources[index] for index in indices)
    output = default_output(invocation, sources[0])
    name = options.name
    if name is None and output != STDOUT and (len(sources) > 1 or sources[0] == STDIN):
        name = name_of(output)
    request = BuildRequest(
        sources=sources,
        clang_args=invocation.clang_args,
        name=name,
        version=options.version,
        security_version=options.security_version,
        license=options.license,
        cwd=Path.cwd(),
        embed_sources=options.embed_sources,
        source_args=tuple(_source_args(invocation, index, output) for index in indices),
    )
    try:
        result = build(request, toolchain, capture=False)
        for notice in result.notices:
            say(f"warning: {notice}")
        write_output(output, result.bundle if options.unsigned else _signed(result.bundle, options))
    except CompileError as error:
        return error.status if error.status > 0 else 128 - error.status
    except UxdpError as error:
        return report(error)
    return 0


def _source_args(invocation: Invocation, index: int, output: str) -> tuple[str, ...]:
    """Return the arguments for one source alone: its language, its rule for make."""
    source, language = invocation.sources[index], invocation.languages[index]
    return (
        *(("-x", language) if language else ()),
        *rule_names(invocation.clang_args, output, source, named=invocation.output is not None),
        *(("-Qunused-arguments",) if index else ()),  # what clang says about the command line, it says once
    )


def _signed(image: bytes, options: BundleOptions) -> bytes:
    from uxdp_bundle.container import bundle_from_bytes
    from uxdp_bundle.keys import development_key, signing_key_from, signing_key_from_environment
    from uxdp_bundle.signature import sign_bundle

    if options.key is not None:
        key = signing_key_from(options.key, os.environ.get("UXDP_SIGNING_KEY_PASSPHRASE"))
    else:
        key_or_none = signing_key_from_environment()
        if key_or_none is not None:
            key = key_or_none
        else:
            key, created = development_key(create=True)
            if created:
                say(f"note: no signing key was given; made a development key, {key.public.text}, which only you trust")
    with bundle_from_bytes(image) as bundle:
        return sign_bundle(bundle, key)
