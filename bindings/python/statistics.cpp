// SPDX-License-Identifier: Apache-2.0
// A StatisticsRequest of Python as mh_statistics_request: which arrays are made, and what they are called.
#include "statistics.hpp"

#include <cstring>

#include "faces.hpp"

namespace face {
namespace {

struct Output {
  const char* name;
  const mh_tensor* mh_row_statistics::*field;
};
constexpr size_t kOffsets = 4, kKeys = 5, kClasses = 6, kDuplicate = 7, kInduction = 8, kTopKeys = 9, kTopWeights = 10,
                 kReceived = 11, kMap = 12;
constexpr Output kRows[Statistics::kOutputs] = {
    {"visible", &mh_row_statistics::visible},
    {"entropy", &mh_row_statistics::entropy},
    {"sum_squares", &mh_row_statistics::sum_squares},
    {"distance", &mh_row_statistics::distance},
    {"offset_mass", &mh_row_statistics::offset_mass},
    {"key_mass", &mh_row_statistics::key_mass},
    {"class_mass", &mh_row_statistics::class_mass},
    {"duplicate_mass", &mh_row_statistics::duplicate_mass},
    {"induction_mass", &mh_row_statistics::induction_mass},
    {"top_keys", &mh_row_statistics::top_keys},
    {"top_weights", &mh_row_statistics::top_weights},
    {"received", &mh_row_statistics::received},
    {"map", &mh_row_statistics::map},
};

int64_t bins(int64_t length, int64_t bin) { return length / bin + (length % bin != 0); }

nb::object list_of(const std::vector<int64_t>& values) {
  nb::list made;
  for (int64_t value : values) made.append(value);
  return made;
}

// Whether a list has True and False as its elements.
bool is_list_of_flags(nb::handle object) {
  if (!PyList_Check(object.ptr()) && !PyTuple_Check(object.ptr())) return false;
  if (PySequence_Size(object.ptr()) == 0) return false;
  return is_flag(nb::object(object[0]));
}

}  // namespace

void Statistics::read(nb::handle asked, const char* function, nb::handle ids) {
  const Place place{function, "return_statistics"};
  function_ = function;
  if (asked.is_none()) return;
  nb::object request = nb::borrow(asked);
  if (is_flag(asked)) {
    if (!flag(asked, place)) return;
    request = nb::module_::import_("multihead._types").attr("StatisticsRequest")();
  }
  if (!nb::hasattr(request, "offsets") || !nb::hasattr(request, "norm_weighted"))
    raise(PyExc_TypeError, place, "has type " + name_of_type(asked) + "; True or a StatisticsRequest is wanted");
  wanted_ = true;
  mh_statistics_request_init(&request_, sizeof request_);
  offsets_.read_if(request.attr("offsets"), {function, "return_statistics.offsets"});
  keys_.read_if(request.attr("keys"), {function, "return_statistics.keys"});
  read_tokens(request.attr("tokens"), ids);
  asked_classes_ = request.attr("classes");
  if (!asked_classes_.is_none()) {
    if (!PyDict_Check(asked_classes_.ptr()))
      raise(PyExc_TypeError, {function, "return_statistics.classes"},
            "has type " + name_of_type(asked_classes_) + "; a dict of names and keys is wanted");
    if (PyDict_Size(asked_classes_.ptr()) > 32)
      raise(PyExc_ValueError, {function, "return_statistics.classes"},
            "has " + std::to_string(PyDict_Size(asked_classes_.ptr())) + " classes; at most 32 are wanted");
  }
  top_ = integer(request.attr("top"), {function, "return_statistics.top"});
  if (top_ < 0 || top_ > 64)
    raise(PyExc_ValueError, {function, "return_statistics.top"}, "is " + std::to_string(top_) + "; 0 to 64 are wanted");
  received_ = flag(request.attr("received"), {function, "return_statistics.received"});
  request_.bin = integer(request.attr("bin"), {function, "return_statistics.bin"});
  if (request_.bin < 0)
    raise(PyExc_ValueError, {function, "return_statistics.bin"},
          "is " + std::to_string(request_.bin) + "; 0, 16, 32, 64 or a multiple of 128 is wanted");
  norms_.read_if(request.attr("norms"), {function, "return_statistics.norms"});
  weighted_ = flag(request.attr("norm_weighted"), {function, "return_statistics.norm_weighted"});
}

void Statistics::read_tokens(nb::handle tokens, nb::handle ids) {
  const Place place{function_, "return_statistics.tokens"};
  if (tokens.is_none() || tokens.is(Py_False)) return;
  if (tokens.is(Py_True)) {
    if (!ids.is_valid()) raise(PyExc_ValueError, place, "is True, and the call has no ids; they must be given");
    q_tokens_.read_if(ids, place, true);
    kv_tokens_.read_if(ids, place, true);
    return;
  }
  const bool pair =
      PyTuple_Check(tokens.ptr()) && PyTuple_Size(tokens.ptr()) == 2 && nb::hasattr(nb::object(tokens[0]), "__len__");
  q_tokens_.read_if(pair ? nb::object(tokens[0]) : nb::borrow(tokens), place, true);
  kv_tokens_.read_if(pair ? nb::object(tokens[1]) : nb::borrow(tokens), place, true);
}

// keys: a mask, (kv_len) or (batch, kv_len), or the numbers of keys in every batch entry.
void Statistics::read_class(nb::handle keys, Place place, uint32_t bit) {
  const int64_t batch = extents_.batch, kv_len = extents_.kv_len;
  const auto mark = [&](int64_t entry, int64_t key) { key_classes_[static_cast<size_t>(entry * kv_len + key)] |= bit; };
  Array array;
  const bool is_array = !PyList_Check(keys.ptr()) && !PyTuple_Check(keys.ptr()) && array.open(keys, place);
  if (is_array && array.tensor().type == MH_BOOL) {
    const mh_tensor& mask = array.tensor();
    const bool rows = mask.rank == 2;
    if (mask.rank > 2 || mask.shape[mask.rank - 1] != kv_len || (rows && mask.shape[0] != batch))
      raise(PyExc_ValueError, place,
            "is a mask of another shape; (" + std::to_string(kv_len) + ") or (" + std::to_string(batch) + ", " +
                std::to_string(kv_len) + ") is wanted");
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t key = 0; key < kv_len; ++key)
        if (static_cast<const char*>(mask.data)[(rows ? b * mask.strides[0] : 0) + key * mask.strides[mask.rank - 1]])
          mark(b, key);
    return;
  }
  std::vector<int64_t> numbers;
  if (is_list_of_flags(keys)) {
    const Py_ssize_t count = PySequence_Size(keys.ptr());
    if (count != kv_len)
      raise(PyExc_ValueError, place,
            "is a mask of " + std::to_string(count) + " keys; " + std::to_string(kv_len) + " are wanted");
    for (Py_ssize_t key = 0; key < count; ++key)
      if (flag(nb::object(keys[key]), place)) numbers.push_back(key);
  } else {
    Integers list;
    list.read_if(keys, place);
    numbers = list.values();
  }
  for (int64_t key : numbers) {
    if (key < 0 || key >= kv_len)
      raise(PyExc_ValueError, place,
            "has the key " + std::to_string(key) + "; 0 to " + std::to_string(kv_len - 1) + " are wanted");
    for (int64_t b = 0; b < batch; ++b) mark(b, key);
  }
}

