"""A copy of the installed QEMU without a fault of TCG's SVM that hangs emulated hosts.

QEMU's `helper_vmrun` (target/i386/tcg/sysemu/svm_helper.c, case SVM_EVTINJ_TYPE_INTR) delivers the
interrupt that a hypervisor injects, after it has stored the vector in `cs->exception_index`, which
nothing resets. When the translation loop is left before the next #VMEXIT, by a request to exit or
at the end of an icount budget, `cpu_handle_exception` (accel/tcg/cpu-exec.c) finds it there and
delivers the vector again, inside the handler of the first: Linux then spins in `handle_edge_irq`
on the lock that it holds itself. 7.2, 10.0 and 11.1 have it. The cure in source is
`cs->exception_index = -1` behind the delivery; in an executable, to leave out the store: the
delivery has the vector as an argument, and the field is -1 while code runs.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# The case as GCC compiles it: the store, and those of its neighbours that tell it from all others.
INJECTION = re.compile(
    rb"\x41\x0f\xb6\xf4"                                # movzbl %r12b,%esi        the vector
    rb"\x44\x89\xab.{4}"                                # mov    %r13d,?(%rbx)     error_code
    rb"(?P<store>\x89\xb3.{4})"                         # mov    %esi,?(%rbx)      exception_index
    rb"\xc7\x83.{4}\x00\x00\x00\x00"                    # movl   $0,?(%rbx)        exception_is_int
    rb"\x48\xc7\x83.{4}\xff\xff\xff\xff",               # movq   $-1,?(%rbx)       exception_next_eip
    re.DOTALL)
# nopw 0(%rax,%rax,1): one instruction of the store's length.
NOTHING = b"\x66\x0f\x1f\x44\x00\x00"


class NotCured(Exception):
    """Why there is no such copy."""


def cured(qemu, cache, start=()):
    """The path of the copy of executable `qemu` in folder `cache`, made at first use. `start` are the words, if any, that
    have to stand in front of it to run it."""
    stock = Path(qemu).resolve()
    try:
        code = stock.read_bytes()
    except OSError as error:
        raise NotCured(f"cannot read {stock}: {error.strerror}") from error
    home = Path(cache) / f"qemu-{hashlib.sha256(code).hexdigest()[:16]}"
    copy = home / "bin" / stock.name
    if copy.exists():
        return copy
    patched = without_the_store(code)
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".qemu-") as work:
        unfinished = Path(work) / "home"
        (unfinished / "bin").mkdir(parents=True)
        # QEMU looks for its firmware and modules from where its executable is.
        for folder in ("share", "lib", "libexec"):
            (unfinished / folder).symlink_to(stock.parent.parent / folder)
        (unfinished / "bin" / stock.name).write_bytes(patched)
        shutil.copymode(stock, unfinished / "bin" / stock.name)
        check([*start, unfinished / "bin" / stock.name, "-L", unfinished / "share" / "qemu"])
        try:
            os.rename(unfinished, home)
        except OSError as error:
            # Whoever was quicker has made the same thing.
            if not copy.exists():
                raise NotCured(f"cannot make {home}: {error.strerror}") from error
    return copy


def without_the_store(code):
    """The executable's bytes with the store replaced."""
    found = list(INJECTION.finditer(code))
    if len(found) != 1:
        raise NotCured(f"its code has {len(found)} places that look like the fault instead of one")
    start, end = found[0].span("store")
    return code[:start] + NOTHING + code[end:]


def check(command):
    """It finds its firmware and modules, makes a machine and takes it apart again."""
    machine = [*command, "-M", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-S"]
    done = subprocess.run([*machine, "-monitor", "stdio"], input=b"quit\n",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise NotCured(f"the copy does not work: {done.stdout.decode(errors='replace').strip()}")
