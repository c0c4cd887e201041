#!/usr/bin/env bash
# Does heddle's CUDA code do on this GPU what it does on the simulated machine, and how fast? For a card that is at hand for minutes.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=bench/gpu/acceptance_report.sh
. "$root/bench/gpu/acceptance_report.sh"

usage() {
  cat <<'TEXT'
usage: bench/gpu_acceptance.sh build|A|B [OPTIONS]          bench/gpu/README.md says how to judge what comes back
  build  the acceptance program by nvcc for sm_80 and sm_90a, warnings are errors: build/acceptance-gpu/acceptance, to be carried to the card;
         --bounded-waits: one whose waits end after 2 s and say which they were, in build/acceptance-bounded
  A      240 s, decides by itself:
           short        six whole kernels against float64
           conformance  single instructions against bench/gpu/golden/*.txt, and the maps of kernels/arch/fragments.h, in one process
           proving      whole kernels, every layout, against float64
           production   every candidate at the sizes of training: against a plain kernel in float64, 5 repeats bit-equal, time beside cuBLASLt
           torch        the same sizes by torch, taking turns with ours
  B      270 s, more about what A passed:
           nccl         NCCL on this card by `heddle bench collectives`: a communicator of one rank begins, each collective against known numbers,
                        abort; two ranks on the card are refused
           step         a training step of 124M parameters by `heddle bench`: tokens/s, MFU, a table of ops
           repeats      production once more, 50 repeats bit-equal
           memcheck     the short kernels under compute-sanitizer, in one process (the simulated machine: its check flavour)
           ncu          counters of the four kernels that take longest
What is not on the machine (torch, cuBLASLt, ncu, a sanitizer that may look at the device) reads `absent`.
Exit code: 0 all passed, 1 something differs or is too slow, 2 usage, 3 out of time: run again, 69 no GPU.
  --out DIR             what comes back (build/acceptance-*/out): report.txt, report.json, cases.txt, golden.txt, production.tsv, step.txt, ncu.txt, log.txt,
                        rewritten after every stage. Run again with the same DIR to go on where it stopped
  --resume DIR          goes on from such a folder, perhaps of another machine with such a card; what another program found is left out
  --program FILE        the acceptance program, built before; without it it is built here (not counted as time of A or B)
  --heddle FILE         the heddle program for `nccl` and `step` (beside --program)
  --only STAGE          this stage
  --match TEXT          only cases whose names hold it
  --seconds N           for the whole command instead of 240 or 270
  --case-seconds N      a case that takes longer hangs (15): it is named, and the rest goes on in a new process
  --write-golden        copies golden.txt to bench/gpu/golden, report.json and production.tsv to bench/results
  --simulated           on the simulated machine, small sizes: no GPU, no nvcc; --check-program FILE: the program in the check flavour
  --plant FAULT         fragment-map, hang, wrong-tile, unsteady or slow: the command must fail and name it
  --work DIR            objects and logs (build/acceptance-gpu, build/acceptance-simulated)
  --fresh               forgets earlier results
TEXT
}

simulated=0 command='' out='' resume='' program='' heddle='' check_program='' only='' match='' seconds='' case_seconds='' plant='' work='' write_golden=0 fresh=0 bounded=0
while [ $# -gt 0 ]; do
  case $1 in
    build | A | B) command=$1 ;;
    --simulated) simulated=1 ;;
    --write-golden) write_golden=1 ;;
    --fresh) fresh=1 ;;
    --bounded-waits) bounded=1 ;;
    --out | --resume | --program | --heddle | --check-program | --only | --match | --seconds | --case-seconds | --plant | --work)
      [ $# -gt 1 ] || { echo "gpu_acceptance.sh: $1 takes a value" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift ;;
    -h | --help) usage; exit 0 ;;
    *) echo "gpu_acceptance.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
case $command in
  build) stages=() ;;
  A) stages=(short conformance proving production torch) whole=240 ;;
  B) stages=(nccl step repeats memcheck ncu) whole=270 ;;
  *) echo "gpu_acceptance.sh: say build, A or B" >&2; usage >&2; exit 2 ;;
esac
seconds=${seconds:-${whole:-0}}
# Seconds a stage may take at most, and seconds of the whole that it must leave to those behind it.
declare -A most=([short]=30 [conformance]=60 [proving]=80 [production]=150 [torch]=60 [nccl]=30 [step]=110 [repeats]=80 [memcheck]=70 [ncu]=60)
declare -A leave=([short]=120 [conformance]=110 [proving]=100 [production]=0 [torch]=0 [nccl]=170 [step]=60 [repeats]=30 [memcheck]=20 [ncu]=0)
if [ -n "$only" ] && [[ " ${stages[*]} " != *" $only "* ]]; then
  echo "gpu_acceptance.sh: $command has no stage $only; there are ${stages[*]}" >&2
  exit 2
