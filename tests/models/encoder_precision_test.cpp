// SPDX-License-Identifier: Apache-2.0
// Encoders whose weights are rounded as they are read: the bits of the model whose file holds the rounded numbers.
#include <gtest/gtest.h>

#include "models/tiny_model.hpp"
#include "multihead/encoder.hpp"

namespace multihead::testing {
namespace {

std::vector<float> states(const Encoder& encoder) {
  const std::vector<std::int64_t> ids{2, 9, 31, 4, 9};
  std::vector<float> output(ids.size() * static_cast<std::size_t>(encoder.extents().model_dim));
  encoder.forward({.ids = ids}, MatrixView<float>(output.data(), {5, encoder.extents().model_dim}));
  return output;
}

template <class T>
void expect_rounded(const char* family, Type precision) {
  TinyModel model(family);
  const TemporaryFolder exact, rounded;
  model.write(exact);
  for (auto& [name, tensor] : model.tensors)
    for (float& value : tensor.values) value = static_cast<float>(T(value));
  model.write(rounded);
  const std::vector<float> wanted = states(Encoder(rounded.path()));
  EXPECT_EQ(states(Encoder(exact.path(), {.precision = precision})), wanted) << family;
  EXPECT_EQ(states(Encoder(rounded.path(), {.precision = precision})), wanted) << family;
  EXPECT_NE(states(Encoder(exact.path())), wanted) << family;
}

TEST(EncoderPrecision, EveryTensorIsRounded) {
  for (const char* family : {"bert", "distilbert", "roberta"}) {
    expect_rounded<BFloat16>(family, Type::bfloat16);
    expect_rounded<Float16>(family, Type::float16);
  }
}

TEST(EncoderPrecision, OtherTypesAreRefused) {
  const TemporaryFolder folder;
  TinyModel("bert").write(folder);
  try {
    const Encoder encoder(folder.path(), {.precision = Type::float64});
    ADD_FAILURE() << "nothing thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_option);
    EXPECT_EQ(std::string(error.what()), "Encoder: precision is float64; it must be float32, bfloat16 or float16");
  }
}

}  // namespace
}  // namespace multihead::testing
