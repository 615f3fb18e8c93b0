// SPDX-License-Identifier: Apache-2.0
// Small Transformers with sequences to go over, for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "multihead/transformer.hpp"

namespace multihead::testing {

using Kind = TransformerConfig::Kind;

// Sequences of those lengths, ids at random, now and then -1 in all tables but the first.
struct Side {
  std::vector<std::int64_t> ids, cu_seqlens;
  std::int64_t tables = 0;

  Side() = default;
  Side(const std::vector<std::int64_t>& vocab, const std::vector<std::int64_t>& lengths, std::uint64_t seed);

  std::int64_t tokens() const { return cu_seqlens.empty() ? 0 : cu_seqlens.back(); }
  TokenBatch batch() const { return {{ids.data(), {tables, tokens()}}, cu_seqlens}; }
  // One sequence alone.
  Side only(std::size_t sequence) const;
};

struct TransformerProblem {
  std::string name;
  TransformerConfig config;
  Side source, target;  // target of an encoder_decoder
  Matrix<double> gates;
  bool training = false;

  std::int64_t tokens() const { return (config.kind == Kind::encoder_decoder ? target : source).tokens(); }
  TransformerOptions options() const {
    TransformerOptions wanted;
    wanted.gates = gates;
    wanted.training = training;
    wanted.seed = 5;
    return wanted;
  }
  template <class T>
  Matrix<T> logits(Transformer<T>& model, const TransformerOptions& wanted) const {
    Matrix<T> written(tokens(), config.classes);
    model.forward(source.batch(), target.batch(), written, wanted);
    return written;
  }
  template <class T>
  Matrix<T> logits(Transformer<T>& model) const {
    return logits(model, options());
  }
};

// Every kind, rotary, tied, several tables, gates, dropout, without feed-forward and norm at the end.
std::vector<TransformerProblem> transformer_problems();

}  // namespace multihead::testing
