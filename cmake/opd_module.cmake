# The two words of the build.
#
# opd_sources(FILE...)   adds a room's sources to the library; paths are relative to the room.
# opd_test(NAME SOURCES FILE... [LABELS L...] [TIMEOUT S])
#                        one test program; each TEST(name) in it becomes one CTest case that
#                        runs in its own process with a time limit. The label `threads` (several
#                        threads share data) adds it to the target of that name: make tsan.
function(opd_sources)
  foreach(file ${ARGN})
    target_sources(opd PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${file})
  endforeach()
endfunction()

# opd_test_simulated(NAME FILE SEED...)
#                        registers the cases of FILE in the program of opd_test(NAME ...) once more for
#                        each seed, as sim_NAME.CASE.SEED: the same tests in a simulated world
#                        (tests/support/sys_test.h).
function(opd_test_simulated name file)
  file(STRINGS ${file} lines REGEX "^TEST\\([a-z0-9_]+\\)")
  foreach(seed ${ARGN})
    foreach(line ${lines})
      string(REGEX REPLACE "^TEST\\(([a-z0-9_]+)\\).*" "\\1" case "${line}")
      add_test(NAME sim_${name}.${case}.${seed} COMMAND test_${name} ${case})
      set_tests_properties(sim_${name}.${case}.${seed} PROPERTIES TIMEOUT 60 SKIP_RETURN_CODE 77
                           ENVIRONMENT "OPD_TEST_SIM_SEED=${seed}")
    endforeach()
  endforeach()
endfunction()

function(opd_test name)
  cmake_parse_arguments(T "" "TIMEOUT" "SOURCES;LABELS" ${ARGN})
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 60)
  endif()
  add_executable(test_${name} ${T_SOURCES} ${CMAKE_SOURCE_DIR}/tests/support/test_main.c)
  target_include_directories(test_${name} PRIVATE ${CMAKE_SOURCE_DIR} ${MSGPACK_INCLUDE})
  target_compile_definitions(test_${name} PRIVATE _GNU_SOURCE
    OPD_SOURCE_DIR="${CMAKE_SOURCE_DIR}" OPD_BINARY_DIR="${CMAKE_BINARY_DIR}")
  target_link_libraries(test_${name} PRIVATE opd ${MSGPACK_LIB} PkgConfig::LIBUV PkgConfig::NGHTTP2
                        PkgConfig::YAML Threads::Threads m)
  if("threads" IN_LIST T_LABELS)
    if(NOT TARGET threads)
      add_custom_target(threads)
    endif()
    add_dependencies(threads test_${name})
  endif()
  foreach(file ${T_SOURCES})
    cmake_path(ABSOLUTE_PATH file NORMALIZE) # two folders may share a support file
    file(STRINGS ${file} lines REGEX "^TEST\\([a-z0-9_]+\\)")
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
    foreach(line ${lines})
      string(REGEX REPLACE "^TEST\\(([a-z0-9_]+)\\).*" "\\1" case "${line}")
      add_test(NAME ${name}.${case} COMMAND test_${name} ${case})
      set_tests_properties(${name}.${case} PROPERTIES TIMEOUT ${T_TIMEOUT} LABELS "${T_LABELS}"
                           SKIP_RETURN_CODE 77)
    endforeach()
  endforeach()
endfunction()
