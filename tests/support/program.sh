# For tests of the real program that are shell scripts: `. "$(dirname "$0")/../support/program.sh"` first. A scratch folder is the working directory and
# goes at the end; every file in it called log or *.log is shown when the test fails. The caller sets `heddle` and, for ranks, `mpirun`.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1
work=$(mktemp -d "${TMPDIR:-/tmp}/heddle-test-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

die() {
  echo "FAILED: $*" >&2
  for log in "$work"/log "$work"/*.log; do
    [ ! -e "$log" ] || { echo "==> $log" >&2; tail -n 30 "$log" >&2; }
  done
  exit 1
}
has_mpi() { [ -n "$mpirun" ] && command -v "$mpirun" >/dev/null; }
need_mpi() {
  has_mpi || { echo "skipped: this build or machine has no MPI"; exit 77; }
}
# Until a command succeeds, for $patience seconds at most; it is tried every $pause seconds.
patience=60 pause=0.01
until_true() {
  last=$(($(date +%s) + patience))
  until "$@"; do
    [ "$(date +%s)" -lt $last ] || die "not within $patience s: $*"
    sleep $pause
  done
}
