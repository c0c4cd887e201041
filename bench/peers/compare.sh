#!/usr/bin/env bash
# Alternates `heddle bench train-step` with the PyTorch peer on the same model, batch, dtype and threads, so that both see the same machine, and
# prints each round and the ratio of the medians. Ratios only mean something on an otherwise idle machine.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: bench/peers/compare.sh [--heddle PROGRAM] [--python PYTHON] [--rounds N] [--dtype fp32|bf16] [--threads N] [--model small|gpt2-124m]
                              [--batch N] [--seq N] [--steps N] [--log FILE]
  --heddle   default build/cpu/bin/heddle     --python  default python3: an interpreter that imports torch
  --rounds   pairs of runs, default 3         --steps   measured steps of a run, default 12
  --threads  default: all cores               --log     append each run's JSON line
TEXT
}

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
heddle=build/cpu/bin/heddle python=python3 rounds=3 dtype=fp32 threads=$(nproc) model=small batch= seq=256 steps=12 log=/dev/null
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --heddle | --python | --rounds | --dtype | --threads | --model | --batch | --seq | --steps | --log)
      declare "${1#--}=${2:?$1 takes a value}"
      shift ;;
    *) echo "compare.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
case $model in
  small) shape=(--layers 6 --heads 6 --dim 384 --vocab 65) batch=${batch:-8} ;;
  gpt2-124m) shape=(--layers 12 --heads 12 --dim 768 --vocab 50257) batch=${batch:-4} ;;
  *) echo "compare.sh: --model small or gpt2-124m, not $model" >&2; exit 2 ;;
esac
common=(--batch "$batch" --seq "$seq" --threads "$threads")
export OMP_NUM_THREADS=$threads

number() { sed -n "s/.*\"$1\": *\([-0-9.e+]*\).*/\1/p" <<<"$2"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

ours=() theirs=() our_bytes=() their_bytes=()
for ((round = 1; round <= rounds; ++round)); do
  line=$("$heddle" bench train-step "${shape[@]}" "${common[@]}" --precision "$dtype" --repeats "$steps" | tail -n 1)
  echo "$line" >>"$log"
  ours+=("$(number tokens_per_s "$line")") our_bytes+=("$(number peak_rss_above_idle_bytes "$line")")
  line=$("$python" "$here/torch_gpt.py" "${shape[@]}" "${common[@]}" --dtype "$dtype" --steps "$steps" | tail -n 1)
  echo "$line" >>"$log"
  theirs+=("$(number tokens_per_s "$line")") their_bytes+=("$(number peak_rss_above_idle_bytes "$line")")
  version=$(sed -n 's/.*"version": *"\([^"]*\)".*/\1/p' <<<"$line")
  echo "round $round: heddle ${ours[-1]} tokens/s, torch $version ${theirs[-1]} tokens/s"
done
a=$(printf '%s\n' "${ours[@]}" | median) b=$(printf '%s\n' "${theirs[@]}" | median)
m=$(printf '%s\n' "${our_bytes[@]}" | median) n=$(printf '%s\n' "${their_bytes[@]}" | median)
awk -v a="$a" -v b="$b" -v m="$m" -v n="$n" -v what="$model $dtype, $threads threads, batch $batch x $seq, torch $version" 'BEGIN {
  printf "%s: heddle/torch speed %.2f, peak memory above idle %.2f (%.0f MiB against %.0f MiB)\n", what, a / b, m / n, m / 1048576, n / 1048576 }'
