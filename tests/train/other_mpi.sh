#!/bin/sh
# A run is the same under another MPI: sh other_mpi.sh HEDDLE MPIRUN OTHER_HEDDLE OTHER_MPIRUN, the second program built with the other MPI, that of a
# hydra (MPICH).
set -eu
heddle=$1 mpirun=$2 other=$3 other_mpirun=$4
. "$(dirname "$0")/../support/program.sh"
need_mpi

# What heddle reads of a rank, its number in the job and on its host, is what this launcher says.
"$other_mpirun" -np 2 sh -c 'echo "$PMI_SIZE $PMI_RANK $MPI_LOCALRANKID"' | sort >variables.log
printf '2 0 0\n2 1 1\n' | cmp -s - variables.log || die "PMI_SIZE, PMI_RANK and MPI_LOCALRANKID of two ranks"

awk 'BEGIN { srand(1); for (d = 0; d < 60; ++d) { for (w = 0; w < 20; ++w) printf "%c%c ", 97 + int(rand() * 20), 97 + int(rand() * 20); print "\n" } }' >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards >tokenize.log 2>&1 || die tokenize
# train CODE PROGRAM MPIRUN RUN FLAGS...: two ranks, whose bf16 gradients, clipped norms and dealt moments go through every collective.
train() {
  code=$1 program=$2 launcher=$3 run=$4 got=0
  shift 4
  "$launcher" -np 2 --oversubscribe "$program" pretrain --data 'shards/*_train_*.bin' --val 'shards/*_train_*.bin' --out "$run" --device cpu --layers 2 \
    --heads 2 --dim 32 --seq 32 --batch 2 --total-batch-tokens 256 --eval-every 3 --eval-tokens 1k --save-every 2 --threads 1 --no-tensorboard "$@" \
    >"$run.log" 2>&1 || got=$?
  [ "$got" = "$code" ] || die "$run: exit code $got, expected $code"
}
losses() { sed -n 's/^{"step":\([0-9]*\),"loss":\([^,]*\),.*"grad_norm":\([^,]*\),.*/\1 \2 \3/p' "$1/metrics.jsonl"; }
# Two numbers have one sum, whoever adds them.
for flags in '' '--grad-reduce bf16' '--deterministic --optimizer muon'; do
  rm -rf one other
  # shellcheck disable=SC2086
  train 0 "$heddle" "$mpirun" one --steps 6 $flags
  # shellcheck disable=SC2086
  train 0 "$other" "$other_mpirun" other --steps 6 $flags
  grep -q '= 2 ranks x' other.log || die 'the ranks are not found'
  [ "$(grep -c 'done: step 6' other.log)" = 1 ] || die 'the ranks do not speak with one voice'
  losses one >one.losses
  losses other | cmp - one.losses || die "losses differ: $flags"
  [ "$(wc -l <one.losses)" = 6 ] || die "not six losses: $flags"
  digest=$("$heddle" inspect one --digest)
  [ "$("$other" inspect other --digest)" = "$digest" ] || die "digests differ: $flags"
  echo "two ranks under either MPI ${flags:-as they come}: $digest"
done

# One MPI goes on where the other stopped; a mistake keeps its code.
for limit in 1 2; do train 75 "$other" "$other_mpirun" limited --steps 4 --time-limit 0.001s; done
train 0 "$heddle" "$mpirun" limited --steps 4
grep -q 'resumed at step 2' limited.log || die 'does not go on where the other MPI stopped'
train 2 "$other" "$other_mpirun" mistaken --stepz 3
train 65 "$other" "$other_mpirun" nothing --resume must
got=0
PMI_SIZE=2 PMI_RANK=0 "$other" pretrain --data 'shards/*_train_*.bin' --out alone --steps 1 >alone.log 2>&1 || got=$?
[ "$got $(grep -c 'srun --mpi=pmi2' alone.log)" = '2 1' ] || die "PMI_SIZE without a launcher: exit code $got"
