// SPDX-License-Identifier: Apache-2.0
// The options of multihead generate.
#include <algorithm>
#include <iterator>
#include <memory>

#include "options.hpp"

namespace multihead::cli {

namespace {

// A number that fits(value), which rule says.
template <class Fits>
CLI::Option* add_real(CLI::App* app, const std::string& option, const char* rule, const Fits& fits,
                      const std::string& what) {
  const auto read = [option, rule, fits](const std::string& text) {
    if (!fits(scale_of(option, text, text))) refuse(option, text, rule);
  };
  return app->add_option_function<std::string>(option, read, what)->type_name("S");
}

void add_drawing(CLI::App* sub, GenerateOptions& options) {
  const auto temperature = [&options](double value) { return (options.temperature = value) >= 0; };
  add_real(sub, "--temperature", "a number of at least 0", temperature,
           "Logits are divided by it before a token is drawn; 0: the likeliest token each time")
      ->default_str("0");
  const auto top_k = [&options](const std::string& text) {
    options.top_k = whole_number(text);
    if (!options.top_k || *options.top_k < 1) refuse("--top-k", text, "a whole number of at least 1");
  };
  sub->add_option_function<std::string>("--top-k", top_k, "Only so many tokens, the likeliest")->type_name("N");
  const auto top_p = [&options](double value) {
    options.top_p = value;
    return value > 0 && value <= 1;
  };
  add_real(sub, "--top-p", "a number above 0 and at most 1", top_p,
           "Of those only the likeliest that together have this much");
  add_number(sub, "--seed", options.seed, 0, "What is drawn is the same for the same seed")->default_str("0");
}

}  // namespace

Subcommand add_generate(CLI::App& app) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* sub = add(app, "generate", "Go on with a text, token by token, as a decoder has it",
                      "  multihead generate gpt2 \"The weights of a model are\"\n"
                      "  multihead generate gpt2 \"Once upon a time\" --temperature 0.8 --top-p 0.95 --seed 3\n"
                      "  multihead generate gpt2 \"One prompt\" \"and another\" --max-tokens 40 --stop \".\"\n");
  add_path(sub, "folder", arguments->folder, "The decoder's folder, as Hugging Face writes one")->required();
  add_texts(sub, "prompts", arguments->prompts, "Texts to go on with, each by itself")->expected(1, -1)->required();
  add_number(sub, "--max-tokens", arguments->options.max_tokens, 1, "New tokens of each text at most")
      ->default_str("128");
  add_drawing(sub, arguments->options);
  const auto stop = [arguments](const std::vector<std::string>& texts) {
    for (const std::string& text : texts)
      if (text.empty()) refuse("--stop", text, "a text with a letter");
    std::transform(texts.begin(), texts.end(), std::back_inserter(arguments->options.stop), unguarded);
  };
  sub->add_option_function<std::vector<std::string>>("--stop", stop,
                                                     "A text that ends another; may stand several times")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  add_words(sub, "--cache-type", arguments->storage,
            {{"float32", KvStorage::float32},
             {"bfloat16", KvStorage::bfloat16},
             {"float16", KvStorage::float16},
             {"int8", KvStorage::int8}},
            "What keys and values are kept as: float32, bfloat16, float16 or int8")
      ->default_str("float32");
  add_products(sub, arguments->products);
  return {sub, [arguments](const Common& common) { return generate(*arguments, common); }};
}

}  // namespace multihead::cli
