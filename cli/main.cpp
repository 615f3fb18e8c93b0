// SPDX-License-Identifier: Apache-2.0
// multihead: the command. Reads the command line, teaches by example, and turns errors into exit statuses.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <csignal>
#include <exception>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "chapter.hpp"
#include "model.hpp"
#include "texts.hpp"

namespace multihead::cli {

namespace {

enum Status { success = 0, failure = 1, usage = 2 };

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
constexpr char kSign = '\1';
bool is_special(std::string_view word) {
  word = word.substr(0, word.find_last_not_of(kSign) + 1);
  return word == "++" || (word.starts_with('[') && word.ends_with(']'));
}
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

void add_alignment(CLI::App* app, ExplainArguments& arguments) {
  const auto causal = [&arguments](const std::string& text) {
    const std::optional<Alignment> alignment = alignment_of(text);
    if (!alignment && text != "none")
      refuse("--causal", text, "one of none, square, top_left, bottom_right, or a whole number");
    arguments.causal = alignment.has_value();
    arguments.alignment = alignment.value_or(Alignment());
  };
  const auto align = [&arguments](const std::string& text) {
    const std::optional<Alignment> alignment = alignment_of(text);
    if (!alignment) refuse("--align", text, "one of square, top_left, bottom_right, or a whole number");
    arguments.alignment = *alignment;
  };
  CLI::Option* const first = app->add_option_function<std::string>(
      "--causal", causal,
      "none, square (q_len = kv_len), top_left, bottom_right, or N: the keys before the first query");
  CLI::Option* const second = app->add_option_function<std::string>(
      "--align", align, "Where queries stand without --causal: square, top_left, bottom_right or N");
  first->type_name("HOW");
  second->type_name("HOW")->excludes(first);
}

CLI::Option* add_list(CLI::App* app, const std::string& option, std::vector<std::int64_t>& values,
                      const std::string& what) {
  const auto read = [option, &values](const std::vector<std::string>& texts) { values = whole_numbers(option, texts); };
  return app->add_option_function<std::vector<std::string>>(option, read, what)->type_name("N,N,...");
}

// The options of attention() beside causal and alignment.
void add_options(CLI::App* app, ExplainArguments& arguments) {
  const auto window = [&arguments](const std::vector<std::string>& texts) {
    const std::vector<std::int64_t> bounds = whole_numbers("--window", texts);
    if (bounds.size() != 2) refuse("--window", texts.front(), "two numbers");
    arguments.window = {bounds[0], bounds[1]};
  };
  app->add_option_function<std::vector<std::string>>("--window", window,
                                                     "Keys before and after the query that it sees; negative: all")
      ->expected(1, 2)
      ->type_name("LEFT RIGHT");
  const auto prefix = [&arguments](const std::string& text) {
    arguments.prefix = whole_number(text);
    if (!arguments.prefix) refuse("--prefix", text, "a whole number");
  };
  app->add_option_function<std::string>("--prefix", prefix, "Leading keys of each sequence that causal never hides")
      ->type_name("N");
  add_list(app, "--lengths", arguments.lengths, "Valid keys of each sequence");
  add_list(app, "--cu-seqlens", arguments.cu_seqlens, "Where packed sequences begin, and the end; queries and keys");
  const auto softcap = [&arguments](const std::string& text) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), arguments.softcap);
    if (error != std::errc() || end != text.data() + text.size()) refuse("--softcap", text, "a number");
  };
  app->add_option_function<std::string>("--softcap", softcap, "Scores s become C tanh(s / C)")->type_name("C");
  app->add_flag("--alibi", arguments.alibi, "With ALiBi slopes");
  app->add_flag("--relative-bias", arguments.relative_bias, "With T5's relative bias: 32 buckets, both directions");
  app->add_flag("--sinks", arguments.sinks, "With a sink for each head");
  app->add_flag("--keep-mask", arguments.keep_mask, "With a boolean mask");
  app->add_flag("--bias", arguments.bias, "With a float32 bias that is added to scores");
}

// A subcommand and what it does once the command line is read.
struct Subcommand {
  CLI::App* app;
  std::function<int(const Common&)> run;
};

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

Subcommand add_sample(CLI::App& app) {
  auto arguments = std::make_shared<SampleArguments>();
  arguments->heads = chapter::kHeads;
  CLI::App* sub = add(app, "sample", "Run multi-head attention on a small example: 2 tokens, 2 heads, float64",
                      "  multihead sample\n"
                      "  multihead sample --trace              # every number between X and the output\n"
                      "  multihead sample --trace --heads 3    # the same weights, split three ways\n"
                      "  multihead sample --save .             # also writes X.npy, Wq.npy, Wk.npy, Wv.npy, Wo.npy\n");
  sub->add_flag("--trace", arguments->trace, "Show every step, the weights as a heatmap");
  add_number(sub, "--heads", arguments->heads, 1, "Heads; must divide 6")->default_str("2");
  add_color(sub, arguments->color);
  add_path(sub, "--save", arguments->save, "Folder to write the inputs to, as .npy files");
  return {sub, [arguments](const Common& common) { return sample(*arguments, common); }};
}

