#!/bin/sh
# sh environment_check.sh SIM_CORE SIM_CUDART: what the simulated machine says to values of its environment variables, by one test case of each program.
core=$1 cudart=$2
core_case='a block sums through shuffles and shared memory' cudart_case='fresh device memory is NaN'
failures=0

fault() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# The test framework breaks lines, so texts are compared without their spaces.
without_spaces() {
  printf '%s' "$1" | tr -d ' \n'
}

# run PROGRAM CASE SETTING: leaves the exit code in $status and the output in $said.
run() {
  said=$(env "$3" "$1" "$2" 2>&1)
  status=$?
  said=$(without_spaces "$said")
}

says() {
  case $said in
    *"$(without_spaces "$1")"*) ;;
    *) fault "$2 says not '$1' but: $said" ;;
  esac
}

# refused PROGRAM CASE SETTING TEXT
refused() {
  run "$1" "$2" "$3"
  [ "$status" != 0 ] || fault "$3 is accepted"
  says "$4" "$3"
}

# accepted PROGRAM CASE SETTING
accepted() {
  run "$1" "$2" "$3"
  [ "$status" = 0 ] || fault "$3 is refused: $said"
}

# ---- the CUDA runtime ----
for value in 65 x '' -1 1.5; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_DEVICES=$value" "HEDDLE_SIM_DEVICES: \"$value\" is not a whole number from 0 to 64"
done
for value in 0 1025 x '' -1; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_SMS=$value" "HEDDLE_SIM_SMS: \"$value\" is not a whole number from 1 to 1024"
done
for value in 100 70 89 x '' -90; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_CAPABILITY=$value" "HEDDLE_SIM_CAPABILITY: \"$value\" is not 80 or 90"
done
for value in 99999999999G 257G 0 0.5 -1G x '' 1GB nan inf; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_MEMORY=$value" "HEDDLE_SIM_MEMORY: \"$value\" is not a size like 512M or 2G, of at most 256G"
done
for value in x yes Only '' 1; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_HOST_KERNELS=$value" "HEDDLE_SIM_HOST_KERNELS: \"$value\" is not also, only or never"
done
for value in x yes -1 '' 2 01; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_PROTECT=$value" "HEDDLE_SIM_PROTECT: \"$value\" is not 0 or 1"
done
for value in random:y random: randomly random:-1 random:1x fifo:1 immediate:1 x ''; do
  refused "$cudart" "$cudart_case" "HEDDLE_SIM_STREAMS=$value" "HEDDLE_SIM_STREAMS: \"$value\" is not immediate, fifo, random or random:SEED"
done
for setting in DEVICES=2 SMS=132 CAPABILITY=80 CAPABILITY=90 MEMORY=1.5g MEMORY=4096 MEMORY=256G PROTECT=0 PROTECT=1 STREAMS=immediate STREAMS=fifo \
  STREAMS=random STREAMS=random:0 STREAMS=random:77; do
  accepted "$cudart" "$cudart_case" "HEDDLE_SIM_$setting"
done

# ---- the machine ----
for value in eager:1 lazy:1 eager: x Eager randomly; do
  refused "$core" "$core_case" "HEDDLE_SIM_MODE=$value" "HEDDLE_SIM_MODE is eager, lazy or random[:seed], not '$value'"
done
for value in '' y -1; do
  refused "$core" "$core_case" "HEDDLE_SIM_MODE=random:$value" "HEDDLE_SIM_MODE=random: takes a number, not '$value'"
done
for setting in MODE=eager MODE=lazy MODE=random MODE=random:0 MODE=random:5 THREADS=1; do
  accepted "$core" "$core_case" "HEDDLE_SIM_$setting"
done

# ---- mutations ----
# A case of one kernel, told once, and not as if a thread of it had thrown.
refused "$core" "$core_case" HEDDLE_SIM_MUTATE=nonsense "[sim] HEDDLE_SIM_MUTATE: a mutation is file:line[#operation]:drop, ...:weaken or ...:elect, not 'nonsense'"
case $said in
  *thekernelthrew* | *HEDDLE_SIM_MUTATE:*HEDDLE_SIM_MUTATE:*) fault "HEDDLE_SIM_MUTATE=nonsense says: $said" ;;
esac
site=$(mktemp)
env "HEDDLE_SIM_MUTATE_LIST=$site" "$core" "[mutate]" >/dev/null
dropped=$(grep '^tests/sim/core_kernels.cu:[0-9]*#__syncthreads:drop' "$site" | head -n 1)
rm -f "$site"
[ -n "$dropped" ] || fault "no barrier of core_kernels.cu is listed"
mutation_case='mutations are written file:line*'  # runs no kernel, and sets no mutation of its own
accepted "$core" "$mutation_case" "HEDDLE_SIM_MUTATE=nowhere.cu:1:drop"
says "[sim] HEDDLE_SIM_MUTATE=nowhere.cu:1:drop: that operation never ran" "a mutation of nothing"
run "$core" "[mutate]" "HEDDLE_SIM_MUTATE=$dropped"
case $said in *neverran*) fault "HEDDLE_SIM_MUTATE=$dropped ran, but says: $said" ;; esac
run "$core" "[mutate]" "HEDDLE_SIM_MUTATE=${dropped%drop}weaken"
says "that operation ran, but cannot be mutated so" "HEDDLE_SIM_MUTATE=${dropped%drop}weaken"
accepted "$core" "$mutation_case" "HEDDLE_SIM_MUTATE_LIST=/nonexistent/list"
says "[sim] HEDDLE_SIM_MUTATE_LIST=/nonexistent/list: the list cannot be written: No such file or directory" "an unwritable list"

[ "$failures" = 0 ] && echo "all is well" || exit 1
