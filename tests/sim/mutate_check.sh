#!/bin/sh
# sh mutate_check.sh HEDDLE_MUTATE: what heddle-mutate says and leaves behind. Shell scripts stand in for the program under test: they write the list of
# mutations that a test of the simulated machine would write.
mutate=$1
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
export TMPDIR="$folder/tmp"
mkdir "$TMPDIR"
failures=0

fault() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# program NAME: makes a script of its standard input. It finds $list, the place for the list, empty in a run with a mutation.
program() {
  { echo 'list=$HEDDLE_SIM_MUTATE_LIST'; cat; } >"$folder/$1"
}

# expect CODE TEXT ARGUMENTS: the exit code, a part of what is said, and no file left behind.
expect() {
  code=$1 text=$2
  shift 2
  said=$(timeout 20 "$mutate" "$@" 2>&1)
  status=$?
  [ "$status" = "$code" ] || fault "heddle-mutate $*: exit code $status instead of $code: $said"
  case $said in
    *"$text"*) ;;
    *) fault "heddle-mutate $*: not '$text' but: $said" ;;
  esac
  nothing_left "heddle-mutate $*"
}

nothing_left() {
  left=$(ls "$TMPDIR")
  [ -z "$left" ] || fault "$1 leaves behind $left"
  rm -rf "$TMPDIR" && mkdir "$TMPDIR"
}

# gone WHAT FILE: the process whose number is in FILE has ended; where nobody waits for orphans, it stays as a zombie.
gone() {
  process=$(cat "$2")
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    grep -qs '^State:.[^ZX]' "/proc/$process/status" || return
    sleep 0.1
  done
  fault "$1: process $process is still there"
  kill -9 "$process"
}

# ---- options ----
program good <<'END'
if [ -n "$list" ]; then echo 'a.cu:1#__syncthreads:drop' >"$list"; exit 0; fi
exit 1
END
for jobs in 0 0.5 -1 2x '' 1e3; do
  expect 2 "--jobs takes a whole number from 1 to 1024, not '$jobs'" --jobs "$jobs" -- sh "$folder/good"
done
expect 0 "1 of 1 mutations found" --jobs 2 -- sh "$folder/good"

# ---- nothing to mutate, and why ----
expect 2 "no synchronisation was executed" -- true
expect 2 "none of the 1 mutations matches --only" --only b.cu -- sh "$folder/good"
expect 2 "each of the 1 mutations that --only chooses is left out by --ignore" --only a.cu --ignore sync -- sh "$folder/good"
echo '__syncthreads();  // heddle-mutate: ignore' >"$folder/marked.cu"
echo "echo '$folder/marked.cu:1#__syncthreads:drop' >\$list" | program marked
expect 2 "each of the 1 mutations is left out by 'heddle-mutate: ignore' in the source" -- sh "$folder/marked"

# ---- the run without a mutation goes wrong ----
expect 2 "the program fails without any mutation: exit code 1" -- false
expect 2 "the program fails without any mutation: timed out after 0.3 s" --timeout 0.3 -- sleep 30
echo 'kill -SEGV $$' | program dying
expect 2 "the program fails without any mutation: signal 11" -- sh "$folder/dying"
echo 'echo "wrong sum"; exit 3' | program wrong
expect 2 "the program fails without any mutation: exit code 3: wrong sum" -- sh "$folder/wrong"
expect 2 "cannot start /nonexistent" -- /nonexistent

# ---- the whole line of a report, however long ----
long=$(printf '%0300d' 7)
program long <<END
if [ -n "\$list" ]; then echo 'a.cu:1#__syncthreads:drop' >"\$list"; exit 0; fi
echo "[sim] $long (a.cu:31)"
exit 1
END
expect 0 "[sim] $long (a.cu:31)" -- sh "$folder/long"

# ---- what the program started goes with it ----
program parent <<END
sleep 60 &
echo \$! >"$folder/child"
[ -z "\$list" ] || { echo 'a.cu:1#__syncthreads:drop' >"\$list"; exit 0; }
wait
END
expect 0 "hung     a.cu:1#__syncthreads:drop" --timeout 0.5 -- sh "$folder/parent"
gone "after a timeout" "$folder/child"
for signal in TERM INT; do
  rm -f "$folder/child"
  # A shell starts what runs in the background deaf to SIGINT; env gives the signal back.
  env --default-signal=INT "$mutate" -- sh "$folder/parent" >"$folder/said" 2>&1 &
  running=$!
  sleep 1
  kill -"$signal" "$running"
  wait "$running"
  status=$?
  [ "$status" -gt 128 ] || fault "heddle-mutate ends with code $status on SIG$signal"
  nothing_left "heddle-mutate on SIG$signal"
  gone "after SIG$signal" "$folder/child"
done

[ "$failures" = 0 ] && echo "all is well" || exit 1
