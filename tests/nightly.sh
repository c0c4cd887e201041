#!/usr/bin/env bash
# The long forms of the tests: what a night can afford and a commit cannot. Some sixteen hours on two cores, six of them training on the simulated GPU, more than
# three fuzzing.
set -uo pipefail
cd "$(dirname "$0")/.."
. cmake/packages.sh
. tests/environment.sh

parts=(tests clang compile-matrix kills supervised-kills ranks mpich slurm random-flags power-loss simulated-gcc simulated-clang simulated-ucontext simulated-own-headers gpu-build gpu-quickstart fuzz stall mutants cuda-mutants equivalence)
usage() {
  cat <<TEXT
usage: tests/nightly.sh [--kills N] [--flag-sets N] [--power-loss-states N] [--fuzz-seconds N] [--mutants-seed N] [PART...]
  --kills N              SIGKILLs of one run (466: the interruptions of a 54-day run of 405B parameters)
  --flag-sets N          random command lines, stopped and started again (2000)
  --power-loss-states N  states of the disk after a power loss (20000)
  --fuzz-seconds N       for each fuzz target (1800)
  --mutants-seed N       which faults are planted (the day of the year)
  PART                   ${parts[*]}; default: all, in this order
Every part runs whatever the ones before it gave; the last lines are their verdicts. Logs lie in build/nightly.
TEXT
}

kills=466 flag_sets=2000 states=20000 fuzz_seconds=1800 mutants_seed=$(date +%-j) chosen=()
while [ $# -gt 0 ]; do
  case $1 in
    --kills) kills=${2:?}; shift ;;
    --flag-sets) flag_sets=${2:?}; shift ;;
    --power-loss-states) states=${2:?}; shift ;;
    --fuzz-seconds) fuzz_seconds=${2:?}; shift ;;
    --mutants-seed) mutants_seed=${2:?}; shift ;;
    -h | --help) usage; exit 0 ;;
    *)
      [[ " ${parts[*]} " == *" $1 "* ]] || { echo "nightly.sh: unknown argument $1" >&2; usage >&2; exit 2; }
      chosen+=("$1")
      ;;
  esac
  shift