void Statistics::read_classes(nb::handle classes) {
  key_classes_.assign(static_cast<size_t>(extents_.batch * extents_.kv_len), 0);
  Py_ssize_t at = 0;
  PyObject *key, *value;
  uint32_t bit = 1;
  while (PyDict_Next(classes.ptr(), &at, &key, &value)) {
    class_names_.emplace_back(text(key, {function_, "a name in return_statistics.classes"}));
    const std::string name = "return_statistics.classes[\"" + class_names_.back() + "\"]";
    read_class(value, {function_, name.c_str()}, bit);
    bit <<= 1;
  }
  key_classes_.reserve(1);  // of no keys: an address too
  classes_ = {key_classes_.data(), MH_UINT32, 2, {extents_.batch, extents_.kv_len}, {extents_.kv_len, 1}};
}

int64_t Statistics::width(size_t output) const {
  switch (output) {
    case kOffsets:
      return offsets_.size();
    case kKeys:
      return keys_.size();
    case kClasses:
      return static_cast<int64_t>(class_names_.size());
    case kDuplicate:
    case kInduction:
      return q_tokens_.given() && kv_tokens_.given();
    case kTopKeys:
    case kTopWeights:
      return top_;
    case kReceived:
      return received_;
    case kMap:
      return request_.bin;
    default:
      return 1;
  }
}

