// SPDX-License-Identifier: Apache-2.0
// load_layer(): names to parameters, every tensor accounted for, every extent held to the layout's letters.
#include "layer/layouts.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "core/validate.hpp"
#include "multihead/layouts.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "load_layer";

bool same_name(std::string_view a, std::string_view b) {
  const auto plain = [](char c) { return c == '/' ? '.' : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return plain(x) == plain(y); });
}

[[noreturn]] void refuse(ErrorCode code, const LayoutForm& form, std::string_view tensor, const std::string& rule) {
  fail(code,
       std::string(kName) + ": layout " + std::string(form.layout) + ": tensor '" + std::string(tensor) + "' " + rule);
}

// The letters of shapes, found in the tensors in the order of the layout.
class Letters {
 public:
  explicit Letters(const MultiHeadSpec& spec) {
    check_between(kName, "heads", spec.heads, 1, std::int64_t{1} << 31);
    heads_ = spec.heads, kv_heads_ = spec.kv_heads.value_or(spec.heads);
    check_between(kName, "kv_heads", kv_heads_, 1, heads_);
  }

  // True where the extent is what the letter stands for; an open letter takes the extent's value.
  bool meets(char letter, std::int64_t extent) {
    switch (letter) {
      case '1':
        return extent == 1;
      case 'H':
        return extent == heads_;
      case 'G':
        return extent == kv_heads_;
      case 'd':
        return take(head_dim_, extent);
      case 'D':
        return take(value_dim_, extent);
      case 'Q':
        return take_share(head_dim_, extent, heads_);
      case 'K':
        return take_share(head_dim_, extent, kv_heads_);
      case 'V':
        return take_share(value_dim_, extent, kv_heads_);
      case 'X':
        return take_share(value_dim_, extent, heads_);
      case 'F':
        if (head_dim_ < 0 || value_dim_ < 0) {
          if (!take_share(head_dim_, extent, heads_ + 2 * kv_heads_)) return false;
          value_dim_ = head_dim_;
        }
        return extent == (heads_ + kv_heads_) * head_dim_ + kv_heads_ * value_dim_;
      default:
        return take(free_[static_cast<std::size_t>(letter % 128)], extent);
    }
  }
  std::string expected(std::string_view shape) const {
    std::string text = "[";
    for (char letter : shape) text += (text.size() > 1 ? ", " : "") + value(letter);
    return text + "]";
  }

 private:
  static constexpr std::int64_t kMost = std::int64_t{1} << 31;  // so that no product overflows
  static bool take(std::int64_t& known, std::int64_t extent) {
    if (known < 0 && extent >= 0 && extent <= kMost) known = extent;
    return known == extent;
  }
  static bool take_share(std::int64_t& known, std::int64_t extent, std::int64_t parts) {
    if (extent < 0 || extent % parts != 0) return false;
    return take(known, extent / parts);
  }
  std::string value(char letter) const {
    const auto times = [](std::int64_t parts, std::int64_t dim) {
      return dim < 0 ? "a multiple of " + std::to_string(parts) : std::to_string(parts * dim);
    };
    const auto one = [](std::int64_t known, const char* word) { return known < 0 ? word : std::to_string(known); };
    switch (letter) {
      case '1':
        return "1";
      case 'H':
        return std::to_string(heads_);
      case 'G':
        return std::to_string(kv_heads_);
      case 'd':
        return one(head_dim_, "head_dim");
      case 'D':
        return one(value_dim_, "value_dim");
      case 'Q':
        return times(heads_, head_dim_);
      case 'K':
        return times(kv_heads_, head_dim_);
      case 'V':
        return times(kv_heads_, value_dim_);
      case 'X':
        return times(heads_, value_dim_);
      case 'F':
        if (head_dim_ < 0 || value_dim_ < 0) return times(heads_ + 2 * kv_heads_, -1);
        return std::to_string((heads_ + kv_heads_) * head_dim_ + kv_heads_ * value_dim_);
      default:
        return one(free_[static_cast<std::size_t>(letter % 128)], "any width");
    }
  }

  std::int64_t heads_, kv_heads_, head_dim_ = -1, value_dim_ = -1;
  std::array<std::int64_t, 128> free_ = [] {
    std::array<std::int64_t, 128> open;
    open.fill(-1);
    return open;
  }();
};

std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + "]";
}

template <class T>
struct Loader {
  std::span<const NamedTensor<T>> tensors;
  const LayoutOptions& options;
  const LayoutForm* form = nullptr;
  std::array<const NamedTensor<T>*, kSlots> found{};

