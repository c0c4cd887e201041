#!/bin/sh
# kernels/cpu/cpu_features_internal.h knows every instruction set that a -march of this compiler allows: sh cpu_features.sh ROOT COMPILER
set -eu
root=$1 compiler=$2
table=$root/kernels/cpu/cpu_features_internal.h
# No compiler chooses these, or they say nothing about instructions: aliases, systems, transactions, caches, tiles.
ignored='ABM BIGGEST_ALIGNMENT CLDEMOTE CLFLUSHOPT CLWB CLZERO CRC32 ENQCMD EVEX256 EVEX512 FSGSBASE FXSR GCC_HAVE_SYNC_COMPARE_AND_SWAP_16 HLE HRESET
         INVPCID KL LWP MOVDIR64B MOVDIRI MWAITX PCONFIG PKU PREFETCHI PREFETCHWT1 PRFCHW PTWRITE RAOINT RDPID RDPRU RDRND RDSEED RTM SERIALIZE SGX
         SHSTK TSXLDTRK UINTR USERMSR WAITPKG WBNOINVD WIDEKL XSAVE XSAVEC XSAVEOPT XSAVES'

macros() {
  "$compiler" -std=c++20 -march="$1" -dM -E -x c++ /dev/null 2>/dev/null | sed -n 's/^#define __\([A-Z][A-Z0-9_]*\)__ 1$/\1/p' | sort
}
macros x86-64 >cpu_features.base
missing=0 known=0
for march in x86-64-v2 x86-64-v3 x86-64-v4 skylake-avx512 icelake-server alderlake sapphirerapids graniterapids knl znver1 znver3 znver4 bdver4; do
  macros "$march" >cpu_features.this
  [ -s cpu_features.this ] || continue  # not known to this compiler
  known=$((known + 1))
  for name in $(comm -13 cpu_features.base cpu_features.this); do
    case " $(echo $ignored) " in *" $name "*) continue ;; esac
    case $name in AMX* | FLT16_*) continue ;; esac
    if ! grep -q "X($name," "$table"; then
      echo "-march=$march allows $name, which kernels/cpu/cpu_features_internal.h does not check and $0 does not ignore"
      missing=1
    fi
  done
done
[ $known -ge 5 ] || { echo "$compiler knows only $known of the CPUs"; exit 1; }
exit $missing
