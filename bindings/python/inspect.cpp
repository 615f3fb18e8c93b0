// SPDX-License-Identifier: Apache-2.0
// Heads in numbers, labels, pictures and pages of the module, over the C++ library.
#include "multihead/inspect.hpp"

#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <memory>
#include <sstream>
#include <vector>

#include "faces.hpp"
#include "frameworks.hpp"
#include "multihead/error.hpp"

namespace face {
namespace {

// Runs what may throw an Error of C++, which becomes an exception of Python.
template <class Run>
auto guarded(const Run& run) {
  try {
    return run();
  } catch (const multihead::Error& error) {
    PyObject* type = PyExc_ValueError;
    if (error.code() == multihead::ErrorCode::out_of_memory) type = PyExc_MemoryError;
    if (error.code() == multihead::ErrorCode::file_missing) type = PyExc_OSError;
    raise(type, error.what());
  }
}

std::vector<int64_t> integers(nb::handle list, Place place) {
  std::vector<int64_t> made;
  for (nb::handle one : list) made.push_back(integer(one, place));
  return made;
}

std::vector<std::string> texts(nb::handle list, Place place) {
  std::vector<std::string> made;
  for (nb::handle one : list) {
    Py_ssize_t length = 0;
    const char* const bytes = utf8(one, length, place);
    made.emplace_back(bytes, static_cast<size_t>(length));
  }
  return made;
}

// The elements of an array in the order of its axes, as To.
template <class To, class From>
void copy(const mh_tensor& from, To* to) {
  int64_t at[4] = {};
  int64_t count = 1;
  for (int axis = 0; axis < from.rank; ++axis) count *= from.shape[axis];
  for (int64_t i = 0; i < count; ++i) {
    int64_t offset = 0;
    for (int axis = 0; axis < from.rank; ++axis) offset += at[axis] * from.strides[axis];
    *to++ = static_cast<To>(static_cast<const From*>(from.data)[offset]);
    for (int axis = from.rank; axis-- > 0;) {
      if (++at[axis] < from.shape[axis]) break;
      at[axis] = 0;
    }
  }
}

// Copies an array of the same number of elements into what a view of a HeadStats points to.
template <class View>
void fill(const View& view, const nb::dict& arrays, const char* name) {
  int64_t count = 1;
  for (int64_t extent : view.extents()) count *= extent;
  if (!view.data() || count == 0) return;
  const Place place{"Statistics", name};
  Array array;
  array.open(arrays[name], place);
  int64_t given = 1;
  for (int axis = 0; axis < array.rank(); ++axis) given *= array.extent(axis);
  if (given != count)
    raise(PyExc_ValueError, place,
          "has " + std::to_string(given) + " elements; " + std::to_string(count) + " are wanted");
  switch (array.tensor().type) {
    case MH_FLOAT32:
      return copy<std::remove_reference_t<decltype(*view.data())>, float>(array.tensor(), view.data());
    case MH_FLOAT64:
      return copy<std::remove_reference_t<decltype(*view.data())>, double>(array.tensor(), view.data());
    case MH_INT64:
      return copy<std::remove_reference_t<decltype(*view.data())>, int64_t>(array.tensor(), view.data());
    default:
      raise(PyExc_TypeError, place, "has elements of " + name_of(array.element()) + "; those of a result are wanted");
  }
}

struct Heads {
  multihead::HeadStats stats;

