"""What the emulated host is made of: its QEMU, root, kernel, and the disk with the cache.

Each is made at its first use and kept in the cache; what it depends on is in its name.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from qemu_cure import NotCured, cured

CHECKOUT = Path(__file__).resolve().parent.parent.parent
L1 = CHECKOUT / "scripts" / "l1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isolab"


class Failure(Exception):
    """No host to run on, in one sentence."""


def sh(*command, **options):
    """Runs a tool whose output matters only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        sys.stderr.write(done.stdout.decode(errors="replace"))
        raise Failure(f"{' '.join(map(str, command[:3]))} … failed; its messages are above")
    return done.stdout.decode()


def disk_from(directory, image, room=64 << 20):
    """Makes an ext4 image that holds a directory and has room for so many bytes more, which it does not use here."""
    used = sum(f.lstat().st_blocks * 512 for f in directory.rglob("*") if not f.is_dir())
    files = sum(1 for _ in directory.rglob("*"))
    size = used * 5 // 4 + files * 8192 + room
    with open(image, "wb") as file:
        file.truncate(size)
    sh("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-N", str(files + room // (64 << 10)),
       "-d", str(directory), str(image))


@contextlib.contextmanager
def cache_lock(name):
    """One process makes a thing, the others wait for it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def l1_qemu():
    """The QEMU that emulates L1: the installed one, without its fault where that is found."""
    stock = shutil.which("qemu-system-x86_64")
    try:
        return cured(stock, CACHE / "l1")
    except NotCured as why:
        print(f"kvm-host: using QEMU as it is installed, which may hang: {why}", file=sys.stderr)
        return stock


# Debian's release that has the QEMU for hosts with several CPUs, ahead of its backports.
NEWER = "trixie"


def l1_qemu_for_several():
    """The words that start a QEMU (11.1 or later) whose CPUs may run beside each other: older ones set and clear a CPU's
    requests for interrupts without a lock (cs->interrupt_request |= CPU_INTERRUPT_VIRQ, in helper_vmrun and do_vmexit),
    and so lose interrupts that another thread asks for at that moment: L1 hangs within minutes. Debian's newer release
    has it, of which the packages that it needs are unpacked into the cache."""
    root = CACHE / "l1" / f"qemu-{NEWER}"
    with cache_lock("l1-qemu"):
        if not root.exists():
            print("kvm-host: unpacking a QEMU for several CPUs (once)", file=sys.stderr)
            root.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=root.parent) as work:
                backports = f"{NEWER}-backports"
                sources = Path(work) / "sources.list"
                sources.write_text("".join(f"deb http://deb.debian.org/debian {suite} main\n"
                                           for suite in (NEWER, backports)))
                sh("mmdebstrap", "--variant=extract", "--include=qemu-system-x86",
                   "--aptopt=APT::Install-Recommends \"false\"",
                   f"--aptopt=APT::Default-Release \"{backports}\"",
                   NEWER, str(Path(work) / "root"), str(sources))
                (Path(work) / "root").rename(root)
    libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
    start = [libraries / "ld-linux-x86-64.so.2", "--library-path", libraries]
    try:
        qemu = cured(root / "usr" / "bin" / "qemu-system-x86_64", CACHE / "l1", start)
    except NotCured as why:
        raise Failure(f"QEMU of Debian {NEWER} is not usable: {why}") from why
    return [*map(str, start), str(qemu), "-L", str(root / "usr" / "share" / "qemu")]


def l1_packages():
    lines = (L1 / "packages").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def l1_root():
    """The disk image of L1's root: Debian with the packages of scripts/l1/packages."""
    packages = l1_packages()
    digest = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:16]
    image = CACHE / "l1" / f"root-{digest}.ext4"
    with cache_lock("l1-root"):
        if image.exists():
            return image
        print("kvm-host: making the emulated host's root (a few minutes, once)", file=sys.stderr)
        image.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=image.parent) as work:
            root, unfinished = Path(work) / "root", Path(work) / "image"
            sh("mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}",
               "--aptopt=APT::Install-Recommends \"false\"",
               "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
               "--dpkgopt=path-exclude=/usr/share/locale/*",
               "bookworm", str(root))
            # Where the checkout, the cache and everything else of the job is mounted.
            for point in ("job", "cache"):
                (root / point).mkdir()
            disk_from(root, unfinished)
            unfinished.rename(image)
        return image


def l1_kernel():
    """Debian's cloud kernel and an initramfs that finds the root disk."""
    sh(CHECKOUT / "scripts" / "fetch-kernel", "cloud")
    kernel = CACHE / "kernels" / "cloud"
    version = (kernel / "version").read_text().strip()
    script = (L1 / "initramfs-init").read_bytes()
    digest = hashlib.sha256(script + version.encode()).hexdigest()[:16]
    initramfs = CACHE / "l1" / f"initramfs-{digest}.cpio"
    with cache_lock("l1-initramfs"):
        if initramfs.exists():
            return kernel / "vmlinuz", initramfs
        initramfs.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=initramfs.parent) as work:
            tree = Path(work) / "tree"
            for folder in ("bin", "modules", "root", "proc", "dev"):
                (tree / folder).mkdir(parents=True)
            shutil.copy("/bin/busybox", tree / "bin" / "busybox")
            (tree / "bin" / "sh").symlink_to("busybox")
            (tree / "init").write_bytes(script)
            (tree / "init").chmod(0o755)
            modules = sh("modprobe", "-d", kernel / "modules", "-S", version, "--show-depends",
                         "-a", "virtio_pci", "virtio_blk", "ext4", "overlay")
            order = []
            for line in modules.splitlines():
                word, *rest = line.split()
                if word == "insmod" and rest[0] not in order:
                    order.append(rest[0])
            # Shown dependencies leave out that virtio_ring comes before virtio.
            order.sort(key=lambda path: "virtio_ring" not in path)
            for number, module in enumerate(order):
                shutil.copy(module, tree / "modules" / f"{number:02}-{Path(module).name}")
            unfinished = Path(work) / "cpio"
            with open(unfinished, "wb") as archive:
                subprocess.run("find . | cpio --quiet -o -H newc", shell=True, cwd=tree,
                               stdout=archive, check=True)
            unfinished.rename(initramfs)
        return kernel / "vmlinuz", initramfs


def cache_disk():
    """What the job reads of the cache: kernels and images, as one disk."""
    parts = [CACHE / name for name in ("kernels", "images", "vmlinux") if (CACHE / name).is_dir()]
    state = hashlib.sha256()
    for part in parts:
        # Folders of unfinished work begin with a dot.
        for folder, folders, files in os.walk(part):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            for name in sorted(files):
                path = os.path.join(folder, name)
                info = os.lstat(path)
                state.update(f"{path} {info.st_size} {info.st_mtime_ns}\n".encode())
    image = CACHE / "l1" / f"cache-{state.hexdigest()[:16]}.ext4"
    with cache_lock("l1-cache"):
        if image.exists():
            return image
        image.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE / "l1") as work:
            tree, unfinished = Path(work) / "tree", Path(work) / "image"
            tree.mkdir()
            for part in parts:
                shutil.copytree(part, tree / part.name, symlinks=True, copy_function=link_or_copy,
                                ignore=shutil.ignore_patterns(".*"))
            disk_from(tree, unfinished)
            # A run that still uses an old one has it open.
            for old in image.parent.glob("cache-*.ext4"):
                old.unlink()
            unfinished.rename(image)
        return image


def link_or_copy(source, target):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
