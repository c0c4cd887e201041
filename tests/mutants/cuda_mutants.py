#!/usr/bin/env python3
"""Do the tests of the CUDA kernels find faults? Every fault of kernels/cuda is planted in one program, one is switched on at a time: see README.md."""

import argparse
import concurrent.futures
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

import cuda_faults
from mutants import ROOT, equivalents, squeeze

LEFT_OUT = ("register", "resource_gate", "tensor_map")  # not kernels, or not compiled with them
FIRST_SECONDS, TIMES_LONGER = 2, 5  # of processor time, that a test may take with a fault in it
TRAPS = {"gcc": ["-fsanitize=bounds-strict,object-size", "-fsanitize-undefined-trap-on-error"], "clang": ["-fsanitize=bounds", "-fsanitize-trap=bounds"]}
# Of a flavour, the programs whose test cases look for faults, the quick one first: who refuses what, and how a launch is planned; what kernels compute.
PROGRAMS = {"plain": ("sim_registry", "kernels_cuda"), "check": ("kernels_cuda",)}


class Program:
    """A Catch2 program, its test cases and how long each takes."""

    def __init__(self, path, filters):
        self.path, self.filters, self.seconds, self.reached = path, filters, {}, {}

    def cases(self):
        listed = subprocess.run([self.path, "--list-test-names-only", *self.filters], capture_output=True, text=True).stdout
        return [line.strip() for line in listed.splitlines() if line.strip()]

    def run(self, case, seconds, variables):
        """The exit code, 124 when it took too long, and the processor time."""
        name = re.sub(r'([,\[\]\\"])', r"\\\1", case)
        # One core: the faults run beside each other.
        with tempfile.TemporaryFile(prefix="heddle-mutants-") as said:
            process = subprocess.Popen([self.path, "--abort", name], stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                                       env={**os.environ, "HEDDLE_SIM_THREADS": "1", "OMP_NUM_THREADS": "1", **variables})  # fmt: skip
            ended = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
            ended.start()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode, too_long = os.waitstatus_to_exitcode(status), ended.finished.is_set()
            ended.cancel()
            said.seek(0)
            if b"No test cases matched" in said.read():
                sys.exit(f"cuda_mutants: {self.path} does not know its own test case '{case}'")
            return 124 if too_long else process.returncode, used.ru_utime + used.ru_stime

    def reach(self, variable, jobs):
        """What each test case comes by, as the program writes it into the file that the variable names: fault -> cases, quickest first."""

        def one(case):
            with tempfile.NamedTemporaryFile("r", prefix="heddle-mutants-") as out:
                code, seconds = self.run(case, 1200, {variable: out.name})
                if code != 0:
                    sys.exit(f"cuda_mutants: {self.path} '{case}' fails without a fault: {code}")
                return case, seconds, out.read().split()

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for case, self.seconds[case], lines in pool.map(one, self.cases()):
                for line in lines:
                    self.reached.setdefault(line, []).append(case)
        for cases in self.reached.values():
            cases.sort(key=lambda case: self.seconds[case])
        return self.reached

    def allowed(self, case):
        return FIRST_SECONDS + math.ceil(TIMES_LONGER * self.seconds[case])

    def try_each(self, faults, jobs):
        """Each fault that a test case finds and the case, by forks (mutant_switch.h), the quickest case first."""
        found = set()
        for case in sorted(self.seconds, key=lambda case: self.seconds[case]):
            pending = [n for n in faults if n not in found and case in self.reached.get(n, [])]
            if not pending:
                continue
            with tempfile.NamedTemporaryFile("w", prefix="heddle-mutants-") as wanted, tempfile.NamedTemporaryFile("r", prefix="heddle-mutants-") as verdicts:
                wanted.write(f"{self.allowed(case)} {jobs} {' '.join(pending)}\n")
                wanted.flush()
                code, _ = self.run(case, 7200, {"HEDDLE_MUTANTS_TRY": wanted.name, "HEDDLE_MUTANTS_VERDICTS": verdicts.name})
                codes = dict(line.split() for line in verdicts.read().splitlines())
            if code != 0 or set(codes) != set(pending):
                sys.exit(f"cuda_mutants: {self.path} '{case}' ended with {code} and {len(codes)} verdicts of {len(pending)}")
            for n, code in codes.items():
                if code != "0":
                    found.add(n)
                    yield n, case + (" (too slow)" if code == "124" else "")

    def verdict(self, cases, variables):
        for case in cases:
            code, _ = self.run(case, 20 * self.allowed(case), variables)
            if code != 0:
                return "found", case + (" (too slow)" if code == 124 else "")
        return "survived", ""


