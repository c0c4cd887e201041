# Every wrapper of kernels/arch/ptx.h: conformance on the simulated machine, and assembly by nvcc where it is installed.
set(ptx_kernels ptx_barrier_kernels.cu ptx_memory_kernels.cu ptx_tma_kernels.cu ptx_warp_kernels.cu ptx_wgmma_kernels.cu)
heddle_sim_kernels(sim_ptx_kernels SOURCES ${ptx_kernels})
heddle_sim_test(sim_ptx
  SOURCES ptx_barrier_test.cpp ptx_memory_test.cpp ptx_tma_test.cpp ptx_warp_test.cpp ptx_wgmma_test.cpp
  KERNELS sim_ptx_kernels
  LINKS heddle_sim_cudart)

if(HEDDLE_HAVE_CUDA)
  # The conformance kernels use both vocabularies, so they assemble for Hopper only.
  set(assembled_sm_80 ptx_assemble_sm80.cu)
  set(assembled_sm_90a ptx_assemble_sm80.cu ptx_assemble_sm90.cu ${ptx_kernels})
  foreach(arch 80 90a)
    foreach(source ${assembled_sm_${arch}})
      add_test(NAME ptx_assembles_sm_${arch}_${source}
        COMMAND ${CMAKE_COMMAND} -DSOURCE=${CMAKE_CURRENT_SOURCE_DIR}/${source} -DNVCC=${HEDDLE_NVCC} -DARCH=${arch} -DROOT=${PROJECT_SOURCE_DIR}
                -DOUT=${CMAKE_CURRENT_BINARY_DIR}/sm_${arch} -P ${CMAKE_CURRENT_SOURCE_DIR}/ptx_assemble.cmake)
      set_tests_properties(ptx_assembles_sm_${arch}_${source} PROPERTIES TIMEOUT 300 LABELS sim)
    endforeach()
  endforeach()
endif()
