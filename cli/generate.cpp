// SPDX-License-Identifier: Apache-2.0
// multihead generate: a decoder goes on with texts; one is shown as it comes.
#include "multihead/generate.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "arguments.hpp"
#include "model.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// On a terminal, lines and tabs as they are, and nothing else that steers it.
std::string shown(std::string_view text) {
  if (isatty(STDOUT_FILENO) == 0) return std::string(text);
  std::string out;
  while (!text.empty()) {
    const std::size_t plain = std::min(text.find_first_of("\n\t"), text.size());
    out += printable(text.substr(0, plain));
    if (plain < text.size()) out += text[plain];
    text.remove_prefix(std::min(plain + 1, text.size()));
  }
  return out;
}

// A folder, its tokenizer and what ends a text.
struct Speaker {
  Speaker(const std::filesystem::path& folder, Type products)
      : decoder(folder, {.products = products}),
        tokenizer(folder),
        end_ids(read_eos_token_ids(folder)),
        begin_id(read_config(folder / "config.json").bos_token_id) {}

  Decoder decoder;
  BytePair tokenizer;
  std::vector<std::int64_t> end_ids;
  std::optional<std::int64_t> begin_id;
};

constexpr std::int64_t kTogether = 8;  // prompts that the cache has room for at once

std::int64_t positions_for(const GenerateArguments& arguments, const Speaker& speaker) {
  std::int64_t longest = 1;
  for (const std::string& prompt : arguments.prompts)
    longest = std::max(longest, static_cast<std::int64_t>(speaker.tokenizer.encode(prompt).size()));
  const std::int64_t most = speaker.decoder.extents().max_tokens, page = 128;
  const std::int64_t each = std::min(longest + std::min(arguments.options.max_tokens, most), most);
  return (each + page - 1) / page * page * std::min(static_cast<std::int64_t>(arguments.prompts.size()), kTogether);
}

std::filesystem::path folder_of(const GenerateArguments& arguments) {
  if (!std::filesystem::is_directory(arguments.folder))
    throw Error(ErrorCode::file_missing, "generate: " + arguments.folder + " is not a folder");
  return arguments.folder;
}

void print_rate(std::int64_t tokens, double first, double all) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::cerr << tokens << (tokens == 1 ? " token, " : " tokens, the first ") << "after " << fixed(first, 2) << " s";
  if (tokens > 1 && all > first)
    std::cerr << ", then " << fixed(static_cast<double>(tokens - 1) / (all - first), 1) << " tokens a second";
  std::cerr << '\n';
}

}  // namespace

int generate(const GenerateArguments& arguments, const Common& common) {
  const Speaker speaker(folder_of(arguments), arguments.products);
  GeneratorOptions options;
  options.positions = positions_for(arguments, speaker);
  options.storage = arguments.storage;
  options.end_ids = speaker.end_ids;
  options.begin_id = speaker.begin_id;
  options.layer.threads = common.threads;
  options.layer.target = common.target;
  const bool alone = arguments.prompts.size() == 1;
  const Clock::time_point begin = Clock::now();
  std::int64_t tokens = 0;
  double first = 0;
  const std::vector<std::string> texts = multihead::generate(speaker.decoder, speaker.tokenizer, arguments.prompts,
                                                             arguments.options, options, [&](const Generated& token) {
                                                               if (tokens++ == 0) first = seconds_since(begin);
                                                               if (alone) std::cout << shown(token.text) << std::flush;
                                                             });
  const double all = seconds_since(begin);
  if (alone) std::cout << '\n';
  for (std::size_t i = 0; !alone && i < texts.size(); ++i) std::cout << (i > 0 ? "\n" : "") << shown(texts[i]) << '\n';
  std::cout.flush();
  print_rate(tokens, first, all);
  return 0;
}

}  // namespace multihead::cli
