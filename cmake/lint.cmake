# The rules of the house that a compiler does not check:  cmake -P cmake/lint.cmake   (also ctest `lint`)
#
# -DROOT=DIR reads another tree (the self-test does); -DFORMAT=OFF leaves clang-format out. Every violation is one line
# `file:line: [rule] what is wrong`; any violation fails. cmake/lint_self_test.cmake plants one of each and sees it found.
cmake_minimum_required(VERSION 3.22)
if(NOT ROOT)
  get_filename_component(ROOT ${CMAKE_CURRENT_LIST_DIR} DIRECTORY)
endif()

# ---- what may include what: the first row whose folder holds the file decides ----
# Between top-level folders arrows point left: kernels <- core <- {optim, data, parallel}; {core, parallel} <- {models, checkpoint};
# {models, checkpoint, data} <- infer; all of these <- train <- {app, examples}; bench and tests see all. Above the kernels only their contracts are known.
set(ARROWS
  "kernels/api|kernels/api"
  "kernels/cpu|kernels/api kernels/cpu"
  "kernels/arch|kernels/api kernels/arch kernels/sim"
  "kernels/sim|kernels/api kernels/arch kernels/sim"
  "kernels/cuda|kernels/api kernels/arch kernels/cuda"
  "kernels/vendor|kernels/api kernels/vendor"
  "core|kernels/api core"
  "optim|kernels/api core optim"
  "data|kernels/api core data"
  "parallel|kernels/api core parallel"
  "models|kernels/api core parallel models"
  "checkpoint|kernels/api core parallel checkpoint"
  "infer|kernels/api core parallel models checkpoint data infer"
  "train|kernels/api core parallel models checkpoint infer optim data train"
  "app|kernels/api core parallel models checkpoint infer optim data train app"
  "examples/custom_kernel|kernels/api kernels/arch examples"
  "examples|kernels/api core parallel models checkpoint infer optim data train examples"
  "bench|kernels core parallel models checkpoint infer optim data train bench tests"
  "tests|kernels core parallel models checkpoint infer optim data train app examples bench tests")

set(FOLDERS kernels core parallel optim data models checkpoint infer train app examples bench tests cmake)
set(LIBRARY_CODE "^(kernels|core|parallel|optim|data|models|checkpoint|infer|train)/")

# Headers of other libraries, by the path in the include line.
set(CUDA_HEADERS "^(cuda|cublas|cudnn|curand|cusparse|cusolver|cufile|nvrtc|nvml|nvToolsExt|nvtx3?/|nccl|cub/|thrust/|cutlass/|cute/|cooperative_groups|driver_types|device_launch|vector_types|mma\\.h)")
set(THIRD_PARTY "^(nlohmann/|CLI/|toml\\+\\+|toml\\.hpp|Eigen/|unsupported/Eigen/|dnnl|oneapi/|mpi\\.h|catch2/|openssl/|zlib\\.h|zstd)")
# The headers that may include them: none of these is installed.
set(THIRD_PARTY_MAY "^(core/io/strict_json\\.h|tests/.*|kernels/sim/.*|.*_internal\\.h)$")
set(STANDARD_HEADER "^[a-z_0-9]+$")

function(report file line rule text)
  message("${file}:${line}: [${rule}] ${text}")
  set_property(GLOBAL APPEND PROPERTY VIOLATIONS x)
endfunction()

string(ASCII 1 SEMICOLON)  # stands for ";" while a text is split into lines

# Reports each line of `text` (content of `file`) that matches `regex`. Text after // counts only when WITH_COMMENTS is given.
function(forbid file text regex rule message)
  if(NOT "${${text}}" MATCHES "${regex}")
    return()
  endif()
  set(lines "${${text}}")
  # A CMake list splits at ";", unless a bracket is open or a backslash stands before it.
  string(REGEX REPLACE "[][\\\\]" " " lines "${lines}")
  string(REPLACE ";" "${SEMICOLON}" lines "${lines}")
  string(REPLACE "\n" ";" lines "${lines}")
  set(number 0)
  foreach(line IN LISTS lines)
    math(EXPR number "${number} + 1")
    if(NOT "WITH_COMMENTS" IN_LIST ARGN)
      string(REGEX REPLACE "//.*$" "" line "${line}")
    endif()
    if("${line}" MATCHES "${regex}")
      report(${file} ${number} "${rule}" "${message}")
    endif()
  endforeach()
