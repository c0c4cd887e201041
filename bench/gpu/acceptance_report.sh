# shellcheck shell=bash disable=SC2154
# The report of bench/gpu_acceptance.sh, which reads this file: from cases.txt, production.tsv and step.txt in $out.

count_of() { grep -c "^$1 $2 " "$cases" 2>/dev/null || true; }  # STAGE ok|FAIL
field_of() { sed -n "s/^stage $1 \([a-zA-Z]*\) \([0-9]*\) \?\(.*\)\$/\\$2/p" "$cases" | tail -n 1; }  # STAGE 1 (verdict), 2 (seconds) or 3 (why)
all_stages="short conformance proving production torch nccl step repeats memcheck ncu"

# The last line of every case in production.tsv, longest first; torch's beside it.
production_table() {
  [ -s "$out/production.tsv" ] || return 0
  awk -F '\t' '
    $1 == "case" { next }
    $1 == "torch" { torch[$2] = ratio($3, $4); next }
    { if (!($1 in row)) order[++n] = $1; row[$1] = $0 }
    function ratio(of, by) { return of > 0 && by > 0 ? sprintf("%.2f", of / by) : "-" }
    END {
      printf "%-66s %10s %9s %8s %9s %9s %7s\n", "case", "us", "TFLOP/s", "TB/s", "x cublas", "x torch", "x copy"
      for (i = 1; i <= n; ++i) {
        split(row[order[i]], f, "\t")
        printf "%-66s %10s %9s %8s %9s %9s %7s\n", f[1], f[2], f[4] == "" ? "-" : f[4], f[5], ratio(f[2], f[6]), f[1] in torch ? torch[f[1]] : "-", ratio(f[2], f[7])
      }
    }' "$out/production.tsv"
}
# COUNT: names of the cases that take longest, one for each candidate.
longest_kernels() {
  [ -s "$out/production.tsv" ] || return 0
  grep -v -e '^case' -e '^torch' "$out/production.tsv" | LC_ALL=C sort -t "$(printf '\t')" -k 2,2 -g -r |
    awk -F '\t' -v most="$1" '{ split($1, w, " "); key = w[1] " " w[2]; if (!(key in seen) && n < most) { seen[key] = 1; ++n; print $1 } }'
}
# Model FLOP/s against the card's dense bf16 peak, from the line of `heddle bench train-step`.
mfu() {
  local peak=''
  case $card in
    *A100*) peak=312 ;;
    *H100-PCIe*) peak=756 ;;
    *H100* | *H200*) peak=989 ;;
  esac
  awk -v peak="$peak" 'match($0, /"gflops": [0-9.]+/) {
    rate = substr($0, RSTART + 10, RLENGTH - 10) / 1000
    printf "%.1f TFLOP/s of the model%s\n", rate, peak == "" ? "" : sprintf(", MFU %.1f %% of %d", 100 * rate / peak, peak) }'
}

report() {
  local name separator='' verdict
  {
    printf '%s%s\n%s\n\n%-12s %-8s %6s %6s %8s\n' "${title#\# }" "${driver:+, driver $driver}" "$about" stage verdict ok failed seconds
    for name in $all_stages; do
      verdict=$(field_of "$name" 1)
      [ -z "$verdict" ] || printf '%-12s %-8s %6d %6d %8d\n' "$name" "$verdict" "$(count_of "$name" ok)" "$(count_of "$name" FAIL)" "$(field_of "$name" 2)"
    done
    printf '\nFindings:\n'
    for name in $all_stages; do
      grep "^$name FAIL " "$cases" | cut -c1-600 || [ "$(field_of "$name" 1)" != FAILED ] || echo "$name FAIL: $(field_of "$name" 3)"
    done
    printf '\nAbsent:\n'
    for name in $all_stages; do
      [ "$(field_of "$name" 1)" != absent ] || echo "$name: $(field_of "$name" 3)"
    done
    printf '\nNo candidate takes these yet:\n'
    sed -n 's/^[a-z]* missing //p' "$cases" | LC_ALL=C sort -u | cut -c1-200
    printf '\nTimes of production (x cublas 1.10: a tenth longer than cuBLASLt; copy: as many bytes by a copy on the device):\n'
    production_table
    printf '\nTraining step:\n'
    cat "$out/step.txt" 2>/dev/null
  } >"$out/report.txt"
  {
    printf '{\n  "card": "%s",\n  "driver": "%s",\n  "program": "%s",\n  "stages": {' "$card" "$driver" "$key"
    for name in $all_stages; do
      verdict=$(field_of "$name" 1)
      [ -n "$verdict" ] || continue
      printf '%s\n    "%s": {"verdict": "%s", "seconds": %d, "ok": %d, "failed": %d}' "$separator" "$name" "$verdict" "$(field_of "$name" 2)" \
        "$(count_of "$name" ok)" "$(count_of "$name" FAIL)"
      separator=,
    done
    printf '\n  }\n}\n'
  } >"$out/report.json"
}
