// SPDX-License-Identifier: Apache-2.0
// Handles of encoders give what Encoder, WordPiece and SentenceEncoder give, and say why where they cannot.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "c_face.hpp"
#include "models/tiny_model.hpp"

namespace multihead::testing {
namespace {

struct Folder {
  TinyModel model{"bert"};
  TemporaryFolder folder;
  Folder() { model.write(folder); }
  void add_tokenizer() const {
    std::string vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\n,\n.\n";
    for (int i = 10; i < 37; ++i) vocabulary += "w" + std::to_string(i) + "\n";
    folder.write("vocab.txt", vocabulary);
  }
  std::string path() const { return folder.path().string(); }
};

struct Handle {
  mh_encoder* encoder = nullptr;
  explicit Handle(const Folder& at) {
    EXPECT_EQ(mh_encoder_open(at.path().c_str(), &encoder), MH_OK) << mh_last_error_message();
  }
  ~Handle() { mh_encoder_destroy(encoder); }
  Handle(const Handle&) = delete;
};

template <class T>
mh_tensor list(std::vector<T>& values) {
  return c_face::tensor_of(View<T, 1>(values.data(), {static_cast<std::int64_t>(values.size())}), true);
}

TEST(CEncoder, ForwardHasTheBitsOfCpp) {
  const Folder at;
  const Handle handle(at);
  const Encoder wanted(at.path());
  std::vector<std::int64_t> ids{2, 5, 6, 3, 2, 9, 9, 3, 3}, starts{0, 4, 9}, types{0, 0, 1, 1, 0, 0, 0, 1, 1};
  const std::int64_t n = 9, width = 15, layers = 2, heads = 3;
  const mh_tensor c_ids = list(ids), c_starts = list(starts), c_types = list(types);
  for (bool asks : {false, true}) {
    Matrix<float> output(n, width), by_cpp(n, width);
    std::vector<float> memory(static_cast<std::size_t>((layers + 1) * n * width + layers * heads * n * n)),
        same = memory;
    const auto states = [&](std::vector<float>& m) { return View3<float>(m.data(), {layers + 1, n, width}); };
    const auto requests = [&](std::vector<float>& m) {
      std::vector<WeightsRequest<float>> all(2);
      for (std::int64_t l = 0; l < layers; ++l)
        all[static_cast<std::size_t>(l)].per_head = {m.data() + (layers + 1) * n * width + l * heads * n * n,
                                                     {1, heads, n, n}};
      return all;
    };
    const auto cpp_weights = requests(same);
    EncoderRequests cpp_asked;
    std::vector<float> norms(2 * 3 * ids.size(), 77), same_norms = norms;
    const View3<float>::Extents norms_extents{2, 3, static_cast<std::int64_t>(ids.size())};
    if (asks) cpp_asked = {states(same), cpp_weights, {}, {same_norms.data(), norms_extents}};
    wanted.forward({ids, starts, types}, by_cpp, {.threads = 2}, cpp_asked);

    const auto c_requests = requests(memory);
    const c_face::Weights<float> first(c_requests[0]), second(c_requests[1]);
    const mh_weights_request* const both[] = {&first.request, &second.request};
    const mh_tensor hidden = c_face::tensor_of(states(memory)), to = c_face::tensor_of(MatrixView<float>(output));
    mh_encoder_call call;
    mh_encoder_call_init(&call, sizeof call);
    call.ids = &c_ids, call.cu_seqlens = &c_starts, call.token_types = &c_types;
    const mh_tensor c_norms = c_face::tensor_of(View3<float>(norms.data(), norms_extents));
    if (asks) call.hidden_states = &hidden, call.weights = both, call.weights_count = 2, call.norms = &c_norms;
    const c_face::Run run({.threads = 2});
    ASSERT_EQ(mh_encoder_forward(handle.encoder, &call, &to, &run.run), MH_OK) << mh_last_error_message();
    EXPECT_EQ(output, by_cpp);
    EXPECT_EQ(memory, same);
    EXPECT_EQ(norms, same_norms);
  }
  mh_encoder_extents extents;
  mh_encoder_extents_init(&extents, sizeof extents);
  ASSERT_EQ(mh_encoder_get_extents(handle.encoder, &extents), MH_OK);
  const EncoderExtents& e = wanted.extents();
  EXPECT_EQ((std::array{extents.layers, extents.heads, extents.head_dim, extents.model_dim, extents.intermediate_dim,
                        extents.vocab_size, extents.token_types, extents.max_tokens}),
            (std::array{e.layers, e.heads, e.head_dim, e.model_dim, e.intermediate_dim, e.vocab_size, e.token_types,
                        e.max_tokens}));
  EXPECT_EQ(extents.texts, 0);
}

TEST(CEncoder, OptionsAreThoseOfCpp) {
  const Folder at;
  at.add_tokenizer();
  std::vector<std::int64_t> ids{2, 5, 6, 3};
  const mh_tensor c_ids = list(ids);
  const char* const text = "a b, c.";
  for (const EncoderOptions& given : {EncoderOptions{}, EncoderOptions{.products = Type::bfloat16},
                                      EncoderOptions{.precision = Type::float16, .products = Type::bfloat16}}) {
    mh_encoder_options options;
    mh_encoder_options_init(&options, sizeof options);
    EXPECT_EQ((std::array{options.precision, options.products, options.reserved}),
              (std::array{mh_type{MH_FLOAT32}, mh_type{MH_FLOAT32}, 0}));
    if (given.precision == Type::float16) options.precision = MH_FLOAT16;
    if (given.products == Type::bfloat16) options.products = MH_BFLOAT16;
    mh_encoder* opened = nullptr;
    ASSERT_EQ(mh_encoder_open_with(at.path().c_str(), &options, &opened), MH_OK) << mh_last_error_message();
    const std::unique_ptr<mh_encoder, void (*)(mh_encoder*)> owner(opened, mh_encoder_destroy);
    const SentenceEncoder wanted(at.path(), given);
    Matrix<float> output(4, 15), by_cpp(4, 15), vector(1, 15);
    const mh_tensor to = c_face::tensor_of(MatrixView<float>(output)),
                    row = c_face::tensor_of(MatrixView<float>(vector));
    mh_encoder_call call;
    mh_encoder_call_init(&call, sizeof call);
    call.ids = &c_ids;
    ASSERT_EQ(mh_encoder_forward(opened, &call, &to, nullptr), MH_OK) << mh_last_error_message();
    wanted.encoder().forward({.ids = ids}, by_cpp);
    EXPECT_TRUE(std::ranges::equal(output.values(), by_cpp.values()));
    ASSERT_EQ(mh_encoder_encode(opened, &text, 1, &row, nullptr), MH_OK) << mh_last_error_message();
    const std::string sentence = text;
    const Matrix<float> encoded = wanted.encode({&sentence, 1});
    EXPECT_TRUE(std::ranges::equal(vector.values(), encoded.values()));
  }
  mh_encoder* none = nullptr;
  const auto refused = [&](mh_status status, const std::string& word, const auto& change) {
    mh_encoder_options options;
    mh_encoder_options_init(&options, sizeof options);
    change(options);
    EXPECT_EQ(mh_encoder_open_with(at.path().c_str(), &options, &none), status);
    EXPECT_NE(std::string(mh_last_error_message()).find(word), std::string::npos) << mh_last_error_message();
    EXPECT_EQ(none, nullptr);
  };
  refused(MH_BAD_OPTION, "products is float16; it must be", [](mh_encoder_options& o) { o.products = MH_FLOAT16; });
  refused(MH_BAD_OPTION, "precision is float64; it must be", [](mh_encoder_options& o) { o.precision = MH_FLOAT64; });
  refused(MH_BAD_TYPE, "products has type int64", [](mh_encoder_options& o) { o.products = MH_INT64; });
  refused(MH_BAD_ARGUMENT, "reserved is 1", [](mh_encoder_options& o) { o.reserved = 1; });
  EXPECT_EQ(mh_encoder_open_with(at.path().c_str(), nullptr, nullptr), MH_BAD_ARGUMENT);
  EXPECT_EQ(mh_encoder_open_with(nullptr, nullptr, &none), MH_BAD_ARGUMENT);
}

// Statistics of two layers, and gates.
TEST(CEncoder, StatisticsHaveTheBitsOfCpp) {
  const Folder at;
  const Handle handle(at);
  const Encoder wanted(at.path());
  std::vector<std::int64_t> ids{2, 5, 6, 3, 2, 9, 9, 3, 3}, starts{0, 4, 9}, offsets{-1, 0};
  const std::vector<double> gates{1, 0.5, -1, 2, 1, 0};
  const mh_tensor c_ids = list(ids), c_starts = list(starts);
  const MatrixView<const double> gate_view(gates.data(), {2, 3});
  const mh_tensor c_gates = c_face::tensor_of(gate_view);
  const auto bits = [&](const auto& run) {
    Matrix<float> output(9, 15);
    std::vector<float> memory(2 * 27 * 4, 77);
    std::vector<StatisticsRequest<float>> asked(2);
    for (std::size_t l = 0; l < 2; ++l) {
      float* const first = memory.data() + l * 27 * 4;
      asked[l].offsets = offsets;
      asked[l].plain.entropy = {first, {1, 3, 9}};
      asked[l].plain.offset_mass = {first + 27, {1, 3, 9, 2}};
      asked[l].norm_weighted.entropy = {first + 81, {1, 3, 9}};
    }
    run(output, asked);
    const View<const float, 1> all(memory.data(), {static_cast<std::int64_t>(memory.size())});
    return hash_bits(all, hash_bits(MatrixView<const float>(output)));
  };
  EXPECT_EQ(bits([&](Matrix<float>& output, const auto& asked) {
              const c_face::Statistics<float> first(asked[0]), second(asked[1]);
              const mh_statistics_request* const both[] = {&first.request, &second.request};
              const mh_tensor to = c_face::tensor_of(MatrixView<float>(output));
              mh_encoder_call call;
              mh_encoder_call_init(&call, sizeof call);
              call.ids = &c_ids, call.cu_seqlens = &c_starts, call.gates = &c_gates;
              call.statistics = both, call.statistics_count = 2;
              ASSERT_EQ(mh_encoder_forward(handle.encoder, &call, &to, nullptr), MH_OK) << mh_last_error_message();
              call.statistics_count = 1;
              EXPECT_EQ(mh_encoder_forward(handle.encoder, &call, &to, nullptr), MH_SHAPE_MISMATCH);
              EXPECT_EQ(mh_last_error_message(),
                        std::string("Encoder: statistics_count is 1, layers is 2; they must be equal"));
              call.statistics_count = 0;
              EXPECT_EQ(mh_encoder_forward(handle.encoder, &call, &to, nullptr), MH_BAD_ARGUMENT);
            }),
            bits([&](Matrix<float>& output, const auto& asked) {
              wanted.forward({.ids = ids, .cu_seqlens = starts, .gates = gate_view}, output, {}, {.statistics = asked});
            }));
}

TEST(CEncoder, TextsAreThoseOfCpp) {
  const Folder at;
  at.add_tokenizer();
  const Handle handle(at);
  const SentenceEncoder wanted(at.folder.path());
  mh_encoder_extents extents;
  mh_encoder_extents_init(&extents, sizeof extents);
  ASSERT_EQ(mh_encoder_get_extents(handle.encoder, &extents), MH_OK);
  EXPECT_EQ(extents.texts, 1);

  const char* text = "a b, unheard c.";
  const std::vector<Token> tokens = wanted.tokenizer().encode(text);
  std::size_t count = 0;
  ASSERT_EQ(mh_encoder_tokens(handle.encoder, text, std::strlen(text), nullptr, nullptr, nullptr, 0, &count), MH_OK);
  ASSERT_EQ(count, tokens.size());
  std::vector<std::int64_t> ids(count), begins(count), ends(count);
  ASSERT_EQ(
      mh_encoder_tokens(handle.encoder, text, std::strlen(text), ids.data(), begins.data(), ends.data(), count, &count),
      MH_OK);
  for (std::size_t i = 0; i < count; ++i) {
    EXPECT_EQ(ids[i], tokens[i].id);
    EXPECT_EQ(begins[i], static_cast<std::int64_t>(tokens[i].begin));
    EXPECT_EQ(ends[i], static_cast<std::int64_t>(tokens[i].end));
    EXPECT_EQ(mh_encoder_token_text(handle.encoder, ids[i]), wanted.tokenizer().text(ids[i]));
  }
  EXPECT_EQ(mh_encoder_token_text(handle.encoder, -1), nullptr);
  EXPECT_EQ(mh_encoder_token_text(handle.encoder, 37), nullptr);
  EXPECT_EQ(mh_encoder_token_text(nullptr, 0), nullptr);
  ids.assign(count, 77);
  EXPECT_EQ(mh_encoder_tokens(handle.encoder, text, std::strlen(text), ids.data(), nullptr, nullptr, count - 1, &count),
            MH_SHAPE_MISMATCH);
  EXPECT_EQ(ids, std::vector<std::int64_t>(count, 77));
  EXPECT_EQ(mh_encoder_tokens(handle.encoder, nullptr, 0, nullptr, nullptr, nullptr, 0, &count), MH_OK);
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(mh_encoder_tokens(handle.encoder, nullptr, 3, nullptr, nullptr, nullptr, 0, &count), MH_BAD_ARGUMENT);

  const char* const texts[] = {"a b c", "", "d, d."};
  const Matrix<float> vectors = wanted.encode(std::vector<std::string>{"a b c", "", "d, d."});
  std::vector<float> memory(3 * 17, 77);
  mh_tensor to = c_face::tensor_of(View<float, 2>(memory.data(), {3, 15}, {17, 1}));
  const auto encode = [&] { return mh_encoder_encode(handle.encoder, texts, 3, &to, nullptr); };
  ASSERT_EQ(encode(), MH_OK) << mh_last_error_message();
  for (int i = 0; i < 3; ++i)
    for (int c = 0; c < 17; ++c)
      EXPECT_EQ(memory[static_cast<std::size_t>(i * 17 + c)], c < 15 ? vectors(i, c) : 77.0f);
  const std::vector<float> before = memory;
  to.strides[0] = 14;
  EXPECT_EQ(encode(), MH_SHAPE_MISMATCH);
  to.strides[0] = 17, to.shape[0] = 2;
  EXPECT_EQ(encode(), MH_SHAPE_MISMATCH);
  to.shape[0] = 3, to.type = MH_FLOAT64;
  EXPECT_EQ(encode(), MH_BAD_TYPE);
  to.type = MH_FLOAT32;
  const char* const holes[] = {"a", nullptr, "b"};
  EXPECT_EQ(mh_encoder_encode(handle.encoder, holes, 3, &to, nullptr), MH_BAD_ARGUMENT);
  EXPECT_EQ(mh_last_error_message(), std::string("SentenceEncoder: text 1 is NULL; it must be given"));
  EXPECT_EQ(memory, before);
}

TEST(CEncoder, TextsWithoutATokenizerAreRefusedWithTheReason) {
  const Folder at;
  const Handle handle(at);
  std::size_t count = 77;
  EXPECT_EQ(mh_encoder_tokens(handle.encoder, "a", 1, nullptr, nullptr, nullptr, 0, &count), MH_FILE_MISSING);
  EXPECT_NE(std::string(mh_last_error_message()).find("tokenizer.json"), std::string::npos) << mh_last_error_message();
  EXPECT_EQ(count, 77u);
  std::vector<float> memory(15);
  const mh_tensor to = c_face::tensor_of(View<float, 2>(memory.data(), {1, 15}));
  const char* const texts[] = {"a"};
  EXPECT_EQ(mh_encoder_encode(handle.encoder, texts, 1, &to, nullptr), MH_FILE_MISSING);
  EXPECT_EQ(mh_encoder_token_text(handle.encoder, 0), nullptr);
}

TEST(CEncoder, Refuses) {
  mh_encoder* none = nullptr;
  EXPECT_EQ(mh_encoder_open("/nowhere/at/all", &none), MH_FILE_MISSING);
  EXPECT_EQ(mh_encoder_open(nullptr, &none), MH_BAD_ARGUMENT);
  EXPECT_EQ(none, nullptr);
  const Folder at;
  const Handle handle(at);
  std::vector<std::int64_t> ids{2, 5, 3}, far{2, 37, 3}, types{};
  std::vector<float> memory(45, 77);
  const mh_tensor c_ids = list(ids), c_far = list(far), c_types = list(types),
                  to = c_face::tensor_of(View<float, 2>(memory.data(), {3, 15}));
  const auto refused = [&](mh_status status, const std::string& word, const auto& change) {
    mh_encoder_call call;
    mh_encoder_call_init(&call, sizeof call);
    call.ids = &c_ids;
    change(call);
    EXPECT_EQ(mh_encoder_forward(handle.encoder, &call, &to, nullptr), status);
    EXPECT_NE(std::string(mh_last_error_message()).find(word), std::string::npos) << mh_last_error_message();
    EXPECT_EQ(memory, std::vector<float>(45, 77));
  };
  const mh_weights_request* request = nullptr;
  refused(MH_BAD_OPTION, "an id is 37", [&](mh_encoder_call& c) { c.ids = &c_far; });
  refused(MH_BAD_ARGUMENT, "ids is missing", [](mh_encoder_call& c) { c.ids = nullptr; });
  refused(MH_BAD_ARGUMENT, "reserved is 1", [](mh_encoder_call& c) { c.reserved = 1; });
  refused(MH_BAD_ARGUMENT, "mh_encoder_call has struct_size 4", [](mh_encoder_call& c) { c.struct_size = 4; });
  refused(MH_SHAPE_MISMATCH, "token_types has no elements", [&](mh_encoder_call& c) { c.token_types = &c_types; });
  refused(MH_BAD_ARGUMENT, "weights is NULL", [](mh_encoder_call& c) { c.weights_count = 2; });
  refused(MH_SHAPE_MISMATCH, "weights_count is 1, layers is 2",
          [&](mh_encoder_call& c) { c.weights = &request, c.weights_count = 1; });
  EXPECT_EQ(mh_encoder_forward(nullptr, nullptr, &to, nullptr), MH_BAD_ARGUMENT);
}

}  // namespace
}  // namespace multihead::testing
