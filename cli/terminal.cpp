// SPDX-License-Identifier: Apache-2.0
// What the terminal of standard output can show, and how wide it is.
#include "terminal.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <limits>
#include <string_view>

#include "texts.hpp"

namespace multihead::cli {

namespace {

constexpr std::size_t kColumns = 100;

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::size_t columns_or(std::size_t otherwise) {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const std::optional<std::int64_t> number = whole_number(std::string(environment("COLUMNS")));
  return number && *number > 0 ? static_cast<std::size_t>(*number) : otherwise;
}

}  // namespace

ColorDepth color_depth(Color color) {
  if (color == Color::never) return ColorDepth::none;
  const std::string_view term = environment("TERM"), color_term = environment("COLORTERM");
  const bool all = color_term == "truecolor" || color_term == "24bit" || term.ends_with("-direct");
  if (color == Color::automatic) {
    if (!environment("NO_COLOR").empty() || term == "dumb" || isatty(STDOUT_FILENO) == 0) return ColorDepth::none;
    if (!all && term.find("256color") == std::string_view::npos) return ColorDepth::none;
  }
  return all ? ColorDepth::colors_24_bit : ColorDepth::colors_256;
}

std::size_t terminal_columns() { return columns_or(kColumns); }
std::size_t line_columns() { return columns_or(std::numeric_limits<std::size_t>::max()); }

}  // namespace multihead::cli
