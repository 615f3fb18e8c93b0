// SPDX-License-Identifier: Apache-2.0
// What the command line says, one struct a subcommand, and the function that does it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "multihead/generate.hpp"
#include "multihead/multihead.hpp"

namespace multihead::cli {

// Options of every subcommand.
struct Common {
  int threads = 1;
  std::optional<Target> target;
};

enum class Color { automatic, always, never };

struct SampleArguments {
  bool trace = false;
  int heads = 0;
  Color color = Color::automatic;
  std::string save;  // a folder, or empty
};

struct TokensArguments {
  std::vector<std::string> texts;  // one or two
  std::string model;               // a folder, or empty
};

struct EncodeArguments {
  std::vector<std::string> sentences;
  std::string file, out, model;  // each may be empty
  Type products = Type::float32;
};

// What orders the table of heads.
enum class HeadOrder { layer, entropy, largest, distance, previous, self, next, first, special };

// A head of a layer, and what its output is multiplied by.
struct HeadGate {
  std::int64_t layer, head;
  double scale;
};

struct HeadsArguments {
  std::vector<std::string> texts;  // one or two
  std::optional<std::int64_t> layer, head;
  std::int64_t links = 3;
  bool special = false, stats = false;
  HeadOrder sort = HeadOrder::layer;
  std::optional<std::string> row;  // a row's number or token
  std::optional<std::int64_t> top;
  std::string html, json, csv, npz;  // files to write, each may be empty; - is standard output
  std::vector<HeadGate> gates;
  Color color = Color::automatic;
  std::string model;  // a folder, or empty
  Type products = Type::float32;
};

struct RelationsArguments {
  std::string file, model, json;  // each may be empty
  Type products = Type::float32;
  bool all = false, punctuation = true;
};

struct AblateArguments {
  std::vector<std::string> texts;
  double scale = 0;                    // of each head in turn, and of `heads`
  std::vector<HeadGate> heads, gates;  // all at once, in place of each in turn
  std::int64_t top = 10;
  std::string model, json;  // each may be empty
  Type products = Type::float32;
};

struct CompareArguments {
  std::vector<std::string> texts;  // one
  std::string model, json;         // each may be empty
  std::optional<std::string> other_text;
  std::string other;  // a folder, or empty
  std::optional<Type> precision, products;
  std::optional<Target> other_target;
  std::int64_t top = 10;
};

struct AttendArguments {
  std::string X, Wq, Wk, Wv, Wo;           // .npy files to read
  std::string out, weights, mean_weights;  // .npy files to write; the last two may be empty
  int heads = 1;
};

struct ExplainArguments {
  AttentionShape shape;
  bool causal = false;
  Alignment alignment;
  Window window;
  std::optional<std::int64_t> prefix;             // of every sequence
  std::vector<std::int64_t> lengths, cu_seqlens;  // cu_seqlens: of queries and keys alike
  double softcap = 0;
  bool alibi = false, relative_bias = false, sinks = false, keep_mask = false, bias = false;  // whether there is one
};

struct CheckArguments {
  int problems = 200;
  std::uint64_t seed = 1;
};

struct TrainArguments {
  std::string task;
  std::optional<std::int64_t> heads, steps, seeds;  // the task's own unless given
  std::uint64_t seed = 1, first_seed = 1;
  std::string out;  // a folder, or empty
  bool resume = false, study = false, json = false;
};

struct LearnedArguments {
  std::string task, input, html, model;  // each may be empty
  Color color = Color::automatic;
};

struct TranslateArguments {
  std::vector<std::string> texts;  // one
  std::string html, model;         // each may be empty
  std::int64_t beam = 1;
  bool summarise = false, heads = false;
  Color color = Color::automatic;
};

struct GenerateArguments {
  std::string folder;
  std::vector<std::string> prompts;  // one at least
  GenerateOptions options;
  KvStorage storage = KvStorage::float32;
  Type products = Type::float32;
};

// Each prints to standard output and returns the exit status, 0 or 1. Throws Error.
int sample(const SampleArguments& arguments, const Common& common);
int heads(const HeadsArguments& arguments, const Common& common);
int encode(const EncodeArguments& arguments, const Common& common);
int tokens(const TokensArguments& arguments);
int relations(const RelationsArguments& arguments, const Common& common);
int ablate(const AblateArguments& arguments, const Common& common);
int compare(const CompareArguments& arguments, const Common& common);
int attend(const AttendArguments& arguments, const Common& common);
int info(const Common& common);
int explain(const ExplainArguments& arguments, const Common& common);
int check(const CheckArguments& arguments, const Common& common);
int train(const TrainArguments& arguments, const Common& common);
int learned(const LearnedArguments& arguments, const Common& common);
int generate(const GenerateArguments& arguments, const Common& common);
int translate(const TranslateArguments& arguments, const Common& common);

}  // namespace multihead::cli