# ---- faults of the source: all in one program ----


class Planted:
    """kernels/cuda with its faults in it, compiled and linked as a flavour's programs of the tests in the build folder are."""

    def __init__(self, build, tree, jobs, flavour, chosen):
        self.build, self.tree, self.jobs, self.flavour, self.chosen = build, tree / flavour, jobs, flavour, chosen
        self.records, self.refused = {}, set()
        self.commands = {name: self.made_by(f"{name}_{flavour}") for name in PROGRAMS[flavour]}

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

    def made_by(self, target):
        """The commands of the build; the last one links."""
        return subprocess.run(["ninja", "-C", self.build, "-t", "commands", target], capture_output=True, text=True, check=True).stdout.strip().splitlines()

    def compile(self):
        """Compiles until it works: lines whose faults do not compile are left without."""
        database = {}
        for command in itertools.chain(*self.commands.values()):
            if m := re.search(r" -o (\S+\.o) -c (\S+)$", command):
                database[m.group(1)] = (m.group(2), command)
        objects = {}
        includes = {}  # of every object
        for line in subprocess.run(["ninja", "-C", self.build, "-t", "deps"], capture_output=True, text=True, check=True).stdout.splitlines():
            if not line.startswith(" "):
                output = line.split(":")[0]
            else:
                path = os.path.normpath(self.build / line.strip())  # a compiler cache may have made it relative
                includes.setdefault(output, set()).add(path.removeprefix(str(ROOT) + "/"))

        def one(output):
            if not includes.get(output, set()) & {record["file"] for record in self.records.values()}:
                return output, None, ""
            source, command = database[output]
            copy = self.tree / pathlib.Path(source).relative_to(ROOT)
            result = self.tree / output.replace("/", "-")
            words = shlex.split(command)
            words = [w for w in words if w != "-g"] + ["-O1"]
            words[words.index("-o") + 1] = str(result)
            words[words.index(source)] = str(copy) if copy.exists() else source
            compiler = words[{"compile_checked.sh": 2, "ccache": 1}.get(pathlib.Path(words[0]).name, 0)]
            at = words.index("-I" + str(ROOT))
            words[at:at] = ["-I" + str(self.tree), "-w", *traps(compiler)]
            done = subprocess.run(words, cwd=self.build, capture_output=True, text=True)
            return output, result if done.returncode == 0 else False, done.stderr

        for round in range(12):
            changed, bad = self.write(), set()
            planted = {(record["file"], record["number"]) for record in self.records.values()}
            todo = [output for output in database if round == 0 or objects.get(output) is False or includes.get(output, set()) & changed]
            with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
                for output, result, said in pool.map(one, todo):
                    objects[output] = result
                    if result is not False:
                        continue
                    place = re.escape(str(self.tree)) + r"/(kernels/cuda/[\w.]+):(\d+)"
                    for wrong in (place + r":\d+: (?:fatal |internal compiler )?error", place):  # what only led there is refused when nothing else is named
                        new = {(file, int(line)) for file, line in re.findall(wrong, said)} & planted - self.refused
                        if new:
                            break
                    else:
                        sys.exit(f"cuda_mutants: {output} does not compile with its faults:\n{said[:4000]}")
                    bad |= new
            if not bad:
                if self.records and not any(objects.values()):
                    sys.exit(f"cuda_mutants: nothing in {self.build} was compiled from the sources with faults: build kernels_cuda_plain there")
                return objects
            for file, line in sorted(bad):
                print(f"{file}:{line}: left without faults, as it does not compile with them", flush=True)
            self.refused |= bad
        sys.exit("cuda_mutants: the faults do not compile")

    def link(self):
        """The programs."""
        objects, programs = self.compile(), []
        for name, commands in self.commands.items():
            words = shlex.split(commands[-1])
            words = words[words.index(":") + 2 :] if words[0] == ":" else words
            words = words[: words.index("&&")] if "&&" in words else words
            words = [str(objects.get(w) or w) for w in words]
            programs.append(self.tree / name)
            words[words.index("-o") + 1] = str(programs[-1])
            subprocess.run(words, cwd=self.build, check=True)
        return programs


