// SPDX-License-Identifier: Apache-2.0
// What the files of the module add to it.
#pragma once

#include <nanobind/nanobind.h>

namespace face {

void add_attention(nanobind::module_& module);
void add_attention_backward(nanobind::module_& module);
void add_paged(nanobind::module_& module);
void add_projections(nanobind::module_& module);
void add_statistics(nanobind::module_& module);
void add_inspect(nanobind::module_& module);
void add_kv_cache(nanobind::module_& module);
void add_layer(nanobind::module_& module);
void add_encoder(nanobind::module_& module);
void add_byte_pair(nanobind::module_& module);
void add_decoder(nanobind::module_& module);
void add_generator(nanobind::module_& module);
void add_machine(nanobind::module_& module);

}  // namespace face
