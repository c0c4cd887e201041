#!/usr/bin/env bash
# Builds heddle and runs its checks. On a bare Debian 12 or Ubuntu it first installs what is missing; a part whose optional package cannot be had is
# skipped with a line. The last lines are the time of each part and ctest's verdict.
set -uo pipefail
cd "$(dirname "$0")"
. cmake/packages.sh

usage() {
  cat <<'TEXT'
usage: ./test.sh [--area NAME | --full] [--strict] [--keep-going] [--jobs N] [--no-install]
  (nothing)     lint, build, all tests, a tenth of the faults of the CUDA kernels, the program built by clang, the CPU kernels compiled for two other CPUs
  --full        also the program for GPUs by nvcc, the kernels, core and data tests under AddressSanitizer and UndefinedBehaviorSanitizer, and a little
                fuzzing
  --area NAME   only what tests/NAME tests: builds it and runs it (core, kernels, sim, train, ...)
  --strict      warnings are errors; builds in folders of its own, so that neither form makes the other build anew
  --keep-going  run the remaining parts after one has failed
  --jobs N      parallel compilations (default: all cores); tests run two at a time
  --no-install  never call apt-get
TEXT
}

full=0 area='' strict='' keep_going=0 jobs=$(nproc)
while [ $# -gt 0 ]; do
  case $1 in
    --full) full=1 ;;
    --area) [ $# -gt 1 ] && [ -e "tests/$2/CMakeLists.txt" ] || { echo "test.sh: --area takes a folder of tests/" >&2; usage >&2; exit 2; }; area=$2; shift ;;
    --strict) strict=-strict ;;
    --keep-going) keep_going=1 ;;
    --no-install) install_packages=0 ;;
    --jobs) [ $# -gt 1 ] || { echo "test.sh: --jobs takes a number" >&2; usage >&2; exit 2; }; jobs=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
werror=$([ -n "$strict" ] && echo ON || echo OFF)

. tests/environment.sh

parts=() failed=0
# part BUDGET_MINUTES NAME COMMAND...: runs it, remembers its time; exit code 77: skipped. After a failure the rest is left out unless --keep-going.
part() {
  local budget=$1 name=$2 begin=$SECONDS status=0 verdict=ok
  shift 2
  if [ $failed = 1 ] && [ $keep_going = 0 ]; then
    parts+=("$name|-|$budget|not run")
    return
  fi
  printf '\n== %s ==\n' "$name"
  "$@" || status=$?
  case $status in
    0) ;;
    77) verdict=skipped ;;
    *) failed=1 verdict="FAILED ($status)" ;;
  esac
  local seconds=$((SECONDS - begin))
  [ "$verdict" = ok ] && [ $seconds -gt $((budget * 60)) ] && verdict="ok, over budget"
  parts+=("$name|$(printf '%d.%d' $((seconds / 60)) $((seconds % 60 / 6)))|$budget|$verdict")
}

packages() {
  need_packages build/apt.log $heddle_packages || return 1
  local optional=("gdb|the test sim_gdb" "qemu-user|the test cpu_check" "clang|the program by clang" "libomp-dev|the program by clang"
                  "g++-aarch64-linux-gnu|the kernels for aarch64")
  [ $full = 0 ] || optional+=("libclang-rt-dev|fuzzing")
  optional_packages build/apt.log "${optional[@]}"
  need_cuobjdump build/tools || echo "without cuobjdump the tests cuda_sass_* are skipped"
}

# configure FOLDER OPTIONS...: quiet unless it fails.
configure() {
  local folder=$1
  shift
  cmake "$@" -B "$folder" >"$folder.log" 2>&1 || { cat "$folder.log"; return 1; }
}

cpu=build/cpu$strict
build() {
  configure "$cpu" --preset cpu -DHEDDLE_WERROR=$werror || return 1
  sed -n '/^-- heddle /,$p' "$cpu.log" | grep -v -e 'Configuring done' -e 'Generating done' -e 'Build files'
  if [ -n "$area" ]; then
    cmake --build "$cpu" --parallel "$jobs" --target "tests/$area/all"
  else
    cmake --build "$cpu" --parallel "$jobs" --target all heddle_headers
  fi
}

