#!/bin/sh
# examples/slurm/pretrain.sbatch as a job of a real Slurm whose one node is this machine: sh slurm_loopback.sh HEDDLE SBATCH. Exit code 77: no Slurm here.
# HEDDLE is built with Open MPI.
set -eu
heddle=$1 script=$2
. "$(dirname "$0")/../support/program.sh"
PATH=$PATH:/usr/sbin:/sbin
for program in slurmctld slurmd sbatch srun; do
  command -v $program >/dev/null || { echo "left out: $program is not here (packages slurmctld, slurmd, slurm-client)"; exit 77; }
done

# 16 processors and 8 GPUs that are only said to be there, so that what the script asks for can be had. Jobs of the partition `high` preempt the others.
host=$(hostname -s)
port=$((20000 + $$ % 10000))
mkdir state spool
cat >slurm.conf <<TEXT
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
TmpFS=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
MailProg=/bin/true
BatchStartTimeout=300
MessageTimeout=100
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
GresTypes=gpu
NodeName=loop NodeHostname=$host NodeAddr=127.0.0.1 CPUs=16 Gres=gpu:8
PartitionName=low Nodes=loop Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes=loop PriorityTier=2
TEXT
printf 'Name=gpu File=/dev/%s\n' null zero full random urandom tty ptmx kmsg >gres.conf
export SLURM_CONF="$work/slurm.conf"
srun --mpi=list 2>&1 | grep -q pmix || { echo "left out: this Slurm knows no PMIx"; exit 77; }
slurmctld -D >slurmctld.log 2>&1 &
daemons=$!
slurmd -D -N loop >slurmd.log 2>&1 &
daemons="$! $daemons"
stop() {
  scancel --user "$(id -un)" 2>/dev/null || true
  waited=0
  while [ -n "$(squeue -h 2>/dev/null)" ] && [ $waited -lt 120 ]; do
    waited=$((waited + 1))
    sleep 0.5
  done
  for daemon in $daemons; do
    kill "$daemon" 2>/dev/null || true
    wait "$daemon" || true
  done
  rm -rf "$work"
}
trap stop EXIT
trap 'exit 1' HUP INT TERM
patience=600 pause=0.5  # Slurm looks at time limits every half minute
node_is_idle() { [ "$(sinfo -h -o %T 2>/dev/null | sort -u)" = idle ]; }
until_true node_is_idle

# What a job runs: heddle, with the horizon of a file for which it waits, so that it can be chosen between two starts.
cat >heddle <<TEXT
#!/bin/sh
until [ -e "\$SLURM_JOB_NAME.steps" ]; do sleep 0.1; done
exec "$heddle" "\$@" --steps "\$(cat "\$SLURM_JOB_NAME.steps")"
TEXT
chmod +x heddle
export HEDDLE="$work/heddle" HEDDLE_SRUN_FLAGS=--mpi=pmix
awk 'BEGIN { srand(1); for (d = 0; d < 60; ++d) { for (w = 0; w < 40; ++w) printf "%c%c ", 97 + int(rand() * 20), 97 + int(rand() * 20); print "\n" } }' >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards >tokenize.log 2>&1 || die tokenize
# submit RUN STEPS SBATCH_FLAG FLAGS...: two ranks; `job` is the job's number.
submit() {
  run=$1 flag=$3
  echo "$2" >"$run.steps"
  shift 3
  job=$(sbatch --parsable --ntasks-per-node=2 --cpus-per-task=2 --job-name="$run" --output="$run.log" "$flag" "$script" --data 'shards/*_train_*.bin' \
    --out "$run" --device cpu --layers 1 --heads 2 --dim 32 --seq 32 --batch 2 --schedule constant --deterministic --threads 1 --no-tensorboard \
    --save-every 10 --log-every 1000000 "$@") || die "sbatch does not take $run"
}
endless=10000000
field() { scontrol show job --oneliner "$job" | tr ' ' '\n' | sed -n "s/^$1=//p"; }
is() {
  state=$(field JobState)
  case $state in
  "$1") ;;
  COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL) die "$run: $state, expected $1" ;;
  *) false ;;
  esac
}
saved_step() { "$heddle" inspect "$run" --digest 2>/dev/null | sed -n 's/.*step \([0-9]*\) digest.*/\1/p'; }
has_saved() { [ -n "$(saved_step)" ] || { is RUNNING && false; }; }
# It trains, and once started again it waits for goes_on.
trains() {
  until_true has_saved
  rm "$run.steps"
}
is_queued_again() { [ "$(field Restarts)" = 1 ] || { is RUNNING && false; }; }
logged_step() { sed -n '$s/^{"step":\([0-9]*\),.*/\1/p' "$run/metrics.jsonl"; }
# all_saved SIGNAL: it was asked to stop by this signal, and its newest step is saved.
all_saved() {
  grep -q "^$1: saved step $(logged_step) of $endless" "$run.log" || die "$run: not stopped by $1 with its newest step saved"
  [ "$(saved_step)" = "$(logged_step)" ] || die "$run: step $(logged_step) was logged, step $(saved_step) saved"
}
# goes_on WHY: it is queued again, for the reason that its log tells; then it has 20 more steps and comes to what an undisturbed run comes to.
goes_on() {
  until_true is_queued_again
  grep -q "^$1" "$run.log" || die "$run: the script does not say '$1'"
  saved=$(saved_step) steps=$(($(saved_step) + 20)) disturbed=$run
  echo $steps >steps && mv steps "$run.steps"
  until_true is COMPLETED
  grep -q "^resumed at step $saved\$" "$run.log" || die "$run: does not go on at step $saved"
  submit "calm-$run" $steps --partition=low
  until_true is COMPLETED
  [ "$(field Restarts)" = 0 ] || die "$run was disturbed"
  for one in "$disturbed" "$run"; do
    sed -n 's/^{"step":\([0-9]*\),"loss":\([^,]*\),.*"grad_norm":\([^,]*\),.*/\1 \2 \3/p' "$one/metrics.jsonl" >"$one.losses"
  done
  [ "$(wc -l <"$run.losses")" = $steps ] || die "$run: $(wc -l <"$run.losses") losses of $steps steps"
  cmp "$disturbed.losses" "$run.losses" || die "the losses of $disturbed and $run differ"
  digest=$("$heddle" inspect "$run" --digest)
  [ "$("$heddle" inspect "$disturbed" --digest)" = "$digest" ] || die "the digests of $disturbed and $run differ"
  echo "$disturbed: queued again at step $saved, ended as an undisturbed run: $digest"
}

