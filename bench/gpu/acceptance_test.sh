#!/usr/bin/env bash
# acceptance_test.sh SCENARIO WORK PROGRAM CHECK_PROGRAM HEDDLE: bench/gpu_acceptance.sh end to end on the simulated machine. HEDDLE may be empty.
set -uo pipefail
scenario=$1 work=$2 program=$3 check_program=$4 heddle=$5
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$work/$scenario
rm -rf "$work"
mkdir -p "$work"

fail() { echo "FAILED: $*"; exit 1; }
# accept EXPECTED_EXIT_CODE ARGUMENTS...: everything it prints is in $said.
accept() {
  local expected=$1 status=0
  shift
  said=$("$root/bench/gpu_acceptance.sh" "$@" --simulated --program "$program" --check-program "$check_program" --heddle "${heddle:-$work/none}" \
    --work "$work/build" 2>&1) || status=$?
  echo "$said"
  [ $status = "$expected" ] || fail "$* ended with $status, not $expected"
}
has() { grep -qE -- "$2" "$1" || { cat "$1"; fail "$1 holds no $2"; }; }
says() { grep -qE -- "$1" <<<"$said" || fail "it does not say $1"; }
lacks() { ! grep -qE -- "$2" "$1" || fail "$1 holds $2"; }

case $scenario in
  whole)  # both commands, cut off and continued elsewhere
    accept 3 A --out "$work/cut" --only proving --seconds 4 --case-seconds 60 --plant hang  # until the time is up
    says 'proving +late'
    first=$(sed -n 's/^proving ok //p' "$work/cut/cases.txt" | head -n 1)
    [ -n "$first" ] || fail "nothing was proven before the cut"
    accept 0 A --out "$work/out" --resume "$work/cut"
    for stage in short conformance proving production; do says "$stage +ok"; done
    [ "$(grep -cxF "proving begun $first" "$work/out/cases.txt")" = 1 ] || fail "a case ran again"
    accept 0 B --out "$work/out"
    for stage in repeats memcheck; do says "$stage +ok"; done
    [ ! -x "$heddle" ] || { says 'nccl +ok'; has "$work/out/log.txt" '^abort '; has "$work/out/log.txt" 'ranks 0 and 1 use the same GPU|no mpirun'; }
    [ ! -x "$heddle" ] || { says 'step +ok'; has "$work/out/step.txt" '"tokens_per_s"'; has "$work/out/step.txt" 'as graphs:'; has "$work/out/report.txt" 'attention forward'; }
    has "$work/out/production.tsv" '^matmul wgmma_sm90 weight_gradient '
    has "$work/out/report.json" '"production": \{"verdict": "ok"'
    cmp <(grep -v '^#' "$work/out/golden.txt") <(grep -v '^#' "$root/bench/gpu/golden/simulated.txt") || fail "another golden file"
    [ "$(find "$work/out" -type f | wc -l)" -le 8 ] || fail "more than eight files come back"
    # Results of another program are not taken over.
    sed -i '1s/program .*/program of yesterday/' "$work/out/cases.txt"
    accept 0 A --only short --resume "$work/out" --out "$work/other"
    says 'left out'
    lacks "$work/other/cases.txt" '^production '
    ;;
  planted)  # a fault in each stage is found and named, and does not stop the rest
    accept 1 A --out "$work/map" --only conformance --plant fragment-map
    has "$work/map/report.txt" '^conformance FAIL fragment_maps: mma_m16n8k16 thread 0 register 0'
    has "$work/map/report.txt" '^conformance +FAILED +159 +1 '
    accept 1 A --out "$work/hang" --only proving --match norm_forward --case-seconds 2 --plant hang
    has "$work/hang/report.txt" '^proving FAIL norm_forward layer \(9, 64\), 1 blocks: did not end: it hung'
    has "$work/hang/report.txt" '^proving +FAILED +9 +1 '
    accept 1 A --out "$work/tile" --only production --match matmul --plant wrong-tile
    has "$work/tile/report.txt" '^production FAIL matmul wgmma_sm90 forward [0-9x ]*: wrong: [0-9]+ of [0-9]+ elements of c looked at .* got 0, want'
    has "$work/tile/report.txt" '^production +FAILED +[0-9]+ +1 '
    accept 1 A --out "$work/unsteady" --only production --match norm_forward --plant unsteady
    has "$work/unsteady/report.txt" '^production FAIL norm_forward .*not the same bits: repeat 3 of 5 differs in y'
    accept 1 A --out "$work/slow" --only production --match dropout --plant slow
    has "$work/slow/report.txt" '^production FAIL dropout .*: slow: [0-9.e+]+ us, [0-9.e+]+ times the reference'
    accept 1 B --out "$work/repeats" --only repeats --match norm_forward --plant unsteady
    has "$work/repeats/report.txt" '^repeats FAIL norm_forward .*not the same bits'
    # A barrier left out of a kernel, by the simulated machine itself.
    HEDDLE_SIM_MUTATE_LIST=$work/mutations "$check_program" proving "$work/list.cases" --short --match norm_forward >/dev/null || fail "no list of barriers"
    HEDDLE_SIM_MUTATE=$(grep ':drop$' "$work/mutations" | head -n 1) accept 1 B --out "$work/memcheck" --only memcheck --match norm_forward
    has "$work/memcheck/report.txt" '^memcheck FAIL norm_forward .*(race|uninitialised)'
    printf '#!/bin/sh\necho "[matmul] no kernel on cuda takes these arguments" >&2; exit 1\n' >"$work/heddle" && chmod +x "$work/heddle"
    heddle=$work/heddle
    accept 1 B --out "$work/step" --only step
    says 'step +FAILED'
    has "$work/step/report.txt" '^step FAIL: \[matmul\] no kernel'
    # NCCL: wrong numbers, no end, no abort, two ranks that share the card; a build and a machine without it are none.
    nccl() { printf '#!/bin/sh\n%s\n' "$2" >"$work/heddle"; rm -rf "$work/nccl"; accept "$1" B --out "$work/nccl" --only nccl --case-seconds 2; }
    nccl 1 'echo "heddle: [bench] all_reduce of 4.00 KiB: wrong on rank 0 at element 7: ERROR" >&2; exit 1'
    has "$work/nccl/report.txt" '^nccl FAIL: heddle: \[bench\] all_reduce'
    nccl 1 'exec sleep 60'
    has "$work/nccl/report.txt" '^nccl FAIL: it did not end within 2 s'
    nccl 1 'echo "1 rank on cuda:0, nccl: the slowest"'
    has "$work/nccl/report.txt" '^nccl FAIL: it does not say that it aborted'
    printf '#!/bin/sh\nwhile [ "$1" != bench ]; do program=$1; shift; done; exec "$program" "$@"\n' >"$work/mpirun" && chmod +x "$work/mpirun"
    HEDDLE_MPIRUN=$work/mpirun nccl 1 'echo "1 rank on cuda:0, nccl: the slowest"; echo "abort 1"'
    has "$work/nccl/report.txt" '^nccl FAIL: two ranks on one card were not refused as such, but ended with 0'
    nccl 0 'echo "1 rank on cuda:0, local: the slowest"'
    says 'nccl +absent .*built without NCCL'
    nccl 0 'echo "heddle: error while loading shared libraries: libnccl.so.2: cannot open shared object file" >&2; exit 127'
    says 'nccl +absent .*no libnccl: .*libnccl.so.2'
    ;;
  tools)  # programs that a machine has or lacks, in place of which scripts stand
    stub() { printf '#!/bin/sh\n%s\n' "$2" >"$work/$1" && chmod +x "$work/$1"; }
    # A sanitizer that works: runs what follows its options, and sums up.
    stub sanitizer 'shift 4; "$@"; status=$?; echo "========= ERROR SUMMARY: 0 errors"; exit $status'
    HEDDLE_COMPUTE_SANITIZER=$work/sanitizer accept 0 B --out "$work/memcheck" --only memcheck
    says 'memcheck +ok'
    stub sanitizer 'shift 4; "$@"; echo "========= Invalid __global__ write of size 4"; echo "========= ERROR SUMMARY: 1 error"; exit 9'
    HEDDLE_COMPUTE_SANITIZER=$work/sanitizer accept 1 B --out "$work/found" --only memcheck
    has "$work/found/report.txt" '^memcheck FAIL: =* Invalid __global__ write'
    stub sanitizer 'echo "========= Error: device not supported"; exit 1'
    HEDDLE_COMPUTE_SANITIZER=$work/sanitizer accept 0 B --out "$work/refused" --only memcheck
    says 'memcheck +absent .*device not supported'
    lacks "$work/refused/cases.txt" FAIL
    # A profiler: of the kernels that take longest, one a candidate.
    accept 0 A --out "$work/timed" --only production --match forward
    stub ncu.sh 'while [ "$1" != profile ]; do shift; done; echo "==PROF== Connected"; echo "profiled $2"'
    HEDDLE_NCU=$work/ncu.sh accept 0 B --out "$work/timed" --only ncu
    has "$work/timed/ncu.txt" '^profiled (matmul|attention_forward) '
    [ "$(grep -c '^== ' "$work/timed/ncu.txt")" -ge 3 ] || fail "ncu saw fewer than three kernels"
    stub ncu.sh 'echo "==ERROR== ERR_NVGPUCTRPERM"; exit 1'
    sed -i '/^stage ncu /d' "$work/timed/cases.txt"
    HEDDLE_NCU=$work/ncu.sh accept 0 B --out "$work/timed" --only ncu
    says 'ncu +absent .*ERR_NVGPUCTRPERM'
    # torch beside our kernels.
    if command -v python3 >/dev/null; then
      mkdir "$work/python"
      cat >"$work/python/torch.py" <<'PY'
import types

__version__ = "of this test"
bfloat16 = float32 = uint8 = None


class Tensor:
    dtype = None

    def __add__(self, other):
        return self

    def t(self):
        return self

    def zero_(self):
        return self

    def repeat_interleave(self, times, axis):
        return self


class Event:
    def __init__(self, enable_timing):
        pass

    def record(self):
        pass

    def elapsed_time(self, end):
        return 0.25


def randn(*shape, **rest):
    return Tensor()


empty = randn_like = matmul = randn
cuda = types.SimpleNamespace(is_available=lambda: True, Event=Event, synchronize=lambda: None)
nn = types.SimpleNamespace(functional=types.SimpleNamespace(layer_norm=randn, rms_norm=randn, scaled_dot_product_attention=randn))
PY
      PYTHONPATH=$work/python PYTHONDONTWRITEBYTECODE=1 accept 0 A --out "$work/timed" --only torch --match forward
      says 'torch +ok'
      has "$work/timed/production.tsv" '^torch	norm_forward [a-z_]+ rms .*	250$'
    fi
    ;;
  *) fail "no scenario $scenario" ;;
esac
echo "ok"