void Statistics::make_rows(Rows& rows, Kind kind, mh_type type) {
  mh_row_statistics_init(&rows.statistics, sizeof rows.statistics);
  for (size_t i = 0; i < kOutputs; ++i) {
    const int64_t wide = width(i);
    if (wide == 0) continue;
    int64_t shape[] = {extents_.batch, extents_.heads, i == kReceived ? extents_.kv_len : extents_.q_len, wide};
    if (i == kMap) shape[2] = bins(extents_.q_len, wide), shape[3] = bins(extents_.kv_len, wide);
    const bool per_row = i < kOffsets || i == kDuplicate || i == kInduction || i == kReceived;
    const int rank = (per_row ? 3 : 4) - extents_.batchless;
    Result& output = rows.outputs[i];
    output.make({function_, kRows[i].name}, kind, i == kTopKeys ? MH_INT64 : type, rank, shape + extents_.batchless);
    if (extents_.batchless) output.array.add_axis();
    rows.statistics.*kRows[i].field = output.array.get();
  }
}

void Statistics::make(Kind kind, mh_type type, const Weights::Extents& extents) {
  if (!wanted_) return;
  extents_ = extents;
  const bool classes = !asked_classes_.is_none() && PyDict_Size(asked_classes_.ptr()) > 0;
  if (classes) read_classes(asked_classes_);
  make_rows(plain_, kind, type);
  if (weighted_) make_rows(norm_weighted_, kind, type);
  request_.offsets = offsets_.size() ? offsets_.get() : nullptr;
  request_.keys = keys_.size() ? keys_.get() : nullptr;
  request_.key_classes = classes ? &classes_ : nullptr;
  request_.q_tokens = q_tokens_.get();
  request_.kv_tokens = kv_tokens_.get();
  if (norms_.given() && extents.batchless && norms_.rank() == 2) norms_.add_axis();
  request_.norms = norms_.get();
  request_.plain = &plain_.statistics;
  request_.norm_weighted = weighted_ ? &norm_weighted_.statistics : nullptr;
}

nb::object Statistics::result() const {
  const auto arrays = [](const Rows& rows) {
    nb::dict made;
    for (size_t i = 0; i < kOutputs; ++i)
      if (rows.outputs[i].object.is_valid()) made[kRows[i].name] = rows.outputs[i].object;
    return made;
  };
  nb::list names;
  for (const std::string& name : class_names_) names.append(nb::str(name.c_str()));
  nb::dict made;
  made["extents"] = nb::make_tuple(extents_.batch, extents_.heads, extents_.q_len, extents_.kv_len);
  made["batchless"] = extents_.batchless;
  made["offsets"] = list_of(offsets_.values());
  made["keys"] = list_of(keys_.values());
  made["classes"] = names;
  made["bin"] = request_.bin;
  made["plain"] = arrays(plain_);
  if (weighted_) made["norm_weighted"] = arrays(norm_weighted_);
  return made;
}

namespace {

// weights (batch, heads, q_len, kv_len) or without its first axis.
nb::object statistics_of_weights(nb::handle weights, nb::handle asked, nb::handle query_offset) {
  const char* const name = "statistics_of_weights";
  Array array;
  array.read(weights, {name, "weights"});
  if (array.rank() != 3 && array.rank() != 4)
    raise(PyExc_ValueError, {name, "weights"}, "has rank " + std::to_string(array.rank()) + "; 3 or 4 is wanted");
  const bool batchless = array.rank() == 3;
  if (batchless) array.add_axis();
  Statistics statistics;
  statistics.read(asked, name);
  if (!statistics.wanted()) raise(PyExc_ValueError, {name, "request"}, "asks for nothing");
  const int64_t offset = integer(query_offset, {name, "query_offset"});
  statistics.make(array.kind(), array.tensor().type,
                  {array.extent(0), array.extent(1), array.extent(2), array.extent(3), batchless});
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_statistics_of_weights(array.get(), statistics.get(), offset);
  }
  check(status);
  return statistics.result();
}

}  // namespace

void add_statistics(nb::module_& module) {
  module.def("statistics_of_weights", &statistics_of_weights, nb::arg().none(), nb::arg().none(), nb::arg().none());
}

}  // namespace face
