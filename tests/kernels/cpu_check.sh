#!/bin/sh
# A program on a CPU that it was not compiled for says so in one line: sh cpu_check.sh QEMU V3_PROGRAM PROGRAM... Exit code 77: no qemu-x86_64 here.
# V3_PROGRAM is compiled for x86-64-v3; each PROGRAM for whatever this build is for: it either runs on an old CPU or says why not.
set -eu
qemu=$1 v3=$2
shift 2
if [ -z "$qemu" ] || ! command -v "$qemu" >/dev/null; then
  echo "skipped: qemu-x86_64 is not installed (apt-get install qemu-user)"
  exit 77
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/heddle-cpu-XXXXXX")
trap 'rm -rf "$work"' EXIT

die() {
  echo "FAILED: $*; it printed:" >&2
  cat "$work/out" "$work/said" >&2
  exit 1
}
# on CPU PROGRAM ARGUMENTS...: runs it there; code, out and said tell what came of it.
on() {
  cpu=$1 code=0
  shift
  "$qemu" -cpu "$cpu" "$@" >"$work/out" 2>"$work/all" || code=$?
  grep -v "^$(basename "$qemu"): warning: TCG" "$work/all" >"$work/said" || true
}
# refused FEATURES MARCH: one line that names these, and nothing else happened.
refused() {
  [ "$code" = 1 ] || die "exit code $code on $cpu, expected 1"
  [ ! -s "$work/out" ] || die "something ran on $cpu before the check"
  [ "$(wc -l <"$work/said")" = 1 ] || die "not one line on $cpu"
  grep -q "^heddle: this program was compiled for CPUs with $1, which this one lacks: build it here, or with -DHEDDLE_MARCH=$2\$" "$work/said" ||
    die "not the expected line on $cpu ($1, $2)"
}

on Nehalem "$v3"
refused "AVX AVX2 FMA F16C BMI BMI2 LZCNT MOVBE" x86-64-v2
on Haswell,-fma,-movbe "$v3"
refused "FMA MOVBE" x86-64-v2
on Haswell,-xsave "$v3"  # the system saves no AVX registers
refused "AVX AVX2 FMA F16C" x86-64-v2
on qemu64 "$v3"
refused ".*SSSE3 .*AVX2 .*" x86-64
on Haswell "$v3"
[ "$code" = 0 ] && grep -q '^ran: 64$' "$work/out" || die "exit code $code on Haswell, which has all of x86-64-v3"

for program in "$@"; do
  on Nehalem "$program" --version
  case $code in
    0) grep -qi version "$work/out" || grep -q '^heddle ' "$work/out" || die "$program ran on Nehalem and printed no version" ;;
    *) refused ".*" x86-64-v2 ;;
  esac
done
