// SPDX-License-Identifier: Apache-2.0
// Runs the cases that a framework's own modules wrote: layers by layout name, inputs, masks, expected outputs.
//
//   layer_runner FOLDER      FOLDER/cases.txt, a word and its values a line; arrays in .npy files beside it
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <map>
#include <sstream>

#include "multihead/multihead.hpp"

namespace multihead {
namespace {

struct TestCase {
  std::string name;
  std::map<std::string, std::vector<std::string>> words;     // "layout", "heads", "causal" ..
  std::vector<std::pair<std::string, std::string>> tensors;  // name, file
  std::vector<std::string> aside;
};

std::vector<TestCase> read_cases(const std::filesystem::path& folder) {
  std::ifstream file(folder / "cases.txt");
  std::vector<TestCase> cases;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key, word;
    words >> key;
    if (key == "case") {
      cases.emplace_back();
      words >> cases.back().name;
    } else if (key == "tensor") {
      std::string name, from;
      words >> name >> from;
      cases.back().tensors.emplace_back(name, from);
    } else if (key == "aside") {
      words >> cases.back().aside.emplace_back();
    } else {
      std::vector<std::string>& values = cases.back().words[key];
      while (words >> word) values.push_back(word);
    }
  }
  return cases;
}

// Everything of one case in memory, as T.
template <class T>
class Runner {
 public:
  Runner(const std::filesystem::path& folder, const TestCase& test) : folder_(folder), test_(test) {}

  // The largest error of the output and of the weights, as a share of the case's tolerance.
  double run() {
    const MultiHeadAttention<T> layer = make_layer();
    const View3<const T> query = view<3>("query");
    const bool self = !has("key");
    const View3<const T> key = self ? query : view<3>("key"), value = self ? query : view<3>("value");
    MultiHeadOptions options;
    read_options(options);
    std::vector<T> wanted = array("output").values, wanted_weights;
    std::vector<T> output(wanted.size()), weights;
    MultiHeadRequests<T> requests;
    if (has("weights")) {
      const Loaded& all = array("weights");
      wanted_weights = all.values;
      weights.resize(wanted_weights.size());
      if (all.shape.size() == 3)
        requests.weights.mean = {weights.data(), {all.shape[0], all.shape[1], all.shape[2]}};
      else
        requests.weights.per_head = {weights.data(), {all.shape[0], all.shape[1], all.shape[2], all.shape[3]}};
    }
    const std::vector<std::int64_t>& shape = array("output").shape;
    layer.forward(query, key, value, View3<T>(output.data(), {shape[0], shape[1], shape[2]}), options, requests);
    return std::max(worst(output, wanted), worst(weights, wanted_weights)) / number("tolerance");
  }

 private:
  struct Loaded {
    std::vector<T> values;
    std::vector<std::int64_t> shape;
  };

  bool has(const std::string& key) const { return test_.words.count(key) > 0; }
  const std::string& word(const std::string& key) const { return test_.words.at(key).at(0); }
  double number(const std::string& key) const { return std::stod(word(key)); }

  const Loaded& load(const std::string& file) {
    const Array from = read_npy(folder_ / file);
    return loaded_.emplace_back(Loaded{from.converted<T>(), from.shape});
  }
  const Loaded& array(const std::string& key) {
    const auto found = arrays_.find(key);
    if (found != arrays_.end()) return *found->second;
    return *(arrays_[key] = &load(word(key)));
  }
  template <int Rank>
  View<const T, Rank> view(const std::string& key) {
    const Loaded& from = array(key);
    std::array<std::int64_t, Rank> extents{};
    std::copy_n(from.shape.begin(), Rank, extents.begin());
    return {from.values.data(), extents};
  }