  explicit Heads(multihead::HeadStatsSpec spec) : stats(std::move(spec)) {}
};

multihead::HeadStatsSpec spec_of(const nb::dict& said, const nb::dict& arrays, bool weighted) {
  const auto field = [&](const char* name) { return integer(said[name], {"Statistics", name}); };
  multihead::HeadStatsSpec spec;
  spec.batch = field("batch"), spec.heads = field("heads");
  spec.q_len = field("q_len"), spec.kv_len = field("kv_len");
  if (!said["query_offset"].is_none()) spec.query_offset = field("query_offset");
  spec.offsets = integers(said["offsets"], {"Statistics", "offsets"});
  spec.keys = integers(said["keys"], {"Statistics", "keys"});
  spec.classes = texts(said["classes"], {"Statistics", "classes"});
  spec.top = field("top");
  spec.bin = field("bin");
  spec.received = arrays.contains("received");
  spec.norm_weighted = weighted;
  const auto keys = static_cast<size_t>(spec.batch * spec.kv_len), rows = static_cast<size_t>(spec.batch * spec.q_len);
  if (!spec.classes.empty()) spec.key_classes.assign(keys, 0);
  if (arrays.contains("duplicate_mass")) spec.q_tokens.assign(rows, 0), spec.kv_tokens.assign(keys, 0);
  return spec;
}

// arrays: the statistics of one distribution by name. rows: None, or (batch * q_len) of those that count.
void fill_rows(const multihead::HeadStatsSpec& spec, const multihead::RowStatistics<float>& to, const nb::dict& arrays,
               bool positions, nb::handle rows) {
  fill(to.visible, arrays, "visible"), fill(to.entropy, arrays, "entropy");
  fill(to.sum_squares, arrays, "sum_squares"), fill(to.distance, arrays, "distance");
  fill(to.offset_mass, arrays, "offset_mass"), fill(to.key_mass, arrays, "key_mass");
  fill(to.class_mass, arrays, "class_mass");
  fill(to.duplicate_mass, arrays, "duplicate_mass"), fill(to.induction_mass, arrays, "induction_mass");
  fill(to.top_keys, arrays, "top_keys"), fill(to.top_weights, arrays, "top_weights");
  fill(to.received, arrays, "received"), fill(to.map, arrays, "map");
  if (!positions)  // no offset is the most frequent one
    std::fill_n(to.top_keys.data(), spec.batch * spec.heads * spec.q_len * spec.top, -1);
  if (rows.is_none()) return;
  for (int64_t b = 0; b < spec.batch; ++b)
    for (int64_t i = 0; i < spec.q_len; ++i)
      if (integer(rows[b * spec.q_len + i], {"Statistics", "rows"}) == 0)
        for (int64_t h = 0; h < spec.heads; ++h) to.visible(b, h, i) = 0;
}

// said: what a HeadStatsSpec says; weighted: the norm-weighted statistics, or None.
std::unique_ptr<Heads> heads_of(const nb::dict& said, const nb::dict& plain, nb::handle weighted, nb::handle rows) {
  const bool both = !weighted.is_none(), positions = !said["query_offset"].is_none();
  auto made = guarded([&] { return std::make_unique<Heads>(spec_of(said, plain, both)); });
  const multihead::StatisticsRequest<float> to = made->stats.request();
  fill_rows(made->stats.spec(), to.plain, plain, positions, rows);
  if (both) fill_rows(made->stats.spec(), to.norm_weighted, nb::cast<nb::dict>(weighted), positions, rows);
  return made;
}

nb::dict summary(const Heads& heads, nb::handle head) {
  const int64_t number = integer(head, {"summary", "head"});
  const multihead::HeadSummary found = guarded([&] { return multihead::summarise(heads.stats, number); });
  const auto list = [](const std::vector<double>& values) {
    nb::list made;
    for (double value : values) made.append(value);
    return made;
  };
  nb::dict made;
  made["rows"] = found.rows;
  made["entropy"] = found.entropy;
  made["entropy_share"] = found.entropy_share;
  made["largest"] = found.largest;
  made["sum_squares"] = found.sum_squares;
  made["distance"] = found.distance;
  made["offset_mass"] = list(found.offset_mass);
  made["key_mass"] = list(found.key_mass);
  made["class_mass"] = list(found.class_mass);
  made["duplicate_mass"] = found.duplicate_mass;
  made["induction_mass"] = found.induction_mass;
  made["top_offset"] = found.top_offset;
  made["top_offset_share"] = found.top_offset_share;
  return made;
}

// (name, measure, value, threshold, source) of each label.
nb::list labels(const Heads& heads, nb::handle head) {
  const int64_t number = integer(head, {"labels", "head"});
  const std::vector<multihead::HeadLabel> found =
      guarded([&] { return multihead::head_labels(heads.stats, multihead::summarise(heads.stats, number)); });
  nb::list made;
  for (const auto& [name, measure, value, threshold, source] : found)
    made.append(nb::make_tuple(name.c_str(), measure.c_str(), value, threshold, source.c_str()));
  return made;
}

template <int Rank>
multihead::View<const float, Rank> view_of(const Array& array, Place place) {
  if (array.rank() != Rank || array.tensor().type != MH_FLOAT32)
    raise(PyExc_ValueError, place, "is no array of float32 of rank " + std::to_string(Rank));
  typename multihead::View<const float, Rank>::Extents extents, strides;
  for (int axis = 0; axis < Rank; ++axis)
    extents[static_cast<size_t>(axis)] = array.extent(axis),
    strides[static_cast<size_t>(axis)] = array.tensor().strides[axis];
  return {static_cast<const float*>(array.tensor().data), extents, strides};
}

// What a page borrows of Python for its time.
template <int Rank>
struct Borrowed {
  std::vector<Array> arrays;
  std::vector<multihead::View<const float, Rank>> views;

