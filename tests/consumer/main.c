// SPDX-License-Identifier: Apache-2.0
// A user of the installed C library: a layer of two heads on two words, and what would run for a longer text.
#include <multihead/multihead.h>
#include <stdio.h>
#include <stdlib.h>

static void check(mh_status status) {
  if (status == MH_OK) return;
  fprintf(stderr, "%s: %s\n", mh_status_string(status), mh_last_error_message());
  exit(EXIT_FAILURE);
}

static mh_tensor tensor(double* data, int32_t rank, int64_t a, int64_t b, int64_t c) {
  int64_t shape[3];
  mh_tensor made;
  shape[0] = a, shape[1] = b, shape[2] = c;
  check(mh_tensor_init(&made, data, MH_FLOAT64, rank, shape));
  return made;
}

int main(void) {
  double x[] = {1, 0, 1, 0, 1, 1}, y[6];
  double wq[] = {1, 0, 2, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 2};
  double wk[] = {0, 1, 1, 1, 2, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 2, 0, 1};
  double wv[] = {1, 2, 0, 0, 1, 1, 0, 1, 1, 2, 0, 1, 1, 0, 1, 1, 1, 0};
  double wo[] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1};
  const mh_tensor q = tensor(wq, 2, 3, 6, 0), k = tensor(wk, 2, 3, 6, 0), v = tensor(wv, 2, 3, 6, 0);
  const mh_tensor out = tensor(wo, 2, 6, 3, 0), query = tensor(x, 3, 1, 2, 3), output = tensor(y, 3, 1, 2, 3);
  mh_layer_spec spec;
  mh_layer_weights weights;
  mh_layer* layer;
  int row;

  mh_layer_spec_init(&spec, sizeof spec);
  spec.type = MH_FLOAT64, spec.heads = 2, spec.order = MH_ORDER_IN_OUT;
  mh_layer_weights_init(&weights, sizeof weights);
  weights.q = &q, weights.k = &k, weights.v = &v, weights.out = &out;
  check(mh_layer_create(&spec, &weights, &layer));
  check(mh_layer_forward(layer, &query, NULL, NULL, &output, NULL, NULL));
  mh_layer_destroy(layer);
  for (row = 0; row < 2; ++row) printf("%.6f %.6f %.6f\n", y[3 * row], y[3 * row + 1], y[3 * row + 2]);
  return 0;
}
