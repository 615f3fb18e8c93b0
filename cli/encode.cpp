// SPDX-License-Identifier: Apache-2.0
// multihead encode: sentences to vectors in a file, or to a table of how similar they are.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>

#include "arguments.hpp"
#include "model.hpp"
#include "multihead/encoder.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

constexpr std::size_t kMatrix = 12;  // sentences of a matrix that fits a terminal; of more, each one's nearest is shown
constexpr std::size_t kText = 72;    // columns of a sentence beside its number

std::vector<std::string> lines_of(std::istream& in, const std::string& name) {
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
  }
  if (in.bad()) throw Error(ErrorCode::file_missing, "encode: " + name + ": cannot be read");
  return lines;
}

std::vector<std::string> sentences_of(const EncodeArguments& arguments) {
  if (!arguments.sentences.empty() && !arguments.file.empty())
    throw Error(ErrorCode::bad_option, "encode: sentences are given, and --file; it must be one of them");
  std::vector<std::string> sentences = arguments.sentences;
  if (arguments.file == "-") {
    sentences = lines_of(std::cin, "standard input");
  } else if (!arguments.file.empty()) {
    std::ifstream file(arguments.file, std::ios::binary);
    if (!file || std::filesystem::is_directory(arguments.file))
      throw Error(ErrorCode::file_missing, "encode: " + arguments.file + ": cannot be read");
    sentences = lines_of(file, arguments.file);
  }
  if (sentences.empty())
    throw Error(ErrorCode::bad_option, "encode: no sentence is given; they stand on the command line, or in --file");
  return sentences;
}

// The cosines of vectors, 0 where one is zero.
class Similarity {
 public:
  explicit Similarity(const Matrix<float>& vectors) : vectors_(vectors) {
    for (std::int64_t i = 0; i < vectors.rows(); ++i) lengths_.push_back(std::sqrt(product(i, i)));
  }
  double operator()(std::int64_t a, std::int64_t b) const {
    const double lengths = lengths_[static_cast<std::size_t>(a)] * lengths_[static_cast<std::size_t>(b)];
    return lengths > 0 ? product(a, b) / lengths : 0;
  }

 private:
  double product(std::int64_t a, std::int64_t b) const {
    double sum = 0;
    for (std::int64_t c = 0; c < vectors_.columns(); ++c) sum += double{vectors_(a, c)} * vectors_(b, c);
    return sum;
  }

  const Matrix<float>& vectors_;
  std::vector<double> lengths_;
};

void print_matrix(const std::vector<std::string>& sentences, const Matrix<float>& vectors) {
  const Similarity similarity(vectors);
  std::vector<std::vector<std::string>> rows{{""}};
  for (std::int64_t j = 0; j < vectors.rows(); ++j) rows[0].push_back(std::to_string(j));
  for (std::int64_t i = 0; i < vectors.rows(); ++i) {
    rows.push_back({std::to_string(i)});
    for (std::int64_t j = 0; j < vectors.rows(); ++j) rows.back().push_back(fixed(similarity(i, j), 3));
    rows.back().push_back(printable(sentences[static_cast<std::size_t>(i)]));
  }
  print_table(std::cout, rows);
}

void print_nearest(const std::vector<std::string>& sentences, const Matrix<float>& vectors) {
  const Similarity similarity(vectors);
  std::vector<std::vector<std::string>> rows{{"", "nearest", "similarity", ""}};
  for (std::int64_t i = 0; i < vectors.rows(); ++i) {
    std::int64_t nearest = -1;
    double most = 0;
    for (std::int64_t j = 0; j < vectors.rows(); ++j) {
      if (j == i) continue;
      const double value = similarity(i, j);
      if (nearest < 0 || value > most) nearest = j, most = value;
    }
    rows.push_back({std::to_string(i), std::to_string(nearest), fixed(most, 3),
                    fitted(printable(sentences[static_cast<std::size_t>(i)]), kText)});
  }
  print_table(std::cout, rows);
}

}  // namespace

int encode(const EncodeArguments& arguments, const Common& common) {
  const std::vector<std::string> sentences = sentences_of(arguments);
  if (arguments.out.empty() && sentences.size() == 1)
    throw Error(ErrorCode::bad_option,
                "encode: one sentence is like itself; give two or more, or --out FILE for the vector");
  const SentenceEncoder encoder(model_folder(arguments.model), {.products = arguments.products});
  LayerOptions options;
  options.threads = common.threads;
  options.target = common.target;
  const Matrix<float> vectors = encoder.encode(sentences, options);
  if (!arguments.out.empty()) {
    const std::int64_t shape[2] = {vectors.rows(), vectors.columns()};
    write_npy(arguments.out, vectors.values(), shape);
    print_table(std::cout, {{"vectors", shape_text(shape), "float32", arguments.out}});
  } else if (sentences.size() <= kMatrix) {
    print_matrix(sentences, vectors);
  } else {
    print_nearest(sentences, vectors);
  }
  return 0;
}

}  // namespace multihead::cli
