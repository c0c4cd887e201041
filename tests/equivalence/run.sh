#!/usr/bin/env bash
# Does this version train as COMMIT did? Builds both here; for each configuration COMMIT trains one step, then both go on from that state for 50.
#
#   tests/equivalence/run.sh [COMMIT] [CONFIGURATION...]
#
# Prints, for each configuration, whether losses and gradient norms of every step and the final state (weights, moments, counters, Part by Part) are equal
# bit for bit. Exit code 1 when one is not. The default commit is the last one before tensors were split into Parts.
#
# In bf16 a rounding was changed on purpose (README.md). Curves that run on by themselves then part, so each of 10 steps starts both versions from the old
# one's state, and the loss and the norm of that one step must be within a bound.
set -euo pipefail
cd "$(dirname "$0")/../.."
commit=${1:-6e1f61b}
shift || true

git cat-file -e "$commit^{commit}" 2>/dev/null || { echo "skipped: this clone has no commit $commit"; exit 77; }
work=build/equivalence
mkdir -p "$work"
if ! { [ -e "$work/old/.git" ] && git -C "$work/old" rev-parse --git-dir >/dev/null 2>&1; }; then
  rm -rf "$work/old"
  git worktree prune
  git worktree add --force --detach "$work/old" "$commit" >/dev/null 2>&1
fi
git -C "$work/old" checkout -q --detach "$commit"
cmake --preset cpu >"$work/configure.log" && cmake --build --preset cpu --target heddle_program split_parts >"$work/build.log"
(cd "$work/old" && cmake --preset cpu -DHEDDLE_TESTS=OFF >../configure-old.log && cmake --build --preset cpu --target heddle_program >../build-old.log)
new=$PWD/build/cpu/bin/heddle old=$PWD/$work/old/build/cpu/bin/heddle split=$PWD/build/cpu/bin/split_parts
cd "$work"

# Documents of many lengths, the same each time.
if [ ! -e data ]; then
  for i in $(seq 3000); do
    for j in $(seq $((i * 7 % 23 + 1))); do printf '%s ' $((i * j % 997)); done
    printf 'is the %sth sentence of its kind.\n\n' "$i"
  done >text.txt
  "$old" tokenize --input text.txt --tokenizer bytes --document-separator blank-line --val-fraction 0.05 --out data >/dev/null
fi

