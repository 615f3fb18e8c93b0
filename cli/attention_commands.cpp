// SPDX-License-Identifier: Apache-2.0
// The options of the subcommands that take no model: sample, attend, info, explain and check.
#include <charconv>
#include <memory>

#include "chapter.hpp"
#include "options.hpp"

namespace multihead::cli {

namespace {

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

// The options of attention() beside causal and alignment.
void add_options(CLI::App* app, ExplainArguments& arguments) {
  const auto window = [&arguments](const std::vector<std::string>& texts) {
    const std::vector<std::int64_t> bounds = whole_numbers("--window", texts);
    if (bounds.size() != 2) refuse("--window", texts.front(), "two numbers");
    arguments.window.left = bounds[0], arguments.window.right = bounds[1];
  };
  app->add_option_function<std::vector<std::string>>("--window", window,
                                                     "Keys before and after the query that it sees; negative: all")
      ->expected(1, 2)
      ->type_name("LEFT RIGHT");
  const auto first = [&arguments](const std::string& text) {
    const std::optional<std::int64_t> keys = whole_number(text);
    if (!keys) refuse("--window-first", text, "a whole number");
    arguments.window.first = *keys;
  };
  app->add_option_function<std::string>("--window-first", first, "Leading keys of each sequence that LEFT never hides")
      ->type_name("N");
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

}  // namespace

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

}  // namespace multihead::cli
