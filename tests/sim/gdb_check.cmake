# cmake -DGDB=program -DPROGRAM=sim_ptx_plain -DROOT=... -P gdb_check.cmake: gdb stops inside a kernel, in one thread of one block, once, as
# kernels/sim/README.md tells; the stack shows the kernel and current_thread that thread, and a local variable has its value where the compiler kept it.
if(NOT GDB)
  message("not tried: no gdb here")
  return()
endif()
# A gdb older than the processor's register state (AMX) can call no function in it, and so test no condition: gdb 13 then hangs.
execute_process(COMMAND ${GDB} -nx -batch -ex "set debuginfod enabled off" -ex "break main" -ex run -ex "print (int) getpid()" -ex kill --args ${PROGRAM} --list-tests
                OUTPUT_VARIABLE said ERROR_VARIABLE said TIMEOUT 30)
if(said MATCHES "write extended state")
  message("not tried: this gdb cannot set the registers of this processor")
  return()
endif()
set(source ptx_sm90_kernels.cu)
file(READ ${ROOT}/tests/sim/${source} text)
string(FIND "${text}" "ptx::red_add_v4_f32(reals, float4{1.0f, i" at)  # in vector_atomics, behind `i = threadIdx.x`
string(SUBSTRING "${text}" 0 ${at} before)
string(REGEX MATCHALL "\n" lines "${before}")
list(LENGTH lines line)
math(EXPR line "${line} + 1")
execute_process(
  COMMAND ${CMAKE_COMMAND} -E env HEDDLE_SIM_THREADS=1 ${GDB} -nx -batch -ex "set debuginfod enabled off" -ex "break ${source}:${line} if heddle_at(2, 17)"
          -ex run -ex bt -ex "print heddle::sim::current_thread->index" -ex "print i" -ex continue --args ${PROGRAM} "ptx: atomics of many threads lose nothing"
  OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE status TIMEOUT 100)
if(said MATCHES "ptrace|Could not trace")
  message("not tried: gdb may not trace here")
  return()
endif()
string(REGEX MATCHALL "Breakpoint 1, [^\n]*vector_atomics" stops "${said}")
list(LENGTH stops times)
if(NOT times EQUAL 1 OR NOT said MATCHES "#0 [^\n]*vector_atomics[^\n]*:${line}" OR NOT said MATCHES "= {x = 17, y = 0, z = 0}" OR
   NOT said MATCHES "= (17|<optimized out>)\n")
  message(FATAL_ERROR "${source}:${line}: gdb stopped ${times} times in block 2, thread 17, and said\n${said}")
endif()
