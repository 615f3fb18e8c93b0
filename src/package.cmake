# SPDX-License-Identifier: Apache-2.0
# What cpack makes of the installed components: the Debian packages libmultihead0, libmultihead-dev and multihead.
find_program(DPKG_SHLIBDEPS dpkg-shlibdeps)
find_program(GZIP_PROGRAM gzip)
mark_as_advanced(DPKG_SHLIBDEPS GZIP_PROGRAM)
if(NOT DPKG_SHLIBDEPS OR NOT GZIP_PROGRAM OR NOT CMAKE_SYSTEM_NAME STREQUAL Linux)
  return()
endif()

set(runtime_package libmultihead${PROJECT_VERSION_MAJOR})
set(development_package libmultihead-dev)
set(command_package multihead)
set(components runtime development)
get_target_property(command_type multihead_command TYPE)
if(command_type STREQUAL EXECUTABLE)
  list(APPEND components command)
endif()
set(CPACK_COMPONENTS_ALL ${components})
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME multihead)
set(CPACK_PACKAGE_VENDOR "The multihead authors")
if(NOT CPACK_PACKAGE_CONTACT)
  set(CPACK_PACKAGE_CONTACT "The multihead authors <root@localhost>")
  if(NOT "$ENV{DEBEMAIL}" STREQUAL "")
    set(CPACK_PACKAGE_CONTACT "$ENV{DEBFULLNAME} <$ENV{DEBEMAIL}>")
  endif()
endif()
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE
)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME ${runtime_package})
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME ${development_package})
set(CPACK_DEBIAN_COMMAND_PACKAGE_NAME ${command_package})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR})
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)
set(CPACK_COMPONENT_DEVELOPMENT_DEPENDS runtime)
set(CPACK_COMPONENT_COMMAND_DEPENDS runtime)
if(TARGET multihead_models)
  set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS libutf8proc-dev)
endif()
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "multi-head attention for CPUs")
set(about "Attention, whole encoders and their training in C++20 and C;\nthe instructions are chosen at run time.")
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "${about}\nThis package holds the shared libraries.")
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION
  "${about}\nThis package holds the headers and what find_package and pkg-config read."
)
set(CPACK_COMPONENT_COMMAND_DESCRIPTION "${about}\nThis package holds the command multihead and small models that it trained.")

# What others that link the libraries depend on, and that the loader's cache is to be renewed.
set(shlibs)
foreach(library IN ITEMS multihead multihead_models multihead_train multihead_c)
  if(TARGET ${library})
    string(APPEND shlibs "lib${library} ${PROJECT_VERSION_MAJOR} ${runtime_package} (>= ${PROJECT_VERSION})\n")
  endif()
endforeach()
set(documents ${PROJECT_BINARY_DIR}/documents)
file(CONFIGURE OUTPUT documents/shlibs CONTENT "${shlibs}")
file(CONFIGURE OUTPUT documents/triggers CONTENT "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_CONTROL_EXTRA ${documents}/shlibs ${documents}/triggers)

# Each package tells its licence and its changes; manual pages are compressed in packages.
string(TIMESTAMP year "%Y" UTC)  # both are SOURCE_DATE_EPOCH's where it is set
string(TIMESTAMP today "%a, %d %b %Y %H:%M:%S +0000" UTC)
file(CONFIGURE OUTPUT documents/copyright @ONLY CONTENT [[
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: multihead
Comment: Code of the headers of nlohmann_json (MIT) is compiled into the library,
 and code of those of CLI11 (BSD-3-Clause) into the command. Their notices are in
 THIRD_PARTY_LICENSES beside this file.

Files: *
Copyright: @year@ @CPACK_PACKAGE_VENDOR@
License: Apache-2.0
 On Debian systems the text of the license is in
 /usr/share/common-licenses/Apache-2.0.
]])
file(CONFIGURE OUTPUT documents/changelog.Debian @ONLY CONTENT [[
multihead (@PROJECT_VERSION@-@CPACK_DEBIAN_PACKAGE_RELEASE@) unstable; urgency=medium

  * Made by cpack. What changed stands in CHANGELOG.md.

 -- @CPACK_PACKAGE_CONTACT@  @today@
]])
foreach(component IN LISTS components)
  install(FILES ${documents}/copyright ${documents}/changelog.Debian ${PROJECT_SOURCE_DIR}/THIRD_PARTY_LICENSES
    DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${${component}_package} COMPONENT ${component} EXCLUDE_FROM_ALL
  )
endforeach()
file(CONFIGURE OUTPUT compress.cmake @ONLY CONTENT [[
file(GLOB_RECURSE pages "${CPACK_TEMPORARY_INSTALL_DIRECTORY}/*.1" "${CPACK_TEMPORARY_INSTALL_DIRECTORY}/changelog.Debian")
foreach(page IN LISTS pages)
  execute_process(COMMAND @GZIP_PROGRAM@ -9nf ${page} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
]])
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_BINARY_DIR}/compress.cmake)
include(CPack)
