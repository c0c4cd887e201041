#!/bin/sh
# What examples/slurm/pretrain.sbatch makes of every way in which a job ends: sh slurm.sh SBATCH. srun and scontrol are stand-ins.
set -eu
script=$1
work=$(mktemp -d "${TMPDIR:-/tmp}/heddle-slurm-XXXXXX")
trap 'rm -rf "$work"' EXIT
cat >"$work/srun" <<'X'
#!/bin/sh
printf '%s\n' "$@" >"$SEEN/srun"
echo "cpus ${SRUN_CPUS_PER_TASK:-}" >"$SEEN/variables"
env | grep ^HEDDLE_ >>"$SEEN/variables"
exit "$(cat "$SEEN/code")"
X
cat >"$work/scontrol" <<'X'
#!/bin/sh
printf '%s\n' "$*" >>"$SEEN/scontrol"
X
chmod +x "$work/srun" "$work/scontrol"
export SEEN="$work/seen" SLURM_JOB_ID=4711 SLURM_CPUS_PER_TASK=8 HEDDLE=/somewhere/heddle HEDDLE_SRUN_FLAGS=--mpi=pmix HEDDLE_MOST_RESTARTS=100
die() {
  echo "FAILED: $*" >&2
  exit 1
}
# ends CODE REQUEUED: the script ends with the code of its ranks, and has asked once for another start (1) or not (0).
ends() {
  rm -rf "$SEEN"
  mkdir "$SEEN"
  echo "$1" >"$SEEN/code"
  got=0
  PATH="$work:$PATH" bash "$script" --data 'a b/*.bin' --out run >"$work/log" 2>&1 || got=$?
  [ "$got" = "$1" ] || die "ranks that end with $1: the job ends with $got"
  asked=0
  [ ! -e "$SEEN/scontrol" ] || asked=$(grep -c -x 'requeue 4711' "$SEEN/scontrol")
  [ "$asked" = "$2" ] || die "ranks that end with $1: queued again $asked times, expected $2"
  printf '%s\n' --kill-on-bad-exit=0 --wait=60 --mpi=pmix /somewhere/heddle pretrain --data 'a b/*.bin' --out run | cmp -s - "$SEEN/srun" || die "srun was given: $(cat "$SEEN/srun")"
  # heddle refuses a HEDDLE_ variable that is none of its flags.
  [ "$(cat "$SEEN/variables")" = 'cpus 8' ] || die "srun has the variables: $(cat "$SEEN/variables")"
}
ends 0 0
ends 75 1
for code in 2 65 69 71 78; do ends $code 0; done
for code in 1 86 137 143; do ends $code 1; done
export SLURM_RESTART_COUNT=100
ends 86 0
ends 75 1
echo "slurm: $script queues itself again when that helps"
