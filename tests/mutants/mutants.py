#!/usr/bin/env python3
"""Plants one small fault after another in a scratch copy of the tree and sees whether the tests find it: see README.md."""

import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("kernels/cpu", "core", "optim", "models", "data", "parallel", "checkpoint", "infer", "train", "app")
# The tests asked after a fault in a folder, nearest first: its own, then those of the folders that include it.
STAGES = {
    "kernels": ("kernels", "core", "optim", "models", "train"),
    "core": ("core", "models", "parallel", "optim", "checkpoint", "train", "app"),
    "optim": ("optim", "train"),
    "models": ("models", "infer", "train", "app"),
    "data": ("data", "train", "app"),
    "parallel": ("parallel", "train"),
    "checkpoint": ("checkpoint", "train", "app"),
    "infer": ("infer", "train", "app"),
    "train": ("train", "app"),
    "app": ("app", "infer", "train"),
}
# Minutes of random kills and stops: what they find, their neighbours find in seconds. And what runs on the simulated GPU, which heddle-mutate is for.
LEFT_OUT = ("kills_test", "supervised_kills_test", "rank_kills_test", "hang", "supervise", "random_flags_test", "cuda_step_tests", "app_gpu_tests", "kernels_cuda_", "nccl_")
SIMULATED = ("parallel/nccl_communicator.cpp", "core/device_cuda.cpp")  # what only tests that are left out come by
DRAWS = 8  # places tried in a file whose faults do not compile or change nothing
MARK = ".heddle-mutants"  # in a scratch copy's root: nothing else is written into


# ---- faults ----


def masked(text):
    """The same length, with comments, literals and preprocessor lines blanked."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"\((?:.|\n)*?\)"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Za-z_])\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.S | re.M)
    return pattern.sub(lambda m: re.sub(r"[^\n]", "~", m.group()), text)


def closing(text, start):
    """The index of the parenthesis that closes the one at start."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return -1


SWAPS = [  # operators as clang-format writes them: a space on either side, which template brackets, references and pointers do not have
    (" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "), (" != ", " == "), (" && ", " || "), (" || ", " && "),
    (" + ", " - "), (" - ", " + "), (" * ", " / "), (" / ", " * "), (" += ", " -= "), (" -= ", " += "), ("std::min(", "std::max("),
    ("std::max(", "std::min("), ("true", "false"), ("false", "true"),
]  # fmt: skip


def faults(text):
    """All faults of a source as (start, end, replacement)."""
    code = masked(text)
    found = []
    for old, new in SWAPS:
        word = old.strip().isalpha()
        for m in re.finditer((r"\b%s\b" if word else "%s") % re.escape(old), code):
            line = code[code.rfind("\n", 0, m.start()) + 1 : m.end()]
            if old in (" < ", " > ") and "template" in line:
                continue
            found.append((m.start(), m.end(), new))
    for m in re.finditer(r"(?<![\w.])(\d+)(?![\w.'])", code):  # whole numbers, one off
        number = int(m.group())
        found.append((m.start(), m.end(), str(number + 1)))
        if number > 0:
            found.append((m.start(), m.end(), str(number - 1)))
    for m in re.finditer(r"(?<![\w.])(\d+\.\d*(?:e-?\d+)?f?|\d+e-\d+f?)(?![\w.])", code):  # reals, doubled
        found.append((m.start(), m.end(), "(2 * %s)" % m.group() if float(m.group().rstrip("f")) else "1.0"))
    for m in re.finditer(r"\b(if|while) \(", code):  # conditions, negated
        end = closing(code, m.end() - 1)
        if end > 0 and ";" not in code[m.end() : end] and not re.match(r"\s*(const )?[\w:<>]+[*&]? \w+ = ", code[m.end() : end]):
            found.append((m.end(), end, "!(%s)" % text[m.end() : end]))
    statement = r"(?<=[;{}]\n)[ \t]*((?:[\w:>\[\]().-]+?(?:\.|->|::))?\w+(?:<[\w:]+>)?\([^;{}]*\)|[\w.>\[\]-]+ [-+*/|&^]?= [^;{}]*|(?:\+\+|--)\w+|break|continue);"
    for m in re.finditer(statement, code):  # statements, dropped
        if not re.match(r"(return|throw|fail|fail_usage|static_assert|using|delete)\b", m.group(1)):
            found.append((m.start(1), m.end(1), ""))
    for m in re.finditer(r"\b\w+\(([\w.\->\[\]]+), ([\w.\->\[\]]+)\)", code):  # arguments, swapped
        if m.group(1) != m.group(2):
            found.append((m.start(1), m.end(2), "%s, %s" % (m.group(2), m.group(1))))
    return sorted(set(found))


