#!/usr/bin/env bash
# Compiles every source of kernels/cpu and kernels/api for other CPUs by other compilers, with the build's own flags, and counts warnings. Nothing is
# linked or run. One line a target; fails when a source does not compile, with --strict when one is warned about.
set -uo pipefail
cd "$(dirname "$0")/.."

# name|compilers, the first that knows the CPU is taken|-march|package
table=(
  "x86-64-v2|g++|x86-64-v2|g++"
  "x86-64-v3|g++|x86-64-v3|g++"
  "x86-64-v4|g++|x86-64-v4|g++"
  "icelake-server|g++|icelake-server|g++"
  "sapphirerapids|g++|sapphirerapids|g++"
  "znver4|clang++-16 clang++ g++|znver4|clang-16"
  "clang-v2|clang++|x86-64-v2|clang"
  "clang-v4|clang++|x86-64-v4|clang"
  "aarch64|aarch64-linux-gnu-g++|armv8-a|g++-aarch64-linux-gnu"
)

usage() {
  cat <<TEXT
usage: tests/compile_matrix.sh [--strict] [--jobs N] [TARGET...]
  --strict  warnings fail
  --jobs N  parallel compilations (default: all cores)
  TARGET    $(printf '%s ' "${table[@]%%|*}"); default: all
A target whose compiler is not installed is skipped. Logs lie in build/matrix.
TEXT
}

strict=0 jobs=$(nproc) chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --strict) strict=1 ;;
    --jobs) jobs=${2:?}; shift ;;
    -h | --help) usage; exit 0 ;;
    *)
      [[ " ${table[*]%%|*} " == *" $1 "* ]] || { echo "compile_matrix.sh: unknown argument $1" >&2; usage >&2; exit 2; }
      chosen+=("$1")
      ;;
  esac
  shift
done
[ ${#chosen[@]} != 0 ] || chosen=("${table[@]%%|*}")

# The build's command of each source; @CPU stands for the machine.
work=build/matrix
mkdir -p "$work/include"
cmake -S . -B "$work" -G Ninja -DHEDDLE_TESTS=OFF -DHEDDLE_EXAMPLES=OFF -DHEDDLE_MARCH=@CPU >"$work/configure.log" 2>&1 ||
  { cat "$work/configure.log"; exit 1; }
sed -n 's/^ *"command": "\(.*\)",\{0,1\}$/\1/p' "$work/compile_commands.json" | sed 's/\\\(.\)/\1/g' |
  grep -E -- '-c [^ ]*/kernels/(cpu|api)/[a-z0-9_]*\.cpp$' >"$work/commands"
[ "$(wc -l <"$work/commands")" = "$(ls kernels/cpu/*.cpp kernels/api/*.cpp | wc -l)" ] ||
  { echo "compile_matrix.sh: $work/commands does not hold every source of kernels/cpu and kernels/api" >&2; exit 1; }
# For a clang that is installed without its own: g++'s, but for an attribute that clang writes otherwise.
sed 's/__malloc__ *([^)]*)/__malloc__/' "$(g++ -print-file-name=include/omp.h)" >"$work/include/omp.h"
ccache=$(command -v ccache)

# compile TARGET COMPILER MARCH COMMAND: what the compiler says is in TARGET/source.log.
compile() {
  local target=$1 compiler=$2 march=$3 command=$4 name
  name=$(sed 's|.*/kernels/\([^ ]*\)\.cpp$|\1|; s|/|-|' <<<"$command")
  command=${command#* } command=${command/-o * -c/-o $work/$target/$name.o -c}
  if [ "$target" = aarch64 ]; then  # with neither the checks of x86-64 nor the libraries of this machine
    command=$(sed 's/ -march=x86-64 -mtune=[^ ]*//; s/HEDDLE_HAVE_ONEDNN=1/HEDDLE_HAVE_ONEDNN=0/' <<<"$command")
  fi
  case $compiler in
    clang*) echo '#include <omp.h>' | "$compiler" -fopenmp -x c++ -fsyntax-only - 2>/dev/null || command="-isystem $work/include $command" ;;
  esac
  eval "$ccache $compiler ${command/@CPU/$march}" >"$work/$target/$name.log" 2>&1 || echo "$name" >>"$work/$target/failed"
}
export -f compile
export work ccache

# knows COMPILER MARCH
knows() { command -v "$1" >/dev/null && "$1" -march="$2" -x c++ -fsyntax-only /dev/null 2>/dev/null; }

rows=() failed=0
for row in "${table[@]}"; do
  IFS='|' read -r target compilers march package <<<"$row"
  [[ " ${chosen[*]} " == *" $target "* ]] || continue
  compiler=''
  for candidate in $compilers; do
    [ -n "$compiler" ] || ! knows "$candidate" "$march" || compiler=$candidate
  done
  if [ -z "$compiler" ]; then
    rows+=("$target|-|-|-|skipped: needs $package")
    continue
  fi
  rm -rf "${work:?}/$target"
  mkdir -p "$work/$target"
  tr '\n' '\0' <"$work/commands" | xargs -0 -P "$jobs" -I{} bash -c 'compile "$@"' - "$target" "$compiler" "$march" {}
  warnings=$(cat "$work/$target"/*.log | grep -c 'warning:')
  broken=$( [ ! -f "$work/$target/failed" ] || wc -l <"$work/$target/failed")
  verdict=ok
  if [ -n "$broken" ]; then
    verdict="FAILED: $broken do not compile" failed=1
  elif [ "$warnings" != 0 ] && [ $strict = 1 ]; then
    verdict="FAILED: warnings" failed=1
  fi
  [ "$verdict" = ok ] || grep -h -m 3 -E 'warning:|error:' "$work/$target"/*.log | head -n 8
  rows+=("$target|$compiler $("$compiler" -dumpfullversion -dumpversion)|$(ls "$work/$target"/*.log | wc -l)|$warnings|$verdict")
done

printf '%-16s %-30s %8s %9s  %s\n' target compiler sources warnings verdict
for row in "${rows[@]}"; do
  IFS='|' read -r target compiler sources warnings verdict <<<"$row"
  printf '%-16s %-30s %8s %9s  %s\n' "$target" "$compiler" "$sources" "$warnings" "$verdict"
done
exit $failed
