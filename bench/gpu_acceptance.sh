#!/usr/bin/env bash
# Does heddle's CUDA code do on this GPU what it does on the simulated machine? Run once on every new kind of card, before anything is timed.
#
# Needs no network: nvcc, a C++20 compiler and Catch2's header (in HEDDLE_DEPS_DIR or the system's include folder).
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

usage() {
  cat <<'TEXT'
usage: bench/gpu_acceptance.sh [--simulated] [--budget SECONDS] [--only STAGE] [--work DIR] [--results DIR] [--write-golden] [--plant fragment-map]
                               [--fresh] [--program FILE] [--check-program FILE]
Stages, each at most --budget seconds (540); run again, the script goes on where it stopped:
  build        sm_90a, warnings are errors
  conformance  single instructions against bench/gpu/golden/*.txt, and the maps of kernels/arch/fragments.h
  proving      whole kernels against float64
  memcheck racecheck synccheck initcheck
               the same kernels under compute-sanitizer; the simulated machine has its check flavour instead, as the stage `check`
Finished stages are not repeated unless the sources change. Results: a table, and bench/results/<card>.json. Exit code 0: all passed; 1: something
differs; 3: out of time, run again.
  --simulated           on the simulated machine: no GPU, no nvcc
  --only STAGE          this stage
  --work DIR            objects, logs and cases (build/acceptance-gpu or build/acceptance-simulated)
  --write-golden        make golden/<card>.txt anew; a card without one gets it in any case
  --plant fragment-map  a wrong map of accumulators: conformance must fail
  --fresh               forget earlier results
  --program FILE        an acceptance program that is already built; --check-program: in the check flavour
TEXT
}

simulated=0 budget=540 only= work= results=$root/bench/results program= check_program= write_golden=0 plant= fresh=0
while [ $# -gt 0 ]; do
  case $1 in
    --simulated) simulated=1 ;;
    --budget) budget=${2:?}; shift ;;
    --only) only=${2:?}; shift ;;
    --work) work=${2:?}; shift ;;
    --results) results=${2:?}; shift ;;
    --program) program=${2:?}; shift ;;
    --check-program) check_program=${2:?}; shift ;;
    --plant) plant=${2:?}; shift ;;
    --write-golden) write_golden=1 ;;
    --fresh) fresh=1 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu_acceptance.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
if [ $simulated = 1 ]; then
  stages=(build conformance proving check) card=simulated
else
  stages=(build conformance proving memcheck racecheck synccheck initcheck)
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
fi
if [ -n "$only" ] && [[ " ${stages[*]} " != *" $only "* ]]; then
  echo "gpu_acceptance.sh: no stage $only; there are ${stages[*]}" >&2
  exit 2
fi
if [ -z "$card" ] && [ "$only" != build ]; then
  echo "gpu_acceptance.sh: nvidia-smi names no GPU; --simulated needs none, --only build neither" >&2
  exit 69
fi
card=${card:-none}
work=${work:-$root/build/acceptance-$([ $simulated = 1 ] && echo simulated || echo gpu)}
[ $fresh = 0 ] || rm -rf "$work"
mkdir -p "$work" "$results"
work=$(cd "$work" && pwd)

# What the results depend on: when it changes, earlier ones are dropped.
digest=$(cd "$root" && find kernels/api kernels/arch kernels/cuda $([ $simulated = 1 ] && echo kernels/sim) tests/oracles tests/support tests/sim bench/gpu \
  -name '*.[ch]*' -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum | cut -c1-16)
if [ "$(cat "$work/digest" 2>/dev/null)" != "$digest" ]; then
  rm -f "$work"/*.done "$work"/*.cases "$work"/*.verdict "$work"/*.o "$work"/record
  echo "$digest" >"$work/digest"
fi
acceptance=${program:-$work/acceptance}

# ---- build ----
sources="tests/sim/proving_kernels.cu tests/sim/ptx_wgmma_kernels.cu tests/sim/ptx_warp_kernels.cu tests/sim/ptx_memory_kernels.cu
  tests/sim/ptx_barrier_kernels.cu tests/sim/ptx_tma_kernels.cu bench/gpu/conformance_memory.cu bench/gpu/conformance_tma.cu
  bench/gpu/conformance_warp.cu bench/gpu/conformance_wgmma.cu kernels/cuda/tensor_map.cpp kernels/api/check.cpp
  kernels/api/types.cpp tests/sim/proving_cases.cpp tests/sim/proving_checks.cpp bench/gpu/golden.cpp bench/gpu/acceptance.cpp"
compile_one() {  # SOURCE: an object that is there was made from these very sources
  local object=$work/$(basename "$1").o
  [ ! -e "$object" ] || return 0
  local includes=(-I"$root")
  [ -z "${HEDDLE_DEPS_DIR:-}" ] || includes+=(-I"$HEDDLE_DEPS_DIR" -I"$HEDDLE_DEPS_DIR/include")
  local flags=(-std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -gencode=arch=compute_90a,code=sm_90a)
  [ "${HEDDLE_WERROR:-OFF}" = OFF ] || flags+=(-Werror all-warnings)
  case $1 in
    *.cu) ;;
    *) flags=(-std=c++20 -O2 -x c++) ;;
  esac
  echo "$1"
  "$NVCC" "${flags[@]}" "${includes[@]}" -c "$root/$1" -o "$object.new" && mv "$object.new" "$object"
}
build() {
  if [ -n "$program" ]; then
    [ -x "$program" ]
  elif [ $simulated = 1 ]; then
    cmake -S "$root" -B "$work/cmake" -DHEDDLE_TESTS=ON ${HEDDLE_DEPS_DIR:+-DHEDDLE_DEPS_DIR="$HEDDLE_DEPS_DIR"} &&
      timeout -k 5 "$budget" cmake --build "$work/cmake" --parallel "$(nproc)" --target acceptance_plain acceptance_check &&
      ln -sf "$work/cmake/bin/acceptance_plain" "$acceptance" && ln -sf "$work/cmake/bin/acceptance_check" "$acceptance-check"
  else
    export NVCC=${NVCC:-nvcc} work root
    export -f compile_one
    # shellcheck disable=SC2086
    printf '%s\n' $sources | timeout -k 5 "$budget" xargs -P "$(nproc)" -I{} bash -c 'compile_one {}' &&
      "$NVCC" -arch=sm_90a "$work"/*.o -o "$acceptance"
  fi
}

# ---- cases ----
# until_done COMMAND...: again after a case that spoiled or ended the process, as long as that leaves one case more behind.
until_done() {
  local status=0 before=-1 lines
  while :; do
    lines=$([ ! -e "$cases" ] || wc -l <"$cases")
    [ "$lines" != "$before" ] || return 1
    before=$lines status=0
    "$@" || status=$?
    case $status in
      0 | 1 | 2 | 4) return $status ;;
    esac
  done
}
watch=()
[ $simulated = 1 ] || watch=(--case-seconds 120)  # a kernel that hangs
conformance() {
  local cases=$work/conformance.cases options=() file
  for file in "$root"/bench/gpu/golden/*.txt; do
    # A card answers for itself and to the simulated machine; the simulated machine answers to every card.
    [ -e "$file" ] && { [ $simulated = 1 ] || [[ $file == */simulated.txt || $file == */$card.txt ]]; } || continue
    [ $write_golden = 1 ] && [[ $file == */$card.txt ]] || options+=(--golden "$file")
  done
  [ -z "$plant" ] || options+=(--plant "$plant")
  local status=0
  until_done "$acceptance" conformance "$cases" --record "$work/record" --budget "$budget" "${watch[@]}" "${options[@]}" || status=$?
  if [ $status != 4 ] && { [ $write_golden = 1 ] || [ ! -e "$root/bench/gpu/golden/$card.txt" ]; }; then
    { echo "# $card: what the conformance cases gave; the format is in bench/gpu/golden.h"; cat "$work/record"; } >"$root/bench/gpu/golden/$card.txt"
    echo "wrote bench/gpu/golden/$card.txt"
  fi
  return $status
}
proving() {
  local cases=$work/proving.cases
  until_done "$acceptance" proving "$cases" --budget "$budget" "${watch[@]}"
}
# under NAME PROGRAM OPTIONS -- WRAPPER...: every proving case in a process of its own, so that a finding belongs to a case and is not lost when time runs out.
under() {
  local tool=$1 program=$2 few=$3 name status begin=$SECONDS failed=0
  shift 4
  local cases=$work/$tool.cases
  touch "$cases"
  while read -r name; do
    if ! grep -qxF "ok $name" "$cases" && ! grep -qF "FAIL $name:" "$cases"; then
      [ $((SECONDS - begin)) -lt "$budget" ] || return 4
      rm -f "$work/one.cases"
      status=0
      timeout -k 5 900 "$@" "$program" proving "$work/one.cases" --case "$name" $few >"$work/one.log" 2>&1 </dev/null || status=$?
      if [ $status = 0 ]; then
        echo "ok $name" >>"$cases"
      else
        echo "FAIL $name: exit code $status, $(grep -m 1 -E 'ERROR|Error|error|FAIL|RACE' "$work/one.log" || tail -n 1 "$work/one.log")" | tee -a "$cases"
        cat "$work/one.log"
      fi
    fi
    ! grep -qF "FAIL $name:" "$cases" || failed=1
  done < <("$program" list proving $few)
  return $failed
}
sanitize() {  # TOOL
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer here"; return 77; }
  local options=()
  [ "$1" != memcheck ] || options=(--leak-check full)
  under "$1" "$acceptance" "" -- compute-sanitizer --tool "$1" --error-exitcode 9 "${options[@]}"
}
check() {
  local checked=${check_program:-$acceptance-check}
  [ -x "$checked" ] || { echo "no program in the check flavour; name it by --check-program"; return 77; }
  under check "$checked" --short -- env
}

