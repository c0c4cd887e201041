#!/bin/sh
# Jobs that are started again, and those that are not: sh supervise.sh HEDDLE [MPIRUN]. Without MPI the parts with ranks are left out.
set -eu
heddle=$1
mpirun=${2:-}
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
work=$(mktemp -d "${TMPDIR:-/tmp}/heddle-supervise-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

die() {
  echo "FAILED: $*" >&2
  tail -n 30 "$work/log" >&2
  exit 1
}
said() { grep -q -F -e "$1" log || die "the log does not say '$1'"; }
until_true() {
  waited=0
  until "$@"; do
    waited=$((waited + 1))
    [ $waited -lt 6000 ] || die "not within a minute: $*"
    sleep 0.01
  done
}
# supervised CODE STARTS FLAGS... -- COMMAND...: ends with this code after so many starts, which the command writes into `starts`.
supervised() {
  code=$1 starts=$2 got=0
  shift 2
  rm -rf starts incidents.jsonl
  "$heddle" supervise --run fake --incidents incidents.jsonl --backoff 0s "$@" >log 2>&1 || got=$?
  [ "$got" = "$code" ] || die "exit code $got, expected $code: $*"
  [ "$(cat starts 2>/dev/null | wc -l)" = "$starts" ] || die "$(cat starts | wc -l) starts, expected $starts: $*"
  [ "$starts" = 0 ] || [ "$(wc -l <incidents.jsonl)" = "$starts" ] || die "$(wc -l <incidents.jsonl) incidents of $starts starts"
}
job='echo x >>starts; exit'
supervised 0 1 -- sh -c "$job 0"
for code in 2 65 69 71 73 75 78 130; do supervised $code 1 --max-restarts 2 -- sh -c "$job $code"; done
for code in 1 74 86 134 139; do supervised $code 3 --max-restarts 2 -- sh -c "$job $code"; done
supervised 137 3 --max-restarts 2 -- sh -c 'echo x >>starts; kill -KILL $$'
said 'ended with 137 (killed by SIGKILL)'
said '--max-restarts 2 without a newer checkpoint'
grep -q '^{"step":0,"time":"20.*"start":3,"code":137,"meaning":"killed by SIGKILL",.*"action":"end"' incidents.jsonl || die 'incidents.jsonl'
supervised 1 1 --max-restarts 0 -- sh -c "$job 1"
# The lock of a job that is not quite dead is waited for, once there was one.
supervised 73 4 --max-restarts 3 -- sh -c 'echo x >>starts; [ "$(wc -l <starts)" = 1 ] && exit 1; exit 73'
supervised 0 4 --requeue --max-restarts 0 -- sh -c 'echo x >>starts; [ "$(wc -l <starts)" = 4 ] || exit 75'

# Newer checkpoints renew the budget.
newer='echo x >>starts; n=$(wc -l <starts); mkdir -p fake/ckpt/s$n-i$n; touch fake/ckpt/s$n-i$n/MANIFEST'
supervised 0 6 --max-restarts 1 -- sh -c "$newer; [ \$n = 6 ] || exit 1"
supervised 1 3 --max-restarts 2 -- sh -c "echo x >>starts; mkdir -p fake/ckpt/s9-i9; exit 1"  # one without a manifest is none
rm -rf fake
supervised 71 4 --max-restarts 1 -- sh -c "$newer; [ \$n -lt 4 ] || rm -rf fake; exit 71"

# What a start leaves behind is gone before the next.
supervised 1 2 --max-restarts 1 -- sh -c 'for p in $(cat left 2>/dev/null); do [ ! -e /proc/$p ] || exit 2; done
  echo x >>starts; setsid sleep 1000 & echo $! >>left; exit 1'
for p in $(cat left); do [ ! -e "/proc/$p" ] || die "process $p outlived its job"; done
said 'of the job had outlived it'

# A launcher that waits for ranks which are gone.
mkdir -p bin
printf '#!/bin/sh\necho x >>starts\n(sleep 0.5; exit 3)\nread -r nothing <never\n' >bin/mpirun
chmod +x bin/mpirun
mkfifo never
supervised 137 2 --max-restarts 1 -- bin/mpirun
said 'bin/mpirun has outlived its ranks and is killed'

# Mistakes.
refused() {
  what=$1 got=0
  shift
  "$heddle" supervise "$@" >log 2>&1 || got=$?
  [ "$got" = 2 ] || die "exit code $got, expected 2: $*"
  said "$what"
}
refused 'no command' --requeue
refused 'unknown flag --requeu' --requeu -- true
refused 'give --run DIR' -- true
refused 'cannot start ./none: No such file' --run fake -- ./none
refused 'leave out --help, --print-config and --dry-run' -- "$heddle" pretrain --out run --dry-run
refused '--resume never in the command' -- mpirun "$heddle" pretrain --out run --resume never
refused 'unknown flag --stepz' -- mpirun "$heddle" pretrain --out run --stepz 3

# The real program.
i=0
while [ $i -lt 60 ]; do
  printf 'some words of document %d and some more of them\n\n' $i
  i=$((i + 1))
done >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards >log 2>&1 || die tokenize
run="pretrain --data shards/*_train_*.bin --out run --device cpu --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --threads 1 --no-tensorboard --log-every 1000000"
has_steps() { [ -s run/metrics.jsonl ]; }
start() {
  rm -rf run
  # A background job of a script ignores SIGINT, unless told.
  env --default-signal=INT "$heddle" supervise --backoff 0s -- "$@" $run --steps 10000000 >log 2>&1 &
  supervisor=$!
  until_true has_steps
}
ended() {
  got=0
  wait $supervisor || got=$?
  [ "$got" = "$1" ] || die "exit code $got, expected $1"
}
saved() {
  step=$(sed -n '$s/^{"step":\([0-9]*\),.*/\1/p' run/metrics.jsonl)
  "$heddle" inspect run --digest | grep -q "step $step digest" || die "step $step was logged, but not saved"
  [ "$(wc -l <run/incidents.jsonl)" = 1 ] || die 'one end is one incident'
}
with_ranks=0
if [ -n "$mpirun" ] && command -v "$mpirun" >/dev/null; then with_ranks=1; fi
for signal in TERM USR1 HUP INT; do
  code=75
  [ $signal != INT ] || code=130
  start "$heddle"
  kill -s $signal $supervisor
  ended $code
  saved
  [ $with_ranks = 1 ] || continue
  start "$mpirun" -np 2 --oversubscribe "$heddle"
  kill -s $signal $supervisor
  ended $code
  saved
done
# As a service manager does it: all processes are told at once, and the supervisor tells them once more.
start "$heddle"
kill -TERM $supervisor $(cat /proc/$supervisor/task/$supervisor/children)
ended 75
saved
# A job that does not react, and an impatient person.
rm -f ready
"$heddle" supervise --run fake --incidents incidents.jsonl -- sh -c 'trap "" USR1; touch ready; sleep 1000; exit 0' >log 2>&1 &
supervisor=$!
until_true [ -e ready ]
kill -USR1 $supervisor
sleep 1.1
kill -TERM $supervisor
ended 75
# A job that dies without a word: supervised to its end.
"$heddle" pretrain ${run#pretrain } --out whole --steps 400 >log 2>&1 || die whole
rm -rf run
"$heddle" supervise --backoff 0s --max-restarts 9 -- "$heddle" $run --steps 400 --save-every 20 >log 2>&1 &
supervisor=$!
until_true has_steps
kill -KILL "$(cat /proc/$supervisor/task/$supervisor/children)"
ended 0
[ "$("$heddle" inspect run --digest)" = "$("$heddle" inspect whole --digest)" ] || die 'a run that was killed ends otherwise'
echo "supervise: what can be mended is started again, what cannot is not, a signal saves and ends"
