#!/bin/sh
# A rank that is stopped (SIGSTOP), whatever the run is at: the others name it and the whole job ends with 86: sh hang.sh HEDDLE MPIRUN. Exit code 77: no MPI here.
set -eu
heddle=$1
mpirun=${2:-}
. "$(dirname "$0")/../support/program.sh"
need_mpi
trap '[ $? = 0 ] || [ -z "${ranks:-}" ] || kill -KILL $ranks 2>/dev/null || true; rm -rf "$work"' EXIT

awk 'BEGIN { srand(1); for (w = 0; w < 60000; ++w) { k = 1 + int(rand() * 7); s = ""; for (i = 0; i < k; ++i) s = s sprintf("%c", 97 + int(rand() * 20)); printf "%s ", s } }' >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --out shards >log 2>&1 || die tokenize

limit=2
now() { date +%s%3N; }
has_steps() { [ -s run/metrics.jsonl ] && [ "$(wc -l <run/metrics.jsonl)" -ge "$1" ]; }
is_saving() {  # a checkpoint without its manifest
  for folder in run/ckpt/s*; do
    if [ -d "$folder" ] && [ ! -e "$folder/MANIFEST" ]; then return 0; fi
  done
  return 1
}
is_told() { grep -q '\[watchdog\]' log; }
are_gone() { for p in $ranks; do if [ -e "/proc/$p" ] && ! grep -q '^State:.*Z' "/proc/$p/status" 2>/dev/null; then return 1; fi; done; }
# start PROGRAM FLAGS...: three ranks of it.
start() {
  rm -rf run
  program=$1
  shift
  "$mpirun" -np 3 --oversubscribe $program pretrain --data 'shards/*_train_*.bin' --out run --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 \
    --steps 10000000 --threads 1 --no-tensorboard --log-every 1000000 --position rope --hang-timeout ${limit}s "$@" >log 2>&1 &
  job=$!
}
find_ranks() {
  ranks=$(cat /proc/$job/task/$job/children)
  [ "$(echo $ranks | wc -w)" = 3 ]
}
# stopped RANK PHASES: stops it now, and looks at what becomes of the job.
stopped() {
  rank=$1 phases=$2 got=0
  until_true find_ranks
  sleep 0.5  # it has told what it is at
  kill -STOP "$(echo $ranks | cut -d ' ' -f $((rank + 1)))"
  begin=$(now)
  until_true is_told
  told=$(($(now) - begin))
  wait $job || got=$?
  until_true are_gone
  gone=$(($(now) - begin))
  [ "$got" = 86 ] || die "exit code $got, expected 86"
  [ $gone -le 10000 ] || die "the job was gone after $gone ms"
  [ $told -le $((limit * 1000 + 3000)) ] || die "told after $told ms"  # one second on a machine with nothing else to do
  grep -q -E "no sign of life from rank $rank \(.*, in ($phases):" log || die "rank $rank in $phases is not named"
  grep -q -E "^  rank $rank: step [0-9]+, in ($phases) for .*<- late" log || die "what rank $rank was at is not told"
  grep -q 'last collective' log || die 'no collective is named'
  echo "rank $rank stopped in $phases: named after $told ms with a limit of ${limit}000, all gone after $gone ms"
}

start "$heddle" --eval-every 0
until_true has_steps 3
stopped 1 'step|data'

start "$heddle" --eval-every 0
until_true has_steps 3
stopped 0 'step|data'

start "$heddle" --val 'shards/*_train_*.bin' --eval-every 3 --eval-tokens 1G
until_true has_steps 2  # the third is written down behind its validation
sleep 0.3
stopped 1 'eval'

start "$heddle" --eval-every 0 --lr 0.01 --sample-every 80 --sample-tokens 1M --sample-prompt a
until_true has_steps 79
sleep 0.3
stopped 2 'sample'

start "$heddle" --eval-every 0 --save-every 1
until_true has_steps 3
until_true is_saving
stopped 2 'save|step|data'

# Before MPI has started nobody can be asked: those that wait look around on their machine.
cat >stops.sh <<TEXT
[ "\$OMPI_COMM_WORLD_RANK" != 1 ] || kill -STOP \$\$
exec "$heddle" "\$@"
TEXT
start "sh stops.sh" --eval-every 0
got=0
begin=$(now)
until_true find_ranks
until_true is_told
wait $job || got=$?
until_true are_gone
gone=$(($(now) - begin))
[ "$got" = 86 ] || die "stopped before it started: exit code $got, expected 86"
[ $gone -le 10000 ] || die "stopped before it started: the job was gone after $gone ms"
grep -q 'has waited in MPI_Init.*: rank 1 (process [0-9]*) is stopped' log || die 'rank 1 is not named'
echo "rank 1 stopped before it started: all gone after $gone ms"

# A job that is stopped as a whole and goes on is not late.
start "$heddle" --eval-every 0
until_true has_steps 3
until_true find_ranks
kill -STOP $ranks
sleep $((limit + 1))
steps=$(wc -l <run/metrics.jsonl)
kill -CONT $ranks
until_true has_steps $((steps + 50))
kill -USR1 $job
got=0
wait $job || got=$?
[ "$got" = 75 ] || die "a job that was stopped as a whole and goes on: exit code $got, expected 75"
if is_told; then die 'the watchdog spoke of a job that was stopped as a whole'; fi
echo "a whole job stopped for $((limit + 1)) s went on"