# ---- stages ----
# Nothing goes on after a failed build or at the end of the time; what differs in one stage does not stop the next.
failed=0 stop=0
stage() {  # NAME COMMAND...
  local name=$1 status=0 begin=$SECONDS
  shift
  if { [ -n "$only" ] && [ "$only" != "$name" ]; } || [ -e "$work/$name.done" ] || [ $stop = 1 ]; then return; fi
  ("$@") >"$work/$name.log" 2>&1 || status=$?
  local verdict=FAILED earlier=0
  case $status in
    0) verdict=ok ;;
    4 | 124 | 137) verdict=late ;;
    77) verdict=absent ;;
  esac
  [ ! -e "$work/$name.verdict" ] || read -r earlier _ <"$work/$name.verdict"
  echo "$((earlier + SECONDS - begin)) $verdict" >"$work/$name.verdict"
  printf '%-12s %-8s %5d s\n' "$name" "$verdict" $((SECONDS - begin))
  case $verdict in
    ok | absent) touch "$work/$name.done" ;;
    late) failed=3 stop=1; echo "out of time: run again" ;;
    FAILED) failed=1; [ "$name" != build ] || stop=1; tail -n 15 "$work/$name.log" | cut -c1-600; echo "all of it: $work/$name.log" ;;
  esac
}
for name in "${stages[@]}"; do
  case $name in
    build | conformance | proving | check) stage "$name" "$name" ;;
    *) stage "$name" sanitize "$name" ;;
  esac