def squeeze(text):
    return " ".join(text.split())


class Fault:
    """One fault of one file: what a line said and says, and which of the lines that say the same it is."""

    def __init__(self, file, text, place):
        start, end, replacement = place
        first = text.rfind("\n", 0, start) + 1
        last = text.find("\n", end)
        last = len(text) if last < 0 else last
        self.file, self.line = file, text.count("\n", 0, start) + 1
        self.before = text[first:last]
        self.copy = sum(squeeze(line) == squeeze(self.before.split("\n")[0]) for line in text[:first].split("\n")[:-1])
        self.after = text[first:start] + replacement + text[end:last]
        self.mutated = text[:first] + self.after + text[last:]

    def key(self):
        return (self.file, squeeze(self.before), squeeze(self.after))


def survivors_of(records):
    """The faults that survived when they were judged last: (key, copy) in the order of the records, which are lines of JSON."""
    verdicts = {}
    for line in records.splitlines():
        row = json.loads(line)
        verdicts[tuple(row["key"]), row.get("copy", 0)] = row["verdict"]
    return [fault for fault, verdict in verdicts.items() if verdict == "survived"]


def equivalents(name="equivalents.txt"):
    """The faults of equivalents.txt that nobody can see, or those of another such list, by key."""
    known = {}
    entry = []
    for line in (pathlib.Path(__file__).parent / name).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        entry.append(" ".join(line.split(maxsplit=1)[1].split()) if " " in line else "")
        if line.startswith("why "):
            if len(entry) != 4:
                sys.exit(name + ": an entry is file, line, fault, why; at: " + line)
            known[tuple(entry[:3])] = entry[3]
            entry = []
    return known


# ---- the scratch copy ----