done
[ ${#chosen[@]} != 0 ] || chosen=("${parts[@]}")

logs=build/nightly
mkdir -p "$logs"
rows=() failed=0
# part NAME COMMAND...: runs it if it was chosen.
part() {
  local name=$1 begin=$SECONDS verdict=ok
  shift
  [[ " ${chosen[*]} " == *" $name "* ]] || return 0
  printf '\n== %s ==\n' "$name"
  if ! "$@" 2>&1 | tee "$logs/$name.log" | tail -n 12; then
    verdict=FAILED failed=1
  fi
  rows+=("$(printf '%-22s %7d min  %s' "$name" $(((SECONDS - begin + 30) / 60)) "$verdict")")
}

cpu=build/cpu-strict  # where ./test.sh --strict builds
build() {
  cmake --preset cpu -B $cpu -DHEDDLE_WERROR=ON >"$logs/configure.log" 2>&1 && cmake --build $cpu --parallel "$(nproc)" >"$logs/build.log" 2>&1
}
# The whole project and its tests by the other compiler that it promises.
all_by_clang() {
  cmake --preset clang -B build/clang-strict -DHEDDLE_WERROR=ON >"$logs/configure-clang.log" 2>&1 || { cat "$logs/configure-clang.log"; return 1; }
  cmake --build build/clang-strict --parallel "$(nproc)" >"$logs/build-clang.log" 2>&1 ||
    { grep -E -A 5 'error:' "$logs/build-clang.log" | head -n 40; return 1; }
  ctest --test-dir build/clang-strict -j $tests_at_once --no-tests=error --output-on-failure
}
# Control, collectives and whole runs under the other MPI; two ranks, since its idle ones keep their cores.
under_mpich() {
  local mpicc mpirun
  mpicc=$(command -v mpicc.mpich) && mpirun=$(command -v mpirun.mpich) && echo '#include <mpi.h>' | "$mpicc" -E -x c - >/dev/null 2>&1 ||
    { echo "left out: MPICH is not here (package libmpich-dev)"; return 0; }
  # It takes more ranks than cores without being told.
  printf '#!/bin/sh\nfor a do shift; [ "$a" = --oversubscribe ] || set -- "$@" "$a"; done\nexec %s "$@"\n' "$mpirun" >"$logs/mpirun"
  chmod +x "$logs/mpirun"
  cmake --preset cpu -B build/mpich -DHEDDLE_WERROR=ON -DMPI_C_COMPILER="$mpicc" -DHEDDLE_MPIRUN="$PWD/$logs/mpirun" >"$logs/configure-mpich.log" 2>&1 &&
    cmake --build build/mpich --parallel "$(nproc)" --target mpi_tests heddle_program >"$logs/build-mpich.log" 2>&1 ||
    { tail -n 20 "$logs/configure-mpich.log" "$logs/build-mpich.log"; return 1; }
  ctest --test-dir build/mpich -R '^mpi_tests_2_ranks$' --no-tests=error --output-on-failure &&
    sh tests/train/other_mpi.sh "$PWD/$cpu/bin/heddle" mpirun "$PWD/build/mpich/bin/heddle" "$PWD/$logs/mpirun"
}
# The example's job under a Slurm of its own.
under_slurm() {
  local code=0
  sh tests/app/slurm_loopback.sh "$PWD/$cpu/bin/heddle" "$PWD/examples/slurm/pretrain.sbatch" || code=$?
  [ $code = 0 ] || [ $code = 77 ]
}
# All tests of the simulated CUDA machine, built another way: simulated NAME OPTIONS...
simulated() {
  local folder=build/nightly-$1
  shift
  cmake -S . -B "$folder" -G Ninja -DHEDDLE_WERROR=ON -DHEDDLE_EXAMPLES=OFF "$@" >"$logs/configure-simulated.log" 2>&1 &&
    cmake --build "$folder" --parallel "$(nproc)" --target kernels/sim/all tests/sim/all bench/gpu/all >"$logs/build-simulated.log" 2>&1 &&
    ctest --test-dir "$folder" -L sim -j 2 --no-tests=error --output-on-failure
}
# The same, every flavour by one compiler; then in the other modes what takes its mode from outside. Whole kernels go through all modes by themselves.
in_every_mode() {
  local mode
  simulated "$@" || return 1
  for mode in lazy random:1; do
    HEDDLE_SIM_MODE=$mode ctest --test-dir "build/nightly-$1" -R '^sim_(core|ptx)_(plain|check|asan)$' --no-tests=error --output-on-failure ||
      return 1
  done
}
# The quickstart's run whole, on CUDA kernels alone: some six hours. The text is the one that ./quickstart.sh fetched. It goes on where it was stopped.
gpu_quickstart() {
  local data=data-kjv heddle=$cpu/bin/heddle_simulated bits
  ls $data/*_train_*.bin >/dev/null 2>&1 || { echo "left out: ./quickstart.sh has not been here"; return 0; }
  cmake --build $cpu --target heddle_simulated >>"$logs/build.log" 2>&1 || return 1
  HEDDLE_SIM_HOST_KERNELS=never $heddle pretrain --config examples/recipes/quickstart.toml --data "$data/*_train_*.bin" --val "$data/*_val_*.bin" \
    --device cuda --out "$logs/gpu-quickstart-run" || return 1
  bits=$($cpu/bin/heddle eval "$logs/gpu-quickstart-run" --data "$data/*_val_*.bin" | sed -n 's/.*bits per byte *\([0-9.]*\).*/\1/p')
  echo "held-out bits per byte: $bits"
  awk -v bits="$bits" 'BEGIN { exit !(bits != "" && bits < 1.25) }'
}
# One stall in 200 s of training may cost 1 %.
stall() {
  local line
  line=$($cpu/bin/heddle bench save-stall --model gpt-10m --seq 256 --batch 8 --repeats 5 --save-dir build) || return 1
  echo "$line"
  awk -v stall="$(sed -n 's/.*"stall_of_200_s": \([0-9.e-]*\).*/\1/p' <<<"$line")" 'BEGIN { exit !(stall != "" && stall <= 0.01) }'
}
# A random fault in every source file, found by the tests or explained.
mutants() {
  command -v python3 >/dev/null || { echo "left out: python3 is not here"; return 0; }
  python3 tests/mutants/mutants.py --seed "$mutants_seed"
}

# Every fault of every CUDA kernel, and each of its synchronisations left out or weakened: what survives is in equivalents.txt or in cuda_open.txt, what only the checker finds in cuda_checked.txt.
cuda_mutants() {
  command -v python3 >/dev/null || { echo "left out: python3 is not here"; return 0; }
  cmake --build $cpu --parallel "$(nproc)" --target kernels_cuda_plain kernels_cuda_check sim_registry_plain >>"$logs/build.log" 2>&1 &&
    python3 tests/mutants/cuda_mutants.py --build $cpu
}

need_packages "$logs/apt.log" $heddle_packages || exit 1
optional_packages "$logs/apt.log" "gdb|the test sim_gdb" "qemu-user|the test cpu_check" "libmpich-dev|the part mpich" "slurmctld|the part slurm" \
  "slurmd|the part slurm" "clang|the part clang" "libomp-dev|the part clang" "libclang-rt-dev|fuzzing" \
  "clang-16|compiling for znver4" "g++-aarch64-linux-gnu|compiling for aarch64"
build || { tail -n 40 "$logs/build.log" "$logs/configure.log"; exit 1; }
part tests ./test.sh --strict --full --keep-going
part clang all_by_clang
part compile-matrix tests/compile_matrix.sh --strict
part kills env HEDDLE_KILLS="$kills" $cpu/bin/kills_test
part supervised-kills env HEDDLE_SUPERVISED_KILLS="$kills" $cpu/bin/supervised_kills_test
part ranks ctest --test-dir $cpu -C nightly -L all_cases --no-tests=error --output-on-failure
part mpich under_mpich
part slurm under_slurm
part random-flags env HEDDLE_FLAG_SETS="$flag_sets" HEDDLE_FLAG_SEED="$RANDOM" $cpu/bin/random_flags_test
part power-loss env HEDDLE_POWER_LOSS_STATES="$states" $cpu/bin/test_checkpoint_power_loss
part simulated-gcc in_every_mode gcc -DCMAKE_CXX_COMPILER=g++ -DHEDDLE_SIM_CHECK_COMPILER=OFF
part simulated-clang in_every_mode clang -DCMAKE_CXX_COMPILER=clang++
part simulated-ucontext simulated ucontext -DHEDDLE_SIM_UCONTEXT=ON "-DHEDDLE_SIM_FLAVOURS=plain;check"  # AddressSanitizer does not know makecontext
part simulated-own-headers simulated own-headers -DHEDDLE_CUDA=OFF  # as on a machine without the CUDA toolkit
part gpu-build ctest --test-dir $cpu -C nightly -L nightly --output-on-failure
part gpu-quickstart gpu_quickstart
part fuzz env HEDDLE_FUZZ_BUILD=build/fuzz-strict HEDDLE_WERROR=ON tests/fuzz/run.sh "$fuzz_seconds"
part stall stall
part mutants mutants
part cuda-mutants cuda_mutants
part equivalence tests/equivalence/run.sh

printf '\n'
printf '%s\n' "${rows[@]}"
exit $failed