done

# ---- the report ----
count() { grep -c "^$2 " "$work/$1.cases" 2>/dev/null || true; }
verdict_of() { cat "$work/$1.verdict" 2>/dev/null || echo "0 missing"; }
version_of() { "$@" 2>/dev/null | tail -n 1 | tr -d '"\\' ; }
{
  printf '{\n  "card": "%s",\n  "driver": "%s",\n  "compiler": "%s",\n  "sources": "%s",\n  "stages": {' "$card" \
    "$([ $simulated = 1 ] || version_of nvidia-smi --query-gpu=driver_version --format=csv,noheader)" \
    "$([ $simulated = 1 ] || version_of "${NVCC:-nvcc}" --version)" "$digest"
  separator=
  for name in "${stages[@]}"; do
    read -r seconds verdict <<<"$(verdict_of "$name")"
    printf '%s\n    "%s": {"verdict": "%s", "seconds": %d, "ok": %d, "failed": %d}' "$separator" "$name" "$verdict" "$seconds" \
      "$(count "$name" ok)" "$(count "$name" FAIL)"
    separator=,
  done
  printf '\n  }\n}\n'
} >"$results/$card.json"
printf '\n%-12s %-8s %6s %6s %8s\n' "$card" verdict ok failed seconds
for name in "${stages[@]}"; do
  read -r seconds verdict <<<"$(verdict_of "$name")"
  printf '%-12s %-8s %6d %6d %8d\n' "$name" "$verdict" "$(count "$name" ok)" "$(count "$name" FAIL)" "$seconds"
done
exit $failed