gpt="--layers 2 --heads 4 --dim 64" llama="--layers 2 --heads 4 --kv-heads 2 --dim 64 --mlp swiglu --norm rms --position rope --no-bias --no-tied"
declare -A configurations=(
  [gpt-adamw]="$gpt --optimizer adamw"
  [gpt-muon-bf16]="$gpt --optimizer muon --precision bf16"
  [llama-adamw-bf16]="$llama --optimizer adamw --precision bf16"
  [llama-muon]="$llama --optimizer muon --qk-norm"
  [window-accumulation]="$llama --optimizer muon --window 24 --total-batch-tokens 1024"
  [no-documents-recompute]="$gpt --optimizer adamw --no-doc-mask --recompute --total-batch-tokens 768"
  [dp2-deterministic]="--dp 2 $gpt --optimizer adamw --deterministic --total-batch-tokens 1024"
  [depth-resume]="--depth 2"
)
names=("$@")
[ $# -gt 0 ] || names=(gpt-adamw gpt-muon-bf16 llama-adamw-bf16 llama-muon window-accumulation no-documents-recompute dp2-deterministic depth-resume)

# Two additions to the stream a layer, two layers. Each branch is rounded once more, by at most u = 2^-8 of itself, and the sum may round to a neighbour, 2 u
# away: 3 roundings an addition, whose signs have nothing to do with each other. Loss and norm are taken to move by no more, relatively, than the stream:
# sqrt(4 x 3) u.
bf16_bound=$(awk 'BEGIN { print sqrt(4 * 3) / 256 }')
curve() { sed -E 's/.*"step": ?([0-9]+).*"loss": ?([^,}]+).*"grad_norm": ?([^,}]+).*/\1 \2 \3/' "$1/metrics.jsonl"; }

# Of two curves' last steps: the larger relative difference of loss and norm, or "other" when they are of different steps.
last_step_apart() {
  paste -d' ' <(curve "$1" | tail -n 1) <(curve "$2" | tail -n 1) |
    awk 'function rel(a, b) { d = a - b; d = d < 0 ? -d : d; return d / (a < 0 ? -a : a) }
         { if ($1 != $4) print "other"; else { l = rel($2, $5); n = rel($3, $6); print (l > n ? l : n) } }'
}

failed=0
for name in "${names[@]}"; do
  flags=${configurations[$name]} launch=()
  case $flags in *"--dp 2"*) launch=(mpirun --allow-run-as-root --oversubscribe -np 2) ;; esac
  train() {  # PROGRAM RUN ...: to the end, or as far as it goes
    local program=$1 run=$2
    shift 2
    # shellcheck disable=SC2086
    "${launch[@]}" "$program" pretrain --data 'data/*train*.bin' --out "$run" --seq 64 --batch 4 --steps 51 --lr 3e-3 --warmup 5 --save-every 0 \
      $flags "$@" >"$run.log" 2>&1 || [ $? = 75 ] || { cat "$run.log"; exit 1; }
  }
  rm -rf "$name" "$name".*
  case $flags in *bf16*)
    worst=0
    train "$old" "$name.old" --time-limit 0.001s
    for _ in $(seq 10); do
      rm -rf "$name.new"
      "$split" "$name.old" "$name.new"
      cp "$name.old"/{metrics.jsonl,tokenizer.json} "$name.new"
      train "$old" "$name.old" --time-limit 0.001s
      train "$new" "$name.new" --time-limit 0.001s
      apart=$(last_step_apart "$name.old" "$name.new")
      worst=$(awk -v a="$apart" -v b="$worst" 'BEGIN { print (a == "other" || b == "other" ? "other" : a + 0 > b + 0 ? a : b) }')
    done
    printf '%-24s 10 steps, each from one state: losses and norms apart by at most %s, allowed %s\n' "$name" "$worst" "$bf16_bound"
    awk -v w="$worst" -v b="$bf16_bound" 'BEGIN { exit !(w != "other" && w + 0 <= b + 0) }' || failed=1
    continue
    ;;
  esac
  train "$old" "$name.old" --time-limit 0.001s
  "$split" "$name.old" "$name.new"
  cp "$name.old"/{metrics.jsonl,tokenizer.json} "$name.new"
  train "$old" "$name.old"
  [ "$name" != depth-resume ] || for _ in 1 2 3; do train "$new" "$name.new" --time-limit 0.001s; done
  train "$new" "$name.new"
  "$split" "$name.old" "$name.old-split"
  printf '%-24s ' "$name"
  if [ "$(curve "$name.old" | tail -1 | cut -d' ' -f1)" != 51 ]; then
    echo "the old run did not reach step 51" && failed=1
  elif ! diff <(curve "$name.old") <(curve "$name.new") >"$name.diff"; then
    echo "losses differ from step $(sed -nE 's/^< ([0-9]+) .*/\1/p' "$name.diff" | head -1) on; $("$split" --compare "$name.old-split" "$name.new" | tail -1)"
    failed=1
  else
    echo "$(curve "$name.new" | wc -l) losses and norms equal; $("$split" --compare "$name.old-split" "$name.new" | tail -1)" || failed=1
    "$split" --compare "$name.old-split" "$name.new" >/dev/null || failed=1
    [ "$("$new" inspect --digest "$name.old-split")" = "$("$new" inspect --digest "$name.new")" ] || { echo "  the digests differ" && failed=1; }
  fi
done
exit $failed
