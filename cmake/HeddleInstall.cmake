# install() and the exported package: find_package(heddle) gives heddle::heddle, all libraries at once.
#
# Headers keep their paths below <prefix>/include/heddle, so a consumer writes #include "core/tensor.h" as the tree does. Headers that carry
# another library (*_internal.h, strict_json.h) stay behind: a consumer needs none of their packages to compile.
include(CMakePackageConfigHelpers)
get_property(libraries GLOBAL PROPERTY HEDDLE_LIBRARIES)

add_library(heddle_all INTERFACE)
set_target_properties(heddle_all PROPERTIES EXPORT_NAME heddle)
target_link_libraries(heddle_all INTERFACE ${libraries})
add_library(heddle::heddle ALIAS heddle_all)

# What a static library needs of others at link time is wrapped in BUILD_INTERFACE, since its name means nothing elsewhere; the package
# finds the same library again under heddle::dep_<name> and hangs it on the target that needs it.
set(HEDDLE_LATE_LINKS "")
set(HEDDLE_NEEDS "")
foreach(library ${libraries})
  get_target_property(links ${library} LINK_LIBRARIES)
  foreach(link IN LISTS links)
    if(link MATCHES "^(heddle_dep_.*|MPI::.*)$")
      message(FATAL_ERROR "${library} links ${link}: write $<BUILD_INTERFACE:${link}>, or name it in PRIVATE_LINKS of heddle_library()")
    endif()
    foreach(pair "OpenSSL::Crypto=OpenSSL::Crypto" "ZLIB::ZLIB=ZLIB::ZLIB" "Threads::Threads=Threads::Threads" "OpenMP::OpenMP_CXX=OpenMP::OpenMP_CXX"
            "MPI::MPI_C=heddle::dep_mpi" "heddle_dep_onednn=heddle::dep_onednn" "heddle_dep_zstd=heddle::dep_zstd" "heddle_dep_cudart=heddle::dep_cudart"
            "heddle_dep_nccl=heddle::dep_nccl")
      string(REPLACE "=" ";" pair "${pair}")
      list(GET pair 0 here)
      list(GET pair 1 there)
      if(link MATCHES "${here}")
        list(APPEND HEDDLE_NEEDS ${there})
        if(link MATCHES "BUILD_INTERFACE")
          string(APPEND HEDDLE_LATE_LINKS "set_property(TARGET heddle::${library} APPEND PROPERTY INTERFACE_LINK_LIBRARIES ${there})\n")
        endif()
      endif()
    endforeach()
  endforeach()
endforeach()
if(HEDDLE_NEEDS)
  list(REMOVE_DUPLICATES HEDDLE_NEEDS)
endif()
if(HEDDLE_HAVE_MPI)
  # Open MPI and MPICH differ in their binary interface, so the one heddle was built with is first choice.
  list(GET MPI_C_LIBRARIES 0 HEDDLE_MPI_LIBRARY)
endif()

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/heddle)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/heddleConfig.cmake.in ${PROJECT_BINARY_DIR}/heddleConfig.cmake
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/heddleConfigVersion.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS heddle_all ${libraries} EXPORT heddleTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT heddleTargets NAMESPACE heddle:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/heddleConfig.cmake ${PROJECT_BINARY_DIR}/heddleConfigVersion.cmake DESTINATION ${package_dir})
foreach(folder kernels/api core parallel optim data models checkpoint infer train)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/heddle/${folder}
    FILES_MATCHING PATTERN "*.h" PATTERN "*_internal.h" EXCLUDE PATTERN "strict_json.h" EXCLUDE)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_SOURCE_DIR}/README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
