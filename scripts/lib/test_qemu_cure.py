"""The cure is applied to the place of the fault, and to nothing else."""

import tempfile
import unittest
from pathlib import Path

from qemu_cure import NOTHING, NotCured, cured, without_the_store

STORE = bytes.fromhex("89b3 54efffff")
FAULT = (bytes.fromhex("410fb6f4 4489ab80330000") + STORE
         + bytes.fromhex("c7838433000000000000 48c78388330000ffffffff"))


class WithoutTheStore(unittest.TestCase):
    def test_only_the_store_is_replaced(self):
        code = without_the_store(b"before" + FAULT + b"behind")
        self.assertEqual(code, b"before" + FAULT.replace(STORE, NOTHING) + b"behind")

    def test_code_with_the_fault_nowhere_or_twice_is_left_alone(self):
        for code in (b"", FAULT[1:], FAULT + FAULT):
            with self.assertRaisesRegex(NotCured, "places that look like the fault"):
                without_the_store(code)


class Cured(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def program(self, code):
        path = self.folder / "usr" / "bin" / "qemu"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(code)
        path.chmod(0o755)
        return path

    def test_a_copy_is_made_once_and_stands_beside_what_the_original_has(self):
        stock = self.program(b"#!/bin/sh\nexit 0\n" + FAULT)
        copy = cured(stock, self.folder / "cache")
        self.assertEqual(copy.read_bytes(), stock.read_bytes().replace(STORE, NOTHING))
        self.assertEqual((copy.parent.parent / "share").readlink(), self.folder / "usr" / "share")
        made = copy.stat().st_ino
        self.assertEqual(cured(stock, self.folder / "cache").stat().st_ino, made)
        # Another QEMU, another copy.
        self.program(b"#!/bin/sh\nexit 0\n# newer" + FAULT)
        self.assertNotEqual(cured(stock, self.folder / "cache"), copy)

    def test_a_copy_that_does_not_work_is_not_kept(self):
        stock = self.program(b"#!/bin/sh\necho no firmware\nexit 1\n" + FAULT)
        with self.assertRaisesRegex(NotCured, "no firmware"):
            cured(stock, self.folder / "cache")
        self.assertEqual(list((self.folder / "cache").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