  Borrowed(nb::handle given, Place place) : arrays(given.is_none() ? 0 : nb::len(given)) {
    for (size_t i = 0; i < arrays.size(); ++i) {
      arrays[i].read(nb::object(given[i]), place);
      views.push_back(view_of<Rank>(arrays[i], place));
    }
  }
};

std::vector<uint8_t> flags(nb::handle given) {
  std::vector<uint8_t> made;
  if (!given.is_none())
    for (nb::handle one : nb::object(nb::borrow(given))) made.push_back(nb::cast<bool>(one));
  return made;
}

// title, q_tokens, kv_tokens (empty: the same), layers of Heads, weights (a list of (heads, q_len, kv_len) or None),
// norms (of (heads, kv_len) or None), q_special and kv_special (lists of bool or None), compress(bytes) -> bytes.
nb::bytes page(const nb::tuple& call) {
  const Place place{"head_view", "attentions"};
  Py_ssize_t length = 0;
  const char* const title = utf8(call[0], length, {"head_view", "title"});
  const auto q_tokens = texts(call[1], {"head_view", "tokens"});
  const auto kv_tokens = texts(call[2], {"head_view", "kv_tokens"});
  std::vector<const multihead::HeadStats*> layers;
  for (nb::handle one : nb::object(call[3])) layers.push_back(&nb::cast<const Heads&>(one).stats);
  const Borrowed<3> weights(call[4], place);
  const Borrowed<2> norms(call[5], {"head_view", "norms"});
  const auto q_special = flags(call[6]), kv_special = flags(call[7]);
  multihead::Page made;
  made.title = std::string(title, static_cast<size_t>(length));
  made.q_tokens = q_tokens, made.kv_tokens = kv_tokens, made.layers = layers;
  made.weights = weights.views, made.norms = norms.views;
  made.q_special = q_special, made.kv_special = kv_special;
  const nb::object compress = call[8];
  const multihead::Compress through = [&](std::span<const std::byte> bytes) {
    const nb::bytes packed(compress(nb::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size())));
    return std::string(packed.c_str(), packed.size());
  };
  std::ostringstream out;
  guarded([&] { multihead::write_page(out, made, through); });
  const std::string text = out.str();
  return nb::bytes(text.data(), text.size());
}

nb::list picture(nb::handle weights, nb::handle columns, nb::handle color, nb::handle row_names, nb::handle key_names) {
  const char* const name = "picture";
  Array array;
  array.read(weights, {name, "weights"});
  const auto rows = texts(row_names, {name, "row_names"}), keys = texts(key_names, {name, "key_names"});
  multihead::PictureOptions options;
  const int64_t wide = integer(columns, {name, "columns"});
  if (wide < 1 || wide > 10000)
    raise(PyExc_ValueError, {name, "columns"}, "is " + std::to_string(wide) + "; 1 to 10000 are wanted");
  options.columns = static_cast<size_t>(wide);
  if (is_text(color, "256"))
    options.depth = multihead::ColorDepth::colors_256;
  else if (is_text(color, "24bit"))
    options.depth = multihead::ColorDepth::colors_24_bit;
  else if (!color.is_none())
    raise(PyExc_ValueError, {name, "color"}, "is " + shown(color) + "; None, \"256\" or \"24bit\" is wanted");
  options.row_names = rows, options.key_names = keys;
  const auto lines = guarded([&] { return multihead::picture(view_of<2>(array, {name, "weights"}), options); });
  nb::list made;
  for (const std::string& line : lines) made.append(nb::str(line.data(), line.size()));
  return made;
}

}  // namespace

void add_inspect(nb::module_& module) {
  const auto any = nb::arg().none();
  nb::class_<Heads>(module, "Heads")
      .def_static("of", &heads_of, nb::arg(), nb::arg(), any, any)
      .def("summary", &summary, any)
      .def("labels", &labels, any);
  module.def("page", &page);
  module.def("picture", &picture, any, any, any, any, any);
}

}  // namespace face