# ---- main ----


@functools.cache
def traps(compiler):
    """Its flags for arrays in registers: who leaves them dies."""
    return TRAPS["clang" if "clang" in subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout else "gcc"]


def sync_line(mutation):
    """file:line#operation:kind -> file, the line's text, "operation: kind"."""
    place, rest = mutation.split("#", 1)
    file, number = place.rsplit(":", 1)
    operation, kind = rest.rsplit(":", 1)
    return file, squeeze((ROOT / file).read_text().splitlines()[int(number) - 1]), f"{operation}: {kind}"


def ignored(line, kind):
    m = re.search(r"heddle-mutate: ignore(?: (drop|weaken|elect))?", line)
    return bool(m) and m.group(1) in (None, kind)


def identity(record):
    return record["file"], record["line"], record["fault"], record["copy"]


def keys(record):
    """What an entry of equivalents.txt may say: of every line that reads so, or of one of them."""
    file, line, fault, copy = identity(record)
    return (file, line, fault), (file, line, f"{fault} (copy {copy})")


def last_words(results):
    """What is known of each fault from runs before."""
    records = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    return {identity(record): record for record in records}


def digest_of_sources():
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted((ROOT / "kernels/cuda").glob("*.*")))).hexdigest()


def main(arguments=None, plant=Planted, run=Program):
    parser = argparse.ArgumentParser(description="Faults of every CUDA kernel, found by its tests or explained.")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/cpu", help="where kernels_cuda_plain and kernels_cuda_check are built [build/cpu]")
    parser.add_argument("--share", type=float, default=100, help="per cent of the faults, always the same ones [%(default)s]")
    parser.add_argument("--kind", choices=("all", "source", "sync"), default="all", help="faults of the source, synchronisation left out, or both [%(default)s]")
    parser.add_argument("--flavour", choices=("all", "plain"), default="all", help="plain: what that flavour does not find is not tried by the checker [%(default)s]")
    parser.add_argument("--only", default=".", help="files whose path matches this regular expression [%(default)s]")
    parser.add_argument("--tests", default="~[cpu]~[access]", help="test cases, as Catch2 takes them [%(default)s]")
    parser.add_argument("--list", choices=("cuda_open.txt", "cuda_checked.txt"), help="only what this list has: is it found, or by the checker?")
    parser.add_argument("--survivors", action="store_true", help="only what survived or was left here before, after the tests were mended")
    parser.add_argument("--go-on", action="store_true", help="of the same sources what was found or left here before is not tried again")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="at a time [%(default)s]")
    given = parser.parse_args(arguments)
    begin, known, unsolved, checked = time.monotonic(), equivalents(), equivalents("cuda_open.txt"), equivalents("cuda_checked.txt")
    build = given.build.resolve()
    tree = build / "cuda_mutants"
    tree.mkdir(parents=True, exist_ok=True)
    counts = dict.fromkeys(("found", "left", "survived", "explained", "open", "checked", "unreached"), 0)
    results, sources = tree / "results.jsonl", digest_of_sources()
    before, rest = last_words(results), set()  # those that the checker is to look at

    def choose(record):
        if given.survivors and before.get(identity(record), {}).get("verdict") not in ("survived", "left"):
            return False
        return re.search(given.only, record["file"]) and cuda_faults.share_of(record["file"], record["line"], record["fault"], record["copy"], given.share)

    def spent():
        return f"{time.monotonic() - begin:.0f} s, {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of processors"

    def known_as(record, flavour):
        for key in keys(record):
            if given.list and key not in (unsolved if given.list == "cuda_open.txt" else checked):
                continue
            if key in known:
                return "explained", known[key]
            if key in checked:
                return ("checked", checked[key]) if flavour == "plain" else None
            if key in unsolved:
                return None if given.list else ("open", unsolved[key])
        if given.list:
            return "left out", ""
        last = before.get(identity(record), {})
        again = not given.go_on or flavour != "plain" or last.get("sources") != sources or last["verdict"] not in ("found", "left")
        return None if again else (last["verdict"], last["by"])

    def tell(record, verdict, by):
        if verdict == "left out":
            return
        counts[verdict] += 1
        if verdict in ("left", "checked"):
            rest.add(identity(record))
        with results.open("a") as log:
            log.write(json.dumps({**record, "verdict": verdict, "by": by, "sources": sources}) + "\n")
        if verdict in ("survived", "left"):
            print(f"{verdict} {record['file']}:{record['number']}\n  line  {record['line']}\n  fault {record['fault']} (copy {record['copy']})", flush=True)

    def try_planted(flavour, chosen):
        """Tells what finds each fault, some files at a time, and in the plain flavour what is left."""
        told = {}

        def untold(record):  # asked for each fault again when something does not compile
            if chosen(record) and identity(record) not in told:
                told[identity(record)] = known_as(record, flavour)
                if told[identity(record)]:
                    tell(record, *told[identity(record)])
            return chosen(record) and not told[identity(record)]

        planted = plant(build, tree, given.jobs, flavour, untold)
        programs = [run(path, [given.tests]) for path in planted.link()]
        print(f"{flavour}: {len(planted.records)} faults are compiled; {spent()}", flush=True)
        untried, reached = {str(n): record for n, record in planted.records.items()}, set()
        for program in programs:
            reached |= set(program.reach("HEDDLE_MUTANTS_REACHED", given.jobs))
        print(f"the tests come by {len(reached & set(untried))} of them; {spent()}", flush=True)
        groups = []  # some files each: what is left is told soon, and what comes before the faults is run again for few
        for _, numbers in itertools.groupby(untried, lambda n: untried[n]["file"]):
            if not groups or len(groups[-1]) > 500:
                groups.append({})
            groups[-1].update((n, untried[n]) for n in numbers)
        for left in groups:
            file = list(left.values())[-1]["file"]
            for program in programs:
                for n, case in program.try_each([n for n in left if n in reached], given.jobs):
                    tell(left.pop(n), "found", case + (f" ({flavour})" if flavour != "plain" else ""))
            for n, record in left.items():
                tell(record, "survived" if flavour != "plain" else "left" if n in reached else "unreached", "")
            print(f"{flavour}: up to {file} {len(left)} are not found or not come by; {spent()}", flush=True)

    if given.kind != "sync":
        try_planted("plain", choose)
        if given.flavour == "all" and rest:
            counts["left"] = counts["checked"] = 0
            try_planted("check", lambda record: choose(record) and identity(record) in rest)
    if given.kind != "source" and given.flavour == "all":
        program, work = run(build / "bin/kernels_cuda_check", [given.tests]), []
        for mutation, cases in sorted(program.reach("HEDDLE_SIM_MUTATE_LIST", given.jobs).items()):
            if not mutation.startswith("kernels/cuda/"):
                continue
            file, line, fault = sync_line(mutation)
            record = {"file": file, "number": int(mutation.split("#")[0].rsplit(":", 1)[1]), "line": line, "fault": fault, "copy": 0}
            if choose(record) and not ignored(line, fault.rsplit(" ", 1)[1]):
                work.append((record, cases, {"HEDDLE_SIM_MUTATE": mutation}))
        print(f"{len(work)} synchronisations; {spent()}", flush=True)
        with concurrent.futures.ThreadPoolExecutor(given.jobs) as pool:
            for record, (verdict, by) in pool.map(lambda w: (w[0], known_as(w[0], "check") or program.verdict(*w[1:])), work):
                tell(record, verdict, by)
    missed = counts["survived"] + counts["left"]
    print(f"{counts['found']} of {counts['found'] + missed} found ({100 * counts['found'] / max(counts['found'] + missed, 1):.1f} %) in {spent()}; {counts['explained']} are explained in equivalents.txt, "
          f"{counts['open']} open in cuda_open.txt, {counts['checked']} left to the checker by cuda_checked.txt, {counts['unreached']} are in constants or in what no test runs")  # fmt: skip
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
