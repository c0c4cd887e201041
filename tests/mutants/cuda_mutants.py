#!/usr/bin/env python3
"""Do the tests of the CUDA kernels find faults? Every fault of kernels/cuda is planted in one program, one is switched on at a time: see README.md."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import cuda_faults
from mutants import ROOT, equivalents, squeeze

LEFT_OUT = ("register", "resource_gate", "tensor_map")  # not kernels, or not compiled with them
FIRST_SECONDS, TIMES_LONGER = 10, 8  # how long a test may take with a fault in it


class Program:
    """A Catch2 program, its test cases and how long each takes."""

    def __init__(self, path, filters):
        self.path, self.filters, self.seconds = path, filters, {}

    def cases(self):
        listed = subprocess.run([self.path, "--list-test-names-only", *self.filters], capture_output=True, text=True).stdout
        return [line.strip() for line in listed.splitlines() if line.strip()]

    def run(self, case, seconds, variables):
        """The exit code; 124 when it took too long."""
        name = re.sub(r'([,\[\]\\"])', r"\\\1", case)
        # One core: the faults run beside each other.
        process = subprocess.Popen([self.path, "--abort", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**os.environ, "HEDDLE_SIM_THREADS": "1", **variables})  # fmt: skip
        try:
            said = process.communicate(timeout=seconds)[0]
            if b"No test cases matched" in said:
                sys.exit(f"cuda_mutants: {self.path} does not know its own test case '{case}'")
            return process.returncode
        except subprocess.TimeoutExpired:
            return 124
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.communicate()

    def reach(self, variable, cases, jobs):
        """What each test case comes by, as the program writes it into the file that the variable names: fault -> cases, quickest first."""
        reached = {}

        def one(case):
            with tempfile.NamedTemporaryFile("r", prefix="heddle-mutants-") as out:
                begin = time.monotonic()
                if self.run(case, 1200, {variable: out.name}) != 0:
                    sys.exit(f"cuda_mutants: {self.path} '{case}' fails without a fault")
                return case, time.monotonic() - begin, out.read().split("\n")

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for case, seconds, lines in pool.map(one, cases):
                self.seconds[case] = seconds
                for line in filter(None, lines):
                    reached.setdefault(line, []).append(case)
        for cases in reached.values():
            cases.sort(key=lambda case: self.seconds[case])
        return reached

    def verdict(self, cases, variables):
        for case in cases:
            code = self.run(case, FIRST_SECONDS + TIMES_LONGER * self.seconds[case], variables)
            if code != 0:
                return "found", case + (" (too slow)" if code == 124 else "")
        return "survived", ""


# ---- faults of the source: all in one program ----


class Planted:
    """kernels/cuda with its faults in it, compiled and linked as the program of the tests in the build folder is."""

    def __init__(self, build, tree, jobs, chosen):
        self.build, self.tree, self.jobs, self.chosen = build, tree, jobs, chosen
        self.records, self.refused = {}, set()

    def write(self):
        """Every source into the tree; the faults chosen there, numbered. Which files have changed."""
        self.records, number, changed = {}, 1, set()
        for path in sorted((ROOT / "kernels/cuda").iterdir()):
            if path.suffix not in (".cu", ".cuh", ".h"):
                continue
            file, text = str(path.relative_to(ROOT)), path.read_text()
            copy = self.tree / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            if not path.name.startswith(LEFT_OUT):
                keep = lambda record: self.chosen(record) and (record["file"], record["number"]) not in self.refused
                text, records, number = cuda_faults.plant(file, text, 100, number, keep)
                self.records.update((record["id"], record) for record in records)
                if records:  # lines keep their numbers
                    at = text.index("\n", text.index("#pragma once" if path.suffix != ".cu" else "#include")) + 1
                    text = f'{text[:at]}#include "tests/mutants/mutant_switch.h"\n#line {text.count(chr(10), 0, at) + 1} "{copy}"\n{text[at:]}'
            if not copy.exists() or copy.read_text() != text:
                copy.write_text(text)
                changed.add(file)
        return changed

    def compile(self):
        """Compiles until it works: lines whose faults do not compile are left without."""
        entries = json.loads((self.build / "compile_commands.json").read_text())
        database = {re.search(r" -o (\S+)", e["command"]).group(1): e for e in entries if "sim_candidates_plain.dir/" in e["command"]}
        objects = {}
        includes = {}  # of every object
        for line in subprocess.run(["ninja", "-C", self.build, "-t", "deps"], capture_output=True, text=True, check=True).stdout.splitlines():
            if not line.startswith(" "):
                output = line.split(":")[0]
            else:
                includes.setdefault(output, set()).add(line.strip().removeprefix(str(ROOT) + "/"))

        def one(output):
            if not includes.get(output, set()) & {record["file"] for record in self.records.values()}:
                return output, None, ""
            entry = database[output]
            relative = pathlib.Path(entry["file"]).relative_to(ROOT)
            if not (self.tree / relative).exists():
                return output, None, ""
            result = self.tree / (relative.name + ".o")
            words = shlex.split(entry["command"])
            words = [w for w in words if w != "-g"] + ["-O1"]
            words[words.index("-o") + 1] = str(result)
            words[words.index(entry["file"])] = str(self.tree / relative)
            at = words.index("-I" + str(ROOT))
            words[at:at] = ["-I" + str(self.tree), "-w", "-fsanitize=bounds", "-fsanitize-undefined-trap-on-error"]  # arrays in registers
            done = subprocess.run(words, cwd=entry["directory"], capture_output=True, text=True)
            return output, result if done.returncode == 0 else False, done.stderr

        for round in range(12):
            changed, bad = self.write(), set()
            todo = [output for output in database if round == 0 or objects.get(output) is False or includes.get(output, set()) & changed]
            with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
                for output, result, said in pool.map(one, todo):
                    objects[output] = result
                    if result is not False:
                        continue
                    places = re.findall(re.escape(str(self.tree)) + r"/(kernels/cuda/[\w.]+):(\d+)", said)
                    new = {(file, int(line)) for file, line in places} - self.refused
                    if not new:
                        sys.exit(f"cuda_mutants: {output} does not compile with its faults:\n{said[:4000]}")
                    bad |= new
            if not bad:
                return objects
            print(f"{len(bad)} lines do not compile with their faults", flush=True)
            self.refused |= bad
        sys.exit("cuda_mutants: the faults do not compile")

    def link(self):
        objects = self.compile()
        commands = subprocess.run(["ninja", "-C", self.build, "-t", "commands", "kernels_cuda_plain"], capture_output=True, text=True, check=True).stdout
        words = shlex.split(commands.strip().splitlines()[-1])
        words = words[words.index(":") + 2 :] if words[0] == ":" else words
        words = words[: words.index("&&")] if "&&" in words else words
        words = [str(objects.get(w) or w) for w in words]
        program = self.tree / "kernels_cuda_mutants"
        words[words.index("-o") + 1] = str(program)
        subprocess.run(words, cwd=self.build, check=True)
        return program


# ---- main ----


def sync_line(mutation):
    """file:line#operation:kind -> file, the line's text, "operation: kind"."""
    place, rest = mutation.split("#", 1)
    file, number = place.rsplit(":", 1)
    operation, kind = rest.rsplit(":", 1)
    return file, squeeze((ROOT / file).read_text().splitlines()[int(number) - 1]), f"{operation}: {kind}"


