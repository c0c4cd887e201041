# Installs into an empty prefix, moves it (a package must not remember where it was made), builds the consumer against it and runs it.
cmake_minimum_required(VERSION 3.22)

function(step what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE failed OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(failed)
    message(FATAL_ERROR "${what} failed (${failed}):\n${said}")
  endif()
  set(said "${said}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK}/first ${WORK}/prefix ${WORK}/build)
step("install" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first)
file(RENAME ${WORK}/first ${WORK}/prefix)

# No installed header may need a package that the consumer does not have.
file(GLOB_RECURSE headers ${WORK}/prefix/include/*.h)
foreach(header ${headers})
  file(STRINGS ${header} others REGEX "#include <(nlohmann|CLI|toml|Eigen|dnnl|oneapi|mpi\\.h|catch2|openssl|cuda|nccl)")
  if(others)
    message(FATAL_ERROR "${header} is installed and includes ${others}")
  endif()
endforeach()

step("configure" ${CMAKE_COMMAND} -S ${CONSUMER} -B ${WORK}/build -G ${GENERATOR} -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_PREFIX_PATH=${WORK}/prefix)
step("build" ${CMAKE_COMMAND} --build ${WORK}/build)
step("run" ${WORK}/build/consumer)
message("${said}")
if(NOT said MATCHES "heddle speaks")
  message(FATAL_ERROR "the consumer said nothing")
endif()
