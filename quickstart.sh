#!/usr/bin/env bash
# From nothing to a trained language model on this machine: installs what is missing, builds heddle, makes a small public-domain corpus (the King
# James Bible, 4.1 MB), trains on 95% of its chapters and reports bits per byte on the held-out 5% beside three compressors that have read the
# same training chapters. Run it again and it continues an interrupted run, or shows the report of a finished one.
set -euo pipefail
cd "$(dirname "$0")"
. cmake/packages.sh

usage() {
  cat <<'TEXT'
usage: ./quickstart.sh [--seed N] [--minutes M] [--out DIR] [--fresh] [--no-install] [-- FLAGS OF heddle pretrain...]
  --seed N      another initialisation and data order (default: the recipe's)
  --minutes M   train for M minutes instead of the recipe's steps: the learning rate decays to its end within them
  --out DIR     run directory (default: run/quickstart)
  --fresh       delete the run directory first
  --no-install  never call apt-get install
TEXT
}

out=run/quickstart fresh=0 flags=()
while [ $# -gt 0 ]; do
  case $1 in
    --seed | --minutes | --out) [ $# -gt 1 ] || { echo "quickstart.sh: $1 takes a value" >&2; usage >&2; exit 2; } ;;
  esac
  case $1 in
    --seed) flags+=(--seed "$2"); shift ;;
    --minutes) flags+=(--minutes "$2"); shift ;;
    --out) out=$2; shift ;;
    --fresh) fresh=1 ;;
    --no-install) install_packages=0 ;;
    --) shift; flags+=("$@"); break ;;
    -h | --help) usage; exit 0 ;;
    *) echo "quickstart.sh: unknown option $1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

work=build/kjv  # corpus text and compressor sizes
data=data-kjv   # token shards
mkdir -p "$work"

phases=() phase_begin=$SECONDS
phase() { printf '\n== %s ==\n' "$1"; phase_begin=$SECONDS; phase_name=$1; }
phase_end() { phases+=("$phase_name|$((SECONDS - phase_begin))"); }
die() { echo "quickstart.sh: $*" >&2; exit 1; }

# ---- the program ----
phase "build"
need_packages build/apt.log $heddle_packages xz-utils
cmake --preset cpu >build/configure.log 2>&1 || { cat build/configure.log; die "configure failed"; }
cmake --build --preset cpu --target heddle_program
heddle=build/cpu/bin/heddle
phase_end

# ---- the corpus: one line a verse, one blank line between chapters; 1,189 documents ----
corpus_sha256=82a24e4e23c644fe579ed387b20e54eb529cc0a87a25e0810064edb2216780c2
make_corpus() {
  local bible=(bible)
  if ! command -v bible >/dev/null && ! need_packages build/apt.log bible-kjv; then
    echo "without root: unpacking bible-kjv below $work"
    (cd "$work" && apt-get download bible-kjv bible-kjv-text >/dev/null && for deb in bible-kjv*.deb; do dpkg -x "$deb" packages; done) ||
      die "no bible-kjv package: see $work, or install it by hand (apt-get install bible-kjv)"
    bible=("$work/packages/usr/bin/bible" -p "$work/packages/usr/lib")
  fi
  "${bible[@]}" -f 'Gen1:1-Rev22:21' |
    awk '{split($1,a,":"); if(a[1]!=p&&p!="")print ""; p=a[1]; sub(/^[^ ]+ /,""); print}' >"$work/kjv.part"
  [ "$(wc -c <"$work/kjv.part")" -gt 4000000 ] || die "the bible program printed only $(wc -c <"$work/kjv.part") bytes"
  mv "$work/kjv.part" "$work/kjv.txt"
}
# Held out is chapter i (from 0) iff floor((i+1) x) > floor(i x): the rule of `heddle tokenize --val-fraction x`.
val_fraction=0.05
split_corpus() {
  awk -v x=$val_fraction -v train="$work/train.txt" -v val="$work/val.txt" '
    BEGIN { RS = ""; printf "" >train; printf "" >val }
    { i = NR - 1; file = int((i + 1) * x) > int(i * x) ? val : train; printf "%s%s\n", count[file]++ ? "\n" : "", $0 >file }' "$work/kjv.txt"
}

phase "corpus"
[ -s "$work/kjv.txt" ] || make_corpus
reference=1
if [ "$(sha256sum <"$work/kjv.txt" | cut -d' ' -f1)" != $corpus_sha256 ]; then
  echo "this bible-kjv prints another text than the one the stored figures are for; training goes on with it"
  reference=0
fi
split_corpus
echo "$(wc -c <"$work/train.txt") bytes to train on, $(wc -c <"$work/val.txt") held out"
if [ ! -s "$data/dataset.json" ]; then
  "$heddle" tokenize --input "$work/kjv.txt" --tokenizer bpe:2048 --document-separator blank-line --val-fraction $val_fraction --out "$data"
fi
phase_end

# ---- training ----
phase "training"
if [ $fresh = 1 ] && [ -e "$out" ]; then
  [ -f "$out/config.toml" ] || die "--fresh: $out does not look like a run directory (no config.toml); delete it yourself"
  rm -rf "$out"