def ignored(line, kind):
    m = re.search(r"heddle-mutate: ignore(?: (drop|weaken|elect))?", line)
    return bool(m) and m.group(1) in (None, kind)


def main():
    parser = argparse.ArgumentParser(description="Faults of every CUDA kernel, found by its tests or explained.")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/cpu", help="where kernels_cuda_plain and kernels_cuda_check are built [build/cpu]")
    parser.add_argument("--share", type=float, default=100, help="per cent of the faults, always the same ones [%(default)s]")
    parser.add_argument("--kind", choices=("all", "source", "sync"), default="all", help="faults of the source, synchronisation left out, or both [%(default)s]")
    parser.add_argument("--only", default=".", help="files whose path matches this regular expression [%(default)s]")
    parser.add_argument("--tests", default="~[cpu]~[access]", help="test cases, as Catch2 takes them [%(default)s]")
    parser.add_argument("--open", action="store_true", help="also what cuda_open.txt says survives")
    parser.add_argument("--minutes", type=float, default=0, help="begin no fault after this long; 0: no limit [%(default)s]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time [%(default)s]")
    given = parser.parse_args()
    begin, known, unsolved = time.monotonic(), equivalents(), equivalents("cuda_open.txt")
    build = given.build.resolve()
    tree = build / "cuda_mutants"
    tree.mkdir(exist_ok=True)
    log = (tree / "results.jsonl").open("a")
    counts = dict.fromkeys(("found", "survived", "explained", "open", "unreached", "left"), 0)
    survivors = []

    def choose(record):
        return re.search(given.only, record["file"]) and cuda_faults.share_of(record["file"], record["line"], record["fault"], record["copy"], given.share)

    def judge(work):
        program, record, cases, variables = work
        key = (record["file"], record["line"], record["fault"])
        if key in known:
            verdict, by = "explained", known[key]
        elif key in unsolved and not given.open:
            verdict, by = "open", unsolved[key]
        elif given.minutes and time.monotonic() - begin > given.minutes * 60:
            return "left", record, ""
        elif not cases:
            verdict, by = "unreached", ""
        else:
            verdict, by = program.verdict(cases, variables)
        return verdict, record, by

    work = []
    if given.kind != "sync":
        planted = Planted(build, tree, given.jobs, choose)
        program = Program(planted.link(), [given.tests])
        reached = program.reach("HEDDLE_MUTANTS_REACHED", program.cases(), given.jobs)
        work += [(program, record, reached.get(str(n), []), {"HEDDLE_MUTANT": str(n)}) for n, record in planted.records.items()]
    if given.kind != "source":
        program = Program(build / "bin/kernels_cuda_check", [given.tests])
        reached = program.reach("HEDDLE_SIM_MUTATE_LIST", program.cases(), given.jobs)
        for mutation, cases in sorted(reached.items()):
            if not mutation.startswith("kernels/cuda/"):
                continue
            file, line, fault = sync_line(mutation)
            record = {"file": file, "number": int(mutation.split("#")[0].rsplit(":", 1)[1]), "line": line, "fault": fault, "copy": 0}
            if choose(record) and not ignored(line, fault.rsplit(" ", 1)[1]):
                work.append((program, record, cases, {"HEDDLE_SIM_MUTATE": mutation}))
    print(f"{len(work)} faults, prepared in {time.monotonic() - begin:.0f} s", flush=True)
    with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
        for verdict, record, by in pool.map(judge, work):
            counts[verdict] += 1
            log.write(json.dumps({**record, "verdict": verdict, "by": by}) + "\n")
            log.flush()
            if verdict == "survived":
                survivors.append(record)
                print(f"survived {record['file']}:{record['number']}\n  line  {record['line']}\n  fault {record['fault']}", flush=True)
    judged = counts["found"] + counts["survived"]
    print(f"{counts['found']} of {judged} found ({100 * counts['found'] / max(judged, 1):.1f} %) in {time.monotonic() - begin:.0f} s; {counts['explained']} are explained in equivalents.txt, {counts['open']} open in cuda_open.txt, "
          f"{counts['unreached']} are in constants or in what no test runs, {counts['left']} were not tried")  # fmt: skip
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
