#!/bin/sh
# A model of a program's own: trained, stopped and gone on with, validated, on ranks; what is not for it is refused.
#   own_model.sh HEDDLE OWN_MODEL MPIRUN TEXT
set -eu
heddle=$1 own=$2 mpirun=$3 text=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "own_model: $*" >&2; exit 1; }
# Without a standard input: the first file that is opened gets descriptor 0.
"$heddle" tokenize --input "$text" --tokenizer bytes --out shards --val-fraction 0.1 --document-separator blank-line > tokenize.out 2>&1 <&- || { cat tokenize.out; exit 1; }

train() { # OUT STEPS [PREFIX...]
  out=$1 steps=$2; shift 2
  "$@" "$own" --data 'shards/*_train_*.bin' --val 'shards/*_val_*.bin' --out "$out" --steps "$steps" --schedule constant --lr 3e-3 --seq 32 --batch 4 \
    --total-batch-tokens 256 --eval-every 10 --save-every 10 --threads 1 > "$out.out" 2>&1 || { cat "$out.out"; fail "$out ended with $?"; }
}
digest() { "$heddle" inspect "$1" --digest | tail -1; }

train straight 40
train halves 20
train halves 40
[ "$(digest straight)" = "$(digest halves)" ] || fail "a run in two halves came to another state"
grep -q 'resumed at step 20' halves.out || fail "the second half did not go on from the first"
grep -q 'model: bigram, 48 wide' halves.out || fail "the model does not say what it is"
losses=$(sed -n 's/.*"val_loss":\([0-9.]*\).*/\1/p' straight/metrics.jsonl)
[ "$(echo "$losses" | wc -l)" -eq 4 ] || fail "four validations, not: $losses"
echo "$losses" | awk 'NR == 1 { first = $1 } END { exit !($1 < first) }' || fail "its loss on new text did not fall: $losses"

if [ -n "$mpirun" ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
  train ranks 20 "$mpirun" -np 2 --oversubscribe
  grep -q '2 ranks' ranks.out || fail "two ranks did not share the step"
fi

refused() { # CODE TEXT COMMAND...
  want=$1 text=$2; shift 2
  code=0; "$@" > refused.out 2>&1 || code=$?
  [ "$code" -eq "$want" ] || { cat refused.out; fail "exit $code, not $want: $*"; }
  grep -q -- "$text" refused.out || { cat refused.out; fail "does not say '$text': $*"; }
}
"$heddle" pretrain --layers 1 --dim 16 --heads 1 --seq 32 --data 'shards/*_train_*.bin' --out theirs --steps 2 > theirs.out 2>&1
refused 78 'of another model' "$own" --data 'shards/*_train_*.bin' --out theirs --steps 4
refused 2 '--layers' "$own" --layers 2 --data 'shards/*_train_*.bin' --out new --steps 4
refused 2 'dry-run' "$own" --dry-run true --data 'shards/*_train_*.bin' --out new --steps 4
[ ! -e new ] || fail "a refused start left something"
code=0; "$heddle" eval straight --data 'shards/*_val_*.bin' > eval.out 2>&1 || code=$?
[ "$code" -eq 65 ] || { cat eval.out; fail "eval of a model that it does not know: exit $code, not 65"; }
echo "own_model: ok"
