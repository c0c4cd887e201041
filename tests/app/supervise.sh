#!/bin/sh
# Jobs that are started again, and those that are not: sh supervise.sh HEDDLE [MPIRUN]. Without MPI the parts with ranks are left out.
set -eu
heddle=$1
mpirun=${2:-}
. "$(dirname "$0")/../support/program.sh"

said() { grep -q -F -e "$1" log || die "the log does not say '$1'"; }
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
# 75 without a newer checkpoint is no progress either.
supervised 75 3 --requeue --max-restarts 2 -- sh -c 'echo x >>starts; exit 75'
# Another program's `pretrain` is another program's.
supervised 0 1 -- sh -c 'echo x >>starts' litgpt pretrain pythia

# Newer checkpoints renew the budget.
newer='echo x >>starts; n=$(wc -l <starts); mkdir -p fake/ckpt/s$n-i$n; touch fake/ckpt/s$n-i$n/MANIFEST'
supervised 0 4 --requeue --max-restarts 0 -- sh -c "$newer; [ \$n = 4 ] || exit 75"
rm -rf fake
supervised 0 6 --max-restarts 1 -- sh -c "$newer; [ \$n = 6 ] || exit 1"
supervised 1 3 --max-restarts 2 -- sh -c "echo x >>starts; mkdir -p fake/ckpt/s9-i9; exit 1"  # one without a manifest is none
rm -rf fake
supervised 71 4 --max-restarts 1 -- sh -c "$newer; [ \$n -lt 4 ] || rm -rf fake; exit 71"

# What a start leaves behind is gone before the next.
supervised 1 2 --max-restarts 1 -- sh -c 'for p in $(cat left 2>/dev/null); do [ ! -e /proc/$p ] || exit 2; done
  echo x >>starts; setsid sleep 1000 & echo $! >>left; exit 1'
for p in $(cat left); do [ ! -e "/proc/$p" ] || die "process $p outlived its job"; done
said 'of the job had outlived it'

# A launcher that waits for ranks which are gone, whatever it is called.
printf '#!/bin/sh\necho x >>starts\nenv OMPI_COMM_WORLD_RANK=0 sleep 0.5\nread -r nothing <never\n' >launch
chmod +x launch
mkfifo never
supervised 137 1 --max-restarts 0 -- env X=1 ./launch
said 'the launcher has outlived its ranks and is killed'

# What was there before is none of the job's.
sh -c 'sleep 1000 & echo $! >earlier; exec "$0" "$@"' "$heddle" supervise --run fake --incidents incidents.jsonl --max-restarts 1 --backoff 0s -- \
  sh -c 'exit 1' >log 2>&1 || true
earlier=$(cat earlier)
[ -e "/proc/$earlier" ] || die 'a process that was there before the job was killed with it'
kill "$earlier"

# Nobody reads any more: the job is supervised all the same. Nor does a starter that ignores SIGCHLD make it wait for ever.
rm -f starts incidents.jsonl
("$heddle" supervise --run fake --incidents incidents.jsonl --backoff 0s --max-restarts 2 -- sh -c 'echo x >>starts; exit 1' 2>&1 || echo $? >code) | head -c 1 >log
[ "$(cat code)" = 1 ] || die "a closed pipe: exit code $(cat code), expected 1"
[ "$(wc -l <starts)" = 3 ] || die "a closed pipe: $(wc -l <starts) starts, expected 3"
got=0
env --ignore-signal=CHLD timeout 20 "$heddle" supervise --run fake --incidents incidents.jsonl -- sh -c 'exit 0' >log 2>&1 || got=$?
[ "$got" = 0 ] || die "SIGCHLD ignored: exit code $got, expected 0"

# A program that cannot be started is a mistake the first time, and trouble after that.
printf '#!/bin/sh\necho x >>starts\nchmod -x ./job.sh\nexit 1\n' >job.sh
chmod +x job.sh
rm -f starts incidents.jsonl
got=0
"$heddle" supervise --run fake --incidents incidents.jsonl --backoff 0s --max-restarts 2 -- ./job.sh >log 2>&1 || got=$?
[ "$got" = 1 ] || die "a program that cannot be started again: exit code $got, expected 1"
[ "$(wc -l <incidents.jsonl)" = 3 ] || die "$(wc -l <incidents.jsonl) incidents, expected 3"
said 'cannot start ./job.sh: Permission denied'

# A run directory that never comes to be is told.
"$heddle" supervise --run nowhere -- sh -c 'exit 0' >log 2>&1 || die 'a job that is done'
said 'the run directory nowhere never came to be'
mkdir third
"$heddle" supervise --run third --max-restarts 1 --backoff 0s -- sh -c 'exit 1' >log 2>&1 || true
[ "$(wc -l <third/incidents.jsonl)" = 2 ] || die 'incidents of a program that is none of heddle'

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
for signal in TERM USR1 HUP INT; do
  code=75
  [ $signal != INT ] || code=130
  start "$heddle"
  kill -s $signal $supervisor
  ended $code
  saved
  has_mpi || continue
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
# A wrapper in between is spared, and what it runs is asked.
start sh -c '"$0" "$@"; exit 75' "$heddle"
kill -TERM $supervisor
ended 75
saved
# A job that does not react, and an impatient person; one that knows nothing of SIGUSR1. Neither has a checkpoint.
rm -rf ready fake
"$heddle" supervise --run fake --incidents incidents.jsonl -- sh -c 'trap "touch told" USR1; touch ready; while :; do sleep 0.05; done' >log 2>&1 &
supervisor=$!
until_true [ -e ready ]
kill -USR1 $supervisor
until_true [ -e told ]
sleep 1.1
kill -TERM $supervisor
ended 143
said 'there is no checkpoint'
rm -f ready
"$heddle" supervise --run fake --incidents incidents.jsonl -- sh -c 'touch ready; sleep 1000; exit 0' >log 2>&1 &
supervisor=$!
until_true [ -e ready ]
kill -USR1 $supervisor
ended 143
said 'it got SIGTERM'
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
