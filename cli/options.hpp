// SPDX-License-Identifier: Apache-2.0
// Options as the command line gives them, each read and refused by itself, and what a subcommand is.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "texts.hpp"

namespace multihead::cli {

// A subcommand and what it does once the command line is read.
struct Subcommand {
  CLI::App* app;
  std::function<int(const Common&)> run;
};

// A subcommand with its description and examples.
CLI::App* add(CLI::App& app, const char* name, const char* description, const char* examples);

// CLI11 checks numbers as doubles and says so at length; these options read and refuse by themselves.
template <class Integer>
CLI::Option* add_number(CLI::App* app, const std::string& option, Integer& value, std::int64_t first,
                        const std::string& what) {
  const auto read = [option, &value, first](const std::string& text) {
    const std::optional<std::int64_t> number = whole_number(text);
    const std::uint64_t most = std::numeric_limits<Integer>::max();
    if (!number || *number < first || static_cast<std::uint64_t>(*number) > most)
      refuse(option, text, "a whole number of at least " + std::to_string(first));
    value = static_cast<Integer>(*number);
  };
  return app->add_option_function<std::string>(option, read, what)->type_name("N");
}

// One of a few words.
template <class Value>
using Words = std::vector<std::pair<std::string, Value>>;
template <class Value>
CLI::Option* add_words(CLI::App* app, const std::string& option, Value& value, const Words<Value>& words,
                       const std::string& what) {
  const auto read = [option, &value, words](const std::string& text) {
    std::string names;
    for (const auto& [name, meaning] : words) {
      if (name == text) {
        value = meaning;
        return;
      }
      names += (names.empty() ? "" : ", ") + name;
    }
    refuse(option, text, "one of " + names);
  };
  return app->add_option_function<std::string>(option, read, what)->type_name("WORD");
}

// CLI11 takes "[a, b]" for a list of texts and "++" for the end of a subcommand: such a word gets a sign at its end,
// which whoever reads it takes away. So does one that has the signs already.
std::string guarded(std::string word);
std::string unguarded(std::string word);

CLI::Option* add_path(CLI::App* app, const std::string& option, std::string& path, const std::string& what);
CLI::Option* add_list(CLI::App* app, const std::string& option, std::vector<std::int64_t>& values,
                      const std::string& what);
void add_color(CLI::App* app, Color& color);
// A whole number of at least 0, absent unless given.
CLI::Option* add_index(CLI::App* app, const std::string& option, std::optional<std::int64_t>& index,
                       const std::string& what);
// A number that is finite as a float. text is what the option was given, of which it is a part.
double scale_of(const std::string& option, const std::string& text, std::string_view number);
// Heads "5.11", with a scale "5.11=0.5": layer and head, both from 0. The option may stand several times.
CLI::Option* add_gates(CLI::App* app, const std::string& option, std::vector<HeadGate>& gates, bool with_scale,
                       const std::string& what);
// --model.
CLI::Option* add_model(CLI::App* app, std::string& folder);
// --products.
void add_products(CLI::App* app, Type& products);
// Positional texts. (CLI11 would take an empty one for none.)
CLI::Option* add_texts(CLI::App* app, const std::string& name, std::vector<std::string>& texts,
                       const std::string& what);

// Each subcommand, its options bound to arguments of its own.
Subcommand add_sample(CLI::App& app);
Subcommand add_attend(CLI::App& app);
Subcommand add_info(CLI::App& app);
Subcommand add_explain(CLI::App& app);
Subcommand add_check(CLI::App& app);
Subcommand add_tokens(CLI::App& app);
Subcommand add_encode(CLI::App& app);
Subcommand add_heads(CLI::App& app);
Subcommand add_relations(CLI::App& app);
Subcommand add_ablate(CLI::App& app);
Subcommand add_compare(CLI::App& app);
Subcommand add_train(CLI::App& app);
Subcommand add_learned(CLI::App& app);
Subcommand add_translate(CLI::App& app);
Subcommand add_generate(CLI::App& app);

}  // namespace multihead::cli
