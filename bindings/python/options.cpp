// SPDX-License-Identifier: Apache-2.0
// Each option's reading: one function a name, in one table.
#include "options.hpp"

#include <atomic>
#include <iterator>

#include "multihead/parallel.hpp"

namespace face {
namespace {

std::atomic<int> threads_set{0};

// Multiply-adds below which waking another thread costs more than it saves.
constexpr double kWorthSharing = 2e6;

bool is_pair(nb::handle value) { return PyTuple_Check(value.ptr()) && PyTuple_Size(value.ptr()) == 2; }

// Whether a tuple of two is a pair of lists, and not two numbers.
bool is_pair_of_lists(nb::handle value) {
  if (!is_pair(value)) return false;
  const nb::handle first = PyTuple_GetItem(value.ptr(), 0);
  return !PyIndex_Check(first.ptr()) || nb::hasattr(first, "__len__");
}

}  // namespace

int default_threads() {
  const int set = threads_set.load(std::memory_order_relaxed);
  if (set > 0) return set;
  static const int machine = multihead::hardware_threads();
  return machine;
}

void set_default_threads(int threads) { threads_set.store(threads, std::memory_order_relaxed); }

RunOptions::RunOptions(const char* function) : function_(function) {
  mh_run_options_init(&run_, sizeof run_);
  run_.threads = default_threads();
}

void RunOptions::read_threads(nb::handle threads) {
  if (threads.is_none()) return;
  const Place place{function_, "threads"};
  const int64_t count = integer(threads, place);
  if (count < 1 || count > 65536)
    raise(PyExc_ValueError, place, "is " + std::to_string(count) + "; 1 to 65536 are wanted");
  run_.threads = static_cast<int32_t>(count);
  named_ = true;
}

void RunOptions::read_target(nb::handle target) {
  if (target.is_none()) return;
  check(mh_target_from_name(text(target, {function_, "target"}), &run_.target));
}

void RunOptions::set_work(double multiply_adds) {
  if (!named_ && multiply_adds < kWorthSharing) run_.threads = 1;
}

struct Options::Reader {
  const char* name;
  void (*read)(Options& self, nb::handle value, Place place);
};

const Options::Reader Options::kReaders[] = {
    {"causal", [](Options& self, nb::handle value, Place place) { self.read_causal(value, place); }},
    {"query_offset", [](Options& self, nb::handle value, Place place) { self.read_query_offset(value, place); }},
    {"window", [](Options& self, nb::handle value, Place place) { self.read_window(value, place); }},
    {"window_first", [](Options& self, nb::handle value, Place place) { self.read_window_first(value, place); }},
    {"lengths", [](Options& self, nb::handle value, Place place) { self.lengths_.read_if(value, place); }},
    {"prefixes", [](Options& self, nb::handle value, Place place) { self.prefixes_.read_if(value, place); }},
    {"cu_seqlens", [](Options& self, nb::handle value, Place place) { self.read_cu_seqlens(value, place); }},
    {"segments", [](Options& self, nb::handle value, Place place) { self.read_segments(value, place); }},
    {"keep_mask",
     [](Options& self, nb::handle value, Place place) { self.keep_mask_.read(value, place, Wanted::mask); }},
    {"drop_mask",
     [](Options& self, nb::handle value, Place place) { self.drop_mask_.read(value, place, Wanted::mask); }},
    {"bias", [](Options& self, nb::handle value, Place place) { self.bias_.read(value, place); }},
    {"alibi_slopes", [](Options& self, nb::handle value, Place place) { self.alibi_slopes_.read_if(value, place); }},
    {"relative_bias", [](Options& self, nb::handle value, Place place) { self.read_relative_bias(value, place); }},
    {"softcap", [](Options& self, nb::handle value, Place place) { self.options_.softcap = number(value, place); }},
    {"sinks", [](Options& self, nb::handle value, Place place) { self.sinks_.read_if(value, place); }},
    {"scale",
     [](Options& self, nb::handle value, Place place) {
       self.options_.has_scale = 1;
       self.options_.scale = number(value, place);
     }},
    {"dropout", [](Options& self, nb::handle value, Place place) { self.options_.dropout = number(value, place); }},
    {"dropout_seed", [](Options& self, nb::handle value, Place place) { self.read_dropout_seed(value, place); }},
    {"dropout_stream", [](Options& self, nb::handle value, Place place) { self.read_dropout_stream(value, place); }},
    {"threads", [](Options& self, nb::handle value, Place) { self.run_.read_threads(value); }},
    {"target", [](Options& self, nb::handle value, Place) { self.run_.read_target(value); }},
};

// The reader of a name. Names that are asked for in the table's order are found at once: next is where the last one
// was, plus one.
const Options::Reader* Options::reader_of(PyObject* name, size_t& next) {
  constexpr size_t kCount = std::size(kReaders);
  static PyObject* interned[kCount] = {};
  if (!interned[0])
    for (size_t i = 0; i < kCount; ++i) interned[i] = PyUnicode_InternFromString(kReaders[i].name);
  for (size_t tried = 0; tried < kCount; ++tried) {
    const size_t i = (next + tried) % kCount;
    if (interned[i] != name && (tried == 0 || PyUnicode_Compare(interned[i], name) != 0)) continue;
    next = i + 1;
    return &kReaders[i];
  }
  return PyUnicode_Compare(interned[next % kCount], name) == 0 ? &kReaders[next % kCount] : nullptr;
}

Options::Options(const char* function, const nb::dict& given) : function_(function), run_(function) {
  mh_attention_options_init(&options_, sizeof options_);
  Py_ssize_t at = 0;
  size_t next = 0;
  PyObject *key, *value;
  while (PyDict_Next(given.ptr(), &at, &key, &value)) {
    const Reader* const found = reader_of(key, next);
    if (!found) raise(PyExc_TypeError, std::string(function) + "() got an unexpected keyword argument " + shown(key));
    if (value != Py_None) found->read(*this, value, {function, found->name});
  }
  finish();
}

void Options::align(mh_alignment alignment) {
  if (options_.alignment != MH_ALIGN_UNNAMED)
    raise(PyExc_ValueError,
          std::string(function_) +
              ": query_offset is given and causal names an alignment; both say where queries stand, and "
              "one of them is wanted");
  options_.alignment = alignment;
}

void Options::read_causal(nb::handle value, Place place) {
  if (!PyUnicode_Check(value.ptr())) {
    options_.causal = flag(value, place);
    return;
  }
  const bool top_left = is_text(value, "top_left");
  if (!top_left && !is_text(value, "bottom_right"))
    raise(PyExc_ValueError, place, "is " + shown(value) + "; False, True, \"top_left\" or \"bottom_right\" is wanted");
  options_.causal = 1;
  align(top_left ? MH_ALIGN_TOP_LEFT : MH_ALIGN_BOTTOM_RIGHT);
}

void Options::read_query_offset(nb::handle value, Place place) {
  const bool one = PyIndex_Check(value.ptr()) && !nb::hasattr(value, "__len__");
  if (one)
    options_.query_offset = integer(value, place);
  else
    query_offsets_.read_if(value, place);
  align(one ? MH_ALIGN_OFFSET : MH_ALIGN_OFFSETS);
}

void Options::read_window(nb::handle value, Place place) {
  const auto bound = [place](nb::handle side) {
    if (side.is_none()) return int64_t{-1};
    const int64_t keys = integer(side, place);
    if (keys < -1)
      raise(PyExc_ValueError, place, "has the bound " + std::to_string(keys) + "; 0 or more, or None, is wanted");
    return keys;
  };
  if (is_pair(value) || (PyList_Check(value.ptr()) && PyList_Size(value.ptr()) == 2)) {
    options_.window_left = bound(value[0]);
    options_.window_right = bound(value[1]);
  } else if (PyIndex_Check(value.ptr())) {
    options_.window_left = bound(value);
  } else {
    raise(PyExc_TypeError, place, "has type " + name_of_type(value) + "; (left, right) or an integer is wanted");
  }
}

void Options::read_window_first(nb::handle value, Place place) {
  options_.window_first = integer(value, place);
  if (options_.window_first < 0)
    raise(PyExc_ValueError, place, "is " + std::to_string(options_.window_first) + "; 0 or more first keys are wanted");
}

void Options::read_cu_seqlens(nb::handle value, Place place) {
  const bool pair = is_pair_of_lists(value);
  one_cu_seqlens_ = !pair;
  cu_seqlens_q_.read_if(pair ? nb::object(value[0]) : nb::borrow(value), place);
  cu_seqlens_k_.read_if(pair ? nb::object(value[1]) : nb::borrow(value), place);
}

void Options::read_segments(nb::handle value, Place place) {
  const bool pair = is_pair_of_lists(value);
  q_segments_.read_if(pair ? nb::object(value[0]) : nb::borrow(value), place, true);
  kv_segments_.read_if(pair ? nb::object(value[1]) : nb::borrow(value), place, true);
}

void Options::read_relative_bias(nb::handle value, Place place) {
  if (!nb::hasattr(value, "max_distance")) return table_.read(value, place);
  table_.read(value.attr("table"), {place.function, "relative_bias.table"});
  options_.relative_bidirectional = flag(value.attr("bidirectional"), {place.function, "relative_bias.bidirectional"});
  options_.relative_max_distance = integer(value.attr("max_distance"), {place.function, "relative_bias.max_distance"});
}

void Options::read_dropout_seed(nb::handle value, Place place) {
  options_.dropout_seed = word(value, place);
  has_dropout_seed_ = true;
}

void Options::read_dropout_stream(nb::handle value, Place place) {
  const uint64_t stream = word(value, place);
  if (stream > UINT32_MAX)
    raise(PyExc_ValueError, place, "is " + std::to_string(stream) + "; 0 to 4294967295 are wanted");
  options_.dropout_stream = static_cast<uint32_t>(stream);
}

void Options::keep_queries_alone() {
  if (one_cu_seqlens_) options_.cu_seqlens_k = nullptr;
}

void Options::finish() {
  if (options_.dropout != 0 && !has_dropout_seed_)
    raise(PyExc_ValueError, {function_, "dropout_seed"},
          "is missing; with dropout a seed is wanted, a new one each step");
  options_.query_offsets = query_offsets_.get();
  options_.prefixes = prefixes_.get();
  options_.lengths = lengths_.get();
  options_.cu_seqlens_q = cu_seqlens_q_.get();
  options_.cu_seqlens_k = cu_seqlens_k_.get();
  options_.q_segments = q_segments_.get();
  options_.kv_segments = kv_segments_.get();
  options_.keep_mask = keep_mask_.get();
  options_.drop_mask = drop_mask_.get();
  options_.bias = bias_.get();
  options_.alibi_slopes = alibi_slopes_.get();
  options_.sinks = sinks_.get();
  options_.relative_bias = table_.get();
  options_.run = run_.get();
}

}  // namespace face
