#!/bin/sh
# A compiler launcher for kernels of the check flavour: compile_checked.sh OBJCOPY COMPILER [LAUNCHER...] -- the-usual-compiler ARGUMENTS...
#
# Compiles with COMPILER, then lets calls of memcpy, memmove and memset go to the checker: -fsanitize=thread turns copies of whole structs (a float4)
# into such calls, which libtsan would intercept by replacing the C library's, for the machine and the host program too.
objcopy=$1 compiler=$2
shift 2
launcher=
while [ "$1" != -- ]; do
  launcher="$launcher $1"
  shift
done
shift 2
$launcher "$compiler" "$@" || exit $?
object= previous=
for argument; do
  [ "$previous" = -o ] && object=$argument
  previous=$argument
done
case $object in
  *.o)
    # A new file: a compiler cache may hold the old one by a link.
    "$objcopy" --redefine-sym memcpy=__tsan_memcpy --redefine-sym memmove=__tsan_memmove --redefine-sym memset=__tsan_memset \
      "$object" "$object.checked" && mv "$object.checked" "$object"
    ;;
esac
