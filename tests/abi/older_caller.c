// SPDX-License-Identifier: Apache-2.0
// A program of the last release: compiled from its header, linked with today's library. Every struct is of that
// header's size and holds the defaults, and every call must succeed. Arguments: the struct whose size is made one that
// no release had, or "-"; a folder with an encoder, if the library has any.
#include <stdio.h>
#include <string.h>

#include "multihead.h"

static const char* spoiled;

#define MADE(type, name) \
  type name;             \
  type##_init(&name, sizeof name - (strcmp(spoiled, #type) == 0))

static int check(mh_status status) {
  if (status != MH_OK) printf("%s: %s\n", mh_status_string(status), mh_last_error_message());
  return status == MH_OK;
}

static float numbers[16] = {1, 0, 0, 1}, results[4096];

static mh_tensor tensor(float* data, int32_t rank, int64_t a, int64_t b, int64_t c, int64_t d) {
  mh_tensor made;
  int64_t shape[4];
  shape[0] = a, shape[1] = b, shape[2] = c, shape[3] = d;
  check(mh_tensor_init(&made, data, MH_FLOAT32, rank, shape));
  return made;
}

static int attends(void) {
  const mh_tensor q = tensor(numbers, 4, 1, 1, 2, 2), out = tensor(results, 4, 1, 1, 2, 2);
  const mh_tensor lse = tensor(numbers, 3, 1, 1, 2, 0), d_q = tensor(results, 4, 1, 1, 2, 2);
  const mh_tensor X = tensor(numbers, 2, 2, 2, 0, 0), output = tensor(results, 2, 2, 2, 0, 0);
  size_t bytes;
  MADE(mh_info, info);
  MADE(mh_run_options, run);
  MADE(mh_attention_options, options);
  MADE(mh_weights_request, weights);
  MADE(mh_row_statistics, rows);
  MADE(mh_statistics_request, statistics);
  MADE(mh_attention_gradients, gradients);
  MADE(mh_attention_shape, shape);
  MADE(mh_attention_plan, plan);
  statistics.plain = &rows, gradients.q = &d_q;
  shape.q_len = shape.kv_len = shape.head_dim = shape.value_dim = 2;
  return check(mh_get_info(&info)) && check(mh_attention(&q, &q, &q, &out, NULL, &weights, &options)) &&
         check(mh_attention_statistics(&q, &q, &q, &out, NULL, NULL, &statistics, &options)) &&
         check(mh_attention_backward(&q, &q, &q, &q, &lse, &q, NULL, &gradients, &options)) &&
         check(mh_self_attention(&X, &X, &X, &X, &output, NULL, &run)) &&
         check(mh_attention_scratch_bytes(&shape, &options, 0, &bytes)) && check(mh_explain(&shape, &options, &plan));
}

static int runs_a_layer(void) {
  const mh_tensor weight = tensor(numbers, 2, 2, 2, 0, 0), query = tensor(numbers, 3, 1, 2, 2, 0);
  const mh_tensor output = tensor(results, 3, 1, 2, 2, 0);
  mh_layer* layer = NULL;
  int works;
  MADE(mh_layer_spec, spec);
  MADE(mh_layer_weights, weights);
  MADE(mh_layer_extents, extents);
  MADE(mh_layer_options, options);
  MADE(mh_layer_requests, requests);
  spec.type = MH_FLOAT32, spec.heads = 1, spec.order = MH_ORDER_IN_OUT;
  weights.q = weights.k = weights.v = weights.out = &weight;
  works = check(mh_layer_create(&spec, &weights, &layer)) && check(mh_layer_get_extents(layer, &extents)) &&
          check(mh_layer_forward(layer, &query, NULL, NULL, &output, &options, &requests));
  mh_layer_destroy(layer);
  return works;
}

static int keeps_a_cache(void) {
  const mh_tensor q = tensor(numbers, 4, 1, 1, 2, 2), out = tensor(results, 4, 1, 1, 2, 2);
  int32_t page = 0;
  int64_t length = 2, one = 1, table_shape[2] = {1, 1};
  mh_tensor table, lengths;
  mh_kv_cache* cache = NULL;
  mh_kv_sequence sequence = 0;
  int works;
  MADE(mh_kv_cache_spec, spec);
  MADE(mh_paged_keys, keys);
  spec.kv_heads = 1, spec.head_dim = 2, spec.pages = 1, spec.page_len = 32;
  keys.block_table = &table, keys.lengths = &lengths;
  works = check(mh_tensor_init(&table, &page, MH_INT32, 2, table_shape)) &&
          check(mh_tensor_init(&lengths, &length, MH_INT64, 1, &one)) && check(mh_kv_cache_create(&spec, &cache)) &&
          check(mh_kv_cache_add(cache, &sequence)) && check(mh_kv_cache_append(cache, 0, &sequence, 1, &q, &q, NULL)) &&
          check(mh_kv_cache_attention(cache, 0, &sequence, 1, &q, &out, NULL, NULL));
  if (works) {
    mh_tensor pages = tensor(numbers, 4, 1, 2, 1, 2);
    keys.k_pages = keys.v_pages = &pages;
    works = check(mh_paged_attention(&q, &keys, &out, NULL, NULL));
  }
  mh_kv_cache_destroy(cache);
  return works;
}

static int runs_an_encoder(const char* folder) {
  int64_t id = 0, one = 1;
  mh_tensor ids, output;
  mh_encoder* encoder = NULL;
  int works;
  MADE(mh_encoder_options, options);
  MADE(mh_encoder_extents, extents);
  MADE(mh_encoder_call, call);
  works = check(mh_tensor_init(&ids, &id, MH_INT64, 1, &one)) &&
          check(mh_encoder_open_with(folder, &options, &encoder)) && check(mh_encoder_get_extents(encoder, &extents));
  if (works) {
    output = tensor(results, 2, 1, extents.model_dim, 0, 0);
    call.ids = &ids;
    works = check(mh_encoder_forward(encoder, &call, &output, NULL));
  }
  mh_encoder_destroy(encoder);
  return works;
}

int main(int count, char** arguments) {
  if (count < 2) return 2;
  spoiled = arguments[1];
  return attends() && runs_a_layer() && keeps_a_cache() && (count < 3 || runs_an_encoder(arguments[2])) ? 0 : 1;
}