Subcommand add_attend(CLI::App& app) {
  auto arguments = std::make_shared<AttendArguments>();
  CLI::App* sub =
      add(app, "attend", "Run multi-head attention on .npy files, all float32 or all float64",
          "  multihead sample --save .    # matrices to begin with\n"
          "  multihead attend --x X.npy --wq Wq.npy --wk Wk.npy --wv Wv.npy --wo Wo.npy --heads 2 --out Y.npy\n"
          "  multihead attend --x X.npy --wq Wq.npy --wk Wk.npy --wv Wv.npy --wo Wo.npy --heads 2 --out Y.npy \\\n"
          "    --weights weights.npy --mean-weights mean.npy\n");
  add_path(sub, "--x", arguments->X, "Input, (n, model_dim)")->required();
  add_path(sub, "--wq", arguments->Wq, "Weights of the queries, (model_dim, heads * head_dim)")->required();
  add_path(sub, "--wk", arguments->Wk, "Weights of the keys, (model_dim, heads * head_dim)")->required();
  add_path(sub, "--wv", arguments->Wv, "Weights of the values, (model_dim, heads * value_dim)")->required();
  add_path(sub, "--wo", arguments->Wo, "Weights of the output, (heads * value_dim, out_dim)")->required();
  add_number(sub, "--heads", arguments->heads, 1, "Heads; must divide the widths")->default_str("1");
  add_path(sub, "--out", arguments->out, "Output to write, (n, out_dim)")->required();
  add_path(sub, "--weights", arguments->weights, "Attention weights to write, (heads, n, n)");
  add_path(sub, "--mean-weights", arguments->mean_weights, "Their mean over heads to write, (n, n)");
  return {sub, [arguments](const Common& common) { return attend(*arguments, common); }};
}

Subcommand add_info(CLI::App& app) {
  CLI::App* sub = add(app, "info", "Show the processor, the targets found and the one chosen",
                      "  multihead info\n"
                      "  multihead info --target baseline\n");
  return {sub, [](const Common& common) { return info(common); }};
}

Subcommand add_explain(CLI::App& app) {
  auto arguments = std::make_shared<ExplainArguments>();
  AttentionShape& shape = arguments->shape;
  CLI::App* sub = add(app, "explain", "Show the kernel an attention call would take: why, tiles, tasks, flops, scratch",
                      "  multihead explain --heads 12 --q-len 512 --head-dim 64\n"
                      "  multihead explain --heads 32 --kv-heads 8 --q-len 1 --kv-len 4096 --head-dim 128 \\\n"
                      "    --causal bottom_right\n"
                      "  multihead explain --q-len 1000 --head-dim 64 --causal square --type float64\n"
                      "  multihead explain --q-len 4096 --head-dim 128 --align square --window 1023,0 --softcap 50\n");
  add_number(sub, "--batch", shape.batch, 0, "Sequences")->default_str("1");
  add_number(sub, "--heads", shape.heads, 0, "Query heads")->default_str("1");
  const CLI::Option* kv_heads =
      add_number(sub, "--kv-heads", shape.kv_heads, 0, "Key and value heads; heads unless given");
  add_number(sub, "--q-len", shape.q_len, 0, "Queries")->required();
  const CLI::Option* kv_len = add_number(sub, "--kv-len", shape.kv_len, 0, "Keys; q_len unless given");
  add_number(sub, "--head-dim", shape.head_dim, 0, "Width of queries and keys, 1 to 1024")->required();
  const CLI::Option* value_dim =
      add_number(sub, "--value-dim", shape.value_dim, 0, "Width of values, 1 to 1024; head_dim unless given");
  add_alignment(sub, *arguments);
  add_options(sub, *arguments);
  add_words(sub, "--type", shape.type,
            {{"float32", Type::float32},
             {"float64", Type::float64},
             {"bfloat16", Type::bfloat16},
             {"float16", Type::float16}},
            "float32, float64, bfloat16 or float16")
      ->default_str("float32");
  return {sub, [=](const Common& common) {
            AttentionShape& given = arguments->shape;
            if (kv_heads->empty()) given.kv_heads = given.heads;
            if (kv_len->empty()) given.kv_len = given.q_len;
            if (value_dim->empty()) given.value_dim = given.head_dim;
            return explain(*arguments, common);
          }};
}

Subcommand add_check(CLI::App& app) {
  auto arguments = std::make_shared<CheckArguments>();
  CLI::App* sub = add(app, "check", "Solve random problems on every target of this machine and compare with float64",
                      "  multihead check\n"
                      "  multihead check --problems 20 --seed 7\n"
                      "  multihead check --problems 20 --target baseline\n");
  add_number(sub, "--problems", arguments->problems, 1, "Random problems for each target and type")->default_str("200");
  add_number(sub, "--seed", arguments->seed, 0, "Other problems for another seed")->default_str("1");
  return {sub, [arguments](const Common& common) { return check(*arguments, common); }};
}

