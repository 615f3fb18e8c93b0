// SPDX-License-Identifier: Apache-2.0
// The options of the subcommands that ask heads questions: relations, ablate and compare.
#include <memory>

#include "gates.hpp"
#include "options.hpp"

namespace multihead::cli {

namespace {

// What would be said and not done.
void check_ablate(const AblateArguments& arguments, bool scale_given, bool top_given) {
  const auto no = [](const std::string& sentence) { throw Error(ErrorCode::bad_option, sentence); };
  check_once(arguments.heads, arguments.gates);
  const bool together = !arguments.heads.empty() || !arguments.gates.empty();
  if (scale_given && together && arguments.heads.empty())
    no("--scale is for heads in turn or those of --head; each --gate has a scale of its own");
  if (top_given && together) no("--top is for the ranking of heads in turn; with --head or --gate there is none");
}

}  // namespace

Subcommand add_relations(CLI::App& app) {
  auto arguments = std::make_shared<RelationsArguments>();
  CLI::App* sub =
      add(app, "relations", "Show which heads look from a word to the one it belongs to, on marked sentences",
          "  multihead relations\n"
          "  multihead relations --all --no-punctuation\n"
          "  multihead relations --json relations.json\n");
  add_path(sub, "file", arguments->file, "Marked sentences; unless given, 200 that are part of the command");
  sub->add_flag("--all", arguments->all, "Also each head of each layer");
  sub->add_flag_callback(
      "--no-punctuation", [arguments] { arguments->punctuation = false; },
      "Marks are neither looked at nor counted in offsets");
  add_path(sub, "--json", arguments->json, "File to write all numbers to; - is standard output, without the table");
  add_model(sub, arguments->model);
  add_products(sub, arguments->products);
  return {sub, [arguments](const Common& common) { return relations(*arguments, common); }};
}

Subcommand add_ablate(CLI::App& app) {
  auto arguments = std::make_shared<AblateArguments>();
  CLI::App* sub = add(app, "ablate", "Switch heads off, one by one or together, and show how far the output moves",
                      "  multihead ablate \"The cat sat on the mat.\" \"It was warm.\"\n"
                      "  multihead ablate \"The cat sat on the mat.\" --scale 0.5 --top 3\n"
                      "  multihead ablate \"The cat sat on the mat.\" --head 0.1 --head 1.0\n"
                      "  multihead ablate \"The cat sat on the mat.\" --gate 0.1=2 --gate 1.0=0\n");
  add_texts(sub, "texts", arguments->texts, "Texts, each by itself")->required();
  const auto read = [arguments](const std::string& text) { arguments->scale = scale_of("--scale", text, text); };
  CLI::Option* scale = sub->add_option_function<std::string>("--scale", read, "What a head's output is multiplied by");
  scale->type_name("S")->default_str("0");
  add_gates(sub, "--head", arguments->heads, false, "These heads together, in place of each by itself");
  add_gates(sub, "--gate", arguments->gates, true, "The same, each with a scale of its own");
  CLI::Option* top = add_number(sub, "--top", arguments->top, 1, "Heads shown in the ranking");
  top->default_str("10");
  sub->callback([=] { check_ablate(*arguments, scale->count() > 0, top->count() > 0); });
  add_path(sub, "--json", arguments->json, "File to write all numbers to; - is standard output, without the tables");
  add_model(sub, arguments->model);
  add_products(sub, arguments->products);
  return {sub, [arguments](const Common& common) { return ablate(*arguments, common); }};
}

Subcommand add_compare(CLI::App& app) {
  auto arguments = std::make_shared<CompareArguments>();
  CLI::App* sub = add(app, "compare", "Compare two runs of a model, head by head: models, precisions, targets or texts",
                      "  multihead compare \"The cat sat on the mat.\" --precision bfloat16\n"
                      "  multihead compare \"The cat sat on the mat.\" --other-target baseline\n"
                      "  multihead compare \"The cat sat on the mat.\" --other-text \"The dog sat on the mat.\"\n");
  add_texts(sub, "text", arguments->texts, "Text")->expected(1)->required();
  const auto other_text = [arguments](const std::string& text) { arguments->other_text = unguarded(text); };
  add_path(sub, "--other", arguments->other, "The second run's model, with as many layers and heads");
  const auto precision = [arguments](const std::string& text) {
    if (text == "bfloat16")
      arguments->precision = Type::bfloat16;
    else if (text == "float16")
      arguments->precision = Type::float16;
    else
      refuse("--precision", text, "one of bfloat16, float16");
  };
  sub->add_option_function<std::string>("--precision", precision, "What the second run's weights are rounded to")
      ->type_name("WORD");
  const auto products = [arguments](const std::string& text) {
    if (text != "bfloat16") refuse("--products", text, "bfloat16");
    arguments->products = Type::bfloat16;
  };
  sub->add_option_function<std::string>("--products", products, "What the second run multiplies: bfloat16")
      ->type_name("WORD");
  sub->add_option_function<std::string>(
         "--other-target", [arguments](const std::string& name) { arguments->other_target = target_from_name(name); },
         "The second run's target")
      ->type_name("NAME");
  sub->add_option_function<std::string>("--other-text", other_text, "The second run's text, of as many tokens")
      ->type_name("TEXT");
  add_number(sub, "--top", arguments->top, 1, "Heads shown, those that differ most first")->default_str("10");
  add_path(sub, "--json", arguments->json, "File to write all numbers to; - is standard output, without the table");
  add_model(sub, arguments->model);
  return {sub, [arguments](const Common& common) { return compare(*arguments, common); }};
}

}  // namespace multihead::cli
