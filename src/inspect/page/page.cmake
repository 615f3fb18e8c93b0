# SPDX-License-Identifier: Apache-2.0
# The page's template as C++: its files in one, cut into string literals that every compiler takes. page_template is the
# file that this writes; an edit of a part configures again.
set(page_folder ${CMAKE_CURRENT_LIST_DIR})

# The hash of a text as a Content-Security-Policy names it.
function(multihead_page_hash text result)
  string(SHA256 hex "${text}")
  set(letters ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)
  string(APPEND hex 00)  # of 33 bytes the last one is no part of the hash
  set(base64 "")
  foreach(start RANGE 0 63 6)
    string(SUBSTRING ${hex} ${start} 6 three_bytes)
    foreach(shift 18 12 6 0)
      math(EXPR letter "(0x${three_bytes} >> ${shift}) & 63")
      string(SUBSTRING ${letters} ${letter} 1 letter)
      string(APPEND base64 ${letter})
    endforeach()
  endforeach()
  string(SUBSTRING ${base64} 0 43 base64)
  set(${result} ${base64}= PARENT_SCOPE)
endfunction()

function(multihead_page_part name result)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${page_folder}/${name})
  file(READ ${page_folder}/${name} text)
  if(text MATCHES "[^\n -~]" OR text MATCHES "[)]page\"")
    message(FATAL_ERROR "${page_folder}/${name} must be ASCII and may not end a string literal")
  endif()
  set(${result} "${text}" PARENT_SCOPE)
endfunction()

multihead_page_part(page.html html)
multihead_page_part(page.css style)
set(script "")
foreach(name decode names grid map sentence page)
  multihead_page_part(${name}.js part)
  string(APPEND script "${part}")
endforeach()
multihead_page_hash("${script}" script_hash)
multihead_page_hash("${style}" style_hash)
foreach(name script_hash style_hash style script)  # the script last: what looks like a name in it stays
  string(REPLACE "@${name}@" "${${name}}" html "${html}")
endforeach()

set(literals "")
string(LENGTH "${html}" length)
foreach(start RANGE 0 ${length} 8000)
  string(SUBSTRING "${html}" ${start} 8000 part)
  string(APPEND literals "    R\"page(${part})page\",\n")
endforeach()
set(page_template ${CMAKE_CURRENT_BINARY_DIR}/page_template.cpp)
file(CONFIGURE OUTPUT ${page_template} @ONLY CONTENT [[
// The page's template, from src/inspect/page/.
#include "inspect/page.hpp"

namespace multihead {

namespace {

constexpr std::string_view kParts[] = {
@literals@};

}  // namespace

std::string page_template() {
  std::string whole;
  for (const std::string_view part : kParts) whole += part;
  return whole;
}

}  // namespace multihead
]])