  // The tensor's name after the prefix, or nothing where it belongs elsewhere.
  std::string_view rest(const NamedTensor<T>& tensor) const {
    return tensor.name.starts_with(options.prefix) ? tensor.name.substr(options.prefix.size()) : std::string_view();
  }
  bool has(std::string_view name) const {
    return std::any_of(tensors.begin(), tensors.end(), [&](const auto& t) { return same_name(rest(t), name); });
  }

  void choose_form(std::string_view layout) {
    std::string known;
    for (const LayoutForm& candidate : layout_forms()) {
      if (candidate.layout == layout && (!form || (!form->sign.empty() && !has(form->sign)))) form = &candidate;
      if (!known.ends_with(candidate.layout)) known += (known.empty() ? "" : ", ") + std::string(candidate.layout);
    }
    if (!form)
      fail(ErrorCode::bad_option,
           std::string(kName) + ": layout '" + std::string(layout) + "' is not known; the known ones are " + known);
  }

  void match() {
    const auto among = [](const auto& names, std::string_view name) {
      return std::any_of(names.begin(), names.end(), [&](std::string_view n) { return same_name(n, name); });
    };
    for (const NamedTensor<T>& tensor : tensors) {
      if (!tensor.name.starts_with(options.prefix)) continue;
      const std::string_view name = rest(tensor);
      const auto entry = std::find_if(form->tensors.begin(), form->tensors.end(),
                                      [&](const LayoutTensor& t) { return same_name(t.name, name); });
      if (entry == form->tensors.end()) {
        if (among(form->not_parameters, name) || among(options.aside, name)) continue;
        refuse(ErrorCode::bad_option, *form, tensor.name, "is surplus; the layout has no such parameter");
      }
      const NamedTensor<T>*& place = found[static_cast<std::size_t>(entry->slot)];
      if (place) refuse(ErrorCode::bad_option, *form, tensor.name, "is given twice");
      place = &tensor;
    }
    for (const LayoutTensor& entry : form->tensors)
      if (entry.required && !found[static_cast<std::size_t>(entry.slot)])
        refuse(ErrorCode::bad_option, *form, std::string(options.prefix) + std::string(entry.name), "is missing");
  }

  void check_shapes(const MultiHeadSpec& spec) const {
    Letters letters(spec);
    // Weights first: biases are measured by them.
    for (bool weights : {true, false})
      for (const LayoutTensor& entry : form->tensors) {
        const NamedTensor<T>* tensor = found[static_cast<std::size_t>(entry.slot)];
        if (!tensor || (entry.slot <= Slot::out) != weights) continue;
        const Letters before = letters;
        bool fits = tensor->shape.size() == entry.shape.size();
        for (std::size_t axis = 0; fits && axis < entry.shape.size(); ++axis)
          fits = letters.meets(entry.shape[axis], tensor->shape[axis]);
        if (!fits)
          refuse(ErrorCode::shape_mismatch, *form, tensor->name,
                 "has shape " + shape_text(tensor->shape) + "; it must be " + before.expected(entry.shape));
        if (!tensor->data && std::find(tensor->shape.begin(), tensor->shape.end(), 0) == tensor->shape.end())
          refuse(ErrorCode::shape_mismatch, *form, tensor->name, "is null; it must point to its elements");
      }
  }

  // A weight as a matrix: of three axes, the two of heads are one.
  MatrixView<const T> matrix(Slot slot) const {
    const NamedTensor<T>* tensor = found[static_cast<std::size_t>(slot)];
    if (!tensor) return {};
    const std::vector<std::int64_t>& s = tensor->shape;
    if (s.size() == 2) return {tensor->data, {s[0], s[1]}};
    if (slot == Slot::out) return {tensor->data, {s[0] * s[1], s[2]}};
    return {tensor->data, {s[0], s[1] * s[2]}};
  }
  std::span<const T> vector(Slot slot) const {
    const NamedTensor<T>* tensor = found[static_cast<std::size_t>(slot)];
    if (!tensor) return {};
    std::size_t count = 1;
    for (std::int64_t extent : tensor->shape) count *= static_cast<std::size_t>(extent);
    return {tensor->data, count};
  }

  void complete_norm(const std::string& start, HeadNorm& norm) const {
    using Kind = HeadNorm::Kind;
    if (norm.kind != Kind::none && norm.kind != form->head_norm)
      fail(ErrorCode::bad_option,
           start + (form->head_norm == Kind::none ? " has no norms of heads; the spec names one"
                                                  : " has norms of another kind than the spec names"));
    if (form->head_norm == Kind::none && norm.eps != HeadNorm{}.eps)
      fail(ErrorCode::bad_option, start + " has no norms of heads; the spec gives one an eps");
    norm.kind = form->head_norm;
  }

