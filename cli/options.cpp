// SPDX-License-Identifier: Apache-2.0
// Options as the command line gives them, each read and refused by itself.
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <limits>
#include <string_view>

namespace multihead::cli {

namespace {

constexpr char kSign = '\1';
bool is_special(std::string_view word) {
  word = word.substr(0, word.find_last_not_of(kSign) + 1);
  return word == "++" || (word.starts_with('[') && word.ends_with(']'));
}

HeadGate gate_of(const std::string& option, const std::string& text, bool with_scale) {
  const std::size_t equals = std::min(with_scale ? text.find('=') : std::string::npos, text.size());
  const std::size_t point = text.find('.');
  const std::optional<std::int64_t> layer = whole_number(text.substr(0, point));
  const std::optional<std::int64_t> head =
      whole_number(point < equals ? text.substr(point + 1, equals - point - 1) : std::string());
  if (!layer || !head || *layer < 0 || *head < 0 || (with_scale && equals + 1 >= text.size()))
    refuse(option, text, with_scale ? "LAYER.HEAD=SCALE, such as 5.11=0.5" : "LAYER.HEAD, such as 5.11");
  const auto number = std::string_view(text).substr(std::min(equals + 1, text.size()));
  return {*layer, *head, with_scale ? scale_of(option, text, number) : 0.0};
}

}  // namespace

std::string guarded(std::string word) { return is_special(word) ? word + kSign : word; }
std::string unguarded(std::string word) {
  if (is_special(word) && word.ends_with(kSign)) word.pop_back();
  return word;
}

CLI::Option* add_path(CLI::App* app, const std::string& option, std::string& path, const std::string& what) {
  const auto read = [option, &path](const std::string& text) {
    if (text.empty()) refuse(option, text, "the name of a file");
    path = unguarded(text);
  };
  return app->add_option_function<std::string>(option, read, what)->type_name("PATH");
}
CLI::Option* add_list(CLI::App* app, const std::string& option, std::vector<std::int64_t>& values,
                      const std::string& what) {
  const auto read = [option, &values](const std::vector<std::string>& texts) { values = whole_numbers(option, texts); };
  return app->add_option_function<std::vector<std::string>>(option, read, what)->type_name("N,N,...");
}
CLI::App* add(CLI::App& app, const char* name, const char* description, const char* examples) {
  CLI::App* subcommand = app.add_subcommand(name, description);
  subcommand->footer(std::string("Also --threads and --target, before or after the subcommand: see multihead --help.\n"
                                 "\nExamples:\n") +
                     examples);
  return subcommand;
}

void add_color(CLI::App* app, Color& color) {
  add_words(app, "--color", color, {{"auto", Color::automatic}, {"always", Color::always}, {"never", Color::never}},
            "auto (on a terminal, unless NO_COLOR is set), always or never")
      ->default_str("auto");
}

CLI::Option* add_index(CLI::App* app, const std::string& option, std::optional<std::int64_t>& index,
                       const std::string& what) {
  const auto read = [option, &index](const std::string& text) {
    index = whole_number(text);
    if (!index || *index < 0) refuse(option, text, "a whole number of at least 0");
  };
  return app->add_option_function<std::string>(option, read, what)->type_name("N");
}

double scale_of(const std::string& option, const std::string& text, std::string_view number) {
  double value = 0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  const bool whole = end == number.data() + number.size();
  if (!whole || error == std::errc::invalid_argument) refuse(option, text, "a number");
  if (error != std::errc() || !(std::abs(value) <= double{std::numeric_limits<float>::max()}))
    refuse(option, text, "finite as a float: at most 3.4e38");
  return value;
}

CLI::Option* add_gates(CLI::App* app, const std::string& option, std::vector<HeadGate>& gates, bool with_scale,
                       const std::string& what) {
  const auto read = [option, &gates, with_scale](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) gates.push_back(gate_of(option, text, with_scale));
  };
  return app->add_option_function<std::vector<std::string>>(option, read, what)
      ->allow_extra_args(false)
      ->type_name(with_scale ? "L.H=S" : "L.H");
}

CLI::Option* add_model(CLI::App* app, std::string& folder) {
  return add_path(app, "--model", folder,
                  "The model's folder; unless given, what MULTIHEAD_MODEL names, else the one that ./run fetched");
}

void add_products(CLI::App* app, Type& products) {
  add_words(app, "--products", products, {{"float32", Type::float32}, {"bfloat16", Type::bfloat16}},
            "What the model multiplies: float32, or bfloat16, its weights in half the memory")
      ->default_str("float32");
}

CLI::Option* add_texts(CLI::App* app, const std::string& name, std::vector<std::string>& texts,
                       const std::string& what) {
  const auto read = [&texts](const std::vector<std::string>& given) {
    std::transform(given.begin(), given.end(), std::back_inserter(texts), unguarded);
  };
  return app->add_option_function<std::vector<std::string>>(name, read, what)->type_name("TEXT");
}

}  // namespace multihead::cli
