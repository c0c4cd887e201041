#!/bin/sh
# Data-parallel ranks are one rank: sh dp_equals_one_rank.sh HEDDLE MPIRUN. Exit code 77: no MPI here.
set -eu
heddle=$1
mpirun=${2:-}
. "$(dirname "$0")/../support/program.sh"
need_mpi

# train RANKS RUN FLAGS...: seq 32, 2 sequences a micro-step, 8 a step, so that one rank makes 4 micro-steps and two ranks make 2 each.
train() {
  ranks=$1 run=$2
  shift 2
  set -- pretrain --data 'shards/*_train_*.bin' --out "$run" --device cpu --precision "${precision:-fp32}" --layers 2 --heads 2 --dim 32 --seq 32 --batch 2 \
    --total-batch-tokens 256 --lr 0.01 --schedule constant --save-every 0 --eval-every 0 --threads 1 --no-tensorboard --no-progress "$@"
  if [ "$ranks" = 1 ]; then
    "$heddle" "$@" >>"$run.log" 2>&1 || die "one rank, $run: exit code $?"
  else
    "$mpirun" -np "$ranks" --oversubscribe "$heddle" "$@" --dp "$ranks" >>"$run.log" 2>&1 || die "$ranks ranks, $run: exit code $?"
  fi
}
# field RUN STEP NAME: a number of metrics.jsonl.
field() { sed -n "s/^{\"step\":$2,.*\"$3\":\([^,}]*\).*/\1/p" "$1/metrics.jsonl"; }

awk 'BEGIN { srand(1); for (d = 0; d < 120; ++d) { n = 2 + int(rand() * 12)
  for (w = 0; w < n; ++w) { k = 1 + int(rand() * 6); s = ""; for (i = 0; i < k; ++i) s = s sprintf("%c", 97 + int(rand() * 20)); printf "%s ", s }
  print "\n" } }' >words.txt
"$heddle" tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards >tokenize.log 2>&1 || die "tokenize"

# One step from the same state, first a fresh one, then that of step 3 with its moments.
# The sums over the step's 8 x 32 rows are made in another order: each of the 256 additions may round by 2^-24 of what is there.
train 1 start --steps 3
for from in 0 3; do
  for ranks in 1 2; do
    run=from$from-ranks$ranks
    [ "$from" = 0 ] || cp -r start "$run"
    train "$ranks" "$run" --steps $((from + 1))
  done
  for name in loss grad_norm; do
    one=$(field "from$from-ranks1" $((from + 1)) $name)
    two=$(field "from$from-ranks2" $((from + 1)) $name)
    [ -n "$one" ] && [ -n "$two" ] || die "no $name of step $((from + 1))"
    awk -v a="$one" -v b="$two" 'BEGIN { d = a > b ? a - b : b - a; exit !(d <= 256 / 2 ^ 24 * a) }' ||
      die "$name of step $((from + 1)) from the same state: $one on one rank, $two on two"
    echo "step $((from + 1)): $name $one on one rank, $two on two"
  done
done

# same ONE RUN: losses, norms and the state after step 6 are the same bits.
same() {
  for step in 1 2 3 4 5 6; do
    for name in loss grad_norm; do
      [ "$(field "$1" $step $name)" = "$(field "$2" $step $name)" ] ||
        die "$name of step $step: $(field "$1" $step $name) in $1, $(field "$2" $step $name) in $2"
    done
  done
  [ "$("$heddle" inspect "$1" --digest)" = "$("$heddle" inspect "$2" --digest)" ] || die "the digests of $1 and $2 differ"
}

# --deterministic: the same bits, also when the number of ranks and what they slice among them change on the way.
train 1 one --deterministic --steps 6
for ranks in 4 2; do train "$ranks" "ranks$ranks" --deterministic --steps 6 --zero $((ranks / 4)) && same one "ranks$ranks"; done
precision=bf16
train 1 muon-one --deterministic --optimizer muon --steps 6
for optimizer in muon- ''; do
  run=${optimizer}changing
  set -- --deterministic
  if [ -n "$optimizer" ]; then set -- "$@" --optimizer muon; else precision=fp32; fi
  train 4 "$run" "$@" --steps 1
  train 2 "$run" "$@" --steps 2 --zero 0
  train 1 "$run" "$@" --steps 4
  train 4 "$run" "$@" --steps 6
  same "${optimizer}one" "$run"
  [ "$(grep -c 'bit for bit the run that was not stopped' "$run.log")" = 3 ] || die "$run: a start does not say that it goes on exactly"
done
echo "deterministic: $("$heddle" inspect one --digest)"
# Without the flag one rank adds in turn, and the order shows; were it not so, the comparison above would prove nothing about the tree.
train 1 plain --steps 6
[ "$("$heddle" inspect plain --digest)" != "$("$heddle" inspect one --digest)" ] || die "plain accumulation gave the deterministic bits"
