#!/bin/sh
# The program as the ranks of a launcher: sh launcher.sh HEDDLE MPIRUN. Exit code 77: no MPI here.
set -eu
heddle=$1
mpirun=${2:-}
. "$(dirname "$0")/../support/program.sh"
need_mpi
export TERM=xterm

# expect CODE RANKS ARGUMENTS...: the exit code; what all ranks wrote is in log.
expect() {
  code=$1 ranks=$2 got=0
  shift 2
  "$mpirun" -np "$ranks" --oversubscribe "$heddle" "$@" >log 2>&1 || got=$?
  [ "$got" = "$code" ] || die "heddle $* on $ranks ranks: exit code $got, expected $code"
}
# said N TEXT: N lines of the log hold it.
said() {
  n=$(grep -c -F -- "$2" log || true)
  [ "$n" = "$1" ] || die "$n lines hold '$2', expected $1"
}

i=0
while [ $i -lt 60 ]; do
  printf 'some words of document %d and some more of them\n\n' $i
  i=$((i + 1))
done >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards >log 2>&1 || die tokenize
train() {
  code=$1 ranks=$2
  shift 2
  expect "$code" "$ranks" pretrain --data 'shards/*_train_*.bin' --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --steps 3 --threads 1 \
    --no-tensorboard "$@"
}

# Programs of one process say so, once.
expect 2 2 tokenize --input words.txt --tokenizer bytes --out other
said 1 'heddle: [heddle] tokenize is the work of one process'
[ ! -e other ] || die 'tokenize made its folder all the same'
expect 0 1 tokenize --input words.txt --tokenizer bytes --out other
expect 0 2 generate --help

# Every collective, right and timed, at two sizes.
for ranks in 1 2 3; do
  expect 0 $ranks bench collectives --most-bytes 32K --repeats 2 --device cpu
  for collective in all_reduce reduce_scatter all_gather broadcast; do
    said 2 "$collective "
  done
done
expect 2 2 bench collectives --most-bytes 1

# Ranks that step together, and what they wait for one another.
expect 0 2 bench train-step --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --vocab 100 --repeats 3 --warmup-steps 1 --threads 1 --device cpu
said 1 '"ranks": 2, '
[ "$(sed -n 's/.*"exposed_comm_ms": \([0-9.]*\), "waited_ms_max": \([0-9.]*\),.*/\1 \2/p' log | awk '{ print ($2 > 0 && $2 >= $1) }')" = 1 ] || die 'what ranks wait for is not told'

# mpirun gives its ranks terminals, whose output it writes to a log: no bar, no colour. Each line comes once.
for ranks in 1 2; do
  train 0 $ranks --out run$ranks
  said 0 "$(printf '\033')"
  said 1 'done: step 3'
  said 1 'step 2/3'
done
expect 2 2 generate run2 --prompt some
said 1 'generate is the work of one process'
expect 0 2 eval run2 --data 'shards/*_train_*.bin'
said 1 'perplexity'

# A mistake that all ranks make is told once: before MPI starts, and after. Nobody says of its own end that it was asked to stop.
train 2 2 --out new --stepz 3
said 1 'unknown flag --stepz'
train 2 2 --out new --vocab 20
said 1 'heddle: ['
said 0 'asked to stop'
train 65 2 --out new --resume must
said 1 'holds no checkpoint to resume from'
[ ! -e new ] || die 'a start that failed made its run directory'

# One that a single rank makes is told by that rank.
cat >alone.sh <<TEXT
[ "\$OMPI_COMM_WORLD_RANK" != 1 ] || set -- "\$@" --dp 7
exec "$heddle" "\$@"
TEXT
got=0
"$mpirun" -np 2 --oversubscribe sh alone.sh pretrain --data 'shards/*_train_*.bin' --out new --device cpu --layers 1 --heads 2 --dim 16 --seq 16 \
  --batch 2 --steps 3 --threads 1 --no-tensorboard >log 2>&1 || got=$?
[ "$got" = 2 ] || die "exit code $got, expected 2"
said 1 '--dp 7, but 2 ranks were started'

