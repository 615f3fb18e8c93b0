// SPDX-License-Identifier: Apache-2.0
// Small Transformers with sequences to go over.
#include "transformer_problem.hpp"

namespace multihead::testing {

Side::Side(const std::vector<std::int64_t>& vocab, const std::vector<std::int64_t>& lengths, std::uint64_t seed)
    : cu_seqlens{0}, tables(static_cast<std::int64_t>(vocab.size())) {
  multihead::Random random(seed, 9);
  for (const std::int64_t length : lengths) cu_seqlens.push_back(cu_seqlens.back() + length);
  for (const std::int64_t rows : vocab)
    for (std::int64_t i = 0; i < tokens(); ++i)
      ids.push_back(rows != vocab[0] && random.below(4) == 0 ? -1 : random.below(rows));
}

Side Side::only(std::size_t sequence) const {
  Side one;
  one.tables = tables;
  const std::int64_t begin = cu_seqlens[sequence], end = cu_seqlens[sequence + 1];
  one.cu_seqlens = {0, end - begin};
  for (std::int64_t table = 0; table < tables; ++table)
    one.ids.insert(one.ids.end(), ids.begin() + table * tokens() + begin, ids.begin() + table * tokens() + end);
  return one;
}

std::vector<TransformerProblem> transformer_problems() {
  TransformerConfig base;
  base.source_vocab = {7};
  base.classes = 5;
  base.max_tokens = 9;
  base.model_dim = 8, base.heads = 2, base.feed_forward = 12;
  base.embedding_deviation = 0.5;
  std::vector<TransformerProblem> problems;
  const auto add = [&](const char* name, TransformerConfig config, const std::vector<std::int64_t>& lengths) {
    const bool both = config.kind == Kind::encoder_decoder;
    Side source(config.source_vocab, lengths, 1);
    Side target = both ? Side(config.target_vocab, {3, 1, 5, 2}, 2) : Side();
    problems.push_back({name, std::move(config), std::move(source), std::move(target), {}, false});
  };

  TransformerConfig tables = base;
  tables.source_vocab = {7, 6, 4}, tables.encoder_layers = 2;
  add("encoder of three tables", tables, {4, 1, 9, 2});
  TransformerConfig bare = base;
  bare.feed_forward = 0, bare.final_norm = false, bare.rotary = true;
  add("attention alone, rotary", bare, {4, 0, 6});
  TransformerConfig decoder = base;
  decoder.kind = Kind::decoder, decoder.tied = true, decoder.classes = 7, decoder.decoder_layers = 2;
  decoder.activation = Activation::silu;
  add("tied decoder", decoder, {5, 3});
  TransformerConfig both = base;
  both.kind = Kind::encoder_decoder, both.target_vocab = {6}, both.decoder_layers = 2;
  add("encoder and decoder", both, {4, 2, 3, 1});
  both.rotary = true, both.tied = true, both.classes = 6, both.encoder_layers = 2, both.dropout = 0.25;
  add("encoder and decoder, rotary, tied, dropout, gates", both, {4, 2, 3, 1});
  problems.back().training = true;
  problems.back().gates = Matrix<double>{{1, 0.5}, {0, 1}, {1, 1}, {2, 1}, {0.25, 1}, {1, -1}};
  return problems;
}

}  // namespace multihead::testing