# The signal that the script asks for, five minutes before the end. The ranks stand still until it is there, when Slurm
# wakes them, lest the undisturbed run be as long.
submit limit $endless --time=7
trains
is_asked() { grep -q 'asked to stop' "$run.log"; }
scancel --signal=STOP "$job.0" || true
until_true is_asked
scancel --signal=CONT "$job.0" || true  # they were stopped after it had come
until_true is_queued_again
all_saved SIGUSR1
goes_on 'saved before the horizon: queued again'

# A job that is worth more.
submit preempted $endless --partition=low
trains
scontrol show step "$job.0" | grep -q 'TresPerTask=cpu:2' || die 'srun does not give a rank the CPUs that the job has for it'
preemptor=$(sbatch --parsable --partition=high --exclusive --output=preemptor.log --wrap 'until [ -e go ]; do sleep 0.2; done')
until_true is_queued_again
all_saved SIGTERM
preemptor_runs() { [ "$(squeue -h -j "$preemptor" -o %T)" = RUNNING ]; }
until_true preemptor_runs
touch go
goes_on 'saved before the horizon: queued again'

# A rank that dies.
HEDDLE_SRUN_FLAGS='--mpi=pmix --wait=2'
submit killed $endless --partition=low
trains
kill -KILL "$(scontrol listpids "$job.0" loop | awk '$5 == 1 { print $1 }')"
goes_on 'ended with 137: queued again, 0 restarts so far'

HEDDLE_SRUN_FLAGS=--mpi=pmix

# One who does not want it any more.
submit cancelled $endless --partition=low
trains
scancel "$job"
until_true is CANCELLED
job_is_gone() { [ -z "$(squeue -h -j "$job" 2>/dev/null)" ]; }
until_true job_is_gone
all_saved SIGTERM
[ "$(field Restarts)" = 0 ] || die 'queued again after scancel'

# What starting again does not mend: mistakes, of all ranks or of one, and an srun that starts no ranks of this MPI.
has_failed() {
  [ "$(field Restarts)" = 0 ] || die "$run: queued again"
  is FAILED
}
refused() {
  code=$1 text=$2
  until_true has_failed
  [ "$(field ExitCode)" = "$code:0" ] || die "$run: exit code $(field ExitCode), expected $code:0"
  grep -q -F -- "$text" "$run.log" || die "$run: not told: $text"
  echo "$run: ended with $code, not queued again"
}
submit mistaken 3 --partition=low --stepz 3
refused 2 'unknown flag --stepz'
submit resumed-nothing 3 --partition=low --resume must
refused 65 'holds no checkpoint to resume from'
HEDDLE_SRUN_FLAGS=--mpi=none
submit without-pmix 3 --partition=low
refused 2 'srun --mpi=pmix'
