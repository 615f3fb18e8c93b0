// SPDX-License-Identifier: Apache-2.0
// What the command line says, one struct a subcommand, and the function that does it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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
};

struct HeadsArguments {
  std::vector<std::string> texts;  // one or two
  std::optional<std::int64_t> layer, head;
  std::int64_t links = 3;
  bool special = false;
  Color color = Color::automatic;
  std::string model;  // a folder, or empty
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

// Each prints to standard output and returns the exit status, 0 or 1. Throws Error.
int sample(const SampleArguments& arguments, const Common& common);
int heads(const HeadsArguments& arguments, const Common& common);
int encode(const EncodeArguments& arguments, const Common& common);
int tokens(const TokensArguments& arguments);
int attend(const AttendArguments& arguments, const Common& common);
int info(const Common& common);
int explain(const ExplainArguments& arguments, const Common& common);
int check(const CheckArguments& arguments, const Common& common);

}  // namespace multihead::cli
