#!/usr/bin/env bash
# Builds the fuzz targets with libFuzzer and runs each on its seeds and on what earlier runs found: half an hour a target at night. The short form of
# the test command makes a fixed number of inputs from the seeds alone, the same ones each time. Prints one line a target; fails when an input breaks a
# rule, and says where that input lies.
set -uo pipefail
cd "$(dirname "$0")/../.."

usage() {
  cat <<'TEXT'
usage: tests/fuzz/run.sh [--if-available] (SECONDS | --runs N) [TARGET...]
  SECONDS         for each target, run one after the other; what it finds differs from run to run
  --runs N        N inputs for the slowest target, for the others as many as take about as long: with one compiler and one corpus always the same
  TARGET          config dataset manifest round_trip safetensors shard tokenizer; default: all
  --if-available  succeed without running when clang or its fuzzer runtime is not installed
HEDDLE_FUZZ_BUILD names the build folder (build/fuzz); HEDDLE_WERROR=ON makes warnings errors. With SECONDS, inputs that reached new code are kept below it and start the next run.
TEXT
}

optional=0 seconds='' runs=''
if [ "${1:-}" = --if-available ]; then
  optional=1
  shift
fi
if [ "${1:-}" = --runs ]; then
  runs=${2:-}
  shift $(($# > 1 ? 2 : 1))
else
  seconds=${1:-}
  [ $# = 0 ] || shift
fi
case $runs$seconds in
  '' | *[!0-9]*) usage >&2; exit 2 ;;
esac
build=${HEDDLE_FUZZ_BUILD:-build/fuzz}
all=(config dataset manifest round_trip safetensors shard tokenizer)
declare -A pace=([config]=1 [dataset]=16 [manifest]=16 [round_trip]=1 [safetensors]=50 [shard]=10 [tokenizer]=4)  # inputs while config takes one
targets=("$@")
[ ${#targets[@]} != 0 ] || targets=("${all[@]}")
for target in "${targets[@]}"; do
  [ -f "tests/fuzz/${target}_fuzz.cpp" ] || { echo "run.sh: no target is called $target; there are: ${all[*]}" >&2; exit 2; }
done

mkdir -p "$build"
# A compiler without the runtime fails when it links.
if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
  clang++ -x c++ -fsanitize=fuzzer,address,undefined - -o "$build/probe" >"$build/probe.log" 2>&1; then
  echo "fuzz: needs clang++ with libFuzzer: apt-get install clang libclang-rt-dev"
  exit $((1 - optional))
fi
cmake --preset fuzz -B "$build" -DHEDDLE_WERROR="${HEDDLE_WERROR:-OFF}" >"$build/configure.log" 2>&1 || { cat "$build/configure.log"; exit 1; }
cmake --build "$build" --parallel "$(nproc)" --target "${targets[@]/#/fuzz_}" >"$build/build.log" 2>&1 || { tail -n 40 "$build/build.log"; exit 1; }

# Freed memory waits in a quarantine, 256 MB of it by default: more than the limit on the whole process.
export ASAN_OPTIONS=quarantine_size_mb=16:detect_leaks=1:strict_string_checks=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1
HEDDLE_TEST_SCRATCH=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/heddle-fuzz-run-XXXXXX")
export HEDDLE_TEST_SCRATCH
trap 'rm -rf "$HEDDLE_TEST_SCRATCH"' EXIT
# Compared addresses steer the fuzzer; where they must not vary, they are fixed, if the machine allows it.
fixed=()
[ -z "$runs" ] || ! setarch -R true 2>/dev/null || fixed=(setarch -R)

# An input may take one second of processor time, which the target itself watches; -timeout counts real time and only catches one that sleeps.
failed=0
mkdir -p "$build/broken"
for target in "${targets[@]}"; do
  log=$build/$target.log seeds=tests/fuzz/corpus/$target
  options=(-rss_limit_mb=256 -timeout=30 -max_len=8192 -print_final_stats=1 -verbosity=1 "-artifact_prefix=$build/broken/$target-")
  [ ! -f "tests/fuzz/dictionaries/$target.txt" ] || options+=("-dict=tests/fuzz/dictionaries/$target.txt")
  if [ -n "$runs" ]; then
    # In the order of their names, not in that of the directory.
    list=$HEDDLE_TEST_SCRATCH/$target.seeds
    printf '%s\n' "$seeds"/* | LC_ALL=C sort | paste -sd, | tr -d '\n' >"$list"
    options+=("-runs=$((runs * pace[$target]))" -seed=1 "-seed_inputs=@$list")
  else
    mkdir -p "$build/kept/$target"
    options+=("-max_total_time=$seconds" "$build/kept/$target" "$seeds")
  fi
  if "${fixed[@]}" "$build/bin/fuzz_$target" "${options[@]}" >"$log" 2>&1; then
    verdict=ok
  else
    verdict=BROKEN failed=1
  fi
  awk -v target="$target" -v verdict="$verdict" '
    /number_of_executed_units/ { runs = $2 } /average_exec_per_sec/ { rate = $2 } /peak_rss_mb/ { rss = $2 }
    /cov: / { for (i = 1; i < NF; ++i) if ($i == "cov:") cov = $(i + 1) }
    END { printf "%-12s %10d inputs %8d a second %5d edges %4d MB  %s\n", target, runs, rate, cov, rss, verdict }' "$log"
  if [ $verdict != ok ]; then
    grep -E -m 3 '^broken: |^==[0-9]+==ERROR|runtime error|^SUMMARY|what\(\):' "$log"
    grep -E -m 1 'Test unit written to' "$log"
    echo "  mend it, then put the input into tests/fuzz/corpus/$target and its verdict into tests/fuzz/expected/$target.txt"
  fi
done
exit $failed
