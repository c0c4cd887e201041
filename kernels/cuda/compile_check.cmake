# cmake -DSOURCES=a.cu,b.cu -DNVCC=... -DARCH=80 -DROOT=... -DOUT=... [-DALSO=90a] [-DWITH=DIR] [-DDEFINE=NAME] [-DWERROR=ON] [-DGATE=program] [-DGOLDEN=none]
#       [-DWRITE=ON] -P compile_check.cmake
#
# Compiles SOURCES (below ROOT) for one architecture; fails, with WERROR, on a warning, and on a note that ptxas gave an optimisation up. ALSO: the same PTX goes
# to code of a second architecture as well, as a driver would do it; that is judged by the run for it, to which WITH names this one's OUT. With GATE
# (resource_gate) also on spills and, unless GOLDEN is none, on what differs from the golden table, see resource_gate.cpp; WRITE=ON makes the table's rows
# anew. What it leaves in OUT: NAME.o, ptxas.log, version. sass_check.cmake goes on from there.
file(MAKE_DIRECTORY ${OUT})
execute_process(COMMAND ${NVCC} --version OUTPUT_VARIABLE version)
string(REGEX MATCH "release ([0-9]+\\.[0-9]+)" unused "${version}")
file(WRITE ${OUT}/version "${CMAKE_MATCH_1}")
set(version ${CMAKE_MATCH_1})

set(logs "")
set(warnings "")
if(WERROR)
  set(warnings -Werror all-warnings)
endif()
if(DEFINE)
  list(APPEND warnings -D${DEFINE})
endif()
set(code sm_${ARCH})
if(ALSO)
  set(code [sm_${ARCH},sm_${ALSO}])
endif()
if(WITH)
  file(READ ${WITH}/ptxas.log logs)
endif()
string(REPLACE "," ";" sources "${SOURCES}")
foreach(source ${sources})
  get_filename_component(name ${source} NAME)
  execute_process(
    COMMAND ${NVCC} -std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -gencode=arch=compute_${ARCH},code=${code} ${warnings} -Xptxas -v
            -I${ROOT} -c ${ROOT}/${source} -o ${OUT}/${name}.o
    OUTPUT_VARIABLE log ERROR_VARIABLE log RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${source} does not compile for sm_${ARCH}:\n${log}")
  endif()
  if(log MATCHES "[^\n]*(C75[0-9][0-9]|serialized|ignored)[^\n]*")
    message(FATAL_ERROR "${source} on sm_${ARCH}: ${CMAKE_MATCH_0}")
  endif()
  string(APPEND logs "${log}")
endforeach()
file(WRITE ${OUT}/ptxas.log "${logs}")

if(GATE)
  if(NOT GOLDEN)
    set(GOLDEN ${ROOT}/kernels/cuda/golden)
  endif()
  set(options "")
  if(WRITE)
    set(options --write)
  endif()
  string(REGEX REPLACE "[^0-9]" "" number "${ARCH}")
  execute_process(COMMAND ${GATE} ${number} ${version} ${OUT}/ptxas.log ${GOLDEN} ${options} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "sm_${ARCH}: see FAULT above. A change that is wanted: build the target cuda_golden and look at what it changed")
  endif()
endif()
