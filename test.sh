#!/usr/bin/env bash
# Builds heddle and runs every check: lint, unit tests, end-to-end tests, a little fuzzing, then the kernels, core and data tests under sanitizers.
# On a bare Debian 12 or Ubuntu it first installs what is missing. The last lines are the time of each part and ctest's verdict.
set -uo pipefail
cd "$(dirname "$0")"
. cmake/packages.sh

usage() {
  cat <<'TEXT'
usage: ./test.sh [--no-sanitize] [--keep-going] [--jobs N] [--no-install]
  --no-sanitize leave out the second build, under AddressSanitizer and UndefinedBehaviorSanitizer
  --keep-going  run the remaining parts after one has failed
  --jobs N      parallel compilations (default: all cores); tests run two at a time
  --no-install  never call apt-get
TEXT
}

sanitize=1 keep_going=0 jobs=$(nproc)
while [ $# -gt 0 ]; do
  case $1 in
    --no-sanitize) sanitize=0 ;;
    --keep-going) keep_going=1 ;;
    --no-install) install_packages=0 ;;
    --jobs) [ $# -gt 1 ] || { echo "test.sh: --jobs takes a number" >&2; usage >&2; exit 2; }; jobs=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

# Tests run two at a time, each with its share of the cores; MPI tests start several ranks on them.
tests_at_once=2
cores=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores / tests_at_once > 0 ? cores / tests_at_once : 1))}
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none  # more ranks than cores, none pinned to core 0
if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1                 # containers run as root
  export OMPI_MCA_btl_vader_single_copy_mechanism=none                             # and mostly without ptrace rights
fi

parts=() failed=0
# part BUDGET_MINUTES NAME COMMAND...: runs it, remembers its time; after a failure the rest is skipped unless --keep-going.
part() {
  local budget=$1 name=$2 begin=$SECONDS status=0 verdict=ok
  shift 2
  if [ $failed = 1 ] && [ $keep_going = 0 ]; then
    parts+=("$name|-|$budget|skipped")
    return
  fi
  printf '\n== %s ==\n' "$name"
  "$@" || status=$?
  if [ $status != 0 ]; then
    failed=1 verdict="FAILED ($status)"
  fi
  local seconds=$((SECONDS - begin))
  [ "$verdict" = ok ] && [ $seconds -gt $((budget * 60)) ] && verdict="ok, over budget"
  parts+=("$name|$(printf '%d.%d' $((seconds / 60)) $((seconds % 60 / 6)))|$budget|$verdict")
}

build_cpu() {
  cmake --preset cpu >build/configure.log 2>&1 || { cat build/configure.log; return 1; }
  sed -n '/^-- heddle /,$p' build/configure.log | grep -v -e 'Configuring done' -e 'Generating done' -e 'Build files'
  cmake --build --preset cpu --parallel "$jobs" --target all heddle_headers
}

# Only the verdict of the sanitizer run is printed when it passes, so that the closing lines of the whole suite stay the last of ctest.
asan() {
  cmake --preset asan >build/configure-asan.log 2>&1 || { cat build/configure-asan.log; return 1; }
  cmake --build --preset asan --parallel "$jobs" --target asan_tests || return 1
  export ASAN_OPTIONS=detect_leaks=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1
  if ! ctest --test-dir build/asan -L asan -j $tests_at_once --no-tests=error --output-on-failure >build/asan.log 2>&1; then
    cat build/asan.log
    return 1
  fi
  grep -E '^ *[0-9]+/[0-9]+ Test' build/asan.log
  echo "clean under AddressSanitizer and UndefinedBehaviorSanitizer"
}

tests() {
  ctest --test-dir build/cpu -j $tests_at_once --no-tests=error --output-on-failure | tee build/ctest.log
}

packages() {
  need_packages build/apt.log $heddle_packages $heddle_test_packages || return 1
  need_packages build/apt.log gdb || echo "without gdb the test sim_gdb is skipped"
  need_cuobjdump build/tools || echo "without cuobjdump the tests cuda_sass_* are skipped"
}

mkdir -p build
part 3 "packages" packages
part 1 "lint" cmake -P cmake/lint.cmake  # before the build, since it takes a second; ctest runs it again
part 12 "configure and build" build_cpu
part 6 "tests" tests
part 4 "fuzz" tests/fuzz/run.sh --if-available --runs 600  # the same inputs each time
[ $sanitize = 0 ] || part 8 "sanitizers" asan

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