class Tree:
    def __init__(self, path, jobs):
        self.path, self.build, self.jobs = path, path / "build/cpu", jobs
        self.log = path / "build/mutants.log"
        self.seconds = {}  # of every test, when nothing is wrong

    def refresh(self):
        """Copies what git knows or would know of the tree here; only what differs, so that little is built again."""
        names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "-co", "--exclude-standard"], check=True, capture_output=True).stdout.decode().split("\0")
        names = {n for n in names if n and (ROOT / n).is_file()}
        if self.path.exists() and any(self.path.iterdir()) and not (self.path / MARK).exists():
            sys.exit(f"mutants: {self.path} is not a scratch copy of mine: name an empty or a new folder")
        self.path.mkdir(parents=True, exist_ok=True)
        old = (self.path / MARK).read_text().split("\0") if (self.path / MARK).exists() else []
        (self.path / MARK).write_text("\0".join(sorted(names)))
        for gone in set(old) - names - {""}:
            (self.path / gone).unlink(missing_ok=True)
        for name in names:
            source, copy = ROOT / name, self.path / name
            if copy.exists() and copy.read_bytes() == source.read_bytes():
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)

    def call(self, command, seconds, env=None):
        """The exit code; 124 when it took too long. Output goes to the log; its processes and temporary files go with it."""
        scratch = tempfile.mkdtemp(prefix="heddle-mutants-")
        limits = lambda: (os.setsid(), resource.setrlimit(resource.RLIMIT_AS, (12 << 30,) * 2), resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, cwd=self.build if self.build.exists() else self.path, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                       env={**os.environ, **(env or {}), "TMPDIR": scratch}, preexec_fn=limits)  # fmt: skip
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = 124
            finally:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
        shutil.rmtree(scratch, ignore_errors=True)
        return code

    def make(self, *targets):
        return self.call(["cmake", "--build", self.build, "--parallel", str(self.jobs), "--target", *targets], 3600) == 0

    def configure(self):
        (self.path / "build").mkdir(exist_ok=True)
        if self.call(["cmake", "-S", self.path, "--preset", "cpu"], 600) != 0 and self.call(["cmake", "-S", self.path, "-B", self.build, "-G", "Ninja"], 600) != 0:
            sys.exit(f"mutants: {self.log}: the copy cannot be configured")

    def tests(self, label):
        listed = subprocess.run(["ctest", "--test-dir", self.build, "--show-only=json-v1", "-L", f"^{label}$"], check=True, capture_output=True).stdout
        found = []
        for test in json.loads(listed)["tests"]:
            properties = {p["name"]: p["value"] for p in test["properties"]}
            if test["name"].startswith(LEFT_OUT) or "command" not in test:
                continue
            command = test["command"] + (["--abort"] if len(test["command"]) == 1 else [])  # a Catch2 program
            env = dict(e.split("=", 1) for e in properties.get("ENVIRONMENT", []))
            found.append((test["name"], command, env, properties.get("SKIP_RETURN_CODE", 0)))
        return sorted(found, key=lambda t: self.seconds.get(t[0], 0))

    def baseline(self, labels):
        """Builds and runs everything once: what is red already finds nothing. A program that has not changed since it was green here is not run again."""
        memory = self.path / "build/baseline.json"
        green = json.loads(memory.read_text()) if memory.exists() else {}
        if not self.make(*(f"tests/{label}/all" for label in labels)):
            sys.exit(f"mutants: {self.log}: the copy does not build")
        for label in labels:
            for name, command, env, skip in self.tests(label):
                what = hashlib.sha256(repr((command, env)).encode() + b"".join(p.read_bytes() for p in map(pathlib.Path, [*command, self.build / "bin/heddle"]) if p.is_file())).hexdigest()
                if green.get(name, [""])[0] == what:
                    self.seconds[name] = green[name][1]
                    continue
                for last in (False, False, True):  # one that times things may fail beside other work
                    start = time.monotonic()
                    if self.call(command, 1200, env) in (0, skip):
                        break
                    if last:
                        sys.exit(f"mutants: {self.log}: {name} fails without a fault")
                self.seconds[name] = time.monotonic() - start
                green[name] = [what, self.seconds[name]]
                memory.write_text(json.dumps(green))

    def objects(self, file):
        return [p for p in self.build.rglob(pathlib.Path(file).name + ".o") if re.sub(r"CMakeFiles/[^/]+\.dir/", "", str(p.relative_to(self.build))) == file + ".o"]

    def digest(self, file):
        return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(self.objects(file)))).hexdigest()

    def verdict(self, fault, clean):
        """found, survived, unbuildable or identical, and by what."""
        source = self.path / fault.file
        text = source.read_text()
        source.write_text(fault.mutated)
        try:
            if not self.make(*(str(p.relative_to(self.build)) for p in self.objects(fault.file))):
                return "unbuildable", ""
            if self.digest(fault.file) == clean:
                return "identical", ""
            for label in STAGES[fault.file.split("/")[0]]:
                tests = self.tests(label)
                # Only what they run: the programs for the simulated GPU take longer to link than these take to fail.
                programs = {"bin/heddle"} | {str(p.relative_to(self.build)) for t in tests for p in map(pathlib.Path, t[1]) if self.build in p.parents}
                if not self.make(*sorted(programs)):
                    return "found", "the build of tests/" + label  # a static_assert elsewhere
                for name, command, env, skip in tests:
                    seconds = 60 + 6 * self.seconds.get(name, 60)
                    code = self.call(command, seconds, env)
                    if code not in (0, skip) and self.call(command, seconds, env) not in (0, skip):  # twice: no chance of other work's making
                        return "found", name + (" (too slow)" if code == 124 else "")
            return "survived", ""
        finally:
            source.write_text(text)


# ---- main ----


