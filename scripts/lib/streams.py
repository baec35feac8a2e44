"""What comes out of L1: streams of which only a word tells the end, as QEMU keeps their other ends open."""

import os
import sys
import tarfile


def pump(reader, writer, end, arrived):
    """Copies to the word `end`, and says so. When our reader is gone, L1 still runs to its end."""
    broken, held = False, b""
    while not arrived.is_set():
        piece = os.read(reader, 1 << 16)
        held += piece
        if held.endswith(end):
            arrived.set()
            held = held[:-len(end)]
            kept = 0
        else:
            # What may be the begin of it. QEMU may also end before L1 has said it.
            kept = next(n for n in range(len(end), -1, -1) if held.endswith(end[:n])) if piece else 0
        ready, held = held[:len(held) - kept], held[len(held) - kept:]
        while ready and not broken:
            try:
                ready = ready[os.write(writer, ready):]
            except BrokenPipeError:
                broken = True
        if not piece:
            return


def unpack(reader, directory, arrived):
    """Takes an archive apart and says so, then reads to the end. Its last record may be a short one, for which a larger
    read would wait."""
    with open(reader, "rb", closefd=False) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|", bufsize=512) as archive:
                archive.extractall(directory, filter="data")
        except tarfile.ReadError as error:
            print(f"kvm-host: the command's output folder did not arrive: {error}", file=sys.stderr)
        finally:
            arrived.set()
        while stream.read(1 << 16):
            pass