# Ways to stop a job. Whoever is asked, all ranks save the same step; mpirun passes their code on, and makes a 1 of what it was told itself.
saved() {
  step=$(sed -n '$s/^{"step":\([0-9]*\),.*/\1/p' long/metrics.jsonl)
  "$heddle" inspect long --digest | grep -q "step $step digest" || die "step $step was logged, but not saved"
}
start() {
  rm -rf long
  go_on "$@"
}
has_new_steps() { [ -s long/metrics.jsonl ] && [ "$(wc -l <long/metrics.jsonl)" -gt "$lines" ]; }
go_on() {
  lines=0
  [ ! -e long ] || lines=$(wc -l <long/metrics.jsonl)
  "$mpirun" -np 2 --oversubscribe "$heddle" pretrain --data 'shards/*_train_*.bin' --out long --device cpu --layers 1 --heads 2 --dim 16 --seq 16 \
    --batch 2 --steps 10000000 --threads 1 --no-tensorboard --log-every 1000000 "$@" >log 2>&1 &
  job=$!
  until_true has_new_steps
}
stopped() {
  code=$1 signal=$2 whom=$3 got=0
  start
  case $whom in
  job) kill -s "$signal" $job ;;
  rank) kill -s "$signal" "$(cut -d ' ' -f 2 </proc/$job/task/$job/children)" ;;
  esac
  wait $job || got=$?
  [ "$got" = "$code" ] || die "SIG$signal to the $whom: exit code $got, expected $code"
  said 1 'start the same command again to go on'
  case $whom in  # rank 0 speaks for all, also when each of them was asked; the rank that is asked alone is the other one
  job) said 1 'asked to stop' ;;
  rank) said 0 'asked to stop' ;;
  esac
  saved
}
stopped 75 USR1 job
stopped 1 TERM job
stopped 75 TERM rank
stopped 75 HUP rank
stopped 130 INT rank

# Asked at any moment of a run that saves, validates and samples all the time: the newest step is saved, every time, and the next start goes on from it.
rm -rf long
stops=0
for delay in $(awk -v seed=$$ 'BEGIN { srand(seed); for (i = 0; i < 20; ++i) printf "%.3f ", 0.4 * rand() }'); do
  go_on --save-every 3 --val 'shards/*_train_*.bin' --eval-every 4 --eval-tokens 2k --sample-every 5 --sample-tokens 20 --sample-prompt a --lr 0.001
  sleep "$delay"
  kill -USR1 $job
  got=0
  wait $job || got=$?
  [ "$got" = 75 ] || die "SIGUSR1 after $delay s: exit code $got, expected 75"
  saved
  stops=$((stops + 1))
done
echo "SIGUSR1: $stops of 20 ended with 75 and their newest step saved"

# A shard that is cut while ranks read it: whichever sees it first, all save the last whole step and end with what that one says.
shard=shards/words_train_000000.bin
cp $shard whole.bin
start --total-batch-tokens 128
truncate -s 1100 $shard
got=0
wait $job || got=$?
[ "$got" = 65 ] || die "a shard that was cut: exit code $got, expected 65"
said 1 "$shard: ends at offset 1100"
cp whole.bin $shard
saved

# A limit too short for anything: a step a start.
for code in 75 75 0; do
  train $code 2 --out limited --time-limit 0.001s
done

# Variables of a launcher that this MPI knows nothing of.
got=0
PMI_SIZE=2 PMI_RANK=0 "$heddle" pretrain --data 'shards/*_train_*.bin' --out other-launcher --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 \
  --steps 3 >log 2>&1 || got=$?
[ "$got" = 2 ] || die "PMI_SIZE without a launcher: exit code $got, expected 2"
said 1 'PMI_SIZE says that this is rank 0 of 2'
got=0
SLURM_JOB_ID=1 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=0 "$heddle" pretrain --data 'shards/*_train_*.bin' --out other-launcher --device cpu \
  --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --steps 3 >log 2>&1 || got=$?
[ "$got" = 2 ] || die "a task of srun --mpi=none: exit code $got, expected 2"
said 1 'without PMIx'
echo "launcher: one message for one mistake, no escapes in a log, a save for every way to stop"
