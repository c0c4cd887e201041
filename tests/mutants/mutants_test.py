#!/usr/bin/env python3
"""Which faults mutants.py plants, and that it plants the same ones again."""

import contextlib
import io
import pathlib
import tempfile
import unittest

import cuda_faults
import mutants

TEXT = """int f(int a, int b) {
  if (a < 1) return 0;
  if (b > 1) {
    if (a < 1) return 0;
  }
  // a < 2
  for (int i = 0; i < b; ++i) a += i;
  for (int i = 0; i < b; ++i) a += i;
  return a;
}
"""


KERNEL = """template <int kN>
__global__ void kernel(float (&x)[kN], const int* y, int n) {
  float held[kN];
  for (int i = 0; i < n; ++i) {
    if (i + 1 < n) x[y[i]] = held[i] * 2.5f;
    ptx::warp_sync();
    put(x, held);
    x[2 - i] = 0;
  }
}
"""


class FakeTree:
    """A scratch copy of two files whose tests find what `finds` says."""

    finds = staticmethod(lambda fault: True)
    planted = []

    def __init__(self, path, jobs):
        self.path, self.seconds = path, {}

    def refresh(self):
        for name in ("data/a.cpp", "data/b.cpp", "build/empty"):
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(TEXT)

    def configure(self):
        pass

    def baseline(self, labels):
        pass

    def digest(self, file):
        return ""

    def verdict(self, fault, clean):
        FakeTree.planted.append(fault.mutated)
        return ("found", "a test") if FakeTree.finds(fault) else ("survived", "")


class Mutants(unittest.TestCase):
    def every_fault(self):
        return [mutants.Fault("data/a.cpp", TEXT, place) for place in mutants.faults(TEXT)]

    def test_faults_differ_and_leave_comments_alone(self):
        faults = self.every_fault()
        self.assertGreaterEqual(len(faults), 20)
        self.assertEqual(len({f.mutated for f in faults}), len(faults))
        for f in faults:
            self.assertIn("// a < 2", f.mutated)
            self.assertEqual(TEXT.splitlines()[f.line - 1], f.before)

    def test_key_and_copy_name_one_fault(self):
        faults = self.every_fault()
        self.assertEqual(len({(f.key(), f.copy) for f in faults}), len(faults))
        self.assertEqual({f.copy for f in faults if f.line == 2}, {0})
        self.assertEqual({f.copy for f in faults if f.line == 4}, {1})  # indented otherwise, but the same line
        self.assertEqual({f.copy for f in faults if f.line == 8}, {1})

    def run_main(self, folder, *arguments):
        FakeTree.planted = []
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = mutants.main(["--tree", folder, *arguments], FakeTree)
        return code, out.getvalue(), FakeTree.planted

    def test_survivors_are_planted_again_where_they_were(self):
        for seed in range(12):
            with tempfile.TemporaryDirectory() as folder:
                FakeTree.finds = staticmethod(lambda fault: False)
                code, _, first = self.run_main(folder, "--seed", str(seed))
                self.assertEqual((code, len(first)), (1, 2))
                code, _, again = self.run_main(folder, "--survivors")
                self.assertEqual((code, sorted(again)), (1, sorted(first)))
                FakeTree.finds = staticmethod(lambda fault: True)  # the tests were mended
                code, _, again = self.run_main(folder, "--survivors")
                self.assertEqual((code, sorted(again)), (0, sorted(first)))
                code, _, again = self.run_main(folder, "--survivors")
                self.assertEqual((code, again), (0, []))

    def test_a_survivor_whose_line_is_gone_is_told(self):
        with tempfile.TemporaryDirectory() as folder:
            FakeTree.finds = staticmethod(lambda fault: False)
            self.run_main(folder, "--seed", "1")
            results = pathlib.Path(folder, "build/results.jsonl")
            results.write_text(results.read_text().replace('"copy": 0', '"copy": 7').replace('"copy": 1', '"copy": 7'))
            _, out, again = self.run_main(folder, "--survivors")
            self.assertEqual(again, [])
            self.assertEqual(out.count("gone "), 2)
            self.assertIn("(copy 8)", out)

    def test_what_was_judged_is_not_judged_again(self):
        with tempfile.TemporaryDirectory() as folder:
            FakeTree.finds = staticmethod(lambda fault: False)
            code, out, first = self.run_main(folder, "--seed", "1")
            code_again, out_again, again = self.run_main(folder, "--seed", "1", "--go-on")
            self.assertEqual((code, code_again, len(first), again), (1, 1, 2, []))
            self.assertIn("0 of 2 found", out_again)
            self.assertEqual(out_again.count("judged before"), 2)
            FakeTree.finds = staticmethod(lambda fault: True)  # another seed knows nothing of them
            self.assertEqual(len(self.run_main(folder, "--seed", "2", "--go-on")[2]), 2)
            results = pathlib.Path(folder, "build/results.jsonl")
            lines = results.read_text().splitlines()
            results.write_text(lines[0] + "\n")  # stopped after the first file
            self.assertEqual(len(self.run_main(folder, "--seed", "1", "--go-on")[2]), 1)

    def test_without_records_nothing_survived(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.run_main(folder, "--survivors")[0::2], (0, []))


