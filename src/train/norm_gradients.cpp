// SPDX-License-Identifier: Apache-2.0
// row_norm_backward().
#include "train/norm_gradients.hpp"

#include "layer/rows.hpp"
#include "multihead/gradients.hpp"
#include "train/checks.hpp"

namespace multihead {

namespace {

template <class T>
struct NormBackward {
  static constexpr const char* kName = "row_norm_backward";
  MatrixView<const T> x, d_y;
  const RowNorm<T>& norm;
  const RowNormGradients<T>& gradients;
  const LayerOptions& options;

  void check() const {
    const Operand at = operand("x", x), from = operand("d_y", d_y);
    check_matrix(kName, at);
    check_matrix(kName, from);
    check_like(kName, from, "x has", at);
    check_norm(kName, norm.norm, given(norm.weight), given(norm.bias));
    if (norm.norm.kind == HeadNorm::Kind::none)
      fail(ErrorCode::bad_option, std::string(kName) + ": kind is none; it must be rms, rms_plus_1 or layer");
    if (norm.norm.kind != HeadNorm::Kind::layer && given(gradients.bias))
      fail(ErrorCode::bad_option, std::string(kName) + ": gradients.bias is given; only a layer norm has a bias");
    check_threads(kName, options);
    const View<const T, 1> weight = vector_view(norm.weight), bias = vector_view(norm.bias);
    const View<T, 1> to_weight = vector_view(gradients.weight), to_bias = vector_view(gradients.bias);
    const Operand w = operand("weight", weight), b = operand("bias", bias);
    const Operand d_x = operand("gradients.x", gradients.x), d_weight = operand("gradients.weight", to_weight),
                  d_bias = operand("gradients.bias", to_bias);
    for (const Operand& vector : {w, b, d_weight, d_bias}) {
      if (vector.extents[0] == 0) continue;
      check_view(kName, vector);
      check_equal(kName, vector.name, "has", vector.extents[0], "the width is", x.extent(1));
    }
    if (given(gradients.x)) {
      check_matrix(kName, d_x);
      check_like(kName, d_x, "x has", at);
      check_written(kName, d_x, {at, w, b});
      if (!same_place(d_x, from)) check_apart(kName, d_x, from);
    }
    check_written(kName, d_weight, {at, from, w, b, d_x});
    check_written(kName, d_bias, {at, from, w, b, d_x, d_weight});
  }

  void run() const {
    check();
    const KernelTable& table = choose_kernels(options.target);
    const std::int64_t rows = x.extent(0), width = x.extent(1);
    if (rows == 0 || width == 0) return;
    const auto grid = [rows]<class E>(const MatrixView<E>& view) {
      return VectorGrid<E>{view.data(), view.stride(0), 0, rows, 1};
    };
    const NormBackTask<T> task{grid(x),
                               grid(d_y),
                               grid(gradients.x),
                               width,
                               norm.norm.kind == HeadNorm::Kind::layer,
                               static_cast<T>(norm.norm.eps),
                               given(norm.weight) ? norm.weight.data() : nullptr,
                               norm.norm.kind == HeadNorm::Kind::rms_plus_1,
                               given(gradients.weight) ? gradients.weight.data() : nullptr,
                               given(gradients.bias) ? gradients.bias.data() : nullptr};
    const std::size_t bytes = norm_back_scratch(task);
    Scratch scratch(bytes, {}, kName);
    run_norm_back(task, options, table, scratch.take<T>(bytes / sizeof(T)));
  }
};

}  // namespace

template <class T>
void row_norm_backward(MatrixView<const T> x, const RowNorm<T>& norm, MatrixView<const T> d_y,
                       const RowNormGradients<T>& gradients, const LayerOptions& options) {
  NormBackward<T>{x, d_y, norm, gradients, options}.run();
}

template void row_norm_backward(MatrixView<const float>, const RowNorm<float>&, MatrixView<const float>,
                                const RowNormGradients<float>&, const LayerOptions&);
template void row_norm_backward(MatrixView<const double>, const RowNorm<double>&, MatrixView<const double>,
                                const RowNormGradients<double>&, const LayerOptions&);

}  // namespace multihead
