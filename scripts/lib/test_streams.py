"""Each stream has all that was said and nothing of the word that ends it."""

import fcntl
import io
import os
import sys
import tarfile
import tempfile
import termios
import threading
import unittest
from pathlib import Path

from streams import pump, unpack

END = b"0123456789abcdef0123456789abcdef"


def pumped(pieces, end_of_qemu=False):
    """What arrives of `pieces`, each written once the one before it has been read, and whether the end was told."""
    (reader, into), (outer, writer) = os.pipe(), os.pipe()
    arrived = threading.Event()
    thread = threading.Thread(target=pump, args=(reader, writer, END, arrived))
    thread.start()
    for piece in pieces:
        os.write(into, piece)
        while is_unread(reader) and thread.is_alive():
            thread.join(0.001)
    if end_of_qemu:
        os.close(into)
    thread.join(10)
    assert not thread.is_alive(), "it waits for more"
    os.close(writer)
    with open(outer, "rb") as stream:
        content = stream.read()
    os.close(reader)
    if not end_of_qemu:
        os.close(into)
    return content, arrived.is_set()


def is_unread(reader):
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder) > 0


class Pump(unittest.TestCase):
    def test_the_word_ends_it_wherever_pieces_begin_and_end(self):
        text = b"one\ntwo 0123 \x00"
        for cut in range(len(text) + len(END) + 1):
            whole = text + END
            pieces = [piece for piece in (whole[:cut], whole[cut:]) if piece]
            self.assertEqual(pumped(pieces), (text, True), cut)
        self.assertEqual(pumped([bytes([byte]) for byte in text + END]), (text, True))
        self.assertEqual(pumped([END]), (b"", True))

    def test_what_only_begins_like_the_word_is_text(self):
        text = END[:-1] + b"-" + END[:5]
        self.assertEqual(pumped([text, END]), (text, True))
        self.assertEqual(pumped([END[:3], END[:3], END]), (END[:3] * 2, True))

    def test_without_the_word_all_of_it_comes(self):
        for text in (b"", b"some", b"some" + END[:7]):
            pieces = [text] if text else []
            self.assertEqual(pumped(pieces, end_of_qemu=True), (text, False))

    def test_when_nobody_reads_it_still_runs_to_the_end(self):
        (reader, into), (outer, writer) = os.pipe(), os.pipe()
        os.close(outer)
        os.write(into, b"unread" + END)
        arrived = threading.Event()
        pump(reader, writer, END, arrived)
        self.assertTrue(arrived.is_set())
        for descriptor in (reader, into, writer):
            os.close(descriptor)


class Unpack(unittest.TestCase):
    def test_what_was_packed_is_there_and_what_follows_is_read(self):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            member = tarfile.TarInfo("results/report.txt")
            member.size = 6
            archive.addfile(member, io.BytesIO(b"report"))
        reader, writer = os.pipe()
        os.write(writer, packed.getvalue() + b"more")
        os.close(writer)
        arrived = threading.Event()
        with tempfile.TemporaryDirectory() as folder:
            unpack(reader, folder, arrived)
            self.assertEqual((Path(folder) / "results/report.txt").read_bytes(), b"report")
        self.assertTrue(arrived.is_set())
        self.assertEqual(os.read(reader, 1), b"")
        os.close(reader)