CLI::Option* add_model(CLI::App* app, std::string& folder) {
  return add_path(app, "--model", folder,
                  "The model's folder; unless given, what MULTIHEAD_MODEL names, else the one that ./run fetched");
}

// Positional texts. (CLI11 would take an empty one for none.)
CLI::Option* add_texts(CLI::App* app, const std::string& name, std::vector<std::string>& texts,
                       const std::string& what) {
  const auto read = [&texts](const std::vector<std::string>& given) {
    std::transform(given.begin(), given.end(), std::back_inserter(texts), unguarded);
  };
  return app->add_option_function<std::vector<std::string>>(name, read, what)->type_name("TEXT");
}

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
  return {sub, [arguments](const Common& common) { return encode(*arguments, common); }};
}

Subcommand add_heads(CLI::App& app) {
  auto arguments = std::make_shared<HeadsArguments>();
  CLI::App* sub = add(app, "heads", "Show what each head of a model looks at in a sentence, or in a pair",
                      "  multihead heads \"The cat sat on the mat because it was warm.\"\n"
                      "  multihead heads \"The cat sat on the mat because it was warm.\" --layer 1 --head 0\n"
                      "  multihead heads \"Is it raining?\" \"Take an umbrella.\" --links 5 --special\n");
  add_texts(sub, "texts", arguments->texts, "One text, or two as a pair")->expected(1, 2)->required();
  const auto add_index = [&](const char* option, std::optional<std::int64_t>& index, const char* what) {
    const auto read = [option, &index](const std::string& text) {
      index = whole_number(text);
      if (!index || *index < 0) refuse(option, text, "a whole number of at least 0");
    };
    return sub->add_option_function<std::string>(option, read, what)->type_name("N");
  };
  CLI::Option* layer = add_index("--layer", arguments->layer, "Layer of the map, from 0");
  CLI::Option* head = add_index("--head", arguments->head, "Head of the map, from 0; both unless given: the strongest");
  layer->needs(head), head->needs(layer);
  add_number(sub, "--links", arguments->links, 1, "Links shown of each head")->default_str("3");
  sub->add_flag("--special", arguments->special, "Links from and to [CLS] and [SEP] too, and of tokens to themselves");
  add_color(sub, arguments->color);
  add_model(sub, arguments->model);
  return {sub, [arguments](const Common& common) { return heads(*arguments, common); }};
}

void add_common(CLI::App& app, Common& common) {
  app.set_version_flag("--version", std::string("multihead ") + version());
  add_number(&app, "--threads", common.threads, 1, "Threads; no result depends on it. All of the machine unless given");
  app.add_option_function<std::string>(
         "--target", [&common](const std::string& name) { common.target = target_from_name(name); },
         "baseline, avx2, avx512 or neon; unless given, what MULTIHEAD_TARGET names, else the best")
      ->type_name("NAME");
}

int refused(const std::string& sentence) {
  std::cerr << "multihead: " << printable(sentence) << "\nmultihead --help shows what there is.\n";
  return usage;
}

int run(int argc, char** argv) {
  CLI::App app("Multi-head attention for CPUs", "multihead");
  Common common;
  common.threads = hardware_threads();
  add_common(app, common);
  app.fallthrough();
  app.require_subcommand(0, 1);
  app.footer(
      "multihead SUBCOMMAND --help shows its options and examples.\n"
      "Exit status: 0 success, 1 bad input or a failed check, 2 a command line that cannot be read.\n"
      "\nExamples:\n"
      "  multihead sample --trace\n"
      "  multihead heads \"The cat sat on the mat.\"\n"
      "  multihead info\n"
      "  multihead check --problems 20 --threads 2\n");
  const std::vector<Subcommand> subcommands{add_sample(app), add_heads(app), add_encode(app),  add_tokens(app),
                                            add_attend(app), add_info(app),  add_explain(app), add_check(app)};
  try {
    std::vector<std::string> words;  // from the last to the first
    for (int i = argc - 1; i > 0; --i) words.push_back(guarded(argv[i]));
    app.parse(std::move(words));
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return refused(error.what());
  } catch (const Error& error) {
    return refused(error.what());
  }
  for (const Subcommand& subcommand : subcommands)
    if (subcommand.app->parsed()) return subcommand.run(common);
  return refused("a subcommand is missing: sample, heads, encode, tokens, attend, info, explain or check");
}

}  // namespace

}  // namespace multihead::cli

int main(int argc, char** argv) {
  using namespace multihead::cli;
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is then a failed write, and is told
#endif
  int status = failure;
  try {
    status = run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::cerr << "multihead: out of memory\n";
  } catch (const std::logic_error& error) {
    std::cerr << "multihead: internal error: " << printable(error.what()) << '\n';
  } catch (const std::exception& error) {
    std::cerr << "multihead: " << printable(error.what()) << '\n';
  }
  if (!std::cout.flush()) {
    std::cerr << "multihead: standard output cannot be written\n";
    return failure;
  }
  return status;
}
