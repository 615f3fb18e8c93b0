// SPDX-License-Identifier: Apache-2.0
// The options of the subcommands that take a model: tokens, encode and heads.
#include <memory>

#include "gates.hpp"
#include "options.hpp"

namespace multihead::cli {

namespace {

// Files hold every head: what would choose a part of them is refused beside them.
void check_files(const HeadsArguments& arguments, const std::vector<CLI::Option*>& of_table) {
  const char* file = !arguments.html.empty()   ? "--html"
                     : !arguments.json.empty() ? "--json"
                     : !arguments.csv.empty()  ? "--csv"
                     : !arguments.npz.empty()  ? "--npz"
                                               : nullptr;
  if (!file) return;
  for (const CLI::Option* option : of_table)
    if (option->count() > 0)
      throw Error(ErrorCode::bad_option, option->get_name() + " is for what is shown in the terminal; " + file +
                                             " writes a file in its place, with every head");
  if (arguments.layer && (arguments.html.empty() || arguments.html == "-"))
    throw Error(ErrorCode::bad_option,
                std::string("--layer and --head choose the head that is shown; ") + file + " writes every head");
}

}  // namespace

Subcommand add_tokens(CLI::App& app) {
  auto arguments = std::make_shared<TokensArguments>();
  CLI::App* sub = add(app, "tokens", "Show the tokens of a text, or of a pair, as a model's tokenizer makes them",
                      "  multihead tokens \"The weights are learned.\"\n"
                      "  multihead tokens \"Is it raining?\" \"Take an umbrella.\"\n");
  add_texts(sub, "texts", arguments->texts, "One text, or two as a pair")->expected(1, 2)->required();
  add_model(sub, arguments->model);
  return {sub, [arguments](const Common&) { return tokens(*arguments); }};
}

Subcommand add_encode(CLI::App& app) {
  auto arguments = std::make_shared<EncodeArguments>();
  CLI::App* sub = add(app, "encode", "Sentences to vectors, or how similar they are",
                      "  multihead encode \"A man plays the guitar.\" \"Someone makes music.\" \"It will rain.\"\n"
                      "  multihead encode \"A man plays the guitar.\" --out vector.npy\n"
                      "  echo \"One sentence a line.\" | multihead encode --file - --out vectors.npy\n");
  add_texts(sub, "sentences", arguments->sentences, "Sentences");
  add_path(sub, "--file", arguments->file, "Text file with a sentence a line; - is standard input");
  add_path(sub, "--out", arguments->out, "Vectors to write, (sentences, model_dim)");
  add_model(sub, arguments->model);
  add_products(sub, arguments->products);
  return {sub, [arguments](const Common& common) { return encode(*arguments, common); }};
}

Subcommand add_heads(CLI::App& app) {
  auto arguments = std::make_shared<HeadsArguments>();
  CLI::App* sub = add(app, "heads", "Show what each head of a model looks at in a text, or in a pair",
                      "  multihead heads \"The cat sat on the mat because it was warm.\"\n"
                      "  multihead heads \"The cat sat on the mat because it was warm.\" --stats --sort entropy\n"
                      "  multihead heads \"The cat sat on the mat because it was warm.\" --layer 1 --head 0 --row it\n"
                      "  multihead heads \"Is it raining?\" \"Take an umbrella.\" --links 5 --special\n"
                      "  multihead heads \"The cat sat on the mat because it was warm.\" --html heads.html\n");
  add_texts(sub, "texts", arguments->texts, "One text, or two as a pair")->expected(1, 2)->required();
  CLI::Option* layer = add_index(sub, "--layer", arguments->layer, "Layer of the head that is shown, from 0");
  CLI::Option* head =
      add_index(sub, "--head", arguments->head, "That head, from 0; both unless given: the one of the farthest links");
  layer->needs(head), head->needs(layer);
  const auto row = [arguments](const std::string& text) { arguments->row = unguarded(text); };
  CLI::Option* one_row =
      sub->add_option_function<std::string>("--row", row, "A row of it as bars: its number, or its token");
  one_row->type_name("ROW");
  const auto top = [arguments](const std::string& text) {
    arguments->top = whole_number(text);
    if (!arguments->top || *arguments->top < 1) refuse("--top", text, "a whole number of at least 1");
  };
  sub->add_option_function<std::string>(
         "--top", top, "Its rows, or all in files, each with so many of its strongest keys, at most 64")
      ->type_name("N")
      ->excludes(one_row);
  CLI::Option* stats =
      sub->add_flag("--stats", arguments->stats, "The table with every number and label in place of links");
  CLI::Option* sort =
      add_words(sub, "--sort", arguments->sort,
                {{"layer", HeadOrder::layer},
                 {"entropy", HeadOrder::entropy},
                 {"largest", HeadOrder::largest},
                 {"distance", HeadOrder::distance},
                 {"previous", HeadOrder::previous},
                 {"self", HeadOrder::self},
                 {"next", HeadOrder::next},
                 {"first", HeadOrder::first},
                 {"special", HeadOrder::special}},
                "The table by layer, or falling by entropy, largest, distance, previous, self, next, first or special");
  sort->default_str("layer");
  CLI::Option* links = add_number(sub, "--links", arguments->links, 1, "Links shown of each head");
  links->default_str("3");
  CLI::Option* special = sub->add_flag("--special", arguments->special,
                                       "Links from and to [CLS] and [SEP] too, and of tokens to themselves");
  add_path(sub, "--html", arguments->html, "A page to write in place of the table; - is standard output");
  add_path(sub, "--json", arguments->json,
           "All statistics to write in place of the table, as JSON; - is standard output");
  add_path(sub, "--csv", arguments->csv, "The same as CSV; - is standard output");
  add_path(sub, "--npz", arguments->npz, "The same as NumPy's arrays");
  add_gates(sub, "--gate", arguments->gates, true, "The output of this head of this layer times S");
  add_color(sub, arguments->color);
  add_model(sub, arguments->model);
  add_products(sub, arguments->products);
  sub->callback([=] {
    check_once({}, arguments->gates);
    check_files(*arguments, {one_row, stats, sort, links, special});
  });
  return {sub, [arguments](const Common& common) { return heads(*arguments, common); }};
}

}  // namespace multihead::cli