  MultiHeadAttention<T> make_layer() {
    MultiHeadSpec spec{.heads = std::stoll(word("heads"))};
    if (has("kv_heads")) spec.kv_heads = std::stoll(word("kv_heads"));
    if (has("eps")) spec.q_norm.eps = spec.k_norm.eps = number("eps");
    spec.add_zero_attn = has("zero_attn");
    if (has("theta")) spec.rotary = RotaryOptions{.theta = number("theta")};
    if (has("rotary_dim")) spec.rotary->rotary_dim = std::stoll(word("rotary_dim"));
    if (has("linear")) spec.rotary->scaling = {.type = "linear", .factor = number("linear")};
    std::vector<NamedTensor<T>> tensors;
    for (const auto& [name, file] : test_.tensors) {
      const Loaded& from = load(file);
      tensors.push_back({name, from.values.data(), from.shape});
    }
    const std::vector<std::string_view> aside(test_.aside.begin(), test_.aside.end());
    const std::string prefix = has("prefix") ? word("prefix") : "";
    return load_layer(word("layout"), tensors, spec, {.prefix = prefix, .aside = aside});
  }

  Mask mask(const std::string& key) {
    const Loaded& from = array(key);
    std::vector<std::uint8_t>& bytes = bytes_.emplace_back();
    for (T x : from.values) bytes.push_back(x != 0);
    const auto& s = from.shape;
    if (s.size() == 2) return View<const std::uint8_t, 2>(bytes.data(), {s[0], s[1]});
    return View<const std::uint8_t, 4>(bytes.data(), {s[0], s[1], s[2], s[3]});
  }

  void read_options(MultiHeadOptions& options) {
    AttentionOptions& attention = options.attention;
    if (has("threads")) attention.threads = std::stoi(word("threads"));
    if (has("causal")) attention.causal = true, attention.alignment = Alignment::top_left();
    if (has("keep_mask")) attention.keep_mask = mask("keep_mask");
    if (has("drop_mask")) attention.drop_mask = mask("drop_mask");
    if (has("bias")) {
      if (array("bias").shape.size() == 2)
        attention.bias = view<2>("bias");
      else
        attention.bias = view<4>("bias");
    }
    if (has("relative")) {
      const bool both = word("relative_both") == "1";
      attention.relative_bias = RelativeBias(view<2>("relative"), both, std::stoll(word("relative_distance")));
      attention.alignment = Alignment::top_left();
    }
    if (has("lengths")) {
      for (const std::string& length : test_.words.at("lengths")) lengths_.push_back(std::stoll(length));
      attention.lengths = lengths_;
    }
    for (const auto& [key, to] :
         {std::pair{"q_positions", &options.q_positions}, {"k_positions", &options.k_positions}})
      if (has(key)) {
        const Loaded& from = array(key);
        std::vector<std::int64_t>& places = places_.emplace_back();
        for (T x : from.values) places.push_back(static_cast<std::int64_t>(x));
        *to = {places.data(), {from.shape[0], from.shape[1]}};
      }
  }

  static double worst(const std::vector<T>& got, const std::vector<T>& wanted) {
    double away = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double difference = std::fabs(static_cast<double>(got[i]) - static_cast<double>(wanted[i]));
      away = std::max(away, std::isnan(difference) ? INFINITY : difference);
    }
    return away;
  }

  const std::filesystem::path folder_;
  const TestCase& test_;
  std::deque<Loaded> loaded_;
  std::map<std::string, const Loaded*> arrays_;
  std::deque<std::vector<std::uint8_t>> bytes_;
  std::deque<std::vector<std::int64_t>> places_;
  std::vector<std::int64_t> lengths_;
};

int run(const std::filesystem::path& folder) {
  int failed = 0;
  const std::vector<TestCase> cases = read_cases(folder);
  for (const TestCase& test : cases) {
    double share = INFINITY;
    std::string trouble;
    try {
      share = test.words.at("type").at(0) == "float64" ? Runner<double>(folder, test).run()
                                                       : Runner<float>(folder, test).run();
    } catch (const std::exception& error) {
      trouble = error.what();
    }
    const bool passed = share <= 1;
    failed += !passed;
    std::printf("%s %s %.3g %s\n", passed ? "passed" : "FAILED", test.name.c_str(), share, trouble.c_str());
  }
  std::printf("%zu cases, %d failed\n", cases.size(), failed);
  return failed > 0 || cases.empty() ? 1 : 0;
}

}  // namespace
}  // namespace multihead

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "layer_runner FOLDER\n");
    return 2;
  }
  return multihead::run(argv[1]);
}
