#!/bin/sh
# Ranks on simulated GPUs, which talk through NCCL, are one rank on one: sh nccl_ranks.sh HEDDLE MPIRUN RANKS.
set -eu
heddle=$1 mpirun=$2 many=$3
. "$(dirname "$0")/../support/program.sh"
export OMP_NUM_THREADS=1 HEDDLE_SIM_DEVICES=$many HEDDLE_SIM_THREADS=1 HEDDLE_SIM_HOST_KERNELS=never

# train RANKS RUN FLAGS...: seq 16, 4 sequences a step in micro-steps of one.
train() {
  ranks=$1 run=$2
  shift 2
  set -- pretrain --data 'shards/*_train_*.bin' --out "$run" --device cuda --precision fp32 --layers 1 --heads 2 --dim 32 --seq 16 --batch 1 \
    --total-batch-tokens 64 --lr 0.01 --schedule constant --save-every 0 --eval-every 0 --threads 1 --no-tensorboard --no-progress "$@"
  if [ "$ranks" = 1 ]; then
    "$heddle" "$@" >>"$run.log" 2>&1 || die "one rank, $run: exit code $?"
  else
    "$mpirun" -np "$ranks" --oversubscribe ${each:-} "$heddle" "$@" --dp "$ranks" >>"$run.log" 2>&1 || die "$ranks ranks, $run: exit code $?"
  fi
}
# field RUN STEP NAME: a number of metrics.jsonl.
field() { sed -n "s/^{\"step\":$2,.*\"$3\":\([^,}]*\).*/\1/p" "$1/metrics.jsonl"; }

awk 'BEGIN { srand(1); for (d = 0; d < 60; ++d) { n = 2 + int(rand() * 12)
  for (w = 0; w < n; ++w) { k = 1 + int(rand() * 6); s = ""; for (i = 0; i < k; ++i) s = s sprintf("%c", 97 + int(rand() * 20)); printf "%s ", s }
  print "\n" } }' >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards >tokenize.log 2>&1 || die "tokenize"

# One step from the same state, first a fresh one, then that of step 3 with its moments.
# The sums over the step's 4 x 16 rows are made in another order: each of the 64 additions may round by 2^-24 of what is there.
train 1 start --steps 3
for from in 0 3; do
  for ranks in 1 $many; do
    run=from$from-ranks$ranks
    [ "$from" = 0 ] || cp -r start "$run"
    train "$ranks" "$run" --steps $((from + 1))
  done
  for name in loss grad_norm; do
    one=$(field "from$from-ranks1" $((from + 1)) $name)
    several=$(field "from$from-ranks$many" $((from + 1)) $name)
    [ -n "$one" ] && [ -n "$several" ] || die "no $name of step $((from + 1))"
    awk -v a="$one" -v b="$several" 'BEGIN { d = a > b ? a - b : b - a; exit !(d <= 64 / 2 ^ 24 * a) }' ||
      die "$name of step $((from + 1)) from the same state: $one on one rank, $several on $many"
    echo "step $((from + 1)): $name $one on one rank, $several on $many"
  done
done

# --deterministic: the same bits.
train 1 one --deterministic --steps 10
train "$many" several --deterministic --steps 10
for step in 1 2 3 4 5 6 7 8 9 10; do
  for name in loss grad_norm; do
    [ "$(field one $step $name)" = "$(field several $step $name)" ] || die "$name of step $step: $(field one $step $name), $many ranks $(field several $step $name)"
  done
done
[ "$("$heddle" inspect one --digest)" = "$("$heddle" inspect several --digest)" ] || die "the digests of one and $many ranks differ"
echo "deterministic: $("$heddle" inspect one --digest)"

# Steps as graphs, collectives and all: the bits of steps launched kernel by kernel, over validations, a stop and a start.
for ways in "--zero 0" "--zero 1 --optimizer muon" "--deterministic"; do
  [ "$many" = 2 ] || ways="--deterministic ${ways#--deterministic}"  # a sum of more than two parts has many orders, of which a recording keeps one
  rm -rf off auto off.log auto.log
  for graphs in off auto; do
    for steps in 8 20; do
      train "$many" $graphs $ways --graphs $graphs --steps $steps --total-batch-tokens 128 --val 'shards/*_train_*.bin' --eval-every 5
    done
    "$heddle" inspect $graphs --digest >$graphs.digest
    sed 's/"tokens_per_s":[^,}]*,//; s/"step_ms":[^,}]*//' $graphs/metrics.jsonl >$graphs.numbers
  done
  [ "$(wc -l <off.numbers)" = 20 ] || die "$ways: $(wc -l <off.numbers) records of 20 steps"
  cmp off.numbers auto.numbers || die "$ways: metrics by graphs differ"
  cmp off.digest auto.digest || die "$ways: the digests by graphs differ"
  [ "$(grep -c 'was recorded as' auto.log)" = 2 ] || die "$ways: the second step of each start was not recorded"
  grep -q 'was recorded as' off.log && die "$ways: recorded with --graphs off"
done
echo "graphs: the same bits"

# A launcher that shows each rank one GPU, its own: all of them are cuda:0, and different.
printf '#!/bin/sh\nHEDDLE_SIM_FIRST_DEVICE=$OMPI_COMM_WORLD_LOCAL_RANK exec "$@"\n' >own.sh
chmod +x own.sh
export HEDDLE_SIM_DEVICES=1
each=./own.sh train "$many" own --steps 1
grep -q 'device: cuda:0' own.log || die "no rank's GPU is told"
# The same one for all: refused, by names, and nothing is made.
code=0
"$mpirun" -np "$many" --oversubscribe "$heddle" pretrain --data 'shards/*_train_*.bin' --out shared --device cuda --layers 1 --heads 2 --dim 32 --seq 16 \
  --batch 1 --steps 1 --dp "$many" >shared.log 2>&1 || code=$?
[ $code = 2 ] || die "ranks that share a GPU: exit code $code, not 2"
grep -q 'ranks 0 and 1 use the same GPU, GPU-.*(cuda:0 of ' shared.log || die "ranks that share a GPU are not named"
[ ! -e shared ] || die "a refused start made its run directory"
echo "GPUs of one's own: told apart"
