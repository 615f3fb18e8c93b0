// SPDX-License-Identifier: Apache-2.0
// The module _core: functions and classes that the Python files of the package give names, types and documentation.
#include "faces.hpp"

NB_MODULE(_core, module) {
  nanobind::set_leak_warnings(false);  // a thread of the interpreter's end may hold a layer: nothing is printed for it
  face::add_machine(module);
  face::add_attention(module);
  face::add_attention_backward(module);
  face::add_paged(module);
  face::add_statistics(module);
  face::add_inspect(module);
  face::add_projections(module);
  face::add_layer(module);
  face::add_kv_cache(module);
  face::add_encoder(module);
  face::add_byte_pair(module);
  face::add_decoder(module);
  face::add_generator(module);
}
