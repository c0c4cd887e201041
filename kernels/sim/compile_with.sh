#!/bin/sh
# A compiler launcher that changes the compiler: compile_with.sh COMPILER [LAUNCHER...] -- the-usual-compiler ARGUMENTS...
compiler=$1
shift
launcher=
while [ "$1" != -- ]; do
  launcher="$launcher $1"
  shift
done
shift 2
exec $launcher "$compiler" "$@"