  MultiHeadSpec complete(MultiHeadSpec spec) const {
    const std::string start = std::string(kName) + ": layout " + std::string(form->layout);
    if (spec.order && *spec.order != form->order)
      fail(ErrorCode::bad_option, start + " stores its weights in the other order than the spec names");
    if (form->rotary && !spec.rotary)
      fail(ErrorCode::bad_option, start + " has rotary embedding; the spec must say with which options");
    if (form->rotary && spec.rotary->pairing != RotaryPairing::half_split)
      fail(ErrorCode::bad_option, start + " has half-split pairs; the spec names interleaved ones");
    if (spec.fused_order != FusedOrder::blocks && spec.fused_order != form->fused_order)
      fail(ErrorCode::bad_option, start + " stores no groups of heads; the spec names FusedOrder::groups");
    for (HeadNorm* norm : {&spec.q_norm, &spec.k_norm}) complete_norm(start, *norm);
    spec.order = form->order;
    spec.fused_order = form->fused_order;
    spec.value_dim = {};
    if (form->unscaled && !spec.scale) spec.scale = 1;
    return spec;
  }
};

template <class T>
MultiHeadAttention<T> load(std::string_view layout, std::span<const NamedTensor<T>> tensors, const MultiHeadSpec& spec,
                           const LayoutOptions& options) {
  Loader<T> loader{tensors, options};
  loader.choose_form(layout);
  loader.match();
  const MultiHeadSpec complete = loader.complete(spec);
  loader.check_shapes(complete);
  const auto m = [&](Slot slot) { return loader.matrix(slot); };
  const auto v = [&](Slot slot) { return loader.vector(slot); };
  const MultiHeadWeights<T> weights{.q = m(Slot::q),
                                    .k = m(Slot::k),
                                    .v = m(Slot::v),
                                    .qkv = m(Slot::qkv),
                                    .out = m(Slot::out),
                                    .q_bias = v(Slot::q_bias),
                                    .k_bias = v(Slot::k_bias),
                                    .v_bias = v(Slot::v_bias),
                                    .qkv_bias = v(Slot::qkv_bias),
                                    .out_bias = v(Slot::out_bias),
                                    .bias_k = v(Slot::bias_k),
                                    .bias_v = v(Slot::bias_v),
                                    .q_norm = v(Slot::q_norm),
                                    .k_norm = v(Slot::k_norm)};
  MultiHeadAttention<T> layer(complete, weights);
  if (spec.value_dim && *spec.value_dim != layer.extents().value_dim)
    fail(ErrorCode::bad_option, std::string(kName) + ": value_dim is " + std::to_string(*spec.value_dim) +
                                    "; the tensors of layout " + std::string(layout) + " have " +
                                    std::to_string(layer.extents().value_dim));
  return layer;
}

}  // namespace

MultiHeadAttention<float> load_layer(std::string_view layout, std::span<const NamedTensor<float>> tensors,
                                     const MultiHeadSpec& spec, const LayoutOptions& options) {
  return load<float>(layout, tensors, spec, options);
}
MultiHeadAttention<double> load_layer(std::string_view layout, std::span<const NamedTensor<double>> tensors,
                                      const MultiHeadSpec& spec, const LayoutOptions& options) {
  return load<double>(layout, tensors, spec, options);
}
MultiHeadAttention<BFloat16> load_layer(std::string_view layout, std::span<const NamedTensor<BFloat16>> tensors,
                                        const MultiHeadSpec& spec, const LayoutOptions& options) {
  return load<BFloat16>(layout, tensors, spec, options);
}
MultiHeadAttention<Float16> load_layer(std::string_view layout, std::span<const NamedTensor<Float16>> tensors,
                                       const MultiHeadSpec& spec, const LayoutOptions& options) {
  return load<Float16>(layout, tensors, spec, options);
}

std::vector<std::string_view> layout_names() {
  std::vector<std::string_view> names;
  for (const LayoutForm& form : layout_forms())
    if (names.empty() || names.back() != form.layout) names.push_back(form.layout);
  return names;
}

std::int64_t interleaved_from_half_split(std::int64_t output, std::int64_t head_dim, std::int64_t rotary_dim) noexcept {
  const std::int64_t half = rotary_dim / 2, c = output % head_dim;
  return c < rotary_dim ? output - c + c % half * 2 + c / half : output;
}
std::int64_t half_split_from_interleaved(std::int64_t output, std::int64_t head_dim, std::int64_t rotary_dim) noexcept {
  const std::int64_t half = rotary_dim / 2, c = output % head_dim;
  return c < rotary_dim ? output - c + c % 2 * half + c / 2 : output;
}

}  // namespace multihead