fi

find_tool() {  # VARIABLE NAME: the environment's, PATH's or the toolkit's
  local named=${!1:-}
  if [ -n "$named" ]; then echo "$named"; else type -P "$2" || { [ -x "/usr/local/cuda/bin/$2" ] && echo "/usr/local/cuda/bin/$2"; }; fi
}
nvcc=$(find_tool NVCC nvcc)
driver='' card=simulated
if [ $simulated = 0 ]; then
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -cs 'A-Za-z0-9\n' '-' | sed 's/-*$//')
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1)
  if [ -z "$card" ] && [ "$command" != build ]; then
    echo "gpu_acceptance.sh: nvidia-smi names no GPU; --simulated needs none, nor does build" >&2
    exit 69
  fi
else
  export HEDDLE_SIM_SMS=${HEDDLE_SIM_SMS:-2}  # small shapes meet every choice of tile
fi
kind=gpu
[ $bounded = 0 ] || kind=bounded
[ $simulated = 0 ] || kind=simulated
work=${work:-$root/build/acceptance-$kind}
mkdir -p "$work" || exit 2
work=$(cd "$work" && pwd)
out=${out:-$work/out}
[ $fresh = 0 ] || rm -rf "$out"
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)

# ---- build ----
cuda_list() { sed -n "/^set($1\$/,/)/p" "$root/kernels/cuda/sources.cmake" | grep -o '[a-z0-9_]*\.cu' | sed 's|^|kernels/cuda/|'; }
for_every_card="$(cuda_list heddle_cuda_sm80) tests/sim/proving_kernels.cu tests/sim/ptx_memory_kernels.cu tests/sim/ptx_named_barrier_kernels.cu
  tests/sim/ptx_warp_kernels.cu bench/gpu/conformance_memory.cu bench/gpu/conformance_warp.cu bench/gpu/conformance_wgmma.cu bench/gpu/device.cu
  $(cd "$root" && ls bench/gpu/reference_*.cu)"
for_hopper="$(cuda_list heddle_cuda_sm90a) tests/sim/proving_kernels_sm90.cu tests/sim/ptx_sm90_kernels.cu tests/sim/ptx_barrier_kernels.cu
  tests/sim/ptx_tma_kernels.cu tests/sim/ptx_wgmma_kernels.cu bench/gpu/conformance_tma.cu"
on_host="$(cd "$root" && ls kernels/api/*.cpp) kernels/cuda/register.cpp kernels/cuda/tensor_map.cpp tests/sim/proving_cases.cpp tests/sim/proving_checks.cpp bench/gpu/acceptance.cpp bench/gpu/golden.cpp
  bench/gpu/peer_cuda.cpp bench/gpu/production.cpp bench/gpu/production_attention.cpp bench/gpu/production_cases.cpp
  bench/gpu/production_memory.cpp bench/gpu/results.cpp"