class CudaFaults(unittest.TestCase):
    def planted(self, share=100, keep=lambda record: True):
        text, records, _ = cuda_faults.plant("kernels/cuda/a.cuh", KERNEL, share, 1, keep)
        return text.replace(cuda_faults.NAMESPACE, ""), records

    def test_each_kind_of_fault_is_there_once(self):
        self.assertEqual(sorted(record["fault"] for record in self.planted()[1]),
                         ["* 2.5f: left out", "+ 1: the other sign", "- i: the other sign", "0: 1", "0: 1", "2.5f: doubled", "2: 3", "< n: one off", "< n: one off", "[2 - i]: -1", "[i]: -1", "[i]: -1", "[y[i]]: +1",
                          "if (i + 1 < n): always", "if (i + 1 < n): never", "put(x, held); left out", "x, held swapped", "x[2 - i] = 0; left out"])  # fmt: skip

    def test_one_fault_alone_is_written_where_it_belongs(self):
        line = {
            "[y[i]]: +1": "    if (i + 1 < n) x[moved(1, y[i], 1)] = held[i] * 2.5f;",
            "if (i + 1 < n): always": "    if (on(1) || (i + 1 < n)) x[y[i]] = held[i] * 2.5f;",
            "if (i + 1 < n): never": "    if (!on(1) && (i + 1 < n)) x[y[i]] = held[i] * 2.5f;",
            "+ 1: the other sign": "    if (i + negated(1, 1) < n) x[y[i]] = held[i] * 2.5f;",
            "* 2.5f: left out": "    if (i + 1 < n) x[y[i]] = held[i] * one(1, 2.5f);",
            "put(x, held); left out": "    if (on(1)) {} else put(x, held);",
            "x, held swapped": "    put(first(1, x, held), first(1, held, x));",
        }
        number = {record["fault"]: record["id"] for record in self.planted()[1]}  # which one keeps without the others
        for fault, wanted in line.items():
            text, records = self.planted(keep=lambda record: record["fault"] == fault)
            self.assertEqual([record["id"] for record in records], [number[fault]])
            self.assertIn(wanted, text.replace(f"({number[fault]}, ", "(1, ").replace(f"on({number[fault]})", "on(1)").split("\n"))

    def test_all_of_them_fit_into_one_text(self):
        text, records = self.planted()
        number = {record["fault"]: record["id"] for record in records}
        outer, two, minus, zero, out = (number[f] for f in ("[2 - i]: -1", "2: 3", "- i: the other sign", "0: 1", "x[2 - i] = 0; left out"))
        self.assertIn(f"    if (on({out})) {{}} else x[moved({outer}, moved({two}, 2, 1) - negated({minus}, i), -1)] = moved({zero}, 0, 1);", text)
        self.assertEqual(text.count("\n"), KERNEL.count("\n"))
        self.assertEqual(text.count("("), text.count(")"))
        self.assertEqual(text.count("["), text.count("]"))
        for untouched in ("(float (&x)[kN]", "  float held[kN];", "    ptx::warp_sync();"):  # sizes; what races would show
            self.assertIn(untouched, text)

    def test_a_share_is_the_same_part_each_time(self):
        tenth, half = (
            {n for n in range(4000) if cuda_faults.share_of("f", f"line {n}", "fault", 0, share)} for share in (10, 50)
        )
        self.assertTrue(tenth < half)
        self.assertTrue(300 < len(tenth) < 500)
        self.assertNotEqual(tenth, {n for n in range(4000) if cuda_faults.share_of("g", f"line {n}", "fault", 0, 10)})


if __name__ == "__main__":
    unittest.main()
