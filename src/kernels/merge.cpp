// SPDX-License-Identifier: Apache-2.0
// merge(): attention over two disjoint sets of keys becomes attention over both.
#include "core/parallel.hpp"
#include "core/validate.hpp"
#include "kernels/operands.hpp"
#include "kernels/table.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "merge";

// The same place, element by element.
bool same_view(const Operand& a, const Operand& b) {
  return a.data == b.data && std::equal(a.strides.begin(), a.strides.end(), b.strides.begin());
}

template <class T>
struct Side {
  View4<const T> out;
  View3<const T> lse;
};

template <class T>
void check(const Side<T>& a, const Side<T>& b, const View4<T>& out, const View3<T>& lse) {
  const Operand out_a = operand("out_a", a.out), lse_a = operand("lse_a", a.lse);
  const Operand out_b = operand("out_b", b.out), lse_b = operand("lse_b", b.lse);
  const Operand to = operand("out", out), to_lse = operand("lse", lse);
  constexpr std::array kAxes{"has batch", "has heads", "has q_len", "has value_dim"};
  for (const Operand* view : {&out_a, &out_b, &to, &lse_a, &lse_b, &to_lse}) {
    check_view(kName, *view);
    if (view->extents.size() == 4) check_contiguous(kName, *view);
  }
  for (const Operand* view : {&out_a, &out_b, &to, &lse_a, &lse_b, &to_lse})
    for (std::size_t axis = 0; axis < view->extents.size(); ++axis)
      check_equal(kName, view->name, kAxes[axis], view->extents[axis], "out has", to.extents[axis]);
  check_writable(kName, to);
  check_writable(kName, to_lse);
  check_apart(kName, to, to_lse);
  for (const auto& [output, input] : {std::pair{&to, &out_a}, {&to_lse, &lse_a}})
    if (!same_view(*output, *input)) check_apart(kName, *output, *input);
  for (const auto& [output, input] :
       {std::pair{&to, &lse_a}, {&to, &out_b}, {&to, &lse_b}, {&to_lse, &out_a}, {&to_lse, &out_b}, {&to_lse, &lse_b}})
    check_apart(kName, *output, *input);
}

template <class T>
void run(const Side<T>& a, const Side<T>& b, const View4<T>& out, const View3<T>& lse, std::optional<Target> target) {
  check(a, b, out, lse);
  const KernelTable& table = choose_kernels(target);
  if (out.extent(2) == 0) return;
  const FloatMode mode;
  for (std::int64_t batch = 0; batch < out.extent(0); ++batch)
    for (std::int64_t h = 0; h < out.extent(1); ++h) {
      MergeTask<T> task{};
      // Without columns only the lse are merged.
      const bool rows = out.extent(3) > 0;
      task.out_a = rows ? &a.out(batch, h, 0, 0) : nullptr;
      task.out_b = rows ? &b.out(batch, h, 0, 0) : nullptr;
      task.out = rows ? &out(batch, h, 0, 0) : nullptr;
      task.a_stride = rows ? a.out.stride(2) : 0;
      task.b_stride = rows ? b.out.stride(2) : 0;
      task.out_stride = rows ? out.stride(2) : 0;
      task.lse_a = &a.lse(batch, h, 0), task.lse_b = &b.lse(batch, h, 0), task.lse = &lse(batch, h, 0);
      task.lse_a_stride = a.lse.stride(2), task.lse_b_stride = b.lse.stride(2), task.lse_stride = lse.stride(2);
      task.rows = out.extent(2), task.value_dim = out.extent(3);
      table.kernels<T>().merge(task);
    }
}

}  // namespace

void merge(View4<const float> out_a, View3<const float> lse_a, View4<const float> out_b, View3<const float> lse_b,
           View4<float> out, View3<float> lse, std::optional<Target> target) {
  run<float>({out_a, lse_a}, {out_b, lse_b}, out, lse, target);
}
void merge(View4<const double> out_a, View3<const double> lse_a, View4<const double> out_b, View3<const double> lse_b,
           View4<double> out, View3<double> lse, std::optional<Target> target) {
  run<double>({out_a, lse_a}, {out_b, lse_b}, out, lse, target);
}

}  // namespace multihead
