#!/usr/bin/env python3
"""Which faults mutants.py plants, and that it plants the same ones again."""

import contextlib
import io
import pathlib
import shutil
import subprocess
import tempfile
import unittest
import unittest.mock

import cuda_faults
import cuda_mutants
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

# A program with faults in it that runs as Catch2's do: two test cases, of which one is longer.
PROGRAM = """#include "tests/mutants/mutant_switch.h"

#include <cstring>

using namespace heddle::mutants;
int main(int count, char** words) {
  if (std::strcmp(words[1], "--list-test-names-only") == 0) return std::puts("long, with a comma\\nshort") < 0;
  const bool longer = std::strstr(words[count - 1], "long") != nullptr;
  volatile int sum = 0;
  for (int i = 0; i < (longer ? 50000000 : 3); ++i) sum = sum + 1;
  if (on(1)) sum = sum + 1;            // found at once
  if (longer && on(2)) std::abort();   // found by one of them
  while (on(3)) sum = 0;               // never ends
  if (on(4)) words[0] = nullptr;       // nobody sees it
  if (count > 99 && on(5)) std::abort();  // nobody comes by
  return sum != (longer ? 50000000 : 3);
}
"""


class FakePlanted:
    """Faults that are in no program; `unfound`: of each flavour, those that its programs do not find."""

    unfound = {}

    def __init__(self, build, tree, jobs, flavour, chosen):
        everything = [{"file": "kernels/cuda/a.cuh", "number": 1, "line": "a", "fault": f"fault {n}", "copy": 0, "id": n} for n in range(6)]
        self.records = {record["id"]: record for record in everything if chosen(record)}
        self.flavour = flavour

    def link(self):
        return [pathlib.Path(self.flavour)]


class FakeProgram:
    def __init__(self, path, filters):
        self.path = path

    def reach(self, variable, jobs):
        return {str(n): ["a test"] for n in range(5)}

    tried = []  # flavour and fault

    def try_each(self, faults, jobs):
        FakeProgram.tried += [(self.path.name, int(n)) for n in faults]
        return [(n, "a test") for n in faults if n in self.reach("", 1) and int(n) not in FakePlanted.unfound[self.path.name]]


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

    def test_swapped_arguments_have_their_own_faults(self):
        text, records, _ = cuda_faults.plant("kernels/cuda/a.cuh", "void f() {\n  g(false, n);\n  return h(x[i], p.b(c));\n}\n", 100, 1)
        number = {record["fault"]: record["id"] for record in records}
        text, swap = text.replace(cuda_faults.NAMESPACE, ""), number["false, n swapped"]
        self.assertIn(f"g(other({number['not false']}, first({swap}, false, n), true), first({swap}, n, false));", text)

    def test_what_is_no_argument_is_not_swapped(self):
        for line in ("int a, b, c, d;", "View<const T> p, q, r, s;", "float w[4], x[4], y[4], z[4];", "f<A, B, C, D>(x);", "g(f<A, B, C, D>(x));", "HEDDLE_SHARED(float, sums, [2][32]);", "using L = void (*)(const P&, int, Stream);",
                     'matmul.add(DeviceType::cuda, {"simt", refuses, nullptr, run});', "__builtin_bit_cast(uint64_t, value);", "struct P { int a, b, c, d; };"):  # fmt: skip
            faults = [record["fault"] for record in cuda_faults.plant("a", f"struct S {{\n  {line}\n}};\n", 100, 1)[1]]
            self.assertEqual([fault for fault in faults if "swapped" in fault], [], line)
        for line in ("const P p{1, x, y, z};", "return {1, x, y, z};", "u = {1, x, y, z};", "f({1, x, y, z});", "f<A>(x, y, z);", "f(A<B>(1), x, y);"):
            faults = [record["fault"] for record in cuda_faults.plant("a", f"void f() {{\n  {line}\n}}\n", 100, 1)[1]]
            self.assertEqual(len([fault for fault in faults if "swapped" in fault]), 1, line)

    def test_an_operand_is_whole(self):
        for operand in ("int64_t{row}", "0x1p-32", "1e-5f", "f(x).row", "y[j].x", "a::b<", "p->q(3)[1].z", "0x1'0000'0001", "i++"):
            faults = [record["fault"] for record in cuda_faults.plant("a", f"void f() {{\n  g(x + {operand});\n}}\n", 100, 1)[1] if "sign" in record["fault"]]
            self.assertEqual(faults, [] if operand[-1] in "<+" else [f"+ {operand}: the other sign"])

    def test_a_share_is_the_same_part_each_time(self):
        tenth, half = (
            {n for n in range(4000) if cuda_faults.share_of("f", f"line {n}", "fault", 0, share)} for share in (10, 50)
        )
        self.assertTrue(tenth < half)
        self.assertTrue(300 < len(tenth) < 500)
        self.assertNotEqual(tenth, {n for n in range(4000) if cuda_faults.share_of("g", f"line {n}", "fault", 0, 10)})


