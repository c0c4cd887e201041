# cmake -DSOURCES=... -DNVCC=... -DARCH=80 -DROOT=... -DOUT=... -P compile_check.cmake: compiles SOURCES, fails on a warning or a register spill.
file(MAKE_DIRECTORY ${OUT})
foreach(source ${SOURCES})
  execute_process(
    COMMAND ${NVCC} -std=c++20 -O3 -lineinfo --expt-relaxed-constexpr -gencode=arch=compute_${ARCH},code=sm_${ARCH} -Werror all-warnings -Xptxas -v
            -I${ROOT} -c ${ROOT}/kernels/cuda/${source} -o ${OUT}/${source}.o
    OUTPUT_VARIABLE log ERROR_VARIABLE log RESULT_VARIABLE status)
  message("${log}")
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${source} does not compile for sm_${ARCH}")
  endif()
  string(REGEX MATCHALL "[1-9][0-9]* bytes spill" spills "${log}")
  if(spills)
    message(FATAL_ERROR "${source} spills registers on sm_${ARCH}: ${spills}")
  endif()
  if(log MATCHES "serialized")
    message(FATAL_ERROR "${source}: ptxas serialized an instruction sequence on sm_${ARCH}")
  endif()
endforeach()