def main(arguments=None, make_tree=Tree):
    parser = argparse.ArgumentParser(description="A random fault for every source file of the CPU's side, found by the tests or not.")
    parser.add_argument("--seed", type=int, default=1, help="which faults [%(default)s]")
    parser.add_argument("--files", type=int, default=0, help="at most this many files, drawn at random; 0: all [%(default)s]")
    parser.add_argument("--minutes", type=float, default=0, help="begin no fault after this long; 0: no limit [%(default)s]")
    parser.add_argument("--only", default=".", help="files whose path matches this regular expression [%(default)s]")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT / "build/mutants", help="the scratch copy and its build folder [build/mutants]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="compilers at a time [%(default)s]")
    parser.add_argument("--go-on", action="store_true", help="files that were judged in this tree with this seed are not judged again")
    parser.add_argument("--survivors", action="store_true", help="only what survived in this tree before, again")
    given = parser.parse_args(arguments)
    begin = time.monotonic()
    known = equivalents()
    tree = make_tree(given.tree.resolve(), given.jobs)
    tree.refresh()
    results = tree.path / "build/results.jsonl"
    tree.configure()

    files = sorted(str(p.relative_to(tree.path)) for folder in FOLDERS for p in (tree.path / folder).rglob("*.cpp"))
    files = [f for f in files if re.search(given.only, f)]
    random.Random(given.seed).shuffle(files)
    files = [f for f in files if f not in SIMULATED]
    again = survivors_of(results.read_text()) if given.survivors and results.exists() else []
    if given.survivors:
        files = [f for f in files if any(key[0] == f for key, _ in again)]
    if given.files > 0:
        files = files[: given.files]
    records = [json.loads(line) for line in results.read_text().splitlines()] if given.go_on and results.exists() else []
    judged = list({(*r["key"], r["copy"]): r for r in records if r["seed"] == given.seed and r["key"][0] in files}.values())  # the last word on each
    labels = sorted({label for f in files for label in STAGES[f.split("/")[0]]})
    tree.baseline(labels)
    clean = {f: tree.digest(f) for f in files}
    print(f"{len(files)} files, seed {given.seed}; the tests take {sum(tree.seconds.values()):.0f} s without a fault", flush=True)

    counts = dict.fromkeys(("found", "survived", "unbuildable", "identical", "equivalent"), 0)
    survivors, left = [], 0
    for r in judged:
        counts[r["verdict"]] += 1
    files = [f for f in files if not any(r["key"][0] == f and r["verdict"] in ("found", "survived") for r in judged)]

    def judge(fault):
        if fault.key() in known:
            verdict, by = "equivalent", known[fault.key()]
        else:
            verdict, by = tree.verdict(fault, clean[fault.file])
        counts[verdict] += 1
        with open(results, "a") as out:
            out.write(json.dumps({"key": fault.key(), "copy": fault.copy, "verdict": verdict, "by": by, "seed": given.seed}) + "\n")
        print(f"{verdict:11} {fault.file}:{fault.line}: {fault.before.strip()}  =>  {fault.after.strip()}" + (f"  [{by}]" if by else ""), flush=True)
        if verdict == "survived":
            survivors.append(fault)
        return verdict

    for file in files:
        if given.minutes and time.monotonic() - begin > given.minutes * 60:
            left += 1
            continue
        text = (tree.path / file).read_text()
        places = faults(text)
        if given.survivors:
            there = {(fault.key(), fault.copy): fault for fault in (Fault(file, text, p) for p in places)}
            for key, copy in (k for k in again if k[0][0] == file):
                if (key, copy) in there:
                    judge(there[key, copy])
                else:
                    print(f"gone        {file}: {key[1]}" + (f" (copy {copy + 1})" if copy else ""), flush=True)
            continue
        random.Random(f"{given.seed} {file}").shuffle(places)
        for place in places[:DRAWS]:
            if judge(Fault(file, text, place)) in ("found", "survived"):
                break

    tried = counts["found"] + counts["survived"]
    print(f"\n{counts['found']} of {tried} found ({100 * counts['found'] / max(tried, 1):.1f} %); not counted: {counts['unbuildable']} that do not compile, "
          f"{counts['identical']} that compile to the same object, {counts['equivalent']} explained in equivalents.txt; {left} files not reached")  # fmt: skip
    for r in judged:
        if r["verdict"] == "survived":
            print(f"survived {r['key'][0]} (judged before)\n  line  {r['key'][1]}\n  fault {r['key'][2]}")
    for fault in survivors:
        print(f"survived {fault.file}:{fault.line}\n  line  {fault.before.strip()}\n  fault {fault.after.strip()}")
    return 1 if counts["survived"] > 0.05 * tried else 0


if __name__ == "__main__":
    sys.exit(main())
