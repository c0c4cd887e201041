# cmake -DSOURCE=... -DNVCC=... -DARCH=80 -DROOT=... -DOUT=... [-DWERROR=ON] -P ptx_assemble.cmake: nvcc and ptxas take SOURCE, with WERROR without a
# warning, and without a note that an instruction sequence was serialised or a directive ignored (C75xx).
get_filename_component(name ${SOURCE} NAME)
file(MAKE_DIRECTORY ${OUT})
set(warnings "")
if(WERROR)
  set(warnings -Werror all-warnings)
endif()
execute_process(
  COMMAND ${NVCC} -std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -gencode=arch=compute_${ARCH},code=sm_${ARCH} ${warnings} -Xptxas -v
          -I${ROOT} -c ${SOURCE} -o ${OUT}/${name}.o
  OUTPUT_VARIABLE log ERROR_VARIABLE log RESULT_VARIABLE status)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${name} does not assemble for sm_${ARCH}:\n${log}")
endif()
if(log MATCHES "[^\n]*(C75[0-9][0-9]|serialized|ignored)[^\n]*")
  message(FATAL_ERROR "${name} on sm_${ARCH}: ${CMAKE_MATCH_0}")
endif()
