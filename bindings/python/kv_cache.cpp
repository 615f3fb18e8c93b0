// SPDX-License-Identifier: Apache-2.0
// KvCache of the module: keys and values that grow with their sequences, and attention over them.
#include "kv_cache.hpp"

#include <nanobind/stl/unique_ptr.h>

#include "faces.hpp"
#include "inputs.hpp"

namespace face {

std::vector<mh_kv_sequence> names_of(nb::handle sequences, Place place) {
  if (PyLong_Check(sequences.ptr())) return {word(sequences, place)};
  Integers names;
  names.read_if(sequences, place);
  if (!names.given()) raise(PyExc_TypeError, place, "is None; names of sequences are wanted");
  return {names.values().begin(), names.values().end()};
}

namespace {

// extents: (layers, kv_heads, head_dim, value_dim, pages, page_len). kept: (window, first). stored: (storage, scales,
// k_scales, v_scales).
std::unique_ptr<Cache> create(const nb::tuple& extents, const nb::tuple& kept, const nb::tuple& stored) {
  constexpr const char* kName = "KvCache";
  auto made = std::make_unique<Cache>();
  mh_kv_cache_spec& spec = made->spec;
  mh_kv_cache_spec_init(&spec, sizeof spec);
  spec.layers = integer(extents[0], {kName, "layers"});
  spec.kv_heads = integer(extents[1], {kName, "kv_heads"});
  spec.head_dim = spec.value_dim = integer(extents[2], {kName, "head_dim"});
  if (!nb::handle(extents[3]).is_none()) {
    spec.value_dim = integer(extents[3], {kName, "value_dim"});
    if (spec.value_dim == 0) raise(PyExc_ValueError, {kName, "value_dim"}, "is 0; it must be 1 to 1024");
  }
  spec.pages = integer(extents[4], {kName, "pages"});
  spec.page_len = integer(extents[5], {kName, "page_len"});
  if (!nb::handle(kept[0]).is_none()) {
    spec.window = integer(kept[0], {kName, "window"});
    if (spec.window < 0)
      raise(PyExc_ValueError, {kName, "window"}, "is " + std::to_string(spec.window) + "; it may not be negative");
  }
  spec.first = integer(kept[1], {kName, "first"});
  spec.storage = choice(stored[0], {kName, "storage"}, {"float32", "bfloat16", "float16", "int8"});
  spec.scales = choice(stored[1], {kName, "scales"}, {"per_token", "per_channel"});
  Array k_scales, v_scales;
  k_scales.read_if(stored[2], {kName, "k_scales"});
  v_scales.read_if(stored[3], {kName, "v_scales"});
  spec.k_scales = k_scales.get(), spec.v_scales = v_scales.get();
  mh_kv_cache* cache = nullptr;
  const mh_status status = mh_kv_cache_create(&spec, &cache);
  made->handle.reset(cache);
  spec.k_scales = spec.v_scales = nullptr;
  check(status);
  return made;
}

uint64_t add(Cache& cache) {
  mh_kv_sequence made = 0;
  cache.change([&](mh_kv_cache* handle) { return mh_kv_cache_add(handle, &made); });
  return made;
}

uint64_t fork(Cache& cache, nb::handle sequence, nb::handle length) {
  constexpr const char* kName = "KvCache.fork";
  const mh_kv_sequence source = word(sequence, {kName, "sequence"});
  const int64_t wanted = length.is_none() ? -1 : integer(length, {kName, "length"});
  if (!length.is_none() && wanted < 0)
    raise(PyExc_ValueError, {kName, "length"}, "is " + std::to_string(wanted) + "; it may not be negative");
  mh_kv_sequence made = 0;
  cache.change([&](mh_kv_cache* handle) { return mh_kv_cache_fork(handle, source, wanted, &made); });
  return made;
}

void remove(Cache& cache, nb::handle sequence) {
  const mh_kv_sequence name = word(sequence, {"KvCache.remove", "sequence"});
  cache.change([&](mh_kv_cache* handle) { return mh_kv_cache_remove(handle, name); });
}

void truncate(Cache& cache, nb::handle sequence, nb::handle length) {
  const mh_kv_sequence name = word(sequence, {"KvCache.truncate", "sequence"});
  const int64_t wanted = integer(length, {"KvCache.truncate", "length"});
  cache.change([&](mh_kv_cache* handle) { return mh_kv_cache_truncate(handle, name, wanted); });
}

int64_t length_of(const Cache& cache, nb::handle sequence, nb::handle layer) {
  const mh_kv_sequence name = word(sequence, {"KvCache.length", "sequence"});
  const int64_t number = integer(layer, {"KvCache.length", "layer"});
  int64_t length = 0;
  cache.look([&](const mh_kv_cache* handle) { return mh_kv_cache_length(handle, name, number, &length); });
  return length;
}

nb::tuple given_back(const Cache& cache, nb::handle sequence) {
  const mh_kv_sequence name = word(sequence, {"KvCache.given_back", "sequence"});
  int64_t begin = 0, end = 0;
  cache.look([&](const mh_kv_cache* handle) { return mh_kv_cache_given_back(handle, name, &begin, &end); });
  return nb::make_tuple(begin, end);
}

// call: (cu_seqlens, layout).
void append(Cache& cache, nb::handle layer, nb::handle sequences, const nb::tuple& rows, const nb::tuple& call) {
  constexpr const char* kName = "KvCache.append";
  const int64_t number = integer(layer, {kName, "layer"});
  const std::vector<mh_kv_sequence> names = names_of(sequences, {kName, "sequences"});
  Inputs inputs;
  inputs.read_layout(call[1], kName);
  inputs.read_first(rows[0], {kName, "k"});
  inputs.read(rows[1], inputs.v, {kName, "v"});
  Integers cu_seqlens;
  cu_seqlens.read_if(call[0], {kName, "cu_seqlens"});
  cache.change([&](mh_kv_cache* handle) {
    return mh_kv_cache_append(handle, number, names.data(), names.size(), inputs.q.get(), inputs.v.get(),
                              cu_seqlens.get());
  });
}

// call: (layout, out, return_lse).
nb::object attend(const Cache& cache, nb::handle q, nb::handle layer, nb::handle sequences, const nb::tuple& call,
                  const nb::dict& given) {
  constexpr const char* kName = "attention";
  const int64_t number = integer(layer, {kName, "layer"});
  const std::vector<mh_kv_sequence> names = names_of(sequences, {kName, "sequences"});
  Inputs inputs;
  inputs.read_layout(call[0], kName);
  inputs.read_first(q, {kName, "q"});
  Options options(kName, given);
  options.keep_queries_alone();
  const mh_tensor& rows = inputs.q.tensor();
  Result out, lse;
  if (nb::handle(call[1]).is_none())
    inputs.make(out, rows.type, {rows.shape[0], rows.shape[1], rows.shape[2], cache.spec.value_dim}, {kName, "out"});
  else
    inputs.make_out(out, call[1], {kName, "out"});
  if (flag(call[2], {kName, "return_lse"})) inputs.make_lse(lse, {kName, "lse"});
  cache.look([&](const mh_kv_cache* handle) {
    double positions = 0;
    int64_t length = 0;
    for (const mh_kv_sequence name : names)
      if (mh_kv_cache_length(handle, name, number, &length) == MH_OK) positions += static_cast<double>(length);
    options.run().set_work(2 * positions * static_cast<double>(rows.shape[1] * rows.shape[2] * rows.shape[3]));
    return mh_kv_cache_attention(handle, number, names.data(), names.size(), inputs.q.get(), out.array.get(),
                                 lse.array.get(), options.get());
  });
  return lse.object.is_valid() ? nb::object(nb::make_tuple(out.object, lse.object)) : out.object;
}

// call: (first, count, out).
nb::tuple read(const Cache& cache, nb::handle layer, nb::handle sequence, const nb::tuple& call) {
  constexpr const char* kName = "KvCache.read";
  const int64_t number = integer(layer, {kName, "layer"}), first = integer(call[0], {kName, "first"});
  const mh_kv_sequence name = word(sequence, {kName, "sequence"});
  Result k, v;
  const nb::handle out = call[2];
  if (out.is_none()) {
    int64_t count = 0;
    if (nb::handle(call[1]).is_none()) {
      cache.look([&](const mh_kv_cache* handle) { return mh_kv_cache_length(handle, name, number, &count); });
      count = std::max<int64_t>(count - first, 0);
    } else {
      count = integer(call[1], {kName, "count"});
      if (count < 0)
        raise(PyExc_ValueError, {kName, "count"}, "is " + std::to_string(count) + "; it may not be negative");
    }
    constexpr mh_type kTypes[] = {MH_FLOAT32, MH_BFLOAT16, MH_FLOAT16, MH_FLOAT32};
    const mh_type type = kTypes[cache.spec.storage];
    const int64_t k_shape[] = {cache.spec.kv_heads, count, cache.spec.head_dim};
    const int64_t v_shape[] = {cache.spec.kv_heads, count, cache.spec.value_dim};
    k.make({kName, "k"}, Kind::numpy, type, 3, k_shape);
    v.make({kName, "v"}, Kind::numpy, type, 3, v_shape);
  } else {
    if (!nb::handle(call[1]).is_none())
      raise(PyExc_ValueError, {kName, "count"}, "is given beside out, whose arrays say how many positions are read");
    if (!PyTuple_Check(out.ptr()) || PyTuple_Size(out.ptr()) != 2)
      raise(PyExc_TypeError, {kName, "out"}, "is " + name_of_type(out) + "; a pair of arrays is wanted");
    k.take(PyTuple_GetItem(out.ptr(), 0), {kName, "k"});
    v.take(PyTuple_GetItem(out.ptr(), 1), {kName, "v"});
  }
  cache.look([&](const mh_kv_cache* handle) {
    return mh_kv_cache_read(handle, number, name, first, k.array.get(), v.array.get());
  });
  return nb::make_tuple(k.object, v.object);
}

int64_t free_pages(const Cache& cache) {
  int64_t pages = 0;
  cache.look([&](const mh_kv_cache* handle) { return mh_kv_cache_free_pages(handle, &pages); });
  return pages;
}

int64_t sequences(const Cache& cache) {
  int64_t count = 0;
  cache.look([&](const mh_kv_cache* handle) { return mh_kv_cache_sequences(handle, &count); });
  return count;
}

// path: as os.fsencode gives it.
void save(const Cache& cache, const nb::bytes& path, nb::handle sequence) {
  const mh_kv_sequence name = word(sequence, {"save_sequence", "sequence"});
  cache.look([&](const mh_kv_cache* handle) { return mh_kv_cache_save(handle, name, path.c_str()); });
}

uint64_t load(Cache& cache, const nb::bytes& path) {
  mh_kv_sequence made = 0;
  cache.change([&](mh_kv_cache* handle) { return mh_kv_cache_load(handle, path.c_str(), &made); });
  return made;
}

}  // namespace

void add_kv_cache(nb::module_& module) {
  nb::class_<Cache>(module, "KvCache")
      .def_static("create", &create)
      .def("add", &add)
      .def("fork", &fork, nb::arg(), nb::arg().none())
      .def("remove", &remove, nb::arg().none())
      .def("truncate", &truncate, nb::arg().none(), nb::arg().none())
      .def("length", &length_of, nb::arg().none(), nb::arg().none())
      .def("given_back", &given_back, nb::arg().none())
      .def("append", &append, nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg())
      .def("attention", &attend, nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg())
      .def("read", &read, nb::arg().none(), nb::arg().none(), nb::arg())
      .def("save", &save, nb::arg(), nb::arg().none())
      .def("load", &load)
      .def_prop_ro("free_pages", &free_pages)
      .def_prop_ro("sequences", &sequences);
}

}  // namespace face