class CudaMutants(unittest.TestCase):
    def run_main(self, plain, check, *arguments, folder=None, checked=()):
        """The exit code and what it says; `checked`: what cuda_checked.txt has."""
        lists = {"cuda_checked.txt": {("kernels/cuda/a.cuh", "a", f"fault {n}"): "why" for n in checked}}
        FakePlanted.unfound, FakeProgram.tried = {"plain": plain, "check": check}, []
        with tempfile.TemporaryDirectory() as own, contextlib.redirect_stdout(io.StringIO()) as out, unittest.mock.patch.object(
            cuda_mutants, "equivalents", lambda name="equivalents.txt": lists.get(name, {})
        ):
            code = cuda_mutants.main(["--kind", "source", "--build", folder or own, *arguments], FakePlanted, FakeProgram)
        return code, out.getvalue()

    def test_a_fault_that_nothing_finds_makes_the_run_red(self):
        self.assertEqual(self.run_main(plain=(), check=())[0], 0)
        code, out = self.run_main(plain=(2, 3), check=(3,))
        self.assertEqual(code, 1)
        self.assertIn("survived kernels/cuda/a.cuh:1\n  line  a\n  fault fault 3 (copy 0)", out)
        self.assertIn("left kernels/cuda/a.cuh:1\n  line  a\n  fault fault 2 (copy 0)", out)
        self.assertEqual(out.count("survived "), 1)
        self.assertIn("4 of 5 found (80.0 %)", out)
        self.assertIn("1 are in constants or in what no test runs", out)

    def test_what_the_checker_finds_is_found(self):
        self.assertEqual(self.run_main(plain=(2, 3), check=())[0], 0)

    def test_the_plain_flavour_alone_tells_what_it_leaves(self):
        code, out = self.run_main((2, 3), (), "--flavour", "plain")
        self.assertEqual((code, out.count("left kernels/cuda/a.cuh:1"), {flavour for flavour, _ in FakeProgram.tried}), (1, 2, {"plain"}))
        self.assertEqual(self.run_main((), (), "--flavour", "plain")[0], 0)

    def test_what_only_the_checker_finds_is_left_to_it_and_must_be_found(self):
        code, out = self.run_main((2, 3), (), "--flavour", "plain", checked=(2, 3))
        self.assertEqual((code, FakeProgram.tried), (0, [("plain", n) for n in (0, 1, 4)]))
        self.assertIn("2 left to the checker", out)
        self.assertEqual(self.run_main((2, 3), (), checked=(2, 3))[0], 0)
        self.assertEqual(FakeProgram.tried, [("plain", n) for n in (0, 1, 4)] + [("check", n) for n in (2, 3)])
        code, out = self.run_main((2, 3), (3,), checked=(2, 3))
        self.assertEqual((code, out.count("survived ")), (1, 1))

    def test_a_list_alone_is_tried(self):
        code, out = self.run_main((2, 3), (), "--list", "cuda_checked.txt", checked=(2,))
        self.assertEqual((code, FakeProgram.tried), (0, [("check", 2)]))
        self.assertIn("1 of 1 found", out)

    def test_what_was_told_is_not_tried_again(self):
        with tempfile.TemporaryDirectory() as folder:
            self.run_main((2, 3), (), "--flavour", "plain", folder=folder)
            code, out = self.run_main((2, 3), (3,), "--go-on", folder=folder)  # a break between the flavours has lost nothing
            self.assertEqual((code, FakeProgram.tried), (1, [("check", 2), ("check", 3)]))
            self.assertIn("4 of 5 found", out)
            code, out = self.run_main((), (), "--survivors", folder=folder)
            self.assertEqual((code, FakeProgram.tried), (0, [("plain", 3)]))
            with unittest.mock.patch.object(cuda_mutants, "digest_of_sources", lambda: "others"):
                self.run_main((), (), "--go-on", folder=folder)
            self.assertEqual(FakeProgram.tried, [("plain", n) for n in range(5)])

    @unittest.skipUnless(shutil.which("g++"), "g++ is not here")
    def test_faults_are_tried_by_forks_where_a_run_comes_by_them(self):
        with tempfile.TemporaryDirectory() as folder:
            source, path = pathlib.Path(folder, "program.cpp"), pathlib.Path(folder, "program")
            source.write_text(PROGRAM)
            subprocess.run(["g++", "-std=c++20", "-O1", "-w", f"-I{mutants.ROOT}", source, "-o", path], check=True)
            program = cuda_mutants.Program(path, [])
            reached = program.reach("HEDDLE_MUTANTS_REACHED", 2)
            short, longer = "short", "long, with a comma"
            self.assertEqual(reached, {"1": [short, longer], "2": [longer], "3": [short, longer], "4": [short, longer]})
            found = dict(program.try_each(["1", "2", "3", "4", "5"], 2))
            self.assertEqual(found, {"1": short, "2": longer, "3": short + " (too slow)"})


if __name__ == "__main__":
    unittest.main()
