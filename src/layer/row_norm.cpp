// SPDX-License-Identifier: Apache-2.0
// row_norm(): a norm over each row of a matrix, or of the sum of two.
#include "core/parallel.hpp"
#include "core/validate.hpp"
#include "kernels/table.hpp"
#include "layer/rows.hpp"
#include "multihead/linear.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "row_norm";
constexpr std::int64_t kRowsTogether = 48;  // rows of a task

}  // namespace

void check_norm(const char* function, const HeadNorm& norm, bool weight, bool bias) {
  using Kind = HeadNorm::Kind;
  const auto refuse = [function](const std::string& rule) {
    fail(ErrorCode::bad_option, std::string(function) + ": " + rule);
  };
  if (norm.kind != Kind::none && norm.kind != Kind::rms && norm.kind != Kind::rms_plus_1 && norm.kind != Kind::layer)
    refuse("kind is none of none, rms, rms_plus_1 and layer");
  if (norm.kind == Kind::none && (weight || bias))
    refuse("weight or bias is given, and no norm; it must name its kind");
  if (norm.kind != Kind::layer && bias) refuse("bias is given; only a layer norm has one");
  if (!(norm.eps >= 0 && norm.eps <= 1)) refuse("eps is " + std::to_string(norm.eps) + "; it must be 0 to 1");
}

namespace {

template <class A, class B>
bool same_view(const A& a, const B& b) {
  return a.data() == b.data() && a.extents() == b.extents() && a.strides() == b.strides();
}

template <class T>
struct NormCall {
  MatrixView<const T> x, residual;
  const RowNorm<T>& norm;
  MatrixView<T> y;
  const LayerOptions& options;

  void check() const {
    const Operand to = operand("y", y);
    check_view(kName, to);
    check_contiguous(kName, to);
    check_writable(kName, to);
    check_source("x", x);
    if (given(residual)) check_source("residual", residual);
    check_norm(kName, norm.norm, given(norm.weight), given(norm.bias));
    for (const auto& [name, vector] : {std::pair{"weight", norm.weight}, {"bias", norm.bias}}) {
      if (!given(vector)) continue;
      const View<const T, 1> view(vector.data(), {static_cast<std::int64_t>(vector.size())});
      check_view(kName, operand(name, view));
      check_equal(kName, name, "has", view.extent(0), "the width is", y.extent(1));
      check_apart(kName, to, operand(name, view));
    }
    check_between(kName, "threads", options.threads, 1, 1 << 16);
  }

  void check_source(const char* name, const MatrixView<const T>& from) const {
    check_view(kName, operand(name, from));
    check_contiguous(kName, operand(name, from));
    check_equal(kName, name, "has rows", from.extent(0), "y has", y.extent(0));
    check_equal(kName, name, "has width", from.extent(1), "y has", y.extent(1));
    if (!same_view(from, y)) check_apart(kName, operand("y", y), operand(name, from));
  }

  void run(const KernelTable& table) const {
    const std::int64_t rows = y.extent(0), width = y.extent(1);
    if (rows == 0 || width == 0) return;
    parallel_for(
        (rows + kRowsTogether - 1) / kRowsTogether, options.threads, options.parallel_for,
        [&](int, std::int64_t index) {
          const std::int64_t first = index * kRowsTogether, count = std::min(kRowsTogether, rows - first);
          const auto grid = [&]<class E>(const MatrixView<E>& view) {
            return VectorGrid<E>{view.data() ? view.data() + first * view.stride(0) : nullptr, view.stride(0),
                                 std::int64_t{0}, count, std::int64_t{1}};
          };
          const bool plus_1 = norm.norm.kind == HeadNorm::Kind::rms_plus_1;
          table.kernels<T>().normalise({grid(y), width, norm.norm.kind == HeadNorm::Kind::layer,
                                        static_cast<T>(norm.norm.eps), norm.weight.data(), norm.bias.data(), plus_1,
                                        grid(x), grid(residual), norm.norm.kind == HeadNorm::Kind::none});
        });
  }
};

template <class T>
void row_norm_of(const NormCall<T>& call) {
  call.check();
  call.run(choose_kernels(call.options.target));
}

}  // namespace

void row_norm(MatrixView<const float> x, MatrixView<const float> residual, const RowNorm<float>& norm,
              MatrixView<float> y, const LayerOptions& options) {
  row_norm_of(NormCall<float>{x, residual, norm, y, options});
}
void row_norm(MatrixView<const double> x, MatrixView<const double> residual, const RowNorm<double>& norm,
              MatrixView<double> y, const LayerOptions& options) {
  row_norm_of(NormCall<double>{x, residual, norm, y, options});
}

}  // namespace multihead