tests() {
  ctest --test-dir "$cpu" ${area:+-L "^$area$"} -j $tests_at_once --no-tests=error --output-on-failure | tee build/ctest.log
}

# The same tenth each time; tests/nightly.sh has them all, and the checker's flavour.
faults() {
  command -v python3 >/dev/null || { echo "skipped: python3 is not here"; return 77; }
  python3 -B tests/mutants/cuda_mutants.py --build "$cpu" --kind source --flavour plain --share 10
}

has_clang() {
  echo '#include <omp.h>
        int main() { return omp_get_max_threads() < 1; }' | clang++ -fopenmp -x c++ - -o build/clang-probe >build/clang-probe.log 2>&1
}
has_nvcc() { PATH=$PATH:/usr/local/cuda/bin command -v nvcc >/dev/null; }

clang() {
  has_clang || { echo "skipped: no clang++ with OpenMP here (apt-get install clang libomp-dev)"; return 77; }
  configure build/clang$strict --preset clang -DHEDDLE_WERROR=$werror || return 1
  cmake --build build/clang$strict --parallel "$jobs" --target heddle_program && build/clang$strict/bin/heddle --version
}

# The CUDA sources by nvcc, all else by clang++ where it is installed: one build shows both. Without a GPU the program must say so, and end with 69.
gpu() {
  local compilers=() status=0
  has_clang && compilers=(-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++)
  configure build/cuda$strict --preset cuda "${compilers[@]}" -DHEDDLE_WERROR=$werror && cmake --build build/cuda$strict --parallel "$jobs" || return 1
  build/cuda$strict/bin/heddle --version
  build/cuda$strict/bin/heddle bench ops --device cuda >build/gpu.log 2>&1 || status=$?
  [ -e /dev/nvidia0 ] || { cat build/gpu.log; [ $status = 69 ]; }
}

# The two that differ most; tests/nightly.sh has them all.
other_cpus() {
  tests/compile_matrix.sh ${strict:+--strict} --jobs "$jobs" x86-64-v4 aarch64
}

# g++ 12 warns wrongly about instrumented code, so warnings stay warnings here. Only the verdict is printed when all passes.
asan() {
  configure build/asan --preset asan && cmake --build build/asan --parallel "$jobs" --target asan_tests || return 1
  export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
  if ! ctest --test-dir build/asan -L asan -j $tests_at_once --no-tests=error --output-on-failure >build/asan-tests.log 2>&1; then
    cat build/asan-tests.log
    return 1
  fi
  grep -E '^ *[0-9]+/[0-9]+ Test' build/asan-tests.log
  echo "clean under AddressSanitizer and UndefinedBehaviorSanitizer"
}

fuzz() {
  HEDDLE_FUZZ_BUILD=build/fuzz$strict HEDDLE_WERROR=$werror tests/fuzz/run.sh --if-available --runs 600  # the same inputs each time
}

mkdir -p build
part 3 "packages" packages
part 1 "lint" cmake -P cmake/lint.cmake  # before the build, since it takes a second; ctest runs it again
part 12 "configure and build" build
part 6 "tests" tests
if [ -z "$area" ]; then
  part 4 "faults" faults
  if [ $full = 1 ] && has_nvcc; then part 6 "by clang, for GPUs" gpu; else part 3 "program by clang" clang; fi
  part 2 "other CPUs" other_cpus
fi
if [ $full = 1 ] && [ -z "$area" ]; then
  part 4 "fuzz" fuzz
  part 8 "sanitizers" asan
fi

printf '\n%-22s %8s %8s  %s\n' part minutes budget result
for row in "${parts[@]}"; do
  IFS='|' read -r name minutes budget verdict <<<"$row"
  printf '%-22s %8s %8s  %s\n' "$name" "$minutes" "$budget" "$verdict"
done
if [ $failed = 1 ]; then
  echo "test.sh: FAILED"
  exit 1
fi
grep 'tests passed' build/ctest.log