fi
stopped=0
set +e
"$heddle" pretrain --config examples/recipes/quickstart.toml --data "$data/*_train_*.bin" --val "$data/*_val_*.bin" --out "$out" "${flags[@]}"
code=$?
set -e
case $code in
  0) ;;
  75) stopped=1  # the time limit: checkpointed
    [ -s "$out/LATEST" ] || { echo "the time was over before the first step: give it more minutes"; exit 75; } ;;
  *) echo "quickstart.sh: training ended with code $code; ./quickstart.sh continues from the last checkpoint, --fresh starts over" >&2; exit $code ;;
esac
phase_end

# ---- held-out bits per byte, and a sample ----
phase "evaluation"
evaluated=$("$heddle" eval "$out" --data "$data/*_val_*.bin" --stride 64 --json)
number() { sed -n "s/.*\"$1\": *\([-0-9.e+]*\).*/\1/p" <<<"$evaluated" | head -n 1; }
bits=$(number bits_per_byte)
window=$(number window)
stride=$(number stride)
bytes=$(number bytes)
[ -n "$bits" ] || die "heddle eval printed no bits_per_byte: $evaluated"
phase_end

phase "sample"
"$heddle" generate "$out" --prompt "And it came to pass" --max-new-tokens 120 --temperature 0.8 --top-p 0.95 --seed 1
phase_end

# ---- compressors: bits they add for the held-out chapters after the training chapters, over the held-out bytes ----
size_xz() { xz -9e -c "$1" | wc -c; }
size_7z() { rm -f "$1.7z"; 7z a -t7z -bd -y -m0=PPMd:o=8:mem=256m "$1.7z" "$1" >/dev/null && wc -c <"$1.7z"; }
size_zpaq() { rm -f "$1.zpaq"; zpaq a "$1.zpaq" "$1" -m5 -t1 >/dev/null 2>&1 && wc -c <"$1.zpaq"; }
# compressor NAME PROGRAM STORED: "bits how", measured here, remembered, or the stored figure for the reference text.
compressor() {
  local name=$1 program=$2 stored=$3 memory="$work/$1.bits" before after
  if [ -s "$memory" ] && [ "$memory" -nt "$work/kjv.txt" ]; then
    echo "$(cat "$memory") measured here"
  elif command -v "$program" >/dev/null; then
    "size_$name" "$work/train.txt" >"$work/$name.before" &
    after=$("size_$name" "$work/both.txt") && wait $! && before=$(cat "$work/$name.before") || { echo "- failed"; return; }
    awk -v a="$before" -v b="$after" -v n="$(wc -c <"$work/val.txt")" 'BEGIN { printf "%.3f", 8 * (b - a) / n }' >"$memory"
    echo "$(cat "$memory") measured here"
  elif [ $reference = 1 ]; then
    echo "$stored stored figure ($program is not installed)"
  else
    echo "- $program is not installed"
  fi
}
phase "compressors"
{ cat "$work/train.txt"; echo; cat "$work/val.txt"; } >"$work/both.txt"
read -r xz_bits xz_how <<<"$(compressor xz xz 1.65)"
read -r ppmd_bits ppmd_how <<<"$(compressor 7z 7z 1.38)"
read -r zpaq_bits zpaq_how <<<"$(compressor zpaq zpaq 1.35)"
rm -f "$work"/*.7z "$work"/*.zpaq "$work/both.txt" "$work"/*.before
echo "done"
phase_end

# ---- the report ----
speed=$(sed -n 's/.*"tokens_per_s": *\([0-9.e+]*\).*/\1/p' "$out/metrics.jsonl" 2>/dev/null | sort -g | awk '{ v[NR] = $1 } END { if (NR) printf "%.0f", v[int((NR + 1) / 2)] }')
printf '\n%s\n' "------------------------------------------------------------------------"
printf 'held-out bits per byte (5%% of the chapters; less is better)\n'
printf '  %-12s %7.3f  %s\n' heddle "$bits" "trained on the other chapters$([ $stopped = 1 ] && echo '; stopped early')"
printf '  %-12s %7s  %s\n' "zpaq -m5" "$zpaq_bits" "$zpaq_how" "7z PPMd" "$ppmd_bits" "$ppmd_how" "xz -9e" "$xz_bits" "$xz_how"
printf 'heddle: each of the %s held-out bytes counted once, windows of %s tokens that move by %s.\n' "$bytes" "$window" "$stride"
printf 'Each compressor has read the training chapters before the held-out ones.\n\n'
printf 'training speed   %s tokens/s (median step)\n' "${speed:-unknown}"
for row in "${phases[@]}"; do
  printf '%-16s %d:%02d\n' "${row%|*}" $((${row#*|} / 60)) $((${row#*|} % 60))
done
printf '\nthe run lies in %s: config.toml, metrics.jsonl, TensorBoard events, checkpoints\n' "$out"
printf 'talk to it:      %s generate %s --prompt "In the beginning"\n' "$heddle" "$out"
if [ $stopped = 1 ]; then
  echo "it is not finished: the same command continues where it stopped"
fi