sources_digest() {
  (cd "$root" && find kernels/api kernels/arch kernels/cuda kernels/sim tests/oracles tests/support tests/sim bench/gpu \
    \( -name '*.[ch]*' -o -name sources.cmake \) -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum | cut -c1-16)
}
compile_one() {  # SOURCE: an object that is there was made from these very sources
  local object=$work/${1##*/}.o flags=(-std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -Werror all-warnings)
  [ ! -e "$object" ] || return 0
  case " $for_hopper " in
    *[[:space:]]"$1"[[:space:]]*) flags+=(-gencode='arch=compute_90a,code=sm_90a') ;;
    *) flags+=(-gencode='arch=compute_80,code=sm_80' -gencode='arch=compute_90a,code=sm_90a') ;;
  esac
  [[ $1 == *.cu ]] || flags=(-std=c++20 -O2 -x c++)
  [ "$bounded" = 0 ] || flags+=(-DHEDDLE_BOUNDED_WAITS=1)
  echo "$1"
  "$nvcc" "${flags[@]}" -I"$root" -c "$root/$1" -o "$object.new" && mv "$object.new" "$object"
}
build() {
  if [ $simulated = 1 ]; then
    cmake -S "$root" -B "$work/cmake" -DHEDDLE_TESTS=ON ${HEDDLE_DEPS_DIR:+-DHEDDLE_DEPS_DIR="$HEDDLE_DEPS_DIR"} &&
      cmake --build "$work/cmake" --parallel "$(nproc)" --target acceptance_plain acceptance_check &&
      ln -sf "$work/cmake/bin/acceptance_plain" "$work/acceptance" && ln -sf "$work/cmake/bin/acceptance_check" "$work/acceptance-check"
    return
  fi
  [ -n "$nvcc" ] || { echo "no nvcc in PATH or /usr/local/cuda/bin (NVCC names one)"; return 1; }
  local digest
  digest=$(sources_digest)
  if [ "$(cat "$work/digest" 2>/dev/null)" != "$digest" ]; then
    rm -f "$work"/*.o "$work/acceptance"
    echo "$digest" >"$work/digest"
  fi
  export nvcc work root for_hopper bounded
  export -f compile_one
  # shellcheck disable=SC2086
  printf '%s\n' $for_every_card $for_hopper $on_host | xargs -P "$(nproc)" -I{} bash -c 'compile_one {}' &&
    "$nvcc" -Xcompiler -static-libstdc++ -Xcompiler -static-libgcc "$work"/*.o -ldl -o "$work/acceptance"
}
failed=0 late=0
if [ -n "$program" ]; then
  [ -x "$program" ] || { echo "gpu_acceptance.sh: $program is no program" >&2; exit 2; }
  key=$(sha256sum "$program" | cut -c1-16)
else
  begin=$SECONDS
  if ! build >"$work/build.log" 2>&1; then
    tail -n 25 "$work/build.log" | cut -c1-600
    echo "build FAILED; all of it: $work/build.log"
    exit 1
  fi
  program=$work/acceptance check_program=${check_program:-$work/acceptance-check} key=$(sources_digest)
  echo "built $program in $((SECONDS - begin)) s"
fi
[ "$command" != build ] || exit 0
heddle=${heddle:-$(dirname "$program")/heddle}

# Outside help for cuBLASLt: where pip put it.
if [ $simulated = 0 ] && [ -z "${HEDDLE_CUBLASLT:-}" ] && ! ldconfig -p 2>/dev/null | grep -q libcublasLt; then
  HEDDLE_CUBLASLT=$(timeout 5 find /usr/local /opt /usr/lib "$HOME/.local" -name 'libcublasLt.so.1[0-9]' 2>/dev/null | head -n 1)
  export HEDDLE_CUBLASLT
fi
small=() watch=${case_seconds:-15}
[ $simulated = 0 ] || small=(--small) watch=${case_seconds:-120}
if ! about=$(timeout -k 2 60 "$program" about "${small[@]}" 2>&1); then
  echo "gpu_acceptance.sh: $program does not run here: $about" >&2
  exit 69
fi

# ---- what is known already ----
cases=$out/cases.txt title="# $card, program $key"
if [ -n "$resume" ]; then
  [ -f "$resume/cases.txt" ] || { echo "gpu_acceptance.sh: $resume holds no cases.txt" >&2; exit 2; }
  [ "$(cd "$resume" && pwd)" = "$out" ] || cp "$resume"/*.txt "$resume"/*.tsv "$out"/ 2>/dev/null
fi
if [ -e "$cases" ] && [ "$(head -n 1 "$cases")" != "$title" ]; then
  echo "earlier results are of another card or program ($(head -n 1 "$cases" | cut -c3-)), and left out"
  rm -f "$out"/*.txt "$out"/*.tsv "$out"/*.json
fi
[ -e "$cases" ] || echo "$title" >"$cases"

# ---- stages ----
end=$((SECONDS + seconds)) stage_end=0 stage=''
left() { echo $((stage_end - SECONDS)); }
# run_cases COMMAND...: again after a case that spoiled or ended the process, as long as that leaves one case more behind.
run_cases() {
  local status before=-1 lines watched=${watched:-$watch}
  while :; do
    lines=$(wc -l <"$cases")
    [ "$lines" != "$before" ] || return 1
    before=$lines status=0
    [ "$(left)" -gt 1 ] || return 4
    timeout -k 2 "$(left)" "$@" --stage "$stage" --match "$match" --case-seconds "$watched" --budget "$(($(left) - 2))" ${plant:+--plant "$plant"} || status=$?
    case $status in
      0 | 1 | 2 | 4 | 9) return $status ;;
      124 | 137) [ "$(left)" -gt 1 ] || { echo "$stage stopped" >>"$cases"; return 4; } ;;
    esac
  done
}
short() { run_cases "$program" proving "$cases" --short; }
conformance() {
  local options=() file
  for file in "$root"/bench/gpu/golden/*.txt; do
    # A card answers for itself and to the simulated machine; the simulated machine answers to every card.
    [ -e "$file" ] && { [ $simulated = 1 ] || [[ $file == */simulated.txt || $file == */$card.txt ]]; } || continue
    [ $write_golden = 1 ] && [[ $file == */$card.txt ]] || options+=(--golden "$file")
  done
  [ -e "$out/golden.txt" ] || echo "# $card: what the conformance cases gave; the format is in bench/gpu/golden.h" >"$out/golden.txt"
  run_cases "$program" conformance "$cases" --record "$out/golden.txt" "${options[@]}"
}
proving() { run_cases "$program" proving "$cases"; }
production() { run_cases "$program" production "$cases" --record "$out/production.tsv" "${small[@]}"; }
repeats() { run_cases "$program" production "$cases" --untimed --repeats $((simulated ? 6 : 50)) "${small[@]}"; }
torch() {
  command -v python3 >/dev/null || { echo "no python3"; return 77; }
  timeout -k 2 "$(left)" python3 "$root/bench/gpu/production_torch.py" "$program" "$out/production.tsv" --match "$match" "${small[@]}"
}
nccl() {
  [ -x "$heddle" ] || { echo "no heddle program ($heddle); --heddle names one"; return 77; }
  local said=$work/nccl.said status=0 mpirun most=$((simulated ? 32768 : 16777216)) patience
  patience=$(left) && [ "$patience" -le "$watch" ] || patience=$watch
  [ "$patience" -gt 1 ] || return 4
  local bench=("$heddle" bench collectives --device cuda --most-bytes $most --repeats $((simulated ? 2 : 20)))
  timeout -k 2 "$patience" "${bench[@]}" >"$said" 2>&1 || status=$?
  cat "$said"
  case $status in
    0) ;;
    124 | 137) echo "it did not end within $patience s"; return 1 ;;
    127) grep -q 'libnccl' "$said" && { echo "no libnccl: $(tail -n 1 "$said")"; return 77; } ;;
  esac
  [ $status = 0 ] || return $status
  grep -q ', nccl:' "$said" || { echo "$heddle was built without NCCL"; return 77; }
  grep -q '^abort ' "$said" || { echo "it does not say that it aborted"; return 1; }
  mpirun=$(find_tool HEDDLE_MPIRUN mpirun) && [ -n "$mpirun" ] || { echo "two ranks: no mpirun"; return 0; }
  [ "$(left)" -gt 1 ] || return 4
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0} \
    timeout -k 2 "$patience" "$mpirun" -np 2 --oversubscribe "${bench[@]}" >"$said" 2>&1 && status=0 || status=$?
  cat "$said"
  [ $status = 2 ] && grep -qE 'same GPU|each rank needs' "$said" || { echo "two ranks on one card were not refused as such, but ended with $status"; return 1; }
}
loss_of() { sed -n 's/.*"loss": \([^,}]*\).*/\1/p' "$1"; }
step() {
  [ -x "$heddle" ] || { echo "no heddle program ($heddle); --heddle names one"; return 77; }
  local shape=(--model gpt2-124m --batch 16 --seq 1024 --precision bf16 --repeats 20) status=0
  [ $simulated = 0 ] || shape=(--dim 64 --heads 2 --layers 1 --vocab 256 --batch 2 --seq 32 --repeats 2 --warmup-steps 1)
  : >"$out/step.txt"
  timeout -k 2 "$(left)" "$heddle" bench train-step --device cuda "${shape[@]}" --graphs off >"$work/step.json" || return $?
  { echo "kernel by kernel:"; cat "$work/step.json"; mfu <"$work/step.json"; } | tee "$out/step.txt"
  timeout -k 2 "$(left)" "$heddle" bench train-step --device cuda "${shape[@]}" >"$work/graphs.json" || return $?
  { echo "as graphs:"; cat "$work/graphs.json"; mfu <"$work/graphs.json"; } | tee -a "$out/step.txt"
  [ "$(loss_of "$work/step.json")" = "$(loss_of "$work/graphs.json")" ] || { echo "FAIL: as graphs the loss after the same steps is another"; return 1; }
  timeout -k 2 "$(left)" "$heddle" bench ops --device cuda "${shape[@]}" >"$work/ops.txt" || status=$?
  tee -a "$out/step.txt" <"$work/ops.txt"
  return $status
}
memcheck() {
  local tool
  if tool=$(find_tool HEDDLE_COMPUTE_SANITIZER compute-sanitizer); then
    local under=("$tool" --tool memcheck --error-exitcode 9)
    # In some sandboxes it may not look at the device, and says so instead of a summary.
    rm -f "$work/probe.cases"
    timeout -k 2 40 "${under[@]}" "$program" proving "$work/probe.cases" --short --match grid_sum >"$work/probe.log" 2>&1
    grep -q 'ERROR SUMMARY' "$work/probe.log" || { echo "compute-sanitizer does not work here: $(grep -m 1 -i error "$work/probe.log" || tail -n 1 "$work/probe.log")"; return 77; }
    watched=60 run_cases "${under[@]}" "$program" proving "$cases" --short
    return
  fi
  [ -x "$check_program" ] || { echo "no compute-sanitizer"; return 77; }
  run_cases "$check_program" proving "$cases" --short
}
ncu() {
  local tool name status
  tool=$(find_tool HEDDLE_NCU ncu) || { echo "no ncu"; return 77; }
  : >"$out/ncu.txt"
  while read -r name; do
    [ "$(left)" -gt 10 ] || return 4
    status=0
    timeout -k 2 "$(left)" "$tool" --kernel-name-base demangled --kernel-name regex:kernels::cuda --launch-count 1 --section SpeedOfLight --section Occupancy \
      --section MemoryWorkloadAnalysis --section SchedulerStats --section WarpStateStats "$program" profile "$name" "${small[@]}" >"$work/ncu.one" 2>&1 || status=$?
    if [ $status != 0 ] || grep -q '==ERROR==' "$work/ncu.one"; then
      grep -m 1 -E 'ERROR|rror' "$work/ncu.one" || tail -n 1 "$work/ncu.one"
      return 77
    fi
    { printf '\n== %s ==\n' "$name"; grep -v '^==PROF==' "$work/ncu.one" | head -n 150; } >>"$out/ncu.txt"
  done < <(longest_kernels 4)
  [ -s "$out/ncu.txt" ] || { echo "production has timed nothing yet"; return 77; }
}