endfunction()

function(line_of text needle out)
  string(FIND "${text}" "${needle}" at)
  string(SUBSTRING "${text}" 0 ${at} before)
  string(REGEX MATCHALL "\n" newlines "${before}")
  list(LENGTH newlines n)
  if(needle MATCHES "^\n")
    math(EXPR n "${n} + 1")
  endif()
  math(EXPR n "${n} + 1")
  set(${out} ${n} PARENT_SCOPE)
endfunction()

# Is `path` inside one of the folders?
function(inside path out)
  set(${out} FALSE PARENT_SCOPE)
  foreach(folder ${ARGN})
    if("${path}" MATCHES "^${folder}/")
      set(${out} TRUE PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# ---- include lines of one file, whose text is in `content` ----
function(check_includes file)
  set(allowed "")
  foreach(row ${ARROWS})
    string(REPLACE "|" ";" cells "${row}")
    list(GET cells 0 from)
    if("${file}" MATCHES "^${from}/")
      list(GET cells 1 allowed)
      string(REPLACE " " ";" allowed "${allowed}")
      break()
    endif()
  endforeach()
  string(REGEX MATCHALL "(^|\n)[ \t]*#[ \t]*include[ \t]*[<\"][^>\"\n]+[>\"]" includes "${content}")
  foreach(include IN LISTS includes)
    string(REGEX MATCH "[<\"]([^>\"]+)" unused "${include}")
    set(path "${CMAKE_MATCH_1}")
    line_of("${content}" "${include}" line)

    if("${include}" MATCHES "\"")
      if(NOT EXISTS "${ROOT}/${path}" AND NOT file MATCHES "^tests/walks/")  # those stand in for files of the tree
        report(${file} ${line} includes "\"${path}\" is no path from the top of the tree (quotes are for heddle's own headers)")
      else()
        inside("${path}" ok ${allowed})
        if(NOT ok)
          report(${file} ${line} arrows "includes ${path}; files here may include ${allowed}")
        endif()
      endif()
    else()
      if("${path}" MATCHES "^(${TOP_REGEX})/")
        report(${file} ${line} includes "<${path}>: heddle's own headers take quotes")
      endif()
      if("${file}" MATCHES "^kernels/api/" AND NOT "${path}" MATCHES "${STANDARD_HEADER}")
        report(${file} ${line} arrows "kernels/api includes the standard library and itself, not <${path}>")
      endif()
      if("${file}" MATCHES "\\.cuh?$" AND NOT "${path}" MATCHES "${STANDARD_HEADER}" AND NOT "${file}" MATCHES "^(kernels/(arch|sim)|tests|bench)/")
        report(${file} ${line} cuda-sources "a .cu or .cuh includes kernels/{api,arch,cuda} and the standard library, not <${path}>")
      endif()
      if("${path}" MATCHES "${CUDA_HEADERS}" AND NOT "${file}" MATCHES "^(kernels/(cuda|arch|sim|vendor)|tests/sim)/|_cuda\\.cpp$|^parallel/nccl_communicator\\.cpp$")
        report(${file} ${line} cuda-headers "<${path}> belongs in kernels/{cuda,arch,sim,vendor}, tests/sim, parallel/nccl_communicator.cpp or a *_cuda.cpp")
      endif()
      if("${path}" MATCHES "${THIRD_PARTY}" AND "${file}" MATCHES "\\.(h|cuh|cu)$" AND NOT "${file}" MATCHES "${THIRD_PARTY_MAY}")
        report(${file} ${line} third-party "<${path}> belongs in a .cpp or an *_internal.h: public headers carry no other library")
      endif()
      if("${path}" MATCHES "^(format|source_location|print|expected|mdspan|generator|stacktrace)$")
        report(${file} ${line} old-compilers "g++ 12 and clang 14 have no <${path}>")
      endif()
    endif()
  endforeach()
endfunction()

# ---- every file ----
list(JOIN FOLDERS "|" TOP_REGEX)
set(files "")
foreach(folder ${FOLDERS})
  file(GLOB_RECURSE found RELATIVE ${ROOT} ${ROOT}/${folder}/*)
  list(APPEND files ${found})
endforeach()
file(GLOB found RELATIVE ${ROOT} ${ROOT}/* ${ROOT}/.ci/*)
list(APPEND files ${found})
list(FILTER files EXCLUDE REGEX "__pycache__|~$|\\.orig$")
list(REMOVE_DUPLICATES files)

set(cxx_files "")
set(source_folders "")
set(checked 0)
foreach(file ${files})
  if(IS_DIRECTORY ${ROOT}/${file})
    continue()
  endif()
  get_filename_component(folder "${file}" DIRECTORY)
  get_filename_component(name "${file}" NAME)
  if(NOT file MATCHES "\\.(h|cpp|cu|cuh|cmake|py|sh|toml|md|json|sbatch|in)$" AND NOT name MATCHES "^(CMakeLists\\.txt|run|\\.gitignore)$")
    continue()
  endif()
  file(READ ${ROOT}/${file} content)
  math(EXPR checked "${checked} + 1")

  if(file MATCHES "\\.(h|cpp|cu|cuh|py|sh|cmake)$" OR name STREQUAL "CMakeLists.txt")
    if(folder AND NOT name STREQUAL "CMakeLists.txt")
      list(APPEND source_folders ${folder})
    endif()
    string(REGEX MATCHALL "\n" newlines "${content}")
    list(LENGTH newlines n)
    if(n GREATER 800)
      report(${file} 800 length "${n} lines; a file has at most 800")
    endif()
  endif()
  forbid("${file}" content "(^|[^A-Za-z0-9_])(TO[D]O|FIX[M]E|X[X]X|HA[C]K)([^A-Za-z0-9_]|$)" unfinished "finish it or leave it out" WITH_COMMENTS)
  forbid("${file}" content "(^|[^A-Za-z0-9_.}])/(wor[k]|hom[e]|roo[t]|User[s]|mn[t])/[A-Za-z]" machine-path "a path of one machine" WITH_COMMENTS)
  forbid("${file}" content "(DESIG[N]|CONTRACT[S])\\.md|share[d]/(reference|hooks|data/)" machine-path "names a page that is not in this tree" WITH_COMMENTS)

  if(name STREQUAL "CMakeLists.txt")
    forbid("${file}" content "file\\([ ]*GLOB" listed "sources are listed by name")
  endif()
  if(file MATCHES "\\.(cpp|cu)$")
    list(APPEND sources ${file})
  endif()
  if(NOT file MATCHES "\\.(h|cpp|cu|cuh)$")
    continue()
  endif()

  list(APPEND cxx_files ${file})
  check_includes("${file}")
  if(file MATCHES "\\.(h|cuh)$" AND NOT content MATCHES "(^|\n)#pragma once\n")
    report(${file} 1 headers "no #pragma once")
  endif()
  if(NOT file MATCHES "^kernels/(arch|sim)/")
    forbid("${file}" content "(^|[^A-Za-z0-9_])(asm|__asm__|__asm)[ \t]*(volatile|__volatile__|goto|\\()" asm "assembly stands in kernels/arch (and the fiber switch of kernels/sim)")
  endif()
  if(file MATCHES "\\.cuh?$" AND file MATCHES "^kernels/cuda/")
    forbid("${file}" content "<<<|(^|[^A-Za-z0-9_])__shared__" launch "launches and shared memory go through kernels/arch/platform.h")
    forbid("${file}" content "(^|\n)[ \t]*#[ \t]*(if|ifdef|ifndef|elif)" launch "a kernel has no preprocessor branch: kernels/arch hides the machine")
  endif()
  if(file MATCHES "${LIBRARY_CODE}")
    forbid("${file}" content "(^|[^A-Za-z0-9_.>:])((std)?::)?(exit|abort|quick_exit)\\([^)]*\\) *[;${SEMICOLON}]|(^|[^A-Za-z0-9_])assert\\(" errors "errors are heddle::Error (HEDDLE_CHECK, fail): no exit, abort or assert")
  endif()
  forbid("${file}" content "std::(views|ranges::views|format)([^A-Za-z0-9_]|$)" old-compilers "g++ 12 and clang 14 lack std::views and std::format")
endforeach()

# ---- every source is built ----
foreach(source ${sources})
  get_filename_component(name "${source}" NAME)
  get_filename_component(stem "${source}" NAME_WE)
  get_filename_component(at "${source}" DIRECTORY)
  set(listed FALSE)
  while(at AND NOT listed)
    foreach(list CMakeLists.txt sources.cmake)
      if(EXISTS ${ROOT}/${at}/${list})
        file(READ ${ROOT}/${at}/${list} lists)
        if("${lists}" MATCHES "(^|[^A-Za-z0-9_])${stem}([^A-Za-z0-9_]|$)")
          set(listed TRUE)
        endif()
      endif()
    endforeach()
    get_filename_component(at "${at}" DIRECTORY)
  endwhile()
  if(NOT listed)
    report(${source} 1 listed "no CMakeLists.txt or sources.cmake on the way up names it")
  endif()
endforeach()

# ---- every folder says what it is ----
if(source_folders)
  list(REMOVE_DUPLICATES source_folders)
endif()
foreach(folder ${source_folders})
  if(NOT EXISTS ${ROOT}/${folder}/README.md)
    report(${folder} 1 readme "a folder with sources has a README.md: what lives here, what it may include, how to add to it")
  endif()
endforeach()

# ---- clang-format: Debian 12's major version decides, others differ in details ----
set(format_note "")
if(NOT FORMAT STREQUAL "OFF" AND cxx_files)
  find_program(CLANG_FORMAT NAMES clang-format-14 clang-format)
  set(version "")
  if(CLANG_FORMAT)
    execute_process(COMMAND ${CLANG_FORMAT} --version OUTPUT_VARIABLE version ERROR_QUIET)
  endif()
  if(version MATCHES "version 14\\.")
    execute_process(COMMAND ${CLANG_FORMAT} --dry-run -Werror --style=file ${cxx_files} WORKING_DIRECTORY ${ROOT} RESULT_VARIABLE bad ERROR_VARIABLE said)
    if(bad)
      string(REGEX MATCHALL "[^\n]*: error: code should be clang-formatted" hits "${said}")
      set(last "")
      foreach(hit IN LISTS hits)
        string(REGEX MATCH "^([^:]+):([0-9]+)" unused "${hit}")
        if(NOT CMAKE_MATCH_1 STREQUAL last)
          set(last "${CMAKE_MATCH_1}")
          report(${CMAKE_MATCH_1} ${CMAKE_MATCH_2} format "clang-format would change this file from here on")
        endif()
      endforeach()
      if(NOT hits)
        message("clang-format failed: ${said}")
        set_property(GLOBAL APPEND PROPERTY VIOLATIONS x)
      endif()
    endif()
  else()
    set(format_note "; formatting not checked (clang-format 14 not found)")
  endif()
endif()

get_property(violations GLOBAL PROPERTY VIOLATIONS)
list(LENGTH violations violations)
if(violations GREATER 0)
  message(FATAL_ERROR "lint: ${violations} violations in ${checked} files${format_note}")
endif()
message("lint: ${checked} files keep the rules${format_note}")