run_stage() {
  local status=0 begin=$SECONDS verdict=FAILED why=''
  stage=$1
  if { [ -n "$only" ] && [ "$only" != "$stage" ]; } || [ "$(field_of "$stage" 1)" = ok ]; then return; fi
  stage_end=$((end - ${leave[$stage]} * seconds / whole))
  [ $((SECONDS + ${most[$stage]})) -gt $stage_end ] || stage_end=$((SECONDS + ${most[$stage]}))
  [ -n "$only" ] && stage_end=$end
  if [ "$(left)" -le 1 ]; then
    status=4 && : >"$work/$stage.log"
  else
    ("$stage") >"$work/$stage.log" 2>&1 || status=$?
  fi
  case $status in
    0) verdict=ok ;;
    4 | 124 | 137) verdict=late late=1 ;;
    77) verdict=absent ;;
    *) failed=1 ;;
  esac
  case $verdict in  # in a line
    absent) why=$(tail -n 1 "$work/$stage.log") ;;
    FAILED) why=$(grep -m 1 -E 'FAIL|Invalid|rror|ERROR' "$work/$stage.log" || tail -n 1 "$work/$stage.log") ;;
  esac
  echo "stage $stage $verdict $((SECONDS - begin)) ${why:0:200}" >>"$cases"
  printf '%-12s %-8s %5d s  %s\n' "$stage" "$verdict" $((SECONDS - begin)) "$([ $verdict != absent ] || echo "${why:0:200}")"
  [ $verdict != FAILED ] || tail -n 15 "$work/$stage.log" | cut -c1-600
  { printf '\n== %s %s ==\n' "$stage" $verdict; tail -n 100 "$work/$stage.log" | cut -c1-400; } >>"$out/log.txt"
  report
}
trap '[ -z "$stage" ] || echo "$stage stopped" >>"$cases"; report; exit 3' TERM INT
for name in "${stages[@]}"; do run_stage "$name"; done
if [ $write_golden = 1 ] && [ "$(field_of conformance 1)" != late ]; then
  cp "$out/golden.txt" "$root/bench/gpu/golden/$card.txt" && echo "wrote bench/gpu/golden/$card.txt"
  [ $simulated = 1 ] || { cp "$out/report.json" "$root/bench/results/$card.json"; cp "$out/production.tsv" "$root/bench/results/$card.tsv"; }
fi
sed -n '1,/^No candidate/{/^No candidate/!p}' "$out/report.txt"
echo "all of it: $out/report.txt"
[ $failed = 0 ] || exit 1
[ $late = 0 ] || { echo "out of time: run again, here or elsewhere with --resume $out"; exit 3; }
